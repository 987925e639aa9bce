//! Opening a pool: whose drives are these, which of them are up to date, may it be written to?

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use dwk_base::{Deadline, DriveId, Epoch, Error, PoolId, Result, Seams, codes};
use dwk_drive::{
    Answer, Attached, Drive, Holder, InPassing, Lease, Loaded, LockMode, MemberRow, MemberState,
    SlotState, Superblock, Ticket, lock_in_passing,
};
use dwk_erasure::Geometry;
use dwk_journal::{Identity, Journal, Member};

use crate::away::{Away, seat_at};
use crate::create::is_torn_first;
use crate::membership::{Membership, Present, Remark, Table, mark};
use crate::pool::{CLOSE_TIME, Pool, PoolOptions, await_all};
use crate::space::Space;
use crate::verdict::Verdict;
use crate::warden::{Evicting, Warden, Watching};

/// How to open.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Write nothing.
    pub read_only: bool,
    /// Open what lies beyond the promises: more drives lost than tolerated, a lone half that was not
    /// closed, a journal of which only older copies are here. Logged as a warning.
    pub force: bool,
    /// Only this pool; others are foreign. `None`: the pool of most drives.
    pub expected: Option<PoolId>,
    /// Drives of other pools than the expected one are left out, and their seats say so, instead of
    /// being refused: for drives that nobody named.
    pub leave_foreign_out: bool,
    /// Drives that were not even found: where, and why.
    pub away: Vec<(String, Error)>,
    /// Which drive lay where, as far as somebody remembers. Nobody trusts it but to say whose place it is.
    pub places: BTreeMap<String, DriveId>,
    /// Until when; looked at between steps.
    pub until: Deadline,
    /// Sizes and limits.
    pub pool: PoolOptions,
}

/// A drive with what its superblock says.
struct Candidate {
    drive: Arc<Attached>,
    lease: Lease,
    loaded: Result<Option<Loaded>>,
}

/// What the drives together say.
struct Assembly {
    table: Table,
    leases: BTreeMap<DriveId, Lease>,
    geometry: Geometry,
    /// Journal members that are here.
    journal: Vec<DriveId>,
    read_only: Option<String>,
    warnings: Vec<String>,
}

impl Pool {
    /// Opens the pool that lies on `drives`. A drive without a superblock is not adopted.
    ///
    /// # Errors
    /// `store.not_found` (no drive carries a pool), `store.unfinished` (creating it was cut off),
    /// `store.locked`, `drive.foreign`, `drive.duplicate`, `drives.too_many_lost`, `format.newer`, `journal.damaged`, `context.deadline`, and those of the
    /// drives.
    pub fn open(
        drives: Vec<Arc<dyn Drive>>,
        options: OpenOptions,
        seams: Seams,
        holder: &Holder,
    ) -> Result<Arc<Self>> {
        let clock = Arc::clone(&seams.clock);
        let drives: Vec<_> = drives.into_iter().map(Attached::new).collect();
        Self::open_on(&drives, options, seams, holder).inspect_err(|_| {
            let closing = drives.iter().map(|drive| drive.close()).collect();
            await_all(closing, &Deadline::after(clock, CLOSE_TIME));
        })
    }

    fn open_on(
        drives: &[Arc<Attached>],
        mut options: OpenOptions,
        seams: Seams,
        holder: &Holder,
    ) -> Result<Arc<Self>> {
        let mut found = Found { away: Away::new(mem::take(&mut options.away)), ..Found::default() };
        let looks = drives.iter().map(|drive| Look::start(drive, holder, &options));
        for look in looks.collect::<Vec<_>>() {
            options.until.check()?;
            found.take(look, &options)?;
        }
        let assembly = assemble(found, &options)?;
        options.until.check()?;
        let pool = begin(assembly, &options, seams)?;
        options.until.check().inspect_err(|_| {
            // Nothing was written since: what fails here costs a longer next opening.
            let _ = pool.close();
        })?;
        Ok(pool)
    }
}

/// What became of the drives that were looked at.
#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    away: Away,
}

/// A drive that is being looked at, on its own thread: one that hangs holds up nobody for ever.
struct Look {
    location: String,
    ticket: Ticket<(Candidate, InPassing)>,
}

