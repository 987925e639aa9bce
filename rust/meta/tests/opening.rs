//! Opening: whose drives are these, which are up to date, who may write.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use dwk_base::{Error, Seams, codes};
use dwk_drive::{Drive, Entry, MemoryDrive};
use dwk_meta::Meta;
use dwk_pool::{Control, NewDrive, OpenOptions, Pool, Redundancy, State};
use world::{Model, World, bytes, check, get, holder, options, pool_options, put};

fn new_drive(drive: &MemoryDrive, name: &str) -> NewDrive {
    NewDrive { drive: Arc::new(drive.clone()), name: name.into(), labels: BTreeMap::new() }
}

fn create(drives: &[MemoryDrive], geometry: &str) -> Result<Arc<Pool>, Error> {
    let new: Vec<_> = drives.iter().map(|drive| new_drive(drive, "d")).collect();
    let seams = Seams::system();
    Pool::create(&new, &geometry.parse()?, &pool_options(), seams, &holder())
}

fn open(drives: &[MemoryDrive], change: impl Fn(&mut OpenOptions)) -> Result<Arc<Meta>, Error> {
    let drives = drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>).collect();
    let mut open = OpenOptions { pool: pool_options(), ..OpenOptions::default() };
    change(&mut open);
    Meta::open(Pool::open(drives, open, Seams::seeded(6), &holder())?, options())
}

fn drives(count: usize, name: &str) -> Vec<MemoryDrive> {
    (1..=count).map(|n| MemoryDrive::new(format!("{name}{n}"))).collect()
}

/// A closed pool with one row.
fn pool(name: &str, count: usize, geometry: &str) -> Vec<MemoryDrive> {
    let drives = drives(count, name);
    let meta = Meta::create(create(&drives, geometry).unwrap(), options()).unwrap();
    put(&meta, b"key", name.as_bytes()).unwrap();
    meta.close().unwrap();
    drives
}

#[test]
fn too_few_drives_and_one_twice_are_refused_with_nothing_written() {
    let few = drives(5, "f");
    assert!(create(&few, "4+2").unwrap_err().is(&codes::DRIVES_TOO_FEW));
    let mut twice = drives(5, "g");
    twice.push(twice[0].clone());
    assert!(create(&twice, "4+2").unwrap_err().is(&codes::DRIVE_DUPLICATE));
    assert!(few.iter().chain(&twice).all(|drive| drive.entries().is_empty()));
}

#[test]
fn creating_over_a_pool_is_refused_and_harms_nothing() {
    let old = pool("p", 3, "2+1");
    let mut mixed = drives(2, "m");
    mixed.push(old[1].clone());
    assert!(create(&mixed, "2+1").unwrap_err().is(&codes::DRIVE_NOT_EMPTY));
    assert!(mixed[0].entries().is_empty());
    assert_eq!(get(&open(&old, |_| {}).unwrap(), b"key").unwrap().unwrap(), b"p");
}

#[test]
fn a_drive_of_another_pool_is_foreign_and_an_empty_one_is_not_adopted() {
    let (ours, theirs) = (pool("o", 6, "4+2"), pool("t", 6, "4+2"));
    let mut mixed = ours[..5].to_vec();
    mixed.push(theirs[0].clone());
    let error = open(&mixed, |_| {}).unwrap_err();
    assert!(error.is(&codes::DRIVE_FOREIGN) && error.detail("drive").is_some());
    mixed[5] = MemoryDrive::new("empty");
    let meta = open(&mixed, |_| {}).unwrap();
    let status = meta.pool().status(&*meta).unwrap();
    assert_eq!(status.drives[5].state, State::Missing);
    assert!(status.warnings.iter().any(|warning| warning.contains("empty")), "{status:?}");
    assert!(mixed[5].entries().is_empty());
}

#[test]
fn nothing_there_is_not_found() {
    assert!(open(&drives(3, "n"), |_| {}).unwrap_err().is(&codes::STORE_NOT_FOUND));
    assert!(open(&[], |_| {}).unwrap_err().is(&codes::STORE_NOT_FOUND));
}

