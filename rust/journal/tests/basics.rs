//! What a journal does while nothing goes wrong.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{Body, NEVER, World, commit_range, id, length, numbers, record, replayed, small};
use dwk_base::codes;
use dwk_drive::Entry;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_journal::{Apply, Options, Position};

const BODIES: [[Body; 3]; 3] =
    [[Body::Slots; 3], [Body::Blobs; 3], [Body::Slots, Body::Blobs, Body::Slots]];

#[test]
fn what_is_committed_replays_in_order_after_reopening() {
    for bodies in BODIES {
        let world = World::new(&bodies, 3, small(), 1);
        let journal = world.create().unwrap();
        let positions = commit_range(&journal, 1..40).unwrap();
        assert_eq!(numbers(&journal), (1..40).collect::<Vec<_>>());
        assert!(positions.last().unwrap().segment > 2, "the test must fill segments");
        journal.close().unwrap();
        let (journal, recovery) = world.open().unwrap();
        assert_eq!((recovery.first_sequence, recovery.last_sequence), (1, 39));
        assert_eq!(recovery.repaired_batches, 0, "{bodies:?}");
        commit_range(&journal, 40..60).unwrap();
        let all = replayed(&journal, 0).unwrap();
        assert_eq!(numbers(&journal), (1..60).collect::<Vec<_>>());
        assert_eq!(all.iter().map(|(p, _)| *p).take(39).collect::<Vec<_>>(), positions);
        assert_eq!(replayed(&journal, 50).unwrap().len(), 10);
        assert_eq!(journal.last_sequence(), 59);
    }
}

#[test]
fn each_single_member_holds_everything() {
    for bodies in BODIES {
        let world = World::new(&bodies, 3, small(), 1);
        commit_range(&world.create().unwrap(), 1..40).unwrap();
        for alone in 0..3 {
            let (journal, _) = world.open_read_only(|index| index == alone).unwrap();
            assert_eq!(numbers(&journal), (1..40).collect::<Vec<_>>());
            assert!(journal.commit(record(1, 8)).unwrap_err().is(&codes::POOL_READ_ONLY));
        }
    }
}

#[test]
fn parts_of_records_are_read_by_position() {
    for bodies in BODIES {
        let world = World::new(&bodies, 3, small(), 1);
        let journal = world.create().unwrap();
        for (number, position) in (1..30).zip(commit_range(&journal, 1..30).unwrap()) {
            let whole = record(number, length(number));
            let mut part = vec![0; whole.len() - 3];
            journal.read(position, 3, &mut part, &|bytes| bytes == &whole[3..], &NEVER).unwrap();
            let refused = journal.read(position, 0, &mut part, &|_| false, &NEVER).unwrap_err();
            assert!(refused.is(&codes::JOURNAL_DAMAGED));
            assert!(part.iter().all(|byte| *byte == 0));
            let past = journal.read(position, 4, &mut part, &|_| true, &NEVER).unwrap_err();
            assert!(past.is(&codes::BUFFER_LENGTH));
        }
    }
}

