//! What the pool is like now, and what to do about it.

use std::collections::BTreeMap;

use dwk_base::{DriveId, Epoch, PoolId, Result, StripeId};
use dwk_drive::Capacity;

use crate::advice::{self, Advising};
use crate::pool::Pool;
use crate::replace::REPLACED;
use crate::roster::{Roster, Seat, State};
use crate::warden::members_wanted;
use crate::{Answers, Hedges, Ledger, Stripe};

/// How safe the stored bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redundancy {
    /// Every stripe has all its shards and survives what the geometry promises, the journal has all its copies.
    Full,
    /// Everything can be read; something is missing.
    Degraded,
    /// Something cannot be read with the drives that are here.
    Lost,
}

impl Redundancy {
    /// As status and docs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Degraded => "degraded",
            Self::Lost => "lost",
        }
    }
}

/// One drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveStatus {
    /// What people call it: `"d1"`.
    pub name: String,
    /// Its identity.
    pub id: DriveId,
    /// Where it lies.
    pub location: String,
    /// How it is doing.
    pub state: State,
    /// It failed because nothing can be written there, and is read where too much is lost without it.
    pub is_last_resort: bool,
    /// All of its room.
    pub capacity_bytes: u64,
    /// Room that is left on it.
    pub free_bytes: u64,
    /// What the pool keeps on it, without preallocated room.
    pub used_bytes: u64,
    /// Shards on it.
    pub shards: u64,
    /// True if it holds the journal.
    pub journal: bool,
    /// What its owner calls it by.
    pub labels: BTreeMap<String, String>,
    /// Its answers to reads, and those that were late.
    pub answers: Answers,
}

/// The pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its identity.
    pub id: PoolId,
    /// Its geometry, as it prints.
    pub geometry: String,
    /// How many arbitrary drives it can lose when redundancy is full.
    pub tolerance: usize,
    /// Membership's version.
    pub epoch: Epoch,
    /// Why it can only be read, if so.
    pub read_only: Option<String>,
    /// The drives, in the order in which they joined.
    pub drives: Vec<DriveStatus>,
    /// How safe the stored bytes are.
    pub redundancy: Redundancy,
    /// Stripes that miss a shard, as far as that is known: because its drive is gone, or because a read or a repair
    /// met that.
    pub degraded_stripes: u64,
    /// Stripes that cannot be read now.
    pub lost_stripes: u64,
    /// Stripes that survive fewer losses than the geometry promises: written while too few drives were here.
    pub weak_stripes: u64,
    /// How reads went around late drives.
    pub hedges: Hedges,
    /// Content that fits all drives together.
    pub usable_bytes: u64,
    /// What to do.
    pub advice: Vec<String>,
    /// What was noticed while opening.
    pub warnings: Vec<String>,
}

impl Pool {
    /// The pool as it is now. Goes over the table of stripes only where a drive is not well.
    ///
    /// # Errors
    /// Those of reading the table.
    pub fn status(&self, ledger: &dyn Ledger) -> Result<PoolStatus> {
        let roster = self.roster();
        let (journal, remarks) = {
            let table = self.membership.lock();
            (table.superblock.journal.clone(), table.remarks.clone())
        };
        let mut drives = Vec::new();
        let readable = roster.seats.iter().map(|seat| seat.readable());
        let rooms = crate::asking::rooms(readable, &self.seams.clock);
        for (seat, room) in roster.seats.iter().zip(rooms) {
            let journal = journal.contains(&seat.id);
            let answers = self.space.answers(seat.index);
            drives.push(drive_status(seat, room, ledger, journal, answers)?);
        }
        let gone: Vec<u16> = roster
            .seats
            .iter()
            .filter(|seat| seat.readable().is_none())
            .map(|seat| seat.index)
            .collect();
        let (degraded, lost) = self.count_damage(ledger, &gone)?;
        let (weak, more) = (self.space.weak_stripes(ledger)?, self.space.has_more_damage());
        let live = drives.iter().filter(|drive| drive.journal && drive.state.readable()).count();
        let short = live < members_wanted(self.geometry.tolerance(), roster.seats.len());
        let suspect = drives.iter().any(|drive| drive.state != State::Ok);
        let redundancy = match (lost, degraded) {
            (1.., _) => Redundancy::Lost,
            (0, 0) if weak == 0 && !short && !suspect && !more => Redundancy::Full,
            _ => Redundancy::Degraded,
        };
        // Drives may say that they have no end.
        let capacity: f64 = roster.writable().map(|seat| seat.capacity_bytes as f64).sum();
        let usable_bytes = (capacity * self.geometry.data_fraction()) as u64;
        let advising = Advising { remarks: &remarks, read_only: self.read_only.as_deref() };
        let mut advice = advising.all(&drives, degraded, lost, short);
        advice.extend(widen(weak));
        advice.extend(more.then(look_at_all));
        advice.extend(drives.iter().filter_map(advice::slow));
        Ok(PoolStatus {
            id: self.id,
            geometry: self.geometry.to_string(),
            tolerance: self.geometry.tolerance(),
            epoch: roster.epoch,
            read_only: self.read_only.clone(),
            drives,
            redundancy,
            degraded_stripes: degraded,
            lost_stripes: lost,
            weak_stripes: weak,
            hedges: self.space.hedges(),
            usable_bytes,
            advice,
            warnings: self.warnings_now(&roster),
        })
    }

    fn warnings_now(&self, roster: &Roster) -> Vec<String> {
        let found = self.warnings.iter().cloned();
        found.chain(shared_devices(roster)).chain(self.exposed_domain(roster)).collect()
    }

