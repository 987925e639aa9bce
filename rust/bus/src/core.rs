//! What the bus knows of a subscription.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dwk_base::Error;

use crate::latch::Latch;
use crate::mailbox::Mailbox;
use crate::policy::Options;
use crate::space::Inner;
use crate::{Envelope, Filter, Pattern};

/// What a subscription did and holds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that it took in.
    pub queued: u64,
    /// Messages that were handed out, also those that a consumer has taken ahead.
    pub delivered: u64,
    /// Messages that its policy dropped.
    pub dropped: u64,
    /// Messages that its filter did not let in.
    pub filtered: u64,
    /// Messages whose handler failed.
    pub failed: u64,
    /// Messages whose handler took longer than its time limit.
    pub overdue: u64,
    /// Spilled messages that could not be read again.
    pub lost: u64,
    /// How often a publisher waited for it.
    pub waits: u64,
    /// Messages that wait now, spilled ones too.
    pub depth: usize,
    /// About the bytes of those in memory.
    pub depth_bytes: usize,
    /// How many of them are spilled.
    pub spilled: usize,
    /// The bytes of those.
    pub spilled_bytes: u64,
    /// How long ago the oldest of those in memory was published.
    pub lag: Duration,
    /// Why a spilled message was lost last.
    pub spill_error: Option<Error>,
}

/// One subscription, as publishers and its consumer share it.
pub(crate) struct Core {
    pub id: u64,
    pub name: Arc<str>,
    pub pattern: Pattern,
    pub group: Option<Arc<str>>,
    pub workers: usize,
    /// How many messages a consumer takes ahead.
    pub ahead: usize,
    pub mailbox: Mailbox,
    pub failed: AtomicU64,
    pub overdue: AtomicU64,
    /// Worker threads that run.
    pub running: Arc<Latch>,
    filter: Option<Filter>,
    filtered: AtomicU64,
    pub space: Weak<Inner>,
}

impl Core {
    pub(crate) fn new(id: u64, pattern: Pattern, mut options: Options, space: Weak<Inner>) -> Self {
        let mailbox = Mailbox::new(&mut options);
        // What is taken ahead counts no more: it must stay small beside the limit. And a message that any
        // worker may handle must not wait behind another one.
        let ahead = if options.workers > 1 { 1 } else { (options.messages_max / 8).clamp(1, 64) };
        Self {
            id,
            name: options.name.unwrap_or_else(|| pattern.as_str().into()),
            pattern,
            group: options.group,
            workers: options.workers,
            ahead,
            mailbox,
            failed: AtomicU64::new(0),
            overdue: AtomicU64::new(0),
            running: Arc::default(),
            filter: options.filter,
            filtered: AtomicU64::new(0),
            space,
        }
    }

    /// True if the filter lets it in.
    pub(crate) fn wants(&self, envelope: &Envelope) -> bool {
        self.is_meant(envelope)
            && self.filter.as_ref().is_none_or(|filter| filter.accepts(envelope))
    }

    /// False if it is for those only who name what it is about, and this one does not.
    fn is_meant(&self, envelope: &Envelope) -> bool {
        !envelope.is_announcement() || self.pattern.names()
    }

    /// As [`wants`](Self::wants), and counts what is kept out.
    pub(crate) fn accepts(&self, envelope: &Envelope) -> bool {
        let wanted = self.wants(envelope);
        if !wanted && self.is_meant(envelope) {
            self.filtered.fetch_add(1, Ordering::Relaxed);
        }
        wanted
    }

    /// Takes no more messages; what waits can be taken out.
    pub(crate) fn close(&self) {
        if let Some(space) = self.space.upgrade() {
            space.leave(self);
        }
        self.mailbox.close();
    }

    pub(crate) fn stats(&self) -> Stats {
        let counts = self.mailbox.counts();
        let now = self.space.upgrade().map(|space| space.unix_ns());
        let lag = now.zip(counts.oldest_unix_ns).map_or(0, |(now, then)| now.saturating_sub(then));
        Stats {
            queued: counts.queued,
            delivered: counts.delivered,
            dropped: counts.dropped,
            filtered: self.filtered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            overdue: self.overdue.load(Ordering::Relaxed),
            lost: counts.lost,
            waits: counts.waits,
            depth: counts.depth,
            depth_bytes: counts.depth_bytes,
            spilled: counts.spilled,
            spilled_bytes: counts.spilled_bytes,
            lag: Duration::from_nanos(lag),
            spill_error: counts.spill_error,
        }
    }
}
