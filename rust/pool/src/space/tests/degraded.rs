//! Reads without some drives ask the others for no more than they need, and take no more memory than they may.

use std::collections::BTreeSet;

use dwk_base::{Random, SeededRandom, codes};
use dwk_erasure::{Code, CodeSpec};

use super::super::rows::parts;
use super::super::shard::whole_blocks;
use super::world::{NEVER, RS42, World, bytes, options};
use crate::{SpaceOptions, State, Stripe};

/// How many shards the drives are asked for by a read of these bytes of a stripe without this shard.
fn asked(code: CodeSpec, lost: usize, from: usize, length: usize) -> u64 {
    let world = World::still(code.k() + code.m(), code, 90);
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

/// Which blocks of which shards a read takes, found out row by row.
fn twin(world: &World, stripe: &Stripe, lost: &[usize], from: usize, length: usize) -> Blocks {
    let (shard, block) = (stripe.shard_bytes as usize, world.options.block_bytes as usize);
    let wants: Blocks = (from..from + length).map(|at| (at / shard, at % shard / block)).collect();
    let code = Code::new(&world.code).unwrap();
    let mut blocks = Blocks::new();
    for row in 0..shard.div_ceil(block) {
        let wanted: Vec<usize> =
            wants.iter().filter(|want| want.1 == row).map(|want| want.0).collect();
        blocks.extend(code.read_set(lost, &wanted).unwrap().into_iter().map(|index| (index, row)));
    }
    blocks
}

type Blocks = BTreeSet<(usize, usize)>;

#[test]
fn a_range_takes_each_block_that_it_needs_once_and_no_other() {
    let lrc = CodeSpec::Lrc { k: 4, l: 2, g: 1 };
    for code in [RS42, CodeSpec::PQ { k: 3 }, CodeSpec::Copies { n: 3 }, lrc] {
        let shards = code.k() + code.m();
        let mut world = World::still(shards, code, 92);
        let content = bytes(1, code.k() * (16 << 10));
        let stripe = world.put(&content).unwrap();
        let random = SeededRandom::new(5);
        let below = |bound: usize| random.below(bound as u64) as usize;
        for _ in 0..200 {
            let mut lost: Vec<usize> = (0..below(3)).map(|_| below(shards)).collect();
            lost.sort_unstable();
            lost.dedup();
            for index in &lost {
                world.set_state(stripe.placement[*index], State::Missing);
            }
            let from = below(content.len());
            let length = 1 + below(content.len() - from);
            let shared = &world.space.shared;
            let (takes, _) = shared.takes(&stripe, &parts(&stripe, from, length));
            let mut blocks = Blocks::new();
            for (index, range) in &takes {
                let rows = whole_blocks(range, 4096, stripe.shard_bytes);
                for row in rows.step_by(4096) {
                    assert!(blocks.insert((*index, row / 4096)), "{code}: {takes:?}");
                }
            }
            assert_eq!(blocks, twin(&world, &stripe, &lost, from, length), "{code} {lost:?}");
            let (before, mut into) = (shared.owed.begun(), vec![0; length]);
            let reading = world.space.start_read(&stripe, from as u32, length as u32);
            reading.wait_into(&mut into, &NEVER).unwrap();
            assert!(into == content[from..from + length]);
            assert_eq!(shared.owed.begun() - before, takes.len() as u64, "nothing else is read");
            world.seat_all();
        }
    }
}

#[test]
fn shards_that_are_damaged_in_different_blocks_help_each_other_out() {
    let world = World::new(6, RS42, 93);
    let content = bytes(1, 64 << 10);
    let stripe = world.put(&content).unwrap();
    for index in 0..4 {
        let (drive, entry) = world.entry(&stripe, index);
        assert!(drive.flip(&entry, 4096 + 4096 * index + 7, 1));
    }
    assert!(world.get(&stripe).unwrap() == content);
    assert_eq!(world.take_repairs(), [stripe.id]);
}

#[test]
fn shards_of_two_stripes_are_not_mixed_from_one_window_to_the_next() {
    let code = CodeSpec::ReedSolomon { k: 2, m: 2 };
    let large = || SpaceOptions { shard_bytes_max: 2 << 20, memory_bytes: 64 << 20, ..options() };
    let [world, other] = [(); 2].map(|()| World::with(4, code, 94, large()));
    let (a, b) = (bytes(1, 4 << 20), bytes(2, 4 << 20));
    let (first, second) = (world.put(&a).unwrap(), other.put(&b).unwrap());
    assert_eq!((first.id, &first.placement), (second.id, &second.placement), "one seed");
    for index in [1, 3] {
        let from = other.entry(&second, index);
        world.entry(&first, index).0.set_raw(&from.1, from.0.raw(&from.1));
    }
    // As many of the one as of the other, until one fails in the second megabyte.
    let (drive, entry) = world.entry(&first, 3);
    let bytes = drive.raw(&entry).unwrap().len();
    assert!(drive.flip(&entry, bytes - 7, 1));
    let memory = &world.space.shared.read_memory;
    for with_memory in [true, false] {
        let taken = (!with_memory).then(|| memory.take_anyway(memory.bytes_max()));
        let mut read = vec![0; 4 << 20];
        let reading = world.space.start_read(&first, 0, 4 << 20);
        match reading.wait_into(&mut read, &NEVER) {
            Ok(()) => assert!(read == a || read == b, "they were mixed"),
            Err(error) => assert!(error.is(&codes::DATA_CORRUPT), "{error}"),
        }
        drop(taken);
    }
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
