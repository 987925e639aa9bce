//! Containers and objects, over a pool in memory.

mod common;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use common::{catalog, catalog_on, name, soon};
use dwk_base::{Deadline, Error, ManualClock, Result, SystemClock, codes};
use dwk_catalog::{
    Catalog, ContainerName, Entry, Happening, Key, ListOptions, ObjectInfo, PutOptions, Source,
};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, FaultyDrive, MemoryDrive, Power};
use proptest::prelude::*;

fn put(catalog: &Catalog, key: &str, bytes: &[u8]) -> Result<ObjectInfo> {
    put_with(catalog, key, bytes, &PutOptions::default())
}

fn put_with(
    catalog: &Catalog,
    key: &str,
    bytes: &[u8],
    options: &PutOptions,
) -> Result<ObjectInfo> {
    catalog.put(&Key::new(key)?, Source::Bytes(bytes), options, &soon(), &mut |_| Ok(()))
}

fn get(catalog: &Catalog, key: &str) -> Result<Vec<u8>> {
    let mut reader = catalog.get(&Key::new(key)?, &soon())?;
    let mut bytes = vec![0; reader.info().size_bytes as usize];
    let read = reader.read_at(0, &mut bytes)?;
    assert_eq!(read, bytes.len());
    Ok(bytes)
}

fn texts(catalog: &Catalog, options: &ListOptions) -> Vec<String> {
    let mut options = ListOptions {
        limit: if options.limit == 0 { 2 } else { options.limit },
        ..options.clone()
    };
    let mut texts = Vec::new();
    loop {
        let page = catalog.list(&options, &soon()).expect("the listing is right");
        texts.extend(page.entries.iter().map(|entry| entry.text().to_owned()));
        match page.next {
            Some(next) => options.start_after = Some(next),
            None => return texts,
        }
    }
}

#[test]
fn an_object_is_read_as_it_was_written_with_all_that_was_said_of_it() {
    let catalog = catalog(&["docs"]);
    let options = PutOptions {
        content_type: Some("text/plain".into()),
        metadata: BTreeMap::from([("author".into(), "ä".into())]),
        tags: BTreeMap::from([("project".into(), "x".into())]),
        ..PutOptions::default()
    };
    for bytes in [&b""[..], b"hi", &vec![7; 300_000]] {
        let info = put_with(&catalog, "docs/a", bytes, &options).unwrap();
        assert_eq!(info.size_bytes, bytes.len() as u64);
        assert_eq!(catalog.head(&Key::new("docs/a").unwrap()).unwrap(), info);
        assert_eq!(get(&catalog, "docs/a").unwrap(), bytes);
    }
}

#[test]
fn ranges_are_read_anywhere_and_stop_at_the_end() {
    let catalog = catalog(&["docs"]);
    let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    put(&catalog, "docs/a", &bytes).unwrap();
    let mut reader = catalog.get(&Key::new("docs/a").unwrap(), &soon()).unwrap();
    for (offset, length) in
        [(0, 1), (199_999, 5), (65_530, 100), (200_000, 4), (9_999_999, 4), (0, 0)]
    {
        let mut into = vec![0; length];
        let read = reader.read_at(offset as u64, &mut into).unwrap();
        let expected = &bytes[offset.min(bytes.len())
            ..(offset + length).min(bytes.len()).max(offset.min(bytes.len()))];
        assert_eq!(&into[..read], expected);
    }
}

#[test]
fn what_is_missing_is_named() {
    let catalog = catalog(&["docs"]);
    let code = |result: Result<()>| result.unwrap_err().code().name;
    assert_eq!(code(get(&catalog, "docs/a").map(drop)), "object.not_found");
    assert_eq!(code(get(&catalog, "none/a").map(drop)), "container.not_found");
    assert_eq!(code(put(&catalog, "none/a", b"x").map(drop)), "container.not_found");
    assert_eq!(
        code(catalog.delete(&Key::new("docs/a").unwrap(), None, &soon())),
        "object.not_found"
    );
    assert_eq!(code(catalog.delete_container(&name("none"), &soon())), "container.not_found");
    let options = ListOptions { prefix: "none/".into(), limit: 1, ..ListOptions::default() };
    assert_eq!(code(catalog.list(&options, &soon()).map(drop)), "container.not_found");
}

