//! Batches with a right hash that no journal wrote: whoever can write to the drives can make them. A log is
//! opened or refused with a code; nothing panics.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use common::{Body, World, commit_range, replayed, small};
use dwk_base::{Error, codes};
use dwk_chunk::blake3;
use dwk_drive::Entry;
use proptest::prelude::*;

/// Where a batch's fields lie, and how long they are.
const FIELDS: &[(usize, usize)] = &[
    (40, 2),
    (42, 2),
    (44, 4),
    (48, 16),
    (64, 16),
    (80, 8),
    (88, 8),
    (96, 8),
    (104, 4),
    (108, 4),
    (112, 4),
    (116, 8),
    (124, 8),
    (132, 32),
    (164, 4),
    (168, 8),
];

fn number() -> impl Strategy<Value = u64> {
    const BORDERS: &[u64] =
        &[0, 1, 4096, 8192, 65536, u32::MAX as u64 - 4095, u32::MAX as u64, u64::MAX - 1, u64::MAX];
    prop_oneof![3 => 0..30u64, 3 => prop::sample::select(BORDERS), 1 => any::<u64>()]
}

/// Gives the batch at `at` other numbers, and the hash that goes with them.
fn forge(bytes: &mut [u8], at: usize, changes: &[(usize, u64)]) {
    if bytes.get(at + 32..at + 40) != Some(b"DWKJBATC") {
        return;
    }
    for (field, value) in changes {
        let (from, length) = FIELDS[field % FIELDS.len()];
        for (index, byte) in bytes[at + from..at + from + length].iter_mut().enumerate() {
            *byte = value.to_le_bytes().get(index).copied().unwrap_or(0);
        }
    }
    let length = u32::from_le_bytes(bytes[at + 44..at + 48].try_into().unwrap()) as usize;
    if let Some(end) = at.checked_add(length).filter(|end| *end <= bytes.len() && length > 32) {
        let hash = blake3(&bytes[at + 32..end]);
        bytes[at..at + 32].copy_from_slice(&hash);
    }
}

fn is_coded(error: &Error) -> bool {
    let coded = [&codes::JOURNAL_DAMAGED, &codes::JOURNAL_EPOCH, &codes::FORMAT_DAMAGED];
    coded.iter().any(|code| error.is(code))
}

fn cases() -> ProptestConfig {
    let cases = if std::env::var_os("DWK_LONG").is_some() { 20_000 } else { 150 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn forged_batches_are_part_of_the_log_or_refused(
        forged in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec((0..16usize, number()), 1..3)),
            1..3,
        ),
        blobs in any::<bool>(),
        all in any::<bool>(),
    ) {
        let body = if blobs { Body::Blobs } else { Body::Slots };
        let world = World::new(&[body; 2], 2, small(), 1);
        let journal = world.create().unwrap();
        commit_range(&journal, 1..14).unwrap();
        journal.close().unwrap();
        drop(journal);
        for memory in world.memories.iter().take(if all { 2 } else { 1 }) {
            let entries: Vec<Entry> = memory.entries();
            let places: Vec<(Entry, usize)> = entries
                .into_iter()
                .flat_map(|entry| {
                    let bytes = memory.raw(&entry).unwrap();
                    let begins = |at: &usize| bytes.get(at + 32..at + 40) == Some(b"DWKJBATC");
                    let at: Vec<_> = (0..bytes.len()).step_by(4096).filter(begins).collect();
                    at.into_iter().map(move |at| (entry.clone(), at))
                })
                .collect();
            for (index, changes) in &forged {
                let (entry, at) = index.get(&places);
                let mut bytes = memory.raw(entry).unwrap();
                forge(&mut bytes, *at, changes);
                memory.set_raw(entry, Some(bytes));
            }
        }
        match world.open_read_only(|_| true) {
            Ok((journal, _)) => {
                let read = journal.replay(0, &mut |_, _| Ok(()));
                prop_assert!(read.as_ref().err().is_none_or(is_coded), "{read:?}");
            }
            Err(error) => prop_assert!(is_coded(&error), "{error}"),
        }
        match world.open() {
            Ok((journal, recovery)) => {
                let last = recovery.last_sequence;
                let position = journal.commit(common::record(99, 100));
                prop_assert!(position.is_ok_and(|position| position.sequence == last + 1));
                let _ = journal.scrub();
                if !all && recovery.last_sequence == 13 {
                    let _ = replayed(&journal, 0);
                }
            }
            Err(error) => prop_assert!(is_coded(&error), "{error}"),
        }
    }
}
