//! Opening takes no longer than its caller gives it, and leaves nothing locked behind.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwk_base::{Clock, Seams, SystemRandom, codes};
use dwk_kernel::{Context, Create, Deadline, Drives, Kernel, OpenSpec, Principal};

/// A second passes whenever somebody looks.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn unix_ns(&self) -> u64 {
        1
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::SeqCst))
    }

    fn sleep(&self, _: Duration) {}
}

fn open(create: Create, limit_s: u64) -> dwk_base::Result<Kernel> {
    let seams = Seams { clock: Arc::new(Ticking::default()), random: Arc::new(SystemRandom) };
    let drives = (1..=3).map(|n| format!("memory://ticking-{n}")).collect();
    let spec = OpenSpec { drives: Some(Drives::At(drives)), create, ..OpenSpec::default() };
    let deadline = Deadline::after(Arc::clone(&seams.clock), Duration::from_secs(limit_s));
    let context = Context::new(Principal::new("test")?, deadline, &SystemRandom);
    Kernel::open(&spec, &context, &seams)
}

#[test]
fn the_deadline_holds_at_every_step_of_opening_and_no_drive_stays_locked() {
    drop(open(Create::New, 1_000_000).unwrap());
    let mut refused = 0;
    for limit_s in 1.. {
        match open_when_free(limit_s) {
            Ok(_) => break,
            Err(error) => assert!(error.is(&codes::CONTEXT_DEADLINE), "{limit_s}: {error}"),
        }
        refused += 1;
    }
    assert!(refused > 5, "only {refused} steps looked at the deadline");
    drop(open_when_free(1_000_000).unwrap());
}

/// An opening that was given up lets go of a drive when that has answered, which may be a moment later.
fn open_when_free(limit_s: u64) -> dwk_base::Result<Kernel> {
    let begin = std::time::Instant::now();
    loop {
        match open(Create::Never, limit_s) {
            Err(error) if error.is(&codes::STORE_LOCKED) => {
                assert!(begin.elapsed() < Duration::from_secs(10), "it stays locked: {error}");
                std::thread::yield_now();
            }
            outcome => return outcome,
        }
    }
}