#[test]
fn conditions_hold() {
    let catalog = catalog(&["docs"]);
    let absent = PutOptions { if_absent: true, ..PutOptions::default() };
    let matching = |etag: String| PutOptions { if_match: Some(etag), ..PutOptions::default() };
    let conflict =
        |result: Result<ObjectInfo>| result.is_err_and(|error| error.is(&codes::OBJECT_CONFLICT));

    assert!(conflict(put_with(&catalog, "docs/a", b"0", &matching("x".into()))));
    let first = put_with(&catalog, "docs/a", b"1", &absent).unwrap();
    assert!(conflict(put_with(&catalog, "docs/a", b"2", &absent)));
    let second = put_with(&catalog, "docs/a", b"1", &matching(first.etag())).unwrap();
    assert_ne!(first.etag(), second.etag());
    assert!(conflict(put_with(&catalog, "docs/a", b"3", &matching(first.etag()))));
    let key = Key::new("docs/a").unwrap();
    assert!(
        catalog
            .delete(&key, Some(&first.etag()), &soon())
            .is_err_and(|e| e.is(&codes::OBJECT_CONFLICT))
    );
    catalog.delete(&key, Some(&second.etag()), &soon()).unwrap();
    assert!(catalog.head(&key).is_err());
}

#[test]
fn of_many_that_put_if_absent_one_wins() {
    let catalog = Arc::new(catalog(&["docs"]));
    let options = PutOptions { if_absent: true, ..PutOptions::default() };
    let wins = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u8)
            .map(|n| {
                let (catalog, options) = (&catalog, &options);
                scope.spawn(move || put_with(catalog, "docs/one", &[n], options).is_ok())
            })
            .collect();
        threads
            .into_iter()
            .filter(|_| true)
            .map(|thread| thread.join().unwrap())
            .filter(|won| *won)
            .count()
    });
    assert_eq!(wins, 1);
}

#[test]
fn a_container_ends_only_empty_and_no_put_slips_into_its_end() {
    let catalog = Arc::new(catalog(&["docs"]));
    put(&catalog, "docs/a", b"1").unwrap();
    let refused = catalog.delete_container(&name("docs"), &soon());
    assert!(refused.is_err_and(|error| error.is(&codes::CONTAINER_NOT_EMPTY)));
    catalog.delete(&Key::new("docs/a").unwrap(), None, &soon()).unwrap();
    for round in 0..50 {
        let (stored, gone) = std::thread::scope(|scope| {
            let put = scope.spawn(|| put(&catalog, "docs/slip", b"x").is_ok());
            let gone = scope.spawn(|| catalog.delete_container(&name("docs"), &soon()).is_ok());
            (put.join().unwrap(), gone.join().unwrap())
        });
        assert!(
            !(stored && gone),
            "round {round}: a put was acknowledged and its container is gone"
        );
        if stored {
            catalog.delete(&Key::new("docs/slip").unwrap(), None, &soon()).unwrap();
        } else {
            catalog.create_container(&name("docs"), b"", &soon()).unwrap();
        }
    }
}

