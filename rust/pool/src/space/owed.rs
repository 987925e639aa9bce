//! Which drives owe an answer to a read, and since when: who is late once is not waited for again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;

/// Reads that are under way, by drive.
#[derive(Debug, Default)]
pub(crate) struct Owed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Since when, in the order in which they were asked for.
    reads: BTreeMap<u16, BTreeMap<u64, Duration>>,
}

/// One read under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Debt {
    owed: Arc<Owed>,
    seat: u16,
    number: u64,
}

impl Owed {
    /// A read of a drive begins `now`.
    pub(crate) fn begin(self: &Arc<Self>, seat: u16, now: Duration) -> Debt {
        let mut state = lock(&self.0);
        let number = state.next;
        state.next += 1;
        state.reads.entry(seat).or_default().insert(number, now);
        Debt { owed: Arc::clone(self), seat, number }
    }

    /// How many reads began.
    #[cfg(test)]
    pub(crate) fn begun(&self) -> u64 {
        lock(&self.0).next
    }

    /// Since when a drive has not answered the oldest read that it was asked for.
    pub(crate) fn since(&self, seat: u16) -> Option<Duration> {
        lock(&self.0).reads.get(&seat)?.values().next().copied()
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if let Some(reads) = lock(&self.owed.0).reads.get_mut(&self.seat) {
            reads.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unanswered_read_counts() {
        let owed = Arc::new(Owed::default());
        let at = Duration::from_secs;
        let (first, second) = (owed.begin(3, at(1)), owed.begin(3, at(2)));
        assert_eq!((owed.since(3), owed.since(4)), (Some(at(1)), None));
        drop(first);
        assert_eq!(owed.since(3), Some(at(2)));
        drop(second);
        assert_eq!(owed.since(3), None);
    }
}
