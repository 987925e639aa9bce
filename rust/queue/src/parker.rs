//! One thread's sleep. Whoever has the waker ends it, also before it begins.

use std::time::Duration;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    any(feature = "loom", feature = "shuttle"),
    expect(dead_code, reason = "models have no signals")
)]
pub(crate) enum Slept {
    /// It was woken.
    Woken,
    /// Its time is over.
    TimedOut,
    /// The thread handled a signal, or a moment passed in which it could have.
    Interrupted,
}

#[cfg(all(target_os = "linux", not(any(feature = "loom", feature = "shuttle"))))]
mod body {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
    use std::task::Wake;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::thread::futex::{self, Flags, Timespec};

    use super::Slept;

    const AWAKE: u32 = 0;
    const ASLEEP: u32 = 1;
    const RUNG: u32 = 2;

    /// A futex: it returns when a signal was handled, which the standard library's sleeps do not.
    #[derive(Debug, Default)]
    pub(crate) struct Parker {
        state: AtomicU32,
    }

    impl Parker {
        pub(crate) fn sleep(&self, limit: Duration) -> Slept {
            if self.state.compare_exchange(AWAKE, ASLEEP, SeqCst, Acquire).is_err() {
                self.state.store(AWAKE, Relaxed);
                return Slept::Woken;
            }
            let limit = Timespec::try_from(limit).ok();
            let ended = futex::wait(&self.state, Flags::PRIVATE, ASLEEP, limit.as_ref());
            if self.state.swap(AWAKE, SeqCst) == RUNG {
                return Slept::Woken;
            }
            match ended {
                Err(Errno::TIMEDOUT) => Slept::TimedOut,
                // A wake of nobody in particular is as good as a signal: the caller looks again.
                _ => Slept::Interrupted,
            }
        }
    }

    impl Wake for Parker {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            if self.state.swap(RUNG, SeqCst) == ASLEEP {
                // It fails only for an address that is none.
                let _ = futex::wake(&self.state, Flags::PRIVATE, 1);
            }
        }
    }
}

#[cfg(any(not(target_os = "linux"), feature = "loom", feature = "shuttle"))]
mod body {
    use std::sync::Arc;
    use std::task::Wake;
    use std::time::Duration;

    use super::Slept;
    use crate::sync::{Condvar, Mutex, lock};

    /// A condition. Where signals do not end its sleep, it ends by itself now and then.
    #[derive(Debug, Default)]
    pub(crate) struct Parker {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Parker {
        // A model has no time: there a sleep ends when it is woken, or not at all.
        #[cfg(any(feature = "loom", feature = "shuttle"))]
        pub(crate) fn sleep(&self, limit: Duration) -> Slept {
            if limit.is_zero() {
                return Slept::TimedOut;
            }
            let mut rung = lock(&self.rung);
            while !*rung {
                rung = self.changed.wait(rung).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            *rung = false;
            Slept::Woken
        }

        #[cfg(not(any(feature = "loom", feature = "shuttle")))]
        pub(crate) fn sleep(&self, limit: Duration) -> Slept {
            const SLICE: Duration = Duration::from_millis(50);
            let mut rung = lock(&self.rung);
            if !*rung {
                let ended = self.changed.wait_timeout(rung, limit.min(SLICE));
                rung = ended.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
            match (std::mem::take(&mut *rung), limit <= SLICE) {
                (true, _) => Slept::Woken,
                (false, true) => Slept::TimedOut,
                (false, false) => Slept::Interrupted,
            }
        }
    }

    impl Wake for Parker {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            *lock(&self.rung) = true;
            self.changed.notify_one();
        }
    }
}

pub(crate) use body::Parker;

/// Longer than any program runs, and short enough for every clock.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// True in the thread that the process began with, which is where most programs handle signals.
#[cfg(target_os = "linux")]
pub fn is_main_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}
