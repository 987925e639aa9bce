//! Operations on the pool of drives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dwk_base::{Error, Result, StripeId, codes};
use dwk_meta::{CollectReport, MetaStatus};
use dwk_pool::{Control, PoolStatus, Progress, RebuildReport, ScrubReport};

use super::bookmark::Bookmark;
use super::sealed::Run;
use crate::events::Event;
use crate::kernel::Entered;
use crate::locate::Locator;
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

    fn run(self, store: &Entered<'_>, _: &Context) -> Result<StoreStatus> {
        let mut pool = store.pool.status(&*store.meta)?;
        // A drive that took another one's place has its name: this is the order of `drives=`.
        pool.drives.sort_by(|one, other| in_order(&one.name).cmp(&in_order(&other.name)));
        let mut warnings = store.warnings.clone();
        if let Some(failure) = store.meta.keeper_failure() {
            warnings.push(format!("the keeper's work fails and is tried again: {failure}"));
        }
        if let Some(fraction) = store.meta.healing() {
            let percent = (fraction * 100.0) as u64;
            let text = format!(
                "what changed while drives were away is being caught up: {percent} % so far"
            );
            warnings.push(text);
        }
        Ok(StoreStatus { pool, map: store.meta.status(), warnings })
    }
}

/// Called with how far long work is, from its own threads.
pub type Listener = Arc<dyn Fn(&Progress) + Send + Sync>;

/// How long work goes on: nobody's deadline is longer than its context's.
#[derive(Default)]
pub struct Work {
    /// At most so many bytes per second; 0 for no limit.
    pub rate_bytes_per_s: u64,
    /// Told how far it is.
    pub listener: Option<Listener>,
    /// Set it to end the work at the next stripe.
    pub stop: Arc<AtomicBool>,
}

impl Work {
    /// What the pool is steered with.
    fn control(&self, context: &Context, after: Option<StripeId>) -> Control {
        let control = after.map_or_else(Control::new, |after| Control::new().starting_after(after));
        let control = control
            .with_rate(self.rate_bytes_per_s)
            .until(context.deadline().clone())
            .stopped_by(Arc::clone(&self.stop));
        match self.listener.clone() {
            Some(listener) => control.on_progress(move |progress| listener(progress)),
            None => control,
        }
    }
}

/// Fails if the work ended early: by its deadline, or because its caller wanted that.
fn ended(finished: bool, context: &Context, what: &str) -> Result<()> {
    if finished {
        return Ok(());
    }
    context.deadline().check()?;
    let text = format!("the {what} was stopped; what is done stays done");
    Err(Error::new(&codes::CONTEXT_CANCELLED, text))
}

/// Reads and verifies everything and repairs what is wrong: `context.cancelled`.
pub struct Scrub {
    /// From the beginning, also where an earlier one was stopped or killed.
    pub restart: bool,
    /// Progress, rate and an early end.
    pub work: Work,
}

impl Run for Scrub {
    type Outcome = ScrubReport;

    fn request(&self) -> Request {
        request("pool.scrub", Access::Administer)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<ScrubReport> {
        let _healing = store.meta.pause_healing(context.deadline())?;
        let bookmark = Arc::new(Bookmark::new(&store.meta));
        let after = bookmark.read()?.filter(|_| !self.restart);
        let (mut work, kept) = (self.work, Arc::clone(&bookmark));
        let listener = work.listener.take();
        work.listener = Some(Arc::new(move |progress| {
            kept.keep(progress.after);
            if let Some(listener) = &listener {
                listener(progress);
            }
        }));
        let scrub = |after| store.pool.scrub(&*store.meta, &work.control(context, after));
        let mut report = scrub(after)?;
        // What an earlier opening looked at says nothing about drives that are doubted in this one: only a going
        // over everything does.
        if after.is_some() && report.is_clean() && store.pool.is_doubtful() {
            report = scrub(None)?.and_before(&report);
        }
        bookmark.keep(report.after.filter(|_| !report.finished));
        store.herald.tell(store, Event::scrubbed(&report), context);
        ended(report.finished, context, "scrub")?;
        Ok(report)
    }
}

/// Restores what is missing: `drive.unknown`, `context.cancelled`.
pub struct Rebuild<'a> {
    /// Only what is missing of this drive.
    pub drive: Option<&'a str>,
    /// Progress, rate and an early end.
    pub work: Work,
}

