//! An event count: how a process waits for another without either making a system call while the
//! other keeps up.
//!
//! Who waits takes the sequence, says that somebody is waiting, looks once more whether it still has to, and
//! sleeps only if the sequence is still the same. Who changed something looks whether anybody is waiting;
//! if so it takes that back, moves the sequence on and wakes one sleeper. All of this is sequentially
//! consistent, so one of the two sees the other.
//!
//! Nobody counts sleepers, because one that is killed could not be subtracted again. Whether there is one is
//! asked anew instead: who woke one says that there may be more, and who woke none leaves it at that.
//! So a sleep costs its wakers two calls at most, and a dead sleeper costs one.
//!
//! A waker that is killed before it wakes, or a woken process that is killed before it takes what it was
//! woken for, loses that wake. Therefore every sleep is short ([`SLEEP_MAX`]): at its end everybody
//! looks again.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::system;

/// The longest sleep, and so the longest that a wake which died with a process can be missed. It also
/// bounds how long a signal that comes just before a sleep is left waiting.
pub(super) const SLEEP_MAX: Duration = Duration::from_millis(100);

/// See the module.
#[repr(C)]
pub(super) struct Event {
    sequence: AtomicU32,
    /// 1 if somebody may be sleeping.
    waiting: AtomicU32,
}

impl Event {
    /// Announces a sleep; what is waited for must be looked at once more before it.
    pub(super) fn announce(&self) -> u32 {
        let sequence = self.sequence.load(SeqCst);
        self.waiting.store(1, SeqCst);
        sequence
    }

    /// Sleeps until a wake, a signal, `limit` or [`SLEEP_MAX`]; not at all if there was a wake since `sequence`.
    pub(super) fn sleep(&self, sequence: u32, limit: Duration) {
        system::futex_wait(&self.sequence, sequence, limit.min(SLEEP_MAX));
    }

    /// Wakes one sleeper, if there is one. What it sleeps for was stored before, sequentially consistent.
    #[inline]
    pub(super) fn wake_one(&self) {
        if self.waiting.load(SeqCst) != 0 {
            self.wake(1);
        }
    }

    /// Wakes all sleepers.
    pub(super) fn wake_all(&self) {
        self.wake(i32::MAX as u32);
    }

    #[cold]
    fn wake(&self, count: u32) {
        self.waiting.swap(0, SeqCst);
        self.sequence.fetch_add(1, SeqCst);
        if system::futex_wake(&self.sequence, count) >= count as usize {
            self.waiting.store(1, SeqCst);
        }
    }
}
