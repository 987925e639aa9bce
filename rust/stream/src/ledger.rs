//! What a stream holds, and from where on it shows it.
//!
//! What is let go is hidden first, by its number, and removed later, frame by frame: so `first` is exact
//! while rows are few.

use dwk_base::Result;

use crate::config::{Discard, StreamConfig};
use crate::frame::Header;
use crate::frames::Frames;
use crate::options::Options;
use crate::tail::Arrived;

/// So many frames that are hidden as a whole are worth a commit.
const DEAD_FRAMES: u64 = 32;

/// How soon a stream is to be looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Now,
    Later,
    Never,
}

/// Messages and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Sum {
    fn of(header: &Header) -> Self {
        Self { messages: header.count, bytes: header.bytes }
    }

    fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What a stream holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Messages before it are let go.
    pub(crate) first: u64,
    /// The number after the last message that was committed.
    pub(crate) next: u64,
    /// Frames that are no blocks, and what is in them.
    pub(crate) loose_frames: u64,
    pub(crate) loose: Sum,
    pub(crate) blocks: u64,
    /// Everything that lies there, hidden or not.
    pub(crate) all: Sum,
    /// Frames that are hidden as a whole, and what is in them.
    pub(crate) dead_frames: u64,
    pub(crate) dead: Sum,
    /// What is hidden of the frame that `first` is in.
    part: Sum,
    /// From where on messages are shown, as the mark in the map says.
    pub(crate) marked: u64,
    /// What the last upkeep left.
    left_frames: u64,
    left_bytes: u64,
    left_dead: u64,
    /// When the last message was committed that was there at the opening.
    pub(crate) last_unix_ns: u64,
}

impl Ledger {
    /// Counts what lies there.
    ///
    /// # Errors
    /// Those of reading rows.
    pub(crate) fn load(frames: &Frames, first: u64) -> Result<Self> {
        let mut ledger = Self { first, next: first, marked: first, ..Self::default() };
        frames.visit(0, &mut |known| {
            ledger.next = ledger.next.max(known.header.last + 1);
            ledger.last_unix_ns = ledger.last_unix_ns.max(known.header.last_unix_ns);
            ledger.add(&known.header);
            Ok(true)
        })?;
        ledger.recount(frames)?;
        Ok(ledger)
    }

    fn add(&mut self, header: &Header) {
        self.all = self.all.plus(Sum::of(header));
        if header.is_block {
            self.blocks += 1;
        } else {
            self.loose_frames += 1;
            self.loose = self.loose.plus(Sum::of(header));
        }
    }

    fn remove(&mut self, header: &Header) {
        self.all = self.all.minus(Sum::of(header));
        if header.is_block {
            self.blocks = self.blocks.saturating_sub(1);
        } else {
            self.loose_frames = self.loose_frames.saturating_sub(1);
            self.loose = self.loose.minus(Sum::of(header));
        }
    }

    /// What is shown.
    pub(crate) fn shown(&self) -> Sum {
        self.all.minus(self.dead).minus(self.part)
    }

    /// Frames were committed.
    pub(crate) fn arrived(&mut self, arrived: Arrived) {
        let sum = Sum { messages: arrived.messages, bytes: arrived.bytes };
        self.all = self.all.plus(sum);
        self.loose = self.loose.plus(sum);
        self.loose_frames += arrived.frames;
        self.next = self.next.max(arrived.next);
    }

    /// How soon the stream is to be looked after.
    pub(crate) fn urgency(&self, options: &Options) -> Urgency {
        let dead_frames = self.dead_frames.saturating_sub(self.left_dead);
        let is_urgent = self.loose_frames >= self.left_frames + options.merge_frames
            || self.loose.bytes >= self.left_bytes.saturating_add(options.merge_bytes)
            || dead_frames >= DEAD_FRAMES
            || (dead_frames > 0 && self.dead.bytes >= options.merge_bytes);
        match is_urgent {
            true => Urgency::Now,
            false if self.dead_frames > 0 || self.first > self.marked => Urgency::Later,
            false => Urgency::Never,
        }
    }

    /// The upkeep did what it could: what it left does not wake it again at once.
    pub(crate) fn looked_after(&mut self, options: &Options) {
        self.left_dead = self.dead_frames;
        let is_full =
            self.loose_frames >= options.merge_frames || self.loose.bytes >= options.merge_bytes;
        (self.left_frames, self.left_bytes) =
            if is_full { (self.loose_frames, self.loose.bytes) } else { (0, 0) };
    }

    /// Rows were replaced, in one commit.
    ///
    /// # Errors
    /// Those of reading rows.
    pub(crate) fn replaced(
        &mut self,
        frames: &Frames,
        old: &[Header],
        new: Option<&Header>,
    ) -> Result<()> {
        for header in old {
            self.remove(header);
        }
        if let Some(header) = new {
            self.add(header);
        }
        self.recount(frames)
    }

