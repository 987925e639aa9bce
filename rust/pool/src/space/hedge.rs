//! What a read still lacks, from whoever has it first: the drives that it lies on, or, where one of them is late, those
//! that it can be computed from.

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Result};

use super::Shared;
use super::mending::Got;
use super::recover::Recovery;
use super::shard::{Fetch, Reach};
use crate::Stripe;

/// So often it is looked whether the others, which were late as well, are so no more.
const LOOK: Duration = Duration::from_millis(50);

/// Shards that are waited for together.
struct Race {
    waiting: Vec<Waiting>,
    /// Others were asked, too.
    hedged: bool,
    /// There may be no hedge.
    refused: bool,
}

struct Waiting {
    fetch: Fetch,
    /// How long it is still waited for.
    patience: Duration,
    source: Source,
}

/// Who asked for a shard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The whole read, of which this may be a part: it lacks it afterwards, too.
    Read,
    Race,
    Hedge,
}

impl Race {
    fn has(&self, index: usize) -> bool {
        self.waiting.iter().any(|one| one.fetch.index == index)
    }

    /// The hedge was worth it: what it was asked instead of has not come.
    fn is_won(&self) -> bool {
        self.hedged && self.waiting.iter().any(|one| one.source != Source::Hedge)
    }
}

impl Shared {
    /// How long it is until others are asked, too, for what was asked for here; `None` if there are none.
    pub(crate) fn hedge_in(&self, stripe: &Stripe, fetch: &Fetch) -> Option<Duration> {
        let has_others = stripe.code.parity > 0;
        has_others.then(|| self.late_in(stripe, fetch.seat, fetch.range.len()))
    }
}

