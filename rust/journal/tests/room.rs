//! Drives that have no room left.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use common::{Body, NEVER, World, commit_range, id, length, numbers, record, replayed, small};
use dwk_base::{Error, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{BlobName, Entry};
use dwk_journal::{Journal, Options, Pending};

/// Three members and one drive beside them, with segments kept for records that give room back.
fn world() -> World {
    seeded(1)
}

fn seeded(seed: u64) -> World {
    let options = Options { spare_segments: 1, reserved_segments: 1, ..small() };
    World::new(&[Body::Slots; 4], 3, options, seed)
}

fn fill(world: &World, indexes: &[usize]) {
    for index in indexes {
        world.faulty(*index).set_full(true);
    }
}

/// Commits records from `next` on until one is refused; returns the next number and why.
fn until_refused(
    next: u64,
    commit: impl Fn(bytes::Bytes) -> dwk_base::Result<dwk_journal::Position>,
) -> (u64, Error) {
    for number in next..next + 200 {
        match commit(record(number, length(number))) {
            Ok(position) => assert_eq!(position.sequence, number, "what was refused took a place"),
            Err(error) => return (number, error),
        }
    }
    panic!("a full drive takes everything, or was evicted");
}

/// A journal whose members are full, so that it takes no ordinary record any more; and the next number.
fn full(world: &World) -> (Journal, u64) {
    let journal = world.create().unwrap();
    commit_range(&journal, 1..30).unwrap();
    fill(world, &[0, 1, 2]);
    let (next, error) = until_refused(30, |record| journal.commit(record));
    assert!(error.is(&codes::DRIVE_FULL), "{error}");
    let (mut next, mut refused) = (next, false);
    while !refused {
        refused = journal.commit(record(next, 8)).is_err();
        next += u64::from(!refused);
    }
    (journal, next)
}

#[test]
fn records_that_give_room_back_pass_on_full_drives() {
    let world = world();
    let (journal, mut next) = full(&world);
    let before = journal.status().live_bytes;
    let first = next;
    for _ in 0..10 {
        assert!(journal.commit(record(0, 8)).unwrap_err().is(&codes::DRIVE_FULL), "touched");
        journal.commit_reserved(record(next, 8)).unwrap();
        next += 1;
    }
    let (next, error) = until_refused(next, |record| journal.commit_reserved(record));
    assert!(error.is(&codes::DRIVE_FULL), "{error}");
    let taken = journal.status().live_bytes - before;
    assert!(taken > 65536 * 3 / 4, "a segment was kept, and {taken} bytes of it could be used");
    assert_eq!(numbers(&journal), (1..next).collect::<Vec<_>>());
    // Room that is given back is kept again before anything else takes it.
    journal.release(first).unwrap();
    assert!(journal.commit(record(0, 8)).unwrap_err().is(&codes::DRIVE_FULL));
    world.drives.lock().unwrap().iter().for_each(|drive| drive.set_full(false));
    commit_range(&journal, next..next + 30).unwrap();
    fill(&world, &[0, 1, 2]);
    let (next, _) = until_refused(next + 30, |record| journal.commit(record));
    journal.commit_reserved(record(next, 8)).unwrap();
}

#[test]
fn a_journal_on_full_drives_opens_again_and_again() {
    let world = world();
    let (journal, next) = full(&world);
    let (mut next, _) = until_refused(next, |record| journal.commit_reserved(record));
    journal.close().unwrap();
    drop(journal);
    let (journal, recovery) = world.open().unwrap();
    assert_eq!(recovery.last_sequence, next - 1);
    assert_eq!(journal.status().members.len(), 3, "{recovery:?}");
    assert!(journal.commit(record(0, 8)).unwrap_err().is(&codes::DRIVE_FULL));
    journal.close().unwrap();
    drop(journal);
    // With the reserve still there, openings do not use it up.
    world.drives.lock().unwrap().iter().for_each(|drive| drive.set_full(false));
    let (journal, _) = world.open().unwrap();
    commit_range(&journal, next..next + 5).unwrap();
    next += 5;
    fill(&world, &[0, 1, 2]);
    let (next, _) = until_refused(next, |record| journal.commit(record));
    journal.close().unwrap();
    drop(journal);
    for _ in 0..10 {
        drop(world.open().unwrap());
    }
    let (journal, _) = world.open().unwrap();
    assert!(journal.commit(record(0, 8)).unwrap_err().is(&codes::DRIVE_FULL));
    journal.commit_reserved(record(next, 8)).unwrap();
    assert_eq!(numbers(&journal), (1..=next).collect::<Vec<_>>());
}

#[test]
fn a_full_member_is_named_and_another_drive_takes_its_place() {
    let world = world();
    let journal = world.create().unwrap();
    commit_range(&journal, 1..5).unwrap();
    fill(&world, &[1]);
    let (next, error) = until_refused(5, |record| journal.commit(record));
    assert!(error.is(&codes::DRIVE_FULL), "{error}");
    let full = error.details().iter().find(|(name, _)| *name == "drive").unwrap();
    assert_eq!(full.1, id(1).to_string());
    journal.add_member(world.member(3), &|| world.register.join(3)).unwrap();
    journal.remove_member(id(1), &|| Ok(())).unwrap();
    commit_range(&journal, next..next + 30).unwrap();
    assert_eq!(journal.status().members, [id(0), id(2), id(3)]);
    assert_eq!(numbers(&journal), (1..next + 30).collect::<Vec<_>>());
}

#[test]
fn nothing_that_came_after_a_refused_record_is_written() {
    let world = world();
    let journal = world.create().unwrap();
    commit_range(&journal, 1..30).unwrap();
    fill(&world, &[0, 1, 2]);
    // More than the current segment and the spare one take.
    let many: Vec<_> =
        (30..39).map(|number| journal.submit(record(number, 19000), &NEVER).unwrap()).collect();
    let after = journal.submit(record(0, 8), &NEVER).unwrap();
    let reserved = journal.submit_reserved(record(0, 8), &NEVER).unwrap();
    assert!(reserved.wait(&NEVER).unwrap_err().is(&codes::DRIVE_FULL));
    assert!(after.wait(&NEVER).unwrap_err().is(&codes::DRIVE_FULL));
    let written = many.iter().take_while(|pending| pending.wait(&NEVER).is_ok()).count();
    let is_refused =
        |pending: &Pending| pending.wait(&NEVER).is_err_and(|e| e.is(&codes::DRIVE_FULL));
    assert!(written < 8 && many[written..].iter().all(is_refused), "{written} were written");
    drop((after, reserved));
    // As long as one of them has not been let go, others may rest on it.
    let early = journal.commit_reserved(record(0, 8)).unwrap_err();
    assert!(early.is(&codes::DRIVE_FULL), "{early}");
    drop(many);
    let next = 30 + written as u64;
    let position = journal.commit_reserved(record(next, 8)).unwrap();
    assert_eq!(position.sequence, next);
    assert_eq!(numbers(&journal), (1..=next).collect::<Vec<_>>());
}

#[test]
fn a_drive_without_room_to_go_on_is_no_new_member_and_keeps_nothing_of_the_journal() {
    let world = world();
    let journal = world.create().unwrap();
    commit_range(&journal, 1..30).unwrap();
    let segments = journal.status().segments;
    for room in 0..segments + 2 {
        world.memories[3].set_capacity(room * 65536 + 4096);
        let refused = journal.add_member(world.member(3), &|| panic!("it has no room"));
        assert!(refused.unwrap_err().is(&codes::DRIVE_FULL), "{room}");
        assert!(world.memories[3].entries().is_empty(), "{room}");
    }
    world.memories[3].set_capacity((segments + 2) * 65536);
    journal.add_member(world.member(3), &|| world.register.join(3)).unwrap();
    journal.commit(record(30, 8)).unwrap();
    assert_eq!(journal.status().members.len(), 4);
}

/// What a cut left undone on a full member finds room in what is left over there.
#[test]
fn a_power_cut_on_full_drives_costs_no_member() {
    let mut repaired = 0;
    for step in 1.. {
        let world = seeded(step);
        let (journal, next) = full(&world);
        world.power.cut_in(step);
        let mut all = next..next + 200;
        let last = all.find(|n| journal.commit_reserved(record(*n, 8)).is_err()).unwrap();
        if !world.power.is_cut() {
            assert!(step > 50, "full after {step} steps, which proves little");
            break;
        }
        drop(journal);
        world.restart();
        fill(&world, &[0, 1, 2]);
        let (journal, recovery) = world.open().unwrap();
        assert_eq!(recovery.evicted, [], "step {step}");
        assert!((last - 1..=last).contains(&recovery.last_sequence), "step {step}");
        let all: Vec<u64> = (1..=recovery.last_sequence).collect();
        assert_eq!(numbers(&journal), all, "step {step}");
        repaired += recovery.repaired_batches;
    }
    assert!(repaired > 0);
}

/// A journal of some segments on two drives, of which the second one is full and has lost its first segment.
fn full_and_lost() -> (World, Journal, u64) {
    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..30).unwrap();
    world.faulty(1).set_full(true);
    let lost = Entry::Log(BlobName::new("journal.0000").unwrap());
    assert!(world.memories[1].raw(&lost).is_some());
    world.memories[1].set_raw(&lost, None);
    (world, journal, 30)
}

