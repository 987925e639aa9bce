//! Linux.

mod files;
mod mapping;
mod process;

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex;
use rustix::thread::futex::Timespec;

pub(in super::super) use files::{File, create, leftovers, open};
pub(in super::super) use mapping::{map, unmap};
pub(in super::super) use process::{is_alive, namespace, this_process};

/// Sleeps until a wake, a signal or `limit`; not at all if `word` is not `seen` any more.
pub(in super::super) fn futex_wait(word: &AtomicU32, seen: u32, limit: Duration) {
    let limit = Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // Not private: sleepers and wakers are in different processes. Whatever ends the sleep, who slept
    // looks again.
    let _ = futex::wait(word, futex::Flags::empty(), seen, Some(&limit));
}

/// Wakes up to `count` sleepers; returns how many there were.
pub(in super::super) fn futex_wake(word: &AtomicU32, count: u32) -> usize {
    futex::wake(word, futex::Flags::empty(), count).unwrap_or(0)
}
