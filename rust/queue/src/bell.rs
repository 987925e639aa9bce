//! Wake-ups for an event loop: a file that becomes readable, and a list of who was meant.

use std::fmt;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use rustix::io::{self, Errno};

/// One event loop's bell. Any number of waiters share it: a thousand wake-ups at once are one event.
#[derive(Clone)]
pub struct Bell {
    inner: Arc<Inner>,
}

struct Inner {
    ends: Ends,
    /// Who was woken since the bell was last looked at.
    rung: Mutex<Vec<u64>>,
}

/// What is rung and what is listened to.
struct Ends {
    listen: OwnedFd,
    /// `None`: the same.
    ring: Option<OwnedFd>,
}

/// Wakes one waiter of a bell.
struct Rope {
    bell: Arc<Inner>,
    waiter: u64,
}

impl Bell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// whatever the system says when no file descriptor is left
    pub fn new() -> io::Result<Self> {
        let inner = Inner { ends: Ends::new()?, rung: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A waker that rings for `waiter`.
    pub fn waker(&self, waiter: u64) -> Waker {
        Arc::new(Rope { bell: Arc::clone(&self.inner), waiter }).into()
    }

    /// Becomes readable when the bell rings, until [`answer`](Self::answer).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.ends.listen.as_fd()
    }

    /// For whom it rang since the last call, in order; one who was woken twice is there twice.
    pub fn answer(&self) -> Vec<u64> {
        // First the file: who rings after this is in the list, or makes the file readable again.
        let mut bytes = [0; 64];
        while matches!(io::read(self.as_fd(), &mut bytes), Ok(64) | Err(Errno::INTR)) {}
        mem::take(&mut *self.inner.rung.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn ring(&self, waiter: u64) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        rung.push(waiter);
        let first = rung.len() == 1;
        drop(rung);
        let end = self.ends.ring.as_ref().unwrap_or(&self.ends.listen);
        // A full pipe is readable already, and that is all that matters.
        while first && io::write(end, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
    }
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.bell.ring(self.waiter);
    }
}

impl Ends {
    #[cfg(target_os = "linux")]
    fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};

        let listen = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { listen, ring: None })
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> io::Result<Self> {
        use rustix::fs::{OFlags, fcntl_setfl};
        use rustix::io::{FdFlags, fcntl_setfd};

        let (listen, ring) = rustix::pipe::pipe()?;
        for end in [&listen, &ring] {
            fcntl_setfl(end, OFlags::NONBLOCK)?;
            fcntl_setfd(end, FdFlags::CLOEXEC)?;
        }
        Ok(Self { listen, ring: Some(ring) })
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("fd", &self.as_fd()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn rings(bell: &Bell) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&now)) == Ok(1)
    }

    impl AsFd for Bell {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.as_fd()
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri has no poll")]
    fn it_rings_until_it_is_answered_and_says_for_whom() {
        let bell = Bell::new().unwrap();
        assert!(!rings(&bell));
        bell.waker(7).wake();
        bell.waker(8).wake();
        assert!(rings(&bell));
        assert_eq!(bell.answer(), [7, 8]);
        assert!(!rings(&bell) && bell.answer().is_empty());
        bell.waker(7).wake();
        assert!(rings(&bell));
    }
}
