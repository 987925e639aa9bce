//! Records against a list of them: changed together, only as expected, in order, after opening again.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::collections::BTreeMap;

use common::{meta, soon};
use dwk_base::{Result, codes};
use dwk_catalog::{Expected, Record, RecordChange, Records};
use proptest::prelude::*;

fn put(key: &str, value: &[u8], expected: Expected) -> RecordChange {
    RecordChange { key: key.into(), value: Some(value.to_vec()), expected }
}

fn remove(key: &str, expected: Expected) -> RecordChange {
    RecordChange { key: key.into(), value: None, expected }
}

#[test]
fn a_record_changes_only_if_it_is_as_expected_and_all_of_a_commit_or_none() {
    let records = Records::new(&meta());
    let commit = |changes: &[RecordChange]| records.commit("jobs", changes, &soon());
    let first = commit(&[put("a", b"1", Expected::Absent), put("b", b"2", Expected::Any)]).unwrap();
    let a = Record { key: "a".into(), value: b"1".to_vec(), version: first };
    assert_eq!(records.get("jobs", "a").unwrap(), Some(a.clone()));
    assert_eq!(records.get("other", "a").unwrap(), None);
    let refused = [
        vec![put("c", b"", Expected::Any), put("a", b"x", Expected::Absent)],
        vec![put("c", b"", Expected::Any), put("a", b"x", Expected::Version(first + 7))],
        vec![put("c", b"", Expected::Any), remove("none", Expected::Version(1))],
    ];
    for changes in refused {
        let error = commit(&changes).unwrap_err();
        assert!(error.is(&codes::RECORD_CONFLICT), "{error}");
        assert_eq!(error.detail("key"), Some(changes[1].key.as_str()));
    }
    assert_eq!(records.list("jobs", "", 10).unwrap().len(), 2, "nothing of what was refused");
    let second =
        commit(&[put("a", b"3", Expected::Version(first)), remove("b", Expected::Any)]).unwrap();
    let a = Record { value: b"3".to_vec(), version: second, ..a };
    assert_eq!(records.list("jobs", "", 10).unwrap(), [a]);
}

#[test]
fn what_is_no_record_is_refused() {
    let records = Records::new(&meta());
    let code = |done: Result<u64>| assert!(done.unwrap_err().is(&codes::RECORD_KEY));
    let commit = |space: &str, changes: &[RecordChange]| records.commit(space, changes, &soon());
    let any = |key: &str| put(key, b"", Expected::Any);
    for space in ["", "A", "a/b", "a\0b", &"x".repeat(65)] {
        code(commit(space, &[any("a")]));
        assert!(records.list(space, "", 1).unwrap_err().is(&codes::RECORD_KEY));
    }
    code(commit("s", &[any("")]));
    code(commit("s", &[any(&"x".repeat(513))]));
    code(commit("s", &[put("a", &vec![0; (48 << 10) + 1], Expected::Any)]));
    code(commit("s", &[any("a"), any("a")]));
    code(commit("s", &[]));
    code(commit("s", &vec![any("a"); 1001]));
    commit("s", &[put(&"x".repeat(512), &vec![0; 48 << 10], Expected::Any)]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pages_are_in_the_order_of_keys_and_of_their_space_alone(
        keys in proptest::collection::btree_map("[a-zä\u{10ffff}/\0]{1,6}", 0..3usize, 0..40),
        limit in 1..7usize,
    ) {
        let records = Records::new(&meta());
        let spaces = ["a", "a.b", "b"];
        let mut twin: BTreeMap<(usize, String), Vec<u8>> = BTreeMap::new();
        for (key, space) in keys {
            let value = key.clone().into_bytes();
            records.commit(spaces[space], &[put(&key, &value, Expected::Any)], &soon()).unwrap();
            twin.insert((space, key), value);
        }
        for (number, space) in spaces.iter().enumerate() {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let page = records.list(space, &after, limit).unwrap();
                prop_assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after.clone_from(&last.key);
                found.extend(page.into_iter().map(|record| (record.key, record.value)));
            }
            let of_space = twin.iter().filter(|((of, _), _)| *of == number);
            let expected: Vec<_> =
                of_space.map(|((_, key), value)| (key.clone(), value.clone())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
