//! What can come of a put or a get.

use std::fmt;

use dwk_base::{Error, codes};

/// Why an item was not taken in; it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PushError<T> {
    /// No room is left now.
    Full(T),
    /// The queue was closed.
    Closed(T),
    /// No room came in time.
    TimedOut(T),
}

/// Why nothing came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PopError {
    /// Nothing is there now.
    Empty,
    /// The queue was closed and everything has been taken out.
    Closed,
    /// Nothing came in time.
    TimedOut,
}

impl<T> PushError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) | Self::TimedOut(item) => item,
        }
    }
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
            Self::TimedOut(_) => "TimedOut",
        })
    }
}

impl<T> From<PushError<T>> for Error {
    fn from(error: PushError<T>) -> Self {
        match error {
            PushError::Full(_) => full(),
            PushError::Closed(_) => closed(),
            PushError::TimedOut(_) => {
                Self::new(&codes::QUEUE_TIMEOUT, "the queue stayed full for the whole time")
            }
        }
    }
}

impl From<PopError> for Error {
    fn from(error: PopError) -> Self {
        match error {
            PopError::Empty => Self::new(&codes::QUEUE_EMPTY, "the queue is empty"),
            PopError::Closed => closed(),
            PopError::TimedOut => {
                Self::new(&codes::QUEUE_TIMEOUT, "the queue stayed empty for the whole time")
            }
        }
    }
}

fn full() -> Error {
    Error::new(&codes::QUEUE_FULL, "the queue is full")
}

fn closed() -> Error {
    Error::new(&codes::QUEUE_CLOSED, "the queue is closed")
}
