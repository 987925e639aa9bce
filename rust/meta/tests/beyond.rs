//! More drives fail at once than the geometry can lose, and are well again later: what was acknowledged is there.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dwk_base::{Random, Result, SeededRandom, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, FaultyDrive, MemoryDrive};
use dwk_meta::Meta;
use dwk_pool::{Control, Redundancy, State};
use world::{Model, World, bytes, delete, get, holder, put};

const WRITERS: u64 = 3;
const PUTS: u64 = 40;
/// How long a drive may take.
const TIMEOUT_MS: u64 = 100;

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

/// What happens to drives.
type Effects = fn(&SeededRandom) -> Effect;

fn failing(_: &SeededRandom) -> Effect {
    Effect::Error(&codes::DRIVE_IO)
}

fn hanging(random: &SeededRandom) -> Effect {
    match random.below(3) {
        0 => Effect::Error(&codes::DRIVE_IO),
        1 => Effect::Delay(Duration::from_millis(random.below(2 * TIMEOUT_MS))),
        _ => Effect::Hang,
    }
}

/// Has calls of some kinds meet that from now on, or soon.
fn harm(drives: &[FaultyDrive], effects: Effects, random: &SeededRandom) {
    let chance = [0.05, 0.3, 0.7, 1.0][random.below(4) as usize];
    let all = random.below(2) == 0;
    for drive in drives {
        for operation in OPERATIONS {
            if all || random.below(2) == 0 {
                let fault = Fault::new(effects(random)).on(operation);
                drive.inject(fault.chance(chance).after(random.below(10)));
            }
        }
    }
}

/// An empty drive of this world.
fn fresh(world: &World) -> FaultyDrive {
    let fresh = MemoryDrive::new(format!("fresh{}", world.power.steps()));
    FaultyDrive::new(Arc::new(fresh), &world.power, world.seed)
}

fn replace(meta: &Arc<Meta>, name: &str, fresh: &FaultyDrive) -> Result<()> {
    let fresh: Arc<dyn Drive> = Arc::new(fresh.clone());
    meta.pool().replace(&**meta, name, &fresh, &holder(), &Control::default()).map(drop)
}

/// Puts another drive in the place of one, and it may fail as well.
fn replace_any(world: &World, meta: &Arc<Meta>, random: &SeededRandom) {
    let fresh = fresh(world);
    if random.below(2) == 0 {
        harm(std::slice::from_ref(&fresh), failing, random);
    }
    let seats = meta.pool().roster().seats.clone();
    let name = &seats[random.below(seats.len() as u64) as usize].name;
    let _ = replace(meta, name, &fresh);
}

/// Restores full redundancy. A drive that failed before it was one of the others is replaced.
fn mend(world: &World, meta: &Arc<Meta>, when: &str) {
    let rebuild = || meta.pool().rebuild(&**meta, None, &Control::default()).unwrap();
    rebuild();
    let status = || meta.pool().status(&**meta).unwrap();
    for drive in status().drives {
        if drive.state == State::Failed {
            replace(meta, &drive.name, &fresh(world)).unwrap_or_else(|error| {
                panic!("{when}, replacing {}: {error}: {:?}", drive.name, status())
            });
        }
    }
    rebuild();
    assert_eq!(status().redundancy, Redundancy::Full, "{when}: {:?}", status());
}

/// Three times: drives fail and are well again, the power is cut or not, and one drive is away afterwards.
fn round(geometry: &'static str, count: usize, effects: Effects, seed: u64) {
    let random = SeededRandom::new(seed);
    let mut world = World::new(count, geometry, seed);
    let timeout = Duration::from_millis(TIMEOUT_MS);
    world.pool.drive_timeout = timeout;
    world.pool.space.drive_timeout = timeout;
    world.pool.journal.member_timeout = timeout;
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
                harm(&world.drives[random.below(count as u64) as usize..][..1], effects, &random);
                thread::sleep(Duration::from_micros(random.below(20_000)));
            }
            harm(&world.drives, effects, &random);
            match random.below(4) {
                0 => drop(meta.pool().scrub(&*meta, &Control::default())),
                1 => drop(meta.pool().rebuild(&*meta, None, &Control::default())),
                2 => replace_any(&world, &meta, &random),
                _ => {}
            }
        });
        book = shared.into_inner().unwrap();
        if random.below(2) == 0 {
            let _ = meta.close();
        }
        if random.below(2) == 0 {
            world.power.cut_now();
        }
        thread::scope(|scope| {
            scope.spawn(|| drop(meta));
            world.drives.iter().for_each(FaultyDrive::release);
        });
        world.restart();
        world.drives.iter().for_each(FaultyDrive::heal);
        let meta = world.open().unwrap_or_else(|error| panic!("{when}, well again: {error}"));
        book.check(&meta, &when);
        mend(&world, &meta, &when);
        drop(meta);
        world.restart();
        let gone = random.below(world.drives.len() as u64) as usize;
        let meta = world.open_without(&[gone]).unwrap_or_else(|error| panic!("{when}: {error}"));
        book.check(&meta, &format!("{when}, without drive {gone}"));
        drop(meta);
        world.restart();
    }
}

fn histories(effects: Effects, seeds: u64) {
    let first: u64 = std::env::var("DWK_SEED").map_or(0, |seed| seed.parse().unwrap());
    let times = if std::env::var_os("DWK_LONG").is_some() { 100 } else { 1 };
    for seed in first..first + seeds * times {
        for (geometry, count) in
            [("2+1", 3), ("3+1", 6), ("2+2", 5), ("mirror:2", 2), ("mirror:3", 3)]
        {
            round(geometry, count, effects, seed);
        }
    }
}

#[test]
fn drives_that_fail_beyond_tolerance_and_are_well_again_hold_all_that_was_acknowledged() {
    histories(failing, 15);
}

#[test]
fn drives_that_hang_beyond_tolerance_and_go_on_again_hold_all_that_was_acknowledged() {
    histories(hanging, 2);
}