#[test]
fn a_copy_of_a_drive_is_a_duplicate() {
    let ours = pool("c", 3, "2+1");
    let copy = MemoryDrive::new("copy");
    for entry in ours[0].entries() {
        copy.set_raw(&entry, ours[0].raw(&entry));
    }
    let both: Vec<_> = ours.iter().cloned().chain([copy]).collect();
    assert!(open(&both, |_| {}).unwrap_err().is(&codes::DRIVE_DUPLICATE));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let ours = pool("v", 3, "2+1");
    for entry in [Entry::SuperblockA, Entry::SuperblockB] {
        let mut bytes = ours[0].raw(&entry).unwrap();
        bytes[8] = 9;
        // The check covers the version: an honest newer version has a valid one.
        let body = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let mut covered = bytes[..32].to_vec();
        covered.extend_from_slice(&bytes[64..64 + body]);
        bytes[32..64].copy_from_slice(&dwk_chunk::blake3(&covered));
        ours[0].set_raw(&entry, Some(bytes));
    }
    let error = open(&ours, |_| {}).unwrap_err();
    assert!(error.is(&codes::FORMAT_NEWER) || error.is(&codes::SUPERBLOCK_DAMAGED), "{error}");
}

#[test]
fn a_lone_half_that_was_not_closed_opens_read_only_and_forced_halves_never_merge() {
    let halves = drives(2, "h");
    let meta = Meta::create(create(&halves, "mirror:2").unwrap(), options()).unwrap();
    put(&meta, b"both", b"1").unwrap();
    drop(meta); // a kill: not closed
    let (a, b) = (&halves[..1], &halves[1..]);
    let meta = open(a, |_| {}).unwrap();
    assert_eq!(get(&meta, b"both").unwrap().unwrap(), b"1");
    assert!(put(&meta, b"x", b"y").unwrap_err().is(&codes::POOL_READ_ONLY));
    meta.close().unwrap();
    drop(meta);
    for (half, content) in [(a, b"A"), (b, b"B")] {
        let meta = open(half, |open| open.force = true).unwrap();
        put(&meta, b"both", content).unwrap();
        meta.close().unwrap();
    }
    let meta = open(&halves, |_| {}).unwrap();
    let now = get(&meta, b"both").unwrap().unwrap();
    assert!(now == b"A" || now == b"B");
    let status = meta.pool().status(&*meta).unwrap();
    assert!(status.warnings.iter().any(|text| text.contains("not merged")), "{status:?}");
    assert_eq!(status.redundancy, Redundancy::Degraded);
}

#[test]
fn opening_read_only_writes_nothing_and_readers_share() {
    let ours = pool("r", 3, "2+1");
    let before: Vec<_> = ours.iter().map(dump).collect();
    let one = open(&ours, |open| open.read_only = true).unwrap();
    let two = open(&ours, |open| open.read_only = true).unwrap();
    assert!(open(&ours, |_| {}).unwrap_err().is(&codes::STORE_LOCKED));
    for meta in [one, two] {
        assert_eq!(get(&meta, b"key").unwrap().unwrap(), b"r");
        assert!(put(&meta, b"x", b"y").unwrap_err().is(&codes::POOL_READ_ONLY));
        meta.close().unwrap();
    }
    assert!(before == ours.iter().map(dump).collect::<Vec<_>>());
}

fn dump(drive: &MemoryDrive) -> Vec<(Entry, Option<Vec<u8>>)> {
    drive.entries().into_iter().map(|entry| (entry.clone(), drive.raw(&entry))).collect()
}

#[test]
fn a_drive_that_fails_is_taken_out_and_the_journal_finds_another_member() {
    let world = World::new(7, "4+2", 70);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for n in 0..40u64 {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n, 100 + n as usize * 400));
        if n == 20 {
            world.drives[0].set_vanished(true); // a member of the journal
        }
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    check(&meta, &model, "with a drive gone");
    let status = || meta.pool().status(&*meta).unwrap();
    assert_eq!(status().drives[0].state, State::Failed);
    for _ in 0..200 {
        let members = status().drives.iter().filter(|d| d.journal && d.state.readable()).count();
        if members == 3 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let members = status().drives.iter().filter(|d| d.journal && d.state.readable()).count();
    assert_eq!(members, 3, "{:?}", status());
    meta.pool().rebuild(&*meta, None, &Control::default()).unwrap();
    assert_eq!(status().degraded_stripes, 0, "everything was moved to the other six");
    check(&meta, &model, "rebuilt");
}

