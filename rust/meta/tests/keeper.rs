//! What the keeper promises: the journal stays short, what is dead comes back, a full pool can be emptied.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dwk_base::codes;
use dwk_drive::{Drive, Entry, MemoryDrive};
use dwk_meta::{Meta, Options};
use dwk_pool::Control;
use world::{Model, bytes, check, create_on, delete, drives_of, get, open_on, put};

/// As much as a drive of these tests needs if room is not what they are about.
const ROOMY: u64 = 1 << 30;
/// The journal's limit in these tests, eight segments.
const JOURNAL: u64 = 512 << 10;

fn small() -> Options {
    Options { inline_bytes_max: 2 << 10, journal_bytes_max: JOURNAL, ..Options::default() }
}

fn journal_bytes(meta: &Meta) -> u64 {
    meta.pool().journal().status().live_bytes
}

fn used(meta: &Arc<Meta>) -> u64 {
    let status = meta.pool().status(&**meta).unwrap();
    status.drives.iter().map(|drive| drive.used_bytes).sum()
}

fn files(drives: &[MemoryDrive]) -> usize {
    drives.iter().map(|drive| drive.list(Some("s"), None, 100_000).unwrap().len()).sum()
}

/// The keeper works on a thread of its own.
fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}");
}

#[test]
fn processes_that_put_once_and_close_keep_the_journal_short() {
    let drives = drives_of(3, "s", ROOMY);
    create_on(&drives, "2+1", small()).close().unwrap();
    let mut longest = 0;
    for n in 0..400u64 {
        let meta = open_on(&drives, small()).unwrap();
        longest = longest.max(journal_bytes(&meta));
        put(&meta, format!("k{n}").as_bytes(), &bytes(n, 1000)).unwrap();
        meta.close().unwrap();
    }
    assert!(longest < JOURNAL + (128 << 10), "the journal grew to {longest} bytes");
    let meta = open_on(&drives, small()).unwrap();
    let model: Model =
        (0..400u64).map(|n| (format!("k{n}").into_bytes(), bytes(n, 1000))).collect();
    check(&meta, &model, "after 400 openings");
}

#[test]
fn who_only_looks_writes_no_checkpoint() {
    let drives = drives_of(3, "looked", ROOMY);
    let blobs = || -> Vec<_> {
        let names = |drive: &MemoryDrive| drive.list(Some("s"), None, 1000).unwrap();
        drives.iter().flat_map(names).map(|blob| blob.name).collect()
    };
    let meta = create_on(&drives, "2+1", small());
    for n in 0..20u64 {
        put(&meta, format!("k{n}").as_bytes(), &bytes(n, 5000)).unwrap();
    }
    meta.close().unwrap();
    let before = blobs();
    let mut longest = 0;
    for _ in 0..400 {
        let meta = open_on(&drives, small()).unwrap();
        assert_eq!(get(&meta, b"k7").unwrap(), Some(bytes(7, 5000)));
        longest = longest.max(journal_bytes(&meta));
        meta.close().unwrap();
        if longest < JOURNAL / 2 {
            assert_eq!(blobs(), before);
        }
    }
    assert!(longest < JOURNAL + (128 << 10), "the journal grew to {longest} bytes");
    let meta = open_on(&drives, small()).unwrap();
    delete(&meta, b"k7").unwrap();
    meta.close().unwrap();
    assert_ne!(blobs(), before, "what changed is in a checkpoint");
}

#[test]
fn a_store_that_was_never_closed_is_folded_when_it_is_opened() {
    let drives = drives_of(3, "n", ROOMY);
    let never = Options { journal_bytes_max: ROOMY, ..small() };
    let meta = create_on(&drives, "2+1", never);
    for n in 0..300u64 {
        put(&meta, b"k", &bytes(n, 1000)).unwrap();
    }
    drop(meta);
    let meta = open_on(&drives, small()).unwrap();
    soon("the journal stays long", || journal_bytes(&meta) < JOURNAL);
}

