//! Content on its way out: from the data shards, verified; from all of them where some are not well.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};
use dwk_drive::{Answer, BlobName, Drive};

use super::header::Header;
use super::landed::Landed;
use super::mending::{Got, Mending, agrees};
use super::rows::{Part, bands, parts, ranges, steps};
use super::shard::{Fetch, Piece, Reach, whole_blocks};
use super::{Shared, Space, header};
use crate::{State, Stripe};

/// Room for the headers that come with a read.
const HEADERS_BYTES: usize = 512 << 10;
/// A read asks for this part of the memory for reads while that is short.
const SCARCE: usize = 128;
/// Reads of at most this length are tried on the caller's own thread first.
const NOW_BYTES_MAX: usize = 256 << 10;

/// A read under way.
pub struct Reading {
    shared: Arc<Shared>,
    stripe: Arc<Stripe>,
    offset: usize,
    bytes: usize,
    /// `None` if there was no memory to read ahead.
    fetches: Option<Fetches>,
}

/// What the drives were asked for.
struct Fetches {
    /// By the rows where they begin, if not all that is wanted is among them.
    got: Got,
    is_partial: bool,
}

impl Space {
    /// Begins to read `bytes` of a stripe's content from `offset`; more of them may be under way at once.
    pub fn start_read(&self, stripe: &Stripe, offset: u32, bytes: u32) -> Reading {
        let (offset, bytes) = (offset as usize, bytes as usize);
        let stripe = Arc::new(stripe.clone());
        let shared = &self.shared;
        let right = in_stripe(&stripe, offset, bytes).is_ok();
        let parts = || parts(&stripe, offset, bytes);
        let fetches = right.then(parts).and_then(|parts| shared.start(&stripe, &parts));
        Reading { shared: Arc::clone(shared), stripe, offset, bytes, fetches }
    }

    /// A stripe's content from `offset`, if it lies in the page cache and is well: read on the caller's own
    /// thread without waiting for a device. `None` says nothing about it.
    pub fn read_now(&self, stripe: &Stripe, offset: u32, bytes: u32) -> Option<Landed> {
        let (shared, offset, bytes) = (&self.shared, offset as usize, bytes as usize);
        if bytes > NOW_BYTES_MAX {
            return None;
        }
        in_stripe(stripe, offset, bytes).ok()?;
        let mut buffer = shared.read_memory.try_take(bytes)?;
        let mut first = None;
        for part in parts(stripe, offset, bytes) {
            let into = &mut buffer.as_mut()[part.to..part.to + part.range.len()];
            let header = shared.read_now(stripe, &part, into).ok()??;
            if !agrees(&mut first, &header) {
                return None;
            }
        }
        Some(Landed::whole(buffer))
    }

    /// How much a read should ask for that wants `bytes`: less while others hold the memory for reads, so that any
    /// number of readers that take their time holds little more than that.
    pub fn read_bytes_now(&self, bytes: usize) -> usize {
        let memory = &self.shared.read_memory;
        let scarce = (memory.bytes_max() / SCARCE).max(self.shared.options.block_bytes as usize);
        let headers = (bytes / 4).min(HEADERS_BYTES);
        if memory.has_room(bytes + headers) { bytes } else { bytes.min(scarce) }
    }

    /// True if some of a stripe's content is, or may be, to be computed from the rest of it: who reads on through
    /// the stripe asks for all of it at once, so that nothing is read twice.
    pub fn is_impaired(&self, stripe: &Stripe) -> bool {
        let roster = self.shared.roster.load();
        let bytes = self.shared.window_bytes().min(stripe.shard_bytes as usize);
        let doubtful = |index: usize| {
            let seat = stripe.placement.get(index).and_then(|seat| roster.seat(*seat));
            seat.is_none_or(|seat| matches!(seat.state, State::Suspect | State::Stale))
                || self.shared.promptness(stripe, index, bytes) != Reach::Ready
        };
        self.shared.notes.knows(stripe.id) || (0..usize::from(stripe.code.data)).any(doubtful)
    }

