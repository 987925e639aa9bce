//! What a consumer has done and has before it.

use std::time::Duration;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a consumer did since it was made, as far as that was saved before it was opened last.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ConsumerCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl ConsumerCounters {
            /// All of them, in an order that never changes: new ones come last.
            pub(super) fn as_array(&mut self) -> [&mut u64; counters!(@count $($name)*)] {
                [$(&mut self.$name),*]
            }
        }
    };
    (@count $($name:ident)*) => { [$(stringify!($name)),*].len() };
}

counters! {
    /// Deliveries, first ones and others.
    delivered,
    /// Deliveries of messages that had been delivered before.
    redelivered,
    /// Messages that were acknowledged, or handed out where no acknowledgement is needed.
    acknowledged,
    /// Deliveries whose time was over.
    expired,
    /// Deliveries that were given back.
    returned,
    /// Deliveries that were out when the consumer was opened again.
    restarted,
    /// Messages that were given up by who had them.
    terminated,
    /// Messages that were given up because they had been delivered as often as allowed.
    exhausted,
    /// Dead letters that were buried.
    buried,
    /// Messages that were given up and dropped, because the consumer keeps no dead letters or somebody
    /// skipped them.
    dropped,
    /// Messages that were put back from the dead.
    redriven,
    /// Messages that the stream dropped while they were known here and not done.
    gone,
    /// Deliveries that never left, because they could not be saved or read.
    withdrawn,
}

/// How a consumer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// Every message up to this number is done.
    pub floor_sequence: u64,
    /// The highest number that was handed out, 0 if none was.
    pub delivered_sequence: u64,
    /// Messages that were read ahead and not handed out yet.
    pub waiting: u64,
    /// Messages that somebody has.
    pub out: u64,
    /// Messages that were handed out, are not done and will be delivered again.
    pub scheduled: u64,
    /// Messages among `out` and `scheduled` that were delivered more than once.
    pub repeated: u64,
    /// Dead letters that are not buried.
    pub dead: u64,
    /// Since when the oldest message of `out` and `scheduled` is not done.
    pub oldest_age: Option<Duration>,
    /// True if nothing is handed out.
    pub is_paused: bool,
    /// What happened so far.
    pub counters: ConsumerCounters,
}
