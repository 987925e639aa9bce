//! Limits hold, change at once and in one step, and let nobody wait for ever.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use dwk_base::{Error, Result, Seams, SystemRandom, codes};
use dwk_catalog::{ContainerName, Key, PutOptions, Source};
use dwk_kernel::operations::{
    Configure, CreateContainer, GetSettings, Head, ListContainers, Put, Status,
};
use dwk_kernel::{
    Context, Create, Deadline, Drives, Kernel, OpenSpec, Operation, Principal, Settings,
};

const NONE: Settings =
    Settings { operations: None, rate: None, burst: None, object_bytes_max: None };

struct Store {
    kernel: Kernel,
    seams: Seams,
}

impl Store {
    fn new(name: &str) -> Self {
        let seams = Seams::system();
        let drives = (1..=3).map(|n| format!("memory://limits-{name}-{n}")).collect();
        let drives = Some(Drives::At(drives));
        let spec = OpenSpec { drives, create: Create::New, ..OpenSpec::default() };
        let kernel = Kernel::open(&spec, &context(&seams, 60_000), &seams).unwrap();
        let store = Self { kernel, seams };
        let name = ContainerName::new("c").unwrap();
        store.execute(CreateContainer { name: &name, options: b"" }, 60_000).unwrap();
        store
    }

    fn execute<O: Operation>(&self, operation: O, limit_ms: u64) -> Result<O::Outcome> {
        self.kernel.execute(&context(&self.seams, limit_ms), operation)
    }

    fn set(&self, settings: Settings) -> u64 {
        self.execute(Configure { settings }, 60_000).unwrap()
    }

    /// Work that takes no time.
    fn look(&self, limit_ms: u64) -> Result<()> {
        let listed = self.execute(ListContainers { after: None, limit: 1 }, limit_ms);
        listed.map(drop)
    }

    /// Puts an object, from memory or as a stream.
    fn put(
        &self,
        name: &str,
        mut bytes: &[u8],
        streams: bool,
        progress: &mut dyn FnMut(),
    ) -> Result<()> {
        let (key, options) = (Key::new(format!("c/{name}")).unwrap(), PutOptions::default());
        let source = if streams { Source::Stream(&mut bytes) } else { Source::Bytes(bytes) };
        let mut progress = |_| {
            progress();
            Ok(())
        };
        let (options, progress) = (&options, &mut progress as _);
        self.execute(Put { key: &key, source, options, progress, publish: &[] }, 60_000).map(drop)
    }
}

fn context(seams: &Seams, limit_ms: u64) -> Context {
    let deadline = Deadline::after(Arc::clone(&seams.clock), Duration::from_millis(limit_ms));
    Context::new(Principal::new("test").unwrap(), deadline, &SystemRandom)
}

fn is(code: &'static dwk_base::Code) -> impl Fn(&Error) -> bool {
    move |error| error.is(code)
}

#[test]
fn settings_out_of_range_are_refused_and_change_nothing() {
    let store = Store::new("range");
    let wrong = [
        Settings { operations: Some(0), ..NONE },
        Settings { rate: Some(0.0), ..NONE },
        Settings { rate: Some(-1.0), ..NONE },
        Settings { rate: Some(f64::NAN), ..NONE },
        Settings { rate: Some(f64::INFINITY), ..NONE },
        Settings { burst: Some(0), ..NONE },
    ];
    for settings in wrong {
        let error = store.execute(Configure { settings }, 1000).unwrap_err();
        assert!(error.is(&codes::CONFIG_VALUE) && error.detail("field").is_some(), "{error}");
    }
    assert_eq!(store.execute(GetSettings, 1000).unwrap().version, 0);
    assert_eq!(store.set(Settings { operations: Some(7), ..NONE }), 1);
    let now = store.execute(GetSettings, 1000).unwrap();
    assert_eq!((now.version, now.settings.operations), (1, Some(7)));
}