#[test]
fn readers_do_not_hold_the_journal_back() {
    let drives = drives_of(3, "r", ROOMY);
    let meta = create_on(&drives, "2+1", small());
    put(&meta, b"large", &bytes(1, 100_000)).unwrap();
    put(&meta, b"inline", &bytes(2, 2000)).unwrap();
    let (_, mut large) = meta.read(b"large").unwrap().unwrap();
    let (_, mut inline) = meta.read(b"inline").unwrap().unwrap();
    put(&meta, b"inline", b"other").unwrap();
    let stop = AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        for key in [b"large".as_slice(), b"inline", b"k"] {
            let (meta, stop) = (&meta, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let reader = meta.read(key).unwrap();
                    std::thread::sleep(Duration::from_millis(3));
                    drop(reader);
                }
            });
        }
        let mut longest = 0;
        for n in 0..1000u64 {
            put(&meta, b"k", &bytes(n, 1000)).unwrap();
            longest = longest.max(journal_bytes(&meta));
        }
        stop.store(true, Ordering::SeqCst);
        longest
    });
    assert!(longest < JOURNAL * 6, "the journal grew to {longest} bytes");
    meta.checkpoint().unwrap();
    assert!(journal_bytes(&meta) < 128 << 10, "{} bytes are left", journal_bytes(&meta));
    for (reader, content) in [(&mut large, bytes(1, 100_000)), (&mut inline, bytes(2, 2000))] {
        let mut got = vec![0; content.len()];
        assert_eq!(reader.read_at(0, &mut got).unwrap(), content.len());
        assert!(got == content);
    }
}

#[test]
fn one_object_on_a_small_pool_can_be_overwritten_for_ever() {
    let drives = drives_of(3, "o", 16 << 20);
    let meta = create_on(&drives, "2+1", Options::default());
    for n in 0..rounds(100) {
        put(&meta, b"one", &bytes(n, 2 << 20)).unwrap_or_else(|e| panic!("round {n}: {e}"));
    }
    assert!(get(&meta, b"one").unwrap().unwrap() == bytes(rounds(100) - 1, 2 << 20));
}

