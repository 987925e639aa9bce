//! A new pool on empty drives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use dwk_base::{Deadline, DriveId, Epoch, Error, PoolId, Result, Seams, codes};
use dwk_drive::{
    Attached, BlobName, Drive, FORMAT_VERSION, Features, Holder, Lease, LockMode, MemberRow,
    MemberState, SlotState, Superblock,
};
use dwk_erasure::Geometry;
use dwk_journal::{Identity, Journal, Member};

use crate::membership::{Membership, Present, Table};
use crate::pool::{NewDrive, Pool, PoolOptions};
use crate::replace::REPLACED;
use crate::space::Space;
use crate::warden::{Evicting, Warden, Watching, candidates, members_wanted};

impl Pool {
    /// Makes a pool of empty drives. Until it is all there its superblocks are only proposed: drives on which
    /// making a pool was cut off count as empty.
    ///
    /// # Errors
    /// `geometry.not_storable`, `drives.too_few`, `drive.duplicate`, `drive.not_empty`, `store.locked`, and
    /// those of the drives.
    pub fn create(
        drives: &[NewDrive],
        geometry: &Geometry,
        options: &PoolOptions,
        seams: Seams,
        holder: &Holder,
    ) -> Result<Arc<Self>> {
        Self::create_until(drives, geometry, options, seams, holder, &Deadline::never())
    }

    /// [`create`](Self::create), if it is done by then: no pool is made that nobody waits for any more.
    ///
    /// # Errors
    /// Those of [`create`](Self::create); `context.deadline`, `context.cancelled`
    pub fn create_until(
        drives: &[NewDrive],
        geometry: &Geometry,
        options: &PoolOptions,
        seams: Seams,
        holder: &Holder,
        until: &Deadline,
    ) -> Result<Arc<Self>> {
        check(drives, geometry)?;
        let locks = drives.iter().map(|new| new.drive.lock(holder, LockMode::Exclusive));
        let locks = locks.collect::<Result<Vec<_>>>()?;
        drives.iter().try_for_each(|new| check_empty(&*new.drive))?;
        drives.iter().try_for_each(|new| clear_unborn(&*new.drive))?;

        let superblock = first_superblock(drives, geometry, &seams)?;
        let ids: Vec<DriveId> = superblock.members.iter().map(|row| row.id).collect();
        let mut table = Table::new(superblock, Vec::new());
        for (new, id) in drives.iter().zip(&ids) {
            let drive = Attached::new(Arc::clone(&new.drive));
            let (slots, took_part, has) = (SlotState::fresh(), Epoch(0), Epoch(0));
            table.present.insert(*id, Present { drive, slots, took_part, has });
        }
        let leases = ids.iter().zip(locks).filter_map(|(id, lock)| {
            Some((*id, Lease::new(Arc::clone(&table.present.get(id)?.drive), lock)))
        });
        let leases = leases.collect();
        until.check()?;
        begin(table, leases, geometry, options, seams, until)
    }
}

fn begin(
    table: Table,
    leases: BTreeMap<DriveId, Lease>,
    geometry: &Geometry,
    options: &PoolOptions,
    seams: Seams,
    until: &Deadline,
) -> Result<Arc<Pool>> {
    let tolerance = geometry.tolerance();
    let id = table.superblock.pool;
    let timeout = options.drive_timeout;
    let membership = Arc::new(Membership::new(table, tolerance, timeout, seams.clone()));
    let warden = Warden::new(Arc::clone(&membership), tolerance);

    let roster = membership.roster().load();
    let wanted = members_wanted(tolerance, roster.seats.len());
    let mut chosen: Vec<Arc<crate::Seat>> = Vec::new();
    while chosen.len() < wanted {
        // One by one, so that each sees which failure domains the others took.
        let taken: Vec<_> = chosen.iter().map(|seat| seat.id).collect();
        let Some(next) = candidates(&roster, &taken).into_iter().next() else { break };
        chosen.push(next);
    }
    let member =
        |seat: &Arc<crate::Seat>| seat.drive.clone().map(|drive| Member { id: seat.id, drive });
    let members = chosen.iter().filter_map(member).collect();
    membership.announce(chosen.iter().map(|seat| seat.id).collect())?;
    let identity = Identity { pool: id, epoch: membership.epoch() };
    let evicting = Arc::new(Evicting(Arc::clone(&warden)));
    let journal =
        Journal::create(identity, members, options.journal.clone(), evicting, seams.clone())?;
    until.check()?;
    membership.bear()?;
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
    Ok(Arc::new(Pool {
        id,
        geometry: geometry.clone(),
        membership,
        warden,
        space,
        journal,
        leases: Mutex::new(leases),
        warnings: Vec::new(),
        read_only: None,
        closed: AtomicBool::new(false),
        repairing: Mutex::new(()),
        seams,
    }))
}

