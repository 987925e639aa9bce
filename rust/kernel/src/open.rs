//! Opening and creating: what was asked for, what is there, and what follows from both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Code, Error, Result, Seams, codes};
use dwk_bus::{Bus, Limits};
use dwk_catalog::Catalog;
use dwk_drive::{Drive, Holder};
use dwk_erasure::Geometry;
use dwk_meta::Meta;
use dwk_pool::{NewDrive, OpenOptions, Pool, PoolOptions};
use dwk_stream::Streams;

use crate::events::Herald;
use crate::kernel::Opened;
use crate::locate::{Drives, Locator, store_path, text_of};
use crate::making::Made;
use crate::pointers::{Pointers, numbered};
use crate::policies::Asking;
use crate::{Context, Deadline, Door, Kernel, holder, leaving, limits};

/// What can be done with a store that cannot be written to.
const READABLE: &str = "the store can still be read, with read_only=True and by commands that only look (get, ls, cp, status)";

/// What to do if there is no store, or if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Create {
    /// Open what is there; never make one.
    #[default]
    Never,
    /// Make one; refuse one that is there.
    New,
    /// Open what is there, or make one.
    IfMissing,
}

/// What to open.
#[derive(Clone, Debug, Default)]
pub struct OpenSpec {
    /// Holds pointers to the drives; without it `drives` says where they are, each time.
    pub path: Option<PathBuf>,
    /// The drives, if not where they were.
    pub drives: Option<Drives>,
    /// For a new store; by default what suits the number of drives.
    pub geometry: Option<String>,
    /// For a new store: what its owner calls drives by, under their names (`d1`, …). Drives with an equal
    /// `failure_domain` are taken to fail together.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether to make one.
    pub create: Create,
    /// Change nothing, and let others read meanwhile.
    pub read_only: bool,
    /// Open what lies beyond the geometry's tolerance, or half of a mirror that was not closed cleanly.
    pub force: bool,
    /// What to say to others who find the drives locked.
    pub program: String,
    /// What stays as it is until the next opening.
    pub tuning: Tuning,
}

/// What stays as it is until the next opening; what is left out is as the parts have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// How long a drive may take for a step before others do it; above zero.
    pub drive_timeout: Option<Duration>,
    /// Of streams: merging and what is kept in memory.
    pub streams: dwk_stream::Options,
}

/// A read that a drive leaves open is tried elsewhere after so small a part of what a drive may take, if that is less
/// than what it waits for otherwise.
const LATE_READS: u32 = 4;

impl Tuning {
    fn pool(&self) -> PoolOptions {
        let mut options = PoolOptions::default();
        if let Some(limit) = self.drive_timeout {
            // For superblocks, for shards, for the journal.
            options.drive_timeout = limit;
            options.space.drive_timeout = limit;
            options.journal.member_timeout = limit;
            // A read asks elsewhere long before its drive counts as failed.
            let late_read = options.space.late_read.min(limit / LATE_READS);
            options.space.late_read = late_read;
            options.journal.late_read = late_read;
        }
        options
    }
}

impl Kernel {
    /// Opens a store.
    ///
    /// # Errors
    /// `store.not_found`, `store.unfinished`, `store.exists`, `store.locked`, `store.option`, `drive.*`,
    /// `drives.*`, `geometry.*`, `format.newer`, `context.deadline`, `context.cancelled`, and those of recovery;
    /// nothing is half-open or half-made after one
    pub fn open(spec: &OpenSpec, context: &Context, seams: &Seams) -> Result<Self> {
        let opened = crate::door::caught(|| {
            context.deadline().check()?;
            let path = spec.path.as_deref().map(store_path).transpose()?;
            let spec = &OpenSpec { path, ..spec.clone() };
            let mut opened = open(spec, context.deadline(), seams)?;
            opened.point_if_writable(spec)?;
            Ok(opened)
        });
        let opened = opened.map_err(|error| {
            let deadline = context.deadline();
            // Whatever it was stopped in.
            let stopped = deadline.is_unwanted().then(|| deadline.check().err()).flatten();
            stopped.unwrap_or(error).in_operation(context.correlation())
        })?;
        let limits = Arc::clone(&opened.limits);
        let mut stages = limits.stages();
        stages.push(Box::new(Asking::new(&opened.desk, &seams.clock)));
        let door = Door::new(stages, Arc::clone(limits.live()));
        Ok(Self::new(opened, door, seams.clone()))
    }
}

