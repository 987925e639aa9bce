//! Content on its way out: from the data shards, verified; from all of them where some are not well.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use dwk_base::{Deadline, Error, Pour, Result, codes};
use dwk_drive::{Answer, BlobName, Drive};

use super::buffers::Buffer;
use super::header::Header;
use super::recover::Recovery;
use super::shard::{Fetch, Piece, Reach, whole_blocks};
use super::{Shared, Space, header};
use crate::Stripe;

/// Recovery works on so many bytes of each shard at a time.
const WINDOW_BYTES: usize = 1 << 20;
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
    /// By data shard, in order; empty if there was no memory to read ahead.
    fetches: Vec<Option<Fetch>>,
}

/// What a read gave: verified, to be looked at in parts. It holds the memory that it was read into.
pub struct Landed {
    bytes: usize,
    content: Content,
}

enum Content {
    /// As the shards were read, in order.
    Pieces(Vec<(Part, Arc<Piece>)>),
    /// As a whole.
    Whole(Buffer),
}

/// A part of a read: bytes of one data shard.
#[derive(Clone, Debug)]
struct Part {
    index: usize,
    range: Range<usize>,
    /// Where they go.
    to: usize,
}

/// What a read still lacks.
struct Lost<'a> {
    parts: &'a [Part],
    /// Shards of which a part was read.
    have: &'a [(usize, Arc<Piece>)],
    /// Trust none without its fellows.
    mixed: bool,
}

impl Space {
    /// Begins to read `bytes` of a stripe's content from `offset`; more of them may be under way at once.
    pub fn start_read(&self, stripe: &Stripe, offset: u32, bytes: u32) -> Reading {
        let (offset, bytes) = (offset as usize, bytes as usize);
        let stripe = Arc::new(stripe.clone());
        let shared = &self.shared;
        let fetches = if in_stripe(&stripe, offset, bytes).is_ok() {
            shared.start_parts(&stripe, &parts(&stripe, offset, bytes))
        } else {
            Vec::new()
        };
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
        let mut first: Option<Arc<Header>> = None;
        for part in parts(stripe, offset, bytes) {
            let into = &mut buffer.as_mut()[part.to..part.to + part.range.len()];
            let header = shared.read_now(stripe, &part, into).ok()??;
            if !agrees(&mut first, &header) {
                return None;
            }
        }
        Some(Landed { bytes, content: Content::Whole(buffer) })
    }

