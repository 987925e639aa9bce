//! Stripes on their way to the drives.
//!
//! Each drive's thread puts the shards that wait for it and syncs them together. A shard that a drive
//! refused goes to another one; if there is none, the stripe is encoded anew for fewer drives.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, StripeId, codes};
use dwk_drive::{BlobName, Claim, Drive, Ticket};

use super::coding::numbers;
use super::encode::{Encoded, Parts, Shape, encode};
use super::filling::Filling;
use super::room::{Plan, Purpose, Refused};
use super::{Shared, Space, header, lock};
use crate::Stripe;

/// Makes a shard durable.
pub(crate) const SYNC_WRITE: &str = "stripe.write";
/// Makes the removal of a stripe durable, so that its shards do not come back as orphans.
pub(crate) const SYNC_REMOVE: &str = "stripe.remove";
/// How long who waits for drives sleeps before it looks whether one of them is late, and how long a deletion
/// is waited for that nobody depends on.
const LOOK: Duration = Duration::from_millis(250);
/// Shards that share a sync.
const SHARDS_PER_SYNC: usize = 4;

/// A stripe on its way to the drives. Dropping it removes what was written.
pub struct Writing {
    flight: Arc<Flight>,
    waited: bool,
}

/// A stripe on its way, shared by its owner and the drives' threads.
pub(crate) struct Flight {
    shared: Arc<Shared>,
    purpose: Purpose,
    payload_bytes: usize,
    content_check: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Held by whoever looks after it.
    settling: Mutex<()>,
}

struct State {
    stripe: Stripe,
    file_bytes: usize,
    /// Empty once all are durable.
    shards: Vec<Parts>,
    slots: Vec<Slot>,
    refused: Refused,
    result: Option<Result<()>>,
    /// When somebody looked last whether a drive is late, or handed the first shard to one.
    looked: Duration,
    /// Nobody wants it any more.
    abandoned: bool,
    errands: u64,
}

enum Slot {
    /// Not with a drive yet, where this room is taken for it.
    Unsent(Claim),
    /// With a drive since then, by the errand of this number.
    Pending(u64, Duration),
    Durable,
    Refused(Error),
}

/// A shard that waits for its drive.
struct Errand {
    flight: Arc<Flight>,
    index: usize,
    number: u64,
    name: BlobName,
    claim: Claim,
    told: bool,
}

/// The shards that wait for one drive.
#[derive(Default)]
pub(crate) struct Outbox(Mutex<VecDeque<Errand>>);

impl Space {
    /// Encodes what was filled and hands the shards to the drives. Returns at once.
    ///
    /// # Errors
    /// `pool.full`, `drives.too_many_lost`
    pub fn write(&self, filling: Filling) -> Result<Writing> {
        let (shared, payload_bytes) = (&self.shared, filling.len());
        let (plan, claims) = shared.reserve(payload_bytes, filling.purpose, &Refused::default())?;
        let purpose = filling.purpose;
        let buffer = if filling.buffer.len() < plan.shape.bytes() {
            // Fewer drives than when it began to fill: the parity takes more.
            let mut larger = shared.memory.take_anyway(plan.shape.bytes());
            larger.as_mut()[..payload_bytes].copy_from_slice(filling.content());
            larger
        } else {
            filling.buffer
        };
        let (stripe, Encoded { shards, content_check }) =
            shared.encode(buffer, &plan, payload_bytes)?;
        let state = State::new(stripe, plan.shape, shards, claims);
        let flight = Arc::new(Flight {
            shared: Arc::clone(shared),
            purpose,
            payload_bytes,
            content_check,
            state: Mutex::new(state),
            changed: Condvar::new(),
            settling: Mutex::new(()),
        });
        let mut flights = lock(&shared.flights);
        flights.retain(|flight| flight.strong_count() > 0);
        flights.push(Arc::downgrade(&flight));
        drop(flights);
        flight.send_all();
        Ok(Writing { flight, waited: false })
    }
}

impl Shared {
    fn encode(
        &self,
        buffer: super::buffers::Buffer,
        plan: &Plan,
        payload_bytes: usize,
    ) -> Result<(Stripe, Encoded)> {
        let stripe = Stripe {
            id: StripeId::draw(&*self.seams.random),
            epoch: plan.epoch,
            code: numbers(&plan.code),
            shard_bytes: plan.shape.shard_bytes as u32,
            payload_bytes: payload_bytes as u32,
            placement: plan.placement.clone(),
        };
        let block_bytes = self.options.block_bytes;
        let encoded = encode(buffer, plan.shape, &plan.code, self.pool, &stripe, block_bytes)?;
        Ok((stripe, encoded))
    }

    /// What a shard of a stripe takes on its drive.
    pub(crate) fn file_bytes(&self, stripe: &Stripe) -> u64 {
        self.header_bytes(stripe) as u64 + u64::from(stripe.shard_bytes)
    }

