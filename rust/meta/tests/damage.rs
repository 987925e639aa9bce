//! Wrong bytes are never returned: whatever is done to the files of up to t drives, every read is
//! right; beyond that it is right or refused.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;

use dwk_drive::{Drive, Entry, MemoryDrive};
use dwk_meta::Meta;
use dwk_pool::{Control, Redundancy};
use world::{Model, World, bytes, check, get, holder, put};

#[derive(Clone, Copy, Debug)]
enum Harm {
    FlipBit(usize),
    Truncate,
    Zero,
    Remove,
    SwapWithNext,
}

const HARMS: [Harm; 7] = [
    Harm::FlipBit(0),
    Harm::FlipBit(4095),
    Harm::FlipBit(usize::MAX / 2),
    Harm::Truncate,
    Harm::Zero,
    Harm::Remove,
    Harm::SwapWithNext,
];

/// Does `harm` to every file of the drive.
fn harm_all(drive: &MemoryDrive, harm: Harm) {
    harm_each(drive, &drive.entries(), harm);
}

/// Does `harm` to every shard on the drive.
fn harm_shards(drive: &MemoryDrive, harm: Harm) {
    let shards = drive.entries().into_iter().filter(|entry| matches!(entry, Entry::Blob(_)));
    harm_each(drive, &shards.collect::<Vec<_>>(), harm);
}

fn harm_each(drive: &MemoryDrive, entries: &[Entry], harm: Harm) {
    let old: Vec<_> = entries.iter().map(|entry| drive.raw(entry).unwrap()).collect();
    for (index, entry) in entries.iter().enumerate() {
        let mut content = old[index].clone();
        match harm {
            Harm::FlipBit(at) if !content.is_empty() => {
                let at = if at == usize::MAX / 2 {
                    content.len() / 2
                } else {
                    at.min(content.len() - 1)
                };
                content[at] ^= 1 << (index % 8);
            }
            Harm::FlipBit(_) => {}
            Harm::Truncate => content.truncate(content.len() / 2),
            Harm::Zero => content.fill(0),
            Harm::Remove => {
                drive.set_raw(entry, None);
                continue;
            }
            Harm::SwapWithNext => content.clone_from(&old[(index + 1) % old.len()]),
        }
        drive.set_raw(entry, Some(content));
    }
}

fn filled(world: &World) -> Model {
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for (index, length) in [0, 10, 2000, 5000, 40_000, 100_000].into_iter().enumerate() {
        let (key, content) = (format!("k{index}").into_bytes(), bytes(index as u64, length));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
        if index == 3 {
            meta.checkpoint().unwrap();
        }
    }
    // Not folded: the journal's copies matter too.
    put(&meta, b"late", b"in the journal").unwrap();
    model.insert(b"late".to_vec(), b"in the journal".to_vec());
    drop(meta);
    model
}

fn settle(meta: &Arc<Meta>, model: &Model, when: &str) {
    check(meta, model, when);
    let control = Control::default();
    meta.pool().refresh(&**meta, &control).unwrap_or_else(|error| panic!("{when}: {error}"));
    meta.pool().rebuild(&**meta, None, &control).unwrap_or_else(|e| panic!("{when}: {e}"));
    meta.pool().scrub(&**meta, &control).unwrap_or_else(|error| panic!("{when}: {error}"));
    let again = meta.pool().scrub(&**meta, &control).unwrap();
    assert!(again.is_clean(), "{when}: a second scrub found {again:?}");
    check(meta, model, when);
}

/// Puts new drives in the place of these.
fn replace(meta: &Arc<Meta>, lost: &[usize]) {
    for index in lost {
        let fresh: Arc<dyn Drive> = Arc::new(MemoryDrive::new(format!("fresh{index}")));
        let (old, control) = (format!("d{}", index + 1), Control::default());
        meta.pool().replace(&**meta, &old, &fresh, &holder(), &control).unwrap();
    }
}

#[test]
fn every_harm_to_every_file_of_two_of_six_drives_is_read_through_and_mended() {
    for (round, harm) in HARMS.into_iter().enumerate() {
        let mut world = World::new(6, "4+2", 20 + round as u64);
        let model = filled(&world);
        world.restart();
        let (a, b) = (round % 6, (round * 2 + 1) % 6);
        let (a, b) = if a == b { (a, (a + 1) % 6) } else { (a, b) };
        harm_all(&world.memory[a], harm);
        harm_all(&world.memory[b], harm);
        let when = format!("{harm:?} on d{} and d{}", a + 1, b + 1);
        let meta = world.open().unwrap_or_else(|error| panic!("{when}: {error}"));
        let removed = matches!(harm, Harm::Remove);
        if removed {
            // Nothing says whose drives these were: they are missing, and read around.
            check(&meta, &model, &when);
            assert_eq!(meta.pool().status(&*meta).unwrap().redundancy, Redundancy::Degraded);
            replace(&meta, &[a, b]);
            settle(&meta, &model, &when);
            assert_eq!(meta.pool().status(&*meta).unwrap().redundancy, Redundancy::Full);
        } else {
            settle(&meta, &model, &when);
        }
    }
}

#[test]
fn harm_to_the_shards_of_an_open_store_is_read_through_and_mended() {
    for (round, harm) in HARMS.into_iter().enumerate() {
        let world = World::new(6, "4+2", 40 + round as u64);
        drop(filled(&world));
        let meta = world.open().unwrap();
        let mut model = Model::new();
        for n in 0..4u64 {
            let (key, content) = (format!("n{n}").into_bytes(), bytes(n, 30_000));
            put(&meta, &key, &content).unwrap();
            model.insert(key, content);
        }
        for drive in [round % 6, (round + 3) % 6] {
            harm_shards(&world.memory[drive], harm);
        }
        for (key, content) in &model {
            assert!(get(&meta, key).unwrap().as_ref() == Some(content), "{harm:?}");
        }
        let control = Control::default();
        meta.pool().scrub(&*meta, &control).unwrap();
        assert!(meta.pool().scrub(&*meta, &control).unwrap().is_clean());
        assert_eq!(meta.pool().status(&*meta).unwrap().redundancy, Redundancy::Full);
    }
}

#[test]
fn beyond_the_tolerance_reads_are_right_or_refused() {
    for (round, harm) in HARMS.into_iter().enumerate() {
        let mut world = World::new(6, "4+2", 60 + round as u64);
        let model = filled(&world);
        world.restart();
        for drive in 0..3 {
            harm_all(&world.memory[(drive + round) % 6], harm);
        }
        let Ok(meta) = world.open() else { continue };
        for (key, content) in &model {
            if let Ok(got) = get(&meta, key) {
                assert!(got.as_ref() == Some(content), "{harm:?}: other bytes for {key:?}");
            }
        }
    }
}
