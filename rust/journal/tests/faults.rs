//! Members that fail, hang or come back damaged.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{
    Body, NEVER, POOL, World, commit_range, id, length, numbers, record, replayed, small,
};
use dwk_base::codes;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Entry, MemoryDrive};
use dwk_journal::{Identity, Journal, Options, Reader};

const BODIES: [[Body; 3]; 3] =
    [[Body::Slots; 3], [Body::Blobs; 3], [Body::Slots, Body::Blobs, Body::Slots]];

fn broken() -> Fault {
    Fault::new(Effect::Error(&codes::DRIVE_IO))
}

#[test]
fn a_member_that_fails_is_evicted_and_the_commit_succeeds() {
    for (bodies, calls) in [
        ([Body::Slots; 3], [Operation::WriteLog, Operation::SyncLog]),
        ([Body::Blobs; 3], [Operation::Put, Operation::Sync]),
    ] {
        for call in calls {
            let world = World::new(&bodies, 3, small(), 1);
            let journal = world.create().unwrap();
            commit_range(&journal, 1..10).unwrap();
            world.faulty(1).inject(broken().on(call));
            commit_range(&journal, 10..20).unwrap();
            assert_eq!(world.register.members(), [0, 2]);
            assert_eq!(world.register.evictions.load(Ordering::SeqCst), 1, "tried again");
            assert_eq!(journal.status().members, [id(0), id(2)]);
            assert_eq!(journal.status().epoch, world.register.epoch());
            world.restart();
            let (journal, _) = world.open().unwrap();
            assert_eq!(numbers(&journal), (1..20).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_member_that_hangs_is_evicted_after_its_time() {
    let options = Options { member_timeout: Duration::from_millis(100), ..small() };
    let world = World::new(&[Body::Slots; 3], 3, options, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..10).unwrap();
    world.faulty(0).inject(Fault::new(Effect::Hang).on(Operation::SyncLog));
    commit_range(&journal, 10..20).unwrap();
    assert_eq!(world.register.members(), [1, 2]);
    assert_eq!(numbers(&journal), (1..20).collect::<Vec<_>>());
    world.faulty(0).release();
}

#[test]
fn without_a_member_or_a_durable_eviction_the_journal_stops_for_good() {
    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..10).unwrap();
    world.register.refuse.store(true, Ordering::SeqCst);
    world.faulty(0).inject(broken().on(Operation::SyncLog).times(1));
    assert!(journal.commit(record(10, 8)).unwrap_err().is(&codes::JOURNAL_MEMBERS));
    world.register.refuse.store(false, Ordering::SeqCst);
    assert!(journal.commit(record(11, 8)).unwrap_err().is(&codes::JOURNAL_MEMBERS));
    assert!(journal.status().stopped.is_some());
    assert!(journal.close().unwrap_err().is(&codes::JOURNAL_MEMBERS));
    assert_eq!(world.register.evictions.load(Ordering::SeqCst), 1);

    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..10).unwrap();
    (0..2).for_each(|index| world.faulty(index).inject(broken().on(Operation::WriteLog)));
    assert!(journal.commit(record(10, 8)).unwrap_err().is(&codes::JOURNAL_MEMBERS));
    assert_eq!(world.register.members().len(), 2, "the last members are not evicted");
    world.restart();
    (0..2).for_each(|index| world.faulty(index).heal());
    let (journal, _) = world.open().unwrap();
    assert_eq!(numbers(&journal)[..9], (1..10).collect::<Vec<_>>());
}

#[test]
fn a_batch_that_only_an_evicted_member_lacks_survives_its_return() {
    let world = World::slots(3, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..10).unwrap();
    // Both fail; the batch is acknowledged by the third alone.
    world.faulty(0).inject(broken().on(Operation::WriteLog));
    world.faulty(1).inject(broken().on(Operation::SyncLog));
    commit_range(&journal, 10..11).unwrap();
    assert_eq!(world.register.members(), [2]);
    drop(journal);
    world.restart();
    (0..2).for_each(|index| world.faulty(index).heal());
    // Whoever hands the evicted ones in as well gets the same log.
    let epoch = world.register.begin(&[2]).unwrap();
    let members = (0..3).map(|index| world.member(index)).collect();
    let (journal, recovery) = Journal::open(
        Identity { pool: POOL, epoch },
        members,
        small(),
        std::sync::Arc::clone(&world.register) as _,
        dwk_base::Seams::seeded(1),
    )
    .unwrap();
    assert_eq!(recovery.last_sequence, 10);
    assert_eq!(numbers(&journal), (1..11).collect::<Vec<_>>());
}

#[test]
fn a_discarded_branch_does_not_come_back_even_if_it_is_longer() {
    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..10).unwrap();
    // Member 1 gets batches that member 0 never sees; nobody is told that they are there.
    world.register.refuse.store(true, Ordering::SeqCst);
    world.faulty(0).inject(broken().on(Operation::WriteLog));
    assert!(journal.commit(record(100, 8)).is_err());
    drop(journal);
    world.register.refuse.store(false, Ordering::SeqCst);
    world.faulty(0).heal();
    let (journal, _) = world.open_with(|index| index == 0).unwrap();
    commit_range(&journal, 10..11).unwrap();
    drop(journal);
    world.register.join(1).unwrap();
    let (journal, _) = world.open().unwrap();
    assert_eq!(numbers(&journal), (1..11).collect::<Vec<_>>());
    drop(journal);
    let (journal, _) = world.open_read_only(|index| index == 1).unwrap();
    assert_eq!(numbers(&journal), (1..11).collect::<Vec<_>>());
}

/// Ways in which a file can be wrong.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip,
    Truncate,
    Empty,
    Zero,
    Garbage,
    Remove,
    Swap,
    Grow,
}

