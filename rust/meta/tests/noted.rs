//! Damage that was met stays known until it is mended: while the store is open, and beyond.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    let world = World::new(6, "4+2", seed);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for n in 0..KEYS {
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

/// Reads all keys.
fn read_all(meta: &Arc<Meta>) {
    for n in 0..KEYS {
        assert!(get(meta, &key(n)).unwrap() == Some(bytes(n, BYTES)));
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
