//! Who has little time: waits for drives end with it, and nothing is lost or half there by that.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dwk_base::{Deadline, Error, Result, Seams, SystemClock, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, FaultyDrive};
use dwk_meta::{Change, Meta, Require};
use dwk_pool::{OpenOptions, Pool, PoolOptions, State};
use world::{World, bytes, check, delete, get, holder, options, pool_options, put};

/// Far less than a drive may take.
const SHORT: Duration = Duration::from_millis(50);
/// Far more than a wait goes beyond its end on a busy machine, and less than a drive may take.
const SOON: Duration = Duration::from_secs(4);

fn within(limit: Duration) -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), limit)
}

fn hang(world: &World, operation: Operation) {
    world.drives.iter().for_each(|drive| drive.inject(Fault::new(Effect::Hang).on(operation)));
}

fn release(world: &World) {
    world.drives.iter().for_each(FaultyDrive::release);
}

/// What it failed with, and that it did so in time.
fn in_time<T: std::fmt::Debug>(work: impl FnOnce() -> Result<T>) -> Error {
    let begin = Instant::now();
    let error = work().expect_err("it has no time");
    assert!(begin.elapsed() < SOON, "{:?} for {error}", begin.elapsed());
    assert!(error.is(&codes::CONTEXT_DEADLINE), "{error}");
    error
}

fn put_until(meta: &Arc<Meta>, key: &[u8], content: &[u8], deadline: &Deadline) -> Result<u64> {
    let mut upload = meta.upload_until(deadline);
    upload.append(content)?;
    let staged = upload.finish()?;
    let change = Change::new().put(key.to_vec(), b"body".to_vec(), Some(staged));
    meta.commit_until(change.require(key.to_vec(), Require::Absent), deadline)
}

fn failed_drives(meta: &Meta) -> usize {
    let roster = meta.pool().roster();
    roster.seats.iter().filter(|seat| seat.state != State::Ok).count()
}

/// Opens with drives that may take `drive_timeout`.
fn open_until(world: &World, drive_timeout: Duration, until: Deadline) -> Result<Arc<Meta>> {
    let drives = world.drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>);
    let pool = PoolOptions { drive_timeout, ..pool_options() };
    let open = OpenOptions { pool, until, ..OpenOptions::default() };
    Meta::open(Pool::open(drives.collect(), open, Seams::seeded(1), &holder())?, options())
}

