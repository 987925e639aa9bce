//! The queue: putting, taking, closing, leaving.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;

use dwk_base::{Clock, Error, Result, codes};

use super::layout::Header;
use super::lock::Held;
use super::memory::Memory;
use super::message::Message;
use super::participants;
use super::ring::{Cursor, Ring, UNIT_BYTES};
use super::system::{self, Process};
use super::taking::Taking;
use super::waiter::{Need, Waiter};

/// What a call that does not wait came to.
#[derive(Debug)]
pub enum Try<T> {
    /// It is done.
    Done(T),
    /// There is no room, or nothing to take.
    NotNow,
    /// Another put or get was under way for longer than a moment.
    Busy,
}

/// See [the module](super). Any number of threads may use one.
pub struct SharedQueue {
    pub(super) memory: Memory,
    pub(super) ring: Ring,
    pub(super) name: String,
    /// Which file the name was given to.
    pub(super) file: (u64, u64),
    /// The process that removes the name at its end, if this is its queue or was forked from that.
    pub(super) maker: Option<Process>,
    pub(super) clock: Arc<dyn Clock>,
    /// Looks before a sleep.
    pub(super) spins: usize,
    /// The process that has a slot, 0 if none: after a fork it is another one than this process.
    pub(super) member: AtomicU64,
    pub(super) slot: AtomicUsize,
    pub(super) left: AtomicBool,
}

impl SharedQueue {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size of the ring in bytes. A message takes its length, padded to a multiple of 8, and 8 bytes more.
    pub fn capacity_bytes(&self) -> usize {
        self.ring.bytes()
    }

    /// The longest message.
    pub fn message_bytes_max(&self) -> usize {
        self.ring.message_bytes_max()
    }

    /// True once it is closed.
    pub fn is_closed(&self) -> bool {
        self.load_tail().is_closed()
    }

    /// True if this process is in the table of participants.
    #[inline]
    pub fn is_member(&self) -> bool {
        let member = self.member.load(Relaxed);
        system::this_process().is_ok_and(|me| me.word() == member)
    }

    /// Puts one message, if there is room now.
    ///
    /// # Errors
    /// `queue.closed`, `queue.message_size`, `queue.damaged`; `queue.capacity` if too many processes use it.
    #[inline]
    pub fn try_put(&self, message: &(impl Message + ?Sized)) -> Result<Try<()>> {
        Ok(match self.try_put_all(std::slice::from_ref(&message))? {
            Try::Done(_) => Try::Done(()),
            Try::NotNow => Try::NotNow,
            Try::Busy => Try::Busy,
        })
    }

    /// Puts as many of the messages as there is room for now, in order, and at once: consumers see all of them or
    /// none. Returns how many, at least one.
    ///
    /// # Errors
    /// As [`Self::try_put`]; `queue.message_size` is for the first message, and others that are too
    /// long end the batch before them.
    #[inline]
    pub fn try_put_all(&self, messages: &[impl Message]) -> Result<Try<usize>> {
        let me = self.me()?;
        if let Some(first) = messages.first() {
            self.check_size(first.bytes())?;
        }
        let header = self.header();
        let Some(held) = header.producers.0.lock.try_lock(me) else { return Ok(Try::Busy) };
        let tail = self.load_tail();
        if tail.is_closed() {
            return Err(self.closed());
        }
        let mut next = tail;
        let mut count = 0;
        for message in messages {
            let bytes = message.bytes();
            if bytes > self.message_bytes_max() || !self.has_room(next, Ring::units_of(bytes))? {
                break;
            }
            self.write(next, bytes, message);
            next = self.ring.after(next, Ring::units_of(bytes));
            count += 1;
        }
        if count == 0 {
            return Ok(Try::NotNow);
        }
        self.publish(held, tail, next, count)?;
        Ok(Try::Done(count))
    }

