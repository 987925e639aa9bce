//! Frames: messages that lie together under one row, and what is known of them without reading them.
//!
//! A frame holds what was committed together; a *block* holds many frames' messages and has a mark every
//! 64 KiB, so that a reader begins near what it wants. The pieces between marks are *chunks*: each can be
//! read alone. Without marks the whole is one chunk.

use std::ops::Range;

use dwk_base::Result;
use dwk_base::codec::{Reader, Writer};

use crate::entry::{self, Place};

const VERSION: u8 = 0;

/// A block has a mark each time that so many bytes were written since the last one.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// What the row of a frame says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The frame is responsible for the numbers `first..=last`, also for those that are left out.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) is_block: bool,
    /// How many messages are in it.
    pub(crate) count: u64,
    /// Bytes of their bodies.
    pub(crate) bytes: u64,
    /// How many of them have a `message_id`.
    pub(crate) ids: u64,
    /// When its first message was committed, and its last one.
    pub(crate) first_unix_ns: u64,
    pub(crate) last_unix_ns: u64,
    /// Where chunks begin, besides the first one.
    pub(crate) marks: Vec<Mark>,
}

/// A place in a block where reading can begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Of the message that begins here.
    pub(crate) sequence: u64,
    pub(crate) unix_ns: u64,
    /// In the content.
    pub(crate) offset: u64,
    /// How many messages are before it in the block, and the bytes of their bodies.
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// A piece of the content that can be read alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) range: Range<u64>,
    pub(crate) place: Place,
    /// The greatest sequence number that may be in it.
    pub(crate) last: u64,
}

impl Header {
    /// How many sequence numbers it is responsible for.
    pub(crate) const fn span(&self) -> u64 {
        self.last - self.first + 1
    }

    /// True if no number is left out.
    pub(crate) const fn is_dense(&self) -> bool {
        self.count == self.span()
    }

    /// How many chunks it has.
    pub(crate) const fn chunks(&self) -> usize {
        self.marks.len() + 1
    }

    /// The chunk `index`, of a content of `content_bytes`.
    ///
    /// # Errors
    /// `format.damaged` if the content is shorter than a mark says.
    pub(crate) fn chunk(&self, index: usize, content_bytes: u64) -> Result<Chunk> {
        let start = index.checked_sub(1).and_then(|index| self.marks.get(index));
        let end = self.marks.get(index);
        let place = match start {
            Some(mark) => Place { sequence: mark.sequence, unix_ns: mark.unix_ns },
            None => Place { sequence: self.first, unix_ns: self.first_unix_ns },
        };
        let from = start.map_or(0, |mark| mark.offset);
        let range = from..end.map_or(content_bytes, |mark| mark.offset);
        if range.start > range.end || range.end > content_bytes {
            return Err(Reader::new(&[], WHAT).damaged("a mark lies behind its end"));
        }
        Ok(Chunk { range, place, last: end.map_or(self.last, |mark| mark.sequence - 1) })
    }

    /// The chunk that would hold `sequence`.
    pub(crate) fn chunk_of(&self, sequence: u64) -> usize {
        self.marks.partition_point(|mark| mark.sequence <= sequence)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(64 + 16 * self.marks.len());
        writer.u8(VERSION).u8(self.is_block.into()).varint(self.last - self.first);
        writer.varint(self.count).varint(self.bytes).varint(self.ids);
        writer.u64(self.first_unix_ns).varint(self.last_unix_ns - self.first_unix_ns);
        writer.varint(self.marks.len() as u64);
        let mut before = self.before_marks();
        for mark in &self.marks {
            writer.varint(mark.sequence - before.sequence).varint(mark.unix_ns - before.unix_ns);
            writer.varint(mark.offset - before.offset).varint(mark.count - before.count);
            writer.varint(mark.bytes - before.bytes);
            before = *mark;
        }
        writer.finish()
    }

    const fn before_marks(&self) -> Mark {
        Mark { sequence: self.first, unix_ns: self.first_unix_ns, offset: 0, count: 0, bytes: 0 }
    }

