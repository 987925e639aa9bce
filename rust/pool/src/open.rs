//! Opening a pool: whose drives are these, which of them are up to date, may it be written to?

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use dwk_base::{DriveId, Error, PoolId, Result, Seams, codes};
use dwk_drive::{
    Attached, Drive, Holder, Loaded, Lock, LockMode, MemberState, SlotState, Superblock,
};
use dwk_erasure::Geometry;
use dwk_journal::{Identity, Journal, Member};

use crate::create::shared_domains;
use crate::membership::{Membership, Present, Table};
use crate::pool::{Pool, PoolOptions};
use crate::space::Space;
use crate::warden::{Evicting, Warden, Watching};

/// How to open.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Write nothing.
    pub read_only: bool,
    /// Open what lies beyond the promises: more drives lost than tolerated, a lone half that was not
    /// closed. Logged as a warning.
    pub force: bool,
    /// Only this pool; others are foreign. `None`: the pool of most drives.
    pub expected: Option<PoolId>,
    /// Sizes and limits.
    pub pool: PoolOptions,
}

/// A drive with what its superblock says.
struct Candidate {
    drive: Arc<dyn Drive>,
    lock: Box<dyn Lock>,
    loaded: Result<Option<Loaded>>,
}

/// What the drives together say.
struct Assembly {
    table: Table,
    locks: BTreeMap<DriveId, Box<dyn Lock>>,
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
    /// `store.not_found` (no drive carries a pool), `store.locked`, `drive.foreign`, `drive.duplicate`,
    /// `drives.too_many_lost`, `format.newer`, `journal.damaged`, and those of the drives.
    pub fn open(
        drives: Vec<Arc<dyn Drive>>,
        options: OpenOptions,
        seams: Seams,
        holder: &Holder,
    ) -> Result<Arc<Self>> {
        let mode = if options.read_only { LockMode::Shared } else { LockMode::Exclusive };
        let mut warnings = Vec::new();
        let candidates = take(drives, holder, mode, &mut warnings)?;
        let assembly = assemble(candidates, &options, warnings)?;
        begin(assembly, options, seams)
    }
}

/// Locks the drives and reads their superblocks.
fn take(
    drives: Vec<Arc<dyn Drive>>,
    holder: &Holder,
    mode: LockMode,
    warnings: &mut Vec<String>,
) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for drive in drives {
        let location = drive.describe().location;
        match drive.lock(holder, mode) {
            Ok(lock) => {
                let loaded = Superblock::load(&*drive);
                candidates.push(Candidate { drive, lock, loaded });
            }
            Err(error) if error.is(&codes::STORE_LOCKED) => return Err(error),
            Err(error) => warnings.push(format!("{location} cannot be used: {error}")),
        }
    }
    Ok(candidates)
}

fn assemble(
    candidates: Vec<Candidate>,
    options: &OpenOptions,
    mut warnings: Vec<String>,
) -> Result<Assembly> {
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    for candidate in candidates {
        match candidate.loaded {
            Ok(Some(loaded)) => known.push((candidate.drive, candidate.lock, loaded)),
            Err(error) if error.is(&codes::FORMAT_NEWER) => return Err(error),
            Ok(None) if holds_shards(&*candidate.drive) => {
                let error = Error::new(&codes::SUPERBLOCK_DAMAGED, "both slots are blank");
                unknown.push((candidate.drive, candidate.lock, error));
            }
            Ok(None) => {
                let location = candidate.drive.describe().location;
                warnings.push(format!("{location} is empty: it is not taken for a missing drive"));
            }
            Err(error) => unknown.push((candidate.drive, candidate.lock, error)),
        }
    }
    check_one_pool(&known, options.expected)?;
    let superblock = newest(&known, unknown.first().map(|(_, _, error)| error))?;
    let geometry: Geometry = superblock.geometry.parse()?;
    let tried = known.iter().map(|(_, _, loaded)| loaded.superblock.epoch).max();
    let tried = tried.unwrap_or(superblock.epoch);
    let (found, present, suspect) = (superblock.clone(), BTreeMap::new(), BTreeMap::new());
    let mut table = Table { superblock, present, suspect, tried };
    let mut locks = BTreeMap::new();
    for (drive, lock, loaded) in known {
        if let Some(warning) = seat(&mut table, &found, &drive, &loaded)? {
            warnings.push(warning);
        } else {
            locks.insert(loaded.superblock.drive, lock);
        }
    }
    for (drive, lock, error) in unknown {
        let location = drive.describe().location;
        warnings.push(format!("the superblock of {location} is damaged: {error}"));
        if let Some(id) = seat_by_location(&mut table, drive) {
            locks.insert(id, lock);
        }
    }
    warnings.extend(domain_warnings(&table));
    let read_only = may_write(&table, &geometry, options, &mut warnings)?;
    let journal = table.superblock.journal.iter().filter(|id| table.present.contains_key(id));
    let journal = journal.copied().collect();
    Ok(Assembly { table, locks, geometry, journal, read_only, warnings })
}

/// A drive that was a member once, whatever became of its superblock.
fn holds_shards(drive: &dyn Drive) -> bool {
    drive.list(Some("s"), None, 1).is_ok_and(|blobs| !blobs.is_empty())
}

type Known = (Arc<dyn Drive>, Box<dyn Lock>, Loaded);