impl Look {
    fn start(drive: &Arc<Attached>, holder: &Holder, options: &OpenOptions) -> Self {
        let location = location_of(drive);
        let expected = options.expected.filter(|_| options.leave_foreign_out);
        let mode = if options.read_only { LockMode::Shared } else { LockMode::Exclusive };
        let (holder, itself) = (holder.clone(), Arc::clone(drive));
        let limit = options.pool.drive_timeout;
        let ticket = drive.submit_log(move |drive| {
            // Before it is locked: another process may have that pool open.
            if let (Some(pool), Ok(Some(loaded))) = (expected, Superblock::load(drive)) {
                check_pool(&drive.describe().location, loaded.pool, pool)?;
            }
            let (lock, passing) = lock_in_passing(drive, &holder, mode, limit)?;
            let lease = Lease::new(Arc::clone(&itself), lock);
            let loaded = Superblock::load(drive);
            Ok((Candidate { drive: itself, lease, loaded }, passing))
        });
        Self { location, ticket }
    }
}

impl Found {
    /// Takes a drive that is locked and whose superblock was read; the others are away.
    fn take(&mut self, look: Look, options: &OpenOptions) -> Result<()> {
        let Look { location, ticket } = look;
        let error = match ticket.wait_until(options.pool.drive_timeout, &options.until) {
            Answer::TimeOver => return Err(Deadline::passed("a drive takes long to be opened")),
            Answer::Late => {
                let text = format!("{location} does not answer");
                Error::new(&codes::DRIVE_TIMEOUT, text).with("drive", &location)
            }
            Answer::Came(Ok((candidate, _))) => {
                self.candidates.push(candidate);
                return Ok(());
            }
            Answer::Came(Err(error))
                if error.is(&codes::STORE_LOCKED) && InPassing::has(&location) =>
            {
                let text = format!("{location} does not answer: nor did it at an earlier opening");
                Error::new(&codes::DRIVE_TIMEOUT, text).with("drive", &location).caused_by(error)
            }
            Answer::Came(Err(error)) if error.is(&codes::STORE_LOCKED) => return Err(error),
            Answer::Came(Err(error)) if error.is_of_process() => return Err(error),
            // The directory is there, and no drive.
            Answer::Came(Err(error)) if error.is(&codes::DRIVE_MISSING) => empty(),
            Answer::Came(Err(error)) => error,
        };
        self.away.push(location, error);
        Ok(())
    }
}

fn location_of(drive: &Attached) -> String {
    drive.drive().describe().location
}

fn empty() -> Error {
    Error::new(&codes::STORE_NOT_FOUND, "the drive carries no pool")
}

/// The drives by what their superblocks say.
#[derive(Default)]
struct Sorted {
    known: Vec<Known>,
    /// Those on which nothing was ever in force.
    unborn: Vec<Known>,
    /// Those whose superblocks are lost.
    unknown: Vec<Unknown>,
    away: Away,
}

impl Sorted {
    fn of(found: Found) -> Result<Self> {
        let mut sorted = Self { away: found.away, ..Self::default() };
        for Candidate { drive, lease, loaded } in found.candidates {
            let location = location_of(&drive);
            match loaded {
                Ok(Some(loaded)) if loaded.is_unborn => sorted.unborn.push((drive, lease, loaded)),
                Ok(Some(loaded)) => sorted.known.push((drive, lease, loaded)),
                Err(error) if error.is(&codes::FORMAT_NEWER) => return Err(error),
                Err(error) if error.is_of_process() => return Err(error),
                Ok(None) if holds_shards(drive.drive())? => {
                    let error = Error::new(&codes::SUPERBLOCK_DAMAGED, "both slots are blank");
                    sorted.unknown.push((drive, lease, error));
                }
                Ok(None) | Err(_) if is_torn_first(drive.drive())? => {
                    sorted.away.push(location.clone(), unfinished(&location));
                }
                Ok(None) => sorted.away.push(location, empty()),
                Err(error) => sorted.unknown.push((drive, lease, error)),
            }
        }
        sorted.admit_unborn();
        Ok(sorted)
    }

