//! Random histories of commits, cuts, evictions, restarts, absences and damage, against the list of what was
//! acknowledged.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::sync::Arc;

use common::{Body, World, length, record, small};
use dwk_base::codes;
use dwk_drive::MemoryDrive;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_journal::{Journal, Options};
use proptest::prelude::*;

const DRIVES: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// Commits this many records.
    Commit(u8),
    /// Commits from several threads at once.
    Burst(u8),
    /// Releases all but the last this many records.
    Release(u8),
    /// This drive's next write or sync fails.
    Fail(u8, bool),
    /// A drive that is none becomes a member.
    Join(u8),
    /// A member leaves.
    Leave(u8),
    /// No drive has room for more, or each has.
    Full(bool),
    /// Scrubs.
    Scrub,
    /// The power goes after this many steps, or now; then those of `present` come back.
    Restart { cut_in: u8, present: u8 },
    /// All members but one are damaged, at random, and the log is opened again with all of them.
    Damage { good: u8, seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..30).prop_map(Step::Commit),
        2 => (1u8..20).prop_map(Step::Burst),
        3 => any::<u8>().prop_map(Step::Release),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(drive, sync)| Step::Fail(drive, sync)),
        2 => any::<u8>().prop_map(Step::Join),
        1 => any::<u8>().prop_map(Step::Leave),
        2 => any::<bool>().prop_map(Step::Full),
        1 => Just(Step::Scrub),
        4 => (any::<u8>(), any::<u8>())
            .prop_map(|(cut_in, present)| Step::Restart { cut_in, present }),
        2 => (any::<u8>(), any::<u64>()).prop_map(|(good, seed)| Step::Damage { good, seed }),
    ]
}

/// The slow reference: what was acknowledged is a list, and the journal is a list.
struct History {
    world: World,
    journal: Option<Journal>,
    /// What each sequence number must hold; `None`: nobody was told, it was lost or never seen yet.
    acknowledged: u64,
    needed_from: u64,
    /// The key of each record that was ever submitted, by sequence number, from the last time.
    submitted: Vec<u64>,
    key: u64,
    /// Drives that failed since the last restart.
    failed: Vec<usize>,
    /// True while the drives are full.
    full: bool,
}