#[test]
fn who_deletes_what_another_one_changed_in_the_same_moment_is_told_so() {
    let catalog = catalog(&["docs"]);
    let info = put(&catalog, "docs/a", b"1").unwrap();
    let key = Key::new("docs/a").unwrap();
    let delete = |if_match: Option<&str>, code| {
        let commit = Box::new(move |_, _: Happening<'_>, _: &_| Err(Error::new(code, "too late")));
        catalog.delete_with(&key, if_match, &soon(), commit).unwrap_err()
    };
    let error = delete(None, &codes::OBJECT_CONFLICT);
    assert!(error.is(&codes::OBJECT_NOT_FOUND), "somebody else deleted it: {error}");
    let error = delete(Some(&info.etag()), &codes::OBJECT_CONFLICT);
    assert!(error.is(&codes::OBJECT_CONFLICT), "{error}");
    assert_eq!(error.detail("key"), Some("docs/a"), "{error}");
    for if_match in [None, Some(info.etag())] {
        let error = delete(if_match.as_deref(), &codes::POOL_FULL);
        assert!(error.is(&codes::POOL_FULL), "{error}");
    }
    assert_eq!(get(&catalog, "docs/a").unwrap(), b"1");
}

#[test]
fn a_container_keeps_16_kib_of_options_and_no_more() {
    let catalog = catalog(&[]);
    let mut options = vec![b'x'; 16 << 10];
    assert_eq!(catalog.create_container(&name("a"), &options, &soon()).unwrap().options, options);
    assert_eq!(catalog.containers(None, 9).unwrap()[0].options, options);
    options.push(b'x');
    let refused = catalog.create_container(&name("b"), &options, &soon());
    assert!(refused.is_err_and(|error| error.is(&codes::OBJECT_METADATA)));
    assert_eq!(catalog.containers(None, 9).unwrap().len(), 1);
}

#[test]
fn containers_are_listed_in_order_with_their_options() {
    let catalog = catalog(&["b", "a", "ä", "B"]);
    let again = catalog.create_container(&name("a"), b"", &soon());
    assert!(again.is_err_and(|error| error.is(&codes::CONTAINER_EXISTS)));
    catalog.create_container(&name("c"), b"{\"quota\":1}", &soon()).unwrap();
    let all = catalog.containers(None, 100).unwrap();
    assert_eq!(all.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["B", "a", "b", "c", "ä"]);
    let after = ContainerName::new("a").unwrap();
    assert_eq!(catalog.containers(Some(&after), 2).unwrap(), all[2..4]);
    assert_eq!(all[3].options, b"{\"quota\":1}");
}

struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let taken = self.0.min(into.len());
        self.0 -= taken;
        if taken == 0 { Err(io::Error::other("the disk of the source broke")) } else { Ok(taken) }
    }
}

#[test]
fn a_source_that_fails_leaves_nothing() {
    let catalog = catalog(&["docs"]);
    let key = Key::new("docs/a").unwrap();
    for bytes in [0, 10, 5_000_000] {
        let mut source = Failing(bytes);
        let source = Source::Stream(&mut source);
        let failed = catalog.put(&key, source, &PutOptions::default(), &soon(), &mut |_| Ok(()));
        let error = failed.unwrap_err();
        assert!(error.is(&codes::SOURCE_FAILED), "{error}");
        assert!(error.to_string().contains("the disk of the source broke"), "{error}");
        assert!(catalog.head(&key).is_err());
    }
}

#[test]
fn a_deadline_that_passes_in_the_middle_of_a_stream_ends_it_and_leaves_nothing() {
    let catalog = catalog(&["docs"]);
    let key = Key::new("docs/a").unwrap();
    let clock = Arc::new(ManualClock::default());
    let deadline = Deadline::after(clock.clone(), Duration::from_secs(1));
    let mut endless = io::repeat(1);
    let options = PutOptions::default();
    let failed =
        catalog.put(&key, Source::Stream(&mut endless), &options, &deadline, &mut |taken| {
            if taken > 1 << 20 {
                clock.advance(Duration::from_secs(1));
            }
            Ok(())
        });
    assert!(failed.is_err_and(|error| error.is(&codes::CONTEXT_DEADLINE)));
    assert!(catalog.head(&key).is_err());
}

#[test]
fn a_container_does_not_end_under_a_put_that_is_still_on_its_way() {
    let power = Power::new();
    let drive = |n| FaultyDrive::new(Arc::new(MemoryDrive::new(format!("d{n}"))), &power, n);
    let drives: Vec<_> = (1..=3).map(drive).collect();
    let shared = drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>);
    let catalog = catalog_on(shared.collect(), &["docs"]);
    for drive in &drives {
        drive.inject(Fault::new(Effect::Hang).on(Operation::SyncLog));
    }
    let in_ms = |ms| Deadline::after(Arc::new(SystemClock::default()), Duration::from_millis(ms));
    let (key, options) = (Key::new("docs/a").unwrap(), PutOptions::default());
    let put = catalog.put(&key, Source::Bytes(b"bytes"), &options, &in_ms(50), &mut |_| Ok(()));
    assert_eq!(put.unwrap_err().detail("outcome"), Some("unknown"));
    let ended = catalog.delete_container(&name("docs"), &in_ms(50)).unwrap_err();
    assert!(ended.is(&codes::CONTEXT_DEADLINE), "{ended}");
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| catalog.delete_container(&name("docs"), &soon()));
        std::thread::sleep(Duration::from_millis(50));
        drives.iter().for_each(FaultyDrive::release);
        let error = ended.join().unwrap().unwrap_err();
        assert!(error.is(&codes::CONTAINER_NOT_EMPTY), "{error}");
    });
    assert_eq!(get(&catalog, "docs/a").unwrap(), b"bytes");
}