/// Opens; where a store may be made, on a thread of its own: new drives are asked one by one, and one that hangs would
/// keep who stops waiting for them. What comes of that later is taken away again, or closed.
fn open(spec: &OpenSpec, deadline: &Deadline, seams: &Seams) -> Result<Opened> {
    let locator = Locator::new(spec.path.clone());
    if spec.create == Create::Never {
        return Opening { spec, seams, deadline, locator }.open();
    }
    let (spec, seams, until) = (spec.clone(), seams.clone(), deadline.clone());
    let work = move || Opening { spec: &spec, seams: &seams, deadline: &until, locator }.open();
    leaving::unless_left(deadline, work, |opened| {
        // Nothing was acknowledged: what fails here costs a longer next opening.
        let _ = opened.close_now();
    })
}

/// A store that is there.
#[derive(Default)]
struct There {
    locations: Vec<String>,
    /// What the path remembers.
    pointers: Option<Pointers>,
    /// The caller named these drives: one of another pool is a mistake.
    is_named: bool,
}

struct Opening<'a> {
    spec: &'a OpenSpec,
    seams: &'a Seams,
    deadline: &'a Deadline,
    locator: Locator,
}

impl Opening<'_> {
    fn open(&self) -> Result<Opened> {
        if self.spec.path.is_none() && self.spec.drives.is_none() {
            return Err(Error::new(&codes::STORE_OPTION, "give a path, or drives=, or both"));
        }
        if self.spec.read_only && self.spec.create == Create::New {
            return Err(Error::new(&codes::STORE_OPTION, "a new store cannot be read-only"));
        }
        let geometry = self.spec.geometry.as_deref().map(str::parse::<Geometry>).transpose()?;
        match (self.existing()?, self.spec.create) {
            (Some(there), Create::New) => Err(self.exists(&there)?),
            (Some(there), _) => self.open_at(&there, geometry.as_ref()),
            (None, Create::Never) => Err(self.not_found()),
            (None, _) => self.create(geometry),
        }
    }

    /// Where a store is that could be meant, if there is one.
    fn existing(&self) -> Result<Option<There>> {
        let pointers = self.spec.path.as_deref().map(Pointers::read).transpose()?.flatten();
        if let Some(drives @ Drives::At(_)) = &self.spec.drives {
            let locations = self.locator.locations(drives)?;
            // Asked to open, these are it. Asked to create: a path that points to drives which are not
            // there (not mounted, perhaps) is no place for a new store.
            let is_one = self.spec.create == Create::Never || pointers.is_some();
            let found = is_one || !Self::carrying(&locations)?.is_empty();
            // A path stays its pool's: other drives do not take it over.
            return Ok(found.then_some(There { locations, pointers, is_named: true }));
        }
        let Some(path) = &self.spec.path else { return Ok(None) };
        if let Some(pointers) = pointers {
            let locations = pointers.locations();
            return Ok(Some(There { locations, pointers: Some(pointers), is_named: false }));
        }
        let locations: Vec<String> = numbered(path).iter().map(|drive| text_of(drive)).collect();
        let found = !Self::carrying(&locations)?.is_empty() || self.is_unfinished(&locations)?;
        Ok(found.then_some(There { locations, ..There::default() }))
    }

    /// Asked to open: making a store there was cut off, and opening says so.
    fn is_unfinished(&self, locations: &[String]) -> Result<bool> {
        if self.spec.create != Create::Never {
            return Ok(false);
        }
        for drive in Locator::drives(locations)? {
            match drive {
                Ok(drive) if dwk_pool::is_unfinished(&*drive)? => return Ok(true),
                Err(error) if error.is_of_process() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(false)
    }

    /// Those of the drives that are a pool's that has begun, or cannot be told from one.
    fn carrying(locations: &[String]) -> Result<Vec<String>> {
        let mut carrying = Vec::new();
        for (drive, location) in Locator::drives(locations)?.into_iter().zip(locations) {
            match drive {
                Ok(drive) if dwk_pool::carries_pool(&*drive)? => carrying.push(location.clone()),
                Err(error) if error.is_of_process() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(carrying)
    }

    fn open_at(&self, there: &There, geometry: Option<&Geometry>) -> Result<Opened> {
        let found = Locator::drives(&there.locations)?;
        let (mut drives, mut away) = (Vec::new(), Vec::new());
        for (location, drive) in there.locations.iter().zip(found) {
            match drive {
                Ok(drive) => drives.push(drive),
                Err(error) if error.is_of_process() => return Err(error),
                Err(error) => away.push((location.clone(), error)),
            }
        }
        let pointers = there.pointers.iter();
        let places = pointers.flat_map(|pointers| &pointers.drives);
        let options = OpenOptions {
            read_only: self.spec.read_only,
            force: self.spec.force,
            expected: there.pointers.as_ref().map(|pointers| pointers.pool),
            leave_foreign_out: !there.is_named,
            away,
            places: places.map(|drive| (drive.location.clone(), drive.id)).collect(),
            until: self.deadline.clone(),
            pool: self.spec.tuning.pool(),
        };
        let holder = self.holder();
        let pool = Pool::open(drives.clone(), options.clone(), self.seams.clone(), &holder)
            .map_err(|error| self.if_readable(error, drives, options))?;
        let asked = geometry.filter(|asked| asked.to_string() != pool.geometry().to_string());
        let other = asked.map(|asked| {
            format!("opened with geometry {asked}, and the pool's is {}", pool.geometry())
        });
        let opened = self.finish(pool, other)?;
        self.deadline.check().inspect_err(|_| {
            // Nothing was acknowledged: what fails here costs a longer next opening.
            let _ = opened.close_now();
        })?;
        Ok(opened)
    }

    /// The drives that can be written to are not enough: says so, if all that are here can be read.
    fn if_readable(
        &self,
        error: Error,
        drives: Vec<Arc<dyn Drive>>,
        options: OpenOptions,
    ) -> Error {
        const MAY_BE: [&Code; 3] =
            [&codes::DRIVE_READ_ONLY, &codes::DRIVES_TOO_MANY_LOST, &codes::JOURNAL_MEMBERS];
        if options.read_only || !MAY_BE.iter().any(|code| error.is(code)) {
            return error;
        }
        let options = OpenOptions { read_only: true, ..options };
        match Pool::open(drives, options, self.seams.clone(), &self.holder()) {
            Ok(pool) => {
                let _ = pool.close();
                error.saying(READABLE).with("readable", true)
            }
            Err(_) => error,
        }
    }

    fn create(&self, geometry: Option<Geometry>) -> Result<Opened> {
        let geometry = match (geometry, &self.spec.drives) {
            (Some(geometry), _) => geometry,
            (None, drives) => default_geometry(drives.as_ref())?,
        };
        let drives = self.spec.drives.clone().unwrap_or_else(|| Drives::Count(geometry.drives()));
        let locations = self.locator.locations(&drives)?;
        if locations.len() < geometry.drives() {
            // Said before a directory is made.
            let (given, needed) = (locations.len(), geometry.drives());
            let text = format!("{geometry} needs {needed} drives and {given} were given");
            return Err(Error::new(&codes::DRIVES_TOO_FEW, text).with("needed", needed));
        }
        self.check_labels(locations.len())?;
        let under = self.spec.path.as_deref().filter(|_| matches!(drives, Drives::Count(_)));
        let made = Made::new(&locations, under, self.holder())?;
        let opened = self.create_on(&made.drives, &geometry).and_then(|opened| {
            // Who waits no longer gets no store, also if that is found out late.
            self.deadline.check().inspect_err(|_| drop(opened.close_now())).map(|()| opened)
        });
        opened.inspect_err(|_| made.undo())
    }

    fn check_labels(&self, count: usize) -> Result<()> {
        let names: Vec<_> = (1..=count).map(|n| format!("d{n}")).collect();
        match self.spec.labels.keys().find(|name| !names.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let text = format!("labels= names {name:?}, and the drives are d1 to d{count}");
                Err(Error::new(&codes::STORE_OPTION, text))
            }
        }
    }

    fn create_on(&self, drives: &[Arc<dyn Drive>], geometry: &Geometry) -> Result<Opened> {
        let named = |(index, drive): (usize, Arc<dyn Drive>)| NewDrive {
            drive,
            name: format!("d{}", index + 1),
            labels: self.spec.labels.get(&format!("d{}", index + 1)).cloned().unwrap_or_default(),
        };
        let drives: Vec<_> = drives.iter().cloned().enumerate().map(named).collect();
        let options = self.spec.tuning.pool();
        self.deadline.check()?;
        let (seams, holder, until) = (self.seams.clone(), self.holder(), self.deadline);
        let pool = Pool::create_until(&drives, geometry, &options, seams, &holder, until)?;
        self.finish(pool, None)
    }

    fn finish(&self, pool: Arc<Pool>, warning: Option<String>) -> Result<Opened> {
        let options = dwk_meta::Options::default();
        let meta = Meta::open_until(Arc::clone(&pool), options, self.deadline);
        let meta = meta.inspect_err(|_| {
            // What fails here costs a longer next opening.
            let _ = pool.close();
        })?;
        let catalog = Catalog::new(Arc::clone(&meta), self.seams.clone());
        let warnings = warning.into_iter().collect();
        let pointers = self.spec.path.clone();
        let holder = self.holder();
        let bus = Bus::new(
            Arc::clone(&self.seams.clock),
            Arc::clone(&self.seams.random),
            Limits::default(),
        );
        let seams = self.seams.clone();
        let streams = Streams::open(Arc::clone(&meta), seams, self.spec.tuning.streams.clone());
        let streams = streams.inspect_err(|_| {
            let _ = meta.close();
        })?;
        let herald = Herald::new(&meta, &pool.roster());
        let limits = limits::Limits::new(&self.seams.clock);
        Ok(Opened {
            pool,
            meta,
            catalog,
            bus,
            streams,
            herald,
            pointers,
            warnings,
            holder,
            limits,
            desk: Arc::default(),
        })
    }

    fn holder(&self) -> Holder {
        holder::here(&self.spec.program, self.seams)
    }

    fn exists(&self, there: &There) -> Result<Error> {
        let place = match &there.pointers {
            Some(_) => self.place(),
            None => Self::carrying(&there.locations)?.join(", "),
        };
        let text = format!("there is a store at {place}");
        Ok(Error::new(&codes::STORE_EXISTS, text).with("path", place))
    }

    fn not_found(&self) -> Error {
        let text = format!("no store at {}", self.place());
        Error::new(&codes::STORE_NOT_FOUND, text).with("path", self.place())
    }

    fn place(&self) -> String {
        let path = self.spec.path.as_deref().map(text_of);
        path.unwrap_or_else(|| "the drives that were given".to_owned())
    }
}

/// What suits a number of drives: a copy on two, one parity on three, two on more, and stripes not
/// wider than ten, so that one lost drive does not need all the others.
fn default_geometry(drives: Option<&Drives>) -> Result<Geometry> {
    let count = match drives {
        None => 6,
        Some(Drives::Count(count)) => *count,
        Some(Drives::At(locations)) => locations.len(),
    };
    match count {
        0 | 1 => "jbod:1".parse(),
        2 => "mirror:2".parse(),
        3 => "2+1".parse(),
        count => format!("{}+2", count.min(10) - 2).parse(),
    }
}

impl Opened {
    /// The drives are well and open: that they cannot be noted down is no reason to refuse them.
    fn point_if_writable(&mut self, spec: &OpenSpec) -> Result<()> {
        if spec.read_only {
            return Ok(());
        }
        match self.point() {
            Err(error) if error.is(&codes::FORMAT_NEWER) => Err(error),
            Err(error) => {
                let text = error.message();
                let text =
                    format!("where the drives are is not noted, name them in drives=: {text}");
                self.warnings.push(text);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_may_take_as_long_as_is_said_whatever_it_does() {
        let limit = Duration::from_secs(3);
        let options = Tuning { drive_timeout: Some(limit), ..Tuning::default() }.pool();
        let limits =
            [options.drive_timeout, options.space.drive_timeout, options.journal.member_timeout];
        assert_eq!(limits, [limit; 3]);
    }

    #[test]
    fn a_read_is_tried_elsewhere_well_before_its_drive_counts_as_failed() {
        for (limit_ms, late_ms) in [(500, 125), (4_000, 1_000), (8_000, 2_000), (60_000, 2_000)] {
            let drive_timeout = Some(Duration::from_millis(limit_ms));
            let options = Tuning { drive_timeout, ..Tuning::default() }.pool();
            let late = [options.space.late_read, options.journal.late_read];
            assert_eq!(late, [Duration::from_millis(late_ms); 2], "{limit_ms}");
        }
        let (options, default) = (Tuning::default().pool(), PoolOptions::default());
        assert_eq!(options.space.late_read, default.space.late_read);
    }
}