const DAMAGES: [Damage; 8] = [
    Damage::Flip,
    Damage::Truncate,
    Damage::Empty,
    Damage::Zero,
    Damage::Garbage,
    Damage::Remove,
    Damage::Swap,
    Damage::Grow,
];

fn damage(drive: &MemoryDrive, entry: &Entry, other: &Entry, damage: Damage) {
    let bytes = drive.raw(entry).unwrap();
    let length = bytes.len();
    match damage {
        Damage::Flip => (0..length).step_by(1000).for_each(|at| assert!(drive.flip(entry, at, 4))),
        Damage::Truncate => drive.set_raw(entry, Some(bytes[..length / 2].to_vec())),
        Damage::Empty => drive.set_raw(entry, Some(Vec::new())),
        Damage::Zero => drive.set_raw(entry, Some(vec![0; length])),
        Damage::Garbage => drive.set_raw(entry, Some(record(7, length).to_vec())),
        Damage::Remove => drive.set_raw(entry, None),
        Damage::Swap => {
            drive.set_raw(entry, drive.raw(other));
            drive.set_raw(other, Some(bytes));
        }
        Damage::Grow => drive.set_raw(entry, Some([bytes, vec![1; 4096]].concat())),
    }
}

#[test]
fn any_damage_to_any_file_on_all_but_one_member_is_repaired() {
    for bodies in BODIES {
        for good in 0..3 {
            for kind in DAMAGES {
                let world = World::new(&bodies, 3, small(), 1);
                let journal = world.create().unwrap();
                commit_range(&journal, 1..40).unwrap();
                journal.release(5).unwrap();
                commit_range(&journal, 40..60).unwrap();
                journal.close().unwrap();
                for memory in world.memories.iter().enumerate().filter(|(i, _)| *i != good) {
                    let entries = memory.1.entries();
                    for pair in entries.windows(2).step_by(2) {
                        damage(memory.1, &pair[0], &pair[1], kind);
                    }
                    damage(memory.1, &entries[entries.len() - 1], &entries[0], kind);
                }
                let context = format!("{bodies:?}, all but {good}: {kind:?}");
                let (journal, _) = world.open_read_only(|_| true).unwrap();
                assert_eq!(journal.last_sequence(), 59, "{context}");
                assert_eq!(*numbers(&journal).last().unwrap(), 59, "{context}");
                let (journal, _) = world.open().unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_eq!(*numbers(&journal).last().unwrap(), 59, "{context}");
                assert!(numbers(&journal)[0] <= 5);
                assert_eq!(journal.status().members.len(), 3, "{context}");
                commit_range(&journal, 60..70).unwrap();
                drop(journal);
                for alone in 0..3 {
                    let (journal, _) = world.open_read_only(|index| index == alone).unwrap();
                    assert_eq!(*numbers(&journal).last().unwrap(), 69, "{context}");
                }
            }
        }
    }
}

