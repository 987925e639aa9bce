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
    /// Of drives that were found late: by which read, and when.
    late: BTreeMap<u16, (u64, Duration)>,
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

    /// True if the oldest read that a drive owes was late when somebody looked at least `limit` ago. A first look
    /// tells nothing: the whole process may have stood still until now.
    pub(crate) fn is_late_for(&self, seat: u16, limit: Duration, now: Duration) -> bool {
        let mut state = lock(&self.0);
        let oldest = state.reads.get(&seat).and_then(|reads| reads.keys().next().copied());
        let Some(oldest) = oldest else { return false };
        let first = state.late.entry(seat).or_insert((oldest, now));
        if first.0 != oldest {
            *first = (oldest, now);
        }
        now.saturating_sub(first.1) >= limit
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
    fn a_drive_is_late_for_as_long_as_somebody_has_seen_it_late() {
        let owed = Arc::new(Owed::default());
        let at = Duration::from_secs;
        let (first, _second) = (owed.begin(3, at(1)), owed.begin(3, at(2)));
        assert!(!owed.is_late_for(3, at(30), at(1000)), "nobody looked for a long time");
        assert!(!owed.is_late_for(3, at(30), at(1029)));
        assert!(owed.is_late_for(3, at(30), at(1030)));
        drop(first);
        assert!(!owed.is_late_for(3, at(30), at(1031)), "it has answered meanwhile");
        assert!(owed.is_late_for(3, at(30), at(1061)));
        assert!(!owed.is_late_for(4, at(0), at(1061)));
    }

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
