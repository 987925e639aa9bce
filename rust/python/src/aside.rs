//! Long work on a thread of its own, so that the calling one can hear Ctrl-C and tell progress.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use dwk_base::{Error, Result, codes};

/// Does `work` on a thread of its own, waits for it, and calls `look` so often meanwhile. For a caller that has
/// left the interpreter.
///
/// # Errors
/// Those of `work`; `process.exhausted`
pub(crate) fn aside<T: Send>(
    every: Duration,
    work: impl FnOnce() -> Result<T> + Send,
    mut look: impl FnMut(),
) -> Result<T> {
    thread::scope(|scope| {
        let (answer, answered) = mpsc::channel();
        let done = move || {
            // Nobody listens only if this side panicked; then the scope says so.
            let _ = answer.send(work());
        };
        let begun = thread::Builder::new().name("dwk-aside".to_owned()).spawn_scoped(scope, done);
        begun.map_err(|error| {
            let text = format!("no thread can be started: {error}");
            Error::new(&codes::PROCESS_EXHAUSTED, text).caused_by(error)
        })?;
        loop {
            match answered.recv_timeout(every) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Disconnected) => return Err(vanished()),
                Err(RecvTimeoutError::Timeout) => look(),
            }
        }
    })
}

fn vanished() -> Error {
    Error::new(&codes::INTERNAL_BUG, "the thread of a long operation ended without an answer")
}
