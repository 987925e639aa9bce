//! Parts of shards, read from a drive and verified there, on the drive's own thread.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Error, Result, codes};
use dwk_drive::{Bell, Drive, Ticket};

use super::Shared;
use super::buffers::Buffer;
use super::header::{self, Header};
use super::owed::Wait;
use super::pace::{Pace, SLOW_ROW};
use super::write::late;
use crate::{State, Stripe};

/// What is read at once, and verified while it is in the cache.
const STEP_BYTES: usize = 256 << 10;

/// Verified bytes of a shard's payload.
pub(crate) struct Piece {
    pub(crate) header: Arc<Header>,
    buffer: Buffer,
    /// Where in the buffer they begin.
    start: usize,
    range: Range<usize>,
}

impl Piece {
    /// True if it holds all of these bytes of the shard's payload.
    pub(crate) fn covers(&self, range: &Range<usize>) -> bool {
        self.range.start <= range.start && range.end <= self.range.end
    }

    /// Where in the shard's payload it ends.
    pub(crate) const fn end(&self) -> usize {
        self.range.end
    }

    /// The bytes `range` of the shard's payload, which is within what was asked for.
    pub(crate) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        let from = self.start + range.start - self.range.start;
        &self.buffer.as_ref()[from..from + range.len()]
    }
}

/// A read of a shard that is on its way.
pub(crate) struct Fetch {
    pub(crate) index: usize,
    pub(crate) seat: u16,
    /// The blocks that were asked for.
    pub(crate) range: Range<usize>,
    pub(crate) ticket: Ticket<Piece>,
}

/// Whether a drive is worth asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Ready,
    /// It is later, now or with its last answers, than enough others usually are.
    Slow,
    /// It owes an answer to a read; it may come to it yet.
    Late,
    /// It is not here, or has failed.
    Gone,
}

/// Which bytes of a shard cover `range` in whole blocks.
pub(crate) fn whole_blocks(
    range: &Range<usize>,
    block_bytes: u32,
    shard_bytes: u32,
) -> Range<usize> {
    let block = block_bytes as usize;
    range.start / block * block..range.end.next_multiple_of(block).min(shard_bytes as usize)
}

impl Shared {
    /// What a buffer for `range` of a shard takes: whole blocks, and the header before the first one.
    pub(crate) fn fetch_bytes(&self, stripe: &Stripe, range: &Range<usize>) -> usize {
        let blocks = whole_blocks(range, self.options.block_bytes, stripe.shard_bytes);
        self.header_bytes(stripe) + blocks.len()
    }

    /// How long the headers of a stripe are that is written now.
    pub(crate) fn header_bytes(&self, stripe: &Stripe) -> usize {
        let (shards, block_bytes) = (stripe.placement.len(), self.options.block_bytes);
        header::header_bytes(shards, stripe.shard_bytes, block_bytes)
    }

    /// Whether the drive of a shard is worth asking for it. One that owes an answer for longer than a read may
    /// be late is not: it would only be waited for again, with one more buffer held.
    pub(crate) fn reach(&self, stripe: &Stripe, index: usize) -> Reach {
        self.reach_for(stripe, index, None)
    }

    /// As [`reach`](Self::reach), for who has a choice: a drive may also be slow for `bytes` of a shard. It is asked
    /// where the others are not enough.
    pub(crate) fn promptness(&self, stripe: &Stripe, index: usize, bytes: usize) -> Reach {
        self.reach_for(stripe, index, Some(bytes).filter(|_| stripe.code.parity > 0))
    }