    /// A pool that is in force somewhere was made: opening it finishes that. Of any other pool a drive that
    /// is unborn carries nothing.
    fn admit_unborn(&mut self) {
        for (drive, lease, loaded) in mem::take(&mut self.unborn) {
            if self.known.iter().any(|(_, _, known)| known.pool == loaded.pool) {
                self.known.push((drive, lease, loaded));
            } else {
                let location = location_of(&drive);
                self.away.push(location.clone(), unfinished(&location));
            }
        }
    }

    /// Why nothing can be opened.
    fn refusal(&self, options: &OpenOptions) -> Error {
        match self.unknown.first().filter(|_| !self.away.is_unfinished()) {
            Some((_, _, damage)) => damage.clone(),
            None => self.away.refusal(options.expected),
        }
    }
}

fn unfinished(location: &str) -> Error {
    let text = format!("creating the pool of {location} was cut off before it held anything");
    Error::new(&codes::STORE_UNFINISHED, text).with("drive", location)
}

fn assemble(found: Found, options: &OpenOptions) -> Result<Assembly> {
    let sorted = Sorted::of(found)?;
    check_one_pool(&sorted.known, options.expected)?;
    let verdict = Verdict::of(sorted.known.iter().map(|(_, _, loaded)| loaded))
        .ok_or_else(|| sorted.refusal(options))?;
    let geometry: Geometry = verdict.superblock.geometry.parse()?;
    let mut warnings = Vec::new();
    let mut table = Table::new(verdict.superblock.clone(), verdict.follows.clone());
    table.tried = table.tried.max(verdict.tried);
    let mut leases = BTreeMap::new();
    let mut behind = BTreeSet::new();
    for (drive, lease, loaded) in sorted.known {
        if !verdict.reached(&loaded) {
            behind.insert(loaded.drive);
        }
        if let Some(warning) = seat(&mut table, &verdict, &drive, &loaded)? {
            warnings.push(warning);
        } else {
            leases.insert(loaded.drive, lease);
        }
    }
    for (drive, lease, error) in sorted.unknown {
        let location = location_of(&drive);
        warnings.push(format!("the superblock of {location} is damaged: {error}"));
        if let Some(id) = seat_by_location(&mut table, drive, &options.places) {
            leases.insert(id, lease);
        }
    }
    sorted.away.tell(&mut table, &options.places, &mut warnings);
    remark_read_only(&mut table);
    let read_only = may_write(&table, &geometry, options, &mut warnings)?;
    let journal = table.superblock.journal.iter().filter(|id| table.present.contains_key(id));
    let journal: Vec<DriveId> = journal.copied().collect();
    if !journal.is_empty() && journal.iter().all(|id| behind.contains(id)) {
        refuse_old_journal(&table, &journal, options, &mut warnings)?;
    }
    Ok(Assembly { table, leases, geometry, journal, read_only, warnings })
}

/// A drive that was a member once, whatever became of its superblock.
///
/// # Errors
/// Those of the process.
fn holds_shards(drive: &dyn Drive) -> Result<bool> {
    match drive.list(Some("s"), None, 1) {
        Err(error) if error.is_of_process() => Err(error),
        blobs => Ok(blobs.is_ok_and(|blobs| !blobs.is_empty())),
    }
}

type Known = (Arc<Attached>, Lease, Loaded);
type Unknown = (Arc<Attached>, Lease, Error);

fn check_one_pool(known: &[Known], expected: Option<PoolId>) -> Result<()> {
    let mut counts: BTreeMap<PoolId, usize> = BTreeMap::new();
    for (_, _, loaded) in known {
        *counts.entry(loaded.pool).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count).map(|(pool, _)| *pool);
    let Some(pool) = expected.or(most) else { return Ok(()) };
    known
        .iter()
        .try_for_each(|(drive, _, loaded)| check_pool(&location_of(drive), loaded.pool, pool))
}

fn check_pool(location: &str, pool: PoolId, wanted: PoolId) -> Result<()> {
    if pool == wanted {
        return Ok(());
    }
    let text = format!("{location} belongs to pool {pool}, not to {wanted}");
    Err(Error::new(&codes::DRIVE_FOREIGN, text).with("drive", location))
}

