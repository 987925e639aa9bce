//! The power goes at every I/O step on a full pool: what was acknowledged is there afterwards, nothing else is
//! half there, and the pool can be emptied and used again, without any one drive as well.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;

use dwk_base::{Result, codes};
use dwk_drive::{Drive, MemoryDrive};
use dwk_meta::Meta;
use world::{Ledger, World, bytes, copy_of, create_on, delete, drives_of, open_on, options};

const CAPACITY_BYTES: u64 = 3 << 19;
const LARGE: usize = 20_000;
const SMALL: usize = 1500;

/// A full pool, closed.
struct Full {
    geometry: &'static str,
    drives: Vec<MemoryDrive>,
    ledger: Ledger,
}

impl Full {
    fn new(drives: usize, geometry: &'static str) -> Self {
        let drives = drives_of(drives, "d", CAPACITY_BYTES);
        let mut ledger = Ledger::default();
        create_on(&drives, geometry, options()).close().unwrap();
        // Closing folds and makes a little room again.
        for round in 0..3 {
            let meta = open_on(&drives, options()).unwrap();
            fill(&meta, &mut ledger, &format!("l{round}"), LARGE).unwrap();
            fill(&meta, &mut ledger, &format!("s{round}"), SMALL).unwrap();
            meta.close().unwrap();
        }
        let taken: usize = ledger.acknowledged.values().map(Vec::len).sum();
        assert!(taken as u64 > CAPACITY_BYTES / 3, "only {taken} bytes were taken");
        Self { geometry, drives, ledger }
    }

    fn world(&self, seed: u64) -> World {
        World::on(self.drives.iter().map(copy_of).collect(), self.geometry, seed)
    }

    /// True if the pool without one drive is a half that is only read until it is whole again.
    fn has_halves(&self) -> bool {
        self.drives.len() == 2
    }
}