#[test]
fn an_object_beyond_the_limit_is_refused_and_leaves_nothing() {
    let store = Store::new("size");
    store.set(Settings { object_bytes_max: Some(100_000), ..NONE });
    let (fits, long) = (vec![1; 100_000], vec![1; 100_001]);
    for streams in [false, true] {
        store.put("a", &fits, streams, &mut || {}).unwrap();
        let error = store.put("b", &long, streams, &mut || {}).unwrap_err();
        assert!(error.is(&codes::LIMIT_OBJECT_SIZE), "{error}");
        let head = Head { key: &Key::new("c/b").unwrap() };
        assert!(store.execute(head, 1000).is_err_and(|e| e.is(&codes::OBJECT_NOT_FOUND)));
    }
}

#[test]
fn operations_come_no_faster_than_the_rate_once_the_burst_is_used_up() {
    let store = Store::new("rate");
    store.set(Settings { rate: Some(200.0), burst: Some(10), ..NONE });
    let begin = Instant::now();
    let count = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while count.fetch_add(1, Ordering::SeqCst) < 110 {
                    store.look(60_000).unwrap();
                }
            });
        }
    });
    let (took, least) = (begin.elapsed(), Duration::from_millis(500));
    assert!(took >= least, "110 operations in {took:?} at 200/s after 10");
    // Who could not come in time is told so at once, and how long it would be.
    store.set(NONE);
    store.set(Settings { rate: Some(0.1), burst: Some(1), ..NONE });
    store.look(1000).unwrap();
    let begin = Instant::now();
    let error = store.look(1000).unwrap_err();
    assert!(
        error.is(&codes::LIMIT_RATE) && begin.elapsed() < Duration::from_millis(500),
        "{error}"
    );
    let retry_after_s: f64 = error.detail("retry_after_s").unwrap().parse().unwrap();
    assert!((8.0..=10.0).contains(&retry_after_s), "{retry_after_s}");
    store.execute(Status, 1000).expect("what looks after the store is not held back");
}

/// Runs `waits` on a thread, and `then` once it can be taken to wait; it must not return before.
fn while_it_waits<T: Send>(waits: impl FnOnce() -> T + Send, then: impl FnOnce()) -> T {
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || sender.send(waits()).unwrap());
        let early = receiver.recv_timeout(Duration::from_millis(50));
        assert!(early.is_err(), "it did not wait");
        then();
        receiver.recv_timeout(Duration::from_secs(20)).expect("nobody told it")
    })
}

#[test]
fn who_waits_goes_on_by_the_new_limits_as_soon_as_they_count() {
    let store = Store::new("waits");
    let slow = Settings { rate: Some(0.001), burst: Some(1), ..NONE };
    store.set(slow);
    store.look(1000).unwrap();
    let forever = 3_600_000;
    while_it_waits(
        || store.look(forever),
        || {
            store.set(NONE);
        },
    )
    .unwrap();
    // A rate that is as slow, in a newer version, lets nobody in for being new.
    store.set(NONE);
    store.set(slow);
    store.look(1000).unwrap();
    let still = || {
        store.set(Settings { rate: Some(0.002), ..slow });
        std::thread::sleep(Duration::from_millis(30));
        store.set(Settings { rate: Some(1000.0), ..slow });
    };
    while_it_waits(|| store.look(forever), still).unwrap();
}

