//! A bus to try things on.
#![allow(dead_code, reason = "each test file uses a part")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use dwk_base::{Deadline, Error, Seams, SystemClock, codes};
use dwk_bus::{Bus, Limits, Message, Options, Pattern, Policy, Space, Subject, Subscription};

pub(crate) const NEVER: Deadline = Deadline::never();

pub(crate) fn bus() -> Bus {
    bus_with(Limits::default())
}

pub(crate) fn bus_with(limits: Limits) -> Bus {
    let seams = Seams::seeded(1);
    Bus::new(seams.clock, seams.random, limits)
}

pub(crate) fn space() -> Space {
    bus().space("").unwrap()
}

pub(crate) fn subject(text: &str) -> Subject {
    Subject::new(text).unwrap()
}

pub(crate) fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap()
}

pub(crate) fn message(about: &str, data: impl Into<bytes::Bytes>) -> Message {
    Message::new(subject(about), data)
}

pub(crate) fn numbered(about: &str, number: u32) -> Message {
    message(about, number.to_le_bytes().to_vec())
}

pub(crate) fn number(data: &[u8]) -> u32 {
    u32::from_le_bytes(data[..4].try_into().unwrap())
}

pub(crate) fn after_ms(ms: u64) -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), Duration::from_millis(ms))
}

/// A deadline that does not wait.
pub(crate) fn now() -> Deadline {
    after_ms(0)
}

/// Long enough for anything that is to happen.
pub(crate) fn soon() -> Deadline {
    after_ms(20_000)
}

pub(crate) fn named(name: &str, policy: Policy, messages_max: usize) -> Options {
    Options { name: Some(name.into()), policy, messages_max, ..Options::default() }
}

/// What waits, as text.
pub(crate) fn texts(subscription: &Subscription) -> Vec<String> {
    let mut all = vec![];
    while let Ok(Some(delivery)) = subscription.next(&now()) {
        all.push(String::from_utf8(delivery.data().to_vec()).unwrap());
    }
    all
}

/// What waits, as numbers.
pub(crate) fn numbers(subscription: &Subscription) -> Vec<u32> {
    let mut all = vec![];
    while let Ok(Some(delivery)) = subscription.next(&now()) {
        all.push(number(delivery.data()));
    }
    all
}

pub(crate) fn eventually(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn failure(text: &str) -> Error {
    Error::new(&codes::BUS_HANDLER, text)
}

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Runs a future on this thread, and only when it is woken.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(true) });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut future = pin!(future);
    loop {
        if unpark.woken.swap(false, Ordering::SeqCst)
            && let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return done;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
}
