//! More drives fail at once than the geometry can lose, and are well again later: what was acknowledged is there.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dwk_base::{Random, SeededRandom, codes};
use dwk_drive::FaultyDrive;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_meta::Meta;
use dwk_pool::{Control, Redundancy};
use world::{Model, World, bytes, delete, get, put};

const WRITERS: u64 = 3;
const PUTS: u64 = 40;

const OPERATIONS: [Operation; 11] = [
    Operation::Put,
    Operation::Read,
    Operation::Delete,
    Operation::Sync,
    Operation::ReadSuperblock,
    Operation::WriteSuperblock,
    Operation::CreateLog,
    Operation::HoldLog,
    Operation::WriteLog,
    Operation::SyncLog,
    Operation::ReadLog,
];

/// What a store must hold.
#[derive(Debug, Default)]
struct Book {
    /// What was acknowledged last.
    model: Model,
    /// Keys of which it is not known whether what was begun is done: both are right.
    open: Model,
}

/// Puts and deletes until something fails.
fn write(meta: &Arc<Meta>, book: &Mutex<Book>, writer: u64, seed: u64) {
    let random = SeededRandom::new(seed * 100 + writer);
    for n in 0..PUTS {
        let key = format!("{writer}-{}", random.below(8)).into_bytes();
        let content = bytes(
            seed << 16 | writer << 8 | n,
            [100, 1500, 9000, 40_000][random.below(4) as usize],
        );
        let is_put = random.below(4) > 0 || !book.lock().unwrap().model.contains_key(&key);
        let done = if is_put { put(meta, &key, &content) } else { delete(meta, &key) };
        let mut book = book.lock().unwrap();
        match done {
            Ok(_) if is_put => drop(book.model.insert(key, content)),
            Ok(_) => drop(book.model.remove(&key)),
            Err(_) => {
                book.open.insert(key, if is_put { content } else { Vec::new() });
                return;
            }
        }
    }
}

impl Book {
    /// Holds a store against it; what was open is settled.
    fn check(&mut self, meta: &Arc<Meta>, when: &str) {
        for (key, begun) in std::mem::take(&mut self.open) {
            let found = get(meta, &key).unwrap_or_else(|error| panic!("{when}: {error}"));
            let before = self.model.get(&key).cloned();
            let after = Some(begun).filter(|content| !content.is_empty());
            assert!(found == before || found == after, "{when}: other bytes for {key:?}");
            match found {
                Some(content) => self.model.insert(key, content),
                None => self.model.remove(&key),
            };
        }
        world::check(meta, &self.model, when);
    }
}

/// Has calls of some kinds fail from now on, or soon.
fn fail(drives: &[FaultyDrive], random: &SeededRandom) {
    let chance = [0.05, 0.3, 0.7, 1.0][random.below(4) as usize];
    let all = random.below(2) == 0;
    for drive in drives {
        for operation in OPERATIONS {
            if all || random.below(2) == 0 {
                let fault = Fault::new(Effect::Error(&codes::DRIVE_IO)).on(operation);
                drive.inject(fault.chance(chance).after(random.below(10)));
            }
        }
    }
}

/// Three times: drives fail and are well again, the power is cut or not, and one drive is away afterwards.
fn round(geometry: &'static str, count: usize, seed: u64) {
    let random = SeededRandom::new(seed);
    let mut world = World::new(count, geometry, seed);
    drop(world.create().unwrap());
    let mut book = Book::default();
    for again in 0..3 {
        let when = format!("{geometry}, seed {seed}, time {again}");
        let meta = world.open().unwrap_or_else(|error| panic!("{when}: {error}"));
        let shared = Mutex::new(std::mem::take(&mut book));
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (meta, shared) = (&meta, &shared);
                scope.spawn(move || write(meta, shared, writer, seed * 10 + again));
            }
            if random.below(2) == 0 {
                fail(&world.drives[random.below(count as u64) as usize..][..1], &random);
                thread::sleep(Duration::from_micros(random.below(20_000)));
            }
            fail(&world.drives, &random);
            if random.below(2) == 0 {
                let _ = meta.pool().scrub(&*meta, &Control::default());
            }
        });
        book = shared.into_inner().unwrap();
        if random.below(2) == 0 {
            let _ = meta.close();
        }
        if random.below(2) == 0 {
            world.power.cut_now();
        }
        drop(meta);
        world.drives.iter().for_each(FaultyDrive::heal);
        world.restart();
        let meta = world.open().unwrap_or_else(|error| panic!("{when}, well again: {error}"));
        book.check(&meta, &when);
        meta.pool().rebuild(&*meta, None, &Control::default()).unwrap();
        let status = meta.pool().status(&*meta).unwrap();
        assert_eq!(status.redundancy, Redundancy::Full, "{when}: {status:?}");
        drop(meta);
        let gone = random.below(count as u64) as usize;
        let meta = world.open_without(&[gone]).unwrap_or_else(|error| panic!("{when}: {error}"));
        book.check(&meta, &format!("{when}, without drive {gone}"));
        drop(meta);
        world.restart();
    }
}

#[test]
fn drives_that_fail_beyond_tolerance_and_are_well_again_hold_all_that_was_acknowledged() {
    let first: u64 = std::env::var("DWK_SEED").map_or(0, |seed| seed.parse().unwrap());
    let seeds = if std::env::var_os("DWK_LONG").is_some() { 2000 } else { 15 };
    for seed in first..first + seeds {
        for (geometry, count) in
            [("2+1", 3), ("3+1", 6), ("2+2", 5), ("mirror:2", 2), ("mirror:3", 3)]
        {
            round(geometry, count, seed);
        }
    }
}