    fn outbox(&self, seat: u16) -> Arc<Outbox> {
        Arc::clone(lock(&self.outboxes).entry(seat).or_default())
    }

    fn flights(&self) -> Vec<Arc<Flight>> {
        lock(&self.flights).iter().filter_map(std::sync::Weak::upgrade).collect()
    }

    /// Looks after stripes whose drives refused and whose owners are not looking.
    pub(crate) fn help_flights(&self) {
        for flight in self.flights() {
            if let Ok(_settling) = flight.settling.try_lock() {
                flight.settle_refused();
            }
        }
    }
}

impl State {
    fn new(stripe: Stripe, shape: Shape, shards: Vec<Parts>, claims: Vec<Claim>) -> Self {
        Self {
            stripe,
            file_bytes: shape.file_bytes(),
            shards,
            slots: claims.into_iter().map(Slot::Unsent).collect(),
            refused: Refused::default(),
            result: None,
            looked: Duration::MAX,
            abandoned: false,
            errands: 0,
        }
    }

    fn refusals(&mut self, now: Duration, timeout: Duration) -> Vec<(usize, Error)> {
        let mut refusals = Vec::new();
        // Time in which nobody looked does not count: the whole process may have stood still.
        let unseen = now.saturating_sub(self.looked).saturating_sub(LOOK * 2);
        self.looked = now;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Slot::Pending(_, since) = slot {
                *since = now.min(*since + unseen);
                if now.saturating_sub(*since) >= timeout {
                    *slot = Slot::Refused(late());
                }
            }
            if let Slot::Refused(error) = slot {
                refusals.push((index, error.clone()));
            }
        }
        refusals
    }
}

pub(crate) fn late() -> Error {
    Error::new(&codes::DRIVE_TIMEOUT, "the drive did not answer in time")
}

impl Flight {
    fn is_for(&self, seat: u16) -> bool {
        lock(&self.state).stripe.placement.contains(&seat)
    }

    /// Hands every shard to the drive where it is placed.
    fn send_all(self: &Arc<Self>) {
        let shards = lock(&self.state).slots.len();
        (0..shards).for_each(|index| self.send(index));
    }

    /// Hands a shard to the drive where it is placed, unless it is not wanted any more.
    fn send(self: &Arc<Self>, index: usize) {
        let mut state = lock(&self.state);
        let Some(claim) = state.take_unsent(index) else { return };
        state.errands += 1;
        let (number, seat) = (state.errands, state.stripe.placement[index]);
        let roster = self.shared.roster.load();
        let drive = roster.seat(seat).and_then(|seat| seat.writable());
        let drive = drive.filter(|drive| claim.is_of(drive.room()));
        let (Some(drive), Ok(name)) = (drive, header::name(state.stripe.id, index)) else { return };
        let now = self.shared.seams.clock.monotonic();
        state.looked = state.looked.min(now);
        state.slots[index] = Slot::Pending(number, now);
        drop(state);
        let outbox = self.shared.outbox(seat);
        let flight = Arc::clone(self);
        lock(&outbox.0).push_back(Errand { flight, index, number, name, claim, told: false });
        drop(drive.submit(move |drive| {
            outbox.run(drive);
            Ok(())
        }));
    }

