//! Drives that come, go and are replaced: the journal keeps its copies, and nobody is called well who is not.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use dwk_base::{Error, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, Entry, MemoryDrive};
use dwk_meta::Meta;
use dwk_pool::{Control, PoolStatus, Redundancy, State};
use world::{World, bytes, create_on, get, holder, open_on, options, put};

fn drives(count: usize, name: &str) -> Vec<MemoryDrive> {
    (1..=count).map(|n| MemoryDrive::new(format!("{name}{n}"))).collect()
}

fn create(drives: &[MemoryDrive], geometry: &str) -> Arc<Meta> {
    create_on(drives, geometry, options())
}

fn open(drives: &[MemoryDrive]) -> Result<Arc<Meta>, Error> {
    open_on(drives, options())
}

fn status(meta: &Arc<Meta>) -> PoolStatus {
    meta.pool().status(&**meta).unwrap()
}

fn replace(meta: &Arc<Meta>, old: &str, new: &MemoryDrive) {
    let new: Arc<dyn Drive> = Arc::new(new.clone());
    meta.pool().replace(&**meta, old, &new, &holder(), &Control::default()).unwrap();
}

/// Leaves `drive` as little room as that.
fn fill(drive: &MemoryDrive, left_bytes: u64) {
    let room = drive.capacity().unwrap();
    drive.set_capacity(room.total_bytes - room.free_bytes + left_bytes);
}

#[test]
fn a_drive_of_the_journal_that_is_replaced_leaves_it_whole() {
    for lost in 0..3 {
        let mut now = drives(3, &format!("whole{lost}-"));
        let meta = create(&now, "2+1");
        put(&meta, b"key", b"value").unwrap();
        let fresh = MemoryDrive::new("fresh");
        replace(&meta, "d2", &fresh);
        now[1] = fresh;
        let after = status(&meta);
        assert_eq!(after.redundancy, Redundancy::Full, "{after:?}");
        assert_eq!(after.drives.iter().filter(|drive| drive.journal).count(), 2);
        assert_eq!(meta.pool().journal().status().members.len(), 2);
        put(&meta, b"later", b"acknowledged").unwrap();
        meta.close().unwrap();
        drop(meta);
        now.remove(lost);
        let meta = open(&now).unwrap();
        assert_eq!(get(&meta, b"later").unwrap().unwrap(), b"acknowledged");
    }
}

#[test]
fn a_drive_that_was_replaced_is_none_of_the_journals_business() {
    let world = World::new(3, "2+1", 5);
    let meta = world.create().unwrap();
    put(&meta, b"key", &bytes(1, 30_000)).unwrap();
    replace(&meta, "d2", &MemoryDrive::new("fresh"));
    world.drives[1].set_vanished(true);
    put(&meta, b"x", b"y").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let after = status(&meta);
    assert_eq!(after.redundancy, Redundancy::Full, "{after:?}");
    assert_eq!(after.drives.len(), 3, "{after:?}");
}

#[test]
fn a_full_drive_that_could_join_the_journal_keeps_nobody_from_opening() {
    let four = drives(4, "candidates");
    let meta = create(&four, "2+1");
    put(&meta, b"key", &bytes(1, 30_000)).unwrap();
    meta.close().unwrap();
    drop(meta);
    fill(&four[2], 8192);
    let meta = open(&four[1..]).unwrap();
    let members: Vec<_> = status(&meta).drives.iter().map(|drive| drive.journal).collect();
    assert_eq!(members, [false, true, false, true], "the fourth joined");
    fill(&four[3], 8192);
    meta.close().unwrap();
    drop(meta);
    let meta = open(&[four[1].clone(), four[2].clone(), four[3].clone()]).unwrap();
    assert_eq!(get(&meta, b"key").unwrap().unwrap(), bytes(1, 30_000));
}

