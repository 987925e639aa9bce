//! Bytes on their way out: pieces in order, the next ones under way while one is copied out.

use std::collections::VecDeque;
use std::sync::Arc;

use dwk_base::{Deadline, Error, Pour, Result, StripeId, codes};
use dwk_pool::{Landed, Reading, Stripe};

use crate::meta::Meta;
use crate::pins::Pin;
use crate::row::{Content, Place};

/// The most that one request asks of a stripe.
const WINDOW_BYTES: u64 = 4 << 20;
/// Requests under way ahead of the one that is copied out: so many drives read at the same time.
const AHEAD_MAX: usize = 4;

/// Reads one content. What it reads stays in place until it is dropped; content in the journal, which is
/// short, was copied when it was opened.
#[derive(Debug)]
pub struct ContentReader {
    meta: Arc<Meta>,
    content: Content,
    /// Where each piece begins.
    starts: Vec<u64>,
    bytes: u64,
    expected: u64,
    ahead: VecDeque<Ahead>,
    window: Option<Window>,
    deadline: Deadline,
    /// Pieces that lay in the journal, by their index.
    copied: Vec<(usize, Vec<u8>)>,
    _pin: Pin,
}

/// Bytes that were read, some of them not asked for yet.
#[derive(Debug)]
struct Window {
    start: u64,
    landed: Landed,
}

impl Window {
    /// Shows what it has of `at..end`, and says how much that was.
    fn show(&self, at: u64, end: u64, take: &mut dyn FnMut(&[u8])) -> u64 {
        let last = self.start + self.landed.bytes() as u64;
        if at < self.start || at >= last {
            return 0;
        }
        let end = end.min(last);
        self.landed.show((at - self.start) as usize..(end - self.start) as usize, take);
        end - at
    }
}

/// A read under way.
#[derive(Debug)]
struct Ahead {
    span: Span,
    stripe: Stripe,
    reading: Reading,
}

/// A run of bytes within one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// In the content.
    start: u64,
    bytes: u64,
    piece: usize,
    /// In the piece.
    offset: u32,
}

impl ContentReader {
    /// `pin` holds what lies in the journal until it is copied, which is at once.
    ///
    /// # Errors
    /// `journal.damaged`, `context.deadline`
    pub(crate) fn new(
        meta: Arc<Meta>,
        content: Content,
        mut pin: Pin,
        deadline: &Deadline,
    ) -> Result<Self> {
        let mut bytes = 0;
        let starts = content.pieces.iter().map(|piece| {
            let start = bytes;
            bytes += u64::from(piece.bytes);
            start
        });
        let starts = starts.collect();
        let copied = copy_from_journal(&meta, &content, deadline)?;
        pin.release_record();
        Ok(Self {
            meta,
            content,
            starts,
            bytes,
            expected: 0,
            ahead: VecDeque::new(),
            window: None,
            deadline: Deadline::never(),
            copied,
            _pin: pin,
        })
    }

    /// From now on reads wait for drives no longer than to then, and fail with `context.deadline`.
    pub fn set_deadline(&mut self, deadline: &Deadline) {
        self.deadline = deadline.clone();
    }

