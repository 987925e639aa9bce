//! Messages that were handed out and are not done: who has them, and when they are due again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use super::letter::{Ending, Event};

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Somebody has it until then.
    Out { until_ns: u64 },
    /// It is delivered again then, or later. `returned`: who had it gave it back, and has no say any more.
    Due { at_ns: u64, returned: bool },
}

/// A message that was handed out and is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// How often it was ever delivered: the number of its last delivery, which is never used again.
    pub total: u32,
    /// How often of these before it was redriven.
    pub before: u32,
    /// When it was handed out first, or redriven.
    pub first_ms: u64,
    pub state: State,
    pub history: Vec<Event>,
}

impl Held {
    /// True if it was out at a restart or never left, and was not handed out since.
    pub(super) fn is_left_over(&self) -> bool {
        let last = self.history.last().map(|event| event.ending);
        matches!(self.state, State::Due { .. })
            && matches!(last, Some(Ending::Restarted | Ending::Withdrawn))
    }

    /// Deliveries since it was redriven, if ever.
    pub(super) const fn deliveries(&self) -> u32 {
        self.total - self.before
    }
}

/// All of them, by number, by the time until which they are out, and by the time at which they are due.
#[derive(Clone, Debug, Default)]
pub(super) struct Outstanding {
    held: BTreeMap<u64, Held>,
    expiries: BTreeSet<(u64, u64)>,
    redeliveries: BTreeSet<(u64, u64)>,
}

impl Outstanding {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many somebody has.
    pub(super) fn out(&self) -> usize {
        self.expiries.len()
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Held> {
        self.held.get(&sequence)
    }

    /// In the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Held)> {
        self.held.iter().map(|(sequence, held)| (*sequence, held))
    }

    /// The numbers within `range`, in order.
    pub(super) fn within(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = u64> {
        self.held.range(range).map(|(sequence, _)| *sequence)
    }

    pub(super) fn insert(&mut self, sequence: u64, held: Held) {
        self.index(sequence, held.state);
        self.held.insert(sequence, held);
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<Held> {
        let held = self.held.remove(&sequence)?;
        self.unindex(sequence, held.state);
        Some(held)
    }

    /// Changes one, if it is there.
    pub(super) fn change<T>(
        &mut self,
        sequence: u64,
        change: impl FnOnce(&mut Held) -> T,
    ) -> Option<T> {
        let held = self.held.get_mut(&sequence)?;
        let old = held.state;
        let changed = change(held);
        let new = held.state;
        self.unindex(sequence, old);
        self.index(sequence, new);
        Some(changed)
    }

    /// Until when the first one is out, and which.
    pub(super) fn first_expiry(&self) -> Option<(u64, u64)> {
        self.expiries.first().copied()
    }

    /// When the first one is due again, and which.
    pub(super) fn first_redelivery(&self) -> Option<(u64, u64)> {
        self.redeliveries.first().copied()
    }

    fn index(&mut self, sequence: u64, state: State) {
        match state {
            State::Out { until_ns } => self.expiries.insert((until_ns, sequence)),
            State::Due { at_ns, .. } => self.redeliveries.insert((at_ns, sequence)),
        };
    }

    fn unindex(&mut self, sequence: u64, state: State) {
        match state {
            State::Out { until_ns } => self.expiries.remove(&(until_ns, sequence)),
            State::Due { at_ns, .. } => self.redeliveries.remove(&(at_ns, sequence)),
        };
    }
}
