//! Overflow in memory: smaller than envelopes are, and for tests.

use std::collections::VecDeque;

use dwk_base::{Error, Result, codes};

use super::SpillFile;

/// A spill file in memory.
#[derive(Debug, Default)]
pub struct MemorySpill {
    bytes: VecDeque<u8>,
    /// Where the first byte that is left was appended.
    start: u64,
}

impl SpillFile for MemorySpill {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend(bytes);
        Ok(())
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        let begin = offset.checked_sub(self.start).and_then(|begin| usize::try_from(begin).ok());
        let end = begin.and_then(|begin| begin.checked_add(into.len()));
        let range = begin.zip(end).filter(|(_, end)| *end <= self.bytes.len());
        let Some((begin, end)) = range else {
            let text = format!("{} spilled bytes at {offset} are not there", into.len());
            return Err(Error::new(&codes::DRIVE_IO, text));
        };
        for (to, from) in into.iter_mut().zip(self.bytes.range(begin..end)) {
            *to = *from;
        }
        Ok(())
    }

    fn trim(&mut self, offset: u64) {
        let count = offset.saturating_sub(self.start).min(self.bytes.len() as u64);
        self.bytes.drain(..count as usize);
        self.start += count;
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
    }
}
