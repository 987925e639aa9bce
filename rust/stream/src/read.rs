//! Reading: frames and blocks straight from the map, chunk by chunk, in bounded memory.
//!
//! Where a frame lies is looked up by number each time that one is opened: so a reader sees every message
//! once, also while frames are merged or removed under it.

use std::sync::Arc;

use bytes::Bytes;
use dwk_base::{Deadline, Error, Kind, Result, codes};
use dwk_bus::Envelope;
use dwk_meta::ContentReader;

use crate::core::Core;
use crate::entry::{Entries, Entry, Place};
use crate::frame::Header;
use crate::frames::Frames;

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number in the stream, from 1. Numbers rise; some may be left out.
    pub sequence: u64,
    /// When it was committed, in nanoseconds since 1970: never before the message before it.
    pub published_unix_ns: u64,
    /// What its sender gave it so that it is taken once.
    pub message_id: Option<String>,
    /// The message. Its data shares the memory of about 64 KiB of messages around it.
    pub envelope: Envelope,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first message that is there.
    First,
    /// At the last message that was committed.
    Last,
    /// Behind it.
    Next,
    /// At this number, or the next one that is there.
    Sequence(u64),
    /// At the first message that was committed then or later, in nanoseconds since 1970.
    Time(u64),
}

/// True if it will not be read later, either.
pub(crate) fn is_unreadable(error: &Error) -> bool {
    error.kind() == Kind::Corrupt || error.is(&codes::FORMAT_NEWER)
}

/// Visits every message of a frame, hidden or not.
///
/// # Errors
/// `format.damaged`, `data.corrupt` and others of reading content; those of `visit`.
pub(crate) fn read_all(
    frames: &Frames,
    first: u64,
    deadline: &Deadline,
    visit: &mut dyn FnMut(Entry<'_>) -> Result<()>,
) -> Result<()> {
    let Some((known, mut reader)) = frames.open(first, deadline)? else { return Ok(()) };
    for index in 0..known.header.chunks() {
        let chunk = Loaded::read(&known.header, index, &mut reader)?;
        let mut entries = chunk.entries();
        while let Some(entry) = entries.next()? {
            visit(entry)?;
        }
    }
    Ok(())
}

/// A chunk in memory, and how far it was read.
#[derive(Clone, Debug)]
struct Loaded {
    bytes: Bytes,
    at: usize,
    place: Place,
    last: u64,
    /// The number after the frame's last one if it is the last chunk.
    is_end: bool,
}

impl Loaded {
    fn read(header: &Header, index: usize, reader: &mut ContentReader) -> Result<Self> {
        let chunk = header.chunk(index, reader.bytes())?;
        let mut bytes = vec![0; (chunk.range.end - chunk.range.start) as usize];
        reader.read_at(chunk.range.start, &mut bytes)?;
        let is_end = index + 1 == header.chunks();
        Ok(Self { bytes: bytes.into(), at: 0, place: chunk.place, last: chunk.last, is_end })
    }

    fn entries(&self) -> Entries<'_> {
        Entries::new(&self.bytes[self.at..], self.place, self.last)
    }

    /// The next message from `wanted` on; `None` at the end of the chunk.
    fn next(&mut self, wanted: &Wanted) -> Result<Option<Stored>> {
        let mut entries = Entries::new(&self.bytes[self.at..], self.place, self.last);
        let found = loop {
            match entries.next()? {
                Some(entry) if wanted.is(&entry) => break Some(entry),
                Some(_) => {}
                None => break None,
            }
        };
        let stored = found.map(|entry| self.stored(&entry)).transpose()?;
        (self.place, self.at) = (entries.place(), self.bytes.len() - entries.rest().len());
        Ok(stored)
    }

    fn stored(&self, entry: &Entry<'_>) -> Result<Stored> {
        let id = entry.message_id.map(|id| String::from_utf8_lossy(id).into_owned());
        Ok(Stored {
            sequence: entry.sequence,
            published_unix_ns: entry.unix_ns,
            message_id: id,
            envelope: Envelope::decode(&self.bytes.slice_ref(entry.envelope))?,
        })
    }
}

/// Which messages are to be read.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    sequence: u64,
    unix_ns: u64,
}

impl Wanted {
    const fn is(&self, entry: &Entry<'_>) -> bool {
        entry.sequence >= self.sequence && entry.unix_ns >= self.unix_ns
    }
}

/// Reads a stream from somewhere on. It holds one chunk in memory, of about 64 KiB or of what was committed
/// together, and nothing else between two calls.
#[derive(Debug)]
pub struct Cursor {
    core: Arc<Core>,
    wanted: Wanted,
    chunk: Option<Loaded>,
    /// The number behind what is read now: the chunk, or the frame while nothing is known of it.
    unit_end: u64,
    /// Where reading goes on behind what is damaged.
    behind: Option<u64>,
}

/// A frame that is being read, within one call.
struct Open {
    header: Header,
    reader: ContentReader,
}

impl Cursor {
    /// # Errors
    /// `stream.not_found`, `store.closed`, those of reading rows
    pub(crate) fn new(core: &Arc<Core>, from: From) -> Result<Self> {
        core.check()?;
        let next = || core.ledger().next;
        let (sequence, unix_ns) = match from {
            From::First => (0, 0),
            From::Last => (next().saturating_sub(1), 0),
            From::Next => (next(), 0),
            From::Sequence(sequence) => (sequence, 0),
            From::Time(unix_ns) => (first_at(&core.frames, unix_ns)?.unwrap_or_else(next), unix_ns),
        };
        let wanted = Wanted { sequence, unix_ns };
        Ok(Self { core: Arc::clone(core), wanted, chunk: None, unit_end: 0, behind: None })
    }

