//! Drives that come, go and are replaced: the journal keeps its copies, and nobody is called well who is not.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use dwk_base::{Error, Seams, StripeId, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, Entry, FaultyDrive, MemoryDrive};
use dwk_meta::{Change, Meta};
use dwk_pool::{Control, NewDrive, Pool, PoolStatus, Progress, Redundancy, State};
use world::{World, bytes, create_on, get, holder, open_on, options, pool_options, put};

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

/// Removes all shards from a drive, and has it full if it is to stay so.
fn lose_shards(drive: &MemoryDrive, for_now: bool) {
    let is_shard =
        |entry: &Entry| matches!(entry, Entry::Blob(name) if name.as_str().starts_with("s/"));
    drive.entries().into_iter().filter(is_shard).for_each(|entry| drive.set_raw(&entry, None));
    if for_now {
        fill(drive, 100);
    }
}

#[test]
fn a_drive_that_fails_as_it_takes_anothers_place_is_replaced_itself() {
    let world = World::new(3, "2+1", 62);
    let meta = world.create().unwrap();
    put(&meta, b"key", &bytes(1, 30_000)).unwrap();
    let bad = FaultyDrive::new(Arc::new(MemoryDrive::new("bad")), &world.power, 1);
    bad.inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::Put));
    let bad: Arc<dyn Drive> = Arc::new(bad);
    let _ = meta.pool().replace(&*meta, "d1", &bad, &holder(), &Control::default());
    let now = status(&meta);
    assert_eq!(now.drives.len(), 4, "{now:?}");
    assert_eq!(now.advice, ["d1 failed: run `drive replace d1 NEW` with an empty drive"]);
    replace(&meta, "d1", &MemoryDrive::new("good"));
    let now = status(&meta);
    assert_eq!((now.drives.len(), now.redundancy), (3, Redundancy::Full), "{now:?}");
    assert_eq!(now.advice, Vec::<String>::new());
    assert_eq!(get(&meta, b"key").unwrap().unwrap(), bytes(1, 30_000));
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
    lose_shards(&three[2], true);
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
fn a_shard_that_a_read_missed_is_in_status_until_it_is_restored() {
    let three = drives(3, "missed");
    let meta = create(&three, "2+1");
    put(&meta, b"key", &bytes(0, 800_000)).unwrap();
    lose_shards(&three[1], false);
    (0..2).for_each(|_| drop(get(&meta, b"key").unwrap().unwrap()));
    let before = status(&meta);
    assert_eq!(before.redundancy, Redundancy::Degraded, "{before:?}");
    assert!(before.advice.iter().any(|text| text.contains("rebuild")), "{before:?}");
    let report = meta.pool().rebuild(&*meta, None, &Control::default()).unwrap();
    assert!(report.is_complete() && report.restored_shards > 0, "{report:?}");
    let after = status(&meta);
    assert_eq!((after.redundancy, after.advice.len()), (Redundancy::Full, 0), "{after:?}");
}

#[test]
fn a_rebuild_brings_drives_up_to_date_from_the_beginning_and_tells_one_progress() {
    let four = drives(4, "one-progress");
    let meta = create(&four, "2+2");
    put(&meta, b"zero", &bytes(0, 900_000)).unwrap();
    meta.close().unwrap();
    drop(meta);
    let meta = open(&four[..2]).unwrap();
    put(&meta, b"one", b"x").unwrap();
    meta.close().unwrap();
    drop(meta);
    // An opening cannot bring them up to date.
    four[2..].iter().for_each(|drive| lose_shards(drive, true));
    let meta = open(&four).unwrap();
    four[2..].iter().for_each(|drive| drive.set_capacity(1 << 30));
    assert!(status(&meta).drives[2..].iter().all(|drive| drive.state == State::Stale));
    let told = Arc::new(Mutex::new(vec![Progress::default()]));
    let telling = Arc::clone(&told);
    let control = Control::new()
        // As if an earlier run had come nearly to the end.
        .starting_after(StripeId::from_u128(u128::MAX - 1))
        .on_progress(move |progress| telling.lock().unwrap().push(progress.clone()));
    meta.pool().rebuild(&*meta, None, &control).unwrap();
    let told = told.lock().unwrap();
    for two in told.windows(2) {
        assert!(two[0].fraction <= two[1].fraction && two[1].fraction <= 1.0, "{two:?}");
        assert!(two[0].stripes <= two[1].stripes && two[0].read_bytes <= two[1].read_bytes);
    }
    assert!(told.last().unwrap().restored_shards > 0, "{:?}", told.last());
    let scrub = meta.pool().scrub(&*meta, &Control::default()).unwrap();
    assert_eq!(scrub.damaged_shards, 0, "who is called well is up to date: {scrub:?}");
}

/// Opens, and opens again, with the drive `last` away in the first opening.
fn without_for_a_while(drives: &[MemoryDrive], last: usize) -> Arc<Meta> {
    let others: Vec<_> = drives.iter().enumerate().filter(|(n, _)| *n != last).collect();
    let others: Vec<_> = others.into_iter().map(|(_, drive)| drive.clone()).collect();
    let meta = open(&others).unwrap();
    put(&meta, b"meanwhile", b"x").unwrap();
    meta.close().unwrap();
    drop(meta);
    open(drives).unwrap()
}