/// Gives a drive its seat, or says why it gets none.
fn seat(
    table: &mut Table,
    verdict: &Verdict,
    drive: &Arc<Attached>,
    loaded: &Loaded,
) -> Result<Option<String>> {
    let location = location_of(drive);
    let id = loaded.drive;
    if let Some(other) = table.present.get(&id) {
        let other = location_of(&other.drive);
        let text = format!("{location} and {other} are the same drive, or a copy of it");
        return Err(Error::new(&codes::DRIVE_DUPLICATE, text).with("drive", location));
    }
    let Some(row) = table.superblock.members.iter_mut().find(|row| row.id == id) else {
        return Ok(Some(format!("{location} is not a member of this pool any more")));
    };
    if row.state == MemberState::Removed {
        return Ok(Some(format!("{location} was {} and has been replaced", row.name)));
    }
    let both = [&loaded.in_force, &loaded.proposed].into_iter().flatten();
    let has_it = both.into_iter().any(|placed| placed.superblock.edition() == verdict.edition);
    let took_part = loaded.took_part();
    if !has_it && (took_part > row.epoch || took_part == verdict.superblock.epoch) {
        let text = format!("{location} went on without the rest of its pool and is not merged");
        let remark = Remark { is_foreign: true, text: text.clone(), cure: None };
        table.remarks.insert(id, remark);
        return Ok(Some(text));
    }
    if !has_it || row.state == MemberState::Failed {
        row.state = MemberState::Stale;
    }
    row.location.clone_from(&location);
    let drive = Arc::clone(drive);
    let slots = loaded.keeping(&verdict.edition);
    table.present.insert(id, Present { drive, slots, took_part, has: loaded.has() });
    Ok(None)
}

/// A drive whose superblocks are damaged is known by where it lies: its shards describe themselves.
fn seat_by_location(
    table: &mut Table,
    drive: Arc<Attached>,
    places: &BTreeMap<String, DriveId>,
) -> Option<DriveId> {
    let id = seat_at(table, &location_of(&drive), places)?;
    mark(&mut table.superblock, id, MemberState::Stale);
    let (slots, took_part, has) = (SlotState::fresh(), Epoch(0), Epoch(0));
    table.present.insert(id, Present { drive, slots, took_part, has });
    Some(id)
}

/// Who only looks is told too why a drive will not come along.
fn remark_read_only(table: &mut Table) {
    let Table { present, remarks, .. } = table;
    for (id, present) in present {
        let description = present.drive.drive().describe();
        if description.is_read_only {
            let text = format!("{} is read-only", description.location);
            let cure = Some("make it writable");
            remarks.entry(*id).or_insert(Remark { is_foreign: false, text, cure });
        }
    }
}

/// Refuses what cannot be opened; says why if it can only be read.
fn may_write(
    table: &Table,
    geometry: &Geometry,
    options: &OpenOptions,
    warnings: &mut Vec<String>,
) -> Result<Option<String>> {
    let members: Vec<_> =
        table.superblock.members.iter().filter(|row| row.state != MemberState::Removed).collect();
    let here = members.iter().filter(|row| table.present.contains_key(&row.id)).count();
    let (lost, tolerance) = (members.len() - here, geometry.tolerance());
    if lost > tolerance {
        let gone = members.iter().filter(|row| !table.present.contains_key(&row.id));
        let gone: Vec<_> = gone.map(|row| lost_drive(table, row)).collect();
        let text = format!(
            "{lost} of {} drives are missing and {geometry} tolerates {tolerance}: {}",
            members.len(),
            gone.join(", ")
        );
        if !options.force {
            return Err(Error::new(&codes::DRIVES_TOO_MANY_LOST, text).with("missing", lost));
        }
        warnings.push(format!("forced open: {text}"));
    }
    let half = here <= tolerance && members.len() > here && !table.superblock.clean;
    if half {
        let how = if options.force { "forced open: " } else { "" };
        warnings.push(format!("{how}{LONE_HALF}"));
    }
    if half && !options.force {
        return Ok(Some(LONE_HALF.to_owned()));
    }
    if options.read_only {
        return Ok(Some("the pool was opened read-only".to_owned()));
    }
    if !table.superblock.writable() {
        return Ok(Some("the pool uses a feature that this version can only read".to_owned()));
    }
    Ok(None)
}