fn check_one_pool(known: &[Known], expected: Option<PoolId>) -> Result<()> {
    let mut counts: BTreeMap<PoolId, usize> = BTreeMap::new();
    for (_, _, loaded) in known {
        *counts.entry(loaded.superblock.pool).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count).map(|(pool, _)| *pool);
    let Some(pool) = expected.or(most) else { return Ok(()) };
    for (drive, _, loaded) in known {
        let other = loaded.superblock.pool;
        if other != pool {
            let location = drive.describe().location;
            let text = format!("{location} belongs to pool {other}, not to {pool}");
            return Err(Error::new(&codes::DRIVE_FOREIGN, text).with("drive", location));
        }
    }
    Ok(())
}

/// The superblock of the highest epoch; of several different ones, that which most drives carry.
fn newest(known: &[Known], damage: Option<&Error>) -> Result<Superblock> {
    let plain =
        |superblock: &Superblock| Superblock { drive: DriveId::default(), ..superblock.clone() };
    let same = |superblock: &Superblock| {
        let wanted = plain(superblock);
        known.iter().filter(|(_, _, loaded)| plain(&loaded.superblock) == wanted).count()
    };
    let superblocks = known.iter().map(|(_, _, loaded)| &loaded.superblock);
    let best = superblocks.max_by_key(|superblock| (superblock.epoch, same(superblock)));
    match (best, damage) {
        (Some(best), _) => Ok(best.clone()),
        (None, Some(error)) => Err(error.clone()),
        (None, None) => Err(Error::new(&codes::STORE_NOT_FOUND, "no drive carries a pool")),
    }
}

/// Gives a drive its seat, or says why it gets none.
fn seat(
    table: &mut Table,
    found: &Superblock,
    drive: &Arc<dyn Drive>,
    loaded: &Loaded,
) -> Result<Option<String>> {
    let location = drive.describe().location;
    let (id, epoch) = (loaded.superblock.drive, loaded.superblock.epoch);
    if let Some(other) = table.present.get(&id) {
        let other = other.drive.drive().describe().location;
        let text = format!("{location} and {other} are the same drive, or a copy of it");
        return Err(Error::new(&codes::DRIVE_DUPLICATE, text).with("drive", location));
    }
    let Some(row) = table.superblock.members.iter_mut().find(|row| row.id == id) else {
        return Ok(Some(format!("{location} is not a member of this pool any more")));
    };
    if row.state == MemberState::Removed {
        return Ok(Some(format!("{location} was {} and has been replaced", row.name)));
    }
    let differs = Superblock { drive: id, ..found.clone() } != loaded.superblock;
    if epoch > row.epoch || (epoch == found.epoch && differs) {
        let text = format!(
            "{location} went on without the rest of its pool and is not merged: replace it to use it here"
        );
        return Ok(Some(text));
    }
    if epoch < found.epoch || row.state == MemberState::Failed {
        row.state = MemberState::Stale;
    }
    row.location.clone_from(&location);
    let drive = Attached::new(Arc::clone(drive));
    table.present.insert(id, Present { drive, slots: loaded.slots });
    Ok(None)
}

/// A drive whose superblocks are damaged is known by where it lies: its shards describe themselves.
fn seat_by_location(table: &mut Table, drive: Arc<dyn Drive>) -> Option<DriveId> {
    let location = drive.describe().location;
    let rows = table.superblock.members.iter_mut();
    let row = rows
        .filter(|row| !table.present.contains_key(&row.id) && row.state != MemberState::Removed)
        .find(|row| row.location == location)?;
    let id = row.id;
    row.state = MemberState::Stale;
    let slots = SlotState::fresh();
    table.present.insert(id, Present { drive: Attached::new(drive), slots });
    Some(id)
}

fn domain_warnings(table: &Table) -> Vec<String> {
    let domain = |id: &DriveId| {
        table.present.get(id).and_then(|present| present.drive.drive().describe().failure_domain)
    };
    let rows = table.superblock.members.iter();
    shared_domains(rows.map(|row| (row.name.clone(), domain(&row.id))))
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
        let gone: Vec<_> = gone.map(|row| format!("{} ({})", row.name, row.location)).collect();
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
    if options.read_only {
        return Ok(Some("the pool was opened read-only".to_owned()));
    }
    if !table.superblock.writable() {
        return Ok(Some("the pool uses a feature that this version can only read".to_owned()));
    }
    let half = here <= tolerance && members.len() > here;
    if half && !table.superblock.clean && !options.force {
        let text = "this half of the pool was not closed cleanly and the other may have gone on";
        warnings.push(text.to_owned());
        return Ok(Some(text.to_owned()));
    }
    Ok(None)
}

fn begin(assembly: Assembly, options: OpenOptions, seams: Seams) -> Result<Arc<Pool>> {
    let Assembly { table, locks, geometry, journal: in_journal, read_only, warnings } = assembly;
    let options = options.pool;
    let (id, tolerance) = (table.superblock.pool, geometry.tolerance());
    if in_journal.is_empty() {
        let text = "none of the drives that hold the journal is here";
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
        Journal::open_read_only(identity, members, limits, evicting, seams)?.0
    } else {
        membership.change(|superblock| {
            superblock.clean = false;
            superblock.journal.clone_from(&in_journal);
            Ok(())
        })?;
        let identity = Identity { pool: id, epoch: membership.epoch() };
        Journal::open(identity, members, options.journal.clone(), evicting, seams.clone())?.0
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
        locks: Mutex::new(locks),
        warnings,
        read_only,
        closed: AtomicBool::new(false),
        seams,
    }))
}