/// Opens once what was left behind by who gave up has let go of the drives.
fn open_again(world: &World) -> Arc<Meta> {
    let begin = Instant::now();
    loop {
        match world.open() {
            Err(error) if error.is(&codes::STORE_LOCKED) => {
                assert!(begin.elapsed() < SOON, "{error}");
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn a_drive_that_hangs_is_left_out_of_an_opening() {
    for operation in [Operation::ReadSuperblock, Operation::Lock] {
        let world = World::new(6, "4+2", 5);
        let meta = world.create().unwrap();
        let content = bytes(1, 30_000);
        put(&meta, b"key", &content).unwrap();
        meta.close().unwrap();
        drop(meta);
        world.drives[0].inject(Fault::new(Effect::Hang).on(operation));
        let late = Duration::from_millis(200);
        let meta = open_until(&world, late, Deadline::never()).unwrap();
        let status = meta.pool().status(&*meta).unwrap();
        assert_eq!(status.drives[0].state, State::Missing, "{status:?}");
        assert!(status.advice.iter().any(|text| text.contains("does not answer")), "{status:?}");
        assert_eq!(get(&meta, b"key").unwrap().as_ref(), Some(&content));
        put(&meta, b"more", &content).unwrap();
        meta.close().unwrap();
        drop(meta);
        release(&world);
        let meta = open_again(&world);
        assert_eq!(failed_drives(&meta), 0);
        let model = [(b"key".to_vec(), content.clone()), (b"more".to_vec(), content)].into();
        check(&meta, &model, "with the drive back");
    }
}

#[test]
fn an_opening_waits_for_drives_until_its_deadline_and_holds_none_then() {
    let world = World::new(3, "2+1", 6);
    world.create().unwrap().close().unwrap();
    world.drives[2].inject(Fault::new(Effect::Hang).on(Operation::ReadSuperblock));
    in_time(|| open_until(&world, Duration::from_secs(20), within(SHORT)));
    release(&world);
    let _open = open_again(&world);
}

#[test]
fn a_drive_that_does_not_say_how_large_it_is_holds_up_nobody() {
    let world = World::new(4, "2+1", 7);
    world.create().unwrap().close().unwrap();
    world.drives[0].inject(Fault::new(Effect::Hang).on(Operation::Capacity));
    let begin = Instant::now();
    let meta = world.open().unwrap();
    let status = meta.pool().status(&*meta).unwrap();
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert!(status.drives[0].capacity_bytes > 0, "what it said when it was taken in: {status:?}");
    release(&world);
}

#[test]
fn a_change_whose_time_is_over_on_its_way_arrives_whole_and_others_see_it_coming() {
    let world = World::new(6, "4+2", 1);
    let meta = world.create().unwrap();
    let (small, large) = (bytes(1, 700), bytes(2, 50_000));
    for (key, content) in [(&b"small"[..], &small), (b"large", &large)] {
        hang(&world, Operation::SyncLog);
        let error = in_time(|| put_until(&meta, key, content, &within(SHORT)));
        assert_eq!(error.detail("outcome"), Some("unknown"));
        let again = put_until(&meta, key, content, &within(SHORT)).unwrap_err();
        assert!(again.is(&codes::OBJECT_CONFLICT), "{again}");
        in_time(|| meta.await_left(&within(SHORT)));
        release(&world);
        meta.await_left(&Deadline::never()).unwrap();
        assert_eq!(get(&meta, key).unwrap().as_ref(), Some(content));
    }
    assert_eq!(failed_drives(&meta), 0, "no drive was blamed");
    let third = put_until(&meta, b"small", &small, &Deadline::never()).unwrap_err();
    assert!(third.is(&codes::OBJECT_CONFLICT), "{third}");
    meta.close().unwrap();
    drop(meta);
    let model = [(b"small".to_vec(), small), (b"large".to_vec(), large)].into();
    check(&world.open().unwrap(), &model, "opened again");
}

#[test]
fn an_upload_whose_time_is_over_leaves_nothing() {
    for operation in [Operation::Put, Operation::Sync] {
        let world = World::new(6, "4+2", 2);
        let meta = world.create().unwrap();
        put(&meta, b"there", &bytes(1, 3000)).unwrap();
        meta.checkpoint().unwrap();
        let shards = |drive: &FaultyDrive| drive.list(Some("s"), None, 1000).unwrap().len();
        let files = || world.drives.iter().map(shards).sum::<usize>();
        let before = files();
        hang(&world, operation);
        in_time(|| put_until(&meta, b"key", &bytes(2, 200_000), &within(SHORT)));
        assert_eq!(failed_drives(&meta), 0, "no drive was blamed");
        release(&world);
        world::settle(&meta);
        assert_eq!(files(), before, "after {operation:?}");
        assert_eq!(get(&meta, b"key").unwrap(), None);
        put(&meta, b"key", &bytes(2, 200_000)).unwrap();
    }
}

#[test]
fn a_read_whose_time_is_over_says_nothing_about_the_drives() {
    let world = World::new(6, "4+2", 3);
    let meta = world.create().unwrap();
    let content = bytes(1, 50_000);
    put(&meta, b"key", &content).unwrap();
    let (_, mut reader) = meta.read(b"key").unwrap().unwrap();
    hang(&world, Operation::Read);
    reader.set_deadline(&within(SHORT));
    let mut into = vec![0; content.len()];
    in_time(|| reader.read_at(0, &mut into));
    release(&world);
    reader.set_deadline(&Deadline::never());
    assert_eq!(reader.read_at(0, &mut into).unwrap(), content.len());
    assert!(into == content);
    assert_eq!(failed_drives(&meta), 0);
}

#[test]
fn what_lies_in_the_journal_is_waited_for_until_the_deadline() {
    let world = World::new(6, "4+2", 4);
    let meta = world.create().unwrap();
    let content = bytes(1, 900);
    put(&meta, b"key", &content).unwrap();
    hang(&world, Operation::ReadLog);
    in_time(|| meta.read_until(b"key", &within(SHORT)));
    release(&world);
    assert_eq!(get(&meta, b"key").unwrap(), Some(content));
}

/// What the journal took since a drive said its room is not in what it said.
#[test]
fn a_drive_that_does_not_say_its_room_any_more_is_not_filled_beyond_its_reserve() {
    const CAPACITY: u64 = 3 << 19;
    let world = World::new(3, "2+1", 8);
    world.memory.iter().for_each(|drive| drive.set_capacity(CAPACITY));
    let meta = world.create().unwrap();
    hang(&world, Operation::Capacity);
    let put_next = |n: u64| put(&meta, &n.to_be_bytes(), &bytes(n, 1500)).err();
    let (many, error) = (0..10_000).find_map(|n| Some((n, put_next(n)?))).unwrap();
    assert!(many > 300 && error.is(&codes::POOL_FULL), "{many} puts: {error}");
    let reserve = (CAPACITY as f64 * world.pool.space.reserve_fraction) as u64;
    for drive in &world.memory {
        let free = drive.capacity().unwrap().free_bytes;
        assert!(free >= reserve, "{free} bytes are free after {many} puts, {reserve} are kept");
    }
    release(&world);
    for n in 0..many {
        delete(&meta, &n.to_be_bytes()).unwrap();
    }
    put(&meta, b"again", &bytes(1, 30_000)).unwrap();
}
