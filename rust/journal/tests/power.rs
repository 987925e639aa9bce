//! The power is cut at every step of everything that a journal does, and at the worst: what was not synced
//! is lost or torn.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::time::Duration;

use common::{Body, World, length, record, small};
use dwk_base::{Error, Result, codes};
use dwk_drive::Entry;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_journal::{Journal, Options, SYNC_TAGS};

/// What was promised so far.
#[derive(Debug, Default)]
struct Promise {
    created: bool,
    /// Records up to here were acknowledged.
    acknowledged: u64,
    /// Records up to here may be there.
    attempted: u64,
    /// Records from here on were not released.
    needed_from: u64,
}

impl Promise {
    fn commit(&mut self, journal: &Journal, count: u64) -> Result<()> {
        for _ in 0..count {
            self.attempted += 1;
            let position = journal.commit(record(self.attempted, length(self.attempted)))?;
            assert_eq!(position.sequence, self.attempted);
            self.acknowledged = self.attempted;
        }
        Ok(())
    }

    /// What the journal holds is what was promised.
    fn holds(&self, journal: &Journal) -> Result<u64, String> {
        let mut next = None;
        journal
            .replay(0, &mut |position, bytes| {
                let number = position.sequence;
                let right = next.is_none_or(|next| next == number)
                    && bytes == record(number, length(number));
                next = Some(number + 1);
                let wrong =
                    || Error::new(&codes::INTERNAL_BUG, format!("record {number} is wrong"));
                if right { Ok(()) } else { Err(wrong()) }
            })
            .map_err(|error| error.to_string())?;
        let last = journal.last_sequence();
        if next.is_some_and(|next| next != last + 1) {
            return Err(format!("it replays up to {next:?} and says {last}"));
        }
        if last < self.acknowledged || last > self.attempted {
            return Err(format!("it ends at {last}: {self:?}"));
        }
        let first = journal.first_sequence();
        if first > self.needed_from.max(1) {
            return Err(format!("it begins at {first}: {self:?}"));
        }
        Ok(last)
    }
}

/// Everything that a journal does, until the power goes.
fn play(world: &World, promise: &mut Promise) -> Result<()> {
    let journal = world.create()?;
    promise.created = true;
    promise.commit(&journal, 12)?;
    journal.release(10)?;
    promise.needed_from = 10;
    promise.commit(&journal, 14)?;
    journal.add_member(world.member(3), &|| world.register.join(3))?;
    promise.commit(&journal, 2)?;
    drop(journal);

    let (journal, _) = world.open()?;
    promise.commit(&journal, 2)?;
    let failing = Fault::new(Effect::Error(&codes::DRIVE_IO)).times(1);
    let call = if world.bodies[1] == Body::Slots { Operation::SyncLog } else { Operation::Sync };
    world.faulty(1).inject(failing.on(call));
    promise.commit(&journal, 3)?;
    journal.release(20)?;
    promise.needed_from = 20;
    promise.commit(&journal, 8)?;
    journal.close()
}

fn each_alone(world: &World, promise: &Promise, when: &str) -> Result<(), String> {
    for alone in world.register.members() {
        let tell = |error: String| format!("{when}, member {alone} alone: {error}");
        let opened = world.open_read_only(|index| index == alone);
        let (journal, _) = opened.map_err(|error| tell(error.to_string()))?;
        promise.holds(&journal).map_err(tell)?;
    }
    Ok(())
}

/// After the power came back everything that was promised is there, on each member alone and on all.
fn check(world: &World, promise: &mut Promise) -> Result<(), String> {
    world.restart();
    if !promise.created {
        return Ok(());
    }
    each_alone(world, promise, "found")?;
    // Once more, somewhere in the middle of the opening: with each seed somewhere else.
    world.power.cut_in(1 + world.seed % 17);
    drop(world.open());
    world.restart();
    each_alone(world, promise, "half opened")?;
    let (journal, _) = world.open().map_err(|error| error.to_string())?;
    // What is found once is never lost again.
    promise.acknowledged = promise.holds(&journal)?;
    promise.attempted = promise.acknowledged;
    drop(journal);
    world.restart();
    each_alone(world, promise, "opened")?;
    let (journal, _) = world.open().map_err(|error| error.to_string())?;
    promise.commit(&journal, 3).map_err(|error| error.to_string())?;
    drop(journal);
    world.restart();
    each_alone(world, promise, "gone on")
}

fn world(bodies: &[Body], spare_segments: usize, seed: u64) -> World {
    let options = Options { spare_segments, reserved_segments: spare_segments, ..small() };
    World::new(bodies, 3, options, seed)
}

const SLOTS: [Body; 4] = [Body::Slots; 4];
const MIXED: [Body; 4] = [Body::Slots, Body::Blobs, Body::Slots, Body::Blobs];

fn steps(bodies: &[Body], spare_segments: usize) -> u64 {
    let world = world(bodies, spare_segments, 1);
    let mut promise = Promise::default();
    play(&world, &mut promise).unwrap();
    assert_eq!(promise.acknowledged, promise.attempted);
    assert_eq!(world.register.members(), [0, 2, 3], "member 1 must have been evicted");
    check(&world, &mut promise).unwrap();
    world.power.steps()
}

/// The first broken promise, over cuts at every `stride`th step.
fn cut_everywhere(
    bodies: &[Body],
    spare_segments: usize,
    omit: Option<&'static str>,
    seeds: std::ops::Range<u64>,
) -> Result<(), String> {
    let total = steps(bodies, spare_segments);
    for seed in seeds {
        for step in 1..=total {
            let world = world(bodies, spare_segments, seed * 10_000 + step);
            if let Some(tag) = omit {
                world.omit(tag);
            }
            world.power.cut_at(step);
            let mut promise = Promise::default();
            let _ = play(&world, &mut promise);
            check(&world, &mut promise)
                .map_err(|error| format!("seed {seed}, step {step} of {total}: {error}"))?;
        }
    }
    Ok(())
}

