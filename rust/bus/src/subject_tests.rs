//! Patterns against a recursive twin and against every subject of a small world.

use proptest::prelude::*;

use super::*;

/// The slow twin: it says what the words of the documentation say.
fn stands_for(pattern: &[&str], subject: &[&str]) -> bool {
    match (pattern, subject) {
        ([], []) | ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [_, subject @ ..]) => stands_for(pattern, subject),
        ([token, pattern @ ..], [same, subject @ ..]) => {
            token == same && stands_for(pattern, subject)
        }
        _ => false,
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

/// Every subject of up to four tokens from `a`, `b`.
fn world() -> Vec<Subject> {
    let mut all = vec![];
    let mut longest = vec![String::new()];
    for _ in 0..4 {
        let longer = |text: &String| ["a", "b"].map(|token| format!("{text}.{token}"));
        longest = longest.iter().flat_map(longer).collect();
        all.extend(longest.iter().map(|text| Subject::new(&text[1..]).unwrap()));
    }
    all
}

/// A pattern of up to three tokens over the same words: the world tells any two of them apart.
fn patterns() -> impl Strategy<Value = Pattern> {
    let token = prop::sample::select(vec!["a", "b", "*"]);
    (prop::collection::vec(token, 0..=3), any::<bool>()).prop_filter_map(
        "empty",
        |(mut tokens, rest)| {
            if rest {
                tokens.truncate(2);
                tokens.push(">");
            }
            Pattern::new(tokens.join(".")).ok()
        },
    )
}

proptest! {
    #[test]
    fn a_pattern_matches_what_its_words_say(pattern in patterns()) {
        for subject in world() {
            let slow = stands_for(&split(pattern.as_str()), &split(subject.as_str()));
            prop_assert_eq!(pattern.matches(&subject), slow, "{} {}", pattern, subject);
        }
    }

    #[test]
    fn covering_is_matching_all_that_the_other_matches(a in patterns(), b in patterns()) {
        let world = world();
        let covered = world.iter().filter(|subject| b.matches(subject)).all(|s| a.matches(s));
        prop_assert_eq!(a.covers(&b), covered, "{} {}", a, b);
        prop_assert!(!a.covers(&b) || a.overlaps(&b));
    }

    #[test]
    fn overlapping_is_to_have_a_subject_in_common(a in patterns(), b in patterns()) {
        let common = world().iter().any(|subject| a.matches(subject) && b.matches(subject));
        prop_assert_eq!(a.overlaps(&b), common, "{} {}", a, b);
        prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
    }

    #[test]
    fn any_text_is_taken_or_refused_and_never_a_panic(text in "\\PC{0,12}|[a.*> \\n\u{a0}é]{0,8}") {
        let token = |token: &str| !token.is_empty()
            && !token.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c));
        prop_assert_eq!(Subject::new(&*text).is_ok(), split(&text).iter().all(|t| token(t)));
        if let Ok(subject) = Subject::new(&*text) {
            prop_assert!(Pattern::new(&*text).unwrap().matches(&subject));
        }
    }
}

#[test]
fn what_is_no_subject_is_refused_with_its_code() {
    let long = "a".repeat(256);
    for text in ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\u{7f}", "*", "a.>", "a*", &long] {
        let error = Subject::new(text).unwrap_err();
        assert!(error.is(&codes::BUS_SUBJECT), "{text:?}");
    }
    assert!(Subject::new(&long[..255]).is_ok());
    assert!("größe.b-1_2".parse::<Subject>().is_ok());
}

#[test]
fn what_is_no_pattern_is_refused_with_its_code() {
    for text in ["", ">.a", "a.>.b", "a.b*", "a.>>", "**", "a..>", "a. "] {
        let error = Pattern::new(text).unwrap_err();
        assert!(error.is(&codes::BUS_PATTERN), "{text:?}");
    }
    for text in [">", "*", "*.>", "a.*.c", "a.>"] {
        assert!(Pattern::new(text).is_ok(), "{text}");
    }
}
