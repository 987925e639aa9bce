//! What wakes the thread that looks after all streams.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dwk_base::Clock;

use crate::sync::{guard, wait};

/// Who is to be looked after, and until when there is time.
pub(crate) struct Bell {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    rang: Condvar,
}

#[derive(Default)]
struct State {
    /// Streams that have work now.
    wanted: BTreeSet<u64>,
    /// Streams that have work later, by the time and by the stream.
    later: BTreeSet<(u64, u64)>,
    times: HashMap<u64, u64>,
    stopping: bool,
}

impl Bell {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), rang: Condvar::new() }
    }

    /// A stream has work.
    pub(crate) fn ring(&self, stream: u64) {
        if guard(&self.state).wanted.insert(stream) {
            self.rang.notify_one();
        }
    }

    /// A stream will have work at `unix_ns`, or earlier if that was said before.
    pub(crate) fn ring_at(&self, stream: u64, unix_ns: u64) {
        let mut state = guard(&self.state);
        if state.times.get(&stream).is_some_and(|time| *time <= unix_ns) {
            return;
        }
        let first = state.later.first().copied();
        if let Some(time) = state.times.insert(stream, unix_ns) {
            state.later.remove(&(time, stream));
        }
        state.later.insert((unix_ns, stream));
        if first.is_none_or(|first| (unix_ns, stream) < first) {
            self.rang.notify_one();
        }
    }

    /// Wakes whoever waits, for good.
    pub(crate) fn stop(&self) {
        guard(&self.state).stopping = true;
        self.rang.notify_all();
    }

    /// Waits until some streams have work; `None` when there will be no more.
    pub(crate) fn wait(&self) -> Option<BTreeSet<u64>> {
        let mut state = guard(&self.state);
        loop {
            if state.stopping {
                return None;
            }
            let now = self.clock.unix_ns();
            while let Some(&(time, stream)) = state.later.first().filter(|first| first.0 <= now) {
                state.later.remove(&(time, stream));
                state.times.remove(&stream);
                state.wanted.insert(stream);
            }
            if !state.wanted.is_empty() {
                return Some(std::mem::take(&mut state.wanted));
            }
            let next = state.later.first().map(|(unix_ns, _)| unix_ns.saturating_sub(now));
            let limit = next.map_or(Duration::MAX, Duration::from_nanos);
            state = wait(&self.rang, state, limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dwk_base::ManualClock;

    #[test]
    fn streams_are_named_once_when_they_have_work_or_their_time_came() {
        let clock = Arc::new(ManualClock::default());
        let bell = Bell::new(Arc::clone(&clock) as Arc<dyn Clock>);
        bell.ring(7);
        bell.ring(7);
        bell.ring_at(8, 300);
        bell.ring_at(8, 100);
        bell.ring_at(8, 150);
        bell.ring_at(9, 200);
        assert_eq!(bell.wait(), Some([7].into()));
        clock.advance(Duration::from_nanos(100));
        assert_eq!(bell.wait(), Some([8].into()));
        bell.ring(1);
        clock.advance(Duration::from_nanos(100));
        assert_eq!(bell.wait(), Some([1, 9].into()));
        bell.stop();
        assert_eq!(bell.wait(), None);
    }

    #[test]
    fn who_waits_is_woken_by_work_and_by_the_end() {
        let bell = Arc::new(Bell::new(Arc::new(ManualClock::default())));
        let (tell, told) = std::sync::mpsc::channel();
        let waits = {
            let bell = Arc::clone(&bell);
            std::thread::spawn(move || {
                tell.send(bell.wait()).unwrap();
                bell.wait()
            })
        };
        bell.ring(3);
        assert_eq!(told.recv().unwrap(), Some([3].into()));
        bell.stop();
        assert_eq!(waits.join().unwrap(), None);
    }
}