    /// Waits until every shard is durable somewhere, or cannot be.
    fn settle(self: &Arc<Self>, deadline: &Deadline) -> Result<Stripe> {
        let _settling = lock(&self.settling);
        loop {
            self.settle_refused();
            let state = lock(&self.state);
            match &state.result {
                Some(Ok(())) => return Ok(state.stripe.clone()),
                Some(Err(error)) => return Err(error.clone()),
                None => {}
            }
            let waiting = |state: &mut State| {
                state.result.is_none()
                    && !state.slots.iter().any(|slot| matches!(slot, Slot::Refused(_)))
            };
            deadline.check()?;
            let patience = self.shared.options.drive_timeout.min(LOOK).min(deadline.remaining());
            drop(
                self.changed
                    .wait_timeout_while(state, patience, waiting)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// Finds other drives for what was refused. The caller holds `settling`.
    fn settle_refused(self: &Arc<Self>) {
        let now = self.shared.seams.clock.monotonic();
        let (refusals, placement) = {
            let mut state = lock(&self.state);
            if state.result.is_some() || state.abandoned {
                return;
            }
            let refusals = state.refusals(now, self.shared.options.drive_timeout);
            (refusals, state.stripe.placement.clone())
        };
        if refusals.is_empty() {
            return;
        }
        // No drive's fault, and no other drive would help.
        if let Some((_, error)) = refusals.iter().find(|(_, e)| e.is_of_process()) {
            lock(&self.state).result = Some(Err(error.clone()));
            return self.changed.notify_all();
        }
        for (index, error) in &refusals {
            self.refuse(placement[*index], error);
        }
        for (index, _) in &refusals {
            if !self.send_elsewhere(*index) {
                return self.encode_anew();
            }
        }
    }

    /// Notes that a drive refused.
    fn refuse(&self, seat: u16, error: &Error) {
        let mut state = lock(&self.state);
        if error.is(&codes::DRIVE_FULL) {
            state.refused.full.push(seat);
        } else {
            state.refused.failed.push(seat);
        }
        drop(state);
        let roster = self.shared.roster.load();
        let in_service = roster.seat(seat).is_some_and(|seat| seat.writable().is_some());
        if in_service && !error.is(&codes::DRIVE_FULL) {
            self.shared.blame(seat, error);
        }
    }

    /// Sends a shard to a drive that has none of this stripe; false if there is none.
    fn send_elsewhere(self: &Arc<Self>, index: usize) -> bool {
        let mut state = lock(&self.state);
        let (taken, bytes) = (state.stripe.placement.clone(), state.file_bytes);
        let another = self.shared.another(&taken, &state.refused, bytes, self.purpose);
        let Some((seat, claim)) = another else { return false };
        let Some(slot) = state.slots.get_mut(index) else { return true };
        *slot = Slot::Unsent(claim);
        state.stripe.placement[index] = seat;
        drop(state);
        self.send(index);
        true
    }

    /// Encodes the content for the drives that are left.
    fn encode_anew(self: &Arc<Self>) {
        let done = self.try_encode_anew();
        match done {
            Ok(()) => self.send_all(),
            Err(error) => {
                let mut state = lock(&self.state);
                state.result = Some(Err(error));
                self.changed.notify_all();
            }
        }
    }

    fn try_encode_anew(self: &Arc<Self>) -> Result<()> {
        let (data, refused) = {
            let state = lock(&self.state);
            if state.abandoned {
                return Ok(());
            }
            let data = usize::from(state.stripe.code.data);
            let payloads = state.shards.iter().take(data).map(|[_, payload]| payload.clone());
            (payloads.collect::<Vec<_>>(), state.refused.clone())
        };
        let (plan, claims) = self.shared.reserve(self.payload_bytes, self.purpose, &refused)?;
        // Whoever waits for memory may be waiting for this stripe.
        let mut buffer = self.shared.memory.take_anyway(plan.shape.bytes());
        let (mut room, mut left) = (buffer.as_mut(), self.payload_bytes);
        for payload in data {
            let taken = left.min(payload.len());
            room[..taken].copy_from_slice(&payload[..taken]);
            (room, left) = (&mut room[taken..], left - taken);
        }
        let (stripe, Encoded { shards, .. }) =
            self.shared.encode(buffer, &plan, self.payload_bytes)?;
        let mut state = lock(&self.state);
        if state.abandoned {
            return Ok(());
        }
        let unsent = claims.into_iter().map(Slot::Unsent).collect();
        let (before, slots) = (
            std::mem::replace(&mut state.stripe, stripe),
            std::mem::replace(&mut state.slots, unsent),
        );
        state.shards = shards;
        state.file_bytes = plan.shape.file_bytes();
        drop(state);
        drop(self.shared.delete_soon(&before, written(&slots)));
        Ok(())
    }

    /// Nobody wants it any more: what is on the drives goes, what comes there goes then.
    fn abandon(&self) {
        let mut state = lock(&self.state);
        state.abandoned = true;
        state.shards.clear();
        let slots = std::mem::take(&mut state.slots);
        let stripe = state.stripe.clone();
        drop(state);
        drop(self.shared.delete_soon(&stripe, written(&slots)));
    }

    /// What an errand is to write, unless it was taken off.
    fn parts(&self, errand: &Errand) -> Option<Parts> {
        let state = lock(&self.state);
        if state.is_current(errand) { state.shards.get(errand.index).cloned() } else { None }
    }

    /// Takes an errand's result; false if nobody wants it any more.
    fn report(&self, errand: &Errand, result: Result<()>) -> bool {
        let mut state = lock(&self.state);
        if !state.is_current(errand) {
            return false;
        }
        state.slots[errand.index] = match result {
            Ok(()) => Slot::Durable,
            Err(error) => Slot::Refused(error),
        };
        if state.slots.iter().all(|slot| matches!(slot, Slot::Durable)) {
            state.shards.clear();
            state.result = Some(Ok(()));
        }
        drop(state);
        self.changed.notify_all();
        true
    }
}

impl State {
    /// The room that is taken for a shard that was not sent. Until it is, it counts as refused.
    fn take_unsent(&mut self, index: usize) -> Option<Claim> {
        let slot = self.slots.get_mut(index).filter(|slot| matches!(slot, Slot::Unsent(_)))?;
        match std::mem::replace(slot, Slot::Refused(gone())) {
            Slot::Unsent(claim) => Some(claim),
            _ => None,
        }
    }

    fn is_current(&self, errand: &Errand) -> bool {
        let slot = self.slots.get(errand.index);
        matches!(slot, Some(Slot::Pending(number, _)) if *number == errand.number)
    }
}

impl Space {
    /// True while a stripe is on its way that has a shard on this seat, or will have one.
    pub fn is_awaited(&self, seat: u16) -> bool {
        self.shared.flights().iter().any(|flight| flight.is_for(seat))
    }

    /// Deletes a stripe that no commit names, and waits for it only a moment: a shard that stays, or comes back
    /// with the power, is an orphan and goes through quarantine.
    pub fn discard(&self, stripe: &Stripe) {
        let clock = Arc::clone(&self.shared.seams.clock);
        let moment = Deadline::after(clock, LOOK);
        for ticket in self.shared.delete_soon(stripe, 0..stripe.placement.len()) {
            drop(ticket.wait_for(moment.remaining()));
        }
    }
}

/// The shards that a drive has written.
fn written(slots: &[Slot]) -> impl Iterator<Item = usize> {
    let durable = |(index, slot)| matches!(slot, &Slot::Durable).then_some(index);
    slots.iter().enumerate().filter_map(durable)
}

impl Shared {
    /// Asks the drives to delete shards of a stripe that no commit names. Does not wait, and does not sync.
    fn delete_soon(&self, stripe: &Stripe, shards: impl Iterator<Item = usize>) -> Vec<Ticket<()>> {
        let (roster, bytes) = (self.roster.load(), self.file_bytes(stripe));
        let delete = |index| {
            self.headers.forget(stripe.id, index);
            let drive = roster.seat(*stripe.placement.get(index)?)?.readable()?;
            let (room, name) = (Arc::clone(drive.room()), header::name(stripe.id, index).ok()?);
            Some(drive.submit(move |drive| room.delete(bytes, || drive.delete(&name))))
        };
        shards.filter_map(delete).collect()
    }
}

fn gone() -> Error {
    Error::new(&codes::DRIVE_FAILED, "the drive was taken out of service")
}

impl Outbox {
    /// Runs on the drive's thread: puts what waits, and syncs it together.
    fn run(&self, drive: &dyn Drive) {
        let errands: Vec<Errand> = {
            let mut waiting = lock(&self.0);
            let count = waiting.len().min(SHARDS_PER_SYNC);
            waiting.drain(..count).collect()
        };
        let mut put = Vec::with_capacity(errands.len());
        for mut errand in errands {
            let Some(parts) = errand.flight.parts(&errand) else {
                errand.dismiss();
                continue;
            };
            match drive.put(&errand.name, &parts) {
                Ok(()) => {
                    errand.claim.land();
                    put.push(errand);
                }
                Err(error) => {
                    errand.tell(Err(error));
                }
            }
        }
        if put.is_empty() {
            return;
        }
        let synced = drive.sync(SYNC_WRITE);
        for mut errand in put {
            if !errand.tell(synced.clone()) && synced.is_ok() {
                // It came too late. If it cannot be deleted, or comes back with the power, it is an orphan.
                let Errand { name, claim, .. } = &mut errand;
                let _ = claim.delete(|| drive.delete(name));
            }
        }
    }
}

impl Errand {
    fn tell(&mut self, result: Result<()>) -> bool {
        self.told = true;
        self.flight.report(self, result)
    }

    fn dismiss(mut self) {
        self.told = true;
    }
}

impl Drop for Errand {
    /// The drive's thread ended before it came to this.
    fn drop(&mut self) {
        if !self.told {
            self.flight.report(self, Err(gone()));
        }
    }
}

impl Writing {
    /// CRC-64/NVME of the content.
    pub fn check(&self) -> u64 {
        self.flight.content_check
    }

    /// Waits until every shard is durable and says where they are. A shard that a drive refused or was late
    /// with is on another one then.
    ///
    /// # Errors
    /// `pool.full`, `drives.too_many_lost`, `process.exhausted`, `context.deadline`: what was written is removed.
    pub fn wait(self, deadline: &Deadline) -> Result<Stripe> {
        self.wait_and(deadline, |_| ())
    }

    /// [`wait`](Self::wait), and `note` what was written while it still counts as [on its
    /// way](Space::is_awaited).
    ///
    /// # Errors
    /// As `wait`.
    pub fn wait_and(mut self, deadline: &Deadline, note: impl FnOnce(&Stripe)) -> Result<Stripe> {
        let result = self.flight.settle(deadline);
        self.waited = result.is_ok();
        result.inspect(note)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.waited {
            self.flight.abandon();
        }
    }
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.flight.state);
        f.debug_struct("Writing").field("stripe", &state.stripe.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flight({} bytes)", self.payload_bytes)
    }
}