    /// The header that is the body of the row of the messages from `first` on.
    ///
    /// # Errors
    /// `format.damaged`; `format.newer` for another version.
    pub(crate) fn decode(first: u64, body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body, WHAT);
        check_version(&mut reader)?;
        let is_block = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.damaged("an unknown kind")),
        };
        let last = add(&reader.clone(), first, reader.varint()?)?;
        let (count, bytes, ids) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let first_unix_ns = reader.u64()?;
        let last_unix_ns = add(&reader.clone(), first_unix_ns, reader.varint()?)?;
        let mut header = Self {
            first,
            last,
            is_block,
            count,
            bytes,
            ids,
            first_unix_ns,
            last_unix_ns,
            marks: Vec::new(),
        };
        header.marks = header.decode_marks(&mut reader)?;
        reader.end()?;
        if last == u64::MAX || count > header.span() || ids > count {
            return Err(reader.damaged("its numbers do not fit each other"));
        }
        Ok(header)
    }

    fn decode_marks(&self, reader: &mut Reader<'_>) -> Result<Vec<Mark>> {
        const MARK_BYTES_MIN: usize = 5;
        let mut before = self.before_marks();
        let mark = |reader: &mut Reader<'_>| {
            let mut next = |from: u64| add(&reader.clone(), from, reader.varint()?);
            let (sequence, unix_ns) = (next(before.sequence)?, next(before.unix_ns)?);
            let (offset, count) = (next(before.offset)?, next(before.count)?);
            let mark = Mark { sequence, unix_ns, offset, count, bytes: next(before.bytes)? };
            let rises = sequence > before.sequence && offset > before.offset;
            let fits = sequence <= self.last && unix_ns <= self.last_unix_ns;
            if !rises || !fits || count > self.count || mark.bytes > self.bytes {
                return Err(reader.damaged("its marks do not fit each other"));
            }
            before = mark;
            Ok(mark)
        };
        let count = reader.count(MARK_BYTES_MIN)?;
        std::iter::repeat_n((), count)
            .map({
                let mut mark = mark;
                move |()| mark(reader)
            })
            .collect()
    }
}

const WHAT: &str = "the row of a frame of messages";

fn check_version(reader: &mut Reader<'_>) -> Result<()> {
    if reader.u8()? == VERSION {
        return Ok(());
    }
    let text = "a frame of messages is of another version";
    Err(dwk_base::Error::new(&dwk_base::codes::FORMAT_NEWER, text))
}

fn add(reader: &Reader<'_>, to: u64, more: u64) -> Result<u64> {
    to.checked_add(more).ok_or_else(|| reader.damaged("a number is too large"))
}

/// Writes the content and the header of a frame.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    header: Header,
    writer: Writer,
    place: Place,
    /// Bytes of content that were taken out already.
    taken: u64,
    /// Where the last chunk began.
    chunk_start: u64,
}

impl FrameWriter {
    /// A frame of the numbers from `first` on. Only a block has marks.
    pub(crate) fn new(first: u64, is_block: bool) -> Self {
        let header = Header {
            first,
            last: first,
            is_block,
            count: 0,
            bytes: 0,
            ids: 0,
            first_unix_ns: 0,
            last_unix_ns: 0,
            marks: Vec::new(),
        };
        let place = Place { sequence: first, unix_ns: 0 };
        Self { header, writer: Writer::new(), place, taken: 0, chunk_start: 0 }
    }

    /// Adds a message. Numbers rise, and times do not fall.
    pub(crate) fn push(&mut self, at: Place, body: &[u8], has_id: bool) {
        let offset = self.taken + self.writer.len() as u64;
        if self.header.count == 0 {
            self.header.first_unix_ns = at.unix_ns;
            self.place.unix_ns = at.unix_ns;
        } else if self.header.is_block && offset - self.chunk_start >= CHUNK_BYTES as u64 {
            let Header { count, bytes, .. } = self.header;
            let Place { sequence, unix_ns } = at;
            self.header.marks.push(Mark { sequence, unix_ns, offset, count, bytes });
            (self.place, self.chunk_start) = (at, offset);
        }
        entry::put(&mut self.writer, &mut self.place, at, body);
        self.header.count += 1;
        self.header.bytes += body.len() as u64;
        self.header.ids += u64::from(has_id);
        self.header.last_unix_ns = at.unix_ns;
        self.header.last = at.sequence;
    }

    /// How much content waits to be taken out.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.writer.len()
    }

    /// Takes out the content that was written since the last time.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.taken += self.writer.len() as u64;
        std::mem::take(&mut self.writer).finish()
    }

    /// The header of a frame that is responsible for the numbers up to `last`.
    pub(crate) fn finish(mut self, last: u64) -> Header {
        self.header.last = last;
        self.header
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
