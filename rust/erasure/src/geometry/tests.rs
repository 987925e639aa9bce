use proptest::prelude::*;

use super::*;
use crate::matrix::tests::subsets;

fn of(text: &str) -> Geometry {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_level_parses_bare_and_prints_what_parses_to_the_same() {
    for name in levels() {
        let geometry = of(name);
        assert_eq!(of(&geometry.to_string()), geometry, "{name} as {geometry}");
        assert!(geometry.drives() >= 1);
        assert_ne!(geometry.storable(), geometry.not_storable_reason().is_some());
    }
}

#[test]
fn canonical_forms() {
    for (text, canonical) in [
        ("4+2", "4+2"),
        ("rs:4+2", "4+2"),
        ("4+2@9", "4+2@9"),
        (" 10 + 4 ", "10+4"),
        ("raid6:8", "raid6:8"),
        ("RAID 6:6+2", "raid6:8"),
        ("5:4", "raid5:4"),
        ("raid50:2x(4+1)", "raid50:2x(4+1)"),
        ("raid0:2x(raid5:5)", "raid50:2x(4+1)"),
        ("raid50:10", "raid50:2x(4+1)"),
        ("raid10:6", "raid10:3x(2)"),
        ("raid10:2x3", "raid10:2x(3)"),
        ("1+0:4", "raid10:2x(2)"),
        ("raid01:2x(3)", "raid01:2x(3)"),
        ("mirror:2x(raid0:3)", "raid01:2x(3)"),
        ("raid100:8", "raid100:2x(2x(2))"),
        ("lrc:12+2+2", "lrc:12+2+2"),
        ("mirror:3", "mirror:3"),
        ("raid1:3", "mirror:3"),
        ("Z2:6", "raidz2:6"),
        ("7.m:8+3", "raid7.m:8+3"),
        ("mirror:2x(raid5:3)", "mirror:2x(raid5:3)"),
        ("raid0:3x(lrc:4+2+1)", "raid0:3x(lrc:4+2+1)"),
        ("jbod:4", "jbod:4"),
        // The name of a tree is part of the name of the tree around it.
        ("mirror:2x(raid0:2x(raid0:2))", "raid01:2x(2x(raid0:2))"),
        ("raid0:2x(raid5:3x(mirror:2))", "raid50:2x(3x(mirror:2))"),
        ("raid0:2x(raid0:3x(mirror:2x(raid5:3)))", "raid100:2x(3x(2x(raid5:3)))"),
    ] {
        assert_eq!(of(text).to_string(), canonical, "{text}");
        assert_eq!(of(canonical), of(text), "{text}");
    }
}

/// Trees of every sort, most of them possible.
fn trees() -> impl Strategy<Value = String> {
    let leaf = (any::<prop::sample::Index>(), 1usize..9, 0usize..4, 0usize..5).prop_map(
        |(name, n, m, wide)| {
            let name = levels()[name.index(levels().len())];
            match wide {
                0 => name.to_owned(),
                1 => format!("{name}:{n}+{m}"),
                2 => format!("{name}:{n}+1+{m}@{}", n + m + 3),
                3 => format!("{n}+{m}@{}", n + m + 2),
                _ => format!("{name}:{}", n + m),
            }
        },
    );
    leaf.prop_recursive(4, 5, 1, |inner| {
        (any::<prop::sample::Index>(), 1usize..5, inner).prop_map(|(name, legs, inner)| {
            let likely =
                ["raid0", "mirror", "raid5", "raid6", "raid3", "raid10", "raid01", "raid50"];
            format!("{}:{legs}x({inner})", likely[name.index(likely.len())])
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 5 } else { 3000 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// A pool keeps the printed form: a tree that did not come back would be a store that does not open.
    #[test]
    fn whatever_parses_prints_what_parses_to_the_same(text in trees()) {
        if let Ok(geometry) = Geometry::parse(&text) {
            let printed = geometry.to_string();
            let again = Geometry::parse(&printed);
            prop_assert_eq!(again.as_ref().ok(), Some(&geometry), "{} as {}: {:?}", text, printed, again);
        }
    }

    #[test]
    fn any_text_is_a_geometry_or_a_short_refusal(text in "\\PC{0,40}|[0-9x+:@() .a-z]{0,60}|([a-z0-9:]{1,8}x\\(){0,400}") {
        if let Err(error) = Geometry::parse(&text) {
            prop_assert!(error.is(&codes::GEOMETRY_INVALID));
            prop_assert!(error.to_string().len() < 2000);
        }
    }
}

#[test]
fn what_is_no_geometry_is_refused_with_a_sentence() {
    for text in [
        "",
        "4+",
        "+2",
        "4+0",
        "0+2",
        "200+100",
        "raid6:2",
        "raid5:1",
        "mirror:1",
        "mirror:0",
        "raid9:4",
        "lrc:4+5+1",
        "lrc:4+2",
        "raid50:7",
        "raid50:0x(4+1)",
        "raid50:2x(4+2)",
        "raid10:3",
        "4+2@5",
        "raid6:8@9",
        "raid2:5",
        "dup:2",
        "raid5e:2",
        "-1+2",
        "4+2+",
        "99999999999999999999+2",
        "raid50:99999x(4+1)",
        "raid50:+2x(4+1)",
        "4+2@+9",
        "٤+٢",
        "((((",
        "raid0:2x(",
        "x",
        "2x",
        "raid0:2x(raid0:2x(raid0:2x(raid0:2x(raid0:2x(raid0:2x(raid0:2x(raid0:2x(raid0:2x(4+2)))))))))",
    ] {
        let error = Geometry::parse(text).expect_err(text);
        assert!(error.is(&codes::GEOMETRY_INVALID), "{text}: {error}");
    }
}

#[test]
fn a_refusal_says_what_is_wrong() {
    for (text, why) in [
        ("jbod:65537", "65537 is more than 65536 drives"),
        ("4+99999999999999999999", "more than 65536"),
        ("raid6:", "a number is missing"),
        ("4+", "a number is missing"),
        ("raid50:2x(4+1", "parenthesis"),
        ("raid6:8)", "parenthesis"),
        ("jbod:0", "between 1 and 65536 drives"),
        ("raid0:256", "between 1 and 255 drives"),
        (&"raid0:2x(".repeat(9), "parenthesis"),
        (&"x".repeat(100_000), "longer than"),
    ] {
        let error = Geometry::parse(text).expect_err(text).to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn tolerance_is_the_largest_number_of_arbitrary_drives() {
    let mut names: Vec<String> = levels().into_iter().map(String::from).collect();
    for more in [
        "raid01:2x(3)",
        "raid10:3x(2)",
        "raid10:2x(3)",
        "md10:5",
        "raid1e:5",
        "md10far:4",
        "raid60:2x(3+2)",
        "raid5:3x(mirror:2)",
        "mirror:2x(raid5:3)",
        "raid6:4x(raid0:2)",
        "raid2:8",
        "md10:4",
    ] {
        names.push(more.to_owned());
    }
    for name in names {
        let geometry = of(&name);
        let (n, t) = (geometry.drives(), geometry.tolerance());
        let mut worst = true;
        subsets(n, t, &mut |lost| worst &= geometry.tolerates(lost));
        assert!(worst, "{name} does not survive every loss of {t}");
        let mut fatal = t == n;
        subsets(n, t + 1, &mut |lost| fatal |= !geometry.tolerates(lost));
        assert!(fatal, "{name} survives every loss of {}", t + 1);
    }
}

#[test]
fn losses_follow_the_placement() {
    assert!(of("raid10:3x(2)").tolerates(&[0, 2, 4]) && !of("raid10:3x(2)").tolerates(&[2, 3]));
    // One drive of each mirrored half: each half has lost a drive, so it is gone.
    assert!(of("raid01:2x(3)").tolerates(&[0, 1, 2]) && !of("raid01:2x(3)").tolerates(&[0, 4]));
    assert!(of("raid1e:5").tolerates(&[0, 2]) && !of("raid1e:5").tolerates(&[4, 0]));
    assert!(of("md10:4").tolerates(&[1, 2]) && !of("md10:4").tolerates(&[2, 3]));
    assert!(!of("md10far:4").tolerates(&[1, 2]));
    assert!(!of("4+2").tolerates(&[0, 1, 2]) && of("4+2").tolerates(&[0, 0, 1, 1]));
    assert!(!of("raid6:8").tolerates(&[8]));
}

#[test]
fn tolerances_of_the_format() {
    for (text, t) in
        [("4+2", 2), ("lrc:12+2+2", 3), ("raid50:2x(4+1)", 1), ("jbod:4", 0), ("mirror:3", 2)]
    {
        assert_eq!(of(text).tolerance(), t, "{text}");
    }
}

#[test]
fn fractions_and_stripe_codes() {
    assert!((of("4+2").data_fraction() - 4.0 / 6.0).abs() < 1e-12);
    assert!((of("raid5e:5").data_fraction() - 3.0 / 5.0).abs() < 1e-12);
    assert!((of("raid50:2x(4+1)").data_fraction() - 0.8).abs() < 1e-12);
    assert!((of("raid01:2x(3)").data_fraction() - 0.5).abs() < 1e-12);
    assert_eq!(of("raid50:2x(4+1)").stripe_code(), CodeSpec::Xor { k: 4 });
    assert_eq!(of("raid100:8").stripe_code(), CodeSpec::Copies { n: 2 });
    assert_eq!(of("raid01:2x(3)").groups(), [[0, 3], [1, 4], [2, 5]]);
    assert_eq!(of("raid50:2x(2+1)").groups(), [[0, 1, 2], [3, 4, 5]]);
    assert_eq!(of("raid1e:3").groups(), [[0, 1], [0, 2], [1, 2]]);
}

#[test]
fn every_name_of_the_table_parses() {
    for name in [
        "JBOD",
        "linear",
        "SPAN",
        "BIG",
        "0",
        "1",
        "DUP",
        "2",
        "3",
        "4",
        "5",
        "S",
        "7.1",
        "6",
        "7.2",
        "DP",
        "N+M",
        "7.m",
        "Z1",
        "Z2",
        "Z3",
        "01",
        "10",
        "1E",
        "MD10",
        "03",
        "50",
        "60",
        "100",
        "5E",
        "5EE",
        "6E",
        "FR",
        "Unraid",
        "declustered",
        "DDP",
        "Matrix",
        "BeyondRAID",
        "adaptive",
        "7",
        "MAID",
        "Crypto",
    ] {
        of(name);
        of(&format!("raid{name}"));
    }
    for name in ["dup", "unraid", "matrix", "beyondraid", "adaptive", "7", "maid", "crypto"] {
        assert!(of(name).not_storable_reason().is_some(), "{name}");
        assert!(of(name).require_storable().is_err_and(|e| e.is(&codes::GEOMETRY_NOT_STORABLE)));
    }
}