    /// The content's length.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `into` from `offset` and returns how many bytes were there: fewer only at the end.
    ///
    /// # Errors
    /// `data.corrupt`, `drives.too_many_lost`: the bytes in `into` are not to be used then.
    pub fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let (bytes, mut pour) = (into.len(), Pour::new(into));
        self.show(offset, bytes, &mut |piece| pour.take(piece))
    }

    /// Shows `bytes` from `offset`, in order, in slices as they were read and verified; returns how many
    /// there were: fewer only at the end.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at), after some bytes may have been shown.
    pub fn show(
        &mut self,
        offset: u64,
        bytes: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<usize> {
        let end = self.bytes.min(offset.saturating_add(bytes as u64));
        if offset != self.expected {
            self.ahead.clear();
        }
        let mut at = offset;
        while at < end {
            let span = self.span(at, end);
            // Only who reads on gets the next stretch read ahead.
            let horizon = if self.expected == at && at > 0 { self.bytes } else { end };
            at += match self.content.pieces[span.piece].place {
                Place::Journal { .. } => self.show_copied(span, take)?,
                Place::Stripe { .. } => self.show_stripes(at, end, horizon, take)?,
            };
            self.expected = at;
        }
        Ok((at.max(offset) - offset) as usize)
    }

    fn show_copied(&self, span: Span, take: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let piece = self.copied.iter().find(|(index, _)| *index == span.piece);
        let bytes = piece.and_then(|(_, bytes)| bytes.get(span.offset as usize..));
        let bytes = bytes.and_then(|bytes| bytes.get(..span.bytes as usize));
        take(bytes.ok_or_else(|| Error::new(&codes::INTERNAL_BUG, "a piece was not copied"))?);
        Ok(span.bytes)
    }

    /// Shows the next span, with reads under way up to `horizon`.
    fn show_stripes(
        &mut self,
        at: u64,
        end: u64,
        horizon: u64,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<u64> {
        let waiting = self.window.as_ref().map_or(0, |window| window.show(at, end, take));
        if waiting > 0 {
            return Ok(waiting);
        }
        self.window = None;
        if self.ahead.front().is_some_and(|ahead| ahead.span.start != at) {
            self.ahead.clear();
        }
        let landed = match self.read_now(at, horizon)? {
            Some(landed) => landed,
            None => self.read_ahead(at, end, horizon)?,
        };
        // If the caller takes less than was read ahead, the rest waits in the window.
        let window = self.window.insert(Window { start: at, landed });
        let shown = window.show(at, end, take);
        if shown == window.landed.bytes() as u64 {
            self.window = None;
        }
        Ok(shown)
    }

    /// A short read that nothing was read ahead for, if it need not wait for a drive.
    fn read_now(&self, at: u64, horizon: u64) -> Result<Option<Landed>> {
        let span = self.span(at, horizon);
        let Place::Stripe { id, offset } = self.content.pieces[span.piece].place else {
            return Ok(None);
        };
        if !self.ahead.is_empty() || span.bytes < horizon - at {
            return Ok(None);
        }
        let stripe = self.meta.placed(id)?;
        let offset = offset + span.offset;
        Ok(self.meta.pool().space().read_now(&stripe, offset, span.bytes as u32))
    }

    /// The next span, after more of them were asked for.
    fn read_ahead(&mut self, at: u64, end: u64, horizon: u64) -> Result<Landed> {
        let mut next = self.ahead.back().map_or(at, |last| last.span.start + last.span.bytes);
        let large = end - at >= WINDOW_BYTES || horizon > end;
        while self.ahead.len() <= AHEAD_MAX && next < horizon && (large || self.ahead.is_empty()) {
            let space = self.meta.pool().space();
            let most = space.read_bytes_now(WINDOW_BYTES as usize) as u64;
            if most < WINDOW_BYTES && !self.ahead.is_empty() {
                break;
            }
            let span = self.span(next, horizon.min(next + most));
            let Place::Stripe { id, offset } = self.content.pieces[span.piece].place else { break };
            let stripe = self.meta.placed(id)?;
            let reading = space.start_read(&stripe, offset + span.offset, span.bytes as u32);
            self.ahead.push_back(Ahead { span, stripe, reading });
            next = span.start + span.bytes;
        }
        let ahead = self.ahead.pop_front();
        self.land(ahead.ok_or_else(|| Error::new(&codes::INTERNAL_BUG, "a read began nowhere"))?)
    }

    /// Waits for a read; if the stripe moved meanwhile, it is read where it went.
    fn land(&self, ahead: Ahead) -> Result<Landed> {
        let error = match ahead.reading.land(&self.deadline) {
            Ok(landed) => return Ok(landed),
            Err(error) => error,
        };
        let Place::Stripe { id, offset } = self.content.pieces[ahead.span.piece].place else {
            return Err(error);
        };
        let now = self.meta.placed(id)?;
        if now == ahead.stripe {
            return Err(error);
        }
        let (offset, bytes) = (offset + ahead.span.offset, ahead.span.bytes as u32);
        self.meta.pool().space().start_read(&now, offset, bytes).land(&self.deadline)
    }

    /// The longest run of bytes from `at` that lies in one piece, ends before `end` and is one window.
    fn span(&self, at: u64, end: u64) -> Span {
        let piece = self.starts.partition_point(|&start| start <= at) - 1;
        let offset = at - self.starts[piece];
        let bytes = (u64::from(self.content.pieces[piece].bytes) - offset).min(end - at);
        let bytes = match self.content.pieces[piece].place {
            Place::Journal { .. } => bytes,
            Place::Stripe { .. } => bytes.min(WINDOW_BYTES),
        };
        Span { start: at, bytes, piece, offset: offset as u32 }
    }
}

/// The pieces of `content` that lie in the journal, by their index.
fn copy_from_journal(
    meta: &Meta,
    content: &Content,
    deadline: &Deadline,
) -> Result<Vec<(usize, Vec<u8>)>> {
    let mut copied = Vec::new();
    for (index, piece) in content.pieces.iter().enumerate() {
        if let Place::Journal { position, offset } = piece.place {
            let mut bytes = vec![0; piece.bytes as usize];
            let right = |bytes: &[u8]| dwk_chunk::crc64nvme(bytes) == piece.check;
            meta.journal().read(position, offset, &mut bytes, &right, deadline)?;
            copied.push((index, bytes));
        }
    }
    Ok(copied)
}

impl Meta {
    /// A stripe as it lies now.
    pub(crate) fn placed(&self, id: StripeId) -> Result<Stripe> {
        self.state().stripe(id).map(|kept| kept.stripe.clone()).ok_or_else(|| {
            let text = format!("stripe {id} is not in the table");
            Error::new(&codes::DATA_CORRUPT, text).with("stripe", id)
        })
    }
}
