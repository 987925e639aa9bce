//! A lock between processes that a dead holder does not keep.
//!
//! Not `pthread_mutex_t` with its robust list: that list runs through the shared memory, and whoever
//! unlocks follows its pointers, so a peer that writes nonsense there makes us write anywhere. Here the
//! lock is one word, the [`Process`] that holds it, and who has to wait for long asks the kernel whether
//! that process is still there. What the lock protects needs no repair: cursors change in one step each.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::time::Duration;

use super::event::Event;
use super::system::{self, Process};

/// Tries before a caller is told that the lock is held: about as long as a short message takes.
const TRIES: usize = 30;
/// Sleep before it is asked whether the holder lives.
const PATIENCE: Duration = Duration::from_millis(5);

/// See the module.
#[repr(C)]
pub(super) struct Lock {
    /// The holder, 0 if there is none.
    owner: AtomicU64,
    released: Event,
}

impl Lock {
    /// Takes the lock if it is free, or will be in a moment.
    #[inline]
    pub(super) fn try_lock(&self, me: Process) -> Option<Held<'_>> {
        for _ in 0..TRIES {
            if self.owner.compare_exchange(0, me.word(), Acquire, Relaxed).is_ok() {
                return Some(Held { lock: self, me });
            }
            std::hint::spin_loop();
        }
        None
    }

    /// True if somebody has it.
    pub(super) fn is_held(&self) -> bool {
        self.owner.load(SeqCst) != 0
    }

    /// Waits until it was free for a moment, but at most `limit` and not much longer than a few
    /// milliseconds. Returns true if it was taken from a dead holder.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let sequence = self.released.announce();
        let owner = self.owner.load(SeqCst);
        if owner == 0 {
            return false;
        }
        self.released.sleep(sequence, limit.min(PATIENCE));
        // The same word may be another hold by now, but then its owner lives.
        if self.owner.load(SeqCst) != owner
            || Process::from_word(owner).is_some_and(system::is_alive)
        {
            return false;
        }
        let broken = self.owner.compare_exchange(owner, 0, SeqCst, Relaxed).is_ok();
        if broken {
            self.released.wake_one();
        }
        broken
    }
}

/// The lock, held; let go when dropped.
pub(super) struct Held<'a> {
    lock: &'a Lock,
    me: Process,
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        // Only what is ours: shared memory may say anything.
        let _ = self.lock.owner.compare_exchange(self.me.word(), 0, SeqCst, Relaxed);
        self.lock.released.wake_one();
    }
}