impl Recovery<'_> {
    /// Reads until the `wanted` shards are there or can be computed, whichever is sooner. What was asked for and is
    /// not needed any more stays on its way: nobody blames its drive, and its memory is given back when it comes.
    ///
    /// # Errors
    /// Those of [`gather`](Self::gather).
    pub(crate) fn race(&mut self, wanted: &[usize], got: &mut Got) -> Result<()> {
        self.bell = Arc::clone(&got.bell);
        let range = self.range();
        let of_these =
            |fetch: &mut Fetch| fetch.range.start <= range.start && range.end <= fetch.range.end;
        let late: Vec<Fetch> = got.late.extract_if(.., of_these).collect();
        let waiting = late.into_iter().map(|fetch| self.waiting(fetch, Source::Read)).collect();
        let mut race = Race { waiting, hedged: false, refused: false };
        let done = self.run(wanted, got, &mut race);
        if race.is_won() && done.is_ok() {
            self.shared.pace.won();
        }
        let kept = race.waiting.into_iter().filter(|one| one.source == Source::Read);
        got.late.extend(kept.map(|one| one.fetch));
        done
    }

    fn run(&mut self, wanted: &[usize], got: &mut Got, race: &mut Race) -> Result<()> {
        loop {
            let rings = self.bell.rings();
            self.take_what_came(got, race)?;
            if self.is_enough(wanted, |_| false) {
                if self.agree() {
                    return Ok(());
                }
            } else if !self.is_enough(wanted, |index| race.has(index)) {
                self.ask_for(wanted, race)?;
            } else {
                self.hedge(wanted, race);
                self.wait(race, rings)?;
            }
        }
    }

    fn waiting(&self, fetch: Fetch, source: Source) -> Waiting {
        let patience = self.shared.patience(fetch.seat);
        Waiting { fetch, patience, source }
    }

    /// True if the `wanted` shards are here or can be computed from those that are, and those that `will_come`.
    fn is_enough(&self, wanted: &[usize], will_come: impl Fn(usize) -> bool) -> bool {
        let lacks = |index: &usize| !self.have.contains_key(index) && !will_come(*index);
        let lost: Vec<usize> = (0..self.code().shards()).filter(lacks).collect();
        self.code().read_set(&lost, wanted).is_ok()
    }

    fn take_what_came(&mut self, got: &mut Got, race: &mut Race) -> Result<()> {
        for at in (0..race.waiting.len()).rev() {
            let (fetch, source) = (&race.waiting[at].fetch, race.waiting[at].source);
            let Some(result) = fetch.ticket.try_take() else {
                if race.waiting[at].patience.is_zero() {
                    let Waiting { fetch, source, .. } = race.waiting.swap_remove(at);
                    if source == Source::Read {
                        got.failed.push((fetch.index, None));
                    }
                    self.lost.insert(fetch.index, None);
                    self.late.push(fetch);
                }
                continue;
            };
            let mut came = Got::default();
            self.shared.take(self.stripe, fetch, result, &mut came)?;
            for (index, piece) in &came.pieces {
                self.read_bytes += self.range.len() as u64;
                if piece.covers(&self.range) {
                    self.have.insert(*index, Arc::clone(piece));
                    self.lost.remove(index);
                }
            }
            self.lost.extend(came.failed.iter().cloned());
            if source == Source::Read {
                got.pieces.append(&mut came.pieces);
                got.failed.append(&mut came.failed);
            }
            race.waiting.swap_remove(at);
        }
        Ok(())
    }

    /// Asks for what is lacking, slow drives only where the others are not enough.
    fn ask_for(&mut self, wanted: &[usize], race: &mut Race) -> Result<()> {
        let lost: Vec<usize> = self.lost.keys().copied().collect();
        let set = self.code().read_set(&self.avoiding(&[], race), wanted);
        let Ok(set) = set.or_else(|_| self.code().read_set(&lost, wanted)) else {
            let came = self.wait_for_late()? || self.read_last_resorts()?;
            return if came { Ok(()) } else { Err(self.too_many_lost()) };
        };
        for index in set {
            if self.have.contains_key(&index) || race.has(index) {
                continue;
            }
            match self.shared.reach(self.stripe, index) {
                Reach::Ready | Reach::Slow => {
                    self.shared.pace.asked();
                    let fetch = self.ask(index);
                    race.waiting.extend(fetch.map(|fetch| self.waiting(fetch, Source::Race)));
                }
                Reach::Late => {
                    self.lost.insert(index, None);
                    self.unasked.push(index);
                }
                Reach::Gone => drop(self.lost.insert(index, None)),
            }
        }
        Ok(())
    }

    /// Shards that are lost, `late`, or on drives that are not prompt and were not asked.
    fn avoiding(&self, late: &[usize], race: &Race) -> Vec<usize> {
        let is_avoided = |index: &usize| {
            if self.have.contains_key(index) || race.has(*index) {
                return late.contains(index);
            }
            let promptness = || self.shared.promptness(self.stripe, *index, self.range.len());
            self.lost.contains_key(index) || promptness() != Reach::Ready
        };
        (0..self.code().shards()).filter(is_avoided).collect()
    }

    /// Asks drives that are prompt for what others are late with, if there may be one more hedge, and memory.
    fn hedge(&mut self, wanted: &[usize], race: &mut Race) {
        let is_late = |one: &&Waiting| {
            self.shared.hedge_in(self.stripe, &one.fetch).is_some_and(|left| left.is_zero())
        };
        if race.refused {
            return;
        }
        let late: Vec<usize> =
            race.waiting.iter().filter(is_late).map(|one| one.fetch.index).collect();
        let is_prompt = |index| race.has(index) && !late.contains(&index);
        if self.is_enough(wanted, is_prompt) {
            return;
        }
        let Ok(set) = self.code().read_set(&self.avoiding(&late, race), wanted) else { return };
        let is_new = |index: &usize| !self.have.contains_key(index) && !race.has(*index);
        let set: Vec<usize> = set.into_iter().filter(is_new).collect();
        let bytes = self.shared.fetch_bytes(self.stripe, &self.range);
        let buffers: Option<Vec<_>> =
            set.iter().map(|_| self.shared.read_memory.try_take(bytes)).collect();
        let buffers = buffers.filter(|buffers| self.shared.pace.may_hedge(buffers.len()));
        race.refused = buffers.is_none();
        race.hedged |= !race.refused;
        for (index, buffer) in set.into_iter().zip(buffers.into_iter().flatten()) {
            let range = self.range.clone();
            let fetch = self.shared.fetch(self.stripe, index, range, buffer, &self.bell);
            race.waiting.extend(fetch.map(|fetch| self.waiting(fetch, Source::Hedge)));
        }
    }

    /// Waits until something came, or something is to be done.
    fn wait(&self, race: &mut Race, rings: u64) -> Result<()> {
        let mut nap = LOOK.min(self.deadline.nap());
        for one in &race.waiting {
            let hedge = self.shared.hedge_in(self.stripe, &one.fetch);
            let hedge = hedge.filter(|left| !left.is_zero() && !race.refused);
            nap = nap.min(one.patience).min(hedge.unwrap_or(nap));
        }
        let left = self.deadline.remaining();
        if left.is_zero() {
            return Err(Deadline::passed("a drive takes long to be read"));
        }
        let (clock, nap) = (&self.shared.seams.clock, nap.min(left));
        let start = clock.monotonic();
        // A nap counts once, however long it took: the process may have stood still.
        let came = self.bell.wait_past(rings, nap);
        let spent = if came { clock.monotonic().saturating_sub(start).min(nap) } else { nap };
        for one in &mut race.waiting {
            one.patience = one.patience.saturating_sub(spent);
        }
        Ok(())
    }
}
