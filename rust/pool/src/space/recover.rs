//! Content of shards that are lost, late or damaged, from those that are not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};
use dwk_drive::{Answer, Bell, Drive};
use dwk_erasure::{Code, Shard};

use super::Shared;
use super::header::Header;
use super::shard::{Fetch, Piece, Reach};
use crate::Stripe;
use crate::replace::REPLACED;

/// What one stripe's shards hold in one range of bytes, as it is found out.
pub(crate) struct Recovery<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) stripe: &'a Arc<Stripe>,
    code: Code,
    pub(crate) range: Range<usize>,
    pub(crate) have: BTreeMap<usize, Arc<Piece>>,
    /// Not to be had, with the reason where it is known.
    pub(crate) lost: BTreeMap<usize, Option<Error>>,
    pub(crate) late: Vec<Fetch>,
    /// Asked for only if nothing else helps: on drives that owe another answer, or asked for in vain before.
    pub(crate) unasked: Vec<usize>,
    /// Drives that are read only where nothing else helps were asked.
    is_at_last_resorts: bool,
    /// What the right shards say of all of them, if that is known.
    expected: Option<Arc<Header>>,
    pub(crate) deadline: Deadline,
    /// Rings for each answer.
    pub(crate) bell: Arc<Bell>,
    /// Bytes that were read.
    pub(crate) read_bytes: u64,
}

