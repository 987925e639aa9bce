//! Operations on the pool of drives.

use dwk_base::Result;
use dwk_meta::{CollectReport, MetaStatus};
use dwk_pool::{Control, PoolStatus, RebuildReport, ScrubReport};

use super::sealed::Run;
use crate::kernel::Opened;
use crate::locate::Find;
use crate::{Access, Context, Request, Resource};

/// How the store is.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// Drives and redundancy.
    pub pool: PoolStatus,
    /// What the map holds.
    pub map: MetaStatus,
    /// What was noticed while opening, besides what the pool says.
    pub warnings: Vec<String>,
}

/// How every drive is, what is degraded and what to do about it.
#[derive(Clone, Copy, Debug)]
pub struct Status;

impl Run for Status {
    type Outcome = StoreStatus;

    fn request(&self) -> Request {
        request("pool.status", Access::Read)
    }

    fn run(self, store: &Opened, _: &Context) -> Result<StoreStatus> {
        let pool = store.pool.status(&*store.meta)?;
        let mut warnings = store.warnings.clone();
        if let Some(failure) = store.meta.keeper_failure() {
            warnings.push(format!("folding the journal fails and is tried again: {failure}"));
        }
        Ok(StoreStatus { pool, map: store.meta.status(), warnings })
    }
}

/// Reads and verifies everything and repairs what is wrong.
#[derive(Clone, Copy)]
pub struct Scrub<'a> {
    /// Progress, rate and an early end.
    pub control: &'a Control,
}

impl Run for Scrub<'_> {
    type Outcome = ScrubReport;

    fn request(&self) -> Request {
        request("pool.scrub", Access::Administer)
    }

    fn run(self, store: &Opened, _: &Context) -> Result<ScrubReport> {
        store.pool.scrub(&*store.meta, self.control)
    }
}

/// Restores what is missing: `drive.unknown`.
#[derive(Clone, Copy)]
pub struct Rebuild<'a> {
    /// Only what is missing of this drive.
    pub drive: Option<&'a str>,
    /// Progress, rate and an early end.
    pub control: &'a Control,
}

impl Run for Rebuild<'_> {
    type Outcome = RebuildReport;

    fn request(&self) -> Request {
        request("pool.rebuild", Access::Administer)
    }

    fn run(self, store: &Opened, _: &Context) -> Result<RebuildReport> {
        let report = store.pool.rebuild(&*store.meta, self.drive, self.control)?;
        store.point()?;
        Ok(report)
    }
}

/// Puts an empty drive in another one's place and rebuilds onto it: `drive.unknown`, `drive.not_empty`.
#[derive(Clone, Copy)]
pub struct Replace<'a> {
    /// By name, identity or location; it may be gone.
    pub old: &'a str,
    /// A path, which is made if it is not there, or a URL.
    pub new: &'a str,
    /// Progress, rate and an early end.
    pub control: &'a Control,
}

impl Run for Replace<'_> {
    type Outcome = RebuildReport;

    fn request(&self) -> Request {
        request("pool.replace", Access::Administer)
    }

    fn run(self, store: &Opened, _: &Context) -> Result<RebuildReport> {
        // Before a directory is made for it.
        store.pool.roster().named(self.old)?;
        store.pool.check_writable()?;
        let new = store.locator.drive(self.new, Find::Making)?;
        let (ledger, holder) = (&*store.meta, &store.holder);
        let done = store.pool.replace(ledger, self.old, &new, holder, self.control);
        // Once it is a member it is one, also when the rebuild ended early.
        store.point()?;
        done
    }
}

/// Drops what nobody needs any more and packs half-empty stripes.
#[derive(Clone, Copy, Debug)]
pub struct Collect;

impl Run for Collect {
    type Outcome = CollectReport;

    fn request(&self) -> Request {
        request("pool.collect", Access::Administer)
    }

    fn run(self, store: &Opened, _: &Context) -> Result<CollectReport> {
        store.meta.collect()
    }
}

fn request(operation: &'static str, access: Access) -> Request {
    Request { operation, access, resource: Resource::Pool }
}
