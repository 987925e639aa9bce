use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use dwk_base::ManualClock;

use super::*;
use crate::{Entry, MemoryDrive};

fn name(text: &str) -> BlobName {
    BlobName::new(text).unwrap()
}

fn bytes(length: usize, fill: u8) -> Bytes {
    vec![fill; length].into()
}

fn world(seed: u64) -> (MemoryDrive, Power, FaultyDrive) {
    let (memory, power) = (MemoryDrive::new("d"), Power::new());
    let drive = FaultyDrive::new(Arc::new(memory.clone()), &power, seed);
    (memory, power, drive)
}

/// What lies on the drive after the restart, over many seeds.
fn outcomes(run: impl Fn(&FaultyDrive), entry: &Entry) -> BTreeSet<Option<Vec<u8>>> {
    let outcome = |seed| {
        let (memory, power, drive) = world(seed);
        run(&drive);
        power.restore();
        memory.raw(entry)
    };
    (0..1000).map(outcome).collect()
}

#[test]
fn an_unsynced_put_is_kept_lost_or_torn() {
    let blob = name("s/a");
    let put = |drive: &FaultyDrive| drive.put(&blob, &[bytes(2, 1)]).unwrap();
    let seen = outcomes(put, &Entry::Blob(blob.clone()));
    for expected in [None, Some(vec![1, 1]), Some(vec![1]), Some(vec![1, 0])] {
        assert!(seen.contains(&expected), "never seen: {expected:?}");
    }
}

#[test]
fn a_synced_put_is_kept() {
    let blob = name("s/a");
    let put = |drive: &FaultyDrive| {
        drive.put(&blob, &[bytes(2, 1)]).unwrap();
        drive.sync("test").unwrap();
    };
    assert_eq!(outcomes(put, &Entry::Blob(blob.clone())), BTreeSet::from([Some(vec![1, 1])]));
}

#[test]
fn an_unsynced_delete_may_come_back_and_a_synced_one_does_not() {
    let blob = name("s/a");
    let delete = |drive: &FaultyDrive| {
        drive.put(&blob, &[bytes(2, 1)]).unwrap();
        drive.sync("test").unwrap();
        drive.delete(&blob).unwrap();
        assert!(drive.stat(&blob).unwrap_err().is(&codes::BLOB_NOT_FOUND));
    };
    let both = BTreeSet::from([None, Some(vec![1, 1])]);
    assert_eq!(outcomes(delete, &Entry::Blob(blob.clone())), both);
    let synced = |drive: &FaultyDrive| {
        delete(drive);
        drive.sync("test").unwrap();
    };
    assert_eq!(outcomes(synced, &Entry::Blob(blob.clone())), BTreeSet::from([None]));
}

#[test]
fn of_an_unsynced_log_write_any_subset_of_sectors_is_kept() {
    let log_name = name("journal.0");
    let write = |drive: &FaultyDrive| {
        let log = drive.log().unwrap();
        log.create_log(&log_name, 8192).unwrap();
        log.write_log(&log_name, 4096, &[bytes(4096, 7)]).unwrap();
        let mut read = vec![0; 8192];
        log.read_log(&log_name, 0, &mut read).unwrap();
        assert!(read[..4096].iter().all(|byte| *byte == 0));
        assert!(read[4096..].iter().all(|byte| *byte == 7));
    };
    let seen = outcomes(write, &Entry::Log(log_name.clone()));
    assert!(seen.len() > 50, "only {} outcomes", seen.len());
    for log in seen.iter().flatten() {
        assert!(log[..4096].iter().all(|byte| *byte == 0));
        for sector in log[4096..].chunks(512) {
            assert!(sector == [0; 512] || sector == [7; 512]);
        }
    }
    let synced = |drive: &FaultyDrive| {
        write(drive);
        drive.log().unwrap().sync_log(&log_name, "test").unwrap();
    };
    assert_eq!(outcomes(synced, &Entry::Log(log_name.clone())).len(), 1);
}

#[test]
fn unsynced_deletions_do_not_shorten_a_page() {
    let (_, _, drive) = world(1);
    for blob in ["s/a", "s/b", "s/c", "s/d"] {
        drive.put(&name(blob), &[]).unwrap();
    }
    drive.sync("test").unwrap();
    drive.delete(&name("s/a")).unwrap();
    drive.delete(&name("s/b")).unwrap();
    assert_eq!(drive.list(Some("s"), None, 2).unwrap().len(), 2);
}

