//! What the process cannot do, for want of descriptors or by a limit, is no drive's failure; neither is something
//! that lies in a shard's way.

use dwk_base::{Code, StripeId, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Entry, FaultyDrive};

use super::super::restore::Wanted;
use super::super::{Control, header, lock};
use super::repairing::restore;
use super::world::{RS42, World, bytes};

const CODES: [&Code; 2] = [&codes::PROCESS_EXHAUSTED, &codes::PROCESS_FILE_SIZE];

fn fault(code: &'static Code) -> Fault {
    Fault::new(Effect::Error(code))
}

#[test]
fn a_process_that_may_not_write_files_as_long_is_told_so_and_no_drive_is_blamed() {
    for drives in 1..=6 {
        let world = World::new(6, RS42, 9300);
        for drive in &world.drives[..drives] {
            drive.inject(fault(&codes::PROCESS_FILE_SIZE).on(Operation::Put));
        }
        let error = world.write(&bytes(1, 40_000)).unwrap_err();
        assert!(error.is(&codes::PROCESS_FILE_SIZE), "{drives}: {error}");
        assert!(lock(&world.watch.failed).is_empty());
    }
}

#[test]
fn a_removal_that_the_process_cannot_sync_costs_no_drive() {
    let mut world = World::new(6, RS42, 9301);
    let stripe = world.put(&bytes(1, 40_000)).unwrap();
    let orphan = world.write(&bytes(2, 40_000)).unwrap();
    world.reopen();
    let exhausted = fault(&codes::PROCESS_EXHAUSTED).on(Operation::Sync);
    world.drives.iter().for_each(|drive| drive.inject(exhausted.clone()));
    world.space.reclaim(&world.table).unwrap();
    lock(&world.table.stripes).remove(&stripe.id);
    world.remove(&stripe);
    assert!(lock(&world.watch.failed).is_empty());
    assert!(world.get(&orphan).is_err(), "it was an orphan");
}

#[test]
fn a_shard_that_the_process_cannot_open_is_not_replaced() {
    let world = World::new(6, RS42, 9302);
    let content = bytes(1, 60_000);
    let stripe = world.put(&content).unwrap();
    let seat = usize::from(stripe.placement[1]);
    world.drives[seat].inject(fault(&codes::PROCESS_EXHAUSTED).on(Operation::Read).times(1));
    world
        .drives
        .iter()
        .for_each(|drive| drive.inject(fault(&codes::DRIVE_FULL).on(Operation::Put)));
    let wanted = Wanted { in_place: vec![1], ..Wanted::default() };
    assert_eq!(restore(&world, &stripe, &wanted).refused, 1);
    assert!(lock(&world.watch.failed).is_empty());
    world.settle();
    world.assert_whole("kept");
}

#[test]
fn what_the_process_cannot_open_is_no_orphan() {
    let mut world = World::new(6, RS42, 9303);
    let content = bytes(1, 40_000);
    let stripe = world.put(&content).unwrap();
    let strange = header::name(StripeId::from_u128(5), 1).unwrap();
    let mut other = header::tests::sample(4096, 512).0;
    other.pool = dwk_base::PoolId::from_u128(99);
    let entry = Entry::Blob(strange.clone());
    world.memory[1].set_raw(&entry, Some(other.encode()));
    for _ in 0..3 {
        let exhausted = fault(&codes::PROCESS_EXHAUSTED).on(Operation::Read);
        world.drives[1].inject(exhausted.named(strange.as_str()));
        let error = world.space.scrub(&world.table, &Control::default()).unwrap_err();
        assert!(error.is(&codes::PROCESS_EXHAUSTED), "{error}");
        world.drives.iter().for_each(FaultyDrive::heal);
        world.reopen();
    }
    world.space.scrub(&world.table, &Control::default()).unwrap();
    assert!(world.memory[1].raw(&entry).is_some(), "another pool's was removed");
    assert!(world.get(&stripe).unwrap() == content);
}

#[test]
fn a_repair_that_the_process_cannot_do_blames_no_drive_and_is_done_later() {
    for (code, operation) in CODES
        .into_iter()
        .flat_map(|code| [Operation::Put, Operation::Sync, Operation::Read].map(|op| (code, op)))
    {
        let world = World::new(6, RS42, 9304);
        let content = bytes(1, 60_000);
        let stripe = world.put(&content).unwrap();
        let (drive, file) = world.entry(&stripe, 2);
        drive.set_raw(&file, None);
        world.drives.iter().for_each(|drive| drive.inject(fault(code).on(operation)));
        let outcome = world.space.rebuild(&world.table, None, &Control::default());
        match outcome {
            Ok(report) => assert_eq!((report.restored_shards, report.unrestored_shards), (0, 1)),
            Err(error) => assert!(error.is(code), "{error}"),
        }
        assert!(lock(&world.watch.failed).is_empty() && lock(&world.watch.corrupted).is_empty());
        world.drives.iter().for_each(FaultyDrive::heal);
        world.space.rebuild(&world.table, None, &Control::default()).unwrap();
        world.settle();
        world.assert_whole("repaired");
        assert!(world.get(&stripe).unwrap() == content);
    }
}

#[test]
fn something_that_does_not_make_way_for_a_shard_sends_it_elsewhere_and_blames_no_drive() {
    for drives in [6, 7] {
        let world = World::new(drives, RS42, 9305);
        let content = bytes(1, 60_000);
        let stripe = world.put(&content).unwrap();
        let (drive, file) = world.entry(&stripe, 2);
        drive.set_raw(&file, None);
        let seat = usize::from(stripe.placement[2]);
        world.drives[seat].inject(fault(&codes::BLOB_EXISTS).on(Operation::Put));
        let report = world.space.scrub(&world.table, &Control::default()).unwrap();
        assert_eq!(report.restored_shards, drives as u64 - 6, "{report:?}");
        assert_eq!(report.unrestored_shards, 7 - drives as u64, "{report:?}");
        assert!(lock(&world.watch.failed).is_empty());
        assert!(world.get(&stripe).unwrap() == content);
    }
}