#[test]
fn damage_in_the_middle_of_every_copy_is_refused_and_never_cut() {
    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    let positions = commit_range(&journal, 1..40).unwrap();
    journal.close().unwrap();
    let hit = positions[19];
    for memory in &world.memories {
        for entry in memory.entries() {
            let bytes = memory.raw(&entry).unwrap();
            let at = hit.offset as usize;
            if bytes[at..at + 8] == 20u64.to_le_bytes() {
                assert!(memory.flip(&entry, at, 1));
            }
        }
    }
    let error = world.open().unwrap_err();
    assert!(error.is(&codes::JOURNAL_DAMAGED), "{error}");
    assert_eq!(error.detail("segment"), Some(&*hit.segment.to_string()));
    assert!(world.open_read_only(|_| true).unwrap_err().is(&codes::JOURNAL_DAMAGED));
}

#[test]
fn damage_while_it_is_open_is_read_around_and_repaired() {
    for bodies in BODIES {
        for kind in [Damage::Flip, Damage::Zero, Damage::Garbage] {
            let world = World::new(&bodies, 3, small(), 1);
            let journal = world.create().unwrap();
            let positions = commit_range(&journal, 1..40).unwrap();
            for memory in &world.memories[..2] {
                for entry in memory.entries() {
                    damage(memory, &entry, &entry, kind);
                }
            }
            for position in &positions {
                let whole = record(position.sequence, length(position.sequence));
                let mut read = vec![0; whole.len()];
                journal
                    .read(*position, 0, &mut read, &|bytes| bytes == &whole[..], &NEVER)
                    .unwrap();
            }
            assert!(journal.status().damaged_copies > 0);
            assert_eq!(numbers(&journal), (1..40).collect::<Vec<_>>());
            let report = journal.scrub().unwrap();
            assert_eq!(report.lost_batches, 0);
            assert_eq!(journal.status().damaged_copies, 0);
            let again = journal.scrub().unwrap();
            assert_eq!(again.repaired_batches, 0, "{bodies:?} {kind:?} {report:?}");
            drop(journal);
            for alone in 0..3 {
                let (journal, _) = world.open_read_only(|index| index == alone).unwrap();
                assert_eq!(numbers(&journal), (1..40).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn scrub_repairs_slots_that_were_removed_or_cut_short_and_counts_what_is_lost() {
    for bodies in BODIES {
        for kind in [Damage::Remove, Damage::Truncate, Damage::Empty, Damage::Swap] {
            let world = World::new(&bodies, 3, small(), 1);
            let journal = world.create().unwrap();
            commit_range(&journal, 1..40).unwrap();
            let entries = world.memories[0].entries();
            damage(&world.memories[0], &entries[0], &entries[1], kind);
            let report = journal.scrub().unwrap();
            assert!(report.repaired_batches > 0, "{kind:?}");
            assert_eq!(journal.status().members.len(), 3, "{bodies:?} {kind:?}");
            commit_range(&journal, 40..50).unwrap();
            drop(journal);
            let (journal, _) = world.open_read_only(|index| index == 0).unwrap();
            assert_eq!(numbers(&journal), (1..50).collect::<Vec<_>>(), "{bodies:?} {kind:?}");
        }
    }
    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    let position = commit_range(&journal, 1..40).unwrap()[4];
    for memory in &world.memories {
        let first = memory.entries().remove(0);
        assert!(memory.flip(&first, position.offset as usize, 1));
    }
    let report = journal.scrub().unwrap();
    assert_eq!((report.lost_batches, report.repaired_batches), (2, 0));
    assert!(replayed(&journal, 0).unwrap_err().is(&codes::JOURNAL_DAMAGED));
}

#[test]
fn slots_that_change_drives_or_places_do_not_matter() {
    let world = World::slots(3, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..40).unwrap();
    journal.close().unwrap();
    let (a, b) = (&world.memories[0], &world.memories[1]);
    for entry in a.entries() {
        let (of_a, of_b) = (a.raw(&entry), b.raw(&entry));
        a.set_raw(&entry, of_b);
        b.set_raw(&entry, of_a);
    }
    let (journal, recovery) = world.open().unwrap();
    assert_eq!(numbers(&journal), (1..40).collect::<Vec<_>>());
    assert!(recovery.repaired_batches > 0, "the headers name the drive");
}

#[test]
fn another_pools_segments_are_not_read() {
    let world = World::slots(2, 1);
    commit_range(&world.create().unwrap(), 1..10).unwrap();
    let members = vec![world.member(0), world.member(1)];
    let identity = Identity { pool: dwk_base::PoolId::from_u128(5), epoch: dwk_base::Epoch(100) };
    let opened = Journal::open_read_only(
        identity,
        members,
        small(),
        std::sync::Arc::clone(&world.register) as _,
        dwk_base::Seams::seeded(1),
        &NEVER,
    );
    assert!(opened.unwrap_err().is(&codes::JOURNAL_DAMAGED));
}

#[test]
fn records_that_look_like_batches_deceive_nobody() {
    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..3).unwrap();
    // A whole log of another life of the same pool, inside a record, at a block's boundary.
    let other = World::slots(1, 99);
    let fake = other.create().unwrap();
    for number in 0..10 {
        fake.commit(record(number, 8)).unwrap();
    }
    let raw = other.memories[0].raw(&other.memories[0].entries()[0]).unwrap();
    let lead = 4096 - 164 - 4;
    let bait = [vec![0; lead], raw[20480..20480 + 4096 * 3].to_vec()].concat();
    let position = journal.commit(bait.into()).unwrap();
    assert_eq!(position.offset as usize + lead, 20480, "the bait lies where it says");
    journal.close().unwrap();
    // The batch around it is damaged everywhere: nothing inside of it may be taken for the log.
    for memory in &world.memories {
        assert!(memory.flip(&memory.entries()[0], position.offset as usize, 1));
    }
    let (journal, recovery) = world.open().unwrap();
    assert_eq!(recovery.last_sequence, 2);
    assert_eq!(numbers(&journal), [1, 2]);
}

#[test]
fn a_good_batch_in_a_wrong_slot_does_not_count_as_the_slots_own() {
    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    let positions = commit_range(&journal, 1..12).unwrap();
    journal.close().unwrap();
    let memory = &world.memories[0];
    let entries = memory.entries();
    let (first, last) = (&entries[0], &entries[entries.len() - 1]);
    // The last batch of segment 1 lies where an earlier use of segment 2's slot would have left it.
    let moved = positions.iter().rfind(|position| position.segment == 1).unwrap();
    let at = moved.offset as usize / 4096 * 4096;
    let (mut of_first, mut of_last) = (memory.raw(first).unwrap(), memory.raw(last).unwrap());
    assert!(of_last[at..].iter().all(|byte| *byte == 0), "segment 2 must end before");
    of_last[at..].copy_from_slice(&of_first[at..]);
    of_first[at..].fill(0);
    memory.set_raw(first, Some(of_first));
    memory.set_raw(last, Some(of_last));
    drop(world.open().unwrap());
    let (journal, _) = world.open_read_only(|index| index == 0).unwrap();
    assert_eq!(numbers(&journal), (1..12).collect::<Vec<_>>());
}

#[test]
fn a_replay_goes_on_undisturbed_while_its_segments_are_released() {
    for bodies in BODIES {
        let world = World::new(&bodies, 3, small(), 1);
        let journal = world.create().unwrap();
        commit_range(&journal, 1..40).unwrap();
        let mut seen = 0;
        journal
            .replay(1, &mut |position, bytes| {
                if seen == 0 {
                    journal.release(1000).unwrap();
                    commit_range(&journal, 40..120).unwrap();
                }
                seen += 1;
                assert_eq!(position.sequence, seen);
                assert_eq!(bytes, record(seen, bytes.len()));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, 39);
        assert!(journal.first_sequence() > 20, "the test must release");
        commit_range(&journal, 120..130).unwrap();
        assert!(journal.status().preallocated_bytes < 16 * 65536, "{:?}", journal.status());
    }
}

#[test]
fn a_full_drive_refuses_commits_and_neither_stops_the_journal_nor_loses_its_member() {
    let world = World::slots(3, 1);
    let journal = world.create().unwrap();
    world.faulty(1).set_full(true);
    let mut next = 1;
    let error = loop {
        assert!(next < 60, "a full drive takes everything, or was evicted");
        match journal.commit(record(next, length(next))) {
            Ok(position) => assert_eq!(position.sequence, next),
            Err(error) => break error,
        }
        next += 1;
    };
    assert!(error.is(&codes::DRIVE_FULL), "{error}");
    assert!(next > 5, "the segment that is there must be used");
    assert!(journal.commit(record(0, 15000)).unwrap_err().is(&codes::DRIVE_FULL));
    assert!(journal.status().stopped.is_none());
    assert_eq!(journal.status().members.len(), 3);
    world.faulty(1).set_full(false);
    commit_range(&journal, next..60).unwrap();
    assert_eq!(numbers(&journal), (1..60).collect::<Vec<_>>());
    drop(journal);
    for alone in 0..3 {
        let (journal, _) = world.open_read_only(|index| index == alone).unwrap();
        assert_eq!(numbers(&journal), (1..60).collect::<Vec<_>>());
    }
}

#[test]
fn reads_go_on_beside_a_member_that_hangs() {
    for (body, call) in [(Body::Slots, Operation::ReadLog), (Body::Blobs, Operation::Read)] {
        let options = Options { late_read: Duration::from_millis(200), ..small() };
        let world = World::new(&[body; 2], 2, options, 1);
        let journal = world.create().unwrap();
        let positions = commit_range(&journal, 1..100).unwrap();
        world.faulty(0).inject(Fault::new(Effect::Hang).on(call));
        let began = std::time::Instant::now();
        for (number, position) in (1..).zip(&positions) {
            let whole = record(number, length(number));
            let mut read = vec![0; whole.len()];
            journal.read(*position, 0, &mut read, &|bytes| bytes == &whole[..], &NEVER).unwrap();
            assert_eq!(read, whole);
        }
        assert_eq!(numbers(&journal), (1..100).collect::<Vec<_>>());
        assert!(began.elapsed() < Duration::from_secs(1), "it is asked first each time");
        assert_eq!(journal.status().damaged_copies, 0, "late is not damaged");
        commit_range(&journal, 100..110).unwrap();
        assert_eq!(journal.status().members.len(), 2);
        world.faulty(0).release();
    }
}

#[test]
fn a_member_that_is_slow_is_waited_for_when_there_is_no_other() {
    let options = Options { late_read: Duration::from_millis(5), ..small() };
    let world = World::new(&[Body::Slots; 2], 2, options, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..10).unwrap();
    let slow = || Fault::new(Effect::Delay(Duration::from_millis(20))).on(Operation::ReadLog);
    for index in 0..2 {
        world.faulty(index).inject(slow());
    }
    assert_eq!(numbers(&journal), (1..10).collect::<Vec<_>>());
    assert_eq!(journal.status().damaged_copies, 0);
}

#[test]
fn a_scrub_evicts_a_member_that_does_not_answer() {
    let options = Options { member_timeout: Duration::from_millis(100), ..small() };
    let world = World::new(&[Body::Slots; 2], 2, options, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..30).unwrap();
    world.faulty(1).inject(Fault::new(Effect::Hang).on(Operation::ReadLog));
    journal.scrub().unwrap();
    assert_eq!(world.register.members(), [0]);
    commit_range(&journal, 30..40).unwrap();
    world.faulty(1).release();
    world.faulty(0).inject(Fault::new(Effect::Hang).on(Operation::ReadLog));
    assert!(journal.scrub().unwrap_err().is(&codes::DRIVE_TIMEOUT), "it is the last one");
    commit_range(&journal, 40..50).unwrap();
    world.faulty(0).release();
}

#[test]
fn what_was_just_written_is_read_without_asking_a_drive() {
    let options = Options { recent_bytes_max: 1 << 20, ..small() };
    let world = World::new(&[Body::Slots; 2], 2, options, 1);
    let journal = world.create().unwrap();
    let positions = commit_range(&journal, 1..30).unwrap();
    (0..2).for_each(|index| world.faulty(index).inject(broken().on(Operation::ReadLog)));
    for (number, position) in (1..).zip(&positions) {
        let whole = record(number, length(number));
        let mut read = vec![0; whole.len() - 3];
        journal.read(*position, 3, &mut read, &|bytes| bytes == &whole[3..], &NEVER).unwrap();
        let refused = journal.read(*position, 3, &mut read, &|_| false, &NEVER).unwrap_err();
        assert!(refused.is(&codes::JOURNAL_DAMAGED), "{refused}");
    }
}

#[test]
fn records_in_order_cost_a_read_for_each_batch_and_damage_none() {
    let world = World::new(&[Body::Slots; 2], 2, small(), 1);
    let journal = world.create().unwrap();
    // Submitted together, they share batches.
    let pending: Vec<_> =
        (1..200).map(|number| journal.submit(record(number, 900), &NEVER).unwrap()).collect();
    let positions: Vec<_> = pending.iter().map(|pending| pending.wait(&NEVER).unwrap()).collect();
    let all = |reader: &mut Reader<'_>| {
        for (number, position) in (1..).zip(&positions) {
            let whole = record(number, 900);
            let mut read = vec![0; whole.len() - 3];
            reader.read(*position, 3, &mut read, &|bytes| bytes == &whole[3..]).unwrap();
        }
    };
    for index in 0..2 {
        world.faulty(index).inject(broken().on(Operation::ReadLog).after(20));
    }
    all(&mut journal.reader());
    (0..2).for_each(|index| world.faulty(index).heal());
    // One copy is damaged here, the other one there: no copy of the batch is whole, all its records are.
    assert_eq!(positions[10].segment, positions[11].segment);
    for index in 0..2 {
        let (memory, at) = (&world.memories[index], positions[10 + index].offset as usize);
        let whole = record(11 + index as u64, 900);
        for entry in memory.entries() {
            let mut raw = memory.raw(&entry).unwrap();
            if raw.get(at..at + 900) == Some(&whole[..]) {
                raw[at + 5] ^= 1;
                memory.set_raw(&entry, Some(raw));
            }
        }
    }
    all(&mut journal.reader());
}

#[test]
fn nothing_is_read_from_a_new_member_while_commits_stand_still() {
    let options = Options { member_timeout: Duration::from_secs(5), ..small() };
    let world = World::new(&[Body::Slots, Body::Blobs, Body::Slots, Body::Blobs], 2, options, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..40).unwrap();
    for index in [2, 3] {
        let hang = Fault::new(Effect::Hang).on(Operation::ReadLog).on(Operation::Read);
        world.faulty(index).inject(hang.on(Operation::ListLogs).after(1));
        let joined = || world.register.join(index);
        journal.add_member(world.member(index), &joined).unwrap();
    }
    commit_range(&journal, 40..50).unwrap();
    assert_eq!(journal.status().members.len(), 4);
    for index in [2, 3] {
        world.faulty(index).heal();
        let (journal, _) = world.open_read_only(|alone| alone == index).unwrap();
        assert_eq!(numbers(&journal), (1..50).collect::<Vec<_>>());
    }
}