    /// Begins to take messages, if there are any now; see [`Taking`].
    ///
    /// # Errors
    /// `queue.closed` once it is closed and empty; `queue.damaged`; `queue.capacity` if too many processes use it.
    #[inline]
    pub fn try_take(&self) -> Result<Try<Taking<'_>>> {
        let me = self.me()?;
        let side = &self.header().consumers.0;
        let Some(held) = side.lock.try_lock(me) else { return Ok(Try::Busy) };
        let head = Cursor::from_word(self.header().head.0.load(SeqCst));
        let seen = Cursor::from_word(side.seen.load(Acquire));
        let depth = match self.ring.between(head, seen) {
            Some(depth) if depth.items > 0 => depth,
            // What was seen last is taken, or was left by a process that died: look anew.
            _ => {
                let tail = self.load_tail();
                side.seen.store(tail.word(), Release);
                let depth = self.ring.between(head, tail).ok_or_else(|| self.unsound())?;
                if depth.items == 0 {
                    return if tail.is_closed() { Err(self.closed()) } else { Ok(Try::NotNow) };
                }
                depth
            }
        };
        Ok(Try::Done(Taking::new(self, held, head, depth)))
    }

    /// Puts one message; waits for room, for ever without a `timeout`.
    ///
    /// # Errors
    /// As [`Self::try_put`], and `queue.timeout`, `queue.abandoned`.
    pub fn put(&self, message: &[u8], timeout: Option<Duration>) -> Result<()> {
        let mut waiter = None;
        loop {
            if let Try::Done(()) = self.try_put(message)? {
                return Ok(());
            }
            let need = Need::Room(message.len());
            waiter.get_or_insert_with(|| Waiter::new(self, need, timeout)).step()?;
        }
    }

    /// Takes one message; waits for it, for ever without a `timeout`.
    ///
    /// # Errors
    /// As [`Self::try_take`], and `queue.timeout`, `queue.abandoned`.
    pub fn get(&self, timeout: Option<Duration>) -> Result<Vec<u8>> {
        let mut waiter = None;
        loop {
            if let Try::Done(mut taking) = self.try_take()?
                && let Some(message) = taking.take()?
            {
                taking.finish();
                return Ok(message);
            }
            waiter.get_or_insert_with(|| Waiter::new(self, Need::Item, timeout)).step()?;
        }
    }

    /// Closes the queue for everybody: nothing more is put, what is in it can be taken, also by processes that
    /// attach later: the name stays until the maker leaves, for those that are just starting, but a new queue
    /// may have it. Closing again changes nothing.
    pub fn close(&self) {
        let header = self.header();
        header.tail.0.fetch_or(Cursor::default().closed().word(), SeqCst);
        header.not_empty.0.event.wake_all();
        header.not_full.0.event.wake_all();
    }

    /// Lets go of the queue: calls of this process fail with `queue.closed` from now on, others go on. Its
    /// name goes, if this process made it. Leaving again changes nothing.
    pub fn leave(&self) {
        if self.left.swap(true, SeqCst) {
            return;
        }
        let Ok(me) = system::this_process() else { return };
        if self.member.load(SeqCst) == me.word() {
            participants::leave(self.header(), self.slot.load(SeqCst), me);
        }
        if self.maker == Some(me) {
            system::File::unlink(&self.name, self.file);
        }
    }

    #[inline]
    pub(super) fn header(&self) -> &Header {
        self.memory.header()
    }

    #[inline]
    pub(super) fn load_tail(&self) -> Cursor {
        Cursor::from_word(self.header().tail.0.load(SeqCst))
    }

    #[inline]
    pub(super) fn load_head(&self) -> Cursor {
        Cursor::from_word(self.header().head.0.load(SeqCst))
    }

    /// This process, in the table of participants.
    #[inline]
    pub(super) fn me(&self) -> Result<Process> {
        let me = system::this_process()?;
        if self.member.load(Relaxed) == me.word() && !self.left.load(Relaxed) {
            return Ok(me);
        }
        self.join(me)
    }

    /// Puts this process into the table of participants: a new one, or the child of a fork.
    #[cold]
    pub(super) fn join(&self, me: Process) -> Result<Process> {
        if self.left.load(SeqCst) {
            let message = format!("this process has let go of queue {:?}", self.name);
            return Err(Error::new(&codes::QUEUE_CLOSED, message));
        }
        let before = self.member.load(SeqCst);
        let slot = participants::join(self.header(), me)?;
        if self.member.compare_exchange(before, me.word(), SeqCst, Relaxed).is_ok() {
            self.slot.store(slot, SeqCst);
        } else {
            // Another thread of this process came first.
            participants::leave(self.header(), slot, me);
        }
        Ok(me)
    }

    /// `queue.damaged`.
    #[cold]
    pub(super) fn unsound(&self) -> Error {
        let message = format!("the shared memory of queue {:?} says what cannot be", self.name);
        Error::new(&codes::QUEUE_DAMAGED, message).with("name", &self.name)
    }

    #[cold]
    fn closed(&self) -> Error {
        Error::new(&codes::QUEUE_CLOSED, format!("queue {:?} is closed", self.name))
    }

    fn check_size(&self, bytes: usize) -> Result<()> {
        let most = self.message_bytes_max();
        if bytes <= most {
            return Ok(());
        }
        let message = format!("the message has {bytes} bytes, the queue takes up to {most}");
        Err(Error::new(&codes::QUEUE_MESSAGE_SIZE, message).with("bytes_max", most))
    }

    /// True if `units` fit behind `tail`; under the producers' lock.
    #[inline]
    fn has_room(&self, tail: Cursor, units: u32) -> Result<bool> {
        let seen = &self.header().producers.0.seen;
        let depth = self.ring.between(Cursor::from_word(seen.load(Acquire)), tail);
        if depth.is_some_and(|depth| self.ring.has_room(depth, units)) {
            return Ok(true);
        }
        // Stored before it is used: what a later producer finds there is never newer than what was relied on.
        let head = self.load_head();
        seen.store(head.word(), Release);
        let depth = self.ring.between(head, tail).ok_or_else(|| self.unsound())?;
        Ok(self.ring.has_room(depth, units))
    }

    /// Writes a record where nobody looks yet; under the producers' lock, with room for it.
    #[inline]
    fn write(&self, at: Cursor, bytes: usize, message: &impl Message) {
        let (ring, memory) = (self.ring, &self.memory);
        let offset = ring.offset(at);
        memory.unit(offset).store(Ring::head_word(at, bytes), Relaxed);
        let mut offset = ring.step(offset, UNIT_BYTES);
        let mut left = bytes;
        message.for_each_piece(|piece| {
            assert!(piece.len() <= left, "a message gives as many bytes as it says");
            let (first, rest) = piece.split_at(ring.before_end(offset, piece.len()));
            memory.copy_in(offset, first);
            memory.copy_in(0, rest);
            offset = ring.step(offset, piece.len());
            left -= piece.len();
        });
        assert!(left == 0, "a message gives as many bytes as it says");
    }

    /// Shows what was written from `tail` to `next`, unless the queue was closed meanwhile.
    #[inline]
    fn publish(&self, held: Held<'_>, tail: Cursor, next: Cursor, count: usize) -> Result<()> {
        let header = self.header();
        let word = &header.tail.0;
        if word.compare_exchange(tail.word(), next.word(), SeqCst, Relaxed).is_err() {
            let now = self.load_tail();
            let is_closed = now.is_closed() && now.meets(tail);
            return Err(if is_closed { self.closed() } else { self.unsound() });
        }
        let moved = &header.producers.0.moved;
        moved.store(moved.load(Relaxed).wrapping_add(count as u64), Relaxed);
        drop(held);
        header.not_empty.0.event.wake_one();
        Ok(())
    }
}

impl Drop for SharedQueue {
    fn drop(&mut self) {
        self.leave();
    }
}

impl std::fmt::Debug for SharedQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedQueue").field("name", &self.name).finish_non_exhaustive()
    }
}
