//! What is known of damage: shards that reads met wrong, or not where the table has them, and that nobody mended
//! yet; and how far scrubs have looked at everything since.
//!
//! Notes are a hint to repairs and to status. They are bounded: what has no room is only counted, and then all of a
//! pool has to be looked at before it counts as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, OnceLock};

use dwk_base::{Result, StripeId};

use super::{ScrubReport, Shared, Space, lock};
use crate::{Ledger, Stripe};

/// Shards of a stripe that are damaged or missing where they should be: by index, with the seat.
pub(crate) type Noted = BTreeSet<(usize, u16)>;

/// Damage as somebody above keeps it beyond the end of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Indexes of shards that are wrong or missing, by stripe.
    pub stripes: BTreeMap<StripeId, Vec<u8>>,
    /// There is more than that.
    pub more: bool,
}

impl Damage {
    /// Stripes that are kept at most.
    pub const STRIPES_MAX: usize = 512;

    /// True if nothing is known.
    pub fn is_empty(&self) -> bool {
        self.stripes.is_empty() && !self.more
    }
}

/// Called when much more is noted than was kept. It must not wait.
type Listener = Box<dyn Fn() + Send + Sync>;

/// All notes of a space.
#[derive(Default)]
pub(crate) struct Notes {
    state: Mutex<State>,
    listener: OnceLock<Listener>,
}

#[derive(Default)]
struct State {
    shards: BTreeMap<StripeId, Noted>,
    /// Notes that had no room, and how many of them everything was looked at since.
    dropped: u64,
    settled: u64,
    /// Stripes that were noted when notes were kept last.
    kept: usize,
    pass: Option<Pass>,
}

/// Scrubs that went on from each other, from the first stripe on, and left nothing wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    after: Option<StripeId>,
    /// Notes that had had no room when it began.
    dropped: u64,
}

impl Notes {
    /// Remembers a shard that is to be repaired.
    pub(crate) fn add(&self, id: StripeId, index: usize, seat: u16, stripes_max: usize) {
        let mut state = lock(&self.state);
        if state.shards.len() < stripes_max || state.shards.contains_key(&id) {
            state.shards.entry(id).or_default().insert((index, seat));
        } else {
            state.dropped += 1;
        }
        // Each time that they have doubled, so that much damage is not kept bit by bit.
        let noted = state.shards.len();
        let is_due = noted > state.kept && noted >= 2 * state.kept;
        if is_due {
            state.kept = noted;
        }
        drop(state);
        if let Some(listener) = self.listener.get().filter(|_| is_due) {
            listener();
        }
    }

    /// What is noted of a stripe.
    pub(crate) fn of(&self, id: StripeId) -> Noted {
        lock(&self.state).shards.get(&id).cloned().unwrap_or_default()
    }

    /// True if something of a stripe is to be repaired.
    pub(crate) fn knows(&self, id: StripeId) -> bool {
        lock(&self.state).shards.contains_key(&id)
    }

    /// These shards of a stripe are well, or of no concern any more.
    pub(crate) fn forget(&self, id: StripeId, shards: &Noted) {
        let mut state = lock(&self.state);
        let Some(noted) = state.shards.get_mut(&id) else { return };
        noted.retain(|shard| !shards.contains(shard));
        if noted.is_empty() {
            state.shards.remove(&id);
        }
    }

    /// True if something is known to be wrong on a seat.
    fn is_noted(&self, seat: u16) -> bool {
        let state = lock(&self.state);
        state.dropped > state.settled
            || state.shards.values().flatten().any(|(_, noted)| *noted == seat)
    }

    /// More was met than is remembered.
    fn has_more(&self) -> bool {
        let state = lock(&self.state);
        state.dropped > state.settled
    }

    #[cfg(test)]
    pub(crate) fn take(&self) -> Vec<StripeId> {
        std::mem::take(&mut lock(&self.state).shards).into_keys().collect()
    }

    /// A scrub begins after this stripe. It goes on from an earlier one only if that left nothing between them.
    fn begin_pass(&self, after: Option<StripeId>) -> Option<Pass> {
        let mut state = lock(&self.state);
        let earlier = state.pass.take();
        match after {
            None => Some(Pass { after: None, dropped: state.dropped }),
            Some(_) => earlier.filter(|earlier| earlier.after >= after),
        }
    }

