//! Healing beside work: an opening waits for none of it, and who repairs by hand comes first.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dwk_base::{Deadline, Seams, SystemClock, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, FaultyDrive};
use dwk_meta::{Meta, Options};
use dwk_pool::{Control, OpenOptions, Pool, Redundancy, State};
use world::{Model, World, bytes, check, holder, lose_blobs, options, pool_options, put};

/// Far less than healing would take, on a busy machine too.
const SOON: Duration = Duration::from_secs(4);

/// A store whose first drive was away, and came back without its shards of thirty objects.
fn one_was_away(seed: u64) -> (World, Model) {
    one_of(World::new(6, "4+2", seed))
}

/// Puts thirty objects.
fn thirty(meta: &Arc<Meta>) -> Model {
    let mut model = Model::new();
    for n in 0..30u64 {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n, 20_000));
        put(meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    model
}

fn one_of(mut world: World) -> (World, Model) {
    let meta = world.create().unwrap();
    let model = thirty(&meta);
    meta.close().unwrap();
    drop(meta);
    world.restart();
    world.open_without(&[0]).unwrap().close().unwrap();
    lose_blobs(&world.memory[0]);
    world.restart();
    (world, model)
}

/// Opens with all drives, or these, and leaves healing to the healer.
fn open(world: &World) -> Arc<Meta> {
    open_on(&world.drives)
}

fn open_on<'a>(drives: impl IntoIterator<Item = &'a FaultyDrive>) -> Arc<Meta> {
    let drives = drives.into_iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>);
    let open = OpenOptions { pool: pool_options(), ..OpenOptions::default() };
    let pool = Pool::open(drives.collect(), open, Seams::seeded(1), &holder()).unwrap();
    Meta::open(pool, Options { heal_time: Duration::ZERO, ..options() }).unwrap()
}

fn hang(world: &World) {
    world.drives[0].inject(Fault::new(Effect::Hang).on(Operation::Put));
}

/// Waits until healing stands still, at the drive that hangs.
fn stuck(world: &World) {
    wait_until("stuck", || {
        let before = world.power.steps();
        std::thread::sleep(Duration::from_millis(200));
        before == world.power.steps()
    });
}

fn state(meta: &Meta) -> State {
    meta.pool().roster().seats[0].state
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn within(limit: Duration) -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), limit)
}

#[test]
fn a_drive_that_was_away_is_brought_up_to_date_while_others_work() {
    let (world, mut model) = one_was_away(1);
    hang(&world);
    let begin = Instant::now();
    let meta = open(&world);
    assert!(begin.elapsed() < SOON, "the opening waited for the healer");
    assert!(meta.healing().is_some_and(|fraction| (0.0..=1.0).contains(&fraction)));
    assert_eq!(state(&meta), State::Stale);
    check(&meta, &model, "while it heals");
    put(&meta, b"small", b"beside it").unwrap();
    model.insert(b"small".to_vec(), b"beside it".to_vec());
    world.drives[0].release();
    wait_until("healed", || meta.healing().is_none());
    assert_eq!(state(&meta), State::Ok);
    let status = meta.pool().status(&*meta).unwrap();
    assert_eq!(status.redundancy, Redundancy::Full, "{status:?}");
    let scrub = meta.pool().scrub(&*meta, &Control::default()).unwrap();
    assert!(scrub.is_clean(), "{scrub:?}");
    check(&meta, &model, "healed");
}

#[test]
fn a_drive_that_is_yet_to_be_brought_up_to_date_holds_the_journal_where_no_other_can() {
    let (world, model) = one_of(World::new(4, "2+2", 4));
    hang(&world);
    // The second drive is away now. Each of the others held the journal already.
    let [first, _, rest @ ..] = &world.drives[..] else { unreachable!() };
    let meta = open_on([first].into_iter().chain(rest));
    let drives = meta.pool().status(&*meta).unwrap().drives;
    let journal = drives.into_iter().filter(|drive| drive.journal);
    let journal: Vec<_> = journal.map(|drive| (drive.name, drive.state)).collect();
    let expected = [("d1", State::Stale), ("d3", State::Ok), ("d4", State::Ok)];
    assert_eq!(journal, expected.map(|(name, state)| (name.to_owned(), state)));
    check(&meta, &model, "with three drives");
    world.drives[0].release();
}