    /// Fills `into` with a stripe's content from `offset`.
    ///
    /// # Errors
    /// `object.range` beyond the content; `data.corrupt` if more is lost than the code survives: what is
    /// in `into` is not to be used then.
    pub fn read(&self, stripe: &Stripe, offset: u32, into: &mut [u8]) -> Result<()> {
        let bytes = u32::try_from(into.len()).unwrap_or(u32::MAX);
        let landed = match self.read_now(stripe, offset, bytes) {
            Some(landed) => landed,
            None => self.start_read(stripe, offset, bytes).land(&Deadline::never())?,
        };
        landed.copy(into)
    }
}

fn in_stripe(stripe: &Stripe, offset: usize, bytes: usize) -> Result<()> {
    if stripe.shard_bytes > 0 && offset + bytes <= stripe.payload_bytes as usize {
        return Ok(());
    }
    let text = format!("{bytes} bytes from {offset} are not in stripe {}", stripe.id);
    Err(Error::new(&codes::OBJECT_RANGE, text).with("stripe", stripe.id))
}

impl Reading {
    /// False if nothing was asked for yet, since there was no memory.
    pub const fn is_under_way(&self) -> bool {
        self.fetches.is_some()
    }

    /// Waits for the content.
    ///
    /// # Errors
    /// Those of [`Space::read`], and `context.deadline`.
    pub fn land(mut self, deadline: &Deadline) -> Result<Landed> {
        in_stripe(&self.stripe, self.offset, self.bytes)?;
        let parts = parts(&self.stripe, self.offset, self.bytes);
        // If there was no memory to read ahead, perhaps there is now.
        let fetches = self.fetches.take().or_else(|| self.shared.start(&self.stripe, &parts));
        let Some(fetches) = fetches else { return self.land_with_little(&parts, deadline) };
        let mut got = fetches.got;
        if !fetches.is_partial {
            while let Some(fetch) = got.fetches.pop_front() {
                self.shared.land(&self.stripe, fetch, &mut got, deadline)?;
            }
            if let Some(slices) = got.all(&parts).filter(|_| got.agrees()) {
                return Ok(Landed::of(self.bytes, slices, false));
            }
        }
        // What was read is not read again, unless it is not to be trusted.
        let mut mending = self.mending(false, deadline);
        if got.agrees()
            && let Some(slices) = mending.all(&parts, got)?
        {
            return Ok(Landed::of(self.bytes, slices, mending.computed));
        }
        let slices = self.mending(true, deadline).all(&parts, Got::default())?;
        Ok(Landed::of(self.bytes, slices.ok_or_else(|| self.mixed())?, true))
    }

    /// Little by little.
    fn land_with_little(&self, parts: &[Part], deadline: &Deadline) -> Result<Landed> {
        let mut whole = self.shared.read_memory.take_anyway(self.bytes);
        for mixed in [false, true] {
            if self.mending(mixed, deadline).fill(parts, whole.as_mut())? {
                return Ok(Landed::whole(whole));
            }
        }
        Err(self.mixed())
    }

    fn mending<'a>(&'a self, mixed: bool, deadline: &'a Deadline) -> Mending<'a> {
        let (shared, stripe) = (&self.shared, &self.stripe);
        Mending { shared, stripe, deadline, mixed, table: None, computed: false }
    }

    fn mixed(&self) -> Error {
        let text = format!("the shards of stripe {} are of more than one stripe", self.stripe.id);
        Error::new(&codes::DATA_CORRUPT, text).with("stripe", self.stripe.id)
    }

    /// Waits, and fills `into`, which is as long as the read.
    ///
    /// # Errors
    /// `buffer.length`, and those of [`land`](Self::land).
    pub fn wait_into(self, into: &mut [u8], deadline: &Deadline) -> Result<()> {
        self.land(deadline)?.copy(into)
    }
}