#[test]
fn a_reader_keeps_the_version_that_it_opened() {
    let catalog = catalog(&["docs"]);
    let old = vec![1; 500_000];
    put(&catalog, "docs/a", &old).unwrap();
    let mut reader = catalog.get(&Key::new("docs/a").unwrap(), &soon()).unwrap();
    put(&catalog, "docs/a", b"new").unwrap();
    catalog.delete(&Key::new("docs/a").unwrap(), None, &soon()).unwrap();
    let mut bytes = vec![0; old.len()];
    assert_eq!(reader.read_at(0, &mut bytes).unwrap(), old.len());
    assert_eq!(bytes, old);
}

/// What a listing should be, computed the slow way.
fn expected(keys: &[&str], options: &ListOptions) -> Vec<String> {
    let mut prefix = options.prefix.clone();
    if !prefix.is_empty() && !prefix.contains('/') {
        prefix.push('/');
    }
    let mut all: Vec<String> = keys
        .iter()
        .filter_map(|key| {
            let rest = key.strip_prefix(prefix.as_str())?;
            let rolled = options.delimiter.as_ref().and_then(|delimiter| {
                rest.find(delimiter.as_str()).map(|at| &key[..prefix.len() + at + delimiter.len()])
            });
            Some(rolled.unwrap_or(key).to_owned())
        })
        .collect();
    all.sort();
    all.dedup();
    // What comes after a key that was rolled up comes after all of its roll-up.
    let after = options.start_after.as_deref().unwrap_or("");
    all.retain(|text| {
        text.as_str() > after
            && !(options.delimiter.is_some() && rolled_with(text, after, options, &prefix))
    });
    all
}

fn rolled_with(text: &str, after: &str, options: &ListOptions, prefix: &str) -> bool {
    let Some(delimiter) = &options.delimiter else { return false };
    text.ends_with(delimiter.as_str()) && after.starts_with(text) && text.len() > prefix.len()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn listings_equal_the_slow_way(
        names in proptest::collection::btree_set("[ab/é]{1,5}", 0..12),
        prefix in prop_oneof![Just(String::new()), Just("x".into()), "x/[ab/]{0,2}"],
        delimiter in proptest::option::of(prop_oneof![Just("/".to_owned()), Just("ab".into()), Just("é".into())]),
        start_after in proptest::option::of("(x|y)/[ab/]{0,3}"),
        limit in 1usize..5,
    ) {
        let catalog = catalog(&["x", "x-", "y"]);
        let keys: Vec<String> = names
            .iter()
            .enumerate()
            .map(|(at, name)| format!("{}/{name}", ["x", "y", "x-"][at % 3]))
            .collect();
        for key in &keys {
            put(&catalog, key, b"1").unwrap();
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let options = ListOptions { prefix, delimiter, start_after, limit };
        prop_assert_eq!(texts(&catalog, &options), expected(&keys, &options));
    }
}

#[test]
fn a_listing_holds_objects_and_rolled_up_prefixes() {
    let catalog = catalog(&["docs"]);
    for key in ["docs/a", "docs/dir/1", "docs/dir/2", "docs/z"] {
        put(&catalog, key, b"1").unwrap();
    }
    let options = ListOptions {
        prefix: "docs".into(),
        delimiter: Some("/".into()),
        limit: 10,
        ..ListOptions::default()
    };
    let page = catalog.list(&options, &soon()).unwrap();
    let kinds: Vec<bool> =
        page.entries.iter().map(|entry| matches!(entry, Entry::Object(_))).collect();
    assert_eq!((kinds, page.next), (vec![true, false, true], None));
}
