//! Writing and reading, on drives that are well and drives that are not.

use std::time::Duration;

use dwk_base::codes;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, FaultyDrive};
use dwk_erasure::CodeSpec;

use super::super::lock;
use super::super::write::{SYNC_REMOVE, SYNC_WRITE};
use super::world::{NEVER, RS42, World, bytes, options};
use crate::{SpaceOptions, State};

const LENGTHS: [usize; 11] =
    [1, 2, 4095, 4096, 4097, 16_384, 16_385, 40_000, 65_535, 65_536, 3 * 16_384 + 1];

#[test]
fn what_is_written_is_read_whole_and_in_any_part() {
    for code in [
        RS42,
        CodeSpec::None { k: 3 },
        CodeSpec::Copies { n: 3 },
        CodeSpec::Xor { k: 3 },
        CodeSpec::ReedSolomon { k: 2, m: 3 },
        CodeSpec::Lrc { k: 4, l: 2, g: 1 },
    ] {
        let world = World::new(7, code, 1);
        for (seed, length) in LENGTHS.into_iter().enumerate() {
            let length = length.min(world.space.payload_bytes_max());
            let content = bytes(seed as u64, length);
            let stripe = world.put(&content).unwrap();
            assert_eq!(stripe.payload_bytes as usize, length);
            assert!(world.get(&stripe).unwrap() == content);
            for (offset, part) in [(0, 1), (length / 2, length / 3), (length - 1, 1), (length, 0)] {
                let mut into = vec![0; part];
                world.space.read(&stripe, offset as u32, &mut into).unwrap();
                assert!(into == content[offset..offset + part]);
                let reading = world.space.start_read(&stripe, offset as u32, part as u32);
                reading.wait_into(&mut into, &NEVER).unwrap();
                assert!(into == content[offset..offset + part]);
            }
        }
        world.assert_whole(&code.to_string());
    }
}

#[test]
fn a_stripe_comes_with_the_check_of_its_content() {
    for code in [RS42, CodeSpec::Copies { n: 2 }] {
        let world = World::new(6, code, 12);
        let most = world.space.payload_bytes_max();
        for length in [1, 4095, 4096, 4097, 16_384, 20_000, most - 1, most] {
            let content = bytes(length as u64, length.min(most));
            let mut filling = world.space.fill(length, &NEVER).unwrap();
            assert_eq!(filling.append(&content), content.len());
            let writing = world.space.write(filling).unwrap();
            assert_eq!(writing.check(), dwk_chunk::crc64nvme(&content), "{length}");
        }
    }
}

#[test]
fn reads_beyond_the_content_are_refused() {
    let world = World::new(6, RS42, 2);
    let stripe = world.put(&bytes(1, 5000)).unwrap();
    let error = world.space.read(&stripe, 4999, &mut [0; 2]).unwrap_err();
    assert!(error.is(&codes::OBJECT_RANGE), "{error}");
    let error = world.space.start_read(&stripe, 0, 10).wait_into(&mut [0; 9], &NEVER).unwrap_err();
    assert!(error.is(&codes::BUFFER_LENGTH), "{error}");
}

#[test]
fn a_stripe_is_no_longer_than_its_row_can_say() {
    let large =
        SpaceOptions { shard_bytes_max: 1 << 30, memory_bytes: 1 << 40, ..SpaceOptions::default() };
    let world = World::with(10, CodeSpec::ReedSolomon { k: 8, m: 2 }, 13, large);
    let most = world.space.payload_bytes_max();
    assert!((1 << 30..=u32::MAX as usize).contains(&most), "{most}");
}

#[test]
fn small_content_makes_small_shards() {
    let world = World::new(6, RS42, 3);
    let stripe = world.put(&bytes(1, 5000)).unwrap();
    assert_eq!(stripe.shard_bytes, 4096);
    let full = world.space.payload_bytes_max();
    assert_eq!(full, 4 * (16 << 10));
    assert!(world.space.fill(usize::MAX, &NEVER).unwrap().spare().len() <= full);
}

#[test]
fn a_removed_stripe_leaves_nothing() {
    let world = World::new(6, RS42, 4);
    let stripe = world.write(&bytes(1, 50_000)).unwrap();
    assert_eq!(world.files().len(), 6);
    world.remove(&stripe);
    assert!(world.files().is_empty());
    assert!(world.get(&stripe).unwrap_err().is(&codes::DATA_CORRUPT));
}