/// Every drive of the journal that is here is an older copy of itself: what its log says was true once. A
/// member that fails is taken off the list before anything is acknowledged without it, so on those that are
/// away there may be more.
fn refuse_old_journal(
    table: &Table,
    journal: &[DriveId],
    options: &OpenOptions,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let rows = table.superblock.members.iter();
    let old = rows.filter(|row| journal.contains(&row.id));
    let old: Vec<_> = old.map(|row| format!("{} ({})", row.name, row.location)).collect();
    let all = table.superblock.journal.iter();
    let away = all.filter(|id| !journal.contains(id)).filter_map(|id| table.superblock.member(*id));
    let away: Vec<_> = away.map(|row| lost_drive(table, row)).collect();
    let text = format!(
        "of the drives that hold the journal only older states are here, as copies made earlier have them: {}; not here: {}",
        old.join(", "),
        if away.is_empty() { "none".to_owned() } else { away.join(", ") }
    );
    if !options.force {
        let text = format!("{text}; opened with force, the store is as it was then");
        return Err(Error::new(&codes::JOURNAL_MEMBERS, text));
    }
    warnings.push(format!("forced open: {text}"));
    Ok(())
}

/// Why a half of a pool is only read: who writes to both halves one by one has two pools.
pub(crate) const LONE_HALF: &str =
    "this half of the pool was not closed cleanly and the other may have gone on";

fn lost_drive(table: &Table, row: &MemberRow) -> String {
    match table.remarks.get(&row.id) {
        Some(remark) => format!("{} ({})", row.name, remark.text),
        None => format!("{} ({})", row.name, row.location),
    }
}

fn begin(assembly: Assembly, options: &OpenOptions, seams: Seams) -> Result<Arc<Pool>> {
    let Assembly { table, leases, geometry, journal: in_journal, read_only, warnings } = assembly;
    let (options, until) = (&options.pool, &options.until);
    let (id, tolerance) = (table.superblock.pool, geometry.tolerance());
    if in_journal.is_empty() {
        let holders = table.superblock.journal.iter();
        let rows = holders.filter_map(|id| table.superblock.member(*id));
        let away: Vec<_> = rows.map(|row| lost_drive(&table, row)).collect();
        let text =
            format!("none of the drives that hold the journal can be used: {}", away.join(", "));
        return Err(Error::new(&codes::JOURNAL_MEMBERS, text));
    }
    let members = in_journal.iter().filter_map(|id| {
        let drive = &table.present.get(id)?.drive;
        Some(Member { id: *id, drive: Arc::clone(drive) })
    });
    let members = members.collect();
    let timeout = options.drive_timeout;
    let membership = Arc::new(Membership::new(table, tolerance, timeout, seams.clone()));
    let warden = Warden::new(Arc::clone(&membership), tolerance);
    let evicting = Arc::new(Evicting(Arc::clone(&warden)));
    let journal = if read_only.is_some() {
        let identity = Identity { pool: id, epoch: membership.epoch() };
        let (limits, seams) = (options.journal.clone(), seams.clone());
        Journal::open_read_only(identity, members, limits, evicting, seams, until)?.0
    } else {
        // Only when the log is found: if the copies that are here are of no use, those that are away still are.
        let begin = || {
            membership.change(|superblock| {
                superblock.clean = false;
                superblock.journal.clone_from(&in_journal);
                Ok(())
            })?;
            Ok(membership.epoch())
        };
        let (limits, seams) = (options.journal.clone(), seams.clone());
        Journal::open_then(id, members, limits, evicting, seams, &begin, until)?.0
    };
    let journal = Arc::new(journal);
    warden.set_journal(&journal);
    let watching = Arc::new(Watching(Arc::clone(&warden)));
    let roster = Arc::clone(membership.roster());
    let space = Space::with_code(
        id,
        geometry.stripe_code(),
        options.space.clone(),
        roster,
        watching,
        seams.clone(),
    )?;
    if read_only.is_none() {
        warden.mend()?;
    }
    Ok(Arc::new(Pool {
        id,
        geometry,
        membership,
        warden,
        space,
        journal,
        leases: Mutex::new(leases),
        warnings,
        read_only,
        closed: AtomicBool::new(false),
        repairing: Mutex::new(()),
        seams,
    }))
}