impl Shared {
    /// Asks the drives for all that a read takes, if there is memory for it.
    fn start(self: &Arc<Self>, stripe: &Arc<Stripe>, parts: &[Part]) -> Option<Fetches> {
        let (takes, is_partial) = self.takes(stripe, parts);
        let buffer = |(_, range): &(usize, Range<usize>)| {
            self.read_memory.try_take(self.fetch_bytes(stripe, range))
        };
        let buffers: Option<Vec<_>> = takes.iter().map(buffer).collect();
        let mut got = Got::default();
        for ((index, range), buffer) in takes.into_iter().zip(buffers?) {
            self.pace.asked();
            got.fetches.extend(self.fetch(stripe, index, range, buffer, &got.bell));
        }
        if is_partial {
            for part in parts {
                got.late.extend(self.probe(stripe, part, &got));
            }
        }
        Some(Fetches { got, is_partial })
    }

    /// Asks a slow drive for a little of what is not waited for: so it is found out when it is slow no more. Not while
    /// it owes an answer.
    fn probe(self: &Arc<Self>, stripe: &Arc<Stripe>, part: &Part, got: &Got) -> Option<Fetch> {
        let seat = *stripe.placement.get(part.index)?;
        let is_asked = got.fetches.iter().any(|fetch| fetch.index == part.index);
        if is_asked || !self.pace.is_slow(seat) || self.owed.is_owing(seat) {
            return None;
        }
        let range = steps(&part.range, self.window_bytes()).next()?;
        let buffer = self.read_memory.try_take(self.fetch_bytes(stripe, &range))?;
        self.fetch(stripe, part.index, range, buffer, &got.bell)
    }

    /// What is to be read of each shard: the parts; or, if not all of their drives are to be asked, also what they
    /// are computed from, row by row. Slow drives are asked only where the others are not enough.
    pub(crate) fn takes(
        &self,
        stripe: &Stripe,
        parts: &[Part],
    ) -> (Vec<(usize, Range<usize>)>, bool) {
        let own = |part: &Part| (part.index, part.range.clone());
        let bytes = |part: &Part| part.range.len();
        let is_prompt =
            |part: &Part| self.promptness(stripe, part.index, bytes(part)) == Reach::Ready;
        if parts.iter().all(is_prompt) {
            return (parts.iter().map(own).collect(), false);
        }
        let longest = parts.iter().map(bytes).max().unwrap_or_default();
        let reach = |index: usize| self.promptness(stripe, index, longest);
        let reach: Vec<Reach> = (0..stripe.placement.len()).map(reach).collect();
        let bands = bands(parts, self.options.block_bytes, stripe.shard_bytes);
        let without = |good: &[Reach]| {
            let lost: Vec<usize> =
                (0..reach.len()).filter(|index| !good.contains(&reach[*index])).collect();
            let code = self.coding.stored(stripe.code);
            code.and_then(|code| ranges(&bands, |band| code.read_set(&lost, &band.wanted)))
        };
        let good = [Reach::Ready, Reach::Slow];
        let is_good = |part: &&Part| good.contains(&reach[part.index]);
        let proven = |part: &Part| {
            reach[part.index] != Reach::Slow
                || self.is_proven_slow(stripe, stripe.placement[part.index], bytes(part))
        };
        let prompt = without(&[Reach::Ready]).ok().filter(|prompt| {
            let more = prompt.len().saturating_sub(parts.len());
            more == 0 || parts.iter().all(proven) || self.pace.may_ask(more)
        });
        let all = prompt.map_or_else(|| without(&good), Ok);
        // If that is too little, who waits for it finds out.
        let all = all.unwrap_or_else(|_| parts.iter().filter(is_good).map(own).collect());
        let steps = |(index, range): (usize, Range<usize>)| {
            steps(&range, self.window_bytes()).map(move |range| (index, range))
        };
        let mut takes: Vec<_> = all.into_iter().flat_map(steps).collect();
        takes.sort_by_key(|(index, range)| (range.start, *index));
        (takes, true)
    }

