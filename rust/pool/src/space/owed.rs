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
    /// When each drive answered last.
    answered: BTreeMap<u16, Duration>,
    /// Of drives that were found late.
    late: BTreeMap<u16, Late>,
}

/// What the first look at a late read saw.
#[derive(Clone, Copy, Debug)]
struct Late {
    read: u64,
    at: Duration,
    /// How old the read was then.
    age: Duration,
}

/// One read under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Debt {
    owed: Arc<Owed>,
    seat: u16,
    number: u64,
    is_paid: bool,
}

/// How long a drive has owed an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Since it was asked for the oldest one that it owes.
    pub(crate) owing: Duration,
    /// Of that, without giving any other.
    pub(crate) silence: Duration,
}

impl Owed {
    /// A read of a drive begins `now`.
    pub(crate) fn begin(self: &Arc<Self>, seat: u16, now: Duration) -> Debt {
        let mut state = lock(&self.0);
        let number = state.next;
        state.next += 1;
        state.reads.entry(seat).or_default().insert(number, now);
        Debt { owed: Arc::clone(self), seat, number, is_paid: false }
    }

    /// How many reads began.
    #[cfg(test)]
    pub(crate) fn begun(&self) -> u64 {
        lock(&self.0).next
    }

    /// True if the oldest read that a drive owes is older than `limit`, of which what went by before somebody first
    /// looked counts no more than `unseen`: the whole process may have stood still until then.
    pub(crate) fn is_late_for(
        &self,
        seat: u16,
        limit: Duration,
        unseen: Duration,
        now: Duration,
    ) -> bool {
        let mut state = lock(&self.0);
        let oldest = state.reads.get(&seat).and_then(|reads| reads.first_key_value());
        let Some((&read, &since)) = oldest else { return false };
        let look = Late { read, at: now, age: now.saturating_sub(since) };
        let first = state.late.entry(seat).or_insert(look);
        if first.read != read {
            *first = look;
        }
        first.age.min(unseen) + now.saturating_sub(first.at) >= limit
    }

    /// True if a drive has not answered all that it was asked for.
    pub(crate) fn is_owing(&self, seat: u16) -> bool {
        lock(&self.0).reads.get(&seat).is_some_and(|reads| !reads.is_empty())
    }

    /// For how long a drive has owed an answer; no time if it owes none.
    pub(crate) fn wait(&self, seat: u16, now: Duration) -> Wait {
        let state = lock(&self.0);
        let oldest = state.reads.get(&seat).and_then(|reads| reads.values().next());
        oldest.map_or(Wait::default(), |oldest| Wait {
            owing: now.saturating_sub(*oldest),
            silence: now.saturating_sub(state.busy_since(seat, *oldest)),
        })
    }
}

impl State {
    /// From when on a drive could work at a read that it was asked for at `begun`: its reads are done one by one.
    fn busy_since(&self, seat: u16, begun: Duration) -> Duration {
        self.answered.get(&seat).copied().unwrap_or_default().max(begun)
    }
}

impl Debt {
    /// The read came back: how long the drive was at it.
    pub(crate) fn paid(mut self, now: Duration) -> Duration {
        let mut state = lock(&self.owed.0);
        self.is_paid = true;
        let begun = state.reads.get_mut(&self.seat).and_then(|reads| reads.remove(&self.number));
        let took = now.saturating_sub(state.busy_since(self.seat, begun.unwrap_or(now)));
        state.answered.insert(self.seat, now);
        took
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if !self.is_paid
            && let Some(reads) = lock(&self.owed.0).reads.get_mut(&self.seat)
        {
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
        let late = |seat, now| owed.is_late_for(seat, at(32), at(2), at(now));
        assert!(!late(3, 1000), "nobody looked for a long time");
        assert!(!late(3, 1029));
        assert!(late(3, 1030));
        drop(first);
        assert!(!late(3, 1031), "it has answered meanwhile");
        assert!(late(3, 1061));
        assert!(!late(4, 1061));
    }

    #[test]
    fn who_looks_early_at_a_late_drive_has_it_late_no_sooner() {
        let owed = Arc::new(Owed::default());
        let at = Duration::from_secs;
        let _read = owed.begin(3, at(1));
        let late = |now| owed.is_late_for(3, at(32), at(2), at(now));
        assert!(!late(2) && !late(32));
        assert!(late(33));
    }

    #[test]
    fn a_drive_that_answers_one_by_one_is_not_silent_however_long_the_line_is() {
        let owed = Arc::new(Owed::default());
        let at = Duration::from_secs;
        let reads = [(); 3].map(|()| owed.begin(3, at(1)));
        assert_eq!(owed.wait(3, at(5)), Wait { owing: at(4), silence: at(4) });
        assert_eq!(owed.wait(4, at(5)), Wait::default());
        for (read, now) in reads.into_iter().zip(5..) {
            let first = now == 5;
            assert_eq!(read.paid(at(now)), at(if first { 4 } else { 1 }));
            let rest = if now == 7 { 0 } else { now - 1 };
            assert_eq!(owed.wait(3, at(now)), Wait { owing: at(rest), silence: at(0) });
        }
        assert!(!owed.is_owing(3));
        let _next = owed.begin(3, at(9));
        let wait = Wait { owing: at(2), silence: at(2) };
        assert_eq!(owed.wait(3, at(11)), wait, "it had nothing to do before");
    }

    #[test]
    fn the_oldest_unanswered_read_counts() {
        let owed = Arc::new(Owed::default());
        let at = Duration::from_secs;
        let (first, second) = (owed.begin(3, at(1)), owed.begin(3, at(2)));
        let owing = |seat| owed.wait(seat, at(9)).owing;
        assert_eq!((owing(3), owing(4)), (at(8), at(0)));
        drop(first);
        assert_eq!(owing(3), at(7));
        drop(second);
        assert_eq!(owing(3), at(0));
    }
}