#[test]
fn a_drive_that_was_away_can_be_replaced_and_one_that_was_replaced_can_have_been_away() {
    // Not up to date when it is replaced.
    let three = drives(3, "stale-replaced");
    let meta = create(&three, "2+1");
    put(&meta, b"key", &bytes(1, 100_000)).unwrap();
    meta.close().unwrap();
    drop(meta);
    lose_shards(&three[2], true);
    let meta = without_for_a_while(&three, 2);
    assert_eq!(status(&meta).drives[2].state, State::Stale);
    replace(&meta, "d3", &MemoryDrive::new("stale-replaced-new"));
    let after = status(&meta);
    assert_eq!((after.redundancy, after.drives.len()), (Redundancy::Full, 3), "{after:?}");
    // Away while it is replaced.
    let mut four = drives(3, "replaced-away");
    let meta = create(&four, "2+1");
    put(&meta, b"key", &bytes(1, 100_000)).unwrap();
    let (fresh, control) = (MemoryDrive::new("replaced-away-new"), Control::new());
    control.cancel();
    let new = Arc::new(fresh.clone()) as Arc<dyn Drive>;
    let begun = meta.pool().replace(&*meta, "d3", &new, &holder(), &control).unwrap();
    assert!(!begun.finished);
    let other = Arc::new(MemoryDrive::new("replaced-again")) as Arc<dyn Drive>;
    let again = meta.pool().replace(&*meta, "d3.old", &other, &holder(), &Control::new());
    assert!(again.unwrap_err().is(&codes::DRIVE_UNKNOWN));
    four.push(fresh);
    meta.close().unwrap();
    drop(meta);
    let meta = without_for_a_while(&four, 2);
    put(&meta, b"more", &bytes(2, 100_000)).unwrap();
    let report = meta.pool().rebuild(&*meta, None, &Control::default()).unwrap();
    let after = status(&meta);
    assert_eq!(
        (after.redundancy, after.drives.len()),
        (Redundancy::Full, 3),
        "{report:?} {after:?}"
    );
    assert_eq!(get(&meta, b"key").unwrap().unwrap(), bytes(1, 100_000));
}

#[test]
fn a_drive_that_is_replaced_stays_while_an_upload_has_content_on_it() {
    for geometry in ["jbod:2", "2+1"] {
        let now = drives(geometry.len().min(3), &format!("upload-{geometry}-"));
        let meta = create(&now, geometry);
        let content = bytes(1, 200_000);
        // Parts of it are on their way, parts lie on the drives, and no commit names any.
        for parts in [1, 4, 12] {
            let mut upload = meta.upload();
            upload.append(&content[..parts * 16_000]).unwrap();
            let fresh = MemoryDrive::new(format!("fresh-{geometry}-{parts}"));
            replace(&meta, "d2", &fresh);
            upload.append(&content[parts * 16_000..]).unwrap();
            let change = |staged| Change::new().put(b"key".to_vec(), b"body".to_vec(), staged);
            meta.commit(change(Some(upload.finish().unwrap()))).unwrap();
            let read = get(&meta, b"key").unwrap_or_else(|error| panic!("{geometry}: {error}"));
            assert!(read.unwrap() == content);
            assert_eq!(status(&meta).degraded_stripes, 0, "{geometry}, {parts} parts");
            meta.pool().rebuild(&*meta, None, &Control::default()).unwrap();
            let after = status(&meta);
            assert_eq!((after.drives.len(), after.redundancy), (now.len(), Redundancy::Full));
        }
        // One that comes to nothing holds nothing.
        let mut upload = meta.upload();
        upload.append(&content).unwrap();
        drop(upload.finish().unwrap());
        replace(&meta, "d2", &MemoryDrive::new(format!("last-{geometry}")));
        assert_eq!(status(&meta).drives.len(), now.len());
    }
}

#[test]
fn a_new_drive_that_hangs_holds_up_nobody_else() {
    for operation in [Operation::WriteSuperblock, Operation::ReadSuperblock, Operation::List] {
        let mut world = World::new(4, "2+1", 46);
        world.pool.drive_timeout = Duration::from_millis(500);
        let meta = world.create().unwrap();
        let fresh = FaultyDrive::new(Arc::new(MemoryDrive::new("slow")), &world.power, 1);
        fresh.inject(Fault::new(Effect::Hang).on(operation));
        let (drive, replacing) = (Arc::new(fresh.clone()) as Arc<dyn Drive>, Arc::clone(&meta));
        let (done, waiting) = mpsc::channel();
        std::thread::spawn(move || {
            let control = Control::default();
            let replaced = replacing.pool().replace(&*replacing, "d2", &drive, &holder(), &control);
            done.send(replaced).unwrap();
        });
        while fresh.held_calls() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (said, hearing) = mpsc::channel();
        let asking = Arc::clone(&meta);
        std::thread::spawn(move || said.send(status(&asking).drives.len()));
        let answer = hearing.recv_timeout(Duration::from_secs(20));
        let ended = waiting.recv_timeout(Duration::from_secs(20));
        fresh.release();
        assert_eq!(answer, Ok(4), "{operation:?}");
        let error = ended.expect("the caller waits for ever").unwrap_err();
        assert!(error.is(&codes::DRIVE_TIMEOUT), "{operation:?}: {error}");
    }
}

#[test]
fn who_labels_too_few_failure_domains_is_told() {
    for (hosts, exposed) in [(6, false), (3, false), (2, true), (1, true)] {
        let new = |n: usize| NewDrive {
            drive: Arc::new(MemoryDrive::new(format!("hosts{hosts}-{n}"))),
            name: format!("d{n}"),
            labels: [("host".to_owned(), format!("h{}", n % hosts))].into(),
        };
        let (six, geometry) = ((1..=6).map(new).collect::<Vec<_>>(), "4+2".parse().unwrap());
        let pool = Pool::create(&six, &geometry, &pool_options(), Seams::system(), &holder());
        let meta = Meta::create(pool.unwrap(), options()).unwrap();
        let told = status(&meta).warnings.iter().any(|text| text.contains("failure domains"));
        assert_eq!(told, exposed, "{hosts} hosts: {:?}", status(&meta).warnings);
    }
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
