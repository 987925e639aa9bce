//! Topics: who hears what.

mod codec;
mod envelope;
mod filter;
mod ids;
mod limits;
mod routes;
mod subject;
mod sync;
mod trie;

pub use envelope::{Envelope, HEADERS_MAX, Message, TEXT_BYTES_MAX};
pub use filter::Filter;
pub use ids::MessageId;
pub use limits::Limits;
pub use subject::{Pattern, SUBJECT_BYTES_MAX, Subject};