#[test]
fn a_drive_is_replaced_and_the_old_one_is_forgotten() {
    let mut world = World::new(6, "4+2", 71);
    let meta = world.create().unwrap();
    put(&meta, b"key", &bytes(1, 60_000)).unwrap();
    meta.close().unwrap();
    drop(meta);
    world.restart();
    let meta = world.open_without(&[3]).unwrap();
    let fresh: Arc<dyn Drive> = Arc::new(MemoryDrive::new("fresh"));
    let used: Arc<dyn Drive> = Arc::new(pool("u", 3, "2+1")[0].clone());
    let control = Control::default();
    let replace = |old, new| meta.pool().replace(&*meta, old, new, &holder(), &control);
    assert!(replace("d9", &fresh).unwrap_err().is(&codes::DRIVE_UNKNOWN));
    assert!(replace("d4", &used).unwrap_err().is(&codes::DRIVE_NOT_EMPTY));
    replace("d4", &fresh).unwrap();
    let status = meta.pool().status(&*meta).unwrap();
    assert_eq!(status.redundancy, Redundancy::Full, "{status:?}");
    assert_eq!(status.drives.len(), 6);
    assert!(status.drives.iter().any(|drive| drive.name == "d4" && drive.shards > 0));
    assert_eq!(get(&meta, b"key").unwrap().unwrap(), bytes(1, 60_000));
}

/// What opening asks of the drives when `folded` batches lie before the last checkpoint and few after it.
fn calls_to_open(folded: u64) -> u64 {
    let mut world = World::new(3, "2+1", 41);
    world.pool.journal.segment_bytes = 8 << 20;
    let meta = world.create().unwrap();
    for n in 0..folded {
        put(&meta, b"key", &bytes(n, 500)).unwrap();
    }
    meta.checkpoint().unwrap();
    for n in 0..5 {
        put(&meta, b"late", &bytes(n, 500)).unwrap();
    }
    assert!(meta.pool().journal().first_sequence() == 1, "the segment is not released");
    drop(meta); // not closed
    world.restart();
    world.power.count_reads(true);
    let before = world.power.steps();
    let meta = world.open().unwrap();
    let calls = world.power.steps() - before;
    assert!(get(&meta, b"key").unwrap().unwrap() == bytes(folded - 1, 500));
    assert!(get(&meta, b"late").unwrap().unwrap() == bytes(4, 500));
    calls
}

#[test]
fn opening_reads_no_batch_that_the_last_checkpoint_holds() {
    let (few, many) = (calls_to_open(10), calls_to_open(1000));
    assert!(many <= few + 10, "{many} calls after 1000 puts, {few} after 10");
}

#[test]
fn who_only_reads_writes_no_stripe_either() {
    let all = pool("read", 3, "2+1");
    let meta = open(&all, |_| {}).unwrap();
    put(&meta, b"inline", &bytes(1, 900)).unwrap();
    // As a kill leaves it: there is something to fold.
    drop(meta);
    let dump =
        || all.iter().map(|d| d.entries().into_iter().map(|e| d.raw(&e)).collect::<Vec<_>>());
    let before: Vec<_> = dump().collect();
    let reader = open(&all, |options| options.read_only = true).unwrap();
    let refused = |done: Result<(), Error>| {
        let error = done.expect_err("it is only read");
        assert!(error.is(&codes::POOL_READ_ONLY), "{error}");
        assert!(before == dump().collect::<Vec<_>>(), "something was written");
    };
    refused(reader.upload().append(&bytes(2, 50_000)));
    refused(reader.checkpoint());
    refused(put(&reader, b"small", b"1").map(drop));
}
