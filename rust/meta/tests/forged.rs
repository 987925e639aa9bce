//! Superblocks with a right check that nobody meant: whoever can write to a drive can make them. An opening takes
//! them or refuses them with a code; nothing panics, hangs or gives wrong bytes.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dwk_base::{DriveId, Epoch, PoolId, Random, SeededRandom};
use dwk_drive::{Drive, Edition, MemberRow, MemberState, MemoryDrive, Superblock};
use dwk_pool::Control;
use world::{Model, World, bytes, get, put};

/// Numbers at borders, and small ones.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    7,
    65_534,
    65_535,
    1 << 40,
    u64::MAX / 2 - 1,
    u64::MAX / 2,
    u64::MAX - 1,
    u64::MAX,
];
const GEOMETRIES: &[&str] = &[
    "",
    "none",
    "4+2",
    "2+1",
    "3+3",
    "mirror:2",
    "mirror:255",
    "raid6:300",
    "200+55",
    "raid50:2x(2+1)",
    "raid50:65535x(65535+65535)",
    "mirror:2x(raid0:3)",
    "lrc:4+2+1",
    "99999999999999999999+1",
    "2x(",
    "é",
];
const STATES: [MemberState; 5] = [
    MemberState::Ok,
    MemberState::Failed,
    MemberState::Stale,
    MemberState::Draining,
    MemberState::Removed,
];

/// Where these lie in a slot: docs/format/superblock.md.
const BODY_BYTES: Range<usize> = 12..16;
const REVISION: Range<usize> = 16..24;
const CHECK: Range<usize> = 32..64;
const EPOCH: Range<usize> = 120..128;

struct Forger(SeededRandom);

impl Forger {
    fn below(&self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }

    fn one<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn number(&self, near: u64) -> u64 {
        match self.below(4) {
            0 => near.wrapping_add(1),
            1 => near.wrapping_sub(1),
            _ => self.one(NUMBERS),
        }
    }

    fn text(&self) -> String {
        match self.below(5) {
            0 => String::new(),
            1 => "d1".to_owned(),
            2 => "x".repeat(20_000),
            3 => "\0\n\u{202e}é/../..".to_owned(),
            _ => "name".to_owned(),
        }
    }

    fn edition(&self, near: Edition) -> Edition {
        let digest = if self.below(2) == 0 { near.digest } else { [self.below(256) as u8; 32] };
        Edition { epoch: Epoch(self.number(near.epoch.0)), digest }
    }

    /// Changes something about a superblock.
    fn forge(&self, superblock: &mut Superblock) {
        let own = superblock.edition();
        match self.below(17) {
            0 | 1 => superblock.epoch = Epoch(self.number(superblock.epoch.0)),
            2 => superblock.in_force = !superblock.in_force,
            3 => superblock.took_part = Epoch(self.number(superblock.took_part.0)),
            4 => superblock.follows = (0..self.below(70)).map(|_| self.edition(own)).collect(),
            5 => self.one(GEOMETRIES).clone_into(&mut superblock.geometry),
            6 => superblock.clean = !superblock.clean,
            7 => superblock.journal.truncate(self.below(3)),
            8 => superblock.journal.extend([DriveId::from_u128(7), superblock.drive]),
            9 => superblock.written_unix_ns = self.number(superblock.written_unix_ns),
            10 => superblock.features.read_only = self.number(0),
            11 => superblock.pool = PoolId::from_u128(self.below(3) as u128),
            12 => superblock.drive = superblock.members[self.below(superblock.members.len())].id,
            13 => superblock.options.extend([(self.text(), self.text())]),
            14 => {
                for (_, value) in &mut superblock.options {
                    *value = self.number(1).to_string();
                }
            }
            _ => self.forge_members(&mut superblock.members),
        }
    }

    fn forge_members(&self, members: &mut Vec<MemberRow>) {
        let at = self.below(members.len());
        match self.below(9) {
            0 if members.len() > 1 => drop(members.remove(at)),
            1 => members.push(members[at].clone()),
            2 => members[at].index = self.number(u64::from(members[at].index)) as u16,
            3 => members[at].id = DriveId::from_u128(9),
            4 => members[at].state = self.one(&STATES),
            5 => members[at].epoch = Epoch(self.number(members[at].epoch.0)),
            6 => members[at].capacity_bytes = self.number(members[at].capacity_bytes),
            7 => members[at].name = self.text(),
            _ => drop(members[at].labels.insert(self.text(), self.text())),
        }
    }