    /// Waits for a shard until it is late, if others may do instead; else as long as a read may be late.
    pub(crate) fn land(
        &self,
        stripe: &Stripe,
        fetch: Fetch,
        got: &mut Got,
        deadline: &Deadline,
    ) -> Result<()> {
        let mut patience = self.patience(fetch.seat);
        loop {
            let hedge = self.hedge_in(stripe, &fetch).filter(|hedge| *hedge < patience);
            let answer = match hedge {
                Some(Duration::ZERO) => fetch.ticket.try_take().map_or(Answer::Late, Answer::Came),
                Some(hedge) => fetch.ticket.wait_briefly(hedge, deadline),
                None => fetch.ticket.wait_until(patience, deadline),
            };
            match (answer, hedge) {
                (Answer::Came(result), _) => return self.take(stripe, &fetch, result, got),
                (Answer::TimeOver, _) => {
                    return Err(Deadline::passed("a drive takes long to be read"));
                }
                (Answer::Late, None) => got.failed.push((fetch.index, None)),
                (Answer::Late, Some(Duration::ZERO)) => got.late.push(fetch),
                // It may have answered others meanwhile.
                (Answer::Late, Some(hedge)) => {
                    patience = patience.saturating_sub(hedge);
                    continue;
                }
            }
            return Ok(());
        }
    }

    /// Takes what a drive answered.
    pub(crate) fn take(
        &self,
        stripe: &Stripe,
        fetch: &Fetch,
        result: Result<Piece>,
        got: &mut Got,
    ) -> Result<()> {
        match result {
            Ok(piece) => got.pieces.push((fetch.index, Arc::new(piece))),
            // It says nothing about the shard, and the others cannot be opened either.
            Err(error) if error.is_of_process() => return Err(error),
            Err(error) => {
                self.note_failed_read(stripe, fetch.index, fetch.seat, &error);
                got.failed.push((fetch.index, Some(error)));
            }
        }
        Ok(())
    }

    /// Reads a part on the caller's own thread, and returns the header of its shard; `None` if that would
    /// wait. What is wrong with it, the reading that waits will find out.
    fn read_now(
        &self,
        stripe: &Stripe,
        part: &Part,
        into: &mut [u8],
    ) -> Result<Option<Arc<Header>>> {
        let roster = self.roster.load();
        let seat = stripe.placement.get(part.index).and_then(|seat| roster.seat(*seat));
        let Some(drive) = seat.and_then(|seat| seat.readable()) else { return Ok(None) };
        let name = header::name(stripe.id, part.index)?;
        let Some(header) = self.header_now(stripe, part.index, drive.drive(), &name)? else {
            return Ok(None);
        };
        let blocks = whole_blocks(&part.range, header.block_bytes, stripe.shard_bytes);
        let at = (header.bytes() + blocks.start) as u64;
        let first = blocks.start / header.block_bytes as usize;
        if blocks == part.range {
            let got = drive.drive().read_now(&name, at, into)?;
            let whole = got == Some(into.len()) && header.verify(first, into).is_ok();
            return Ok(whole.then_some(header));
        }
        let mut buffer = self.read_memory.take_anyway(blocks.len());
        let got = drive.drive().read_now(&name, at, buffer.as_mut())?;
        if got != Some(blocks.len()) || header.verify(first, buffer.as_ref()).is_err() {
            return Ok(None);
        }
        let from = part.range.start - blocks.start;
        into.copy_from_slice(&buffer.as_ref()[from..from + into.len()]);
        Ok(Some(header))
    }

    /// A shard's header, if it is known or lies in the page cache.
    fn header_now(
        &self,
        stripe: &Stripe,
        index: usize,
        drive: &dyn Drive,
        name: &BlobName,
    ) -> Result<Option<Arc<Header>>> {
        if let Some(header) = self.headers.get(stripe.id, index) {
            return Ok(Some(header));
        }
        let mut begin = vec![0; self.header_bytes(stripe)];
        if drive.read_now(name, 0, &mut begin)? != Some(begin.len())
            || header::length(&begin)? > begin.len()
        {
            return Ok(None);
        }
        let header = Arc::new(Header::decode(&begin)?);
        header.agree(self.pool, stripe, index)?;
        self.headers.put(Arc::clone(&header));
        Ok(Some(header))
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reading({} bytes of stripe {})", self.bytes, self.stripe.id)
    }
}
