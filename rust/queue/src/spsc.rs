//! One producer, one consumer: no stamps, no claims, and each end keeps what it last saw of the other.

#![allow(unsafe_code, reason = "slots are handed on by positions")]

use std::fmt;
use std::sync::Arc;
use std::vec;

use crate::outcome::{PopError, PushError};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicUsize, Cell, Padded};

/// What both ends share. Positions count items; a slot is a position modulo the number of slots.
struct Shared<T> {
    slots: Box<[Cell<T>]>,
    /// Slots minus one; their number is a power of two.
    mask: usize,
    capacity: usize,
    /// How many items were taken out.
    head: Padded<AtomicUsize>,
    /// How many items were put in.
    tail: Padded<AtomicUsize>,
    /// Which ends are gone: a bit each.
    gone: Padded<AtomicUsize>,
}

const PRODUCER: usize = 1;
const CONSUMER: usize = 2;

/// The end that puts in. Dropping it closes the queue.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// `head` as last seen.
    head: usize,
}

/// The end that takes out. Dropping it closes the queue.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// `tail` as last seen.
    tail: usize,
}

// SAFETY: slots from `head` to `tail` are the consumer's, the others the producer's; each end hands slots
// over by a release store of its position that the other acquires. There is one of each.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Both ends of a queue for exactly `capacity` items, at least 1; `None` if there is no memory for it.
pub fn queue<T>(capacity: usize) -> Option<(Producer<T>, Consumer<T>)> {
    let count = capacity.checked_next_power_of_two().filter(|_| capacity > 0)?;
    let mut slots = Vec::new();
    slots.try_reserve_exact(count).ok()?;
    slots.extend((0..count).map(|_| Cell::empty()));
    let zero = || Padded(AtomicUsize::new(0));
    let slots = slots.into_boxed_slice();
    let shared =
        Shared { slots, mask: count - 1, capacity, head: zero(), tail: zero(), gone: zero() };
    let shared = Arc::new(shared);
    let producer = Producer { shared: Arc::clone(&shared), tail: 0, head: 0 };
    Some((producer, Consumer { shared, head: 0, tail: 0 }))
}

impl<T> Producer<T> {
    /// Puts an item in.
    ///
    /// # Errors
    /// [`PushError::Full`], or [`PushError::Closed`] once the consumer is gone
    #[inline]
    pub fn try_push(&mut self, item: T) -> Result<(), PushError<T>> {
        if self.room(1) == 0 {
            return Err(if self.is_closed() {
                PushError::Closed(item)
            } else {
                PushError::Full(item)
            });
        }
        // SAFETY: there is room, so the slot is the producer's.
        unsafe { self.shared.slot(self.tail).write(item) };
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.store(self.tail, Release);
        Ok(())
    }

    /// Puts in as many of `items` as there is room for, and returns how many; the rest stays in `items`.
    ///
    /// # Errors
    /// [`PushError::Closed`] once the consumer is gone and there is no room
    pub fn try_push_many(&mut self, items: &mut vec::IntoIter<T>) -> Result<usize, PushError<()>> {
        let count = self.room(items.len()).min(items.len());
        if count == 0 && items.len() > 0 && self.is_closed() {
            return Err(PushError::Closed(()));
        }
        for offset in 0..count {
            if let Some(item) = items.next() {
                // SAFETY: there is room for `count` items from `tail` on, so these slots are the producer's.
                unsafe { self.shared.slot(self.tail.wrapping_add(offset)).write(item) };
            }
        }
        self.tail = self.tail.wrapping_add(count);
        self.shared.tail.store(self.tail, Release);
        Ok(count)
    }

    /// True once the consumer is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.gone.load(Acquire) & CONSUMER != 0
    }

    /// How many items fit at least; looks at the other end only if it seems to be less than `wanted`.
    #[inline]
    fn room(&mut self, wanted: usize) -> usize {
        let room = |head| self.shared.capacity - self.tail.wrapping_sub(head);
        if room(self.head) < wanted {
            self.head = self.shared.head.load(Acquire);
        }
        self.shared.capacity - self.tail.wrapping_sub(self.head)
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest item out.
    ///
    /// # Errors
    /// [`PopError::Empty`], or [`PopError::Closed`] once the producer is gone and nothing is left
    #[inline]
    pub fn try_pop(&mut self) -> Result<T, PopError> {
        if self.filled(1) == 0 {
            return Err(self.nothing());
        }
        // SAFETY: there is an item, so the slot is the consumer's.
        let item = unsafe { self.shared.slot(self.head).take() };
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Release);
        Ok(item)
    }

    /// Takes up to `limit` items out, to the end of `into`, and returns how many.
    ///
    /// # Errors
    /// [`PopError::Closed`] once the producer is gone and nothing is left
    pub fn try_pop_many(&mut self, into: &mut Vec<T>, limit: usize) -> Result<usize, PopError> {
        let count = self.filled(limit).min(limit);
        if count == 0 && limit > 0 && self.nothing() == PopError::Closed {
            return Err(PopError::Closed);
        }
        into.reserve(count);
        for offset in 0..count {
            // SAFETY: `count` items are there from `head` on, so these slots are the consumer's.
            into.push(unsafe { self.shared.slot(self.head.wrapping_add(offset)).take() });
        }
        self.head = self.head.wrapping_add(count);
        self.shared.head.store(self.head, Release);
        Ok(count)
    }

    /// Why nothing is there. What the producer put in before it went away is seen first.
    fn nothing(&mut self) -> PopError {
        let gone = self.shared.gone.load(Acquire) & PRODUCER != 0;
        if gone && self.filled(1) == 0 { PopError::Closed } else { PopError::Empty }
    }

    /// How many items are there at least; looks at the other end only if it seems to be less than `wanted`.
    #[inline]
    fn filled(&mut self, wanted: usize) -> usize {
        if self.tail.wrapping_sub(self.head) < wanted {
            self.tail = self.shared.tail.load(Acquire);
        }
        self.tail.wrapping_sub(self.head)
    }
}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, position: usize) -> &Cell<T> {
        &self.slots[position & self.mask]
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.shared.gone.fetch_or(PRODUCER, Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.shared.gone.fetch_or(CONSUMER, Release);
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (mut head, tail) = (self.head.load(Relaxed), self.tail.load(Relaxed));
        while head != tail {
            // SAFETY: items from `head` to `tail` are in the slots, and nobody else is left.
            drop(unsafe { self.slot(head).take() });
            head = head.wrapping_add(1);
        }
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("capacity", &self.shared.capacity).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("capacity", &self.shared.capacity).finish_non_exhaustive()
    }
}