#[test]
fn an_omitted_sync_says_ok_and_syncs_nothing() {
    let blob = name("s/a");
    let put = |drive: &FaultyDrive| {
        drive.omit("left out");
        drive.put(&blob, &[bytes(2, 1)]).unwrap();
        drive.sync("left out").unwrap();
    };
    assert!(outcomes(put, &Entry::Blob(blob.clone())).contains(&None));
}

#[test]
fn a_failed_sync_loses_what_it_should_have_kept_even_if_it_is_retried() {
    let blob = name("s/a");
    let put = |drive: &FaultyDrive| {
        drive.put(&blob, &[bytes(2, 1)]).unwrap();
        drive.inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::Sync).times(1));
        assert!(drive.sync("test").unwrap_err().is(&codes::DRIVE_IO));
        drive.sync("test").unwrap();
        assert_eq!(drive.stat(&blob).unwrap().bytes, 2);
    };
    assert!(outcomes(put, &Entry::Blob(blob.clone())).contains(&None));
    let log_name = name("journal.0");
    let write = |drive: &FaultyDrive| {
        let log = drive.log().unwrap();
        log.create_log(&log_name, 4096).unwrap();
        log.write_log(&log_name, 0, &[bytes(4096, 7)]).unwrap();
        drive.inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::SyncLog).times(1));
        assert!(log.sync_log(&log_name, "test").is_err());
        log.sync_log(&log_name, "test").unwrap();
        let mut read = [0; 4096];
        log.read_log(&log_name, 0, &mut read).unwrap();
        assert_eq!(read, [7; 4096], "what is lost is seen until the power goes");
        log.write_log(&log_name, 0, &[bytes(4096, 8)]).unwrap();
        log.sync_log(&log_name, "test").unwrap();
        log.read_log(&log_name, 0, &mut read).unwrap();
        assert_eq!(read, [8; 4096]);
    };
    outcomes(write, &Entry::Log(log_name.clone()));
}

#[test]
fn a_torn_superblock_write_leaves_sectors_of_both() {
    let write = |drive: &FaultyDrive| {
        drive.write_superblock(Slot::A, &[1; 4096]).unwrap();
        let (again, power) = (drive.clone(), &drive.shared.supply);
        power.cut_at_next();
        assert!(again.write_superblock(Slot::A, &[2; 4096]).is_err());
    };
    let seen = outcomes(write, &Entry::SuperblockA);
    assert!(seen.contains(&Some(vec![1; 4096])) && seen.contains(&Some(vec![2; 4096])));
    assert!(seen.len() > 20, "only {} outcomes", seen.len());
    assert!(
        seen.iter().flatten().all(|slot| slot.chunks(512).all(|s| s == [1; 512] || s == [2; 512]))
    );
}

#[test]
fn the_cut_comes_at_the_step_that_was_asked_for_on_all_drives() {
    let power = Power::new();
    let make = |seed| FaultyDrive::new(Arc::new(MemoryDrive::new("d")), &power, seed);
    let drives = [make(1), make(2)];
    power.cut_at(4);
    drives[0].put(&name("a"), &[]).unwrap();
    drives[1].put(&name("a"), &[]).unwrap();
    drives[0].stat(&name("a")).unwrap();
    drives[0].sync("test").unwrap();
    assert_eq!(power.steps(), 3);
    assert!(drives[1].sync("test").is_err());
    assert!(power.is_cut());
    assert!(drives[0].stat(&name("a")).unwrap_err().is(&codes::DRIVE_IO));
    let fresh = power.restore();
    assert!(fresh[0].stat(&name("a")).is_ok());
    assert!(drives[0].stat(&name("a")).is_err(), "a handle of before the cut still works");
    assert!(!power.is_cut());
}

#[test]
fn reads_are_steps_if_asked_for() {
    let (_, power, drive) = world(1);
    power.count_reads(true);
    drive.capacity().unwrap();
    drive.list(None, None, 1).unwrap();
    assert_eq!(power.steps(), 2);
}

