//! Bytes on their way out: pieces in order, the next ones under way while one is copied out.

use std::collections::VecDeque;
use std::sync::Arc;

use dwk_base::{Error, Result, StripeId, codes};
use dwk_pool::{Reading, Stripe};

use crate::meta::Meta;
use crate::pins::Pin;
use crate::row::{Content, Piece, Place};

/// The most that one request asks of a stripe.
const WINDOW_BYTES: u64 = 4 << 20;
/// Requests under way ahead of the one that is copied out: so many drives read at the same time.
const AHEAD_MAX: usize = 4;

/// Reads one content. What it reads stays in place until it is dropped.
#[derive(Debug)]
pub struct ContentReader {
    meta: Arc<Meta>,
    content: Content,
    /// Where each piece begins.
    starts: Vec<u64>,
    bytes: u64,
    expected: u64,
    ahead: VecDeque<Ahead>,
    window: Window,
    _pin: Pin,
}

/// Bytes that were read and not asked for yet.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Copies what it has from `at`, and says how much that was.
    fn copy(&self, at: u64, into: &mut [u8]) -> u64 {
        let from = at.checked_sub(self.start).and_then(|from| self.bytes.get(from as usize..));
        let taken = from.map_or(0, |from| from.len().min(into.len()));
        if let Some(from) = from {
            into[..taken].copy_from_slice(&from[..taken]);
        }
        taken as u64
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
    pub(crate) fn new(meta: Arc<Meta>, content: Content, pin: Pin) -> Self {
        let mut bytes = 0;
        let starts = content.pieces.iter().map(|piece| {
            let start = bytes;
            bytes += u64::from(piece.bytes);
            start
        });
        let starts = starts.collect();
        let (ahead, window) = (VecDeque::new(), Window::default());
        Self { meta, content, starts, bytes, expected: 0, ahead, window, _pin: pin }
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
        let end = self.bytes.min(offset.saturating_add(into.len() as u64));
        if offset != self.expected {
            self.ahead.clear();
        }
        let mut at = offset;
        while at < end {
            let span = self.span(at, end);
            // Only who reads on gets the next stretch read ahead.
            let horizon = if self.expected == at && at > 0 { self.bytes } else { end };
            let (piece, rest) = (self.content.pieces[span.piece], end - at);
            let done = match piece.place {
                Place::Journal { .. } => {
                    let to = (at - offset) as usize;
                    self.copy_journal(piece, span, &mut into[to..to + span.bytes as usize])?;
                    span.bytes
                }
                Place::Stripe { .. } => {
                    let to = (at - offset) as usize;
                    self.copy_stripes(at, horizon, &mut into[to..to + rest as usize])?
                }
            };
            at += done;
            self.expected = at;
        }
        Ok((at.max(offset) - offset) as usize)
    }

    fn copy_journal(&self, piece: Piece, span: Span, into: &mut [u8]) -> Result<()> {
        let Place::Journal { position, offset } = piece.place else { return Ok(()) };
        let mut whole = vec![0; piece.bytes as usize];
        let right = |bytes: &[u8]| dwk_chunk::crc64nvme(bytes) == piece.check;
        self.meta.journal().read(position, offset, &mut whole, &right)?;
        into.copy_from_slice(&whole[span.offset as usize..][..span.bytes as usize]);
        Ok(())
    }

    /// Copies the next span out, with reads under way up to `horizon`.
    fn copy_stripes(&mut self, at: u64, horizon: u64, into: &mut [u8]) -> Result<u64> {
        let waiting = self.window.copy(at, into);
        if waiting > 0 {
            return Ok(waiting);
        }
        if self.ahead.front().is_some_and(|ahead| ahead.span.start != at) {
            self.ahead.clear();
        }
        let mut next = self.ahead.back().map_or(at, |last| last.span.start + last.span.bytes);
        let large = into.len() as u64 >= WINDOW_BYTES || horizon > at + into.len() as u64;
        while self.ahead.len() <= AHEAD_MAX && next < horizon && (large || self.ahead.is_empty()) {
            let span = self.span(next, horizon);
            let Place::Stripe { id, offset } = self.content.pieces[span.piece].place else { break };
            let stripe = self.meta.placed(id)?;
            let space = self.meta.pool().space();
            let reading = space.start_read(&stripe, offset + span.offset, span.bytes as u32);
            self.ahead.push_back(Ahead { span, stripe, reading });
            next = span.start + span.bytes;
        }
        let Some(ahead) = self.ahead.pop_front() else {
            return Err(Error::new(&codes::INTERNAL_BUG, "a read began nowhere"));
        };
        let span = ahead.span;
        if span.bytes <= into.len() as u64 {
            self.land(ahead, &mut into[..span.bytes as usize])?;
            return Ok(span.bytes);
        }
        // The caller takes less than was read ahead: the rest waits in the window.
        let mut bytes = std::mem::take(&mut self.window.bytes);
        bytes.resize(span.bytes as usize, 0);
        self.land(ahead, &mut bytes)?;
        self.window = Window { start: at, bytes };
        Ok(self.window.copy(at, into))
    }

    /// Waits for a read; if the stripe moved meanwhile, it is read where it went.
    fn land(&self, ahead: Ahead, into: &mut [u8]) -> Result<()> {
        let Err(error) = ahead.reading.wait_into(into) else { return Ok(()) };
        let Place::Stripe { id, offset } = self.content.pieces[ahead.span.piece].place else {
            return Err(error);
        };
        let now = self.meta.placed(id)?;
        if now == ahead.stripe {
            return Err(error);
        }
        self.meta.pool().space().read(&now, offset + ahead.span.offset, into)
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

impl Meta {
    /// A stripe as it lies now.
    pub(crate) fn placed(&self, id: StripeId) -> Result<Stripe> {
        self.state().stripe(id).map(|kept| kept.stripe.clone()).ok_or_else(|| {
            let text = format!("stripe {id} is not in the table");
            Error::new(&codes::DATA_CORRUPT, text).with("stripe", id)
        })
    }
}
