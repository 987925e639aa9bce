//! Durable streams.

mod bell;
mod config;
pub mod consumer;
mod consuming;
mod core;
mod delayed;
mod entry;
mod frame;
mod frames;
mod keyed;
mod keys;
mod ledger;
mod line;
mod mark;
mod merge;
mod news;
mod options;
mod outbox;
mod purge;
mod read;
mod stream;
mod streams;
mod sweep;
mod sync;
mod tail;
mod upkeep;
mod window;

pub use config::{
    DUPLICATE_IDS_MAX, DUPLICATE_WINDOW_MAX, Discard, Retention, SUBJECTS_MAX, StreamConfig,
};
pub use consumer::{Ack, ConsumerConfig, ConsumerStatus, DeadLetter};
pub use consuming::{Buried, Consumer, Delivery, LAZY};
pub use entry::MESSAGE_ID_BYTES_MAX;
pub use keys::NAME_CHARACTERS_MAX;
pub use news::Watch;
pub use options::Options;
pub use outbox::{Outbox, Routed};
pub use read::{Cursor, From, Stored};
pub use stream::{Stream, StreamStatus};
pub use streams::Streams;
pub use tail::Published;
