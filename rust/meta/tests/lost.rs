//! A drive that was away is brought up to date with all that can be had; what is lost for good is known as lost.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;

use dwk_base::codes;
use dwk_drive::{BlobName, Drive, Entry, FaultyDrive, MemoryDrive};
use dwk_meta::Meta;
use dwk_pool::{Control, Ledger as _, PoolStatus, Redundancy, State, Stripe};
use world::{
    Model, World, bytes, check, copy_of, delete, get, holder, lose_blobs, open_on, options, put,
};

const KEYS: u64 = 12;

fn key(n: u64) -> Vec<u8> {
    format!("k{n:02}").into_bytes()
}

/// A store whose first drive was away and lacks all its shards, and which lacks `more` shards of one stripe on
/// the drives in the middle.
fn one_was_away(seed: u64, more: usize) -> (World, Model) {
    let mut world = World::new(6, "4+2", seed);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for n in 0..KEYS {
        put(&meta, &key(n), &bytes(n, 20_000)).unwrap();
        model.insert(key(n), bytes(n, 20_000));
    }
    let stripe = meta.stripes(None, 1).unwrap().remove(0);
    meta.close().unwrap();
    drop(meta);
    world.restart();
    world.open_without(&[0]).unwrap().close().unwrap();
    lose_blobs(&world.memory[0]);
    let others = stripe.placement.iter().enumerate().filter(|(_, seat)| (2..5).contains(*seat));
    for (index, seat) in others.take(more) {
        harm(&world.memory[usize::from(*seat)], &stripe, index);
    }
    world.restart();
    (world, model)
}

/// Damages a shard, or removes it.
fn harm(drive: &MemoryDrive, stripe: &Stripe, index: usize) {
    let file = Entry::Blob(BlobName::new(format!("s/{}.{index:02x}", stripe.id)).unwrap());
    let damaged = drive.raw(&file).filter(|_| index.is_multiple_of(2)).map(|mut content| {
        content[4100] ^= 1;
        content
    });
    drive.set_raw(&file, damaged);
}

fn states(meta: &Meta) -> Vec<State> {
    meta.pool().roster().seats.iter().map(|seat| seat.state).collect()
}

fn status(meta: &Meta) -> PoolStatus {
    meta.pool().status(meta).unwrap()
}

/// All but one object can be read; returns which cannot.
fn lost_key(meta: &Arc<Meta>, model: &Model, when: &str) -> Vec<u8> {
    let mut lost = Vec::new();
    for (key, content) in model {
        match get(meta, key) {
            Ok(got) => assert!(got.as_ref() == Some(content), "{when}: {key:?} is another"),
            Err(error) => {
                assert!(error.is(&codes::DATA_CORRUPT), "{when}: {error}");
                lost.push(key.clone());
            }
        }
    }
    assert_eq!(lost.len(), 1, "{when}");
    lost.remove(0)
}

fn reopen(world: &World, meta: Arc<Meta>) -> Arc<Meta> {
    meta.close().unwrap();
    drop(meta);
    world.open().unwrap()
}

#[test]
fn a_drive_that_lacks_only_what_is_lost_for_good_is_current_and_that_stays_known_as_lost() {
    let (world, mut model) = one_was_away(1, 2);
    let mut meta = world.open().unwrap();
    for round in 0..3 {
        let when = format!("round {round}");
        assert_eq!(states(&meta)[0], State::Ok, "{when}");
        let now = status(&meta);
        assert_eq!((now.redundancy, now.lost_stripes), (Redundancy::Lost, 1), "{when}: {now:?}");
        lost_key(&meta, &model, &when);
        let report = meta.pool().rebuild(&*meta, None, &Control::new()).unwrap();
        assert_eq!((report.lost_stripes, report.is_complete()), (1, false), "{when}: {report:?}");
        meta = reopen(&world, meta);
    }
    // It takes new content, as safe as any.
    put(&meta, b"new", &bytes(99, 20_000)).unwrap();
    model.insert(b"new".to_vec(), bytes(99, 20_000));
    assert_eq!(status(&meta).weak_stripes, 0);
    let lost = lost_key(&meta, &model, "then");
    delete(&meta, &lost).unwrap();
    model.remove(&lost);
    meta.collect().unwrap();
    assert!(meta.pool().scrub(&*meta, &Control::new()).unwrap().is_clean());
    let meta = reopen(&world, meta);
    assert_eq!(status(&meta).redundancy, Redundancy::Full, "{:?}", status(&meta));
    check(&meta, &model, "without what is lost");
}

