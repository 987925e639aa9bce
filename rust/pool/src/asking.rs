//! Asking drives how much room they have: all at once, and no longer than they may take. A drive that hangs
//! answers nobody; whoever asked it on his own thread would hang with it.

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Clock, Deadline};
use dwk_drive::{Attached, Capacity};

/// How long a drive may take to say how much room it has.
pub(crate) const ROOM_TIME: Duration = Duration::from_secs(1);

/// How much room each of these drives has; `None` for those that do not say.
pub(crate) fn rooms<'a>(
    drives: impl Iterator<Item = Option<&'a Arc<Attached>>>,
    clock: &Arc<dyn Clock>,
) -> Vec<Option<Capacity>> {
    let questions: Vec<_> = drives.map(|drive| drive?.ask_room()).collect();
    let deadline = Deadline::after(Arc::clone(clock), ROOM_TIME);
    questions.into_iter().map(|question| question?.wait_for(deadline.remaining())).collect()
}
