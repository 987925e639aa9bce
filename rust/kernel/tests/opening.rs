//! Opening takes no longer than its caller gives it, leaves nothing locked behind, and asks for nothing that it
//! can do without.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwk_base::{Clock, Seams, SystemRandom, Waiter, codes};
use dwk_kernel::operations::Status;
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

/// Somebody who waits no longer when so often was looked at the clock.
struct Leaving {
    looks: AtomicU64,
    after: u64,
    waiter: Arc<Waiter>,
}

impl Clock for Leaving {
    fn unix_ns(&self) -> u64 {
        1
    }

    fn monotonic(&self) -> Duration {
        let looks = self.looks.fetch_add(1, Ordering::SeqCst);
        if looks == self.after {
            self.waiter.stop();
        }
        Duration::from_millis(looks)
    }

    fn sleep(&self, _: Duration) {}
}

fn open_and_leave(create: Create, after: u64) -> dwk_base::Result<Kernel> {
    let waiter = Arc::new(Waiter::default());
    let clock = Leaving { looks: AtomicU64::new(0), after, waiter: Arc::clone(&waiter) };
    let seams = Seams { clock: Arc::new(clock), random: Arc::new(SystemRandom) };
    let drives = (1..=3).map(|n| format!("memory://leaving-{n}")).collect();
    let spec = OpenSpec { drives: Some(Drives::At(drives)), create, ..OpenSpec::default() };
    let deadline = Deadline::after(Arc::clone(&seams.clock), Duration::from_secs(1_000_000));
    let context = Context::new(Principal::new("test")?, deadline, &SystemRandom);
    Kernel::open(&spec, &context.waited_for_by(waiter), &seams)
}

#[test]
fn an_opening_that_nobody_waits_for_ends_at_every_step_and_the_next_one_is_as_before() {
    drop(open_and_leave(Create::New, u64::MAX).unwrap());
    let mut stopped = 0;
    for after in 1.. {
        match when_free(|| open_and_leave(Create::Never, after)) {
            Ok(_) => break,
            Err(error) => assert!(error.is(&codes::CONTEXT_CANCELLED), "{after}: {error}"),
        }
        stopped += 1;
        let kernel = when_free(|| open_and_leave(Create::Never, u64::MAX)).unwrap();
        let seams = kernel.seams();
        let deadline = Deadline::after(Arc::clone(&seams.clock), Duration::from_secs(1_000_000));
        let context = Context::new(Principal::new("test").unwrap(), deadline, &*seams.random);
        let status = kernel.execute(&context, Status).unwrap();
        assert_eq!(status.pool.read_only, None, "{after}");
    }
    assert!(stopped > 3, "only {stopped} steps looked whether somebody waits");
}

/// An opening that was given up lets go of a drive when that has answered, which may be a moment later.
fn open_when_free(limit_s: u64) -> dwk_base::Result<Kernel> {
    when_free(|| open(Create::Never, limit_s))
}

fn when_free(open: impl Fn() -> dwk_base::Result<Kernel>) -> dwk_base::Result<Kernel> {
    let begin = std::time::Instant::now();
    loop {
        match open() {
            Err(error) if error.is(&codes::STORE_LOCKED) => {
                assert!(begin.elapsed() < Duration::from_secs(10), "it stays locked: {error}");
                std::thread::yield_now();
            }
            outcome => return outcome,
        }
    }
}

#[test]
fn a_place_where_nothing_can_be_noted_is_no_reason_to_refuse_the_drives() {
    let home = tempfile::tempdir().unwrap();
    // Not even root can put a file in the place of a directory.
    std::fs::create_dir_all(home.path().join("store.json/x")).unwrap();
    let open = |create| {
        let drives = (1..=3).map(|n| format!("memory://unnoted-{n}")).collect();
        let (path, drives) = (Some(home.path().to_owned()), Some(Drives::At(drives)));
        let spec = OpenSpec { path, drives, create, ..OpenSpec::default() };
        Kernel::open(&spec, &context(), &Seams::system())
    };
    for create in [Create::New, Create::Never] {
        let kernel = open(create).unwrap();
        let status = kernel.execute(&context(), Status).unwrap();
        let warning = status.warnings.iter().find(|text| text.contains("name them in drives="));
        assert!(warning.is_some_and(|text| text.contains("store.json")), "{:?}", status.warnings);
    }
}

fn context() -> Context {
    Context::new(Principal::new("test").unwrap(), Deadline::never(), &SystemRandom)
}