fn seeds() -> std::ops::Range<u64> {
    if std::env::var_os("DWK_LONG").is_some() { 0..100 } else { 0..1 }
}

#[test]
fn a_cut_at_any_step_keeps_every_promise() {
    cut_everywhere(&SLOTS, 0, None, seeds()).unwrap();
}

#[test]
fn a_cut_at_any_step_keeps_every_promise_with_spare_segments() {
    cut_everywhere(&SLOTS, 1, None, seeds()).unwrap();
}

#[test]
fn a_cut_at_any_step_keeps_every_promise_on_drives_without_logs() {
    cut_everywhere(&[Body::Blobs; 4], 0, None, seeds()).unwrap();
    cut_everywhere(&MIXED, 0, None, seeds()).unwrap();
}

/// Damages a batch on two of three members.
fn damage_two(world: &World) {
    for damaged in &world.memories[1..3] {
        let entry = damaged.entries().into_iter().next().unwrap();
        let bytes = damaged.raw(&entry).unwrap().len();
        assert!(bytes >= 4096);
        let at = if matches!(entry, Entry::Log(_)) { 4096 + 200 } else { 200 };
        assert!(damaged.flip(&entry, at, 1));
    }
}

/// A copy that a scrub repaired, and then the power goes and only this copy is left.
fn scrub_and_cut(bodies: &[Body], omit: Option<&'static str>, seed: u64) -> Result<(), String> {
    let world = world(bodies, 0, seed);
    let mut promise = Promise::default();
    let journal = world.create().unwrap();
    promise.commit(&journal, 20).unwrap();
    damage_two(&world);
    if let Some(tag) = omit {
        world.omit(tag);
    }
    let report = journal.scrub().unwrap();
    assert_eq!((report.repaired_batches, report.lost_batches), (2, 0));
    drop(journal);
    world.restart();
    each_alone(&world, &promise, "scrubbed")
}

/// A drive joins while commits go on, and then the power goes and only it is left.
fn join_and_cut(bodies: &[Body], omit: Option<&'static str>, seed: u64) -> Result<(), String> {
    let world = world(bodies, 0, seed);
    let journal = world.create().unwrap();
    let mut promise = Promise::default();
    promise.commit(&journal, 12).unwrap();
    if let Some(tag) = omit {
        world.omit(tag);
    }
    let slow = Fault::new(Effect::Delay(Duration::from_millis(2)));
    world.faulty(3).inject(slow.on(Operation::SyncLog).on(Operation::Sync));
    let joined = || {
        world.register.join(3)?;
        world.power.cut_in(1);
        Ok(())
    };
    std::thread::scope(|scope| {
        let promise = &mut promise;
        let committing = &journal;
        scope.spawn(move || promise.commit(committing, 20));
        journal.add_member(world.member(3), &joined).unwrap();
    });
    drop(journal);
    world.restart();
    let (journal, _) = world
        .open_read_only(|index| index == 3)
        .map_err(|error| format!("joined, alone: {error}"))?;
    promise.holds(&journal).map(drop)
}

/// A copy that was repaired, and then the power goes and only this copy is left.
fn repair_and_cut(bodies: &[Body], omit: Option<&'static str>, seed: u64) -> Result<(), String> {
    let world = world(bodies, 0, seed);
    let mut promise = Promise::default();
    let journal = world.create().unwrap();
    promise.commit(&journal, 20).unwrap();
    journal.close().unwrap();
    damage_two(&world);
    if let Some(tag) = omit {
        world.omit(tag);
    }
    let (journal, recovery) = world.open().map_err(|error| error.to_string())?;
    assert!(recovery.repaired_batches >= 2, "{recovery:?}");
    drop(journal);
    world.restart();
    each_alone(&world, &promise, "repaired")
}

#[test]
fn a_repaired_copy_is_durable_before_anything_follows() {
    for seed in 0..20 {
        repair_and_cut(&SLOTS, None, seed).unwrap();
        repair_and_cut(&MIXED, None, seed).unwrap();
        scrub_and_cut(&SLOTS, None, seed).unwrap();
        scrub_and_cut(&MIXED, None, seed).unwrap();
    }
}

#[test]
fn a_drive_that_joined_while_commits_went_on_has_all_of_them() {
    for seed in 0..20 {
        join_and_cut(&SLOTS, None, seed).unwrap();
        join_and_cut(&[Body::Blobs; 4], None, seed).unwrap();
    }
}

/// The first promise that is broken without this sync, if any is.
fn without(bodies: &[Body], tag: &'static str) -> Result<(), String> {
    (0..20).try_for_each(|seed| repair_and_cut(bodies, Some(tag), seed))?;
    (0..20).try_for_each(|seed| scrub_and_cut(bodies, Some(tag), seed))?;
    (0..20).try_for_each(|seed| join_and_cut(bodies, Some(tag), seed))?;
    cut_everywhere(bodies, 0, Some(tag), 0..10)
}

#[test]
fn leaving_out_any_one_sync_breaks_a_promise() {
    for tag in SYNC_TAGS {
        for bodies in [SLOTS, [Body::Blobs; 4]] {
            assert!(without(&bodies, tag).is_err(), "{bodies:?}: nobody misses the sync {tag}");
        }
    }
}