    /// Hides what is before `to`, or nothing if that is hidden already.
    ///
    /// # Errors
    /// Those of reading rows.
    pub(crate) fn hide(&mut self, frames: &Frames, to: u64) -> Result<()> {
        let to = to.min(self.next);
        if to <= self.first {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.first, to);
        self.part = Sum::default();
        self.walk(frames, before)
    }

    /// Counts anew what is hidden.
    fn recount(&mut self, frames: &Frames) -> Result<()> {
        (self.dead, self.part, self.dead_frames) = (Sum::default(), Sum::default(), 0);
        self.walk(frames, 0)
    }

    /// Counts what is hidden from the frame on that `from` is in.
    fn walk(&mut self, frames: &Frames, from: u64) -> Result<()> {
        let from = frames.first_of(from)?.unwrap_or(from);
        frames.visit(from, &mut |known| {
            let header = known.header;
            if header.first >= self.first {
                return Ok(false);
            }
            if header.last >= self.first {
                self.part = part(&header, self.first);
                return Ok(false);
            }
            self.dead = self.dead.plus(Sum::of(&header));
            self.dead_frames += 1;
            Ok(true)
        })
    }

    /// The number before which messages are to go, by the limits of `config`.
    ///
    /// # Errors
    /// Those of reading rows.
    pub(crate) fn due(
        &self,
        frames: &Frames,
        config: &StreamConfig,
        now_unix_ns: u64,
    ) -> Result<u64> {
        let discards = config.discard == Discard::Old;
        let max = |max: Option<u64>| max.filter(|_| discards).unwrap_or(u64::MAX);
        let (messages_max, bytes_max) = (max(config.max_messages), max(config.max_bytes));
        let age = config.max_age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let oldest_unix_ns = age.map_or(0, |age| now_unix_ns.saturating_sub(age));
        let (mut to, mut shown) = (self.first, self.shown());
        while to < self.next {
            let over = Over {
                messages: shown.messages.saturating_sub(messages_max),
                bytes: shown.bytes.saturating_sub(bytes_max),
                oldest_unix_ns,
            };
            if !over.is_over() {
                break;
            }
            let Ok(header) = frames.around(to) else {
                // Damaged: nothing is known of it, so it goes with what is before it.
                to = frames.next_after(to)?.unwrap_or(self.next);
                continue;
            };
            let Some(header) = header else { break };
            let is_newest = header.last + 1 >= self.next;
            let cut = over.cut(&header, to, is_newest);
            if cut <= header.last {
                return Ok(cut.max(to));
            }
            shown = shown.minus(Sum::of(&header).minus(part(&header, to)));
            to = cut;
        }
        Ok(to)
    }
}

/// What is too much.
#[derive(Clone, Copy, Debug)]
struct Over {
    messages: u64,
    bytes: u64,
    oldest_unix_ns: u64,
}

impl Over {
    const fn is_over(&self) -> bool {
        self.messages > 0 || self.bytes > 0 || self.oldest_unix_ns > 0
    }

    /// Before which number messages go, in the frame that `from` is in: the number after the frame if all
    /// of it does.
    fn cut(&self, header: &Header, from: u64, is_newest: bool) -> u64 {
        let hidden = part(header, from);
        let end = header.last + 1;
        let by_count = if self.messages == 0 {
            from
        } else if header.is_dense() {
            from.max(header.first).saturating_add(self.messages).min(end)
        } else {
            let mark = header.marks.iter().find(|m| m.count >= hidden.messages + self.messages);
            mark.map_or(end, |mark| mark.sequence)
        };
        let by_bytes = if self.bytes == 0 {
            from
        } else {
            let mark = header.marks.iter().find(|mark| mark.bytes >= hidden.bytes + self.bytes);
            let rest = if is_newest { from } else { end };
            mark.map_or(rest, |mark| mark.sequence)
        };
        let by_age = if header.last_unix_ns < self.oldest_unix_ns {
            end
        } else {
            let old = header.marks.partition_point(|mark| mark.unix_ns < self.oldest_unix_ns);
            old.checked_sub(1).map_or(from, |index| header.marks[index].sequence)
        };
        by_count.max(by_bytes).max(by_age)
    }
}

/// What is before `to` in the frame: exact if no number is left out, except that bytes are told by the last
/// mark.
fn part(header: &Header, to: u64) -> Sum {
    if to <= header.first {
        return Sum::default();
    }
    let marks = header.marks.partition_point(|mark| mark.sequence <= to);
    let mark = marks.checked_sub(1).map_or_else(Default::default, |index| header.marks[index]);
    let messages = if header.is_dense() { to - header.first } else { mark.count };
    Sum { messages: messages.min(header.count), bytes: mark.bytes }
}