/// Puts until the pool is full.
fn fill(meta: &Arc<Meta>, ledger: &mut Ledger, name: &str, length: usize) -> Result<()> {
    for n in 0..10_000u64 {
        match ledger.put(meta, &format!("{name}-{n:04}"), bytes(n, length)) {
            Ok(()) => {}
            Err(error) if error.is(&codes::POOL_FULL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    panic!("the pool takes everything");
}

/// Deletes every third key.
fn thin(meta: &Arc<Meta>, ledger: &mut Ledger) -> Result<()> {
    let keys: Vec<_> = ledger.acknowledged.keys().step_by(3).cloned().collect();
    keys.into_iter().try_for_each(|key| ledger.delete(meta, &String::from_utf8(key).unwrap()))
}

/// Puts that are refused, deletes, what gives their room back, a put that fits then.
fn script(meta: &Arc<Meta>, ledger: &mut Ledger) -> Result<()> {
    fill(meta, ledger, "refused-large", LARGE)?;
    fill(meta, ledger, "refused-small", SMALL)?;
    thin(meta, ledger)?;
    meta.collect()?;
    meta.checkpoint()?;
    ledger.put(meta, "fits", bytes(7, 3 * LARGE))?;
    meta.close()
}

/// Everything is as acknowledged, and the pool can be emptied and used.
fn goes_on(open: &dyn Fn() -> Result<Arc<Meta>>, mut ledger: Ledger, when: &str) {
    let fail = |error| -> ! { panic!("{when}: {error}") };
    let meta = open().unwrap_or_else(|error| fail(error));
    ledger.check(&meta, when);
    thin(&meta, &mut ledger).unwrap_or_else(|error| fail(error));
    ledger.put(&meta, "after", bytes(8, 3 * LARGE)).unwrap_or_else(|error| fail(error));
    meta.close().unwrap_or_else(|error| fail(error));
    drop(meta);
    let meta = open().unwrap_or_else(|error| fail(error));
    ledger.check(&meta, when);
}

/// Cuts at one step of the script; false if it ended before.
fn cut_at(full: &Full, step: u64, seed: u64) -> bool {
    let mut world = full.world(seed * 10_000 + step);
    let mut ledger = full.ledger.clone();
    world.power.cut_in(step);
    let done = world.open().and_then(|meta| script(&meta, &mut ledger));
    let cut = world.power.is_cut();
    assert!(cut || done.is_ok(), "step {step}: {done:?}");
    world.restart();
    let when = format!("{}, seed {seed}, cut at step {step}", full.geometry);
    for gone in 0..world.drives.len() {
        let mut left = world.copies();
        left.remove(gone);
        let when = format!("{when}, without d{}", gone + 1);
        let open = || open_on(&left, options());
        if full.has_halves() {
            let meta = open().unwrap_or_else(|error| panic!("{when}: {error}"));
            ledger.clone().check(&meta, &when);
        } else {
            goes_on(&open, ledger.clone(), &when);
        }
    }
    goes_on(&|| world.open(), ledger, &when);
    cut
}

fn cut_everywhere(drives: usize, geometry: &'static str, stride: usize) {
    let full = Full::new(drives, geometry);
    let long = std::env::var_os("DWK_LONG").is_some();
    let (seeds, stride) = if long { (3, 1) } else { (1, stride) };
    for seed in 0..seeds {
        let last = (1..).step_by(stride).find(|step| !cut_at(&full, *step, seed)).unwrap();
        assert!(last > 150, "the script made only {last} steps");
    }
}

#[test]
fn a_full_pool_survives_a_power_cut_at_every_step() {
    cut_everywhere(3, "2+1", 9);
}

#[test]
fn a_full_mirror_survives_a_power_cut_at_every_step() {
    cut_everywhere(2, "mirror:2", 9);
}

/// Shards that no stripe names are left by each cut: they must not take, cut by cut, the room that is kept.
#[test]
fn a_full_pool_on_which_the_power_fails_again_and_again_can_be_emptied() {
    let full = Full::new(3, "2+1");
    for seed in 0..4 {
        let (mut world, mut ledger) = (full.world(777 + seed), full.ledger.clone());
        for round in 0..40 {
            let when = format!("seed {seed}, round {round}");
            world.power.cut_in(20 + (round * 37 + seed * 11) % 150);
            let done = world.open().and_then(|meta| insist(&meta, &mut ledger, round));
            assert!(world.power.is_cut() || done.is_ok(), "{when}: {done:?}");
            world.restart();
            let meta = world.open().unwrap_or_else(|error| panic!("{when}: {error}"));
            ledger.check(&meta, &when);
            drop(meta);
            world.restart();
        }
        goes_on(&|| world.open(), ledger, &format!("seed {seed}, in the end"));
    }
}

/// Puts that are refused, and folds.
fn insist(meta: &Arc<Meta>, ledger: &mut Ledger, round: u64) -> Result<()> {
    for half in ["a", "b"] {
        fill(meta, ledger, &format!("insist-{round}-{half}"), LARGE)?;
        meta.checkpoint()?;
    }
    Ok(())
}

/// Others may fill the drives as well: what is kept for records that give room back is in the journal.
#[test]
fn a_pool_whose_drives_are_full_to_the_last_byte_can_be_emptied() {
    for (drives, geometry) in [(3, "2+1"), (2, "mirror:2")] {
        let Full { drives, mut ledger, .. } = Full::new(drives, geometry);
        let meta = open_on(&drives, options()).unwrap();
        for drive in &drives {
            let room = drive.capacity().unwrap();
            drive.set_capacity(room.total_bytes - room.free_bytes);
        }
        // What gives nothing back takes all the journal that it may.
        let many = (0..1000).position(|_| delete(&meta, b"nothing").is_err());
        assert!(many.is_some(), "{geometry}: it goes on for ever");
        let keys: Vec<_> = ledger.acknowledged.keys().cloned().collect();
        for (n, key) in keys.into_iter().enumerate() {
            let key = String::from_utf8(key).unwrap();
            ledger.delete(&meta, &key).unwrap_or_else(|e| panic!("{geometry}, {n}: {e}"));
        }
        ledger.put(&meta, "again", bytes(1, 10 * LARGE)).unwrap();
        ledger.check(&meta, geometry);
        meta.close().unwrap();
        ledger.check(&open_on(&drives, options()).unwrap(), geometry);
    }
}

/// Who closes can neither delete nor add a drive, and the journal keeps everything.
#[test]
fn a_pool_without_room_to_fold_closes_and_has_everything_when_it_is_opened_again() {
    for (count, geometry) in [(3, "2+1"), (2, "mirror:2")] {
        let (drives, mut ledger) = (drives_of(count, "d", CAPACITY_BYTES), Ledger::default());
        let meta = create_on(&drives, geometry, options());
        for n in 0..10u64 {
            ledger.put(&meta, &format!("k{n}"), bytes(n, SMALL)).unwrap();
        }
        for drive in &drives {
            let room = drive.capacity().unwrap();
            drive.set_capacity(room.total_bytes - room.free_bytes);
        }
        meta.pool().space().ask_room();
        assert!(meta.checkpoint().unwrap_err().is(&codes::POOL_FULL), "{geometry}: there is room");
        meta.close().unwrap_or_else(|error| panic!("{geometry}: {error}"));
        drop(meta);
        let meta = open_on(&drives, options()).unwrap();
        ledger.check(&meta, geometry);
        meta.close().unwrap();
    }
}
