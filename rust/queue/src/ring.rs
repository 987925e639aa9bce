//! The ring: a bounded queue of many producers and many consumers that never waits for room or items.
//!
//! Each slot carries a *stamp* that says whose turn it is (after D. Vyukov's bounded MPMC queue). A
//! position is an index into the slots, a bit that closes the queue, and a lap above it:
//!
//! ```text
//! position   lap … lap | closed | index … index
//! stamp      = position          free for the producer of that position
//!            = position + 1      holds the item of that position
//! ```
//!
//! A producer claims positions by moving `tail` on, writes, and stamps; a consumer claims by moving
//! `head` on, takes, and stamps the slot for the next lap. Who claims has seen before that every slot
//! of the claim is its own, and nobody else can change that: a claim never waits. Batches claim many
//! positions in one step.
//!
//! Order. Items come out in the order in which their positions were claimed; those of one producer in
//! the order in which it put them in; those of a batch next to each other as far as one claim went.
//!
//! Progress. A thread that stops between claim and stamp holds back those who come to its slot, and no
//! others; they spin, then give the processor away.
//!
//! Waiters. Whoever sleeps on a ring first says so in a word of its own and then looks at `head` or
//! `tail` again; who moves `head` or `tail` looks at that word afterwards. All four are `SeqCst`: one of
//! the two sees the other. That is why the claims are `SeqCst` and the fast path needs no fence.

#![allow(unsafe_code, reason = "slots are handed on by stamps")]

use std::vec;

use crate::outcome::{PopError, PushError};
use crate::patience::Patience;
use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::{AtomicUsize, Cell, Padded};

/// A bounded lock-free queue whose operations return at once.
pub struct Ring<T> {
    /// Where the next item is taken.
    head: Padded<AtomicUsize>,
    /// Where the next item goes; carries the closed bit.
    tail: Padded<AtomicUsize>,
    slots: Box<[Slot<T>]>,
    shape: Shape,
}

/// How positions are laid out. A copy of it stays in registers, where fields beside atomics are read again
/// after each of them.
#[derive(Clone, Copy)]
struct Shape {
    /// The bit above every index.
    closed: usize,
    capacity: usize,
}

/// Slots that follow each other, and the position of the first.
type Run<'r, T> = (&'r [Slot<T>], usize);

struct Slot<T> {
    stamp: AtomicUsize,
    item: Cell<T>,
}

