//! Bytes on their way out: pieces in order, the next ones under way while one is copied out.

use std::collections::VecDeque;
use std::sync::Arc;

use dwk_base::{Deadline, Error, Pour, Result, StripeId, codes};
use dwk_pool::{Landed, Reading, Stripe};

use crate::meta::Meta;
use crate::pins::Pin;
use crate::row::{Content, Place};

/// What one request asks of a stripe. Of one of which some must be computed from the rest it asks for all that is
/// left, and shows so much of it at a time.
const WINDOW_BYTES: u64 = 4 << 20;
/// Requests under way ahead of the one that is copied out: so many drives read at the same time.
const AHEAD_MAX: usize = 4;
/// What they may ask for together.
const AHEAD_BYTES: u64 = AHEAD_MAX as u64 * WINDOW_BYTES;

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
    /// Something had to be computed and nobody knew before: perhaps more will have to be.
    is_lossy: bool,
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
        let first = self.start + self.landed.start() as u64;
        if at < first || at >= self.end() {
            return 0;
        }
        let end = end.min(self.end());
        self.landed.show((at - self.start) as usize..(end - self.start) as usize, take);
        end - at
    }

    fn end(&self) -> u64 {
        self.start + self.landed.bytes() as u64
    }
}

/// A read under way.
#[derive(Debug)]
struct Ahead {
    span: Span,
    stripe: Stripe,
    reading: Reading,
    /// It was known that some of the stripe may have to be computed.
    is_whole: bool,
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
            is_lossy: false,
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
        // Only who reads on gets the next stretch read ahead.
        let reads_on = offset == self.expected && offset > 0;
        let horizon = if reads_on { self.bytes } else { end };
        let mut at = offset;
        while at < end {
            let span = self.span(at, end, WINDOW_BYTES);
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
        let step = end.min(at + WINDOW_BYTES);
        let mut shown = self.window.as_ref().map_or(0, |window| window.show(at, step, take));
        if shown == 0 {
            self.window = None;
            if self.ahead.front().is_some_and(|ahead| ahead.span.start != at) {
                self.ahead.clear();
            }
            let landed = match self.read_now(at, horizon)? {
                Some(landed) => landed,
                None => self.read_ahead(at, end, horizon)?,
            };
            shown = self.window.insert(Window { start: at, landed }).show(at, step, take);
        }
        // If the caller takes less than was read ahead, the rest waits in the window.
        if let Some(window) = &mut self.window {
            window.landed.give_back((at + shown - window.start) as usize);
            let next = window.end();
            if next == at + shown {
                self.window = None;
            }
            // What is wrong with what comes next is told when it is wanted.
            let _ = self.ask_ahead(next, at + shown, end, horizon);
        }
        Ok(shown)
    }

    /// A short read that nothing was read ahead for, if it need not wait for a drive.
    fn read_now(&self, at: u64, horizon: u64) -> Result<Option<Landed>> {
        let span = self.span(at, horizon, WINDOW_BYTES);
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
        self.ask_ahead(at, at, end, horizon)?;
        let ahead = self.ahead.pop_front();
        let ahead =
            ahead.ok_or_else(|| Error::new(&codes::INTERNAL_BUG, "a read began nowhere"))?;
        let is_whole = ahead.is_whole;
        let landed = self.land(ahead)?;
        self.is_lossy |= landed.is_computed() && !is_whole;
        Ok(landed)
    }

    /// Asks for more up to `horizon` from `next` on, or from where the last request ends, of which the bytes up to
    /// `end` are wanted now.
    fn ask_ahead(&mut self, next: u64, at: u64, end: u64, horizon: u64) -> Result<()> {
        let mut next = self.ahead.back().map_or(next, |last| last.span.start + last.span.bytes);
        let large = end - at >= WINDOW_BYTES || horizon > end;
        let under_way =
            |ahead: &VecDeque<Ahead>| ahead.iter().map(|ahead| ahead.span.bytes).sum::<u64>();
        // One more if none is being copied out.
        let spare = u64::from(self.window.is_none());
        while self.ahead.len() < AHEAD_MAX + spare as usize
            && under_way(&self.ahead) < AHEAD_BYTES + spare * WINDOW_BYTES
            && next < horizon
            && (large || (self.ahead.is_empty() && self.window.is_none()))
        {
            let Some(ahead) = self.ask(next, horizon)? else { break };
            next = ahead.span.start + ahead.span.bytes;
            self.ahead.push_back(ahead);
        }
        Ok(())
    }

    /// Asks for what begins at `at`; `None` if that is in no stripe, or can wait for memory.
    fn ask(&self, at: u64, horizon: u64) -> Result<Option<Ahead>> {
        let piece = self.span(at, horizon, WINDOW_BYTES).piece;
        let Place::Stripe { id, offset } = self.content.pieces[piece].place else {
            return Ok(None);
        };
        let (stripe, space) = (self.meta.placed(id)?, self.meta.pool().space());
        let is_needed = self.ahead.is_empty() && self.window.is_none();
        let is_whole = self.is_lossy || space.is_impaired(&stripe);
        for most in [if is_whole { u64::MAX } else { WINDOW_BYTES }, WINDOW_BYTES] {
            let span = self.span(at, horizon, most);
            let bytes = space.read_bytes_now(span.bytes as usize) as u64;
            let is_last = is_needed && most == WINDOW_BYTES;
            if bytes == span.bytes || is_last {
                let reading = space.start_read(&stripe, offset + span.offset, bytes as u32);
                // Others may have been faster. What is needed now is read however little memory there is.
                if reading.is_under_way() || is_last {
                    let span = Span { bytes, ..span };
                    return Ok(Some(Ahead { span, stripe, reading, is_whole }));
                }
            }
            if !is_needed {
                break;
            }
        }
        Ok(None)
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

    /// The longest run of bytes from `at` that lies in one piece and ends before `end`; in a stripe no more than
    /// `most`.
    fn span(&self, at: u64, end: u64, most: u64) -> Span {
        let piece = self.starts.partition_point(|&start| start <= at) - 1;
        let offset = at - self.starts[piece];
        let bytes = (u64::from(self.content.pieces[piece].bytes) - offset).min(end - at);
        let bytes = match self.content.pieces[piece].place {
            Place::Journal { .. } => bytes,
            Place::Stripe { .. } => bytes.min(most),
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
