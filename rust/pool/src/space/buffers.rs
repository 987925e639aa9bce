//! Memory for stripes: bounded, aligned for direct I/O, used again.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwk_drive::ALIGNMENT;

/// A bounded amount of memory, handed out in [`Buffer`]s.
pub(crate) struct Memory {
    bytes_max: usize,
    state: Mutex<State>,
    given_back: Condvar,
}

#[derive(Default)]
struct State {
    /// Handed out now.
    used_bytes: usize,
    /// Kept for the next one: fresh memory costs a page fault for every page.
    idle: Vec<Vec<u8>>,
    idle_bytes: usize,
}

/// Memory whose first byte is aligned. Its content is whatever was there before. Given back when dropped.
pub(crate) struct Buffer {
    store: Vec<u8>,
    start: usize,
    length: usize,
    home: Arc<Memory>,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, state: Mutex::default(), given_back: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// True if there is room for `bytes` now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.lock().used_bytes + cost(bytes) <= self.bytes_max
    }

    /// A buffer of `bytes` if there is room for it now.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Buffer> {
        let mut state = self.lock();
        let room = state.used_bytes + cost(bytes) <= self.bytes_max;
        room.then(|| self.take_from(&mut state, bytes))
    }

    /// A buffer of `bytes`, waiting at most `limit` for room.
    pub(crate) fn take_within(self: &Arc<Self>, bytes: usize, limit: Duration) -> Option<Buffer> {
        let state = self.lock();
        // What could never fit is given alone.
        let full = |state: &mut State| {
            state.used_bytes > 0 && state.used_bytes + cost(bytes) > self.bytes_max
        };
        let waited = self.given_back.wait_timeout_while(state, limit, full);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (!timeout.timed_out()).then(|| self.take_from(&mut state, bytes))
    }

    /// A buffer of `bytes` whatever is used already: for the few who would block others by waiting.
    pub(crate) fn take_anyway(self: &Arc<Self>, bytes: usize) -> Buffer {
        self.take_from(&mut self.lock(), bytes)
    }

    fn take_from(self: &Arc<Self>, state: &mut State, bytes: usize) -> Buffer {
        let needed = cost(bytes);
        let fits = |store: &Vec<u8>| store.len() >= needed && store.len() <= needed * 2;
        let best = (0..state.idle.len())
            .filter(|index| fits(&state.idle[*index]))
            .min_by_key(|index| state.idle[*index].len());
        let store = match best {
            Some(index) => {
                let store = state.idle.swap_remove(index);
                state.idle_bytes -= store.len();
                store
            }
            None => vec![0; needed],
        };
        state.used_bytes += store.len();
        self.trim(state);
        let start = store.as_ptr().align_offset(ALIGNMENT);
        Buffer { store, start, length: bytes, home: Arc::clone(self) }
    }

    /// Frees idle memory beyond the limit.
    fn trim(&self, state: &mut State) {
        while state.used_bytes + state.idle_bytes > self.bytes_max && !state.idle.is_empty() {
            state.idle_bytes -= state.idle.remove(0).len();
        }
    }

    #[cfg(test)]
    pub(crate) fn used_bytes(&self) -> usize {
        self.lock().used_bytes
    }
}

/// What a buffer takes: room to align it in.
const fn cost(bytes: usize) -> usize {
    bytes + ALIGNMENT
}

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.store[self.start..self.start + self.length]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.store[self.start..self.start + self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let store = std::mem::take(&mut self.store);
        let mut state = self.home.lock();
        state.used_bytes -= store.len();
        state.idle_bytes += store.len();
        state.idle.push(store);
        self.home.trim(&mut state);
        drop(state);
        self.home.given_back.notify_all();
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.length)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_aligned_and_used_again() {
        let memory = Memory::new(1 << 20);
        let mut first = memory.try_take(600 << 10).unwrap();
        assert_eq!(first.as_mut().as_ptr().align_offset(ALIGNMENT), 0);
        first.as_mut()[0] = 7;
        assert!(memory.try_take(600 << 10).is_none());
        assert!(memory.take_within(600 << 10, Duration::from_millis(5)).is_none());
        drop(first);
        let again = memory.try_take(600 << 10).unwrap();
        assert_eq!(again.as_ref()[0], 7, "the same memory");
        drop(again);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn who_waits_gets_what_another_gives_back() {
        let memory = Memory::new(1 << 20);
        let first = memory.try_take(900 << 10).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| memory.take_within(900 << 10, Duration::from_secs(20)));
            std::thread::sleep(Duration::from_millis(20));
            drop(first);
            assert!(waiter.join().unwrap().is_some());
        });
        assert!(memory.take_within(2 << 20, Duration::ZERO).is_some(), "too large goes alone");
    }
}