    /// It ended. True if all was looked at, by it and those before it.
    fn end_pass(&self, pass: Option<Pass>, report: &ScrubReport) -> bool {
        let Some(pass) = pass.filter(|_| report.left_nothing()) else { return false };
        let mut state = lock(&self.state);
        if report.finished {
            state.settled = state.settled.max(pass.dropped);
        } else {
            state.pass = Some(Pass { after: report.after.max(pass.after), ..pass });
        }
        report.finished
    }
}

impl Shared {
    /// Remembers a shard that is to be repaired.
    pub(crate) fn note_repair(&self, id: StripeId, index: usize, seat: u16) {
        self.notes.add(id, index, seat, self.options.repairs_max);
    }

    /// A shard is where it should be.
    pub(crate) fn forget_shard(&self, id: StripeId, index: usize, seat: u16) {
        self.notes.forget(id, &Noted::from([(index, seat)]));
    }
}

impl Space {
    /// Has `listener` called when there is much more damage noted than was [kept](Self::damage) last. It must not
    /// wait; the first one stays.
    pub fn on_damage(&self, listener: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.notes.listener.set(Box::new(listener));
    }

    /// Stripes of which somebody met damage that is not mended yet as far as is known: a shard that is wrong, or
    /// not where the table has it.
    ///
    /// # Errors
    /// Those of reading the table.
    pub fn noted(&self, ledger: &dyn Ledger) -> Result<Vec<Stripe>> {
        Ok(self.noted_shards(ledger)?.into_iter().map(|(stripe, _)| stripe).collect())
    }

    /// [`noted`](Self::noted), with the shards.
    pub(crate) fn noted_shards(&self, ledger: &dyn Ledger) -> Result<Vec<(Stripe, Vec<usize>)>> {
        let notes = &self.shared.notes;
        let all = lock(&notes.state).shards.clone();
        let mut noted = Vec::new();
        for (id, shards) in all {
            let stripe = ledger.stripe(id)?;
            let (there, gone): (Noted, Noted) = shards.into_iter().partition(|(index, seat)| {
                stripe.as_ref().is_some_and(|stripe| stripe.placement.get(*index) == Some(seat))
            });
            // One that moved since was perhaps only met on its way.
            notes.forget(id, &gone);
            if let Some(stripe) = stripe.filter(|_| !there.is_empty()) {
                noted.push((stripe, there.into_iter().map(|(index, _)| index).collect()));
            }
        }
        Ok(noted)
    }

    /// True if more damage was met than is remembered: only a scrub of everything finds it.
    pub fn has_more_damage(&self) -> bool {
        self.shared.notes.has_more()
    }

    /// True if something on a seat is known to be wrong.
    pub(crate) fn is_noted(&self, seat: u16) -> bool {
        self.shared.notes.is_noted(seat)
    }

    /// What is worth keeping of the notes.
    ///
    /// # Errors
    /// Those of reading the table.
    pub fn damage(&self, ledger: &dyn Ledger) -> Result<Damage> {
        let mut noted = self.noted_shards(ledger)?;
        lock(&self.shared.notes.state).kept = noted.len();
        let more = self.has_more_damage() || noted.len() > Damage::STRIPES_MAX;
        noted.truncate(Damage::STRIPES_MAX);
        let indexes = |shards: Vec<usize>| shards.into_iter().map(|index| index as u8).collect();
        let stripes = noted.into_iter().map(|(stripe, shards)| (stripe.id, indexes(shards)));
        Ok(Damage { stripes: stripes.collect(), more })
    }

    /// Notes what an earlier opening kept.
    ///
    /// # Errors
    /// Those of reading the table.
    pub fn recall(&self, ledger: &dyn Ledger, damage: &Damage) -> Result<()> {
        let notes = &self.shared.notes;
        for (id, indexes) in &damage.stripes {
            let Some(stripe) = ledger.stripe(*id)? else { continue };
            for index in indexes.iter().map(|index| usize::from(*index)) {
                if let Some(seat) = stripe.placement.get(index) {
                    self.shared.note_repair(*id, index, *seat);
                }
            }
        }
        let mut state = lock(&notes.state);
        state.dropped += u64::from(damage.more);
        state.kept = state.shards.len();
        Ok(())
    }

    pub(crate) fn begin_pass(&self, after: Option<StripeId>) -> Option<Pass> {
        self.shared.notes.begin_pass(after)
    }

    /// True if everything was looked at and nothing wrong is left, by this scrub and those that it went on from.
    pub(crate) fn end_pass(&self, pass: Option<Pass>, report: &ScrubReport) -> bool {
        self.shared.notes.end_pass(pass, report)
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notes({} stripes)", lock(&self.state).shards.len())
    }
}
