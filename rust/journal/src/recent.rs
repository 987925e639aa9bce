//! The last batches, in memory: what was just written is read without asking a drive.

use std::collections::VecDeque;
use std::sync::RwLock;

use bytes::Bytes;

use crate::format::BLOCK;
use crate::sync::{exclusive, shared};

/// Batches in the order of the log.
#[derive(Debug)]
pub(crate) struct Recent {
    batches: RwLock<Batches>,
    bytes_max: u64,
}

#[derive(Debug, Default)]
struct Batches {
    /// By segment and offset.
    queue: VecDeque<((u64, u32), Bytes)>,
    bytes: u64,
}

/// What a batch takes, with the slack that aligns it.
fn taken(batch: &Bytes) -> u64 {
    (batch.len() + BLOCK) as u64
}

impl Recent {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { batches: RwLock::default(), bytes_max }
    }

    /// Keeps a batch, which is later in the log than all before, and drops those that are too many.
    pub(crate) fn push(&self, segment: u64, offset: u32, batch: Bytes) {
        let mut dropped = Vec::new(); // their memory is freed when nobody waits for it
        let mut batches = exclusive(&self.batches);
        batches.bytes += taken(&batch);
        batches.queue.push_back(((segment, offset), batch));
        while batches.bytes > self.bytes_max {
            let Some((_, first)) = batches.queue.pop_front() else { break };
            batches.bytes -= taken(&first);
            dropped.push(first);
        }
    }

    /// Fills `into` from `at` of a batch, if that is here and as long.
    pub(crate) fn read(&self, segment: u64, offset: u32, at: u32, into: &mut [u8]) -> bool {
        let batches = shared(&self.batches);
        let Ok(index) = batches.queue.binary_search_by_key(&(segment, offset), |(key, _)| *key)
        else {
            return false;
        };
        let from = at as usize;
        let end = from.saturating_add(into.len());
        let part = batches.queue.get(index).and_then(|(_, batch)| batch.get(from..end));
        part.inspect(|part| into.copy_from_slice(part)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_batches_are_there_and_no_more_than_fit() {
        let recent = Recent::new(4 * 2 * BLOCK as u64);
        let mut byte = [0];
        for number in 0..100u8 {
            let at = |number: u8| (u64::from(number / 7), u32::from(number % 7) * 4096);
            let (segment, offset) = at(number);
            recent.push(segment, offset, vec![number; BLOCK].into());
            for earlier in 0..=number {
                let (segment, offset) = at(earlier);
                let here = recent.read(segment, offset, 4095, &mut byte);
                assert_eq!(here, earlier + 4 > number, "{earlier} after {number}");
                assert!(!here || byte == [earlier]);
            }
            assert!(!recent.read(segment, offset, 4096, &mut byte), "past the end");
            assert!(!recent.read(segment, offset + 1, 0, &mut byte), "another place");
        }
        let none = Recent::new(0);
        none.push(1, 0, vec![1; BLOCK].into());
        assert!(!none.read(1, 0, 0, &mut byte));
    }
}
