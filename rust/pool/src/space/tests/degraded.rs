//! Reads without some drives ask the others for no more than they need, and take no more memory than they may.

use dwk_erasure::CodeSpec;

use super::world::{NEVER, RS42, World, bytes, options};
use crate::{SpaceOptions, State};

/// How many shards the drives are asked for by a read of these bytes of a stripe without this shard.
fn asked(code: CodeSpec, lost: usize, from: usize, length: usize) -> u64 {
    let world = World::new(code.k() + code.m(), code, 90);
    let content = bytes(1, code.k() * (16 << 10));
    let stripe = world.put(&content).unwrap();
    assert_eq!(stripe.shard_bytes, 16 << 10);
    world.set_state(stripe.placement[lost], State::Missing);
    let before = world.space.shared.owed.begun();
    let mut into = vec![0; length];
    let reading = world.space.start_read(&stripe, from as u32, length as u32);
    reading.wait_into(&mut into, &NEVER).unwrap();
    assert!(into == content[from..from + length]);
    world.space.shared.owed.begun() - before
}

#[test]
fn each_shard_that_a_read_needs_is_read_once() {
    let lrc = CodeSpec::Lrc { k: 4, l: 2, g: 2 };
    let shard = 16 << 10;
    // Whole stripes: k shards, whichever is lost.
    assert_eq!(asked(RS42, 1, 0, 4 * shard), 4);
    assert_eq!(asked(lrc, 2, 0, 4 * shard), 4);
    // A part of what is lost: k, or those of its group.
    assert_eq!(asked(RS42, 1, shard + 100, 50), 4);
    assert_eq!(asked(lrc, 2, 2 * shard + 100, 50), 2);
    // From the middle of one shard to the middle of another.
    assert_eq!(asked(RS42, 5, 100, 2 * shard), 3);
    // The end of one, the beginning of another, and what is between them.
    assert_eq!(asked(RS42, 1, 5000, 3 * shard), 4);
}

#[test]
fn reads_that_wait_for_their_readers_take_little_more_than_the_memory_that_they_may() {
    let world = World::with(6, RS42, 91, SpaceOptions { memory_bytes: 8 << 20, ..options() });
    let content = bytes(1, 64 << 10);
    let stripe = world.put(&content).unwrap();
    let most = world.space.shared.read_memory.bytes_max();
    let mut held = Vec::new();
    for _ in 0..200 {
        let bytes = world.space.read_bytes_now(64 << 10) as u32;
        let reading = world.space.start_read(&stripe, 0, bytes);
        held.push(reading.land(&NEVER).unwrap());
    }
    let used = world.space.shared.read_memory.used_bytes();
    assert!(used < most + 200 * (24 << 10), "{used} of {most}");
}
