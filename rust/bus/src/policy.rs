//! What a subscription is made with.

use std::sync::Arc;

use dwk_base::{Error, Result, codes};

use crate::Filter;
use crate::spill::Spill;

/// How many messages a subscription can be made to hold.
pub const MESSAGES_MAX: usize = 1 << 24;

/// How many workers a subscription can have.
pub const WORKERS_MAX: usize = 256;

/// The longest name of a subscription or a group, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// What happens to a message that a subscription has no room for.
#[derive(Debug, Default)]
pub enum Policy {
    /// The publisher waits for room until its deadline, then it is told.
    #[default]
    Block,
    /// The oldest messages that wait are dropped for it.
    DropOldest,
    /// It is dropped itself.
    DropNewest,
    /// It goes into a file, and everything newer behind it, until what is in the file was taken out. The
    /// publisher is told at once when the file is full.
    Spill(Spill),
}

/// What a subscription is made with, beside its pattern.
#[derive(Debug)]
pub struct Options {
    /// Its name in errors and statistics, at most 255 bytes; its pattern if there is none.
    pub name: Option<Arc<str>>,
    /// Only messages for which this holds are for it.
    pub filter: Option<Filter>,
    /// Of the subscriptions of a group with the same pattern or others that match, one gets each message;
    /// at most 255 bytes.
    pub group: Option<Arc<str>>,
    /// What happens when it has no room.
    pub policy: Policy,
    /// How many messages wait in memory at most: 1 to 2^24.
    pub messages_max: usize,
    /// How many bytes they take at most, about; one message always has room.
    pub bytes_max: usize,
    /// In how many lanes messages are handled at the same time: 1 to 256. Messages with the same key
    /// stay in one lane, in order; a message without a key goes to any.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            filter: None,
            group: None,
            policy: Policy::Block,
            messages_max: 10_000,
            bytes_max: 64 << 20,
            workers: 1,
        }
    }
}

impl Options {
    /// # Errors
    /// `queue.capacity`
    pub(crate) fn check(&self) -> Result<()> {
        let long = |name: &Option<Arc<str>>| {
            name.as_ref().is_some_and(|name| name.is_empty() || name.len() > NAME_BYTES_MAX)
        };
        let why = if !(1..=MESSAGES_MAX).contains(&self.messages_max) {
            format!("a subscription holds 1 to {MESSAGES_MAX} messages, not {}", self.messages_max)
        } else if !(1..=WORKERS_MAX).contains(&self.workers) {
            format!("a subscription has 1 to {WORKERS_MAX} workers, not {}", self.workers)
        } else if long(&self.name) || long(&self.group) {
            format!("names of subscriptions and groups have 1 to {NAME_BYTES_MAX} bytes")
        } else {
            return Ok(());
        };
        Err(Error::new(&codes::QUEUE_CAPACITY, why))
    }
}