#[test]
fn what_is_deleted_comes_back_though_nobody_collects() {
    let drives = drives_of(3, "c", ROOMY);
    let options = Options { garbage_bytes_max: 256 << 10, ..small() };
    let meta = create_on(&drives, "2+1", options);
    let mut model = Model::new();
    for n in 0..600u64 {
        let (key, content) = (format!("k{n:03}").into_bytes(), bytes(n, 2000));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    meta.checkpoint().unwrap();
    let full = used(&meta);
    // Every stripe stays in use, three quarters of it dead.
    for n in (0..600u64).filter(|n| n % 4 != 0) {
        let key = format!("k{n:03}").into_bytes();
        delete(&meta, &key).unwrap();
        model.remove(&key);
    }
    soon("half-empty stripes stay", || used(&meta) * 2 < full);
    check(&meta, &model, "packed");
    for n in 0..30u64 {
        put(&meta, b"whole", &bytes(n, 100_000)).unwrap();
    }
    soon("dead stripes stay", || used(&meta) < full + (600 << 10));
}

/// A put that was refused, after which nothing of it is there.
fn fill(meta: &Arc<Meta>, model: &mut Model, length: usize) {
    for n in 0..100_000u64 {
        let (key, content) = (format!("k{n:06}").into_bytes(), bytes(n, length));
        match put(meta, &key, &content) {
            Ok(_) => drop(model.insert(key, content)),
            Err(error) => {
                assert!(error.is(&codes::POOL_FULL), "after {n} puts: {error}");
                return;
            }
        }
    }
    panic!("the pool takes everything");
}

/// Fills a pool with contents of `length`, then empties it, in this opening and the next.
fn a_full_pool_can_be_emptied(name: &str, length: usize) {
    let drives = drives_of(3, name, 8 << 20);
    let mut model = Model::new();
    let meta = create_on(&drives, "2+1", small());
    fill(&meta, &mut model, length);
    let bytes_in: usize = model.values().map(Vec::len).sum();
    assert!(bytes_in > 5_000_000, "only {bytes_in} bytes were taken");
    let full = used(&meta);
    let keys: Vec<_> = model.keys().cloned().collect();
    for key in &keys[..keys.len() / 3] {
        delete(&meta, key).unwrap();
        model.remove(key);
    }
    meta.collect().unwrap();
    meta.checkpoint().unwrap();
    assert!(used(&meta) * 10 < full * 9, "{} of {full} bytes are still used", used(&meta));
    check(&meta, &model, "a third is deleted");
    meta.close().unwrap();
    let meta = open_on(&drives, small()).unwrap();
    check(&meta, &model, "reopened");
    // Full again, and closed like that.
    fill(&meta, &mut model, length);
    meta.close().unwrap();
    let meta = open_on(&drives, small()).unwrap();
    check(&meta, &model, "reopened full");
    for key in model.keys() {
        delete(&meta, key).unwrap();
    }
    put(&meta, b"again", &bytes(1, 2_000_000)).unwrap();
}

#[test]
fn a_pool_full_of_small_values_can_be_emptied() {
    a_full_pool_can_be_emptied("f", 1500);
}

#[test]
fn what_is_deleted_here_and_there_on_a_full_pool_makes_room_again() {
    let drives = drives_of(3, "t", 8 << 20);
    let mut model = Model::new();
    let meta = create_on(&drives, "2+1", small());
    fill(&meta, &mut model, 1500);
    // Each stripe keeps two thirds of what it holds.
    let gone: Vec<_> = model.keys().step_by(3).cloned().collect();
    for key in &gone {
        delete(&meta, key).unwrap();
        model.remove(key);
    }
    let mut stored = 0;
    for n in 0u64.. {
        let (key, content) = (format!("large{n:03}").into_bytes(), bytes(n, 60_000));
        match put(&meta, &key, &content) {
            Ok(_) => drop(model.insert(key, content)),
            Err(error) => {
                assert!(error.is(&codes::POOL_FULL), "{error}");
                break;
            }
        }
        stored += 60_000;
    }
    let deleted = gone.len() * 1500;
    assert!(stored * 2 > deleted, "{stored} bytes after {deleted} were deleted");
    check(&meta, &model, "full again");
    // What was tried in vain is not tried again for everybody who is refused.
    let mut costs_nothing = |n: u64| {
        let (applied, key) = (meta.status().applied, format!("more{n:03}").into_bytes());
        let more = put(&meta, &key, &bytes(n, 60_000));
        if more.is_ok() {
            // The keeper, on its own thread, made room meanwhile.
            model.insert(key, bytes(n, 60_000));
        }
        more.is_err() && meta.status().applied == applied
    };
    assert!((0..100).any(&mut costs_nothing), "all refusals did work in vain");
    meta.close().unwrap();
    check(&open_on(&drives, small()).unwrap(), &model, "reopened");
}

#[test]
fn a_pool_full_of_large_objects_can_be_emptied() {
    a_full_pool_can_be_emptied("g", 60_000);
}

#[test]
fn a_full_pool_that_lost_a_drive_can_be_emptied() {
    for gone in 0..3 {
        let drives = drives_of(3, "h", 8 << 20);
        let mut model = Model::new();
        let meta = create_on(&drives, "2+1", small());
        fill(&meta, &mut model, 1500);
        meta.close().unwrap();
        let mut left = drives;
        left.remove(gone);
        let meta = open_on(&left, small()).unwrap();
        let keys: Vec<_> = model.keys().cloned().collect();
        for key in keys.iter().step_by(2) {
            delete(&meta, key).unwrap_or_else(|e| panic!("without d{}: {e}", gone + 1));
            model.remove(key);
        }
        meta.close().unwrap_or_else(|e| panic!("without d{}: {e}", gone + 1));
        let meta = open_on(&left, small()).unwrap();
        check(&meta, &model, "reopened without a drive");
    }
}

#[test]
fn a_commit_that_failed_for_want_of_room_leaves_no_stripes() {
    let drives = drives_of(3, "l", ROOMY);
    let meta = create_on(&drives, "2+1", Options { journal_bytes_max: ROOMY, ..small() });
    put(&meta, b"k", &bytes(1, 10_000)).unwrap();
    let before = files(&drives);
    let mut upload = meta.upload();
    upload.append(&bytes(7, 6000)).unwrap();
    let staged = upload.finish().unwrap();
    assert!(files(&drives) > before);
    // The journal's segments are full, and no drive has room for another one, or for a fold.
    for drive in &drives {
        let room = drive.capacity().unwrap();
        drive.set_capacity(room.total_bytes - room.free_bytes);
    }
    while delete(&meta, b"nothing").is_ok() {}
    let change = dwk_meta::Change::new().put(b"big".to_vec(), Vec::new(), Some(staged));
    let error = meta.commit(change).unwrap_err();
    assert!(error.is(&codes::DRIVE_FULL) || error.is(&codes::POOL_FULL), "{error}");
    assert_eq!(files(&drives), before);
}

/// Damages `content` wherever it lies on these drives.
fn damage(drives: &[MemoryDrive], content: &[u8]) {
    let needle = &content[..64.min(content.len())];
    for drive in drives {
        for entry in drive.entries() {
            let raw = drive.raw(&entry).unwrap();
            for at in 0..raw.len().saturating_sub(needle.len()) {
                if raw[at..].starts_with(needle) {
                    assert!(drive.flip(&entry, at, 1));
                }
            }
        }
    }
}

#[test]
fn a_lost_value_in_the_journal_keeps_no_other_from_being_folded() {
    let drives = drives_of(3, "v", ROOMY);
    let meta = create_on(&drives, "2+1", small());
    let mut model = Model::new();
    for n in 0..40u64 {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n + 1, 1500));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    damage(&drives, &model[b"k20".as_slice()]);
    let error = meta.checkpoint().unwrap_err();
    assert!(error.is(&codes::JOURNAL_DAMAGED) && error.to_string().contains('1'), "{error}");
    let folded = meta.status().folded;
    assert!(folded > 40, "nothing was folded");
    assert!(meta.status().stripes > 4, "{:?}", meta.status());
    // The journal's copies of all others are of no more use.
    damage(&drives[..2], &model[b"k30".as_slice()]);
    assert!(get(&meta, b"k20").unwrap_err().is(&codes::JOURNAL_DAMAGED));
    delete(&meta, b"k20").unwrap();
    model.remove(b"k20".as_slice());
    meta.checkpoint().unwrap();
    check(&meta, &model, "without the lost one");
    assert!(meta.pool().journal().first_sequence() > 40);
}

