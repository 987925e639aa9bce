//! Readers pin the sequence number at which they looked; what they may still read is not dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// All pins.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<BTreeMap<u64, usize>>);

/// One pin, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Arc<Pins>,
    sequence: u64,
}

impl Pins {
    pub(crate) fn pin(self: &Arc<Self>, sequence: u64) -> Pin {
        *self.lock().entry(sequence).or_insert(0) += 1;
        Pin { pins: Arc::clone(self), sequence }
    }

    /// The oldest pin.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.lock().keys().next().copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.lock();
        if let Some(count) = pins.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pin_holds_until_its_last_reader_goes() {
        let pins = Arc::new(Pins::default());
        let (a, b, c) = (pins.pin(3), pins.pin(3), pins.pin(5));
        drop(a);
        assert_eq!(pins.oldest(), Some(3));
        drop(b);
        assert_eq!(pins.oldest(), Some(5));
        drop(c);
        assert_eq!(pins.oldest(), None);
    }
}