#[test]
fn released_segments_are_used_again_and_their_records_are_gone() {
    for bodies in BODIES {
        let world = World::new(&bodies, 3, small(), 1);
        let journal = world.create().unwrap();
        let mut last = 0;
        for round in 0..30u64 {
            commit_range(&journal, round * 10 + 1..round * 10 + 11).unwrap();
            last = round * 10 + 10;
            journal.release(last - 5).unwrap();
        }
        let status = journal.status();
        assert!(status.segments <= 3, "{status:?}");
        assert!(status.preallocated_bytes <= 5 * 65536, "{status:?}");
        assert!(journal.first_sequence() <= last - 5 && journal.first_sequence() > last - 60);
        assert!(journal.bytes_since(last) >= 4096);
        assert_eq!(journal.bytes_since(last + 1), 0);
        drop(journal);
        let (journal, recovery) = world.open().unwrap();
        assert_eq!(recovery.last_sequence, last);
        let found = numbers(&journal);
        assert_eq!(found, (found[0]..=last).collect::<Vec<_>>());
        assert!(found[0] <= last - 5);
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<(u64, Bytes)>>);

impl Apply for Seen {
    fn apply(&self, position: Position, record: &Bytes) {
        self.0.lock().unwrap().push((position.sequence, record.clone()));
    }
}

#[test]
fn many_threads_commit_at_once_and_each_record_is_applied_once_in_order() {
    let options = Options { spare_segments: 1, ..small() };
    let world = World::new(&[Body::Slots; 3], 3, options, 1);
    let journal = Arc::new(world.create().unwrap());
    let seen = Arc::new(Seen::default());
    journal.set_apply(Arc::clone(&seen) as _);
    std::thread::scope(|scope| {
        for thread in 0..64u64 {
            let (journal, seen) = (&journal, &seen);
            scope.spawn(move || {
                for turn in 0..20 {
                    let record = record(thread * 1000 + turn, 100);
                    let position = journal.commit(record.clone()).unwrap();
                    let applied = seen.0.lock().unwrap()[position.sequence as usize - 1].clone();
                    assert_eq!(applied, (position.sequence, record));
                }
            });
        }
    });
    let applied = seen.0.lock().unwrap();
    assert_eq!(applied.iter().map(|(s, _)| *s).collect::<Vec<_>>(), (1..=1280).collect::<Vec<_>>());
    let stored = replayed(&journal, 0).unwrap();
    assert!(stored.iter().zip(&*applied).all(|((_, bytes), (_, record))| bytes == record));
    assert_eq!(stored.len(), applied.len());
    let batches = world.power.steps() / 6;
    assert!(batches < 1000, "{batches} batches for 1280 records: no group commit");
}

#[test]
fn submitted_records_keep_their_order_and_a_full_queue_helps_itself() {
    let world = World::slots(3, 1);
    let journal = world.create().unwrap();
    let pending: Vec<_> =
        (1..200).map(|number| journal.submit(record(number, 3000), &NEVER).unwrap()).collect();
    let positions: Vec<_> =
        pending.into_iter().rev().map(|p| p.wait(&NEVER).unwrap().sequence).collect();
    assert_eq!(positions, (1..200).rev().collect::<Vec<_>>());
    assert_eq!(numbers(&journal), (1..200).collect::<Vec<_>>());
    let left = journal.submit(record(200, 100), &NEVER).unwrap();
    journal.close().unwrap();
    assert_eq!(left.wait(&NEVER).unwrap().sequence, 200);
    assert!(journal.commit(record(1, 8)).unwrap_err().is(&codes::STORE_CLOSED));
    journal.close().unwrap();
}

#[test]
fn limits_are_named_and_hold() {
    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    assert!(journal.commit(record(1, 20001)).unwrap_err().is(&codes::JOURNAL_RECORD_SIZE));
    journal.commit(Bytes::new()).unwrap();
    let all = replayed(&journal, 0).unwrap();
    assert_eq!(all[0].1.len(), 0);
    for options in [
        Options { segment_bytes: 65537, ..small() },
        Options { record_bytes_max: 40000, ..small() },
        Options { segment_bytes: 0, ..small() },
    ] {
        let world = World::new(&[Body::Slots; 2], 2, options, 1);
        assert!(world.create().unwrap_err().is(&codes::STORE_OPTION));
    }
    let none = World::new(&[Body::Slots; 2], 0, small(), 1);
    assert!(none.create().unwrap_err().is(&codes::JOURNAL_MEMBERS));
}

#[test]
fn a_log_is_not_made_over_another_and_not_opened_under_an_old_epoch() {
    let world = World::slots(2, 1);
    commit_range(&world.create().unwrap(), 1..3).unwrap();
    assert!(world.create().unwrap_err().is(&codes::DRIVE_NOT_EMPTY));
    let (_first, _) = world.open().unwrap();
    let members = vec![world.member(0), world.member(1)];
    let identity = dwk_journal::Identity { pool: common::POOL, epoch: world.register.epoch() };
    let again = dwk_journal::Journal::open(
        identity,
        members,
        small(),
        Arc::clone(&world.register) as _,
        dwk_base::Seams::seeded(1),
    );
    assert!(again.unwrap_err().is(&codes::JOURNAL_EPOCH));
}

#[test]
fn members_come_and_go_between_batches() {
    for bodies in
        [[Body::Slots; 4], [Body::Blobs; 4], [Body::Slots, Body::Slots, Body::Slots, Body::Blobs]]
    {
        let world = World::new(&bodies, 2, small(), 1);
        let journal = world.create().unwrap();
        commit_range(&journal, 1..30).unwrap();
        journal.add_member(world.member(3), &|| world.register.join(3)).unwrap();
        commit_range(&journal, 30..50).unwrap();
        journal.remove_member(id(0), &|| Ok(())).unwrap();
        commit_range(&journal, 50..60).unwrap();
        assert_eq!(journal.status().members, [id(1), id(3)]);
        assert!(journal.remove_member(id(0), &|| Ok(())).unwrap_err().is(&codes::DRIVE_UNKNOWN));
        drop(journal);
        let (journal, _) = world.open_read_only(|index| index == 3).unwrap();
        assert_eq!(numbers(&journal), (1..60).collect::<Vec<_>>());
    }
}

#[test]
fn segments_of_another_size_are_read_and_given_back() {
    let mut world = World::slots(2, 1);
    let journal = world.create().unwrap();
    let commit = |journal: &dwk_journal::Journal, range: std::ops::Range<u64>| {
        for number in range {
            journal.commit(record(number, 5000)).unwrap();
        }
    };
    commit(&journal, 1..20);
    journal.close().unwrap();
    for (turn, segment_bytes) in [(1, 131_072), (2, 32_768), (3, 65_536)] {
        world.options = Options { segment_bytes, record_bytes_max: 6000, ..small() };
        let (journal, _) = world.open().unwrap();
        commit(&journal, turn * 20..turn * 20 + 20);
        assert_eq!(numbers(&journal), (1..turn * 20 + 20).collect::<Vec<_>>());
        journal.close().unwrap();
    }
    let (journal, _) = world.open().unwrap();
    journal.release(79).unwrap();
    commit(&journal, 80..100);
    journal.close().unwrap();
    drop(journal);
    let logs: Vec<_> = world.memories[0].entries();
    let sizes = logs.iter().map(|entry| world.memories[0].raw(entry).unwrap().len());
    assert!(sizes.clone().all(|bytes| bytes == 65_536), "{:?}", sizes.collect::<Vec<_>>());
}

#[test]
fn a_new_member_gives_back_what_was_released_while_it_was_copied_to() {
    let world = World::new(&[Body::Blobs; 3], 2, small(), 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..60).unwrap();
    // Three segments have been copied when all but the last ones are released.
    world.faulty(2).inject(Fault::new(Effect::Hang).on(Operation::Sync).after(3));
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| journal.add_member(world.member(2), &|| Ok(())));
        while !format!("{:?}", world.memories[2].entries()).contains("0000000000000003-") {
            std::thread::yield_now();
        }
        journal.release(55).unwrap();
        commit_range(&journal, 60..70).unwrap();
        world.faulty(2).heal();
        joining.join().unwrap().unwrap();
    });
    commit_range(&journal, 70..75).unwrap();
    journal.close().unwrap();
    assert!(journal.first_sequence() > 40);
    assert_eq!(world.memories[2].entries(), world.memories[0].entries());
}

