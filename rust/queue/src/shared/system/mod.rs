//! What the operating system does for a shared queue: names, liveness of processes, sleeping and waking.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;

use std::num::NonZeroU64;

use dwk_base::{Error, codes};

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{
    File, create, futex_wait, futex_wake, is_alive, leftovers, map, namespace, open, this_process,
    unmap,
};
#[cfg(target_os = "linux")]
pub(super) use linux::{
    File, create, futex_wait, futex_wake, is_alive, leftovers, map, namespace, open, this_process,
    unmap,
};

const START_BITS: u32 = 42;
const PID_MAX: u64 = (1 << (u64::BITS - START_BITS)) - 1;

/// One process of this boot, in one word: its id and the moment of its start, so that another process that
/// gets the same id later is not mistaken for it.
///
/// Linux gives ids below 2²², and moments in ticks of 10 ms since the boot fit into 42 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(NonZeroU64);

impl Process {
    /// A process by its id and the tick of its start.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) fn new(pid: u64, start: u64) -> Option<Self> {
        let fits = (1..=PID_MAX).contains(&pid) && start < 1 << START_BITS;
        if fits { Self::from_word(pid << START_BITS | start) } else { None }
    }

    /// The process that was stored as `word`; `None` for 0 and for what is none.
    pub(super) fn from_word(word: u64) -> Option<Self> {
        if word >> START_BITS == 0 { None } else { NonZeroU64::new(word).map(Self) }
    }

    /// As it is stored.
    pub(super) fn word(self) -> u64 {
        self.0.get()
    }

    /// Its id.
    pub(super) fn pid(self) -> u32 {
        (self.word() >> START_BITS) as u32
    }
}

/// `queue.unsupported`.
pub(super) fn unsupported(message: impl Into<String>) -> Error {
    Error::new(&codes::QUEUE_UNSUPPORTED, message)
}
