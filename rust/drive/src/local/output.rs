//! Writing: all parts in few calls, past the page cache where that serves.
//!
//! A write past the cache needs memory, offset and length in multiples of [`ALIGNMENT`]. Parts that are
//! aligned go as they are; what lies between them is copied into an aligned buffer.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Mutex;

use bytes::Bytes;
use dwk_base::Result;
use rustix::io::Errno;

use super::files::File;
use super::root::Root;
use crate::ALIGNMENT;
use crate::checks::guard;

/// What one buffer holds: more unaligned bytes than this take several writes.
const BUFFER_BYTES: usize = 1 << 20;
/// Buffers that are kept for the next write.
const BUFFERS_KEPT: usize = 2;
/// Parts of one write; the kernel takes 1024.
const PIECES_MAX: usize = 512;

/// Aligned memory.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let memory = vec![0; BUFFER_BYTES + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start }
    }

    fn get(&self, range: Range<usize>) -> &[u8] {
        &self.memory[self.start + range.start..self.start + range.end]
    }

    fn get_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.memory[self.start + range.start..self.start + range.end]
    }
}

/// Aligned buffers, used again and again.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Buffer>>);

impl Buffers {
    fn take(&self) -> Buffer {
        guard(&self.0).pop().unwrap_or_else(Buffer::new)
    }

    fn give_back(&self, buffer: Buffer) {
        let mut kept = guard(&self.0);
        if kept.len() < BUFFERS_KEPT {
            kept.push(buffer);
        }
    }
}

/// A part of one write.
enum Piece<'a> {
    Given(&'a [u8]),
    Copied(Range<usize>),
}

/// A file that is being written from an offset on.
pub(super) struct Output<'a> {
    pub(super) root: &'a Root,
    pub(super) file: &'a dyn File,
    pub(super) path: &'a str,
    pub(super) offset: u64,
}

impl Output<'_> {
    /// Writes through the page cache.
    pub(super) fn write(&mut self, parts: &[Bytes]) -> Result<()> {
        for parts in parts.chunks(PIECES_MAX) {
            let mut slices = parts.iter().map(|part| IoSlice::new(part)).collect::<Vec<_>>();
            self.write_slices(&mut slices)?;
        }
        Ok(())
    }

    /// Writes past the page cache, from an aligned offset, if the file system takes it and through the
    /// cache otherwise. What follows the end in the last [`ALIGNMENT`] bytes is overwritten with zeroes.
    pub(super) fn write_direct(&mut self, parts: &[Bytes], buffers: &Buffers) -> Result<()> {
        if self.file.set_direct(true).is_err() {
            return self.write(parts);
        }
        let mut buffer = buffers.take();
        let result = self.write_aligned(parts, &mut buffer);
        buffers.give_back(buffer);
        result
    }

    fn write_aligned(&mut self, parts: &[Bytes], buffer: &mut Buffer) -> Result<()> {
        let mut gather = Gather::default();
        for part in parts {
            let mut rest = &part[..];
            while !rest.is_empty() {
                if gather.is_full() {
                    self.flush(&mut gather, buffer)?;
                }
                rest = gather.take(rest, buffer);
            }
        }
        gather.pad(buffer);
        self.flush(&mut gather, buffer)
    }

    fn flush(&mut self, gather: &mut Gather<'_>, buffer: &Buffer) -> Result<()> {
        gather.close_run();
        let slice = |piece: &Piece<'_>| match piece {
            Piece::Given(bytes) => (bytes.as_ptr(), bytes.len()),
            Piece::Copied(range) => (buffer.get(range.clone()).as_ptr(), range.len()),
        };
        debug_assert!(gather.pieces.iter().map(slice).all(|(at, len)| {
            (at as usize).is_multiple_of(ALIGNMENT) && len.is_multiple_of(ALIGNMENT)
        }));
        let slices = gather.pieces.iter().map(|piece| match piece {
            Piece::Given(bytes) => IoSlice::new(bytes),
            Piece::Copied(range) => IoSlice::new(buffer.get(range.clone())),
        });
        self.write_slices(&mut slices.collect::<Vec<_>>())?;
        *gather = Gather::default();
        Ok(())
    }

    fn write_slices(&mut self, mut slices: &mut [IoSlice<'_>]) -> Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let written = match self.file.write_at(slices, self.offset) {
                // It took the flag but not the write, or the rest of a short one: go through the cache.
                Err(Errno::INVAL) if self.file.set_direct(false).is_ok() => {
                    self.file.write_at(slices, self.offset)
                }
                result => result,
            };
            let written = self.root.done("pwritev", self.path, written)?;
            if written == 0 {
                return Err(self.root.error("pwritev", self.path, Errno::IO));
            }
            self.offset += written as u64;
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }
}

/// Pieces for one write: aligned parts as they are, the rest in runs of the buffer.
#[derive(Default)]
struct Gather<'a> {
    pieces: Vec<Piece<'a>>,
    /// The run that is being filled; it begins aligned.
    run: Range<usize>,
}

impl<'a> Gather<'a> {
    fn is_full(&self) -> bool {
        self.run.end == BUFFER_BYTES || (self.pieces.len() >= PIECES_MAX && self.is_aligned())
    }

    const fn is_aligned(&self) -> bool {
        self.run.end.is_multiple_of(ALIGNMENT)
    }

    /// Takes the beginning of `part` and returns what is left of it.
    fn take(&mut self, part: &'a [u8], buffer: &mut Buffer) -> &'a [u8] {
        let whole = part.len() - part.len() % ALIGNMENT;
        let to_align = self.run.end.next_multiple_of(ALIGNMENT) - self.run.end;
        let part_misses = part.as_ptr().align_offset(ALIGNMENT);
        if to_align == 0 && part_misses == 0 && whole > 0 {
            self.close_run();
            let (given, rest) = part.split_at(whole);
            self.pieces.push(Piece::Given(given));
            return rest;
        }
        // Copy up to where part and file are aligned together, if that will be.
        let wanted = if part_misses == to_align && to_align > 0 { to_align } else { part.len() };
        let count = wanted.min(part.len()).min(BUFFER_BYTES - self.run.end);
        let (copied, rest) = part.split_at(count);
        buffer.get_mut(self.run.end..self.run.end + count).copy_from_slice(copied);
        self.run.end += count;
        rest
    }

    fn pad(&mut self, buffer: &mut Buffer) {
        let end = self.run.end.next_multiple_of(ALIGNMENT);
        buffer.get_mut(self.run.end..end).fill(0);
        self.run.end = end;
    }

    fn close_run(&mut self) {
        if !self.run.is_empty() {
            self.pieces.push(Piece::Copied(self.run.clone()));
            self.run.start = self.run.end;
        }
    }
}