fn check(drives: &[NewDrive], geometry: &Geometry) -> Result<()> {
    if let Some(why) = geometry.not_storable_reason() {
        let text = format!("{geometry} cannot be stored yet: {why}");
        return Err(Error::new(&codes::GEOMETRY_NOT_STORABLE, text).with("geometry", geometry));
    }
    if drives.len() < geometry.drives() {
        let (given, needed) = (drives.len(), geometry.drives());
        let text = format!("{geometry} needs {needed} drives and {given} were given");
        return Err(Error::new(&codes::DRIVES_TOO_FEW, text).with("needed", needed));
    }
    if let Some(new) = drives.iter().find(|new| new.labels.contains_key(REPLACED)) {
        let text = format!("the label {REPLACED:?} of {} is the pool's own", new.name);
        return Err(Error::new(&codes::STORE_OPTION, text));
    }
    let mut seen = BTreeSet::new();
    for new in drives {
        let location = new.drive.describe().location;
        if !seen.insert(location.clone()) {
            let text = format!("{location} was given twice");
            return Err(Error::new(&codes::DRIVE_DUPLICATE, text).with("drive", location));
        }
    }
    Ok(())
}

/// A drive that carries nothing, or only what is left of making a pool that was cut off.
pub(crate) fn check_empty(drive: &dyn Drive) -> Result<()> {
    let location = drive.describe().location;
    let not_empty = |what: String| {
        Error::new(&codes::DRIVE_NOT_EMPTY, format!("{location} holds {what}"))
            .with("drive", &location)
    };
    match Superblock::load(drive) {
        Ok(None) => {}
        Ok(Some(loaded)) if loaded.is_unborn => {}
        Ok(Some(loaded)) => {
            let pool = loaded.pool;
            return Err(not_empty(format!("pool {pool}")).with("pool", pool));
        }
        Err(error) if error.is_of_process() => return Err(error),
        Err(_) if is_torn_first(drive)? => {}
        Err(error) => {
            return Err(not_empty("a superblock that cannot be read".into()).caused_by(error));
        }
    }
    match first_blob(drive)? {
        Some(name) => Err(not_empty(format!("the blob {name}"))),
        None => Ok(()),
    }
}

/// Removes the logs of a pool that was never made from a drive that [`check_empty`] let pass.
pub(crate) fn clear_unborn(drive: &dyn Drive) -> Result<()> {
    let is_unborn = matches!(Superblock::load(drive), Ok(Some(loaded)) if loaded.is_unborn);
    let Some(log) = drive.log().filter(|_| is_unborn) else { return Ok(()) };
    log.list_logs()?.iter().try_for_each(|info| log.delete_log(&info.name))
}

fn first_blob(drive: &dyn Drive) -> Result<Option<BlobName>> {
    for folder in [Some("s"), None] {
        if let Some(blob) = drive.list(folder, None, 1)?.into_iter().next() {
            return Ok(Some(blob.name));
        }
    }
    Ok(None)
}

/// True if the drive is a member of a pool that was made, or cannot be told from one.
///
/// # Errors
/// Those of the process: they say nothing about the drive.
pub fn carries_pool(drive: &dyn Drive) -> Result<bool> {
    match Superblock::load(drive) {
        Ok(None) => Ok(false),
        Ok(Some(loaded)) => Ok(!loaded.is_unborn),
        Err(error) if error.is_of_process() => Err(error),
        Err(_) => is_torn_first(drive).map(|is_torn| !is_torn),
    }
}

/// True if making a pool on this drive, or taking it into one, was cut off: it counts as empty.
///
/// # Errors
/// Those of the process.
pub fn is_unfinished(drive: &dyn Drive) -> Result<bool> {
    match Superblock::load(drive) {
        Ok(Some(loaded)) => Ok(loaded.is_unborn),
        Err(error) if error.is_of_process() => Err(error),
        Ok(None) | Err(_) => is_torn_first(drive),
    }
}

/// The power went while the drive was given its very first superblock: nothing else is there yet.
///
/// # Errors
/// Those of the process.
pub(crate) fn is_torn_first(drive: &dyn Drive) -> Result<bool> {
    let logs = drive.log().map_or(Ok(true), |log| log.list_logs().map(|logs| logs.is_empty()));
    let blobs = first_blob(drive).map(|blob| blob.is_none());
    let mut is_torn = Superblock::is_torn_first(drive)?;
    for is_empty in [logs, blobs] {
        match is_empty {
            Err(error) if error.is_of_process() => return Err(error),
            is_empty => is_torn &= is_empty.unwrap_or(false),
        }
    }
    Ok(is_torn)
}

fn first_superblock(drives: &[NewDrive], geometry: &Geometry, seams: &Seams) -> Result<Superblock> {
    let random = &*seams.random;
    let epoch = Epoch(1);
    let mut members = Vec::new();
    for (index, new) in drives.iter().enumerate() {
        members.push(MemberRow {
            index: index as u16,
            id: DriveId::draw(random),
            name: new.name.clone(),
            state: MemberState::Ok,
            location: new.drive.describe().location,
            labels: new.labels.clone(),
            capacity_bytes: new.drive.capacity()?.total_bytes,
            epoch,
        });
    }
    let now = seams.clock.unix_ns();
    Ok(Superblock {
        format_version: FORMAT_VERSION,
        features: Features::default(),
        pool: PoolId::draw(random),
        drive: DriveId::default(),
        epoch,
        created_unix_ns: now,
        written_unix_ns: now,
        clean: false,
        in_force: false,
        took_part: Epoch(0),
        follows: Vec::new(),
        geometry: geometry.to_string(),
        members,
        journal: Vec::new(),
        keyring: Vec::new(),
        options: Vec::new(),
    })
}
