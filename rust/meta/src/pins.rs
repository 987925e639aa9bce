//! Readers pin the sequence number at which they looked; what they may still read is not dropped.
//!
//! A reader of content in the journal pins the record as well, but only until it has copied the content:
//! no reader, however slow, keeps the journal from being used again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All pins.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<Pinned>);

#[derive(Debug, Default)]
struct Pinned {
    sequences: Counts,
    records: Counts,
}

/// How many pins there are at each number.
#[derive(Debug, Default)]
struct Counts(BTreeMap<u64, usize>);

/// One pin, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Arc<Pins>,
    sequence: u64,
    record: Option<u64>,
}

impl Pins {
    /// Pins what lives at `sequence`, and the journal from `record` on.
    pub(crate) fn pin(self: &Arc<Self>, sequence: u64, record: Option<u64>) -> Pin {
        let mut pinned = self.lock();
        pinned.sequences.more(sequence);
        if let Some(record) = record {
            pinned.records.more(record);
        }
        drop(pinned);
        Pin { pins: Arc::clone(self), sequence, record }
    }

    /// The oldest pin.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.lock().sequences.first()
    }

    /// The oldest record of the journal that is being copied.
    pub(crate) fn oldest_record(&self) -> Option<u64> {
        self.lock().records.first()
    }

    fn lock(&self) -> MutexGuard<'_, Pinned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn more(&mut self, number: u64) {
        *self.0.entry(number).or_insert(0) += 1;
    }

    fn less(&mut self, number: u64) {
        if let Some(count) = self.0.get_mut(&number) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&number);
            }
        }
    }

    fn first(&self) -> Option<u64> {
        self.0.keys().next().copied()
    }
}

impl Pin {
    /// The journal is not needed any more.
    pub(crate) fn release_record(&mut self) {
        if let Some(record) = self.record.take() {
            self.pins.lock().records.less(record);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.release_record();
        self.pins.lock().sequences.less(self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pin_holds_until_its_last_reader_goes() {
        let pins = Arc::new(Pins::default());
        let (a, b, c) = (pins.pin(3, None), pins.pin(3, None), pins.pin(5, None));
        drop(a);
        assert_eq!(pins.oldest(), Some(3));
        drop(b);
        assert_eq!(pins.oldest(), Some(5));
        drop(c);
        assert_eq!(pins.oldest(), None);
    }

    #[test]
    fn a_record_is_pinned_until_it_is_copied() {
        let pins = Arc::new(Pins::default());
        let (mut a, b) = (pins.pin(9, Some(4)), pins.pin(9, Some(6)));
        assert_eq!(pins.oldest_record(), Some(4));
        a.release_record();
        assert_eq!(pins.oldest_record(), Some(6));
        drop(b);
        assert_eq!((pins.oldest(), pins.oldest_record()), (Some(9), None));
    }
}