#[test]
fn what_was_removed_does_not_come_back_with_the_power() {
    for omitted in [None, Some(SYNC_REMOVE)] {
        let mut left = 0;
        for seed in 0..5 {
            let mut world = World::new(6, RS42, 40 + seed);
            if let Some(tag) = omitted {
                world.drives.iter().for_each(|drive| drive.omit(tag));
            }
            let stripe = world.write(&bytes(1, 50_000)).unwrap();
            world.remove(&stripe);
            world.restart();
            left += world.files().len();
        }
        assert_eq!(left > 0, omitted.is_some(), "{left} files are left");
    }
}

#[test]
fn a_writing_that_is_dropped_leaves_nothing() {
    let world = World::new(6, RS42, 5);
    for delay in [0, 2] {
        world.drives[2]
            .inject(Fault::new(Effect::Delay(Duration::from_millis(delay))).on(Operation::Put));
        let mut filling = world.space.fill(30_000, &NEVER).unwrap();
        filling.append(&bytes(1, 30_000));
        drop(world.space.write(filling).unwrap());
        // The drives' threads are done with it when they come to what was asked later.
        for seat in &world.roster.load().seats {
            seat.drive.as_ref().unwrap().submit(Drive::capacity).wait().unwrap();
        }
        for seat in &world.roster.load().seats {
            seat.drive.as_ref().unwrap().submit(|drive| drive.sync("test")).wait().unwrap();
        }
        assert_eq!(world.files(), [], "delay {delay}");
    }
}

#[test]
fn a_failing_drives_shard_goes_to_another_drive() {
    for operation in [Operation::Put, Operation::Sync] {
        let world = World::new(8, RS42, 6);
        for drive in &world.drives[..2] {
            drive.inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(operation));
        }
        for seed in 0..4 {
            let content = bytes(seed, 60_000);
            let stripe = world.put(&content).unwrap();
            assert!(!stripe.placement.contains(&0) && !stripe.placement.contains(&1));
            assert!(world.get(&stripe).unwrap() == content);
        }
        let mut failed = lock(&world.watch.failed).clone();
        failed.sort_unstable();
        assert_eq!(failed, [0, 1]);
    }
}

#[test]
fn a_full_drives_shard_goes_elsewhere_and_the_drive_stays() {
    let world = World::new(7, RS42, 7);
    world.drives[3].set_full(true);
    for seed in 0..4 {
        let content = bytes(seed, 60_000);
        let stripe = world.put(&content).unwrap();
        assert!(!stripe.placement.contains(&3));
        assert!(world.get(&stripe).unwrap() == content);
    }
    assert!(lock(&world.watch.failed).is_empty());
}

#[test]
fn a_hanging_drives_shard_goes_elsewhere() {
    let options = SpaceOptions { drive_timeout: Duration::from_millis(200), ..options() };
    let world = World::with(7, RS42, 8, options);
    world.drives[3].inject(Fault::new(Effect::Hang).on(Operation::Put));
    let content = bytes(1, 60_000);
    let mut stripe = world.put(&content).unwrap();
    while lock(&world.watch.failed).is_empty() {
        stripe = world.put(&content).unwrap();
    }
    assert!(!stripe.placement.contains(&3));
    assert!(world.get(&stripe).unwrap() == content);
    assert_eq!(*lock(&world.watch.failed), [3]);
    world.drives[3].release();
    world.drives[3].heal();
    // What comes late is removed again.
    let seat = world.roster.load().seats[3].clone();
    seat.drive.as_ref().unwrap().submit(|drive| drive.sync("test")).wait().unwrap();
    seat.drive.as_ref().unwrap().submit(|drive| drive.sync("test")).wait().unwrap();
    world.assert_whole("after the drive came back");
}

#[test]
fn with_too_few_drives_stripes_are_narrower_and_as_safe() {
    let world = World::new(6, RS42, 9);
    let mut stored = Vec::new();
    for (lost, shards) in [(0u16, 5), (1, 4), (2, 3)] {
        world.drives[usize::from(lost)]
            .inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::Put));
        let content = bytes(lost.into(), 16_000);
        let stripe = world.put(&content).unwrap();
        assert_eq!(stripe.placement.len(), shards);
        assert_eq!(stripe.code.parity, 2);
        stored.push((stripe, content));
    }
    for (stripe, content) in &stored {
        assert!(world.get(stripe).unwrap() == *content);
    }
    // One copy on each of the last two is as safe as everything else with four drives lost.
    world.set_state(3, State::Failed);
    let content = bytes(9, 9_000);
    let stripe = world.put(&content).unwrap();
    assert_eq!(stripe.placement.len(), 2);
    assert!(world.get(&stripe).unwrap() == content);
}