#[test]
fn a_scrub_leaves_a_full_drive_in_its_place_and_says_what_it_could_not_repair() {
    let (world, journal, next) = full_and_lost();
    let report = journal.scrub().unwrap();
    assert!(report.unrepaired_batches > 0 && report.lost_batches == 0, "{report:?}");
    assert_eq!(journal.status().members.len(), 2);
    assert_eq!(journal.status().damaged_copies, 1);
    commit_range(&journal, next..next + 1).unwrap();
    assert_eq!(numbers(&journal), (1..=next).collect::<Vec<_>>());
    world.faulty(1).set_full(false);
    let report = journal.scrub().unwrap();
    assert!(report.unrepaired_batches == 0 && report.repaired_batches > 0, "{report:?}");
    assert_eq!(journal.status().damaged_copies, 0);
    drop(journal);
    let (journal, _) = world.open_read_only(|index| index == 1).unwrap();
    assert_eq!(numbers(&journal), (1..=next).collect::<Vec<_>>());
}

#[test]
fn an_opening_leaves_a_full_drive_in_its_place() {
    let (world, journal, next) = full_and_lost();
    drop(journal);
    let (journal, recovery) = world.open().unwrap();
    assert!(recovery.evicted.is_empty(), "{recovery:?}");
    assert_eq!(journal.status().damaged_copies, 1);
    commit_range(&journal, next..next + 1).unwrap();
    assert_eq!(numbers(&journal), (1..=next).collect::<Vec<_>>());
    world.faulty(1).set_full(false);
    assert!(journal.scrub().unwrap().repaired_batches > 0);
    drop(journal);
    let (journal, _) = world.open_read_only(|index| index == 1).unwrap();
    assert_eq!(numbers(&journal), (1..=next).collect::<Vec<_>>());
}