    /// What to say if losing one failure domain loses more of a stripe than it survives, spread as it may be.
    fn exposed_domain(&self, roster: &Roster) -> Option<String> {
        let (code, tolerance) = (self.geometry.stripe_code(), self.geometry.tolerance());
        let mut domains: BTreeMap<&str, usize> = BTreeMap::new();
        for seat in roster.seats.iter().filter(|seat| !seat.labels.contains_key(REPLACED)) {
            *domains.entry(&seat.failure_domain).or_default() += 1;
        }
        let most = most_in_one(domains.values().copied(), code.k() + code.m());
        (most > tolerance && most > 1 && tolerance > 0).then(|| {
            let count = domains.len();
            format!(
                "with {count} failure domains one holds {most} shards of a stripe, which survives the loss of {tolerance}: spread the drives over more"
            )
        })
    }

    /// How many stripes miss a shard on the seats that are gone or where somebody met that, and how many of them
    /// miss too many.
    fn count_damage(&self, ledger: &dyn Ledger, gone: &[u16]) -> Result<(u64, u64)> {
        const PAGE: usize = 1024;
        let (mut degraded, mut lost, mut after) = (0, 0, None);
        let roster = self.roster();
        let is_last_resort =
            |index| roster.seat(index).is_some_and(|seat| seat.last_resort().is_some());
        let left = |index: &u16| gone.contains(index) || roster.seat(*index).is_none();
        let noted = self.space.noted_shards(ledger)?;
        let noted: BTreeMap<StripeId, _> =
            noted.into_iter().map(|(stripe, shards)| (stripe.id, (stripe, shards))).collect();
        let mut count = |stripe: &Stripe| {
            let mut missing = missing(stripe, left);
            let known = noted.get(&stripe.id).into_iter().flat_map(|(_, shards)| shards);
            missing.extend(known.filter(|shard| !left(&stripe.placement[**shard])));
            degraded += u64::from(!missing.is_empty());
            missing.retain(|shard| !is_last_resort(stripe.placement[*shard]));
            lost += u64::from(!missing.is_empty() && !self.space.readable(stripe, &missing));
        };
        let any = !gone.is_empty() || roster.seats.iter().any(|seat| seat.state != State::Ok);
        if !any {
            for (stripe, _) in noted.values() {
                count(stripe);
            }
            return Ok((degraded, lost));
        }
        loop {
            let page = ledger.stripes(after, PAGE)?;
            let Some(last) = page.last() else { return Ok((degraded, lost)) };
            after = Some(last.id);
            page.iter().for_each(&mut count);
        }
    }
}

/// A warning for each file system, or the like, that holds several drives. Whose place another one took does not
/// count.
fn shared_devices(roster: &Roster) -> Vec<String> {
    let mut devices: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for seat in roster.seats.iter().filter(|seat| !seat.labels.contains_key(REPLACED)) {
        let device = seat.readable().and_then(|drive| drive.drive().describe().failure_domain);
        if let Some(device) = device {
            devices.entry(device).or_default().push(&seat.name);
        }
    }
    let shared = devices.into_values().filter(|names| names.len() > 1);
    let warning = |names: Vec<&str>| {
        let names = names.join(", ");
        format!("{names} lie on one file system and fail together: use one drive for each")
    };
    shared.map(warning).collect()
}

/// How many of `shards` lie in one failure domain if they are spread evenly over domains of these numbers of drives.
fn most_in_one(drives: impl Iterator<Item = usize>, shards: usize) -> usize {
    let mut domains: Vec<(usize, usize)> = drives.map(|drives| (0, drives)).collect();
    for _ in 0..shards {
        let free = domains.iter_mut().filter(|(used, drives)| used < drives);
        if let Some((used, _)) = free.min_by_key(|(used, _)| *used) {
            *used += 1;
        }
    }
    domains.into_iter().map(|(used, _)| used).max().unwrap_or(0)
}

fn missing(stripe: &Stripe, left: impl Fn(&u16) -> bool) -> Vec<usize> {
    let shards = stripe.placement.iter().enumerate();
    shards.filter(|(_, seat)| left(seat)).map(|(shard, _)| shard).collect()
}

fn drive_status(
    seat: &Seat,
    room: Option<Capacity>,
    ledger: &dyn Ledger,
    journal: bool,
    answers: Answers,
) -> Result<DriveStatus> {
    let usage = ledger.usage(seat.index)?;
    let known = seat.readable().map_or(0, |drive| drive.room().free_bytes());
    Ok(DriveStatus {
        name: seat.name.clone(),
        id: seat.id,
        location: seat.location.clone(),
        state: seat.state,
        is_last_resort: seat.last_resort().is_some(),
        capacity_bytes: room.map_or(seat.capacity_bytes, |room| room.total_bytes),
        free_bytes: room.map_or(known, |room| room.free_bytes),
        used_bytes: usage.bytes,
        shards: usage.shards,
        journal,
        labels: seat.labels.clone(),
        answers,
    })
}

/// What to do about damage that nobody remembers one by one.
fn look_at_all() -> String {
    "more damage was met than is remembered: run `scrub --restart`".to_owned()
}

/// What to do about weak stripes, beside what is to be done about the drives.
fn widen(weak: u64) -> Option<String> {
    (weak > 0).then(|| {
        format!(
            "{weak} stripes, written while drives were missing, survive fewer losses than the rest: run `rebuild` once the drives are here"
        )
    })
}
