//! What the journal adds up to: an ordered map whose rows may have content in the pool.
//!
//! # Overview
//! A [`Meta`] is opened on a [`dwk_pool::Pool`]. A [`Change`] is committed as one record of the journal:
//! all of it or nothing, durable and visible when [`Meta::commit`] returns. Content goes in through an
//! [`Upload`] and comes out through a [`ContentReader`].
//!
//! # Consistency
//! Requirements are checked against every commit that was submitted before, so that of two commits that
//! require the same version one fails. A reader sees the content as it was when it was opened, whatever is
//! committed, packed, dropped or rebuilt meanwhile.
//!
//! # Retries
//! A failed requirement is `object.conflict`: read again and decide. `journal.members` ends all writing.
//!
//! # Cancellation
//! A commit that was submitted cannot be taken back: a [`Submitted`] that is dropped happens, or fails, unseen.

mod change;
mod checkpoint;
mod commit;
mod damage;
mod healer;
mod keeper;
mod meta;
#[cfg(test)]
mod nonsense_tests;
mod owners;
mod pack;
#[cfg(test)]
mod pack_tests;
mod pins;
mod reader;
mod record;
mod rewrite;
mod room;
mod row;
mod run;
mod state;
mod upload;

pub use change::{Change, Require};
pub use commit::Submitted;
pub use healer::Paused;
pub use keeper::CollectReport;
pub use meta::{BODY_BYTES_MAX, KEY_BYTES_MAX, Meta, MetaStatus, Options};
pub use reader::ContentReader;
pub use row::{Content, Row};
pub use upload::{Staged, Upload};
