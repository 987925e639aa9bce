//! Damage that was met stays known until it is mended: while the store is open, and beyond.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dwk_drive::{BlobName, Entry};
use dwk_meta::Meta;
use dwk_pool::{Control, Ledger as _, PoolStatus, Redundancy, ScrubReport, State, Stripe};
use world::{Model, World, bytes, check, get, put};

/// More than a scrub looks at in one page.
const KEYS: u64 = 150;
const BYTES: usize = 3000;

fn key(n: u64) -> Vec<u8> {
    format!("k{n:03}").into_bytes()
}

/// A store with one object in each of its stripes.
fn filled(seed: u64) -> (World, Arc<Meta>, Model) {
    filled_with(seed, KEYS)
}

fn filled_with(seed: u64, keys: u64) -> (World, Arc<Meta>, Model) {
    let world = World::new(6, "4+2", seed);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for n in 0..keys {
        put(&meta, &key(n), &bytes(n, BYTES)).unwrap();
        model.insert(key(n), bytes(n, BYTES));
    }
    (world, meta, model)
}

fn stripes(meta: &Meta) -> Vec<Stripe> {
    meta.stripes(None, usize::MAX).unwrap()
}

/// The file of a shard.
fn file(stripe: &Stripe, index: usize) -> Entry {
    Entry::Blob(BlobName::new(format!("s/{}.{index:02x}", stripe.id)).unwrap())
}

/// Turns a bit of a shard's payload.
fn harm(world: &World, stripe: &Stripe, index: usize) {
    let drive = &world.memory[usize::from(stripe.placement[index])];
    let mut content = drive.raw(&file(stripe, index)).unwrap();
    content[4096 + 10] ^= 1;
    drive.set_raw(&file(stripe, index), Some(content));
}

/// Harms each stripe that there is.
fn harm_all(world: &World, meta: &Meta) {
    for stripe in stripes(meta) {
        harm(world, &stripe, 0);
    }
}

/// Reads all keys.
fn read_all(meta: &Arc<Meta>) {
    for n in 0..KEYS {
        assert!(get(meta, &key(n)).unwrap() == Some(bytes(n, BYTES)));
    }
}

/// Closes and opens again.
fn reopen(world: &World, meta: Arc<Meta>) -> Arc<Meta> {
    meta.close().unwrap();
    drop(meta);
    world.open().unwrap()
}