#[test]
fn who_repairs_by_hand_comes_first_and_healing_goes_on_afterwards() {
    let (world, model) = one_was_away(2);
    hang(&world);
    let meta = open(&world);
    stuck(&world);
    let late = meta.pause_healing(&within(Duration::from_millis(50))).unwrap_err();
    assert!(late.is(&codes::CONTEXT_DEADLINE), "{late}");
    world.drives[0].release();
    {
        let _paused = meta.pause_healing(&within(SOON)).unwrap();
        assert!(meta.healing().is_none());
        meta.pool().scrub(&*meta, &Control::default()).unwrap();
    }
    wait_until("healed", || state(&meta) == State::Ok);
    check(&meta, &model, "healed");
}

#[test]
fn closing_ends_healing_and_the_next_opening_goes_on() {
    let (world, model) = one_was_away(3);
    hang(&world);
    let meta = open(&world);
    stuck(&world);
    std::thread::scope(|scope| {
        let closed = scope.spawn(|| meta.close());
        std::thread::sleep(Duration::from_millis(50));
        world.drives.iter().for_each(FaultyDrive::release);
        closed.join().unwrap().unwrap();
    });
    drop(meta);
    hang(&world);
    let meta = open(&world);
    assert_eq!(state(&meta), State::Stale, "closing waited for all of it");
    world.drives[0].release();
    wait_until("healed", || state(&meta) == State::Ok);
    check(&meta, &model, "healed");
}

#[test]
fn a_mirror_whose_other_half_is_brought_up_to_date_takes_new_content_meanwhile() {
    let (world, mut model) = one_of(World::new(2, "mirror:2", 4));
    hang(&world);
    let meta = open(&world);
    stuck(&world);
    assert_eq!(state(&meta), State::Stale);
    put(&meta, b"then", &bytes(2, 30_000)).unwrap();
    model.insert(b"then".to_vec(), bytes(2, 30_000));
    assert_ne!(meta.pool().status(&*meta).unwrap().redundancy, Redundancy::Full);
    world.drives[0].release();
    wait_until("healed", || meta.healing().is_none());
    let status = meta.pool().status(&*meta).unwrap();
    assert_eq!(status.redundancy, Redundancy::Full, "{status:?}");
    check(&meta, &model, "healed");
}

/// A mirror of which one half was away while thirty objects were written.
fn one_half_was_away(seed: u64) -> (World, Model) {
    let mut world = World::new(2, "mirror:2", seed);
    world.create().unwrap().close().unwrap();
    world.restart();
    let meta = world.open_without(&[0]).unwrap();
    let model = thirty(&meta);
    meta.close().unwrap();
    drop(meta);
    world.restart();
    (world, model)
}

#[test]
fn healing_is_not_done_while_what_was_written_on_one_drive_is_yet_to_be_made_safer() {
    let (world, model) = one_half_was_away(5);
    hang(&world);
    let meta = open(&world);
    stuck(&world);
    assert_eq!(state(&meta), State::Ok, "it lacked nothing");
    assert!(meta.pool().status(&*meta).unwrap().weak_stripes > 0);
    let fraction = meta.healing().unwrap();
    assert!((0.0..1.0).contains(&fraction), "{fraction}");
    world.drives[0].release();
    wait_until("healed", || meta.healing().is_none());
    assert_eq!(meta.pool().status(&*meta).unwrap().weak_stripes, 0);
    check(&meta, &model, "healed");
}