    /// How much a read should ask for that wants `bytes`: less while others hold the memory for reads, so that any
    /// number of readers that take their time holds little more than that.
    pub fn read_bytes_now(&self, bytes: usize) -> usize {
        let memory = &self.shared.read_memory;
        let scarce = (memory.bytes_max() / SCARCE).max(self.shared.options.block_bytes as usize);
        // With the headers.
        if memory.has_room(bytes + bytes / 4) { bytes } else { bytes.min(scarce) }
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

/// The parts of a read of `bytes` from `offset`.
fn parts(stripe: &Stripe, offset: usize, bytes: usize) -> Vec<Part> {
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

fn in_stripe(stripe: &Stripe, offset: usize, bytes: usize) -> Result<()> {
    if stripe.shard_bytes > 0 && offset + bytes <= stripe.payload_bytes as usize {
        return Ok(());
    }
    let text = format!("{bytes} bytes from {offset} are not in stripe {}", stripe.id);
    Err(Error::new(&codes::OBJECT_RANGE, text).with("stripe", stripe.id))
}

/// True if a shard says the same of all shards as the first one that was read, which it may be.
fn agrees(table: &mut Option<Arc<Header>>, header: &Arc<Header>) -> bool {
    table.get_or_insert_with(|| Arc::clone(header)).shard_checks == header.shard_checks
}

impl Reading {
    /// Waits for the content.
    ///
    /// # Errors
    /// Those of [`Space::read`], and `context.deadline`.
    pub fn land(mut self, deadline: &Deadline) -> Result<Landed> {
        in_stripe(&self.stripe, self.offset, self.bytes)?;
        let (parts, bytes) = (parts(&self.stripe, self.offset, self.bytes), self.bytes);
        if self.fetches.is_empty() {
            // There was no memory to read ahead; perhaps there is now.
            self.fetches = self.shared.start_parts(&self.stripe, &parts);
        }
        if self.fetches.is_empty() {
            let mut whole = self.shared.read_memory.take_anyway(bytes);
            self.read_piecewise(&parts, whole.as_mut(), deadline)?;
            return Ok(Landed { bytes, content: Content::Whole(whole) });
        }
        let mut table = None;
        let (mut pieces, mut missing, mut mixed) = (Vec::new(), Vec::new(), false);
        for (part, fetch) in parts.iter().zip(std::mem::take(&mut self.fetches)) {
            let piece = match fetch {
                Some(fetch) => self.shared.land(&self.stripe, &fetch, deadline)?,
                None => None,
            };
            let Some(piece) = piece else {
                missing.push(part.clone());
                continue;
            };
            mixed |= !agrees(&mut table, &piece.header);
            pieces.push((part.clone(), Arc::new(piece)));
        }
        if !mixed && missing.is_empty() {
            return Ok(Landed { bytes, content: Content::Pieces(pieces) });
        }
        let mut whole = self.shared.read_memory.take_anyway(bytes);
        for (part, piece) in &pieces {
            let into = &mut whole.as_mut()[part.to..part.to + part.range.len()];
            into.copy_from_slice(piece.bytes(&part.range));
        }
        // What was read is not read again, unless it is not to be trusted.
        let have: Vec<_> = pieces.into_iter().map(|(part, piece)| (part.index, piece)).collect();
        let lost = Lost { parts: &missing, have: &have, mixed: false };
        let recover = |lost: &Lost<'_>, into: &mut [u8], table: &mut _| {
            self.shared.recover(&self.stripe, lost, table, into, deadline)
        };
        if mixed || !recover(&lost, whole.as_mut(), &mut table)? {
            let all = Lost { parts: &parts, have: &[], mixed: true };
            recover(&all, whole.as_mut(), &mut None)?;
        }
        Ok(Landed { bytes, content: Content::Whole(whole) })
    }

    /// Waits, and fills `into`, which is as long as the read.
    ///
    /// # Errors
    /// `buffer.length`, and those of [`land`](Self::land).
    pub fn wait_into(self, into: &mut [u8], deadline: &Deadline) -> Result<()> {
        self.land(deadline)?.copy(into)
    }

    /// With as little memory as can be: little by little.
    fn read_piecewise(&self, parts: &[Part], into: &mut [u8], deadline: &Deadline) -> Result<()> {
        let mut table = None;
        for part in parts {
            for start in part.range.clone().step_by(WINDOW_BYTES) {
                let range = start..part.range.end.min(start + WINDOW_BYTES);
                let to = part.to + start - part.range.start;
                let piece = Part { index: part.index, range, to };
                let lost = Lost { parts: &[piece], have: &[], mixed: false };
                if !self.shared.recover(&self.stripe, &lost, &mut table, into, deadline)? {
                    let all = Lost { parts, have: &[], mixed: true };
                    self.shared.recover(&self.stripe, &all, &mut None, into, deadline)?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Landed {
    /// How many bytes they are.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Shows the bytes of `range`, in order, in one or more slices.
    pub fn show(&self, range: Range<usize>, take: &mut dyn FnMut(&[u8])) {
        let pieces = match &self.content {
            Content::Whole(buffer) => return take(&buffer.as_ref()[range]),
            Content::Pieces(pieces) => pieces,
        };
        for (part, piece) in pieces {
            let (from, to) = (range.start.max(part.to), range.end.min(part.to + part.range.len()));
            if from < to {
                let start = part.range.start + from - part.to;
                take(piece.bytes(&(start..start + to - from)));
            }
        }
    }

    /// Copies all of it.
    fn copy(&self, into: &mut [u8]) -> Result<()> {
        if into.len() != self.bytes {
            let text = format!("{} bytes do not take {}", into.len(), self.bytes);
            return Err(Error::new(&codes::BUFFER_LENGTH, text));
        }
        let mut pour = Pour::new(into);
        self.show(0..self.bytes, &mut |piece| pour.take(piece));
        Ok(())
    }
}

impl Shared {
    /// Asks the drives for all parts, if there is memory for them.
    fn start_parts(self: &Arc<Self>, stripe: &Arc<Stripe>, parts: &[Part]) -> Vec<Option<Fetch>> {
        let mut buffers = Vec::with_capacity(parts.len());
        for part in parts {
            if self.reach(stripe, part.index) != Reach::Ready {
                buffers.push(None);
                continue;
            }
            match self.read_memory.try_take(self.fetch_bytes(stripe, &part.range)) {
                Some(buffer) => buffers.push(Some(buffer)),
                None => return Vec::new(),
            }
        }
        let fetch = |(part, buffer): (&Part, Option<Buffer>)| {
            self.fetch(stripe, part.index, part.range.clone(), buffer?)
        };
        parts.iter().zip(buffers).map(fetch).collect()
    }

    /// Waits as long as a read may be late.
    fn land(&self, stripe: &Stripe, fetch: &Fetch, deadline: &Deadline) -> Result<Option<Piece>> {
        match fetch.ticket.wait_until(self.patience(fetch.seat), deadline) {
            Answer::Came(Ok(piece)) => Ok(Some(piece)),
            // It says nothing about the shard, and the others cannot be opened either.
            Answer::Came(Err(error)) if error.is_of_process() => Err(error),
            Answer::Came(Err(error)) => {
                self.note_failed_read(stripe, fetch.index, fetch.seat, &error);
                Ok(None)
            }
            Answer::Late => Ok(None),
            Answer::TimeOver => Err(Deadline::passed("a drive takes long to be read")),
        }
    }

    /// Fills the parts from whatever shards there are. False if they are of another stripe than `table`, which is
    /// the one that was read so far.
    fn recover(
        self: &Arc<Self>,
        stripe: &Arc<Stripe>,
        lost: &Lost<'_>,
        table: &mut Option<Arc<Header>>,
        into: &mut [u8],
        deadline: &Deadline,
    ) -> Result<bool> {
        let parts = lost.parts;
        let starts = parts.iter().map(|part| part.range.start).min().unwrap_or(0);
        let ends = parts.iter().map(|part| part.range.end).max().unwrap_or(0);
        let all = whole_blocks(&(starts..ends), self.options.block_bytes, stripe.shard_bytes);
        let window = WINDOW_BYTES.max(self.options.block_bytes as usize);
        for start in all.clone().step_by(window) {
            let range = start..all.end.min(start + window);
            let within = |part: &Part| {
                let (from, to) = (part.range.start.max(range.start), part.range.end.min(range.end));
                (from < to).then(|| Part {
                    index: part.index,
                    range: from..to,
                    to: part.to + from - part.range.start,
                })
            };
            let parts: Vec<Part> = parts.iter().filter_map(within).collect();
            let recovery = Recovery::new(self, stripe, range)?.until(deadline);
            let mut recovery = recovery.having(lost.have);
            self.recover_window(&mut recovery, &parts, lost.mixed, into)?;
            if !recovery.have.values().all(|piece| agrees(table, &piece.header)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn recover_window(
        &self,
        recovery: &mut Recovery<'_>,
        parts: &[Part],
        mixed: bool,
        into: &mut [u8],
    ) -> Result<()> {
        let range = recovery.range();
        if mixed {
            recovery.read(&(0..recovery.code().shards()).collect::<Vec<_>>())?;
        }
        let wanted: Vec<usize> = parts.iter().map(|part| part.index).collect();
        recovery.gather(&wanted)?;
        let lost: Vec<usize> =
            wanted.into_iter().filter(|index| !recovery.have.contains_key(index)).collect();
        let mut computed = self.read_memory.take_anyway(lost.len() * range.len());
        if !lost.is_empty() {
            let rows = computed.as_mut().chunks_mut(range.len());
            recovery.compute(lost.iter().copied().zip(rows).collect())?;
        }
        for part in parts {
            let target = &mut into[part.to..part.to + part.range.len()];
            match lost.iter().position(|index| *index == part.index) {
                None => target.copy_from_slice(recovery.have[&part.index].bytes(&part.range)),
                Some(row) => {
                    let from = row * range.len() + part.range.start - range.start;
                    target.copy_from_slice(&computed.as_ref()[from..from + part.range.len()]);
                }
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

impl fmt::Debug for Landed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Landed({} bytes)", self.bytes)
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reading({} bytes of stripe {})", self.bytes, self.stripe.id)
    }
}
