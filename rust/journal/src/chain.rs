//! Which of the batches that were found are the log: pure, so that it can be tested without a drive.
//!
//! # The rule
//! The *tip* is the batch with the highest epoch, and in it with the highest number, on any copy. From it
//! the chain of hashes leads back to the first batch of the segment that the tip names as its floor.
//!
//! - A batch that is missing on the way has a valid successor: that is damage, and if no copy has it the
//!   log is refused, never cut.
//! - What has no valid successor on any copy was the tail: it was never acknowledged, because a batch is
//!   acknowledged when every member has it.
//! - Batches of an older epoch that are not on the way are a branch that was discarded, or what a slot held
//!   before: they do not count, however many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use dwk_base::Result;

use crate::format::{BatchHeader, FIRST_OFFSET, Hash, Stamp, damaged};
use crate::segment::{Mark, Segment};
use crate::shelf::{Found, Unit};

/// A place where a batch was found: which member, and in what.
pub(crate) type Source = (usize, Unit);

/// The log, as it follows from everything that was found.
pub(crate) struct Chain {
    pub tip: BatchHeader,
    pub segments: BTreeMap<u64, Arc<Segment>>,
    /// Where each batch of the log was found.
    pub sources: HashMap<Hash, Vec<Source>>,
}

/// No log counts so far: what goes on from any number below never overflows.
const NUMBERS_END: u64 = 1 << 62;

/// Finds the log in what each member holds.
///
/// # Errors
/// `journal.damaged`
pub(crate) fn choose(found: &[Vec<Found>]) -> Result<Chain> {
    let stamp = stamp(found)
        .ok_or_else(|| damaged("no present drive has a whole batch or header of the journal"))?;
    let mut batches: HashMap<Hash, BatchHeader> = HashMap::new();
    let mut sources: HashMap<Hash, Vec<Source>> = HashMap::new();
    for (member, units) in found.iter().enumerate() {
        for unit in units {
            for batch in unit.batches.iter().filter(|batch| batch.stamp == stamp) {
                sources.entry(batch.hash).or_default().push((member, unit.unit.clone()));
                batches.entry(batch.hash).or_insert_with(|| batch.clone());
            }
        }
    }
    let tip = batches.values().max_by_key(|batch| (batch.rank(), batch.hash)).cloned();
    let tip = tip.ok_or_else(|| damaged("no present drive has a whole batch of the journal"))?;
    let path = walk(&tip, &batches)?;
    let on_path: HashSet<Hash> = path.iter().map(|batch| batch.hash).collect();
    sources.retain(|hash, _| on_path.contains(hash));
    let segments = segments(&path);
    Ok(Chain { tip, segments, sources })
}

/// The log's own stamp: what most headers and first batches say. Those lie where no record ever did.
fn stamp(found: &[Vec<Found>]) -> Option<Stamp> {
    let mut votes: BTreeMap<Stamp, usize> = BTreeMap::new();
    for stamp in found.iter().flatten().flat_map(|unit| &unit.stamps) {
        *votes.entry(*stamp).or_default() += 1;
    }
    votes.into_iter().max_by_key(|(_, count)| *count).map(|(stamp, _)| stamp)
}

/// From the floor's first batch to the tip.
fn walk<'a>(
    tip: &'a BatchHeader,
    batches: &'a HashMap<Hash, BatchHeader>,
) -> Result<Vec<&'a BatchHeader>> {
    let mut path = vec![sound(tip)?];
    let mut at = tip;
    while at.segment > tip.floor || !Segment::begins_with(at) {
        let before = sound(batches.get(&at.previous).ok_or_else(|| missing(at))?)?;
        if !follows(before, at) {
            return Err(damaged(format!(
                "batch {} of the journal contradicts the one before",
                at.number
            ))
            .with("segment", at.segment)
            .with("batch", at.number));
        }
        path.push(before);
        at = before;
    }
    path.reverse();
    Ok(path)
}

/// A batch's hash says that it is as somebody wrote it, not that the journal did: its numbers must be such
/// that one can reckon with them.
fn sound(batch: &BatchHeader) -> Result<&BatchHeader> {
    let counts = |number: u64| (1..NUMBERS_END).contains(&number);
    let place = batch.offset >= FIRST_OFFSET
        && batch.offset.checked_add(batch.bytes).is_some_and(|end| end <= batch.segment_bytes);
    let numbers = counts(batch.number)
        && counts(batch.segment)
        && batch.first_sequence >= 1
        && counts(batch.next_sequence())
        && batch.floor <= batch.segment;
    if place && numbers {
        return Ok(batch);
    }
    let message = format!("batch {} of the journal contradicts itself", batch.number);
    Err(damaged(message).with("segment", batch.segment).with("batch", batch.number))
}

fn missing(successor: &BatchHeader) -> dwk_base::Error {
    let number = successor.number.saturating_sub(1);
    let message = format!(
        "batch {number} of the journal is damaged or missing on every present drive, and others follow it"
    );
    damaged(message).with("segment", successor.segment).with("batch", number)
}

