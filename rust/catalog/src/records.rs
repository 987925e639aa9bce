//! Records: small rows that the control plane keeps in the store: what jobs, configuration and plugins are to
//! remember.
//!
//! A record has a space, a key and a value. Several of a space are changed in one commit, each perhaps only if
//! it is still as the caller saw it.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use dwk_base::{Deadline, Error, Result, codes};
use dwk_meta::{Change, Meta, Require, Row};

/// First byte of a record's row.
const RECORD_ROW: u8 = 0x20;
/// Between space and key; in no space.
const SEPARATOR: u8 = 0;
/// The version of a record's body.
const BODY: u8 = 0;
/// The longest space, in bytes.
pub const RECORD_SPACE_BYTES_MAX: usize = 64;
/// The longest key, in bytes.
pub const RECORD_KEY_BYTES_MAX: usize = 512;
/// The longest value, in bytes.
pub const RECORD_VALUE_BYTES_MAX: usize = 48 << 10;
/// How many records one commit changes at most.
pub const RECORD_CHANGES_MAX: usize = 1000;
/// How many records a page has at most.
const PAGE_RECORDS_MAX: usize = 1000;

/// A record as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// Of the commit that wrote it.
    pub version: u64,
}

/// What a record must be like for a commit to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Anything, or not there.
    #[default]
    Any,
    /// Not there.
    Absent,
    /// There, at this version.
    Version(u64),
}

/// What becomes of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    /// Its key.
    pub key: String,
    /// What it holds from then on; `None`: it is removed.
    pub value: Option<Vec<u8>>,
    /// What it must be like before.
    pub expected: Expected,
}

/// The records of a store.
#[derive(Debug)]
pub struct Records {
    meta: Arc<Meta>,
}

impl Records {
    /// Those in a map.
    pub fn new(meta: &Arc<Meta>) -> Self {
        Self { meta: Arc::clone(meta) }
    }

    /// A record, if it is there.
    ///
    /// # Errors
    /// `record.key`, `format.newer`
    pub fn get(&self, space: &str, key: &str) -> Result<Option<Record>> {
        let row = row_of(space, key)?;
        self.meta.get(&row)?.map(|row| record(key.to_owned(), &row)).transpose()
    }

    /// Up to `limit` records, at most 1,000, of those with keys after `after`, in the order of their bytes.
    ///
    /// # Errors
    /// `record.key`, `format.newer`
    pub fn list(&self, space: &str, after: &str, limit: usize) -> Result<Vec<Record>> {
        check_space(space)?;
        let (from, end) = (row(space, after), [prefix(space), vec![0xff]].concat());
        let limit = limit.min(PAGE_RECORDS_MAX);
        let rows = self.meta.range(Bound::Excluded(&from), Bound::Excluded(&end), limit)?;
        let begin = prefix(space).len();
        let of_row = |(key, row): (Vec<u8>, Row)| {
            record(String::from_utf8_lossy(&key[begin..]).into_owned(), &row)
        };
        rows.into_iter().map(of_row).collect()
    }

    /// Changes records of a space, all or none, durable on return; returns their version.
    ///
    /// # Errors
    /// `record.conflict` (detail `key`) if one is not as expected; `record.key` for a space, key or value that is
    /// none, a key that is named twice, nothing, or more than 1,000 changes; those of a commit
    pub fn commit(
        &self,
        space: &str,
        changes: &[RecordChange],
        deadline: &Deadline,
    ) -> Result<u64> {
        if changes.is_empty() || changes.len() > RECORD_CHANGES_MAX {
            return Err(invalid(format!("{} changes: give 1 to 1,000", changes.len())));
        }
        let (mut change, mut seen) = (Change::new(), HashSet::new());
        for RecordChange { key, value, expected } in changes {
            let row = row_of(space, key)?;
            if !seen.insert(key) {
                return Err(invalid(format!("{key:?} is changed twice")).with("key", key));
            }
            change = match expected {
                Expected::Any => change,
                Expected::Absent => change.require(row.clone(), Require::Absent),
                Expected::Version(version) => {
                    change.require(row.clone(), Require::Version(*version))
                }
            };
            change = match value {
                None => change.delete(row),
                Some(value) => change.put(row, body(key, value)?, None),
            };
        }
        let done = self.meta.commit_until(change, deadline);
        done.map_err(
            |error| if error.is(&codes::OBJECT_CONFLICT) { conflict(&error) } else { error },
        )
    }
}

fn prefix(space: &str) -> Vec<u8> {
    [&[RECORD_ROW], space.as_bytes(), &[SEPARATOR]].concat()
}

fn row(space: &str, key: &str) -> Vec<u8> {
    [&prefix(space)[..], key.as_bytes()].concat()
}

fn row_of(space: &str, key: &str) -> Result<Vec<u8>> {
    check_space(space)?;
    if key.is_empty() || key.len() > RECORD_KEY_BYTES_MAX {
        return Err(invalid(format!("a key of {} bytes", key.len())));
    }
    Ok(row(space, key))
}

fn check_space(space: &str) -> Result<()> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if (1..=RECORD_SPACE_BYTES_MAX).contains(&space.len()) && space.bytes().all(plain) {
        return Ok(());
    }
    let shown: String = space.chars().take(RECORD_SPACE_BYTES_MAX).collect();
    Err(invalid(format!("not a space: {shown:?}")))
}

fn body(key: &str, value: &[u8]) -> Result<Vec<u8>> {
    if value.len() > RECORD_VALUE_BYTES_MAX {
        let text = format!("{key:?} would hold {} bytes: 48 KiB at most", value.len());
        return Err(invalid(text).with("key", key));
    }
    Ok([&[BODY], value].concat())
}

fn record(key: String, row: &Row) -> Result<Record> {
    let Some((&BODY, value)) = row.body.split_first() else {
        let text = format!("the record {key:?} was written by a newer version");
        return Err(Error::new(&codes::FORMAT_NEWER, text).with("key", key));
    };
    Ok(Record { key, value: value.to_vec(), version: row.version })
}

fn invalid(text: String) -> Error {
    Error::new(&codes::RECORD_KEY, text)
}

/// A requirement did not hold; the row is said as the record's key.
fn conflict(error: &Error) -> Error {
    let row = error.detail("key").unwrap_or_default();
    let key = row.split_once('\0').map_or(row, |(_, key)| key).to_owned();
    let text = format!("the record {key:?} is not as expected");
    Error::new(&codes::RECORD_CONFLICT, text).with("key", key)
}