#[test]
fn a_drive_that_lacks_what_others_that_are_away_hold_waits_for_them() {
    for gone in [1, 5] {
        let (world, model) = one_was_away(2, 1);
        let meta = world.open_without(&[gone]).unwrap();
        assert_eq!(states(&meta)[0], State::Stale, "without {gone}");
        let meta = reopen(&world, meta);
        assert_eq!(states(&meta), [State::Ok; 6], "without {gone}");
        let report = meta.pool().rebuild(&*meta, None, &Control::new()).unwrap();
        assert!(report.is_complete(), "without {gone}: {report:?}");
        assert_eq!(status(&meta).redundancy, Redundancy::Full, "without {gone}");
        let scrub = meta.pool().scrub(&*meta, &Control::new()).unwrap();
        assert_eq!((scrub.damaged_shards, scrub.lost_stripes), (0, 0), "without {gone}");
        check(&meta, &model, "all are back");
    }
}

#[test]
fn who_is_replaced_is_not_waited_for() {
    let (world, model) = one_was_away(3, 1);
    let meta = world.open_without(&[5]).unwrap();
    assert_eq!(states(&meta)[0], State::Stale);
    let fresh: Arc<dyn Drive> = Arc::new(MemoryDrive::new("fresh"));
    let control = Control::new();
    let report = meta.pool().replace(&*meta, "d6", &fresh, &holder(), &control).unwrap();
    assert_eq!(report.lost_stripes, 1, "{report:?}");
    assert_eq!(states(&meta)[0], State::Ok);
    assert_eq!(status(&meta).lost_stripes, 1, "{:?}", status(&meta));
    lost_key(&meta, &model, "replaced");
}

#[test]
fn a_drive_that_fails_while_it_is_read_is_waited_for() {
    use dwk_drive::faulty::{Effect, Fault, Operation};
    let (world, _) = one_was_away(4, 1);
    world.drives[5].inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::Read));
    let meta = world.open().unwrap();
    assert_eq!(states(&meta)[0], State::Stale);
    world.drives.iter().for_each(FaultyDrive::heal);
    let meta = reopen(&world, meta);
    let report = meta.pool().rebuild(&*meta, None, &Control::new()).unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(states(&meta)[0], State::Ok);
}

#[test]
fn becoming_current_without_what_is_lost_survives_a_power_cut_at_every_step() {
    let (world, _) = one_was_away(5, 2);
    let before = world.power.steps();
    world.open().unwrap().close().unwrap();
    let steps = world.power.steps() - before;
    assert!(steps > 50, "{steps}");
    let stride = if std::env::var_os("DWK_LONG").is_some() { 1 } else { 1 + steps / 40 };
    let mut current_at_once = 0;
    for step in (1..=steps).step_by(stride as usize) {
        let (mut world, model) = one_was_away(5 + step, 2);
        world.power.cut_in(step);
        if let Ok(meta) = world.open() {
            let _ = meta.close();
        }
        world.restart();
        let when = format!("step {step}");
        // Who only looks heals nothing: where the drive counts as current, what is lost is known.
        let copies: Vec<_> = world.memory.iter().map(copy_of).collect();
        let looked = world::look_on(&copies, options()).unwrap();
        if states(&looked)[0] == State::Ok {
            assert_eq!(status(&looked).lost_stripes, 1, "{when}: {:?}", status(&looked));
            current_at_once += 1;
        }
        let meta = world.open().unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(states(&meta)[0], State::Ok, "{when}");
        assert_eq!(status(&meta).lost_stripes, 1, "{when}: {:?}", status(&meta));
        lost_key(&meta, &model, &when);
        meta.close().unwrap();
        drop(meta);
        // All else is as safe as it was.
        for gone in 0..6 {
            let left = world.memory.iter().enumerate().filter(|(n, _)| *n != gone);
            let left: Vec<_> = left.map(|(_, drive)| copy_of(drive)).collect();
            let meta = open_on(&left, options()).unwrap();
            lost_key(&meta, &model, &format!("{when}, without {gone}"));
        }
    }
    assert!(current_at_once > 0);
}