impl<'a> Recovery<'a> {
    /// For the bytes `range` of every shard.
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        stripe: &'a Arc<Stripe>,
        range: Range<usize>,
    ) -> Result<Self> {
        let code = shared.coding.stored(stripe.code)?;
        if code.shards() != stripe.placement.len() {
            let text = format!("stripe {} has not as many shards as its code", stripe.id);
            return Err(Error::new(&codes::FORMAT_DAMAGED, text));
        }
        Ok(Self {
            shared,
            stripe,
            code,
            range,
            have: BTreeMap::new(),
            lost: BTreeMap::new(),
            late: Vec::new(),
            unasked: Vec::new(),
            is_at_last_resorts: false,
            expected: None,
            deadline: Deadline::never(),
            bell: Arc::default(),
            read_bytes: 0,
        })
    }

    /// Waits for drives no longer than to then.
    #[must_use]
    pub(crate) fn until(mut self, deadline: &Deadline) -> Self {
        self.deadline = deadline.clone();
        self
    }

    /// Has these shards already, as far as they were read for all of its bytes.
    #[must_use]
    pub(crate) fn having(mut self, pieces: &[(usize, Arc<Piece>)]) -> Self {
        let whole = pieces.iter().filter(|(_, piece)| piece.covers(&self.range)).cloned();
        self.have.extend(whole);
        self
    }

    /// These shards were asked for in vain.
    #[must_use]
    pub(crate) fn without(mut self, failed: &[(usize, Option<Error>)]) -> Self {
        for (index, why) in failed.iter().filter(|(index, _)| !self.have.contains_key(index)) {
            self.lost.insert(*index, why.clone());
            self.unasked.push(*index);
        }
        self
    }

    /// Only shards that say the same of all of them as `header` count.
    #[must_use]
    pub(crate) fn expecting(mut self, header: Option<Arc<Header>>) -> Self {
        self.expected = header;
        self
    }

    pub(crate) const fn shared(&self) -> &'a Arc<Shared> {
        self.shared
    }

    /// True if no drive that may come back, or answer yet, makes a difference to what is lost, besides the shard
    /// `own`, which is missing on a drive that is here.
    pub(crate) fn is_final(&self, own: usize) -> bool {
        let roster = self.shared.roster.load();
        let may_come_back = |index: &usize, error: &Option<Error>| {
            if *index == own {
                return false;
            }
            if let Some(error) = error {
                return !says_so(error);
            }
            let seat = self.stripe.placement.get(*index).and_then(|seat| roster.seat(*seat));
            // Where another drive took its place, nobody waits for it.
            seat.is_some_and(|seat| {
                seat.readable().is_some() || !seat.labels.contains_key(REPLACED)
            })
        };
        let (open, gone): (Vec<_>, Vec<_>) =
            self.lost.iter().partition(|(index, error)| may_come_back(index, error));
        let gone: Vec<usize> = gone.into_iter().map(|(index, _)| *index).collect();
        open.is_empty() || !self.code.tolerates(&gone)
    }

    /// The bytes of each shard that it is about.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The code of the stripe.
    pub(crate) fn code(&self) -> &Code {
        &self.code
    }

    /// Reads until the `wanted` shards are there or can be computed.
    ///
    /// # Errors
    /// `data.corrupt`: too much is lost; `context.deadline`
    pub(crate) fn gather(&mut self, wanted: &[usize]) -> Result<()> {
        loop {
            let lost: Vec<usize> = self.lost.keys().copied().collect();
            let Ok(set) = self.code.read_set(&lost, wanted) else {
                if self.wait_for_late()? || self.read_last_resorts()? {
                    continue;
                }
                return Err(self.too_many_lost());
            };
            let missing: Vec<usize> =
                set.into_iter().filter(|index| !self.have.contains_key(index)).collect();
            if missing.is_empty() && self.agree() {
                return Ok(());
            }
            self.read(&missing)?;
        }
    }

    /// Reads these shards at once; those that fail are lost.
    ///
    /// # Errors
    /// `context.deadline`
    pub(crate) fn read(&mut self, indexes: &[usize]) -> Result<()> {
        let mut fetches = Vec::with_capacity(indexes.len());
        for index in indexes {
            match self.shared.reach(self.stripe, *index) {
                Reach::Ready | Reach::Slow => fetches.extend(self.ask(*index)),
                Reach::Late => {
                    self.lost.insert(*index, None);
                    self.unasked.push(*index);
                }
                Reach::Gone => drop(self.lost.insert(*index, None)),
            }
        }
        for fetch in fetches {
            let patience = self.shared.patience(fetch.seat);
            self.land(fetch, patience)?;
        }
        Ok(())
    }

    pub(crate) fn ask(&mut self, index: usize) -> Option<Fetch> {
        let bytes = self.shared.fetch_bytes(self.stripe, &self.range);
        let buffer = self.shared.read_memory.take_anyway(bytes);
        let fetch = self.shared.fetch(self.stripe, index, self.range.clone(), buffer, &self.bell);
        if fetch.is_none() {
            self.lost.insert(index, None);
        }
        fetch
    }

    fn land(&mut self, fetch: Fetch, patience: Duration) -> Result<()> {
        match fetch.ticket.wait_until(patience, &self.deadline) {
            Answer::Came(Ok(piece)) => {
                self.read_bytes += self.range.len() as u64;
                self.have.insert(fetch.index, Arc::new(piece));
            }
            // It says nothing about the shard, and the others cannot be opened either.
            Answer::Came(Err(error)) if error.is_of_process() => return Err(error),
            Answer::Came(Err(error)) => {
                self.shared.note_failed_read(self.stripe, fetch.index, fetch.seat, &error);
                self.lost.insert(fetch.index, Some(error));
            }
            Answer::Late => {
                self.lost.insert(fetch.index, None);
                self.late.push(fetch);
            }
            Answer::TimeOver => return Err(Deadline::passed("a drive takes long to be read")),
        }
        Ok(())
    }

    /// The last hope: gives late drives the time that a drive may take. True if one of them answered.
    pub(crate) fn wait_for_late(&mut self) -> Result<bool> {
        let patience = self.shared.options.drive_timeout;
        for index in std::mem::take(&mut self.unasked) {
            let fetch = self.ask(index);
            self.late.extend(fetch);
        }
        while let Some(fetch) = self.late.pop() {
            let (index, seat) = (fetch.index, fetch.seat);
            let before = self.have.len();
            self.land(fetch, patience)?;
            if self.have.len() > before {
                self.lost.remove(&index);
                return Ok(true);
            }
            if let Some(fetch) = self.late.pop_if(|fetch| fetch.index == index) {
                let text = format!("no answer within {} s", patience.as_secs());
                self.shared.blame(seat, &Error::new(&codes::DRIVE_TIMEOUT, text));
                drop(fetch);
            }
        }
        Ok(false)
    }

    /// After that: what lies on drives that failed because nothing can be written there. True if some of it came.
    /// What they do not give says nothing new about them.
    ///
    /// # Errors
    /// `context.deadline`, and those of the process.
    pub(crate) fn read_last_resorts(&mut self) -> Result<bool> {
        if std::mem::replace(&mut self.is_at_last_resorts, true) {
            return Ok(false);
        }
        let roster = self.shared.roster.load();
        let mut tickets = Vec::new();
        for index in self.lost.keys().copied() {
            let seat = self.stripe.placement.get(index).and_then(|seat| roster.seat(*seat));
            let Some(drive) = seat.and_then(|seat| seat.last_resort()) else { continue };
            let buffer = self
                .shared
                .read_memory
                .take_anyway(self.shared.fetch_bytes(self.stripe, &self.range));
            let (shared, stripe) = (Arc::clone(self.shared), Arc::clone(self.stripe));
            let range = self.range.clone();
            let load = move |drive: &dyn Drive| shared.load(drive, &stripe, index, range, buffer);
            tickets.push((index, drive.submit(load)));
        }
        let (patience, before) = (self.shared.options.drive_timeout, self.have.len());
        for (index, ticket) in tickets {
            match ticket.wait_until(patience, &self.deadline) {
                Answer::Came(Ok(piece)) => {
                    self.read_bytes += self.range.len() as u64;
                    self.have.insert(index, Arc::new(piece));
                    self.lost.remove(&index);
                }
                Answer::Came(Err(error)) if error.is_of_process() => return Err(error),
                Answer::Came(Err(error)) => drop(self.lost.insert(index, Some(error))),
                Answer::Late => {}
                Answer::TimeOver => {
                    return Err(Deadline::passed("a drive takes long to be read"));
                }
            }
        }
        Ok(self.have.len() > before)
    }

    /// What the right shards say of all of them: as the most do, unless it is known.
    fn right(&self) -> Option<Vec<u64>> {
        if let Some(expected) = &self.expected {
            return Some(expected.shard_checks.clone());
        }
        let tables: Vec<&[u64]> =
            self.have.values().map(|piece| piece.header.shard_checks.as_slice()).collect();
        let votes = |table: &[u64]| tables.iter().filter(|other| **other == table).count();
        tables.iter().max_by_key(|table| votes(table)).map(|best| best.to_vec())
    }

    /// Two stripes must not be mixed: those that disagree about the checks of all shards are lost. True if all
    /// agree.
    pub(crate) fn agree(&mut self) -> bool {
        let Some(right) = self.right() else { return true };
        let differs = |(index, piece): (&usize, &Arc<Piece>)| {
            (piece.header.shard_checks != right).then_some(*index)
        };
        let dissent: BTreeSet<usize> = self.have.iter().filter_map(differs).collect();
        for index in &dissent {
            let text = format!("shard {index} of stripe {} belongs to another one", self.stripe.id);
            let error = Error::new(&codes::FORMAT_DAMAGED, text);
            let seat = self.stripe.placement[*index];
            self.shared.note_failed_read(self.stripe, *index, seat, &error);
            self.have.remove(index);
            self.lost.insert(*index, Some(error));
        }
        dissent.is_empty()
    }

    /// Computes the shard `index`, which was among the wanted ones and is lost, into `into`.
    pub(crate) fn compute(&self, wanted: Vec<(usize, &mut [u8])>) -> Result<()> {
        let indexes: Vec<usize> = wanted.iter().map(|(index, _)| *index).collect();
        let mut targets: BTreeMap<usize, &mut [u8]> = wanted.into_iter().collect();
        let mut shards: Vec<Shard<'_>> = (0..self.code.shards())
            .map(|index| match (targets.remove(&index), self.have.get(&index)) {
                (Some(target), _) => Shard::Lost(target),
                (None, Some(piece)) => Shard::Present(piece.bytes(&self.range)),
                (None, None) => Shard::Absent,
            })
            .collect();
        self.code.reconstruct(&mut shards, &indexes).map_err(|error| {
            Error::new(&codes::INTERNAL_BUG, "a stripe cannot be computed").caused_by(error)
        })
    }

    pub(crate) fn too_many_lost(&self) -> Error {
        let lost: Vec<String> = self.lost.keys().map(ToString::to_string).collect();
        let text =
            format!("of stripe {}, shards {} cannot be read", self.stripe.id, lost.join(", "));
        let error = Error::new(&codes::DATA_CORRUPT, text).with("stripe", self.stripe.id);
        let cause = self.lost.values().flatten().next().cloned();
        match cause {
            Some(cause) => error.caused_by(cause),
            None => error,
        }
    }
}

/// True if an error says of a shard that it is not there or not right, whatever is waited for.
fn says_so(error: &Error) -> bool {
    [&codes::BLOB_NOT_FOUND, &codes::FORMAT_DAMAGED, &codes::DATA_CORRUPT]
        .into_iter()
        .any(|code| error.is(code))
}