#[test]
fn new_data_is_refused_before_the_reserve_is_taken() {
    let options = SpaceOptions { reserve_fraction: 0.25, ..options() };
    let mut world = World::with(6, RS42, 10, options);
    world.memory.iter().for_each(|drive| drive.set_capacity(200 << 10));
    world.seat_all();
    let mut stored = Vec::new();
    let error = loop {
        match world.put(&bytes(stored.len() as u64, 64 << 10)) {
            Ok(stripe) => stored.push(stripe),
            Err(error) => break error,
        }
    };
    assert!(error.is(&codes::POOL_FULL), "{error}");
    assert!(stored.len() >= 6, "{}", stored.len());
    for drive in &world.memory {
        assert!(drive.capacity().unwrap().free_bytes >= 50 << 10);
    }
    let mut filling = world.space.fill(64 << 10, &NEVER).unwrap().with_reserve();
    filling.append(&bytes(1, 64 << 10));
    let kept = world.space.write(filling).unwrap().wait(&NEVER).unwrap();
    world.remove(&kept);
    for stripe in stored.drain(..2) {
        world.remove(&stripe);
        lock(&world.table.stripes).remove(&stripe.id);
    }
    world.put(&bytes(1, 64 << 10)).unwrap();
    world.assert_whole("after deleting and writing again");
}

