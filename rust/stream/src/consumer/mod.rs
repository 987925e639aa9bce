//! The engine of consumers: who gets which message, when again, and what is done.
//!
//! # Overview
//! A consumer is a durable, named reader of a stream. Several fetchers may share it: each message goes to one
//! of them at a time, and until it is acknowledged it is delivered again. [`Engine`] decides all of that and
//! does nothing itself: it has no clock, no lock and no drive. A driver tells it the time and what the stream
//! has, hands out what [`fetch`](Engine::fetch) returns, keeps the [snapshots](Engine::snapshot), and buries
//! the [dead](Engine::dead).
//!
//! Done messages take no room: up to the highest number that was handed out, a message is done that is not
//! noted as anything else. What is noted is bounded: `max_ack_pending` messages that were handed out or are
//! dead, beyond which nothing new is handed out, and less than `priority_window` ones that were overtaken.
//! So a snapshot stays below 64 KiB with a `max_ack_pending` of 1,000.
//!
//! # How to use
//! ```
//! use dwk_stream::consumer::{Brief, ConsumerConfig, Engine};
//!
//! # fn main() -> dwk_base::Result<()> {
//! let mut engine = Engine::new(ConsumerConfig::new("billing"), 1, 0)?;
//! // Read what it wants …
//! let from = engine.wants().map_or(1, |wanted| wanted.sequence);
//! engine.offered(from, &[Brief { sequence: 1, priority: 0, matches: true }]);
//! // … hand it out, but not before that is durable …
//! let fetched = engine.fetch(1_000, 10);
//! let snapshot = engine.snapshot();
//! engine.saved(snapshot.version);
//! assert!(!engine.must_save());
//! // … and take the acknowledgement.
//! engine.ack(fetched[0].token, 2_000)?;
//! assert_eq!(engine.floor(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Consistency
//! The driver makes a snapshot durable, in place of the one before, and then says so with
//! [`saved`](Engine::saved). It opens the consumer with the last one that is durable, never with an older one.
//! One snapshot serves any number of calls that came before it. What has to wait for it:
//!
//! 1. **Deliveries leave** (reach a fetcher) when a snapshot is durable that was taken after the `fetch`: one
//!    of the [version](Engine::version) that was there then, or a later one. [`must_save`](Engine::must_save) is
//!    true while there are any that may not leave. So no count that anybody saw goes down, no token is used
//!    twice, and nothing is delivered more often than `max_deliver` allows. If it cannot be saved, the driver
//!    takes the deliveries back with [`withdraw`](Engine::withdraw); they count as deliveries. So do those that
//!    were saved and did not leave because the process ended.
//! 2. **Dead letters leave** (are buried) when a snapshot is durable that has them; `must_save` again. So what
//!    was buried is not delivered again. [`buried`](Engine::buried) is called when the letter is durable. A
//!    crash between the two offers the letter again: bury it under its consumer and number, so that the
//!    second time changes nothing.
//! 3. **Acknowledgements are promised** (to whoever wants to know them durable) when a snapshot is durable of
//!    the [version](Engine::version) that was there after the `ack`, or a later one.
//! 4. **Letters that were buried are removed** because they were [redriven](Engine::redrive) when a snapshot
//!    is durable that was taken after it.
//!
//! Nothing else has to wait. Then this holds, whenever the process ends:
//!
//! - A message that was handed out, and whose acknowledgement is not durable, is due again after each restart,
//!   with its count: exactly once more for each, unless it is acknowledged late, or dead by its count.
//! - A message whose acknowledgement is durable is never delivered again.
//! - An acknowledgement that was not durable may be lost with the process: the message is then delivered once
//!   more, as if it had not been acknowledged. The same goes for a message that was given up. A delay that was
//!   not durable is over.
//! - Messages that were passed over or are [gone](Engine::gone) are looked at again, with the same outcome.
//! - With [`Ack::None`] a message is delivered at most once: what was saved and did not leave is
//!   lost.
//!
//! The [floor](Engine::floor) may be used before it is durable. What the stream removes because of it was
//! acknowledged, buried or not wanted; after a crash it counts as gone, but may be a dead letter without its
//! message. And a message that is redriven may lie
//! below the floor, and be gone already: so who removes messages asks for [`done_to`](Engine::done_to).
//!
//! # Order
//! First what is due again, longest due first, then new messages in their order or by priority. With one
//! fetcher that gives a message back without delay, without `backoff` and without `max_deliver`, that message
//! comes again and again, before everything new.
//!
//! # Time
//! Nanoseconds since 1970, told by the driver. It never goes back here: an earlier time counts as the last
//! one. Only [`fetch`](Engine::fetch), [`tick`](Engine::tick) and [`is_ready`](Engine::is_ready) end
//! deliveries whose time is over; so an acknowledgement that comes late is taken if it comes before these, and
//! after them until the message is handed out again.

mod config;
mod engine;
mod letter;
mod letters;
mod outstanding;
mod settle;
mod snapshot;
mod status;
mod waiting;

pub use config::{
    ACK_PENDING_MAX, Ack, BACKOFF_MAX, ConsumerConfig, DELAY_MAX, PRIORITY_WINDOW_MAX,
};
pub use engine::{Brief, Delivered, Engine, ReadFrom, Token};
pub use letter::{DeadLetter, Ending, Event, HISTORY_MAX, REASON_BYTES_MAX, Reason};
pub use snapshot::Snapshot;
pub use status::{ConsumerCounters, ConsumerStatus};