#[test]
fn locks_end_with_the_power() {
    let (_, power, drive) = world(1);
    let me = Holder { pid: 1, host: String::new(), since_unix_ns: 0, program: String::new() };
    let lock = drive.lock(&me, LockMode::Exclusive).unwrap();
    assert!(drive.lock(&me, LockMode::Shared).unwrap_err().is(&codes::STORE_LOCKED));
    let fresh = power.restore();
    let again = fresh[0].lock(&me, LockMode::Exclusive).unwrap();
    drop(lock);
    assert!(fresh[0].lock(&me, LockMode::Shared).is_err(), "a dead lock took a live one along");
    drop(again);
    assert!(fresh[0].lock(&me, LockMode::Shared).is_ok());
}

#[test]
fn the_same_seed_leaves_the_same_bytes() {
    let run = |seed| {
        let (memory, power, drive) = world(seed);
        for number in 0..50 {
            drive.put(&name(&format!("s/{number}")), &[bytes(1000, number)]).unwrap();
        }
        power.restore();
        memory.entries().iter().map(|entry| memory.raw(entry)).collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn faults_strike_the_calls_that_they_name() {
    let (_, _, drive) = world(1);
    let broken = Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::Put).named("s/");
    drive.inject(broken.after(1).times(1));
    drive.put(&name("t/1"), &[]).unwrap();
    drive.put(&name("s/1"), &[]).unwrap();
    assert!(drive.put(&name("s/2"), &[]).unwrap_err().is(&codes::DRIVE_IO));
    drive.put(&name("s/2"), &[bytes(10, 0)]).unwrap();
    drive.inject(Fault::new(Effect::Flip).on(Operation::Read));
    let mut read = [0; 10];
    drive.read(&name("s/2"), 0, &mut read).unwrap();
    assert_eq!(read.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    drive.heal();
    drive.read(&name("s/2"), 0, &mut read).unwrap();
    assert_eq!(read, [0; 10]);
}

#[test]
fn full_read_only_and_vanished_are_states() {
    let (_, _, drive) = world(1);
    let code = |drive: &FaultyDrive| drive.put(&name("a"), &[]).unwrap_err().code();
    drive.set_full(true);
    assert_eq!(code(&drive), &codes::DRIVE_FULL);
    drive.delete(&name("a")).unwrap_err();
    drive.set_read_only(true);
    assert_eq!(code(&drive), &codes::DRIVE_READ_ONLY);
    assert!(drive.capacity().is_ok());
    drive.set_vanished(true);
    assert_eq!(code(&drive), &codes::DRIVE_MISSING);
    assert!(drive.capacity().unwrap_err().is(&codes::DRIVE_MISSING));
    drive.heal();
    drive.put(&name("a"), &[]).unwrap();
}

#[test]
fn a_small_drive_is_full_before_the_sync() {
    let memory = MemoryDrive::with_capacity("d", 10);
    let drive = FaultyDrive::new(Arc::new(memory), &Power::new(), 1);
    drive.put(&name("a"), &[bytes(6, 0)]).unwrap();
    assert!(drive.put(&name("b"), &[bytes(6, 0)]).unwrap_err().is(&codes::DRIVE_FULL));
    assert_eq!(drive.capacity().unwrap().free_bytes, 4);
    drive.sync("test").unwrap();
}

#[test]
fn delays_are_slept_and_hangs_last_until_the_release() {
    let clock = Arc::new(ManualClock::default());
    let drive =
        FaultyDrive::with_clock(Arc::new(MemoryDrive::new("d")), &Power::new(), 1, clock.clone());
    drive.inject(Fault::new(Effect::Delay(Duration::from_secs(9))).on(Operation::Sync));
    drive.sync("test").unwrap();
    assert_eq!(clock.monotonic(), Duration::from_secs(9));
    drive.put(&name("a"), &[]).unwrap();
    assert!(drive.read_now(&name("a"), 0, &mut []).unwrap().is_some());
    drive.inject(Fault::new(Effect::Hang).on(Operation::Read));
    assert!(drive.read_now(&name("a"), 0, &mut []).unwrap().is_none());
    let other = drive.clone();
    let waiting = thread::spawn(move || other.read(&name("a"), 0, &mut []));
    thread::sleep(Duration::from_millis(20));
    assert!(!waiting.is_finished());
    drive.release();
    assert_eq!(waiting.join().unwrap().unwrap(), 0);
}
