//! Long work: how far it is, how fast it may be, and an early end.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwk_base::{Clock, Deadline, StripeId};

use super::{RebuildReport, lock};

/// How long a throttled worker sleeps before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(50);

type Listener = Box<dyn Fn(&Progress) + Send + Sync>;

/// Steers a scrub or rebuild, from any thread.
pub struct Control {
    cancelled: Arc<AtomicBool>,
    rate_bytes_per_s: AtomicU64,
    pace: Mutex<Option<Pace>>,
    progress: Option<Listener>,
    deadline: Deadline,
    after: Option<StripeId>,
    onto: Option<u16>,
}

/// From when on how many bytes count for a rate.
#[derive(Clone, Copy, Debug)]
struct Pace {
    rate: u64,
    start: Duration,
    since: Duration,
    bytes: u64,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The part of all stripes that is done, 0 to 1; names of stripes are spread evenly.
    pub fraction: f64,
    /// Stripes looked at.
    pub stripes: u64,
    /// Shards written anew.
    pub restored_shards: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Everything up to this stripe is done: where a later run can go on ([`Control::starting_after`]). Who
    /// keeps it somewhere durable can end at any time, by a kill too, without beginning anew.
    pub after: Option<StripeId>,
}

/// One of several goings over all stripes that are one piece of work together: what is told of it goes on from those
/// before it.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    index: u32,
    of: u32,
    /// Stages at the end that begin at the beginning whoever goes on.
    tail: u32,
    before: Progress,
}

impl Stage {
    /// The first of so many.
    pub(crate) fn first(of: u32) -> Self {
        Self { index: 0, of, tail: 0, before: Progress::default() }
    }

    /// With so many more at the end, which begin at the beginning whoever goes on.
    pub(crate) const fn and_then(mut self, more: u32) -> Self {
        self.of += more;
        self.tail += more;
        self
    }

    /// The last one, which goes on with the progress of the one before it.
    pub(crate) fn last(&self) -> Self {
        Self { index: self.of.saturating_sub(1), ..self.clone() }
    }

    /// The next one, after one that did this.
    pub(crate) const fn next(&mut self, done: &RebuildReport) {
        self.index += 1;
        self.before.stripes += done.stripes;
        self.before.restored_shards += done.restored_shards;
        self.before.read_bytes += done.read_bytes;
        self.before.written_bytes += done.written_bytes;
    }

    /// What of this one there is to tell. Only in the last one, and those that need no beginning, a later run could
    /// go on.
    pub(crate) fn shown(&self, progress: &Progress) -> Progress {
        let is_last = self.index + 1 + self.tail >= self.of;
        Progress {
            fraction: (f64::from(self.index) + progress.fraction) / f64::from(self.of.max(1)),
            stripes: self.before.stripes + progress.stripes,
            restored_shards: self.before.restored_shards + progress.restored_shards,
            read_bytes: self.before.read_bytes + progress.read_bytes,
            written_bytes: self.before.written_bytes + progress.written_bytes,
            after: progress.after.filter(|_| is_last),
        }
    }
}

impl Control {
    /// No limit, nobody listens.
    pub fn new() -> Self {
        Self {
            cancelled: Arc::default(),
            rate_bytes_per_s: AtomicU64::new(0),
            pace: Mutex::default(),
            progress: None,
            deadline: Deadline::never(),
            after: None,
            onto: None,
        }
    }

    /// Calls `listener` after every stripe, from the working threads.
    #[must_use]
    pub fn on_progress(mut self, listener: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(listener));
        self
    }

    /// Reads and writes at most this many bytes per second; 0: as fast as it goes.
    #[must_use]
    pub fn with_rate(self, bytes_per_s: u64) -> Self {
        self.set_rate(bytes_per_s);
        self
    }

    /// Ends then.
    #[must_use]
    pub fn until(mut self, deadline: Deadline) -> Self {
        self.deadline = deadline;
        self
    }

    /// Ends at the next stripe once this is set, as with [`Control::cancel`].
    #[must_use]
    pub fn stopped_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.cancelled = flag;
        self
    }

    /// Goes on after this stripe, which an earlier run's progress or report gave as `after`. What lies up to it is
    /// neither read nor listed, and quarantine is left to the run that begins at the beginning.
    #[must_use]
    pub const fn starting_after(mut self, stripe: StripeId) -> Self {
        self.after = Some(stripe);
        self
    }

    /// New shards go to this seat as far as they can.
    #[must_use]
    pub const fn onto(mut self, seat: u16) -> Self {
        self.onto = Some(seat);
        self
    }

    /// Ends at the next stripe.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// Changes the rate while it works.
    pub fn set_rate(&self, bytes_per_s: u64) {
        self.rate_bytes_per_s.store(bytes_per_s, Ordering::SeqCst);
    }

    pub(crate) const fn after(&self) -> Option<StripeId> {
        self.after
    }

    pub(crate) const fn preferred(&self) -> Option<u16> {
        self.onto
    }

    pub(crate) fn is_over(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst) || self.deadline.has_passed()
    }

    pub(crate) fn tell(&self, progress: &Progress) {
        if let Some(listener) = &self.progress {
            listener(progress);
        }
    }

    /// Sleeps until `bytes` since `start` are not too fast.
    pub(crate) fn throttle(&self, clock: &dyn Clock, start: Duration, bytes: u64) {
        loop {
            let rate = self.rate_bytes_per_s.load(Ordering::SeqCst);
            let now = clock.monotonic();
            let pace = self.pace(rate, start, now, bytes);
            if rate == 0 || self.is_over() {
                return;
            }
            let due = bytes.saturating_sub(pace.bytes) as f64 / rate as f64;
            let due = Duration::try_from_secs_f64(due).unwrap_or(Duration::MAX);
            let left = pace.since.saturating_add(due).saturating_sub(now);
            if left.is_zero() {
                return;
            }
            clock.sleep(left.min(NAP));
        }
    }
}

impl Control {
    /// What counts for this rate: everything since `start` if that was the rate from then on, else what came since it
    /// was set.
    fn pace(&self, rate: u64, start: Duration, now: Duration, bytes: u64) -> Pace {
        let mut kept = lock(&self.pace);
        let pace = match *kept {
            Some(pace) if pace.start == start && pace.rate == rate => pace,
            Some(pace) if pace.start == start => Pace { rate, start, since: now, bytes },
            _ => Pace { rate, start, since: start, bytes: 0 },
        };
        *kept.insert(pace)
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use dwk_base::ManualClock;

    use super::*;

    #[test]
    fn a_rate_that_is_changed_counts_from_then_on() {
        let clock = ManualClock::default();
        let (control, start) = (Control::new(), clock.monotonic());
        let took = |bytes| {
            let before = clock.monotonic();
            control.throttle(&clock, start, bytes);
            clock.monotonic().saturating_sub(before).as_secs_f64()
        };
        // What was done without a limit is not made up for.
        assert!(took(1 << 40) < 0.1);
        control.set_rate(1 << 20);
        assert!(took((1 << 40) + (1 << 20)) < 0.1, "the first look begins it");
        let second = took((1 << 40) + (2 << 20));
        assert!((0.9..1.1).contains(&second), "{second}");
        // Nor is what was done with one.
        control.set_rate(1 << 10);
        assert!(took((1 << 40) + (2 << 20)) < 0.1);
        let last = took((1 << 40) + (2 << 20) + (3 << 10));
        assert!((2.9..3.1).contains(&last), "{last}");
    }
}