impl History {
    fn new(bodies: &[Body], options: Options, seed: u64) -> Self {
        let world = World::new(bodies, 3, options, seed);
        let journal = Some(world.create().unwrap());
        Self {
            world,
            journal,
            acknowledged: 0,
            needed_from: 1,
            submitted: vec![],
            key: 0,
            failed: vec![],
            full: false,
        }
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn next_key(&mut self) -> u64 {
        self.key += 1;
        self.key
    }

    fn set_full(&mut self, full: bool) {
        self.full = full;
        // A member without slots has no room ahead of time: full, it fails.
        for index in (0..DRIVES).filter(|index| self.world.bodies[*index] == Body::Slots) {
            self.world.faulty(index).set_full(full);
        }
    }

    /// False if the power went or the journal stopped.
    fn commit(&mut self) -> bool {
        let key = self.next_key();
        self.submitted.push(key);
        let expected = self.acknowledged + 1;
        let record = record(key, length(key));
        let gives_back = key.is_multiple_of(3);
        let journal = self.journal();
        let committed =
            if gives_back { journal.commit_reserved(record) } else { journal.commit(record) };
        match committed {
            Ok(position) => {
                assert_eq!(position.sequence, expected);
                self.acknowledged = expected;
                true
            }
            Err(error) if self.full && error.is(&codes::DRIVE_FULL) => {
                self.submitted.pop();
                true
            }
            Err(error) => {
                assert!(error.is(&codes::JOURNAL_MEMBERS), "{error}");
                false
            }
        }
    }

    /// Commits from 8 threads: the order is the journal's, so the keys are read back.
    fn burst(&mut self, each: u8) -> bool {
        let first = self.key + 1;
        let count = u64::from(each) * 8;
        self.key += count;
        let journal = Arc::new(self.journal.take().unwrap());
        let mut placed: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u64)
                .map(|thread| {
                    let journal = Arc::clone(&journal);
                    scope.spawn(move || {
                        let keys = (0..u64::from(each))
                            .map(|turn| first + thread * u64::from(each) + turn);
                        keys.map_while(|key| {
                            let position = journal.commit(record(key, length(key))).ok()?;
                            Some((position.sequence, key))
                        })
                        .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        self.journal = Arc::into_inner(journal);
        placed.sort_unstable();
        for (sequence, key) in &placed {
            assert_eq!(*sequence, self.acknowledged + 1, "acknowledged out of order");
            self.acknowledged = *sequence;
            self.submitted.push(*key);
        }
        let whole = placed.len() as u64 == count;
        if !whole {
            // What was under way may be there or not: up to 8 records, of any of the keys.
            self.submitted.extend(std::iter::repeat_n(0, 8));
        }
        whole
    }

    /// The journal holds what was acknowledged, and of the rest a beginning.
    fn check(&mut self, journal: &Journal) {
        let mut next = journal.first_sequence();
        assert!(next <= self.needed_from, "released {next}, needed {}", self.needed_from);
        let submitted = &self.submitted;
        let mut found = Vec::new();
        journal
            .replay(0, &mut |position, bytes| {
                assert_eq!(position.sequence, next);
                let expected = submitted[next as usize - 1];
                let key = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                assert!(expected == key || expected == 0, "record {next} is {key}");
                assert_eq!(bytes, record(key, bytes.len()));
                found.push((next, key));
                next += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(journal.last_sequence(), next - 1);
        assert!(next > self.acknowledged, "{next} follows, {} told", self.acknowledged);
        // What is found counts from now on; what is not found never happened.
        self.acknowledged = next - 1;
        for (sequence, key) in found {
            self.submitted[sequence as usize - 1] = key;
        }
        self.submitted.truncate(self.acknowledged as usize);
    }

    /// The machine comes back; `present` of the members do.
    fn restart(&mut self, present: &dyn Fn(usize) -> bool) {
        self.journal = None;
        self.failed.clear();
        self.full = false;
        self.world.restart();
        (0..DRIVES).for_each(|index| self.world.faulty(index).heal());
        let members = self.world.register.members();
        let some = members.iter().any(|index| present(*index));
        let (journal, recovery) = self.world.open_with(|index| !some || present(index)).unwrap();
        assert!(recovery.evicted.is_empty());
        self.check(&journal);
        self.journal = Some(journal);
        for alone in self.world.register.members() {
            let (journal, _) = self.world.open_read_only(|index| index == alone).unwrap();
            self.check(&journal);
        }
    }

    fn damage(&mut self, good: u8, seed: u64) {
        self.restart(&|_| true);
        self.journal.take().unwrap().close().unwrap();
        self.world.restart();
        let members = self.world.register.members();
        let good = members[good as usize % members.len()];
        let mut random = seed;
        for index in members.into_iter().filter(|index| *index != good) {
            hurt(&self.world.memories[index], &mut random);
        }
        let (journal, _) = self.world.open_read_only(|_| true).unwrap();
        self.check(&journal);
        self.restart(&|_| true);
    }

    fn take(&mut self, step: &Step) {
        let members = self.world.register.members();
        let pick = |number: u8| members[number as usize % members.len()];
        let well = match *step {
            Step::Commit(count) => (0..count).all(|_| self.commit()),
            Step::Burst(each) => {
                self.set_full(false);
                self.burst(each)
            }
            Step::Release(keep) => {
                let from = self.acknowledged.saturating_sub(u64::from(keep));
                self.needed_from = self.needed_from.max(from);
                self.journal().release(from).is_ok()
            }
            Step::Fail(drive, sync) if members.len() > 1 => {
                let calls = match (self.world.bodies[pick(drive)], sync) {
                    (Body::Slots, false) => Operation::WriteLog,
                    (Body::Slots, true) => Operation::SyncLog,
                    (Body::Blobs, false) => Operation::Put,
                    (Body::Blobs, true) => Operation::Sync,
                };
                let fault = Fault::new(Effect::Error(&codes::DRIVE_IO)).on(calls);
                self.set_full(false); // or the commit is refused before it meets the fault
                self.world.faulty(pick(drive)).inject(fault);
                self.failed.push(pick(drive));
                self.commit()
            }
            Step::Join(drive) => {
                let others: Vec<_> = (0..DRIVES).filter(|i| !members.contains(i)).collect();
                if others.is_empty() {
                    return;
                }
                let index = others[drive as usize % others.len()];
                if !self.failed.contains(&index) {
                    self.world.faulty(index).heal();
                }
                let join = || self.world.register.join(index);
                let joined = self.journal().add_member(self.world.member(index), &join);
                match joined {
                    Ok(()) => true,
                    Err(error) if error.is(&codes::DRIVE_FULL) => self.full,
                    Err(error) if error.is(&codes::DRIVE_FAILED) => self.failed.contains(&index),
                    Err(error) => panic!("join: {error}"),
                }
            }
            Step::Leave(drive) if members.len() > 1 => {
                let left = || self.world.register.begin(&others(&members, pick(drive))).map(drop);
                let _ = self.journal().remove_member(common::id(pick(drive)), &left);
                true
            }
            Step::Full(full) => {
                self.set_full(full);
                true
            }
            Step::Scrub => {
                let report = self.journal().scrub();
                report.is_err() || report.unwrap().lost_batches == 0
            }
            Step::Restart { cut_in, present } => {
                // Half of the cuts come in the middle of commits, the others while nothing is under way.
                if cut_in % 2 == 0 {
                    self.set_full(false);
                    self.world.power.cut_in(u64::from(cut_in) / 2 + 1);
                    while self.commit() {}
                }
                self.restart(&|index| present >> index & 1 == 1);
                true
            }
            Step::Damage { good, seed } => {
                self.damage(good, seed);
                true
            }
            Step::Fail(..) | Step::Leave(_) => true,
        };
        assert!(well, "{step:?} failed without a reason");
    }
}

fn others(members: &[usize], but: usize) -> Vec<usize> {
    members.iter().copied().filter(|index| *index != but).collect()
}

/// Flips, cuts short, empties, removes and exchanges files.
fn hurt(drive: &MemoryDrive, random: &mut u64) {
    let mut draw = |bound: usize| {
        *random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) as usize % bound.max(1)
    };
    let entries = drive.entries();
    for _ in 0..draw(6) {
        let entry = &entries[draw(entries.len())];
        let other = &entries[draw(entries.len())];
        let Some(mut bytes) = drive.raw(entry) else { continue };
        match draw(5) {
            0 => drive.set_raw(entry, None),
            1 => {
                bytes.truncate(draw(bytes.len() + 1));
                drive.set_raw(entry, Some(bytes));
            }
            2 => {
                let (a, b) = (drive.raw(entry), drive.raw(other));
                drive.set_raw(entry, b);
                drive.set_raw(other, a);
            }
            3 => {
                let from = draw(bytes.len());
                bytes[from..].fill(0);
                drive.set_raw(entry, Some(bytes));
            }
            _ => (0..draw(20)).for_each(|_| {
                let _ = drive.flip(entry, draw(bytes.len()), 1 << draw(8));
            }),
        }
    }
}

fn play(bodies: &[Body], options: Options, seed: u64, steps: &[Step]) {
    let mut history = History::new(bodies, options, seed);
    for step in steps {
        history.take(step);
    }
    history.restart(&|_| true);
}

fn cases() -> ProptestConfig {
    let cases = if std::env::var_os("DWK_LONG").is_some() { 5000 } else { 60 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_acknowledged_stays_in_order_and_whole(
        seed in any::<u64>(),
        spare_segments in 0usize..2,
        reserved_segments in 0usize..2,
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let options = Options { spare_segments, reserved_segments, ..small() };
        play(&[Body::Slots; DRIVES], options, seed, &steps);
    }

    #[test]
    fn what_is_acknowledged_stays_on_drives_of_both_kinds(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..25),
    ) {
        play(&[Body::Blobs, Body::Slots, Body::Blobs, Body::Slots], small(), seed, &steps);
    }
}