impl Run for Rebuild<'_> {
    type Outcome = RebuildReport;

    fn request(&self) -> Request {
        request("pool.rebuild", Access::Administer)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<RebuildReport> {
        let _healing = store.meta.pause_healing(context.deadline())?;
        let control = self.work.control(context, None);
        let report = store.pool.rebuild(&*store.meta, self.drive, &control)?;
        store.point()?;
        store.herald.tell(store, Event::rebuilt(&report, self.drive), context);
        ended(report.finished, context, "rebuild")?;
        Ok(report)
    }
}

/// Puts an empty drive in another one's place and rebuilds onto it: `drive.unknown`,
/// `drive.not_empty`, `context.cancelled` (it is a member then, and a rebuild goes on).
pub struct Replace<'a> {
    /// By name, identity or location; it may be gone.
    pub old: &'a str,
    /// A path, which is made if it is not there (its parent must be), or a URL.
    pub new: &'a str,
    /// Progress, rate and an early end.
    pub work: Work,
}

impl Run for Replace<'_> {
    type Outcome = RebuildReport;

    fn request(&self) -> Request {
        request("pool.replace", Access::Administer)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<RebuildReport> {
        // Before a directory is made for it.
        store.pool.roster().named(self.old)?;
        store.pool.check_writable()?;
        self.refuse_member(store)?;
        let _healing = store.meta.pause_healing(context.deadline())?;
        store.herald.note(store, context.deadline())?;
        let new = Locator::new_drive(self.new)?;
        let (control, holder) = (self.work.control(context, None), &store.holder);
        let done = store.pool.replace(&*store.meta, self.old, &new, holder, &control);
        // Once it is a member it is one, also when the rebuild ended early.
        store.point()?;
        let report = done?;
        store.herald.tell(store, Event::rebuilt(&report, Some(self.old)), context);
        ended(report.finished, context, "rebuild")?;
        Ok(report)
    }
}

impl Replace<'_> {
    /// Under whatever spelling.
    fn refuse_member(&self, store: &Entered<'_>) -> Result<()> {
        let roster = store.pool.roster();
        let here = roster.seats.iter().filter(|seat| seat.drive.is_some());
        for seat in here {
            if Locator::same(self.new, &seat.location)? {
                let text = format!("{} is {} of this pool", self.new, seat.name);
                let error = Error::new(&codes::DRIVE_DUPLICATE, text);
                return Err(error.with("drive", self.new));
            }
        }
        Ok(())
    }
}

/// Drops what nobody needs any more and packs half-empty stripes: `context.cancelled`.
#[derive(Default)]
pub struct Collect {
    /// Progress and an early end.
    pub work: Work,
}

impl Run for Collect {
    type Outcome = CollectReport;

    fn request(&self) -> Request {
        request("pool.collect", Access::Administer)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<CollectReport> {
        let Work { stop, listener, .. } = self.work;
        let mut first = None;
        let (report, finished) = store.meta.collect_while(|report, left_bytes| {
            if let Some(listener) = &listener {
                let first = *first.get_or_insert(report.freed_bytes + left_bytes);
                listener(&Progress {
                    fraction: 1.0 - left_bytes as f64 / first.max(left_bytes).max(1) as f64,
                    stripes: report.dropped_stripes,
                    written_bytes: report.packed_bytes,
                    ..Progress::default()
                });
            }
            !stop.load(Ordering::SeqCst) && !context.deadline().has_passed()
        })?;
        ended(finished, context, "packing")?;
        Ok(report)
    }
}

/// Sorts `d10` after `d9`.
fn in_order(name: &str) -> (u64, &str) {
    let digits: String = name.chars().skip(1).take_while(char::is_ascii_digit).collect();
    (digits.parse().unwrap_or(u64::MAX), name)
}

fn request(operation: &'static str, access: Access) -> Request {
    Request { operation, access, resource: Resource::Pool }
}
