//! Which rows of which shards a read takes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use dwk_base::Result;

use super::shard::whole_blocks;
use crate::Stripe;

/// A part of a read: bytes of one data shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) index: usize,
    pub(crate) range: Range<usize>,
    /// Where they go.
    pub(crate) to: usize,
}

/// Rows of a stripe, whole blocks, of which a read wants the same shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Band {
    pub(crate) rows: Range<usize>,
    pub(crate) wanted: Vec<usize>,
}

impl Part {
    /// What of it lies in these rows.
    pub(crate) fn within(&self, rows: &Range<usize>) -> Option<Self> {
        let (from, to) = (self.range.start.max(rows.start), self.range.end.min(rows.end));
        let moved = from.saturating_sub(self.range.start);
        (from < to).then(|| Self { index: self.index, range: from..to, to: self.to + moved })
    }
}

impl Band {
    /// The same shards, up to each multiple of `bytes`.
    pub(crate) fn steps(&self, bytes: usize) -> impl Iterator<Item = Self> {
        steps(&self.rows, bytes).map(|rows| Self { rows, wanted: self.wanted.clone() })
    }
}

/// A range, up to each multiple of `bytes`.
pub(crate) fn steps(
    range: &Range<usize>,
    bytes: usize,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let (start, end) = (range.start, range.end);
    let first = start / bytes * bytes;
    (first..end).step_by(bytes).map(move |at| at.max(start)..(at + bytes).min(end))
}

/// The parts of a read of `bytes` from `offset`.
pub(crate) fn parts(stripe: &Stripe, offset: usize, bytes: usize) -> Vec<Part> {
    let (shard, end) = (stripe.shard_bytes as usize, offset + bytes);
    if bytes == 0 {
        return Vec::new();
    }
    (offset / shard..end.div_ceil(shard))
        .map(|index| {
            let (from, to) = (offset.max(index * shard), end.min((index + 1) * shard));
            Part { index, range: from - index * shard..to - index * shard, to: from - offset }
        })
        .collect()
}

/// The rows of `parts`, from the first to the last.
pub(crate) fn bands(parts: &[Part], block_bytes: u32, shard_bytes: u32) -> Vec<Band> {
    let whole = |part: &Part| whole_blocks(&part.range, block_bytes, shard_bytes);
    let ends: BTreeSet<usize> =
        parts.iter().flat_map(|part| [whole(part).start, whole(part).end]).collect();
    let ends: Vec<usize> = ends.into_iter().collect();
    let band = |pair: &[usize]| {
        let rows = pair[0]..pair[1];
        let here = |part: &&Part| whole(part).start <= rows.start && rows.end <= whole(part).end;
        let wanted: Vec<usize> = parts.iter().filter(here).map(|part| part.index).collect();
        (!wanted.is_empty()).then_some(Band { rows, wanted })
    };
    ends.windows(2).filter_map(band).collect()
}

/// What is to be read of each shard for `bands`, each row once, if `reads` are the shards that a band takes.
///
/// # Errors
/// Those of `reads`.
pub(crate) fn ranges(
    bands: &[Band],
    reads: impl Fn(&Band) -> Result<Vec<usize>>,
) -> Result<Vec<(usize, Range<usize>)>> {
    let mut ranges: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
    for band in bands {
        for index in reads(band)? {
            let of = ranges.entry(index).or_default();
            match of.last_mut() {
                Some(last) if last.end == band.rows.start => last.end = band.rows.end,
                _ => of.push(band.rows.clone()),
            }
        }
    }
    let each = |(index, of): (usize, Vec<Range<usize>>)| of.into_iter().map(move |r| (index, r));
    Ok(ranges.into_iter().flat_map(each).collect())
}

#[cfg(test)]
mod tests {
    use dwk_base::{Epoch, StripeId};
    use proptest::prelude::*;

    use super::*;
    use crate::StripeCode;

    fn stripe(shard_bytes: u32) -> Stripe {
        Stripe {
            id: StripeId::from_u128(1),
            epoch: Epoch(1),
            code: StripeCode { matrix_id: 3, data: 4, parity: 2, local: 0 },
            shard_bytes,
            payload_bytes: 4 * shard_bytes,
            placement: vec![0, 1, 2, 3, 4, 5],
        }
    }

    #[test]
    fn from_the_middle_of_a_shard_to_the_middle_of_another_one_there_are_three_bands() {
        let parts = parts(&stripe(16384), 9000, 16384 * 2);
        let band = |rows, wanted: &[usize]| Band { rows, wanted: wanted.to_vec() };
        let bands = bands(&parts, 4096, 16384);
        // Block 2 is the end of the first shard's and the beginning of the last one's.
        let expected =
            [band(0..8192, &[1, 2]), band(8192..12288, &[0, 1, 2]), band(12288..16384, &[0, 1])];
        assert_eq!(bands, expected);
        let reads = |band: &Band| Ok(band.wanted.clone());
        let ranges = ranges(&bands, reads).unwrap();
        assert_eq!(ranges, [(0, 8192..16384), (1, 0..16384), (2, 0..12288)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_bands_of_a_read_hold_each_block_of_it_once_and_no_other(
            offset in 0usize..65_536,
            bytes in 0usize..65_536,
            block_bytes in prop::sample::select(vec![512u32, 4096, 8192, 65536]),
        ) {
            let bytes = bytes.min(65_536 - offset);
            let cut: Vec<_> = steps(&(offset..offset + bytes), 8192).collect();
            prop_assert_eq!(cut.iter().map(Range::len).sum::<usize>(), bytes);
            prop_assert!(cut.iter().all(|range| range.start / 8192 == (range.end - 1) / 8192));
            let parts = parts(&stripe(16384), offset, bytes);
            prop_assert_eq!(parts.iter().map(|part| part.range.len()).sum::<usize>(), bytes);
            let bands = bands(&parts, block_bytes, 16384);
            let block = (block_bytes as usize).min(16384);
            let mut blocks = BTreeSet::new();
            for band in &bands {
                for start in band.rows.clone().step_by(block) {
                    for index in &band.wanted {
                        prop_assert!(blocks.insert((*index, start / block)));
                    }
                }
            }
            let of = |at: usize| (at / 16384, at % 16384 / block);
            let expected: BTreeSet<_> = (offset..offset + bytes).map(of).collect();
            prop_assert_eq!(blocks, expected);
        }
    }
}
