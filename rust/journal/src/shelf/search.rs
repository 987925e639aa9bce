//! Finds the batches in a slot, which may be damaged anywhere, or hold what is left of an earlier use.

use std::ops::Range;

use dwk_base::{PoolId, Result};
use dwk_drive::Log;

use super::{Unit, is_damage};
use crate::format::{BLOCK, BatchHeader, FIRST_OFFSET};

/// How much of a slot is read at a time. All members are read at once, so what all of them hold counts.
pub(super) const WINDOW_BYTES: usize = 1 << 20;
/// Where a window cannot be read at once, it is read in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;
/// No slot is longer: `Options::check` says so. What somebody else made longer is looked at as far.
const SLOT_BYTES_MAX: u64 = 1 << 30;
/// What a slot's damaged places may cost to search, as a multiple of its size: who can write to the drive
/// could otherwise make every block claim to be a long batch.
const SEARCH_FACTOR: u64 = 8;

/// A slot's bytes from the first to the last, of which no more is held than a window, or the batch that is
/// looked at. Zeroes where the device cannot give them.
pub(super) struct Window<'a> {
    log: &'a dyn Log,
    unit: &'a Unit,
    /// Where the slot ends.
    end: u64,
    step: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(log: &'a dyn Log, unit: &'a Unit, step: usize) -> Self {
        let end = unit.bytes.min(SLOT_BYTES_MAX);
        Self { log, unit, end, step, start: 0, bytes: Vec::new() }
    }

    /// The `length` bytes at `at`, or fewer at the slot's end. Never goes back behind an earlier `at`.
    ///
    /// # Errors
    /// What reading fails with, but for damage.
    pub(super) fn at(&mut self, at: u64, length: usize) -> Result<&[u8]> {
        let left = self.end.saturating_sub(at);
        let length = left.min(length as u64) as usize;
        debug_assert!(at >= self.start, "a window goes forward");
        let mut skipped = (at - self.start) as usize;
        if skipped + length > self.bytes.len() {
            let held = skipped.min(self.bytes.len());
            self.bytes.drain(..held);
            (self.start, skipped) = (at, 0);
            let end = left.min(length.max(self.step) as u64) as usize;
            self.read(end)?;
        }
        Ok(&self.bytes[skipped..skipped + length])
    }

    /// Reads on until `end` bytes are held.
    fn read(&mut self, end: usize) -> Result<()> {
        let held = self.bytes.len();
        self.bytes.resize(end, 0);
        let from = self.start + held as u64;
        if self.fill(from, held..end)? {
            return Ok(());
        }
        let to_piece = PIECE_BYTES - (from % PIECE_BYTES as u64) as usize;
        let mut piece = held..(held + to_piece).min(end);
        while !piece.is_empty() {
            if !self.fill(self.start + piece.start as u64, piece.clone())? {
                self.bytes[piece.clone()].fill(0);
            }
            piece = piece.end..(piece.end + PIECE_BYTES).min(end);
        }
        Ok(())
    }

    /// Reads into a part of what is held; false where the device cannot give it.
    fn fill(&mut self, from: u64, part: Range<usize>) -> Result<bool> {
        match self.log.read_log(&self.unit.name, from, &mut self.bytes[part]) {
            Err(error) if is_damage(&error) => Ok(false),
            done => done.map(|()| true),
        }
    }
}

