//! Work that may hang where nothing can stop it, in a call of the system: done on a thread of its own, which is left
//! to itself when nobody waits for it any more.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};

use crate::door::caught;

/// How long work that nobody waits for any more has to end in order, before it is left to itself.
const END_TIME: Duration = Duration::from_secs(1);
/// No wait is longer, whatever the deadline says.
const LOOK_EVERY: Duration = Duration::from_secs(1);

enum State<T> {
    UnderWay,
    Done(Result<T>),
    /// Nobody will ask for it.
    Left,
}

struct Work<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
}

impl<T> Work<T> {
    /// It ended: gives the outcome to who waits, or back.
    fn end(&self, outcome: Result<T>) -> Option<Result<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Left) {
            return Some(outcome);
        }
        *state = State::Done(outcome);
        self.ended.notify_all();
        None
    }

    /// The outcome; `None` if it was left to itself.
    fn wait(&self, deadline: &Deadline) -> Option<Result<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let is_over = deadline.has_passed();
            let limit = deadline.nap().min(deadline.remaining()).min(LOOK_EVERY);
            let limit = if is_over { END_TIME } else { limit };
            let under_way = |state: &mut State<T>| matches!(state, State::UnderWay);
            let waited = self.ended.wait_timeout_while(state, limit, under_way);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if is_over || !matches!(*state, State::UnderWay) {
                break;
            }
        }
        match std::mem::replace(&mut *state, State::Left) {
            State::Done(outcome) => Some(outcome),
            State::UnderWay | State::Left => None,
        }
    }
}

/// Does `work`, and waits for it as long as the deadline allows, and a moment for it to end. Where it hangs it is left
/// to itself; what comes of it then is for `undo`.
///
/// # Errors
/// Those of `work`; `context.deadline`, `context.cancelled`; `process.exhausted`
pub(crate) fn unless_left<T: Send + 'static>(
    deadline: &Deadline,
    work: impl FnOnce() -> Result<T> + Send + 'static,
    undo: impl FnOnce(T) + Send + 'static,
) -> Result<T> {
    let here = Arc::new(Work { state: Mutex::new(State::UnderWay), ended: Condvar::new() });
    let there = Arc::clone(&here);
    let doing = move || {
        if let Some(Ok(left)) = there.end(caught(work)) {
            undo(left);
        }
    };
    thread::Builder::new().name("dwk-making".to_owned()).spawn(doing).map_err(|error| {
        let text = format!("no thread can be started: {error}");
        Error::new(&codes::PROCESS_EXHAUSTED, text).caused_by(error)
    })?;
    here.wait(deadline).unwrap_or_else(|| {
        deadline.check()?;
        Err(Deadline::passed("the operation's time is over"))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use dwk_base::{SystemClock, Waiter};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_ends_in_time_is_given_to_who_waits() {
        assert_eq!(unless_left(&Deadline::never(), || Ok(1), |_| panic!("given")).unwrap(), 1);
        let fails = || Err::<(), _>(Error::new(&codes::DRIVE_IO, "broken"));
        let failed = unless_left(&Deadline::never(), fails, |()| panic!("nothing came"));
        assert!(failed.unwrap_err().is(&codes::DRIVE_IO));
    }

    #[test]
    fn what_hangs_is_left_to_itself_and_undone_when_it_comes() {
        let waiter = Arc::new(Waiter::default());
        let clock = Arc::new(SystemClock::default());
        let soon = Deadline::after(clock, Duration::from_millis(10));
        let stopped = Deadline::never().waited_for_by(Arc::clone(&waiter));
        waiter.stop();
        for (deadline, code) in
            [(soon, &codes::CONTEXT_DEADLINE), (stopped, &codes::CONTEXT_CANCELLED)]
        {
            let (release, released) = mpsc::channel::<()>();
            let (tell, told) = mpsc::channel();
            let hangs = move || {
                let _ = released.recv_timeout(LONG);
                Ok(7)
            };
            let left = unless_left(&deadline, hangs, move |late| tell.send(late).unwrap());
            assert!(left.unwrap_err().is(code));
            assert!(told.try_recv().is_err());
            release.send(()).unwrap();
            assert_eq!(told.recv_timeout(LONG).unwrap(), 7);
        }
    }

    #[test]
    fn who_is_not_waited_for_any_more_has_a_moment_to_end() {
        let waiter = Arc::new(Waiter::default());
        waiter.stop();
        let stopped = Deadline::never().waited_for_by(waiter);
        let in_order = || {
            thread::sleep(Duration::from_millis(50));
            Err::<(), _>(Error::new(&codes::DRIVE_IO, "undone"))
        };
        assert!(unless_left(&stopped, in_order, |()| ()).unwrap_err().is(&codes::DRIVE_IO));
    }
}
