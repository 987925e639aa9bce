//! How the queue is.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::participants::{self, Participant};
use super::queue::SharedQueue;

/// Looks at both ends before what was seen is taken although they move.
const LOOKS_MAX: usize = 100;

/// Figures of all processes together. What a killed process did last may be missing in all but the depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages in the queue.
    pub items: usize,
    /// Bytes that they take, padding and lengths included.
    pub used_bytes: usize,
    /// Messages that were put.
    pub puts: u64,
    /// Messages that were taken.
    pub gets: u64,
    /// Puts that had to wait.
    pub put_waits: u64,
    /// Gets that had to wait.
    pub get_waits: u64,
    /// Locks that were taken from dead processes.
    pub recoveries: u64,
    /// Processes that died without leaving and have been cleared away.
    pub deaths: u64,
}

impl SharedQueue {
    /// The figures now; makes no system call.
    pub fn counters(&self) -> Counters {
        let header = self.header();
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let (items, used_bytes) = self.depth();
        Counters {
            items,
            used_bytes,
            puts: get(&header.producers.0.moved),
            gets: get(&header.consumers.0.moved),
            put_waits: get(&header.not_full.0.waits),
            get_waits: get(&header.not_empty.0.waits),
            recoveries: get(&header.constants.0.recoveries),
            deaths: get(&header.constants.0.deaths),
        }
    }

    /// Messages in the queue, and the bytes that they take; 0 and 0 if the queue is damaged.
    pub fn depth(&self) -> (usize, usize) {
        for _ in 0..LOOKS_MAX {
            let (head, tail) = (self.load_head(), self.load_tail());
            if !head.meets(self.load_head()) {
                continue;
            }
            let depth = self.ring.between(head, tail).unwrap_or_default();
            return (depth.items as usize, depth.units as usize * super::ring::UNIT_BYTES);
        }
        let depth = self.ring.between(self.load_head(), self.load_tail()).unwrap_or_default();
        (depth.items as usize, depth.units as usize * super::ring::UNIT_BYTES)
    }

    /// Who uses the queue, or died while it did: each process once. Asks the system about each.
    pub fn participants(&self) -> Vec<Participant> {
        participants::list(self.header())
    }
}
