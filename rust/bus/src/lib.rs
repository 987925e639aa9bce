//! Topics: who hears what.
//!
//! # Overview
//! A [`Message`] is published about a [`Subject`] in a tenant's [`Space`]. It is stamped, becomes an
//! [`Envelope`], and goes to every [`Subscription`] whose [`Pattern`] and [`Filter`] match: into a queue that
//! is bounded in messages and bytes. Consumers pull from it ([`Subscription::next`]), or threads
//! handle what comes ([`Subscription::serve`]).
//!
//! # How to use
//! ```
//! use std::sync::Arc;
//! use dwk_base::{Deadline, SystemClock, SystemRandom};
//! use dwk_bus::{Bus, Filter, Limits, Message, Options, Pattern, Subject};
//!
//! # fn main() -> dwk_base::Result<()> {
//! let bus = Bus::new(Arc::new(SystemClock::default()), Arc::new(SystemRandom), Limits::default());
//! let space = bus.space("acme")?;
//! let celsius = Options { filter: Some(Filter::new("headers.unit == 'C'")?), ..Options::default() };
//! let subscription = space.subscribe(Pattern::new("sensors.*.temp")?, celsius)?;
//! let message = Message::new(Subject::new("sensors.a.temp")?, "21").header("unit", "C");
//! assert_eq!(space.publish(message, &Deadline::never())?.queued, 1);
//! let delivery = subscription.next(&Deadline::never())?;
//! assert_eq!(delivery.map(|delivery| delivery.data().clone()).as_deref(), Some(&b"21"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # Consistency
//! A subscription gets each message at most once, and those of one publishing thread in their order.
//! Everything is in memory: what waits is lost with the process, and what waits for a subscription with the
//! subscription. With several workers, messages with the same key are handled in order, by one of them.
//! Of a group's members one gets each message.
//!
//! # Slow consumers
//! A [`Policy`] says what happens without room. The default holds the publisher back until its deadline;
//! it is then told who did not take the message, and everybody else has it. Whoever publishes from a handler
//! to what that handler listens to gives a deadline, or waits for itself.
//!
//! # Failures
//! A handler that fails, panics or hangs hurts its own subscription only. Whoever waits for the message
//! ([`Space::publish_and_wait`], [`Space::request`]) is told. Nothing is tried again.
//!
//! # Cancellation
//! Waits end with their [`Deadline`](dwk_base::Deadline); futures can be dropped at any time and lose nothing.

mod bus;
mod codec;
mod core;
mod envelope;
mod filter;
mod group;
mod held;
mod ids;
mod latch;
mod limits;
mod mailbox;
mod policy;
mod receipt;
mod request;
mod route;
mod routes;
mod service;
mod space;
mod spill;
mod subject;
mod subscription;
mod sync;
mod tally;
mod trie;
mod watch;

pub use bus::Bus;
pub use core::Stats;
pub use envelope::{Envelope, HEADERS_MAX, Message, TEXT_BYTES_MAX};
pub use filter::Filter;
pub use ids::MessageId;
pub use limits::Limits;
pub use policy::{MESSAGES_MAX, NAME_BYTES_MAX, Options, Policy, WORKERS_MAX};
pub use receipt::Failure;
pub use request::Request;
pub use service::{ServeOptions, Service};
pub use space::{Outcome, Space};
pub use spill::{LocalSpill, MemorySpill, Spill, SpillFile};
pub use subject::{Pattern, SUBJECT_BYTES_MAX, Subject};
pub use subscription::{Delivery, Subscription};
pub use tally::Published;
pub use watch::{Event, OnEvent};