// SAFETY: an item is touched by one thread at a time, handed from one to the next by its slot's stamp
// (released after the touch, acquired before it).
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above; no reference to an item leaves the ring but in `for_each`, which demands quiet.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    /// A ring for exactly `capacity` items, at least 1; `None` if there is no memory for it.
    pub fn new(capacity: usize) -> Option<Self> {
        let closed = capacity.checked_add(1)?.checked_next_power_of_two()?;
        if capacity == 0 || closed > usize::MAX >> 16 {
            return None;
        }
        let mut slots = Vec::new();
        slots.try_reserve_exact(capacity).ok()?;
        slots.extend(
            (0..capacity).map(|index| Slot { stamp: AtomicUsize::new(index), item: Cell::empty() }),
        );
        Some(Self {
            head: Padded(AtomicUsize::new(0)),
            tail: Padded(AtomicUsize::new(0)),
            slots: slots.into_boxed_slice(),
            shape: Shape { closed, capacity },
        })
    }

    /// Puts an item in.
    ///
    /// # Errors
    /// [`PushError::Full`] or [`PushError::Closed`], with the item.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call costs a fifth of what it does")]
    pub fn try_push(&self, item: T) -> Result<(), PushError<T>> {
        let (shape, slots) = (self.shape, &*self.slots);
        let tail = self.tail.load(Relaxed);
        let slot = &slots[shape.index(tail)];
        // No stamp carries the closed bit.
        if slot.stamp.load(Acquire) == tail && claim(&self.tail, tail, shape.after(tail, 1)) {
            slot.fill(item, tail);
            return Ok(());
        }
        self.push_patiently(item)
    }

    /// [`try_push`](Self::try_push) for one who has the ring to itself: no claim has to be raced for.
    ///
    /// # Errors
    /// as `try_push`
    ///
    /// # Safety
    /// Nobody else puts in, takes out or closes meanwhile, and who did before happened before.
    #[inline]
    pub unsafe fn try_push_alone(&self, item: T) -> Result<(), PushError<T>> {
        let tail = self.tail.load(Relaxed);
        let slot = self.slot(tail);
        if slot.stamp.load(Relaxed) != tail {
            return self.push_patiently(item);
        }
        self.tail.store(self.shape.after(tail, 1), Release);
        slot.fill(item, tail);
        Ok(())
    }

    /// [`try_pop`](Self::try_pop) for one who has the ring to itself.
    ///
    /// # Errors
    /// as `try_pop`
    ///
    /// # Safety
    /// as [`try_push_alone`](Self::try_push_alone)
    #[inline]
    pub unsafe fn try_pop_alone(&self) -> Result<T, PopError> {
        let head = self.head.load(Relaxed);
        let slot = self.slot(head);
        if slot.stamp.load(Relaxed) != head + 1 {
            return self.pop_patiently();
        }
        self.head.store(self.shape.after(head, 1), Release);
        Ok(slot.empty(head.wrapping_add(self.shape.lap())))
    }

    /// [`try_push_many`](Self::try_push_many) for one who has the ring to itself.
    ///
    /// # Errors
    /// as `try_push_many`
    ///
    /// # Safety
    /// as [`try_push_alone`](Self::try_push_alone)
    pub unsafe fn try_push_many_alone(
        &self,
        items: &mut vec::IntoIter<T>,
    ) -> Result<usize, PopError> {
        let tail = self.tail.load(Relaxed);
        if tail & self.shape.closed != 0 {
            return Err(PopError::Closed);
        }
        let count = items.len().min(self.capacity() - self.len());
        self.tail.store(self.shape.after(tail, count), Release);
        self.fill_all(tail, count, items);
        Ok(count)
    }

    /// [`try_pop_many`](Self::try_pop_many) for one who has the ring to itself.
    ///
    /// # Errors
    /// as `try_pop_many`
    ///
    /// # Safety
    /// as [`try_push_alone`](Self::try_push_alone)
    pub unsafe fn try_pop_many_alone(
        &self,
        into: &mut Vec<T>,
        limit: usize,
    ) -> Result<usize, PopError> {
        let count = self.len().min(limit);
        if count == 0 && limit > 0 && self.is_closed() {
            return Err(PopError::Closed);
        }
        into.reserve(count);
        let head = self.head.load(Relaxed);
        self.head.store(self.shape.after(head, count), Release);
        self.empty_all(head, count, into);
        Ok(count)
    }

    #[cold]
    fn push_patiently(&self, item: T) -> Result<(), PushError<T>> {
        let mut patience = Patience::default();
        let mut tail = self.tail.load(Relaxed);
        loop {
            if tail & self.shape.closed != 0 {
                return Err(PushError::Closed(item));
            }
            let slot = self.slot(tail);
            if slot.stamp.load(Acquire) == tail {
                match self.claim(&self.tail, tail, 1) {
                    Ok(()) => {
                        slot.fill(item, tail);
                        return Ok(());
                    }
                    Err(seen) => tail = seen,
                }
                patience.spin();
            } else if self.is_full_at(tail) {
                return Err(PushError::Full(item));
            } else {
                patience.wait();
                tail = self.tail.load(Relaxed);
            }
        }
    }

    /// Takes the oldest item out.
    ///
    /// # Errors
    /// [`PopError::Empty`], or [`PopError::Closed`] once a closed ring is empty.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call costs a fifth of what it does")]
    pub fn try_pop(&self) -> Result<T, PopError> {
        let (shape, slots) = (self.shape, &*self.slots);
        let head = self.head.load(Relaxed);
        let slot = &slots[shape.index(head)];
        if slot.stamp.load(Acquire) == head + 1 && claim(&self.head, head, shape.after(head, 1)) {
            return Ok(slot.empty(head.wrapping_add(shape.lap())));
        }
        self.pop_patiently()
    }

    #[cold]
    fn pop_patiently(&self) -> Result<T, PopError> {
        let mut patience = Patience::default();
        let mut head = self.head.load(Relaxed);
        loop {
            let slot = self.slot(head);
            if slot.stamp.load(Acquire) == head + 1 {
                match self.claim(&self.head, head, 1) {
                    Ok(()) => return Ok(slot.empty(head.wrapping_add(self.shape.lap()))),
                    Err(seen) => head = seen,
                }
                patience.spin();
            } else if let Some(nothing) = self.nothing_at(head) {
                return Err(nothing);
            } else {
                patience.wait();
                head = self.head.load(Relaxed);
            }
        }
    }

    /// Puts in as many of `items` as there is room for, and returns how many; the rest stays in `items`.
    ///
    /// # Errors
    /// [`PopError::Closed`] if the ring is closed; nothing was taken.
    pub fn try_push_many(&self, items: &mut vec::IntoIter<T>) -> Result<usize, PopError> {
        let mut patience = Patience::default();
        let mut tail = self.tail.load(Relaxed);
        loop {
            if tail & self.shape.closed != 0 {
                return Err(PopError::Closed);
            }
            let count = self.stamped(tail, 0, items.len());
            if count > 0 {
                match self.claim(&self.tail, tail, count) {
                    Ok(()) => {
                        self.fill_all(tail, count, items);
                        return Ok(count);
                    }
                    Err(seen) => tail = seen,
                }
                patience.spin();
            } else if items.len() == 0 || self.is_full_at(tail) {
                return Ok(0);
            } else {
                patience.wait();
                tail = self.tail.load(Relaxed);
            }
        }
    }

    /// Takes up to `limit` items out, oldest first, to the end of `into`, and returns how many.
    ///
    /// # Errors
    /// [`PopError::Closed`] once a closed ring is empty.
    pub fn try_pop_many(&self, into: &mut Vec<T>, limit: usize) -> Result<usize, PopError> {
        let mut patience = Patience::default();
        let mut head = self.head.load(Relaxed);
        loop {
            let count = self.stamped(head, 1, limit);
            if count > 0 {
                // Before the claim: what runs out of memory here has lost nothing.
                into.reserve(count);
                match self.claim(&self.head, head, count) {
                    Ok(()) => {
                        self.empty_all(head, count, into);
                        return Ok(count);
                    }
                    Err(seen) => head = seen,
                }
                patience.spin();
            } else if limit == 0 {
                return Ok(0);
            } else if let Some(nothing) = self.nothing_at(head) {
                return if nothing == PopError::Empty { Ok(0) } else { Err(nothing) };
            } else {
                patience.wait();
                head = self.head.load(Relaxed);
            }
        }
    }

    /// Takes nothing more in. What is in it can be taken out. Returns false if it was closed before.
    pub fn close(&self) -> bool {
        self.tail.fetch_or(self.shape.closed, SeqCst) & self.shape.closed == 0
    }

    /// True once [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.tail.load(SeqCst) & self.shape.closed != 0
    }

    /// How many items it holds at most.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// How many items are in it, at some moment during the call.
    pub fn len(&self) -> usize {
        let gets = self.gets();
        self.puts().saturating_sub(gets).min(self.capacity())
    }

    /// True if nothing is in it, at some moment during the call.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items were put in since it was made.
    pub fn puts(&self) -> usize {
        self.ordinal(self.tail.load(SeqCst))
    }

    /// How many items were taken out since it was made.
    pub fn gets(&self) -> usize {
        self.ordinal(self.head.load(SeqCst))
    }

    /// Looks at every item, oldest first.
    ///
    /// # Safety
    /// Nobody puts in or takes out meanwhile.
    pub unsafe fn for_each(&self, mut look: impl FnMut(&T)) {
        let head = self.head.load(Acquire);
        let count = self.stamped(head, 1, self.capacity());
        for slot in self.runs(head, count).iter().flat_map(|(run, _)| *run) {
            // SAFETY: the stamp says that an item is there, and by the caller's word it stays.
            look(unsafe { slot.item.peek() });
        }
    }

    /// Puts the first `count` of `items`, of which there are as many, into the slots from `at` on, which
    /// the caller has claimed.
    #[inline]
    fn fill_all(&self, at: usize, count: usize, items: &mut vec::IntoIter<T>) {
        for (run, start) in self.runs(at, count) {
            for ((slot, at), item) in run.iter().zip(start..).zip(items.by_ref()) {
                slot.fill(item, at);
            }
        }
    }

    /// Takes what is in the `count` slots from `at` on, which the caller has claimed.
    #[inline]
    fn empty_all(&self, at: usize, count: usize, into: &mut Vec<T>) {
        for (run, start) in self.runs(at, count) {
            let next = start.wrapping_add(self.shape.lap());
            into.extend(run.iter().zip(next..).map(|(slot, next)| slot.empty(next)));
        }
    }

    /// Moves `end` from `at` over `count` positions.
    #[inline]
    fn claim(&self, end: &AtomicUsize, at: usize, count: usize) -> Result<(), usize> {
        end.compare_exchange_weak(at, self.shape.after(at, count), SeqCst, Relaxed).map(|_| ())
    }

    /// How many slots from position `at` on, at most `limit`, carry the stamp `position + more`.
    #[inline]
    fn stamped(&self, at: usize, more: usize, limit: usize) -> usize {
        let mut count = 0;
        for (run, start) in self.runs(at, limit.min(self.capacity())) {
            for (slot, position) in run.iter().zip(start + more..) {
                if slot.stamp.load(Acquire) != position {
                    return count;
                }
                count += 1;
            }
        }
        count
    }

    /// The `count` slots from position `at` on, as what is left of this lap and what is in the next.
    #[inline]
    fn runs(&self, at: usize, count: usize) -> [Run<'_, T>; 2] {
        let index = self.shape.index(at);
        let here = count.min(self.capacity() - index);
        let next = (at - index).wrapping_add(self.shape.lap());
        [(&self.slots[index..index + here], at), (&self.slots[..count - here], next)]
    }

    #[inline]
    fn slot(&self, at: usize) -> &Slot<T> {
        &self.slots[self.shape.index(at)]
    }

    /// The number of positions before `at`.
    fn ordinal(&self, at: usize) -> usize {
        let laps = at >> self.shape.lap().trailing_zeros();
        laps.wrapping_mul(self.capacity()).wrapping_add(self.shape.index(at))
    }

    /// True if the item of one lap before position `at` has not been claimed.
    #[inline]
    fn is_full_at(&self, at: usize) -> bool {
        self.head.load(SeqCst).wrapping_add(self.shape.lap()) == at
    }

    /// Why there is nothing at position `at`; `None` if a producer is about to stamp it, or it is past.
    #[inline]
    fn nothing_at(&self, at: usize) -> Option<PopError> {
        let tail = self.tail.load(SeqCst);
        let empty = tail & !self.shape.closed == at;
        empty.then_some(if tail & self.shape.closed == 0 {
            PopError::Empty
        } else {
            PopError::Closed
        })
    }
}