#[test]
fn a_second_writer_finds_the_name_of_a_batch_taken() {
    let world = World::new(&[Body::Blobs; 2], 2, small(), 1);
    let stale = world.create().unwrap();
    commit_range(&stale, 1..10).unwrap();
    let (journal, _) = world.open().unwrap();
    let refused = stale.commit(record(10, 8)).unwrap_err();
    assert!(refused.is(&codes::JOURNAL_MEMBERS), "{refused}");
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("exists"), "{why}");
    assert_eq!(world.register.evictions.load(Ordering::SeqCst), 0, "nobody failed");
    commit_range(&journal, 10..20).unwrap();
    assert!(stale.commit(record(10, 8)).unwrap_err().is(&codes::JOURNAL_MEMBERS));
    journal.close().unwrap();
    let (journal, recovery) = world.open().unwrap();
    assert_eq!((recovery.last_sequence, recovery.repaired_batches), (19, 0));
    assert_eq!(numbers(&journal), (1..20).collect::<Vec<_>>());
}

#[test]
fn a_replay_from_the_end_reads_no_more_than_it_must() {
    for bodies in BODIES {
        let world = World::new(&bodies, 3, small(), 1);
        let journal = world.create().unwrap();
        let positions = commit_range(&journal, 1..60).unwrap();
        let mut back = Vec::new();
        journal
            .replay_back(&mut |position, bytes| {
                let number = position.sequence;
                assert_eq!(bytes, record(number, length(number)));
                back.push(position);
                Ok(true)
            })
            .unwrap();
        assert_eq!(back, positions.iter().rev().copied().collect::<Vec<_>>());
        let mut seen = 0;
        let broken = Fault::new(Effect::Error(&codes::DRIVE_IO)).after(10);
        for index in 0..3 {
            let broken = broken.clone().on(Operation::Read).on(Operation::ReadLog);
            world.faulty(index).inject(broken);
        }
        journal
            .replay_back(&mut |position, _| {
                seen += 1;
                Ok(position.sequence > 55)
            })
            .unwrap();
        assert_eq!(seen, 5, "55 to 59");
    }
}

/// What only one copy has is read twice when the log is opened: to see that it is there, and to write it elsewhere.
#[test]
fn a_read_that_fails_once_while_the_last_copy_of_a_batch_is_fetched_does_not_keep_the_log_from_opening()
 {
    for reads in 0..40 {
        let world = World::slots(2, 1);
        let journal = world.create().unwrap();
        commit_range(&journal, 1..6).unwrap();
        journal.close().unwrap();
        world.restart();
        let lacking = &world.memories[0];
        for entry in lacking.entries().iter().filter(|entry| matches!(entry, Entry::Log(_))) {
            let zeroes = lacking.raw(entry).map(|bytes| vec![0; bytes.len()]);
            lacking.set_raw(entry, zeroes);
        }
        let once = Fault::new(Effect::Flip).on(Operation::ReadLog).after(reads).times(1);
        world.faulty(1).inject(once);
        // Damage that is seen at first is damage: there is no other copy.
        let seen = match world.open() {
            Ok((journal, _)) => numbers(&journal),
            Err(error) => {
                assert!(!error.message().contains("second time"), "read {reads}: {error}");
                continue;
            }
        };
        assert!(seen.len() == 5 || reads < 10, "read {reads}: {seen:?}");
    }
}