#[test]
fn a_scrub_is_not_clean_while_no_copy_of_a_batch_is_right() {
    let drives = drives_of(3, "b", ROOMY);
    let meta = create_on(&drives, "2+1", Options { journal_bytes_max: ROOMY, ..small() });
    for n in 0..10u64 {
        put(&meta, format!("k{n}").as_bytes(), &bytes(n + 1, 1500)).unwrap();
    }
    let whole = meta.pool().scrub(&*meta, &Control::default()).unwrap();
    assert!(whole.is_clean() && whole.lost_batches == 0, "{whole:?}");
    damage(&drives, &bytes(5, 1500));
    let lost = meta.pool().scrub(&*meta, &Control::default()).unwrap();
    assert!(lost.lost_batches > 0 && !lost.is_clean(), "{lost:?}");
}

#[test]
fn a_lost_value_in_a_stripe_keeps_no_other_from_being_packed() {
    let drives = drives_of(3, "w", ROOMY);
    let meta = create_on(&drives, "2+1", small());
    let mut model = Model::new();
    for n in 0..100u64 {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n + 1, 1500));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    meta.checkpoint().unwrap();
    for n in (0..100u64).filter(|n| n % 4 != 0) {
        let key = format!("k{n:02}").into_bytes();
        delete(&meta, &key).unwrap();
        model.remove(&key);
    }
    let before = used(&meta);
    lose_stripe(&drives, &model[b"k48".as_slice()]);
    let keys: Vec<_> = model.keys().cloned().collect();
    let lost: Vec<_> = keys.into_iter().filter(|key| get(&meta, key).is_err()).collect();
    assert!(lost.contains(&b"k48".to_vec()) && lost.len() < 9, "{lost:?}");
    let report = meta.collect().unwrap();
    assert_eq!(report.unreadable_pieces, lost.len() as u64, "{report:?}");
    assert!(used(&meta) * 2 < before, "{} of {before} bytes are still used", used(&meta));
    for key in lost {
        assert!(get(&meta, &key).unwrap_err().is(&codes::DATA_CORRUPT));
        delete(&meta, &key).unwrap();
        model.remove(&key);
    }
    check(&meta, &model, "without the lost ones");
}