#[test]
fn a_scrub_of_the_last_member_does_not_stop_the_journal_because_it_is_full() {
    let world = World::slots(1, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..30).unwrap();
    world.faulty(0).set_full(true);
    world.memories[0].set_raw(&Entry::Log(BlobName::new("journal.0000").unwrap()), None);
    let report = journal.scrub().unwrap();
    assert!(report.lost_batches > 0, "{report:?}");
    assert!(journal.status().stopped.is_none());
    commit_range(&journal, 30..31).unwrap();
}

#[test]
fn a_slot_belongs_to_what_it_was_used_for_last() {
    let options = Options { spare_segments: 0, reserved_segments: 1, ..small() };
    let world = World::new(&[Body::Slots; 2], 2, options, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..40).unwrap();
    journal.close().unwrap();
    // One goes and comes back: the slot that it keeps free holds batches that are still part of the log.
    let (journal, _) = world.open_with(|index| index == 0).unwrap();
    journal.add_member(world.member(1), &|| world.register.join(1)).unwrap();
    fill(&world, &[0, 1]);
    let (mut next, before) = (40, journal.status().segments);
    while journal.status().segments == before {
        journal.commit_reserved(record(next, 8)).unwrap();
        next += 1;
    }
    drop(journal);
    let (journal, recovery) = world.open().unwrap();
    assert_eq!((recovery.evicted, recovery.repaired_batches), (vec![], 0));
    assert_eq!(replayed(&journal, 0).unwrap().len() as u64, next - 1);
}

#[test]
fn want_of_descriptors_costs_no_member() {
    let exhausted = || Fault::new(Effect::Error(&codes::PROCESS_EXHAUSTED));
    let world = World::slots(3, 1);
    let journal = world.create().unwrap();
    for member in 0..3 {
        world.faulty(member).inject(exhausted().on(Operation::CreateLog).after(2).times(1));
    }
    let mut refused = 0;
    for number in 1..60 {
        while let Err(error) = journal.commit(record(number, length(number))) {
            assert!(error.is(&codes::PROCESS_EXHAUSTED), "{error}");
            refused += 1;
            assert!(refused < 10);
        }
    }
    assert!(refused > 0 && journal.status().stopped.is_none());
    assert_eq!(journal.status().members.len(), 3);
}

#[test]
fn a_log_that_no_member_may_open_is_not_taken_for_empty() {
    let world = World::slots(3, 1);
    commit_range(&world.create().unwrap(), 1..60).unwrap();
    // One log of each member, and it may be the last.
    let codes = [&codes::PROCESS_EXHAUSTED, &codes::DRIVE_READ_ONLY];
    for (log, code) in (0..8).flat_map(|log| codes.map(|code| (log, code))) {
        world.restart();
        for member in 0..3 {
            let log = format!("journal.{log:04}");
            let fault = Fault::new(Effect::Error(code)).on(Operation::ReadLog).named(log);
            world.faulty(member).inject(fault);
        }
        if let Err(error) = world.open() {
            let expected = [code, &codes::JOURNAL_MEMBERS];
            assert!(expected.into_iter().any(|code| error.is(code)), "{error}");
        }
        (0..3).for_each(|member| world.faulty(member).heal());
        assert_eq!(world.register.members(), [0, 1, 2]);
        world.restart();
        let (journal, _) = world.open().unwrap();
        assert_eq!(numbers(&journal), (1..60).collect::<Vec<_>>());
    }
}
