//! Messages that were read ahead and not handed out yet.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// A message that waits.
#[derive(Clone, Copy, Debug)]
struct Entry {
    sequence: u64,
    priority: u8,
    /// Its place among all messages that the consumer wants, whether they still wait or not.
    place: u64,
}

/// Those that wait, in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    entries: VecDeque<Entry>,
    places: u64,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.sequence)
    }

    /// The numbers up to `last`, in order.
    pub(super) fn up_to(&self, last: u64) -> impl Iterator<Item = u64> {
        self.entries
            .iter()
            .map(|entry| entry.sequence)
            .take_while(move |sequence| *sequence <= last)
    }

    /// Adds a message behind all others.
    pub(super) fn push(&mut self, sequence: u64, priority: u8) {
        self.entries.push_back(Entry { sequence, priority, place: self.places });
        self.places += 1;
    }

    /// Counts a message that the consumer wants and that does not wait: it has its place.
    pub(super) fn pass(&mut self) {
        self.places += 1;
    }

    /// Takes the most urgent one of the `window` places from the oldest on; the oldest of those.
    pub(super) fn take(&mut self, window: u32) -> Option<u64> {
        let front = self.entries.front()?;
        let end = front.place + u64::from(window.max(1));
        let near = self.entries.iter().take_while(|entry| entry.place < end);
        let (index, _) = near
            .enumerate()
            .reduce(|best, next| if next.1.priority > best.1.priority { next } else { best })?;
        self.entries.remove(index).map(|entry| entry.sequence)
    }

    /// Drops those within `range`; returns how many.
    pub(super) fn drop_within(&mut self, range: &RangeInclusive<u64>) -> usize {
        let start = self.entries.partition_point(|entry| entry.sequence < *range.start());
        let end = self.entries.partition_point(|entry| entry.sequence <= *range.end());
        self.entries.drain(start..end.max(start)).count()
    }
}