/// Reads a key and waits until a commit keeps what that met.
fn read_and_keep(meta: &Arc<Meta>, n: u64) {
    let (begin, before) = (Instant::now(), meta.status().applied);
    get(meta, &key(n)).unwrap();
    while meta.status().applied == before {
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing is kept");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn status(meta: &Meta) -> PoolStatus {
    meta.pool().status(meta).unwrap()
}

fn scrub(meta: &Meta, control: &Control) -> ScrubReport {
    meta.pool().scrub(meta, control).unwrap()
}

fn state(meta: &Meta, stripe: &Stripe, index: usize) -> State {
    meta.pool().roster().seat(stripe.placement[index]).unwrap().state
}

#[test]
fn a_scrub_that_goes_on_behind_a_suspect_does_not_clear_it() {
    let (world, meta, _) = filled(1);
    let (first, last) = (stripes(&meta)[0].clone(), stripes(&meta).pop().unwrap());
    harm(&world, &first, 0);
    read_all(&meta);
    assert_eq!(state(&meta, &first, 0), State::Suspect);
    for after in [first.id, last.id] {
        let rest = scrub(&meta, &Control::new().starting_after(after));
        assert!(rest.is_clean(), "{rest:?}");
        assert_eq!(state(&meta, &first, 0), State::Suspect, "after {after}");
        assert_eq!(status(&meta).redundancy, Redundancy::Degraded);
    }
    let all = scrub(&meta, &Control::new());
    assert_eq!((all.is_clean(), all.restored_shards), (true, 1), "{all:?}");
    assert_eq!(state(&meta, &first, 0), State::Ok);
    assert_eq!(status(&meta).redundancy, Redundancy::Full);
}

#[test]
fn a_rest_says_nothing_of_a_drive_whose_damage_was_mended_before_it() {
    let (world, meta, _) = filled(2);
    let first = stripes(&meta)[0].clone();
    harm(&world, &first, 0);
    read_all(&meta);
    assert!(meta.pool().rebuild(&*meta, None, &Control::new()).unwrap().is_complete());
    scrub(&meta, &Control::new().starting_after(stripes(&meta).pop().unwrap().id));
    assert_eq!(state(&meta, &first, 0), State::Suspect, "nothing else of it was looked at");
}

/// A scrub that ends after so many stripes.
fn begin_scrub(meta: &Meta, stripes: u64) -> ScrubReport {
    let (seen, stop) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    let control = Control::new().stopped_by(Arc::clone(&stop)).on_progress(move |_| {
        stop.store(seen.fetch_add(1, Ordering::SeqCst) + 1 >= stripes, Ordering::SeqCst);
    });
    scrub(meta, &control)
}

#[test]
fn scrubs_of_one_opening_that_go_on_from_each_other_clear_what_all_of_them_looked_at() {
    let (world, meta, model) = filled(3);
    let (first, last) = (stripes(&meta)[0].clone(), stripes(&meta).pop().unwrap());
    harm(&world, &first, 0);
    harm(&world, &last, 0);
    read_all(&meta);
    let begun = begin_scrub(&meta, KEYS - 10);
    let after = begun.after.unwrap();
    assert!(!begun.finished && after > first.id && after < last.id, "{begun:?}");
    assert_eq!(state(&meta, &first, 0), State::Suspect);
    // Read again, and found wrong where it was looked at already.
    harm(&world, &first, 0);
    read_all(&meta);
    let rest = scrub(&meta, &Control::new().starting_after(after));
    assert!(rest.is_clean() && rest.restored_shards == 1, "{rest:?}");
    assert_eq!(state(&meta, &first, 0), State::Suspect);
    if last.placement[0] != first.placement[0] {
        assert_eq!(state(&meta, &last, 0), State::Ok);
    }
    let begun = begin_scrub(&meta, KEYS - 10);
    let rest = scrub(&meta, &Control::new().starting_after(begun.after.unwrap()));
    assert!(rest.is_clean(), "{rest:?}");
    assert_eq!(state(&meta, &first, 0), State::Ok);
    assert_eq!(status(&meta).redundancy, Redundancy::Full);
    check(&meta, &model, "scrubbed");
}

#[test]
fn damage_that_was_met_is_known_after_the_next_opening_until_it_is_mended() {
    let (world, meta, model) = filled(4);
    harm_all(&world, &meta);
    // Nothing is left to fold when it closes.
    meta.checkpoint().unwrap();
    read_and_keep(&meta, 0);
    read_and_keep(&meta, 1);
    get(&meta, &key(2)).unwrap();
    let meta = reopen(&world, reopen(&world, meta));
    let now = status(&meta);
    assert_eq!(now.redundancy, Redundancy::Degraded);
    assert_eq!((now.degraded_stripes, now.lost_stripes), (3, 0));
    assert!(now.advice.iter().any(|advice| advice.contains("run `rebuild`")), "{now:?}");
    let report = meta.pool().rebuild(&*meta, None, &Control::new()).unwrap();
    assert_eq!((report.is_complete(), report.restored_shards), (true, 3));
    let meta = reopen(&world, meta);
    assert_eq!(status(&meta).redundancy, Redundancy::Full);
    assert_eq!(scrub(&meta, &Control::new()).damaged_shards, KEYS - 3);
    check(&meta, &model, "mended");
}

#[test]
fn what_is_lost_is_known_as_lost_after_the_next_opening() {
    let (world, meta, _) = filled(5);
    let first = stripes(&meta)[0].clone();
    (0..3).for_each(|index| harm(&world, &first, index));
    assert!(!scrub(&meta, &Control::new()).is_clean());
    let meta = reopen(&world, meta);
    let now = status(&meta);
    assert_eq!((now.redundancy, now.lost_stripes), (Redundancy::Lost, 1), "{now:?}");
}

#[test]
fn damage_is_kept_while_the_store_is_open_and_over_checkpoints() {
    let (mut world, meta, _) = filled(6);
    harm_all(&world, &meta);
    read_and_keep(&meta, 0);
    for folds in 0..3 {
        for n in 0..folds {
            put(&meta, format!("new{folds}{n}").as_bytes(), b"small").unwrap();
            meta.checkpoint().unwrap();
        }
        // Nobody closes it.
        let copies = world.copies();
        let copy = world::open_on(&copies, world::options()).unwrap();
        assert_eq!(status(&copy).degraded_stripes, 1, "after {folds} folds");
    }
    meta.pool().rebuild(&*meta, None, &Control::new()).unwrap();
    drop(meta);
    world.restart();
    assert_eq!(status(&world.open().unwrap()).redundancy, Redundancy::Full);
}

#[test]
fn much_damage_is_kept_in_few_records_and_what_has_no_room_is_not_forgotten() {
    let (world, meta, _) = filled_with(7, 600);
    let before = meta.status().applied;
    harm_all(&world, &meta);
    for n in 0..600 {
        get(&meta, &key(n)).unwrap();
    }
    let meta = reopen(&world, meta);
    let records = meta.status().applied - before;
    assert!((1..30).contains(&records), "{records} records");
    let now = status(&meta);
    assert_eq!(now.degraded_stripes, 512);
    assert!(now.advice.iter().any(|advice| advice.contains("scrub --restart")), "{now:?}");
    // What is known is mended, and it is known that it was not all.
    meta.pool().rebuild(&*meta, None, &Control::new()).unwrap();
    let meta = reopen(&world, meta);
    let now = status(&meta);
    assert_eq!((now.redundancy, now.degraded_stripes), (Redundancy::Degraded, 0), "{now:?}");
    let rest = scrub(&meta, &Control::new().starting_after(stripes(&meta)[0].id));
    assert!(rest.is_clean() && rest.restored_shards > 0, "{rest:?}");
    assert_eq!(status(&meta).redundancy, Redundancy::Degraded);
    assert!(scrub(&meta, &Control::new()).is_clean());
    assert_eq!(status(&reopen(&world, meta)).redundancy, Redundancy::Full);
}

#[test]
fn keeping_damage_survives_a_power_cut_at_every_step() {
    let run = |world: &World, meta: &Arc<Meta>| {
        let first = stripes(meta)[0].clone();
        harm(world, &first, 0);
        let _ = get(meta, &key(0));
        for n in 0..20 {
            let _ = get(meta, &key(n));
        }
        let _ = meta.checkpoint();
        let _ = meta.pool().rebuild(&**meta, None, &Control::new());
        let _ = meta.close();
    };
    let (world, meta, _) = filled_with(8, 20);
    let before = world.power.steps();
    run(&world, &meta);
    let steps = world.power.steps() - before;
    assert!(steps > 20, "{steps}");
    let stride = if std::env::var_os("DWK_LONG").is_some() { 1 } else { 1 + steps / 30 };
    for step in (1..=steps).step_by(stride as usize) {
        let (mut world, meta, model) = filled_with(8, 20);
        world.power.cut_in(step);
        run(&world, &meta);
        drop(meta);
        world.restart();
        let meta = world.open().unwrap_or_else(|error| panic!("step {step}: {error}"));
        check(&meta, &model, &format!("step {step}"));
        assert!(scrub(&meta, &Control::new()).is_clean(), "step {step}");
        let meta = reopen(&world, meta);
        assert_eq!(status(&meta).redundancy, Redundancy::Full, "step {step}");
    }
}