/// Every whole batch that lies where it says. Looks at each block, because damage or an older use of the
/// slot may lie between two of them.
///
/// # Errors
/// What reading fails with, but for damage.
pub(super) fn search(window: &mut Window<'_>, pool: PoolId) -> Result<Vec<BatchHeader>> {
    let end = window.end;
    let mut found = Vec::new();
    let mut budget = end * SEARCH_FACTOR;
    let mut at = u64::from(FIRST_OFFSET);
    while at + BLOCK as u64 <= end {
        let claimed = BatchHeader::peek(window.at(at, BLOCK)?)
            .filter(|header| header.pool == pool && u64::from(header.offset) == at);
        let Some(claimed) = claimed else {
            at += BLOCK as u64;
            continue;
        };
        let bytes = u64::from(claimed.bytes);
        if bytes > budget {
            break;
        }
        // One that says it goes on behind the slot's end is not read.
        let whole = if at + bytes <= end { window.at(at, claimed.bytes as usize)? } else { &[] };
        if let Some(header) = BatchHeader::parse(whole) {
            at += bytes;
            found.push(header);
        } else {
            budget -= bytes;
            at += BLOCK as u64;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use dwk_base::{Epoch, Error, codes};
    use dwk_drive::{BlobInfo, BlobName};
    use proptest::prelude::*;

    use super::*;
    use crate::format::Batch;

    /// A log of which some blocks cannot be read.
    struct Worn {
        bytes: Vec<u8>,
        bad: Vec<usize>,
        longest_read: Mutex<usize>,
    }

    impl Log for Worn {
        fn read_log(&self, _: &BlobName, offset: u64, into: &mut [u8]) -> Result<()> {
            let part = offset as usize..offset as usize + into.len();
            let mut longest = self.longest_read.lock().unwrap();
            *longest = into.len().max(*longest);
            if self.bad.iter().any(|block| part.contains(&(block * BLOCK))) {
                into.fill(0x5a);
                return Err(Error::new(&codes::DRIVE_IO, "a bad place"));
            }
            let Some(bytes) = self.bytes.get(part) else {
                return Err(Error::new(&codes::BUFFER_LENGTH, "past the end"));
            };
            into.copy_from_slice(bytes);
            Ok(())
        }

        fn create_log(&self, _: &BlobName, _: u64) -> Result<()> {
            unreachable!()
        }

        fn write_log(&self, _: &BlobName, _: u64, _: &[Bytes]) -> Result<()> {
            unreachable!()
        }

        fn sync_log(&self, _: &BlobName, _: &'static str) -> Result<()> {
            unreachable!()
        }

        fn list_logs(&self) -> Result<Vec<BlobInfo>> {
            unreachable!()
        }

        fn delete_log(&self, _: &BlobName) -> Result<()> {
            unreachable!()
        }
    }

    fn pool() -> PoolId {
        PoolId::from_u128(1)
    }

    fn batch(offset: usize, blocks: usize) -> Batch {
        let header = BatchHeader {
            hash: [0; 32],
            bytes: 0,
            stamp: [3; 16],
            pool: pool(),
            epoch: Epoch(4),
            number: 5,
            segment: 6,
            segment_bytes: 1 << 20,
            offset: offset as u32,
            count: 0,
            first_sequence: 7,
            floor: 2,
            previous: [9; 32],
        };
        Batch::build(header, &[Bytes::from(vec![7; blocks * BLOCK - 1000])])
    }

    /// What is written over a slot, in this order: (block, how many blocks, whether it is junk).
    type Writes = Vec<(usize, usize, bool)>;

    const BLOCKS: usize = 64;

    fn slot(writes: &Writes) -> Vec<u8> {
        let mut bytes = vec![0; BLOCKS * BLOCK];
        for &(block, blocks, is_junk) in writes {
            let blocks = blocks.min(BLOCKS - block);
            let batch = batch(block * BLOCK, blocks).bytes;
            let into = &mut bytes[block * BLOCK..][..batch.len()];
            if is_junk { into.fill(0xa5) } else { into.copy_from_slice(&batch) }
        }
        bytes
    }

    fn searched(
        bytes: Vec<u8>,
        unit_bytes: u64,
        bad: &[usize],
        step: usize,
    ) -> (Vec<BatchHeader>, usize) {
        let unit = Unit { name: BlobName::new("journal.0000").unwrap(), bytes: unit_bytes };
        let log = Worn { bytes, bad: bad.to_vec(), longest_read: Mutex::new(0) };
        let found = search(&mut Window::new(&log, &unit, step), pool()).unwrap();
        (found, log.longest_read.into_inner().unwrap())
    }

    /// The same with all bytes at hand.
    fn twin(bytes: &[u8]) -> Vec<BatchHeader> {
        let mut found = Vec::new();
        let mut budget = bytes.len() as u64 * SEARCH_FACTOR;
        let mut at = FIRST_OFFSET as usize;
        while at + BLOCK <= bytes.len() {
            let claimed = BatchHeader::peek(&bytes[at..])
                .filter(|header| header.pool == pool() && header.offset as usize == at);
            let claimed = claimed.map_or(0, |claimed| u64::from(claimed.bytes));
            if claimed > budget {
                break;
            }
            if let Some(header) = BatchHeader::parse(&bytes[at..]).filter(|_| claimed > 0) {
                at += header.bytes as usize;
                found.push(header);
            } else {
                budget -= claimed;
                at += BLOCK;
            }
        }
        found
    }

    fn writes() -> impl Strategy<Value = Writes> {
        prop::collection::vec((1..BLOCKS, 1..20_usize, prop::bool::weighted(0.2)), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn windows_of_any_size_find_what_the_whole_holds(writes in writes(), step in 1..BLOCKS) {
            let bytes = slot(&writes);
            let found = searched(bytes.clone(), bytes.len() as u64, &[], step * BLOCK).0;
            prop_assert_eq!(found, twin(&bytes));
        }

        #[test]
        fn a_place_that_cannot_be_read_costs_what_lies_on_its_piece_only(
            sizes in prop::collection::vec(1..12_usize, 1..20),
            bad in prop::collection::vec(0..BLOCKS, 0..3),
            step in 1..BLOCKS,
        ) {
            let ends = sizes.iter().scan(1, |at, size| { *at += size; Some((*at - size, *size)) });
            let writes: Writes = ends
                .take_while(|(at, size)| at + size <= BLOCKS)
                .map(|(at, size)| (at, size, false))
                .collect();
            let bytes = slot(&writes);
            let unit_bytes = bytes.len() as u64;
            let found = searched(bytes, unit_bytes, &bad, step * BLOCK).0;
            let found: Vec<usize> = found.iter().map(|one| one.offset as usize / BLOCK).collect();
            let piece = PIECE_BYTES / BLOCK;
            for (at, size, _) in writes {
                let (first, last) = (at, at + size - 1);
                if bad.iter().any(|block| (first..=last).contains(block)) {
                    prop_assert!(!found.contains(&at));
                } else if bad.iter().all(|b| b / piece < first / piece || b / piece > last / piece) {
                    prop_assert!(found.contains(&at));
                }
            }
        }
    }

    #[test]
    fn no_more_is_read_at_once_than_a_window_or_what_one_batch_lacks() {
        let step = 2 * BLOCK;
        let bytes = slot(&vec![(1, 1, false), (2, 9, false), (11, 1, false)]);
        let unit_bytes = bytes.len() as u64;
        let (found, longest) = searched(bytes, unit_bytes, &[], step);
        assert_eq!(found.len(), 3);
        assert!((2 * BLOCK..=9 * BLOCK).contains(&longest), "{longest}");
        let (found, longest) = searched(slot(&vec![(1, 1, false)]), unit_bytes, &[], step);
        assert_eq!((found.len(), longest), (1, step));
    }

    #[test]
    fn a_slot_that_was_cut_short_keeps_what_lies_before_the_cut() {
        let mut bytes = slot(&vec![(1, 1, false), (2, 3, false), (40, 2, false)]);
        let unit_bytes = bytes.len() as u64;
        bytes.truncate(41 * BLOCK);
        let (found, _) = searched(bytes, unit_bytes, &[], 64 * BLOCK);
        assert_eq!(found.iter().map(|one| one.offset as usize / BLOCK).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn what_cannot_be_read_is_zeroes() {
        let unit = Unit { name: BlobName::new("journal.0000").unwrap(), bytes: 65536 };
        let bytes = vec![0xa5; 65536];
        let log = Worn { bytes, bad: vec![3], longest_read: Mutex::new(0) };
        let mut window = Window::new(&log, &unit, 65536);
        assert_eq!(window.at(0, BLOCK).unwrap(), [0; BLOCK]);
        assert_eq!(window.at(65536 - 10, BLOCK).unwrap(), [0; 10]);
        assert_eq!(window.at(70000, BLOCK).unwrap(), []);
    }

    #[test]
    fn a_slot_that_says_it_is_longer_than_any_is_looked_at_no_further() {
        let unit = Unit { name: BlobName::new("journal.0000").unwrap(), bytes: u64::MAX };
        let log = Worn { bytes: Vec::new(), bad: Vec::new(), longest_read: Mutex::new(0) };
        let mut window = Window::new(&log, &unit, BLOCK);
        assert_eq!(window.at((1 << 30) - 1, BLOCK).unwrap(), [0]);
        assert_eq!(window.at(1 << 30, BLOCK).unwrap(), []);
        // Nor do the sums overflow.
        assert_eq!(search(&mut Window::new(&log, &unit, 1 << 24), pool()).unwrap(), []);
    }

    #[test]
    fn blocks_that_all_claim_to_be_long_batches_end_the_search() {
        let lying = |blocks: std::ops::Range<usize>| {
            let mut bytes = slot(&vec![(BLOCKS - 1, 1, false)]);
            for block in blocks {
                let mut liar = batch(block * BLOCK, BLOCKS - block).bytes.to_vec();
                liar[199] ^= 1;
                bytes[block * BLOCK..][..200].copy_from_slice(&liar[..200]);
            }
            let unit_bytes = bytes.len() as u64;
            searched(bytes, unit_bytes, &[], BLOCK).0.len()
        };
        assert_eq!(lying(1..2), 1);
        assert_eq!(lying(1..BLOCKS - 1), 0);
    }

    #[test]
    fn one_that_would_end_behind_the_slot_is_not_read() {
        let mut bytes = slot(&vec![(5, 2, false)]);
        let liar = batch(BLOCK, BLOCKS).bytes;
        bytes[BLOCK..2 * BLOCK].copy_from_slice(&liar[..BLOCK]);
        let unit_bytes = bytes.len() as u64;
        let (found, longest) = searched(bytes, unit_bytes, &[], 2 * BLOCK);
        assert_eq!((found.len(), longest), (1, 2 * BLOCK));
    }
}
