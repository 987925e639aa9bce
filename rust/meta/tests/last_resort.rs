//! Drives that failed because nothing can be written there: what lies on them saves what nothing else saves.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;

use dwk_drive::Entry;
use dwk_meta::Meta;
use dwk_pool::{Control, Redundancy, State};
use world::{Model, World, bytes, check, get, lose_blobs, put};

const READ_ONLY: usize = 0;
const LOST: usize = 1;

/// A store of four drives that survives one loss, of which one drive can only be read any more, and is known to.
fn failed(seed: u64) -> (World, Arc<Meta>, Model) {
    let world = World::new(4, "2+1", seed);
    let (meta, mut model) = (world.create().unwrap(), Model::new());
    store(&meta, &mut model, 0..12);
    world.drives[READ_ONLY].set_read_only(true);
    store(&meta, &mut model, 12..24);
    assert_eq!(state(&meta, READ_ONLY), State::Failed);
    (world, meta, model)
}

fn store(meta: &Arc<Meta>, model: &mut Model, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n, 9_000));
        put(meta, &key, &content).unwrap();
        model.insert(key, content);
    }
}

fn state(meta: &Meta, drive: usize) -> State {
    meta.pool().roster().seats[drive].state
}

/// All that lies on a drive.
fn content(world: &World, drive: usize) -> Vec<(Entry, Option<Vec<u8>>)> {
    let drive = &world.memory[drive];
    drive.entries().into_iter().map(|entry| (entry.clone(), drive.raw(&entry))).collect()
}

#[test]
fn a_drive_that_can_only_be_read_saves_what_too_few_others_have() {
    let (world, meta, model) = failed(1);
    let before = content(&world, READ_ONLY);
    lose_blobs(&world.memory[LOST]);
    check(&meta, &model, "with two drives away, of which one is read");
    assert_eq!(state(&meta, READ_ONLY), State::Failed);
    let status = meta.pool().status(&*meta).unwrap();
    assert_eq!((status.lost_stripes, status.redundancy), (0, Redundancy::Degraded));
    assert!(status.degraded_stripes > 0);
    let said = status.advice.iter().any(|advice| advice.contains("d1 cannot be written to"));
    assert!(said, "{:?}", status.advice);
    // Nor does it take repairs, which read it as well.
    let scrub = meta.pool().scrub(&*meta, &Control::new()).unwrap();
    assert_eq!(scrub.lost_stripes, 0, "{scrub:?}");
    let rebuilt = meta.pool().rebuild(&*meta, None, &Control::new()).unwrap();
    assert_eq!((rebuilt.lost_stripes, rebuilt.unrestored_shards), (0, 0), "{rebuilt:?}");
    assert_eq!(content(&world, READ_ONLY), before, "it was written to");
    // Now it is not needed any more.
    lose_blobs(&world.memory[READ_ONLY]);
    check(&meta, &model, "rebuilt");
}

#[test]
fn what_even_that_drive_has_not_is_lost_and_never_other_bytes() {
    let (world, meta, model) = failed(2);
    lose_blobs(&world.memory[LOST]);
    for entry in world.memory[READ_ONLY].entries() {
        if !matches!(entry, Entry::Blob(_)) {
            continue;
        }
        let mut content = world.memory[READ_ONLY].raw(&entry).unwrap();
        for byte in &mut content[5_000..] {
            *byte ^= 1;
        }
        world.memory[READ_ONLY].set_raw(&entry, Some(content));
    }
    let lost = model.iter().filter(|(key, content)| match get(&meta, key) {
        Ok(got) => {
            assert!(got.as_ref() == Some(content), "other bytes for {key:?}");
            false
        }
        Err(_) => true,
    });
    assert!(lost.count() > 0);
}