    fn reach_for(&self, stripe: &Stripe, index: usize, choosy: Option<usize>) -> Reach {
        let roster = self.roster.load();
        let seat = stripe.placement.get(index).and_then(|seat| roster.seat(*seat));
        let Some(seat) = seat.filter(|seat| seat.readable().is_some()) else { return Reach::Gone };
        let wait = self.wait_for(seat.index);
        let is_late = wait.owing >= self.options.late_read;
        let is_slow = |bytes| self.late_after(stripe, seat.index, bytes, wait).is_zero();
        if !is_late && !choosy.is_some_and(is_slow) {
            return Reach::Ready;
        }
        match (self.is_overdue(seat.index), is_late) {
            (true, _) => Reach::Gone,
            (false, true) => Reach::Late,
            (false, false) => Reach::Slow,
        }
    }

    /// How long it is until a read of `bytes` of a shard is late, if its drive stays silent.
    pub(crate) fn late_in(&self, stripe: &Stripe, seat: u16, bytes: usize) -> Duration {
        self.late_after(stripe, seat, bytes, self.wait_for(seat))
    }

    fn late_after(&self, stripe: &Stripe, seat: u16, bytes: usize, wait: Wait) -> Duration {
        if self.pace.is_slow(seat) {
            return Duration::ZERO;
        }
        // Mostly that is enough; who waits that long asks again.
        if wait.silence < Pace::least() {
            return Pace::least().saturating_sub(wait.silence);
        }
        self.pace.limit(&stripe.placement, needed(stripe), bytes).saturating_sub(wait.silence)
    }

    fn wait_for(&self, seat: u16) -> Wait {
        self.owed.wait(seat, self.seams.clock.monotonic())
    }

    /// True if a drive is so late that it is no accident: as late as several answers in a row, or these were.
    pub(crate) fn is_proven_slow(&self, stripe: &Stripe, seat: u16, bytes: usize) -> bool {
        let limit = || self.pace.limit(&stripe.placement, needed(stripe), bytes);
        self.pace.is_slow(seat) || self.wait_for(seat).silence > limit() * SLOW_ROW
    }

    /// True if a drive owes an answer for longer than a drive may take; then it has failed.
    fn is_overdue(&self, seat: u16) -> bool {
        let (limit, unseen) = (self.options.drive_timeout, self.options.late_read);
        let is_overdue = self.owed.is_late_for(seat, limit, unseen, self.seams.clock.monotonic());
        if is_overdue {
            self.blame(seat, &late());
        }
        is_overdue
    }

    /// How long a read of a drive is waited for: no longer if an older one is late already.
    pub(crate) fn patience(&self, seat: u16) -> Duration {
        self.options.late_read.saturating_sub(self.wait_for(seat).owing)
    }

