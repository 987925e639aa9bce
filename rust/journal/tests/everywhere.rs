//! Damage to every part of a small journal, on all members but one.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::collections::BTreeMap;

use common::{Body, World, length, record};
use dwk_drive::{Entry, MemoryDrive};
use dwk_journal::{Journal, Options};

/// What lay on a drive.
type Raw = BTreeMap<Entry, Vec<u8>>;

const BLOCK: usize = 4096;
const LAST: u64 = 14;

fn options() -> Options {
    Options {
        segment_bytes: 4 * BLOCK as u32,
        record_bytes_max: 3900,
        batch_bytes_max: 3900,
        ..common::small()
    }
}

fn raw(memory: &MemoryDrive) -> Raw {
    memory.entries().into_iter().map(|entry| (entry.clone(), memory.raw(&entry).unwrap())).collect()
}

fn put_back(memory: &MemoryDrive, raw: &Raw) {
    for entry in memory.entries() {
        memory.set_raw(&entry, None);
    }
    for (entry, bytes) in raw {
        memory.set_raw(entry, Some(bytes.clone()));
    }
}

fn commit(journal: &Journal, number: u64) {
    let length = length(number).min(3900);
    assert_eq!(journal.commit(record(number, length)).unwrap().sequence, number);
}

/// A log that used slots again, with what lay on the drives after each of its steps.
fn history(world: &World) -> Vec<Vec<Raw>> {
    let journal = world.create().unwrap();
    let mut states = Vec::new();
    let all = || world.memories.iter().map(raw).collect::<Vec<_>>();
    states.push(all());
    for number in 1..=10 {
        commit(&journal, number);
        if number == 5 {
            journal.release(5).unwrap();
        }
        states.push(all());
    }
    drop(journal);
    let (journal, _) = world.open().unwrap();
    states.push(all());
    for number in 11..=LAST {
        commit(&journal, number);
        states.push(all());
    }
    drop(journal);
    states
}

fn check(journal: &Journal, when: &str) {
    let mut next = journal.first_sequence();
    assert!(next <= 5, "{when}");
    journal
        .replay(0, &mut |position, bytes| {
            assert_eq!(position.sequence, next, "{when}");
            assert_eq!(bytes, record(next, length(next).min(3900)), "{when}");
            next += 1;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(next, LAST + 1, "{when}");
}

/// All ways in which a drive that held `now` can be wrong, one after the other.
fn wrongs(now: &Raw, before: &[&Raw], others: &[&Raw]) -> Vec<(String, Raw)> {
    let mut wrongs = Vec::new();
    let mut add = |what: String, change: &dyn Fn(&mut Raw)| {
        let mut raw = now.clone();
        change(&mut raw);
        if raw != *now {
            wrongs.push((what, raw));
        }
    };
    for (entry, bytes) in now {
        for at in (0..bytes.len()).step_by(BLOCK) {
            for byte in [0, 40, 50, 90, 100, 110, 130, 170, 4000] {
                add(format!("flip {entry:?} {at}+{byte}"), &|raw| {
                    raw.get_mut(entry).unwrap()[at + byte] ^= 4;
                });
            }
            add(format!("zero {entry:?} {at}"), &|raw| {
                raw.get_mut(entry).unwrap()[at..at + BLOCK].fill(0);
            });
            add(format!("zero from {entry:?} {at}"), &|raw| {
                raw.get_mut(entry).unwrap()[at..].fill(0);
            });
            add(format!("cut {entry:?} {at}"), &|raw| raw.get_mut(entry).unwrap().truncate(at));
            for (source, bytes) in others.iter().flat_map(|other| other.iter()) {
                if let Some(block) = bytes.get(at..at + BLOCK) {
                    add(format!("block {at} of {entry:?} from {source:?}"), &|raw| {
                        raw.get_mut(entry).unwrap()[at..at + BLOCK].copy_from_slice(block);
                    });
                }
            }
        }
        add(format!("remove {entry:?}"), &|raw| drop(raw.remove(entry)));
        add(format!("grow {entry:?}"), &|raw| raw.get_mut(entry).unwrap().extend([1; BLOCK]));
        for (other, bytes) in now {
            add(format!("{entry:?} as {other:?}"), &|raw| {
                drop(raw.insert(entry.clone(), bytes.clone()));
            });
        }
        for (age, old) in before.iter().enumerate() {
            add(format!("{entry:?} as it was {age}"), &|raw| match old.get(entry) {
                Some(bytes) => drop(raw.insert(entry.clone(), bytes.clone())),
                None => drop(raw.remove(entry)),
            });
        }
    }
    for (age, old) in before.iter().enumerate() {
        add(format!("all as it was {age}"), &|raw| raw.clone_from(old));
        add(format!("all of it and what was {age}"), &|raw| {
            for (entry, bytes) in *old {
                raw.entry(entry.clone()).or_insert_with(|| bytes.clone());
            }
        });
    }
    for (from, other) in others.iter().enumerate() {
        add(format!("all as {from}"), &|raw| raw.clone_from(other));
    }
    wrongs
}

fn open(world: &World, when: &str) {
    let (journal, _) = world.open_read_only(|_| true).unwrap_or_else(|e| panic!("{when}: {e}"));
    check(&journal, when);
    drop(journal);
    let (journal, recovery) = world.open().unwrap_or_else(|error| panic!("{when}: {error}"));
    assert!(recovery.evicted.is_empty(), "{when}: {recovery:?}");
    check(&journal, when);
    drop(journal);
    for alone in 0..world.memories.len() {
        let when = format!("{when}, then {alone} alone");
        let opened = world.open_read_only(|index| index == alone);
        let (journal, _) = opened.unwrap_or_else(|error| panic!("{when}: {error}"));
        check(&journal, &when);
    }
}

/// `stride`: of all damages only every so manieth is done.
fn everywhere(bodies: &[Body], stride: usize) {
    let world = World::new(bodies, bodies.len(), options(), 1);
    let states = history(&world);
    let now = states.last().unwrap().clone();
    for good in 0..bodies.len() {
        let bad: Vec<usize> = (0..bodies.len()).filter(|index| *index != good).collect();
        let lists: Vec<_> = bad
            .iter()
            .map(|index| {
                let before: Vec<&Raw> = states.iter().map(|state| &state[*index]).collect();
                let others: Vec<&Raw> =
                    (0..bodies.len()).filter(|i| i != index).map(|i| &now[i]).collect();
                wrongs(&now[*index], &before, &others)
            })
            .collect();
        let longest = lists.iter().map(Vec::len).max().unwrap();
        for turn in (good..longest).step_by(stride) {
            put_back(&world.memories[good], &now[good]);
            let mut damage = vec![format!("{good} is good")];
            for (nth, (index, list)) in bad.iter().zip(&lists).enumerate() {
                // The first pass has them equal, others shifted.
                let (what, raw) = &list[(turn * (1 + nth * 7)) % list.len()];
                put_back(&world.memories[*index], raw);
                damage.push(format!("{index}: {what}"));
            }
            open(&world, &damage.join("; "));
        }
    }
}

#[test]
fn damage_to_any_part_of_all_copies_but_one_costs_nothing() {
    let stride = if std::env::var_os("DWK_LONG").is_some() { 1 } else { 7 };
    for bodies in [[Body::Slots; 3], [Body::Blobs; 3], [Body::Slots, Body::Blobs, Body::Slots]] {
        everywhere(&bodies, stride);
    }
}
