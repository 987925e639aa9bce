//! A queue in the hands of one who has it to itself, as the holder of a global lock has.
//!
//! Half of what a put or a get costs is the race for a position. Who holds a lock that all others need as
//! well wins that race anyway, and need not run it.

#![allow(unsafe_code, reason = "the caller keeps everybody else away")]

use std::vec;

use crate::outcome::{PopError, PushError};
use crate::queue::{Lane, Queue};
use crate::waiters::Waiters;

impl<T> Queue<T> {
    /// Passes the word on, for one who was told of items, has the queue to itself and has taken what it wanted: of
    /// those who wait, it is the only one that was told.
    pub fn pass_on_items(&self) {
        let left = self.len();
        if left > 0 {
            self.getters.tell_one_at_a_time(left);
        }
    }

    /// As [`pass_on_items`](Self::pass_on_items), for one who was told of room in a lane and has used it.
    ///
    /// # Panics
    /// if there is no such lane
    pub fn pass_on_room(&self, lane: usize) {
        let Lane { ring, putters } = self.lane(lane);
        let left = ring.capacity() - ring.len();
        if left > 0 {
            putters.tell_one_at_a_time(left);
        }
    }

    /// [`try_push_to`](Self::try_push_to) for one who has the queue to itself.
    ///
    /// # Errors
    /// as `try_push_to`
    ///
    /// # Panics
    /// if there is no such lane
    ///
    /// # Safety
    /// Nobody else puts in, takes out, closes or enters a line meanwhile, and who did before happened
    /// before.
    #[inline]
    pub unsafe fn try_push_alone_to(&self, lane: usize, item: T) -> Result<(), PushError<T>> {
        // SAFETY: the caller's word.
        unsafe { self.lane(lane).ring.try_push_alone(item)? };
        self.getters.tell_one_at_a_time(1);
        Ok(())
    }

    /// [`try_push_many`](Self::try_push_many) for one who has the queue to itself.
    ///
    /// # Errors
    /// as `try_push_many`
    ///
    /// # Panics
    /// if there is no such lane
    ///
    /// # Safety
    /// as [`try_push_alone_to`](Self::try_push_alone_to)
    pub unsafe fn try_push_many_alone(
        &self,
        lane: usize,
        items: &mut vec::IntoIter<T>,
    ) -> Result<usize, PushError<()>> {
        let ring = &self.lane(lane).ring;
        // SAFETY: the caller's word.
        self.push_with(Waiters::tell_one_at_a_time, || unsafe { ring.try_push_many_alone(items) })
    }

    /// [`try_pop`](Self::try_pop) for one who has the queue to itself.
    ///
    /// # Errors
    /// as `try_pop`
    ///
    /// # Safety
    /// as [`try_push_alone_to`](Self::try_push_alone_to)
    #[inline]
    pub unsafe fn try_pop_alone(&self) -> Result<T, PopError> {
        if !self.others.is_empty() {
            return self.try_pop_lanes(Waiters::tell_one_at_a_time);
        }
        // SAFETY: the caller's word.
        let item = unsafe { self.first.ring.try_pop_alone()? };
        self.first.putters.tell_one_at_a_time(1);
        Ok(item)
    }

    /// [`try_pop_many`](Self::try_pop_many) for one who has the queue to itself.
    ///
    /// # Errors
    /// as `try_pop_many`
    ///
    /// # Safety
    /// as [`try_push_alone_to`](Self::try_push_alone_to)
    pub unsafe fn try_pop_many_alone(
        &self,
        into: &mut Vec<T>,
        limit: usize,
    ) -> Result<usize, PopError> {
        // SAFETY: the caller's word.
        self.pop_with(limit, Waiters::tell_one_at_a_time, |ring, limit| unsafe {
            ring.try_pop_many_alone(into, limit)
        })
    }
}