/// Removes two of the three shards of the stripe that holds the beginning of `content`.
fn lose_stripe(drives: &[MemoryDrive], content: &[u8]) {
    let blobs = |drive: &MemoryDrive| drive.entries().into_iter();
    let holds = |drive: &MemoryDrive, entry: &Entry| {
        let raw = drive.raw(entry).unwrap();
        matches!(entry, Entry::Blob(_)) && raw.windows(64).any(|part| part == &content[..64])
    };
    let found = drives.iter().enumerate().find_map(|(index, drive)| {
        blobs(drive).find(|entry| holds(drive, entry)).map(|entry| (index, entry))
    });
    let Some((index, Entry::Blob(name))) = found else { panic!("it lies in no stripe") };
    let (stripe, _) = name.as_str().split_once('.').unwrap();
    for drive in [&drives[index], &drives[(index + 1) % drives.len()]] {
        for entry in blobs(drive) {
            if matches!(&entry, Entry::Blob(name) if name.as_str().starts_with(stripe)) {
                drive.set_raw(&entry, None);
            }
        }
    }
}

/// More of them in a long run.
fn rounds(few: u64) -> u64 {
    if std::env::var_os("DWK_LONG").is_some() { few * 20 } else { few }
}

#[test]
fn a_collection_that_is_stopped_has_done_a_part_and_the_next_one_does_the_rest() {
    let drives = drives_of(3, "e", ROOMY);
    // A keeper of its own would be done before.
    let idle = Options { journal_bytes_max: ROOMY, garbage_bytes_max: ROOMY, ..small() };
    let meta = create_on(&drives, "2+1", idle);
    let mut model = Model::new();
    for n in 0..4000u64 {
        let (key, content) = (format!("k{n:04}").into_bytes(), bytes(n + 1, 1500));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    meta.checkpoint().unwrap();
    for n in (0..4000u64).filter(|n| n % 4 != 0) {
        let key = format!("k{n:04}").into_bytes();
        delete(&meta, &key).unwrap();
        model.remove(&key);
    }
    let mut told = Vec::new();
    let (part, finished) = meta
        .collect_while(|report, left_bytes| {
            told.push((report.packed_bytes, left_bytes));
            false
        })
        .unwrap();
    assert!(!finished && part.packed_bytes > 0, "{part:?}");
    assert_eq!(told.len(), 1, "it went on: {told:?}");
    check(&meta, &model, "stopped");
    let (rest, finished) = meta.collect_while(|_, _| true).unwrap();
    assert!(finished && rest.packed_bytes > part.packed_bytes, "{part:?}, {rest:?}");
    check(&meta, &model, "done");
}
