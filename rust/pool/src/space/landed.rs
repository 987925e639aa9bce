//! What a read gave.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use dwk_base::{Error, Pour, Result, codes};

use super::buffers::Buffer;
use super::rows::Part;
use super::shard::Piece;

/// What a read gave: verified, to be looked at in parts. It holds the memory that it was read into.
pub struct Landed {
    bytes: usize,
    /// What was before is given back.
    start: usize,
    /// One after the other.
    slices: VecDeque<Slice>,
    is_computed: bool,
}

/// Some bytes of a read, where they are.
pub(crate) struct Slice {
    /// Where in the read they begin.
    to: usize,
    bytes: usize,
    source: Source,
}

enum Source {
    /// From here on of a shard.
    Piece(Arc<Piece>, usize),
    /// From here on of a buffer.
    Buffer(Arc<Buffer>, usize),
}

impl Slice {
    /// A part, as the shard has it.
    pub(crate) fn of_piece(part: &Part, piece: &Arc<Piece>) -> Self {
        let source = Source::Piece(Arc::clone(piece), part.range.start);
        Self { to: part.to, bytes: part.range.len(), source }
    }

    /// A part, which lies in a buffer from `at` on.
    pub(crate) fn of_buffer(part: &Part, buffer: &Arc<Buffer>, at: usize) -> Self {
        let source = Source::Buffer(Arc::clone(buffer), at);
        Self { to: part.to, bytes: part.range.len(), source }
    }

    /// Copies it to where it goes in the whole read.
    pub(crate) fn copy(&self, into: &mut [u8]) {
        into[self.to..self.to + self.bytes].copy_from_slice(self.bytes(0..self.bytes));
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        match &self.source {
            Source::Piece(piece, at) => piece.bytes(&(at + range.start..at + range.end)),
            Source::Buffer(buffer, at) => {
                &buffer.as_ref().as_ref()[at + range.start..at + range.end]
            }
        }
    }
}

impl Landed {
    /// All of a read in one buffer.
    pub(crate) fn whole(buffer: Buffer) -> Self {
        let (bytes, source) = (buffer.len(), Source::Buffer(Arc::new(buffer), 0));
        let slices = VecDeque::from([Slice { to: 0, bytes, source }]);
        Self { bytes, start: 0, slices, is_computed: false }
    }

    /// A read of `bytes` in slices, which are all of it.
    pub(crate) fn of(bytes: usize, mut slices: Vec<Slice>, is_computed: bool) -> Self {
        slices.sort_by_key(|slice| slice.to);
        Self { bytes, start: 0, slices: slices.into(), is_computed }
    }

    /// How many bytes they are, with those that were given back.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// From where on it has them: less was given back.
    pub const fn start(&self) -> usize {
        self.start
    }

    /// True if some of it had to be computed, for it could not be read.
    pub const fn is_computed(&self) -> bool {
        self.is_computed
    }

    /// Gives back the memory of bytes before `end`, as far as nothing else lies in it.
    pub fn give_back(&mut self, end: usize) {
        while let Some(first) = self.slices.pop_front_if(|slice| slice.to + slice.bytes <= end) {
            self.start = first.to + first.bytes;
        }
    }

    /// Shows the bytes of `range`, in order, in one or more slices.
    pub fn show(&self, range: Range<usize>, take: &mut dyn FnMut(&[u8])) {
        for slice in &self.slices {
            let (from, to) = (range.start.max(slice.to), range.end.min(slice.to + slice.bytes));
            if from < to {
                take(slice.bytes(from - slice.to..to - slice.to));
            }
        }
    }

    /// Copies all of it.
    pub(crate) fn copy(&self, into: &mut [u8]) -> Result<()> {
        if into.len() != self.bytes {
            let text = format!("{} bytes do not take {}", into.len(), self.bytes);
            return Err(Error::new(&codes::BUFFER_LENGTH, text));
        }
        let mut pour = Pour::new(into);
        self.show(0..self.bytes, &mut |piece| pour.take(piece));
        Ok(())
    }
}

impl fmt::Debug for Landed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Landed({} bytes)", self.bytes)
    }
}