    /// The number from which on the next call reads.
    pub fn position(&self) -> u64 {
        self.wanted.sequence.max(self.core.first())
    }

    /// Up to `limit_messages` messages in their order, and no more of them when their data adds up to
    /// `limit_bytes`; at least one if there is one. None at the end of the stream.
    ///
    /// # Errors
    /// `data.corrupt`, `format.damaged`, `format.newer`, `journal.damaged`: what comes next cannot be read;
    /// [`skip`](Self::skip) goes on behind it. `drives.too_many_lost`, `context.deadline`, `store.closed`,
    /// `stream.not_found`: the cursor stays where it is. Messages that were read before are returned first,
    /// and the error with the next call.
    pub fn next_many(
        &mut self,
        limit_messages: usize,
        limit_bytes: usize,
        deadline: &Deadline,
    ) -> Result<Vec<Stored>> {
        let (mut read, mut bytes) = (Vec::new(), 0);
        let mut open = None;
        self.behind = None;
        while read.len() < limit_messages && bytes < limit_bytes.max(1) {
            match self.next_one(&mut open, deadline) {
                Ok(Some(stored)) => {
                    bytes += stored.envelope.data().len();
                    read.push(stored);
                }
                Err(error) if read.is_empty() => {
                    self.behind = Some(self.unit_end).filter(|_| is_unreadable(&error));
                    return Err(error);
                }
                Ok(None) | Err(_) => break,
            }
        }
        Ok(read)
    }

    fn next_one(&mut self, open: &mut Option<Open>, deadline: &Deadline) -> Result<Option<Stored>> {
        loop {
            self.wanted.sequence = self.position();
            if let Some(chunk) = &mut self.chunk {
                if let Some(stored) = chunk.next(&self.wanted)? {
                    self.wanted.sequence = stored.sequence + 1;
                    return Ok(Some(stored));
                }
                self.wanted.sequence = self.wanted.sequence.max(chunk.last + 1);
                if chunk.is_end {
                    *open = None;
                }
                self.chunk = None;
            }
            if !self.load(open, deadline)? {
                return Ok(None);
            }
        }
    }

    /// Reads the chunk that holds what is wanted, or the next one that there is; false at the end.
    fn load(&mut self, open: &mut Option<Open>, deadline: &Deadline) -> Result<bool> {
        let sequence = self.wanted.sequence;
        if open.as_ref().is_none_or(|open| sequence > open.header.last) {
            *open = None;
            let frames = &self.core.frames;
            let Some(first) = frames.first_of(sequence)? else {
                self.core.check()?;
                return Ok(false);
            };
            let next = frames.next_after(first.max(sequence))?;
            self.unit_end = next.unwrap_or_else(|| self.core.ledger().next);
            let Some((known, reader)) = frames.open(first, deadline)? else {
                // It was merged or removed in this moment: look again.
                return Ok(true);
            };
            if known.header.last < sequence {
                return self.beyond(sequence);
            }
            *open = Some(Open { header: known.header, reader });
        }
        let Some(Open { header, reader }) = open else { return Ok(false) };
        let index = header.chunk_of(sequence);
        self.unit_end = header.marks.get(index).map_or(header.last + 1, |mark| mark.sequence);
        self.chunk = Some(Loaded::read(header, index, reader)?);
        Ok(true)
    }

    /// The frame before `sequence` ends before it, which is the end of the stream; true if there is something
    /// to be read all the same.
    fn beyond(&mut self, sequence: u64) -> Result<bool> {
        let frames = &self.core.frames;
        let Some(next) = frames.next_after(sequence - 1)? else {
            self.core.check()?;
            return Ok(false);
        };
        // What came in this moment may be merged already, also into the frame before: so look once more. Only
        // if nothing is responsible for the number now, nothing was before.
        if frames.around(sequence)?.is_none_or(|header| header.last < sequence) {
            self.wanted.sequence = next;
        }
        Ok(true)
    }

    /// Goes on behind what the last call could not read: the rest of a chunk, or of a frame. Returns how many
    /// numbers were left out, 0 if nothing is known to be damaged here.
    pub fn skip(&mut self) -> u64 {
        let Some(behind) = self.behind.take() else { return 0 };
        let skipped = behind.saturating_sub(self.wanted.sequence);
        self.wanted.sequence = behind.max(self.wanted.sequence);
        self.chunk = None;
        skipped
    }
}

/// The first number of the first chunk that may hold a message of that time or later.
fn first_at(frames: &Frames, unix_ns: u64) -> Result<Option<u64>> {
    let mut found = None;
    frames.visit(0, &mut |known| {
        let header = known.header;
        if header.last_unix_ns < unix_ns {
            return Ok(true);
        }
        let before = header.marks.partition_point(|mark| mark.unix_ns < unix_ns);
        let mark = before.checked_sub(1).map(|index| header.marks[index].sequence);
        found = Some(mark.unwrap_or(header.first));
        Ok(false)
    })?;
    Ok(found)
}
