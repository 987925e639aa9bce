//! Messages on their way out.

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use dwk_base::Result;

use super::lock::Held;
use super::queue::SharedQueue;
use super::ring::{Cursor, Depth, Ring, UNIT_BYTES};

/// Messages that are there, while this holds other consumers off: copy out as many as you like, then
/// [`Self::finish`]. Dropped without that, nothing was taken.
pub struct Taking<'a> {
    queue: &'a SharedQueue,
    held: Held<'a>,
    head: Cursor,
    depth: Depth,
    /// The length of the message at `head`, once it was asked for.
    next_bytes: Option<usize>,
    count: u64,
}

impl<'a> Taking<'a> {
    #[inline]
    pub(super) fn new(queue: &'a SharedQueue, held: Held<'a>, head: Cursor, depth: Depth) -> Self {
        Self { queue, held, head, depth, next_bytes: None, count: 0 }
    }

    /// How many messages can be taken.
    pub fn items(&self) -> usize {
        self.depth.items as usize
    }

    /// The length of the next message, at most the queue's capacity; `None` after the last.
    ///
    /// # Errors
    /// `queue.damaged`
    #[inline]
    pub fn next_bytes(&mut self) -> Result<Option<usize>> {
        if self.depth.items == 0 {
            return Ok(None);
        }
        if self.next_bytes.is_none() {
            let word = self.queue.memory.unit(self.queue.ring.offset(self.head)).load(Relaxed);
            let bytes = Ring::message_bytes(self.head, word, self.depth);
            self.next_bytes = Some(bytes.ok_or_else(|| self.queue.unsound())?);
        }
        Ok(self.next_bytes)
    }

    /// Copies the next message into `into`, and goes on to the one behind it.
    ///
    /// # Panics
    /// If `into` is not as long as [`Self::next_bytes`] said, or that was not asked.
    #[inline]
    #[allow(unsafe_code)]
    pub fn copy_into<'b>(&mut self, into: &'b mut [MaybeUninit<u8>]) -> &'b mut [u8] {
        assert_eq!(self.next_bytes.take(), Some(into.len()), "room for the next message");
        let (ring, memory) = (self.queue.ring, &self.queue.memory);
        let offset = ring.step(ring.offset(self.head), UNIT_BYTES);
        let (first, rest) = into.split_at_mut(ring.before_end(offset, into.len()));
        memory.copy_out(offset, first);
        memory.copy_out(0, rest);
        let units = Ring::units_of(into.len());
        self.head = ring.after(self.head, units);
        self.depth = Depth { units: self.depth.units - units, items: self.depth.items - 1 };
        self.count += 1;
        // SAFETY: both parts were just filled.
        unsafe { into.assume_init_mut() }
    }

    /// The next message; `None` after the last.
    ///
    /// # Errors
    /// `queue.damaged`
    #[allow(unsafe_code)]
    pub fn take(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = self.next_bytes()? else { return Ok(None) };
        let mut message = Vec::with_capacity(bytes);
        self.copy_into(&mut message.spare_capacity_mut()[..bytes]);
        // SAFETY: so many were just filled.
        unsafe { message.set_len(bytes) };
        Ok(Some(message))
    }

    /// Takes what was copied out of the queue, in one step, and gives its room to producers.
    #[inline]
    pub fn finish(self) {
        let header = self.queue.header();
        header.head.0.store(self.head.word(), SeqCst);
        let moved = &header.consumers.0.moved;
        moved.store(moved.load(Relaxed).wrapping_add(self.count), Relaxed);
        drop(self.held);
        header.not_full.0.event.wake_one();
    }
}