    /// Asks the drive for a part of a shard; `None` if that drive cannot be read now. The bell rings when it came.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        stripe: &Arc<Stripe>,
        index: usize,
        range: Range<usize>,
        buffer: Buffer,
        bell: &Arc<Bell>,
    ) -> Option<Fetch> {
        let seat = *stripe.placement.get(index)?;
        let roster = self.roster.load();
        let drive = roster.seat(seat)?.readable()?;
        let (shared, stripe) = (Arc::clone(self), Arc::clone(stripe));
        let blocks = whole_blocks(&range, self.options.block_bytes, stripe.shard_bytes);
        let debt = self.owed.begin(seat, self.seams.clock.monotonic());
        let ticket = drive.submit_ringing(bell, move |drive| {
            let bytes = range.len();
            let piece = shared.load(drive, &stripe, index, range, buffer);
            let took = debt.paid(shared.seams.clock.monotonic());
            // An error comes as fast as it likes.
            if piece.is_ok() {
                shared.pace.took(seat, took, (&stripe.placement, needed(&stripe)), bytes);
            }
            piece
        });
        Some(Fetch { index, seat, range: blocks, ticket })
    }

    /// Reads and verifies a part of a shard on the caller's thread.
    pub(crate) fn load(
        self: &Arc<Self>,
        drive: &dyn Drive,
        stripe: &Stripe,
        index: usize,
        range: Range<usize>,
        mut buffer: Buffer,
    ) -> Result<Piece> {
        let name = header::name(stripe.id, index)?;
        let known = self.headers.get(stripe.id, index);
        // The first blocks come with the header in one read.
        let together = known.is_none() && range.start == 0;
        let (header, mut got) = if let Some(header) = known {
            (header, 0)
        } else {
            let guess = self.header_bytes(stripe) + if together { STEP_BYTES } else { 0 };
            let wanted = guess.min(buffer.len());
            let got = drive.read(&name, 0, &mut buffer.as_mut()[..wanted])?;
            let begin = &buffer.as_ref()[..got];
            (Arc::new(self.take_header(drive, stripe, index, begin)?), got)
        };
        let length = header.bytes();
        let blocks = whole_blocks(&range, header.block_bytes, stripe.shard_bytes);
        let needed = if together { length + blocks.len() } else { blocks.len() };
        if buffer.len() < needed {
            // Its blocks are larger than those that are written now.
            (buffer, got) = (self.read_memory.take_anyway(needed), 0);
        }
        let start = if together { length } else { 0 };
        let target = &mut buffer.as_mut()[start..start + blocks.len()];
        let mut have = if together { got.saturating_sub(length).min(target.len()) } else { 0 };
        let block = header.block_bytes as usize;
        let step = STEP_BYTES.next_multiple_of(block);
        for from in (0..target.len()).step_by(step) {
            let end = target.len().min(from + step);
            if have < end {
                let at = (length + blocks.start + have) as u64;
                have += drive.read(&name, at, &mut target[have..end])?;
            }
            if have < end {
                return Err(damaged(stripe, index, "it ends early"));
            }
            header.verify((blocks.start + from) / block, &target[from..end])?;
        }
        self.headers.put(Arc::clone(&header));
        Ok(Piece { header, buffer, start, range: blocks })
    }

    /// The header of a shard, of which `begin` is the beginning.
    pub(crate) fn take_header(
        &self,
        drive: &dyn Drive,
        stripe: &Stripe,
        index: usize,
        begin: &[u8],
    ) -> Result<Header> {
        let length = header::length(begin)?;
        let most = header::header_bytes(stripe.placement.len(), stripe.shard_bytes, 512);
        let header = if length <= begin.len() {
            Header::decode(begin)?
        } else if length > most {
            return Err(damaged(stripe, index, "its header is too long"));
        } else {
            let mut bytes = vec![0; length];
            let got = drive.read(&header::name(stripe.id, index)?, 0, &mut bytes)?;
            Header::decode(&bytes[..got])?
        };
        header.agree(self.pool, stripe, index)?;
        Ok(header)
    }

    /// Notes what a failed read says about the stripe and the drive.
    pub(crate) fn note_failed_read(&self, stripe: &Stripe, index: usize, seat: u16, error: &Error) {
        if error.is_of_process() {
            return;
        }
        self.headers.forget(stripe.id, index);
        if error.is(&codes::DRIVE_FAILED) || error.is(&codes::DRIVE_MISSING) {
            return self.blame(seat, error);
        }
        let is_stale = self.roster.load().seat(seat).is_some_and(|seat| seat.state == State::Stale);
        // A drive that was away lacks what was written meanwhile, and is being brought up to date.
        if !(is_stale && error.is(&codes::BLOB_NOT_FOUND)) {
            self.note_repair(stripe.id, index, seat);
        }
        // A shard that is not there may have moved while it was read.
        if !error.is(&codes::BLOB_NOT_FOUND) {
            self.watch.corrupted(seat, error.message());
        }
    }
}

/// How many shards are enough to compute the others from.
fn needed(stripe: &Stripe) -> usize {
    stripe.code.data.into()
}

pub(crate) fn damaged(stripe: &Stripe, index: usize, why: &str) -> Error {
    let text = format!("shard {index} of stripe {} is damaged: {why}", stripe.id);
    Error::new(&codes::FORMAT_DAMAGED, text).with("stripe", stripe.id).with("shard", index)
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({:?})", self.range)
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetch(shard {} on {})", self.index, self.seat)
    }
}