#[test]
fn what_is_not_used_is_kept_up_to_the_burst_and_no_place_is_lost_by_a_change() {
    let store = Store::new("burst");
    store.set(Settings { rate: Some(200.0), burst: Some(4), ..NONE });
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    (0..14).for_each(|_| store.look(60_000).unwrap());
    assert!(begin.elapsed() >= Duration::from_millis(50), "ten had to wait for 5 ms each");
    store.set(NONE);
    let nearly =
        |n: u32| Settings { rate: Some(2.0 + f64::from(n) * 1e-6), burst: Some(1), ..NONE };
    store.set(nearly(0));
    store.look(1000).unwrap();
    let changes = || {
        for n in 1..=60 {
            store.set(nearly(n));
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    // With a number more for each change it would be its turn in half a minute.
    while_it_waits(|| store.look(8000), changes).unwrap();
}

#[test]
fn an_operation_goes_by_the_settings_that_it_came_in_under() {
    let store = Store::new("came");
    let long = vec![0; 9 << 20];
    let mut looks = 0;
    store
        .put("a", &long, true, &mut || {
            looks += 1;
            store.set(Settings { object_bytes_max: Some(10), ..NONE });
        })
        .unwrap();
    assert!(looks > 1);
    assert!(
        store.put("a", &long, true, &mut || {}).is_err_and(|e| e.is(&codes::LIMIT_OBJECT_SIZE))
    );
}

/// Holds a put in the middle of its stream while `work` is done.
fn while_one_is_inside(store: &Store, work: impl FnOnce()) {
    let (entered, inside) = channel();
    let (release, released) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            store.put("held", &[0; 10], true, &mut || {
                entered.send(()).unwrap();
                released.recv().unwrap();
            })
        });
        inside.recv().unwrap();
        work();
        release.send(()).unwrap();
    });
}

#[test]
fn no_more_operations_are_under_way_than_may_be() {
    let store = Store::new("operations");
    store.set(Settings { operations: Some(1), ..NONE });
    while_one_is_inside(&store, || {
        let error = store.look(30).unwrap_err();
        assert!(error.is(&codes::LIMIT_OPERATIONS), "{error}");
        store.execute(Status, 1000).expect("what looks after the store is not held back");
        let more = Settings { operations: Some(2), ..NONE };
        while_it_waits(
            || store.look(60_000),
            || {
                store.set(more);
            },
        )
        .unwrap();
    });
    store.set(Settings { operations: Some(1), ..NONE });
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        while_one_is_inside(&store, || {
            let store = &store;
            scope.spawn(move || sender.send(store.look(60_000)).unwrap());
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "it did not wait");
        });
        receiver.recv_timeout(Duration::from_secs(20)).expect("nobody told it").unwrap();
    });
    for _ in 0..100 {
        store.look(1000).expect("everybody who came in has left");
    }
}

#[test]
fn closing_lets_nobody_wait_at_a_limit() {
    let store = Store::new("closing");
    store.set(Settings { rate: Some(0.001), burst: Some(1), ..NONE });
    store.look(1000).unwrap();
    let close = || store.kernel.close(&context(&store.seams, 20_000)).unwrap();
    let error = while_it_waits(|| store.look(3_600_000), close).unwrap_err();
    assert!(is(&codes::STORE_CLOSED)(&error), "{error}");
}

#[test]
fn no_operation_sees_half_of_a_change() {
    let store = Store::new("hammer");
    // The limit is a thousand times the version, so each shows whether it belongs to the other.
    let settings = |version: u64| Settings {
        operations: Some(3 + (version % 3) as u32),
        rate: Some(1e6 + version as f64),
        object_bytes_max: Some(version * 1000),
        ..NONE
    };
    store.set(settings(1));
    let (stop, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (store, stop, seen) = (&store, &stop, &seen);
            scope.spawn(move || {
                let long = vec![0; 2_000_000];
                while !stop.load(Ordering::SeqCst) {
                    let error = store.put("long", &long, thread % 2 == 0, &mut || {}).unwrap_err();
                    assert!(error.is(&codes::LIMIT_OBJECT_SIZE), "{error}");
                    let number = |name| error.detail(name).unwrap().parse::<u64>().unwrap();
                    assert_eq!(number("limit"), number("settings") * 1000);
                    seen.fetch_add(1, Ordering::SeqCst);
                    let now = store.execute(GetSettings, 1000).unwrap();
                    assert_eq!(now.settings, settings(now.version));
                }
            });
        }
        for version in 2..=1001 {
            assert_eq!(store.set(settings(version)), version);
        }
        while seen.load(Ordering::SeqCst) < 100 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::SeqCst);
    });
}