/// Moves `end` from `at` to `next`, unless somebody else has moved it.
#[inline]
fn claim(end: &AtomicUsize, at: usize, next: usize) -> bool {
    end.compare_exchange_weak(at, next, SeqCst, Relaxed).is_ok()
}

impl Shape {
    #[inline]
    const fn index(self, at: usize) -> usize {
        at & (self.closed - 1)
    }

    #[inline]
    const fn lap(self) -> usize {
        self.closed << 1
    }

    /// The position `count` after `at`, at most one lap.
    #[inline]
    const fn after(self, at: usize, count: usize) -> usize {
        let index = self.index(at) + count;
        if index < self.capacity {
            at + count
        } else {
            (at - self.index(at)).wrapping_add(self.lap()) + (index - self.capacity)
        }
    }
}

impl<T> Slot<T> {
    /// Puts `item` into the slot, whose producer's position `at` the caller has claimed.
    #[inline]
    fn fill(&self, item: T, at: usize) {
        // SAFETY: the stamp was `at`, and one producer claims each position: the slot is empty and its own
        // until the stamp says otherwise.
        unsafe { self.item.write(item) };
        self.stamp.store(at + 1, Release);
    }

    /// Takes the item out of a slot that the caller has claimed as its consumer.
    #[inline]
    fn empty(&self, next: usize) -> T {
        // SAFETY: the stamp said that an item is here, and one consumer claims each position.
        let item = unsafe { self.item.take() };
        self.stamp.store(next, Release);
        item
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        while self.try_pop().is_ok() {}
    }
}

impl<T> std::fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (depth, capacity) = (self.len(), self.capacity());
        f.debug_struct("Ring").field("len", &depth).field("capacity", &capacity).finish()
    }
}
