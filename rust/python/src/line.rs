//! Something that one thread has at a time; the others stand in line, hear signals there, and have a deadline.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};

/// So often who waits looks at signals.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A value, there or in somebody's hands. The mutex is held for moments, and never while the interpreter is
/// asked for.
pub(crate) struct Line<T> {
    place: Mutex<Place<T>>,
    freed: Condvar,
}

enum Place<T> {
    Free(T),
    Taken(ThreadId),
}

/// The value, in this thread's hands until it is dropped.
pub(crate) struct Turn<'a, T: Default> {
    line: &'a Line<T>,
    pub(crate) value: T,
}

impl<T: Default> Line<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { place: Mutex::new(Place::Free(value)), freed: Condvar::new() }
    }

    /// The value, if nobody has it.
    pub(crate) fn try_enter(&self) -> Option<Turn<'_, T>> {
        let mut place = self.lock();
        let mine = Place::Taken(thread::current().id());
        match std::mem::replace(&mut *place, mine) {
            Place::Free(value) => Some(Turn { line: self, value }),
            Place::Taken(holder) => {
                *place = Place::Taken(holder);
                None
            }
        }
    }

    /// Waits for the value; `look` is called now and then, and may end that.
    ///
    /// # Errors
    /// `object.reading` (this thread has it: it would wait for itself), `context.deadline`, those of `look`
    pub(crate) fn enter(
        &self,
        deadline: &Deadline,
        look: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Turn<'_, T>> {
        let me = thread::current().id();
        let mut place = self.lock();
        loop {
            match std::mem::replace(&mut *place, Place::Taken(me)) {
                Place::Free(value) => return Ok(Turn { line: self, value }),
                Place::Taken(holder) => *place = Place::Taken(holder),
            }
            if matches!(*place, Place::Taken(holder) if holder == me) {
                let text = "this thread is in the middle of a read from this reader";
                return Err(Error::new(&codes::OBJECT_READING, text));
            }
            deadline.check()?;
            let wait = deadline.remaining().min(LOOK_EVERY);
            let waited = self.freed.wait_timeout(place, wait);
            let timeout;
            (place, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                // Who looks may need what somebody holds who comes back.
                drop(place);
                look()?;
                place = self.lock();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place<T>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        *self.line.lock() = Place::Free(std::mem::take(&mut self.value));
        self.line.freed.notify_one();
    }
}
