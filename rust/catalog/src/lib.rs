//! Containers and objects over the map.
//!
//! # Overview
//! A [`Catalog`] gives rows of the map a meaning: containers with their options, objects with their
//! [`ObjectInfo`]. Keys are `container/name`, UTF-8, kept as given: names that differ only in case or
//! in normalisation are different objects. What the rows hold, byte by byte, is in
//! `docs/format/catalog.md`.
//!
//! # Consistency
//! A put, a delete and a container's creation or deletion are one commit each: durable and visible on
//! return, or not there at all. Conditions are checked in that commit. A listing is read page by page
//! and is not a snapshot; every page is in the order of UTF-8 bytes.
//!
//! # Cancellation
//! Whatever can take long takes a [`Deadline`] and looks at it between pieces and while it waits.

mod catalog;
mod commit;
mod containers;
mod gate;
mod info;
mod key;
mod list;
mod put;
mod read;
mod records;

pub use catalog::Catalog;
pub use commit::{Commit, Happening};
pub use containers::ContainerInfo;
pub use info::{METADATA_BYTES_MAX, ObjectInfo};
pub use key::{ContainerName, Key};
pub use list::{Entry, ListOptions, PAGE_ENTRIES_MAX, Page};
pub use put::{Progress, PutOptions, Source};
pub use read::ObjectReader;
pub use records::{
    Expected, RECORD_CHANGES_MAX, RECORD_KEY_BYTES_MAX, RECORD_SPACE_BYTES_MAX,
    RECORD_VALUE_BYTES_MAX, Record, RecordChange, Records,
};
