//! Who has little time: waits end with it, and what was on its way arrives all the same.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Body, NEVER, World, commit_range, numbers, record, small};
use dwk_base::{Deadline, Error, SystemClock, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_journal::{Journal, Options};

/// Far less than a member may take.
const SHORT: Duration = Duration::from_millis(50);
/// Far more than a wait may go beyond its end on a busy machine, and less than a member may take.
const SOON: Duration = Duration::from_secs(5);

fn within(limit: Duration) -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), limit)
}

fn hang(world: &World, operation: Operation) {
    world.faulty(0).inject(Fault::new(Effect::Hang).on(operation));
}

/// What it failed with, and that it did so in time.
fn in_time<T: std::fmt::Debug>(work: impl FnOnce() -> dwk_base::Result<T>) -> Error {
    let begin = Instant::now();
    let error = work().expect_err("it has no time");
    assert!(begin.elapsed() < SOON, "{:?} for {error}", begin.elapsed());
    assert!(error.is(&codes::CONTEXT_DEADLINE), "{error}");
    error
}

fn settled(journal: &Journal, count: u64) {
    let begin = Instant::now();
    while journal.last_sequence() < count {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{} of {count}",
            journal.last_sequence()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_commit_is_waited_for_until_its_deadline_and_written_all_the_same() {
    let world = World::slots(2, 1);
    let journal = world.create().unwrap();
    commit_range(&journal, 1..10).unwrap();
    hang(&world, Operation::SyncLog);
    let first = journal.submit(record(10, 100), &NEVER).unwrap();
    let error = in_time(|| first.wait(&within(SHORT)));
    assert_eq!(error.detail("outcome"), Some("unknown"));
    // It waits behind one that is not done.
    let second = journal.submit(record(11, 100), &NEVER).unwrap();
    in_time(|| second.wait(&within(SHORT)));
    assert!(first.outcome().is_none() && second.outcome().is_none());
    world.faulty(0).release();
    // Nobody waits for it any more, and nothing comes after it.
    settled(&journal, 11);
    assert_eq!(second.outcome().unwrap().unwrap().sequence, 11);
    assert_eq!(world.register.members(), [0, 1], "no drive was blamed");
    assert_eq!(numbers(&journal), (1..12).collect::<Vec<_>>());
}

#[test]
fn who_has_time_waits_behind_who_had_none() {
    let options = Options { member_timeout: Duration::from_millis(300), ..small() };
    let world = World::new(&[Body::Slots; 2], 2, options, 1);
    let journal = world.create().unwrap();
    hang(&world, Operation::SyncLog);
    std::thread::scope(|scope| {
        let hasty: Vec<_> = (0..8)
            .map(|number| {
                let journal = &journal;
                scope.spawn(move || {
                    journal.submit(record(number, 100), &NEVER)?.wait(&within(SHORT))
                })
            })
            .collect();
        let patient: Vec<_> = (8..16)
            .map(|number| {
                scope.spawn({
                    let journal = &journal;
                    move || journal.commit(record(number, 100))
                })
            })
            .collect();
        assert!(patient.into_iter().all(|thread| thread.join().unwrap().is_ok()));
        assert!(hasty.into_iter().any(|thread| thread.join().unwrap().is_err()));
    });
    settled(&journal, 16);
    assert_eq!(world.register.members(), [1], "it was late, and that is told of");
    world.faulty(0).release();
}

#[test]
fn a_full_queue_is_waited_for_until_the_deadline_and_nothing_of_it_is_written() {
    let options = Options { queue_bytes_max: 40_000, ..small() };
    let world = World::new(&[Body::Slots; 2], 2, options, 1);
    let journal = world.create().unwrap();
    hang(&world, Operation::SyncLog);
    let mut waiting = Vec::new();
    let refused = loop {
        match journal.submit(record(waiting.len() as u64, 15_000), &within(SHORT)) {
            Ok(pending) => waiting.push(pending),
            Err(error) => break error,
        }
        assert!(waiting.len() < 20, "the queue is without bound");
    };
    assert!(refused.is(&codes::CONTEXT_DEADLINE) && refused.detail("outcome").is_none());
    world.faulty(0).release();
    for pending in &waiting {
        pending.wait(&NEVER).unwrap();
    }
    assert_eq!(journal.last_sequence(), waiting.len() as u64);
}

#[test]
fn a_read_is_waited_for_until_its_deadline_and_no_drive_is_called_late() {
    let world = World::slots(1, 1);
    let journal = world.create().unwrap();
    let position = commit_range(&journal, 1..2).unwrap()[0];
    hang(&world, Operation::ReadLog);
    let mut part = [0; 4];
    in_time(|| journal.read(position, 0, &mut part, &|_| true, &within(SHORT)));
    assert_eq!(journal.status().damaged_copies, 0);
    world.faulty(0).release();
    journal.read(position, 0, &mut part, &|_| true, &NEVER).unwrap();
}