#[test]
fn memory_comes_back_and_waiting_for_it_ends() {
    let options = SpaceOptions {
        memory_bytes: 1 << 20,
        shard_bytes_max: 1 << 20,
        drive_timeout: Duration::from_millis(50),
        ..options()
    };
    let world = World::with(6, RS42, 11, options);
    let mut fillings = Vec::new();
    let error = loop {
        match world.space.fill(usize::MAX, &NEVER) {
            Ok(filling) => fillings.push(filling),
            Err(error) => break error,
        }
    };
    assert!(error.is(&codes::POOL_BUSY), "{error}");
    assert!(fillings.len() >= 4);
    fillings.clear();
    for seed in 0..20 {
        let content = bytes(seed, 100_000.min(world.space.payload_bytes_max()));
        let stripe = world.put(&content).unwrap();
        assert!(world.get(&stripe).unwrap() == content);
    }
    assert_eq!(world.space.shared.memory.used_bytes(), 0);
    assert_eq!(world.space.shared.read_memory.used_bytes(), 0);
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_every_step() {
    let steps = {
        let world = World::new(6, RS42, 12);
        acknowledged(&world);
        world.power.steps()
    };
    for step in 1..=steps + 1 {
        let mut world = World::new(6, RS42, 12 + step);
        world.power.cut_at(step);
        let stored = acknowledged(&world);
        world.restart();
        for (stripe, content) in stored {
            let read = world.get(&stripe).unwrap_or_else(|error| panic!("step {step}: {error}"));
            assert!(read == content, "step {step}");
            let repairs = world.take_repairs();
            assert!(repairs.is_empty(), "step {step}: a shard was not durable");
        }
    }
}

/// Writes some stripes; returns those that were acknowledged.
fn acknowledged(world: &World) -> Vec<(crate::Stripe, Vec<u8>)> {
    let contents = (0..3).map(|seed| bytes(seed, 10_000 + 9000 * seed as usize));
    contents.filter_map(|content| Some((world.put(&content).ok()?, content))).collect()
}

#[test]
fn without_the_sync_of_a_shard_acknowledged_stripes_are_lost() {
    let mut lost = 0;
    for seed in 0..10 {
        let mut world = World::new(6, RS42, 100 + seed);
        world.drives.iter().for_each(|drive| drive.omit(SYNC_WRITE));
        let stored = acknowledged(&world);
        assert_eq!(stored.len(), 3);
        world.restart();
        lost += stored.iter().filter(|(stripe, _)| world.get(stripe).is_err()).count();
    }
    assert!(lost > 0, "leaving the sync out was not noticed");
}

#[test]
fn what_cuts_left_is_reclaimed_durably_and_nothing_else() {
    for omitted in [false, true] {
        let mut left = 0;
        for seed in 0..5 {
            let mut world = World::new(6, RS42, 9000 + seed);
            let kept = world.put(&bytes(1, 40_000)).unwrap();
            let orphan = world.write(&bytes(2, 40_000)).unwrap();
            let is_orphan = |name: &str| name.contains(&orphan.id.to_string());
            world.space.reclaim(&world.table).unwrap();
            assert_eq!(world.files().len(), 12, "it may be about to be committed");
            world.reopen();
            let young = world.write(&bytes(3, 40_000)).unwrap();
            if omitted {
                world.drives.iter().for_each(|drive| drive.omit(SYNC_REMOVE));
            }
            world.space.reclaim(&world.table).unwrap();
            lock(&world.table.stripes).insert(young.id, young.clone());
            world.restart();
            left += world.files().iter().filter(|(_, name)| is_orphan(name.as_str())).count();
            world.settle();
            assert!(world.get(&kept).unwrap() == bytes(1, 40_000));
            assert!(world.get(&young).unwrap() == bytes(3, 40_000));
        }
        assert_eq!(left > 0, omitted, "{left} shards came back");
    }
}

#[test]
fn drives_that_turn_out_to_be_full_are_full_and_not_lost() {
    for full in 1..=6 {
        let world = World::new(6, RS42, 9100);
        world.drives[..full].iter().for_each(|drive| drive.set_full(true));
        match world.write(&bytes(1, 40_000)) {
            Ok(stripe) => assert!(world.get(&stripe).unwrap() == bytes(1, 40_000)),
            Err(error) => assert!(error.is(&codes::POOL_FULL) && full > 2, "{full}: {error}"),
        }
        assert_eq!(lock(&world.watch.failed).len(), 0);
    }
}

#[test]
fn a_process_without_descriptors_is_told_so_and_no_drive_is_blamed() {
    let exhausted = Effect::Error(&codes::PROCESS_EXHAUSTED);
    for drives in 1..=6 {
        let world = World::new(6, RS42, 9200);
        let content = bytes(1, 40_000);
        let stripe = world.put(&content).unwrap();
        for drive in &world.drives[..drives] {
            drive.inject(Fault::new(exhausted).on(Operation::Put).on(Operation::Read));
        }
        let error = world.write(&content).unwrap_err();
        assert!(error.is(&codes::PROCESS_EXHAUSTED), "{drives}: {error}");
        match world.get(&stripe) {
            Ok(read) => assert!(read == content && drives <= 2),
            Err(error) => assert!(error.is(&codes::PROCESS_EXHAUSTED), "{drives}: {error}"),
        }
        assert!(lock(&world.watch.failed).is_empty() && lock(&world.watch.corrupted).is_empty());
        world.drives.iter().for_each(FaultyDrive::heal);
        assert!(world.get(&stripe).unwrap() == content);
        let again = world.write(&content).unwrap();
        world.settle();
        assert_eq!(world.files().len(), 12, "what was given up is left behind");
        assert!(world.get(&again).unwrap() == content);
    }
}

#[test]
fn a_drive_that_becomes_read_only_goes_out_of_service_and_its_shards_elsewhere() {
    let world = World::new(7, RS42, 9201);
    let content = bytes(1, 40_000);
    world.drives[2].set_read_only(true);
    for _ in 0..8 {
        let stripe = world.put(&content).unwrap();
        assert!(!stripe.placement.contains(&2));
        assert!(world.get(&stripe).unwrap() == content);
    }
    assert!(lock(&world.watch.failed).iter().all(|seat| *seat == 2));
    assert!(!lock(&world.watch.failed).is_empty());
}

#[test]
fn shards_that_this_user_may_not_read_are_computed_and_noted_and_their_drive_stays() {
    let world = World::new(6, RS42, 9202);
    let content = bytes(1, 40_000);
    let stripe = world.put(&content).unwrap();
    let (seat, refused) = (stripe.placement[0], Effect::Error(&codes::DRIVE_READ_ONLY));
    world.drives[usize::from(seat)].inject(Fault::new(refused).on(Operation::Read));
    assert!(world.get(&stripe).unwrap() == content);
    assert!(lock(&world.watch.failed).is_empty());
    assert_eq!(world.take_repairs(), [stripe.id]);
    world.drives.iter().for_each(FaultyDrive::heal);
    assert!(world.get(&stripe).unwrap() == content);
}
