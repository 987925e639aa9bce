//! Durable streams: messages that are committed, in an order that everybody sees.
//!
//! # Overview
//! A [`Stream`] takes messages whose subjects match its patterns and gives them numbers from 1, in the order in
//! which they are committed. It lies in the map, so that a message is durable when [`Stream::publish`]
//! returns, and can be committed together with messages for other streams and with any other rows
//! ([`Outbox`]). A [`Cursor`] reads from any number or time on. What was committed a little at a time is
//! merged into blocks in the background; limits, consumers and purges let messages go, from the first one on.
//!
//! # How to use
//! ```no_run
//! # use std::sync::Arc;
//! # fn main() -> dwk_base::Result<()> {
//! # let (meta, space): (Arc<dwk_meta::Meta>, dwk_bus::Space) = todo();
//! # fn todo<T>() -> T { unreachable!() }
//! use dwk_base::{Deadline, Seams};
//! use dwk_bus::{Message, Pattern, Subject};
//! use dwk_stream::{From, Options, StreamConfig, Streams};
//!
//! let streams = Streams::open(meta, Seams::system(), Options::default())?;
//! let config = StreamConfig::new(vec![Pattern::new("orders.>")?]);
//! let stream = streams.create("acme", "orders", config, &Deadline::never())?;
//! let envelope = space.stamp(Message::new(Subject::new("orders.new")?, "1 tea"))?;
//! let published = stream.publish(&envelope, Some("order 1"), &Deadline::never())?;
//! assert_eq!(published.sequence, 1);
//! for stored in stream.cursor(From::First)?.next_many(100, 1 << 20, &Deadline::never())? {
//!     println!("{}: {}", stored.sequence, stored.envelope.subject());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Consistency
//! Numbers are dense: one is left out only when its message went later, by key or by subject. Who reads sees
//! every message once and in order, also while frames are merged or removed. A message is seen when it is
//! durable, perhaps before its sender is told. With a `message_id` it is taken once within the stream's
//! window, also by several senders at a time and over openings; the window is exact while it is not
//! [short](StreamStatus::window_is_short), and does not know ids of messages that a limit or a purge removed
//! before the opening.
//!
//! # Retries
//! After `context.deadline` with the detail `outcome` (`unknown`) the message may be there: repeat it with the
//! same `message_id`. After `stream.full`, `pool.full` and `drive.full` it is not there.
//!
//! # Cancellation
//! A publish whose time is over before it was sent leaves nothing. One that was sent cannot be taken back.
//!
//! # Memory
//! The map is in memory: a few hundred bytes for each frame, and some 2 KiB for each block of about 4 MiB. A
//! cursor holds one chunk. An identity in the window takes some 100 bytes.

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
pub use line::Publishing;
pub use news::Watch;
pub use options::Options;
pub use outbox::{Outbox, Routed};
pub use read::{Cursor, From, Stored};
pub use stream::{Stream, StreamStatus};
pub use streams::Streams;
pub use tail::Published;
