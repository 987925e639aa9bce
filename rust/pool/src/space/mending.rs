//! Reads of which not everything came: the rest from whatever shards there are.

use std::collections::VecDeque;
use std::sync::Arc;

use dwk_base::{Deadline, Error, Result, codes};
use dwk_drive::Bell;

use super::Shared;
use super::header::Header;
use super::landed::Slice;
use super::recover::Recovery;
use super::rows::{Band, Part, bands, steps};
use super::shard::{Fetch, Piece};
use crate::Stripe;

/// Rows up to each multiple of this are put together at a time: what is read beyond what was asked for takes no more
/// memory, and the next ones are on their way meanwhile.
const WINDOW_BYTES: usize = 1 << 20;

/// What the drives gave of a stripe.
#[derive(Default)]
pub(crate) struct Got {
    /// Not answered yet.
    pub(crate) fetches: VecDeque<Fetch>,
    /// Neither, and by drives that are late: who needs these looks for another way as well.
    pub(crate) late: Vec<Fetch>,
    /// Rings for each answer.
    pub(crate) bell: Arc<Bell>,
    pub(crate) pieces: Vec<(usize, Arc<Piece>)>,
    /// Shards that were asked for in vain, with the reason where it is known.
    pub(crate) failed: Vec<(usize, Option<Error>)>,
}

/// Puts reads of one stripe together.
pub(crate) struct Mending<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) stripe: &'a Arc<Stripe>,
    pub(crate) deadline: &'a Deadline,
    /// Trusts no shard without its fellows: all of them are read, and the most count.
    pub(crate) mixed: bool,
    /// What the first shard that counts says of all of them.
    pub(crate) table: Option<Arc<Header>>,
    /// Something was computed.
    pub(crate) computed: bool,
}

/// True if a shard says the same of all shards as the first one, which it may be.
pub(crate) fn agrees(table: &mut Option<Arc<Header>>, header: &Arc<Header>) -> bool {
    table.get_or_insert_with(|| Arc::clone(header)).shard_checks == header.shard_checks
}

impl Got {
    /// True if all that came is of one stripe.
    pub(crate) fn agrees(&self) -> bool {
        let mut table = None;
        self.pieces.iter().all(|(_, piece)| agrees(&mut table, &piece.header))
    }

    /// All of `parts`, if they came.
    pub(crate) fn all(&self, parts: &[Part]) -> Option<Vec<Slice>> {
        let found = |part: &Part| {
            let covers = |(index, piece): &&(usize, Arc<Piece>)| {
                *index == part.index && piece.covers(&part.range)
            };
            self.pieces.iter().find(covers).map(|(_, piece)| Slice::of_piece(part, piece))
        };
        parts.iter().map(found).collect()
    }
}

impl Shared {
    /// How many rows are put together at a time.
    pub(crate) fn window_bytes(&self) -> usize {
        WINDOW_BYTES.max(self.options.block_bytes as usize)
    }
}

impl Mending<'_> {
    /// All of `parts`. `None` if the shards that were read are of more than one stripe.
    ///
    /// # Errors
    /// `data.corrupt` if too much is lost; `context.deadline`
    pub(crate) fn all(&mut self, parts: &[Part], mut got: Got) -> Result<Option<Vec<Slice>>> {
        let block_bytes = self.shared.options.block_bytes;
        let mut slices = Vec::new();
        for band in bands(parts, block_bytes, self.stripe.shard_bytes) {
            for band in band.steps(self.shared.window_bytes()) {
                let came = self.take(&mut got, band.rows.end)?;
                if !came || !self.band(parts, &band, &mut got, &mut slices)? {
                    return Ok(None);
                }
                got.pieces.retain(|(_, piece)| piece.end() > band.rows.end);
                got.late.retain(|fetch| fetch.range.end > band.rows.end);
            }
        }
        Ok(Some(slices))
    }

    /// Waits for what begins before the row `end`. False if not all of it is of the same stripe.
    fn take(&mut self, got: &mut Got, end: usize) -> Result<bool> {
        let mut is_same = true;
        while let Some(fetch) = got.fetches.pop_front_if(|fetch| fetch.range.start < end) {
            let before = got.pieces.len();
            self.shared.land(self.stripe, fetch, got, self.deadline)?;
            let came = &got.pieces[before..];
            is_same &= came.iter().all(|(_, piece)| agrees(&mut self.table, &piece.header));
        }
        Ok(is_same)
    }

    fn band(
        &mut self,
        parts: &[Part],
        band: &Band,
        got: &mut Got,
        slices: &mut Vec<Slice>,
    ) -> Result<bool> {
        let block = self.shared.options.block_bytes as usize;
        match self.rows(parts, band, got, slices) {
            Err(error) if error.is(&codes::DATA_CORRUPT) && band.rows.len() > block => {}
            done => return done,
        }
        // Shards that are damaged in different blocks help each other out.
        for band in band.steps(block) {
            if !self.rows(parts, &band, &mut Got::default(), slices)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn rows(
        &mut self,
        parts: &[Part],
        band: &Band,
        got: &mut Got,
        slices: &mut Vec<Slice>,
    ) -> Result<bool> {
        let rows = band.rows.clone();
        let recovery = Recovery::new(self.shared, self.stripe, rows.clone())?.until(self.deadline);
        let mut recovery = recovery.having(&got.pieces).without(&got.failed);
        if self.mixed {
            recovery = recovery.expecting(self.table.clone());
            recovery.read(&(0..recovery.code().shards()).collect::<Vec<_>>())?;
            recovery.gather(&band.wanted)?;
        } else {
            recovery.race(&band.wanted, got)?;
        }
        if !recovery.have.values().all(|piece| agrees(&mut self.table, &piece.header)) {
            return Ok(false);
        }
        let lost = band.wanted.iter().filter(|index| !recovery.have.contains_key(index));
        let buffer = |index: &usize| (*index, self.shared.read_memory.take_anyway(rows.len()));
        let mut computed: Vec<_> = lost.map(buffer).collect();
        if !computed.is_empty() {
            self.computed = true;
            let targets = computed.iter_mut().map(|(index, buffer)| (*index, buffer.as_mut()));
            recovery.compute(targets.collect())?;
        }
        let computed: Vec<_> =
            computed.into_iter().map(|(index, buffer)| (index, Arc::new(buffer))).collect();
        for part in parts.iter().filter_map(|part| part.within(&rows)) {
            slices.push(match computed.iter().find(|(index, _)| *index == part.index) {
                Some((_, buffer)) => Slice::of_buffer(&part, buffer, part.range.start - rows.start),
                None => Slice::of_piece(&part, &recovery.have[&part.index]),
            });
        }
        Ok(true)
    }

    /// Fills `into` with `parts`, with as little memory as can be. False if the shards that were read are of more
    /// than one stripe.
    ///
    /// # Errors
    /// Those of [`all`](Self::all).
    pub(crate) fn fill(&mut self, parts: &[Part], into: &mut [u8]) -> Result<bool> {
        for part in parts {
            for rows in steps(&part.range, WINDOW_BYTES) {
                let Some(some) = part.within(&rows) else { continue };
                let Some(slices) = self.all(&[some], Got::default())? else { return Ok(false) };
                for slice in slices {
                    slice.copy(into);
                }
            }
        }
        Ok(true)
    }
}
