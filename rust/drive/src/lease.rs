//! A drive's lock in the hands of who may not hang with it.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dwk_base::{Result, codes};

use crate::checks::guard;
use crate::{Attached, Drive, Holder, Lock, LockMode, Ticket};

/// How long dropping a lease waits for a drive that does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Drives that this process has in passing.
static IN_PASSING: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Rings when there is one less.
static FEWER: Condvar = Condvar::new();

/// As long as it is there, this process may have the drive's lock, and has it only until a call comes back: while
/// it looks at the drive, or lets it go. Of a drive that hangs that can be long, and nobody uses it then.
pub struct InPassing(String);

impl InPassing {
    fn new(location: String) -> Self {
        guard(&IN_PASSING).push(location.clone());
        Self(location)
    }

    /// True if this process has the drive in passing.
    pub fn has(location: &str) -> bool {
        guard(&IN_PASSING).iter().any(|one| one == location)
    }
}

impl Drop for InPassing {
    fn drop(&mut self) {
        let mut all = guard(&IN_PASSING);
        if let Some(at) = all.iter().position(|one| *one == self.0) {
            all.swap_remove(at);
        }
        FEWER.notify_all();
    }
}

/// Locks a drive, in passing until the second value is dropped. Who has it in passing is waited for, at most so
/// long.
///
/// # Errors
/// Those of [`Drive::lock`]
pub fn lock_in_passing(
    drive: &dyn Drive,
    holder: &Holder,
    mode: LockMode,
    limit: Duration,
) -> Result<(Box<dyn Lock>, InPassing)> {
    let location = drive.describe().location;
    let lock = || {
        let passing = InPassing::new(location.clone());
        drive.lock(holder, mode).map(|lock| (lock, passing))
    };
    match lock() {
        Err(error) if error.is(&codes::STORE_LOCKED) && InPassing::has(&location) => {
            let all = guard(&IN_PASSING);
            let stays = |all: &mut Vec<String>| all.contains(&location);
            drop(FEWER.wait_timeout_while(all, limit, stays));
            lock()
        }
        locked => locked,
    }
}

/// Holds a drive's lock. It is let go on the drive's own thread: a local drive writes then, and one that hangs
/// would never come back from that.
pub struct Lease {
    drive: Arc<Attached>,
    lock: Option<Box<dyn Lock>>,
}

impl Lease {
    /// For a lock of this drive.
    pub fn new(drive: Arc<Attached>, lock: Box<dyn Lock>) -> Self {
        Self { drive, lock: Some(lock) }
    }

    /// Lets the lock go and all that the drive keeps open ([`Drive::close`](crate::Drive::close)), after
    /// the jobs before it.
    pub fn end(mut self) -> Ticket<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> Ticket<()> {
        let lock = self.lock.take();
        let passing = InPassing::new(self.drive.drive().describe().location);
        self.drive.submit(move |drive| {
            drop(lock);
            drop(passing);
            drive.close();
            Ok(())
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.lock.is_some() {
            let _ = self.give_back().wait_for(PATIENCE);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.drive).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{self, Receiver};

    use super::*;
    use crate::MemoryDrive;

    /// Takes as long to be let go as somebody wants.
    struct Slow(Mutex<Receiver<()>>, Arc<AtomicBool>);

    impl Lock for Slow {}

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.lock().unwrap().recv();
            self.1.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_lock_that_cannot_be_let_go_holds_up_nobody_for_ever() {
        for is_ended in [true, false] {
            let drive = Attached::new(Arc::new(MemoryDrive::new("slow")));
            let (answer, hangs) = mpsc::channel();
            let gone = Arc::new(AtomicBool::new(false));
            let lease = Lease::new(
                Arc::clone(&drive),
                Box::new(Slow(Mutex::new(hangs), Arc::clone(&gone))),
            );
            if is_ended {
                assert!(lease.end().wait_for(Duration::from_millis(20)).is_none());
            } else {
                drop(lease);
            }
            assert!(!gone.load(Ordering::SeqCst));
            assert!(InPassing::has("memory://slow"));
            answer.send(()).unwrap();
            drive.submit(Drive::capacity).wait().unwrap();
            assert!(gone.load(Ordering::SeqCst), "once it answers it is let go");
            assert!(!InPassing::has("memory://slow"));
        }
    }

    #[test]
    fn who_locks_a_drive_that_somebody_has_in_passing_waits_for_it() {
        let memory = Arc::new(MemoryDrive::new("again"));
        let holder =
            Holder { pid: 1, host: String::new(), since_unix_ns: 0, program: String::new() };
        let lock = |limit| lock_in_passing(&*memory, &holder, LockMode::Exclusive, limit);
        let drive = Attached::new(Arc::clone(&memory) as Arc<dyn Drive>);
        let lease = Lease::new(Arc::clone(&drive), lock(Duration::ZERO).unwrap().0);
        let error = lock(Duration::from_secs(20)).err().unwrap();
        assert!(error.is(&codes::STORE_LOCKED), "nobody lets it go: {error}");

        let (answer, hangs) = mpsc::channel::<()>();
        let held_up = drive.submit(move |_| {
            hangs.recv().unwrap();
            Ok(())
        });
        let ended = lease.end();
        assert!(lock(Duration::from_millis(20)).err().unwrap().is(&codes::STORE_LOCKED));
        std::thread::scope(|scope| {
            let again = scope.spawn(|| lock(Duration::from_secs(20)).map(drop));
            answer.send(()).unwrap();
            again.join().unwrap().unwrap();
        });
        held_up.wait().unwrap();
        ended.wait().unwrap();
    }

    #[test]
    fn a_lease_that_ended_has_let_the_lock_go() {
        let drive = Attached::new(Arc::new(MemoryDrive::new("d")));
        let gone = Arc::new(AtomicBool::new(false));
        let lease = Lease::new(
            Arc::clone(&drive),
            Box::new(Slow(Mutex::new(mpsc::channel().1), Arc::clone(&gone))),
        );
        drop(lease);
        assert!(gone.load(Ordering::SeqCst));
    }
}