    /// Puts a forged superblock on a drive: beside the one that is there, or instead of both.
    fn strike(&self, drive: &MemoryDrive) {
        let loaded = Superblock::load(drive).unwrap().unwrap();
        let mut forged = loaded.in_force.as_ref().unwrap().superblock.clone();
        let slots = loaded.keeping(&forged.edition());
        for _ in 0..=self.below(3) {
            self.forge(&mut forged);
        }
        let (epoch, revision) = (forged.epoch, self.number(slots.revision()));
        forged.epoch = epoch.min(Epoch::LAST);
        // What does not fit a slot cannot be put there.
        let Ok(mut bytes) = forged.encode(1) else { return };
        bytes[REVISION].copy_from_slice(&revision.to_le_bytes());
        bytes[EPOCH].copy_from_slice(&epoch.0.to_le_bytes());
        let body = u32::from_le_bytes(bytes[BODY_BYTES].try_into().unwrap()) as usize;
        let check =
            dwk_chunk::blake3(&[&bytes[..CHECK.start], &bytes[CHECK.end..][..body]].concat());
        bytes[CHECK].copy_from_slice(&check);
        drive.write_superblock(slots.kept().other(), &bytes).unwrap();
        if self.below(2) == 0 {
            drive.write_superblock(slots.kept(), &bytes).unwrap();
        }
    }
}

/// What is there is right or refused; a put is taken or refused. False if opening was.
fn use_it(world: &World, model: &Model) -> bool {
    let Ok(meta) = world.open() else { return false };
    let _ = meta.pool().status(&*meta);
    for (key, content) in model {
        if let Ok(Some(found)) = get(&meta, key) {
            assert!(found == *content, "wrong bytes");
        }
    }
    let _ = put(&meta, b"new", b"content");
    let _ = meta.pool().scrub(&*meta, &Control::default());
    let _ = meta.close();
    true
}

/// Panics of all threads so far: that of a drive's thread is an error to who waits for it.
fn panics() -> Arc<AtomicUsize> {
    let (count, before) = (Arc::new(AtomicUsize::new(0)), panic::take_hook());
    let counted = Arc::clone(&count);
    panic::set_hook(Box::new(move |info| {
        counted.fetch_add(1, Ordering::SeqCst);
        before(info);
    }));
    count
}

#[test]
fn superblocks_that_nobody_wrote_are_taken_or_refused() {
    let long = std::env::var_os("DWK_LONG").is_some();
    let first = std::env::var("DWK_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = first.map_or(0..if long { 20_000 } else { 200 }, |seed| seed..seed + 1);
    let (panics, is_one, mut opened) = (panics(), first.is_some(), [0, 0]);
    for seed in seeds {
        let forger = Forger(SeededRandom::new(seed));
        let (drives, geometry) =
            forger.one(&[(6, "4+2"), (3, "2+1"), (2, "mirror:2"), (1, "none")]);
        let mut world = World::new(drives, geometry, seed);
        let meta = world.create().unwrap();
        let model: Model =
            (0..4u64).map(|n| (vec![n as u8], bytes(n, n as usize * 9000))).collect();
        for (key, content) in &model {
            put(&meta, key, content).unwrap();
        }
        if forger.below(2) == 0 {
            meta.close().unwrap();
        }
        drop(meta);
        world.restart();
        let struck: BTreeSet<usize> =
            (0..=forger.below(drives)).map(|_| forger.below(drives)).collect();
        for drive in &struck {
            forger.strike(&world.memory[*drive]);
        }
        let others = (0..drives).filter(|drive| !struck.contains(drive));
        let others: Vec<_> = others.map(|drive| world.memory[drive].clone()).collect();
        for _ in 0..2 {
            opened[usize::from(use_it(&world, &model))] += 1;
            world.restart();
        }
        for drive in others {
            Superblock::load(&drive).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        assert_eq!(panics.load(Ordering::SeqCst), 0, "seed {seed}");
    }
    assert!(is_one || opened.iter().all(|count| *count > 20), "refused and opened: {opened:?}");
}