fn follows(before: &BatchHeader, at: &BatchHeader) -> bool {
    let place = if before.segment == at.segment {
        before.end() == at.offset && before.segment_bytes == at.segment_bytes
    } else {
        before.segment + 1 == at.segment && Segment::begins_with(at)
    };
    place
        && before.number + 1 == at.number
        && before.next_sequence() == at.first_sequence
        && before.epoch <= at.epoch
}

fn segments(path: &[&BatchHeader]) -> BTreeMap<u64, Arc<Segment>> {
    let mut segments: BTreeMap<u64, Arc<Segment>> = BTreeMap::new();
    for batch in path {
        segments
            .entry(batch.segment)
            .or_insert_with(|| Arc::new(Segment::begin(batch)))
            .push(Mark::of(batch));
    }
    segments
}

/// Which of a member's units are the copy of which segment.
pub(crate) struct Assignment {
    pub keep: Vec<(u64, Unit)>,
    /// Left over from another time; some hold batches of the log.
    pub rest: Vec<Unit>,
    /// Left over, without any batch of the log.
    pub idle: Vec<Unit>,
}

/// Sorts a member's units. A slot is that of the segment which its first batch is of. Of several slots that hold
/// a part of one segment the fullest is kept, if its size is right; each blob is one batch, and kept if that is
/// part of the log.
pub(crate) fn assign(found: &[Found], chain: &Chain, slots: bool) -> Assignment {
    let mut candidates: Vec<(usize, u64, &Unit)> = Vec::new();
    for unit in found {
        let on_path =
            || unit.batches.iter().filter(|batch| chain.sources.contains_key(&batch.hash));
        // A slot is filled from its beginning: what lies behind may be left of an earlier use.
        let Some(first) = on_path().min_by_key(|batch| batch.offset) else { continue };
        let segment = first.segment;
        let count = on_path().filter(|batch| batch.segment == segment).count();
        let size = chain.segments.get(&segment).map(|segment| u64::from(segment.bytes));
        if !slots || size == Some(unit.unit.bytes) {
            candidates.push((count, segment, &unit.unit));
        }
    }
    candidates.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
    let mut taken = BTreeSet::new();
    let mut kept = BTreeSet::new();
    let mut keep = Vec::new();
    for (_, segment, unit) in candidates {
        if !slots || taken.insert(segment) {
            kept.insert(unit);
            keep.push((segment, unit.clone()));
        }
    }
    let left = found.iter().filter(|found| !kept.contains(&found.unit));
    let (rest, idle): (Vec<_>, Vec<_>) = left.partition(|found| {
        found.batches.iter().any(|batch| chain.sources.contains_key(&batch.hash))
    });
    let units = |found: Vec<&Found>| found.into_iter().map(|found| found.unit.clone()).collect();
    Assignment { keep, rest: units(rest), idle: units(idle) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Batch;
    use bytes::Bytes;
    use dwk_base::{Epoch, PoolId, codes};
    use dwk_drive::BlobName;

    /// A log of one record per batch, three batches per segment, as one copy sees it.
    fn log(epochs: &[u64], after: Option<&BatchHeader>) -> Vec<BatchHeader> {
        let mut batches: Vec<BatchHeader> = after.cloned().into_iter().collect();
        for epoch in epochs {
            let last = batches.last();
            let full = last.is_some_and(|last| last.offset > FIRST_OFFSET * 2);
            let header = BatchHeader {
                hash: [0; 32],
                bytes: 0,
                stamp: [1; 16],
                pool: PoolId::from_u128(1),
                epoch: Epoch(*epoch),
                number: last.map_or(1, |last| last.number + 1),
                segment: last.map_or(1, |last| last.segment + u64::from(full)),
                segment_bytes: 16384,
                offset: last.filter(|_| !full).map_or(FIRST_OFFSET, BatchHeader::end),
                count: 0,
                first_sequence: last.map_or(1, BatchHeader::next_sequence),
                floor: 1,
                previous: last.map_or([0; 32], |last| last.hash),
            };
            let record = Bytes::from(format!("{epoch}"));
            batches.push(Batch::build(header, &[record]).header);
        }
        batches.drain(..usize::from(after.is_some()));
        batches
    }

    /// A copy: each segment's batches in a slot of its own.
    fn copy(batches: &[BatchHeader]) -> Vec<Found> {
        let mut slots: BTreeMap<u64, Vec<BatchHeader>> = BTreeMap::new();
        for batch in batches {
            slots.entry(batch.segment).or_default().push(batch.clone());
        }
        let found = |(segment, batches): (u64, Vec<BatchHeader>)| Found {
            unit: Unit {
                name: BlobName::new(format!("journal.{segment:04}")).unwrap(),
                bytes: 16384,
            },
            stamps: vec![[1; 16]],
            batches,
        };
        slots.into_iter().map(found).collect()
    }

    fn tip(copies: &[Vec<Found>]) -> Hash {
        choose(copies).unwrap().tip.hash
    }

    #[test]
    fn the_longest_copy_of_the_highest_epoch_wins() {
        let log_a = log(&[1, 1, 1, 1, 1], None);
        assert_eq!(tip(&[copy(&log_a[..3]), copy(&log_a), copy(&[])]), log_a[4].hash);
        // A branch that went on under a higher epoch beats a longer one that did not.
        let branch = log(&[2], Some(&log_a[2]));
        let other = [&log_a[..3], &branch[..]].concat();
        let chain = choose(&[copy(&log_a), copy(&other)]).unwrap();
        assert_eq!(chain.tip.hash, branch[0].hash);
        assert!(!chain.sources.contains_key(&log_a[4].hash), "of the discarded branch");
        assert_eq!(chain.sources[&log_a[0].hash].len(), 2);
    }

    #[test]
    fn a_batch_that_one_copy_lacks_is_taken_from_another_and_one_that_all_lack_is_refused() {
        let log = log(&[1; 8], None);
        let without = |index: usize| {
            let mut batches = log.clone();
            batches.remove(index);
            copy(&batches)
        };
        for index in 0..7 {
            assert_eq!(tip(&[without(index), without((index + 1) % 7)]), log[7].hash);
            let refused = choose(&[without(index), without(index)]);
            assert!(refused.is_err_and(|error| error.is(&codes::JOURNAL_DAMAGED)), "{index}");
        }
        assert_eq!(tip(&[without(7)]), log[6].hash, "without a successor it is the tail");
    }

    #[test]
    fn batches_with_numbers_that_nobody_can_reckon_with_are_refused() {
        let good = log(&[1, 1], None);
        let next = log(&[1], Some(&good[1])).remove(0);
        let wrong = [
            BatchHeader { number: 0, ..next.clone() },
            BatchHeader { number: u64::MAX, ..next.clone() },
            BatchHeader { segment: 0, floor: 0, ..next.clone() },
            BatchHeader { segment: u64::MAX, ..next.clone() },
            BatchHeader { first_sequence: 0, ..next.clone() },
            BatchHeader { first_sequence: 0, count: 0, ..next.clone() },
            BatchHeader { first_sequence: u64::MAX, ..next.clone() },
            BatchHeader { first_sequence: u64::MAX - 1, ..next.clone() },
            BatchHeader { offset: 0, ..next.clone() },
            BatchHeader { offset: u32::MAX, ..next.clone() },
            BatchHeader { segment_bytes: 0, ..next.clone() },
            BatchHeader { floor: u64::MAX, ..next.clone() },
        ];
        for wrong in wrong {
            let wrong = BatchHeader { epoch: Epoch(2), hash: [7; 32], ..wrong };
            let after = BatchHeader { epoch: Epoch(3), previous: [7; 32], ..next.clone() };
            let as_tip = [&good[..], std::slice::from_ref(&wrong)].concat();
            let in_the_middle = [&as_tip[..], &[after]].concat();
            for batches in [as_tip, in_the_middle] {
                let refused = choose(&[copy(&batches)]);
                assert!(refused.is_err_and(|e| e.is(&codes::JOURNAL_DAMAGED)), "{wrong:?}");
            }
        }
    }

    #[test]
    fn a_log_that_could_not_be_gone_on_for_long_is_refused() {
        let first = log(&[1], None).remove(0);
        assert!(choose(&[copy(std::slice::from_ref(&first))]).is_ok());
        let last = u64::MAX - 2;
        for wrong in [
            BatchHeader { number: last, ..first.clone() },
            BatchHeader { segment: last, floor: last, ..first.clone() },
            BatchHeader { first_sequence: last, count: 1, ..first },
        ] {
            let refused = choose(&[copy(std::slice::from_ref(&wrong))]);
            assert!(refused.is_err_and(|e| e.is(&codes::JOURNAL_DAMAGED)), "{wrong:?}");
        }
    }

    #[test]
    fn batches_that_do_not_fit_each_other_are_refused() {
        let good = log(&[1, 1], None);
        let next = log(&[1], Some(&good[1])).remove(0);
        for wrong in [
            BatchHeader { number: 9, ..next.clone() },
            BatchHeader { first_sequence: 9, ..next.clone() },
            BatchHeader { offset: 4096 * 5, ..next },
        ] {
            let batches = [&good[..], &[wrong]].concat();
            assert!(choose(&[copy(&batches)]).is_err_and(|e| e.is(&codes::JOURNAL_DAMAGED)));
        }
        assert!(choose(&[vec![], vec![]]).is_err_and(|e| e.is(&codes::JOURNAL_DAMAGED)));
    }

    #[test]
    fn a_slot_that_is_used_again_is_its_new_segments_however_much_of_the_old_one_is_left_in_it() {
        let log = log(&[1; 4], None);
        let mut slots = copy(&log);
        // A copy of the first segment that was made elsewhere, before its own slot was used again.
        slots[1].batches.extend_from_slice(&log[1..3]);
        slots[1].batches.reverse();
        let chain = choose(std::slice::from_ref(&slots)).unwrap();
        let Assignment { mut keep, rest, idle } = assign(&slots, &chain, true);
        keep.sort();
        assert_eq!(keep, [(1, slots[0].unit.clone()), (2, slots[1].unit.clone())]);
        assert_eq!((rest, idle), (vec![], vec![]));
    }
}