#[test]
fn repairs_do_not_run_into_each_other() {
    let world = World::new(7, "4+2", 33);
    let meta = world.create().unwrap();
    for n in 0..60u64 {
        put(&meta, format!("k{n}").as_bytes(), &bytes(n, 40_000)).unwrap();
    }
    world.drives[0].set_vanished(true);
    put(&meta, b"x", &bytes(99, 40_000)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let rebuild = || meta.pool().rebuild(&*meta, None, &Control::default());
    let refused = std::thread::scope(|scope| {
        let all: Vec<_> = (0..3).map(|_| scope.spawn(rebuild)).collect();
        let done = all.into_iter().map(|one| one.join().unwrap());
        done.filter(|done| match done {
            Ok(report) => !report.is_complete(),
            Err(error) => error.is(&codes::POOL_REPAIRING),
        })
        .count()
    });
    assert!(refused <= 2, "one of them went through");
    let report = meta.pool().scrub(&*meta, &Control::default()).unwrap();
    assert_eq!((report.damaged_shards, report.absent_shards), (0, 0), "{report:?}");
}

#[test]
fn a_drive_that_could_not_be_brought_up_to_date_is_not_called_well() {
    let three = drives(3, "stale");
    let meta = create(&three, "2+1");
    put(&meta, b"zero", &bytes(0, 30_000)).unwrap();
    meta.close().unwrap();
    drop(meta);
    let meta = open(&three[..2]).unwrap();
    put(&meta, b"one", b"x").unwrap();
    meta.close().unwrap();
    drop(meta);
    for entry in three[2].entries() {
        if matches!(entry, Entry::Blob(_)) {
            three[2].set_raw(&entry, None);
        }
    }
    fill(&three[2], 100);
    let meta = open(&three).unwrap();
    let before = status(&meta);
    assert_eq!(before.drives[2].state, State::Stale, "{before:?}");
    assert_eq!(before.redundancy, Redundancy::Degraded);
    assert!(before.advice.iter().any(|text| text.contains("rebuild")), "{before:?}");
    three[2].set_capacity(1 << 30);
    let report = meta.pool().rebuild(&*meta, None, &Control::default()).unwrap();
    let after = status(&meta);
    assert_eq!(after.redundancy, Redundancy::Full, "{report:?}, {after:?}");
}

#[test]
fn a_failed_drive_that_does_not_say_how_large_it_is_stops_nobody() {
    let world = World::new(4, "2+1", 45);
    let meta = world.create().unwrap();
    put(&meta, b"small", b"value").unwrap();
    let error = Effect::Error(&codes::DRIVE_IO);
    world.drives[0].inject(Fault::new(error).on(Operation::SyncLog));
    world.drives[0].inject(Fault::new(Effect::Hang).on(Operation::Capacity));
    let (done, waiting) = mpsc::channel();
    let writer = Arc::clone(&meta);
    std::thread::spawn(move || done.send(put(&writer, b"next", b"value").is_ok()));
    let answer = waiting.recv_timeout(Duration::from_secs(20));
    world.drives[0].release();
    assert_eq!(answer, Ok(true));
}

#[test]
fn what_was_written_stays_counted_when_a_drive_is_marked() {
    let drives = drives(3, "counted");
    let meta = create(&drives, "2+1");
    let free = || -> Vec<u64> {
        let roster = meta.pool().roster();
        roster.seats.iter().map(|seat| seat.free_bytes()).collect()
    };
    let before = free();
    put(&meta, b"key", &bytes(1, 500_000)).unwrap();
    let after = free();
    assert!(before.iter().zip(&after).all(|(before, after)| before - after > 200_000));
    for entry in drives[0].entries() {
        if matches!(&entry, Entry::Blob(name) if name.as_str().starts_with("s/")) {
            drives[0].flip(&entry, 5000, 1);
        }
    }
    get(&meta, b"key").unwrap().unwrap();
    assert_eq!(meta.pool().roster().seats[0].state, State::Suspect);
    assert_eq!(free(), after);
}
