//! Listings: a range of keys, page by page, with everything behind a delimiter rolled into one entry.

use std::ops::Bound;

use dwk_base::{Deadline, Error, Result, codes};
use dwk_meta::Row;

use crate::key::{OBJECT_ROW, object_row, text_of};
use crate::{Catalog, ContainerName, Key, ObjectInfo};

/// The most entries of one page.
pub const PAGE_ENTRIES_MAX: usize = 1000;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// `container/` and what names must begin with; a container alone means all of it; empty means
    /// everything in every container.
    pub prefix: String,
    /// Keys that have this after the prefix are rolled into one [`Entry::Prefix`] up to its end.
    pub delimiter: Option<String>,
    /// Only what comes after this key.
    pub start_after: Option<String>,
    /// The most entries; at most [`PAGE_ENTRIES_MAX`] come at once.
    pub limit: usize,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An object.
    Object(ObjectInfo),
    /// At least one object whose key begins with this.
    Prefix(String),
}

impl Entry {
    /// What it is sorted by.
    pub fn text(&self) -> &str {
        match self {
            Self::Object(info) => info.key.as_str(),
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of UTF-8 bytes.
    pub entries: Vec<Entry>,
    /// `start_after` of the next page; `None` if this is the last one.
    pub next: Option<String>,
}

impl Catalog {
    /// One page of a listing.
    ///
    /// # Errors
    /// `container.not_found`, `container.name`, `context.deadline`, and those of reading the map
    pub fn list(&self, options: &ListOptions, deadline: &Deadline) -> Result<Page> {
        let walk = Walk::new(options)?;
        if let Some(container) = &walk.container {
            self.require_container(container)?;
        }
        let limit = options.limit.min(PAGE_ENTRIES_MAX);
        let mut entries = Vec::new();
        let mut from = walk.start();
        while entries.len() < limit {
            deadline.check()?;
            if let Bound::Included(row) | Bound::Excluded(row) = &from
                && *row >= walk.end
            {
                return Ok(Page { entries, next: None });
            }
            let wanted = limit - entries.len();
            let rows = self.meta.range(as_bound(&from), Bound::Excluded(&walk.end), wanted)?;
            let ended = rows.len() < wanted;
            match walk.take(rows, &mut entries)? {
                Some(next) => from = next,
                None if ended => return Ok(Page { entries, next: None }),
                None => break,
            }
        }
        let next = entries.last().map(|entry| entry.text().to_owned());
        Ok(Page { entries, next })
    }
}

/// A listing's options, checked and made into places of the order of rows.
struct Walk<'a> {
    prefix: String,
    container: Option<ContainerName>,
    delimiter: Option<&'a str>,
    start_after: Option<&'a str>,
    end: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(options: &'a ListOptions) -> Result<Self> {
        let mut prefix = options.prefix.clone();
        if !prefix.is_empty() && !prefix.contains('/') {
            prefix.push('/');
        }
        let container =
            prefix.split_once('/').map(|(name, _)| ContainerName::new(name)).transpose()?;
        let delimiter = options.delimiter.as_deref();
        if delimiter == Some("") {
            let text = "an empty delimiter rolls up nothing: leave it out";
            return Err(Error::new(&codes::OBJECT_KEY, text));
        }
        let end = if prefix.is_empty() { vec![OBJECT_ROW + 1] } else { after_all(&prefix) };
        Ok(Self { prefix, container, delimiter, start_after: options.start_after.as_deref(), end })
    }

    /// Where the first page begins: behind `start_after` and the entry that it was rolled into.
    fn start(&self) -> Bound<Vec<u8>> {
        match self.start_after {
            Some(after) if after >= self.prefix.as_str() => match self.rolled(after) {
                Some(prefix) => Bound::Included(after_all(prefix)),
                None => Bound::Excluded(object_row(after)),
            },
            _ => Bound::Included(object_row(&self.prefix)),
        }
    }

    /// The part of a key that it is rolled into.
    fn rolled<'k>(&self, key: &'k str) -> Option<&'k str> {
        let (rest, delimiter) = (key.strip_prefix(&self.prefix)?, self.delimiter?);
        let end = rest.find(delimiter)? + delimiter.len();
        Some(&key[..self.prefix.len() + end])
    }

    /// Turns rows into entries. The place to go on at if some rows were skipped by a roll-up.
    fn take(
        &self,
        rows: Vec<(Vec<u8>, Row)>,
        into: &mut Vec<Entry>,
    ) -> Result<Option<Bound<Vec<u8>>>> {
        for (key, row) in rows {
            let text = text_of(&key)?;
            if let Some(prefix) = self.rolled(text) {
                into.push(Entry::Prefix(prefix.to_owned()));
                return Ok(Some(Bound::Included(after_all(prefix))));
            }
            let info = ObjectInfo::decode(Key::new(text)?, row.version, &row.body)?;
            into.push(Entry::Object(info));
        }
        Ok(None)
    }
}

/// The first place behind every key that begins with `prefix`: 0xff never occurs in UTF-8.
fn after_all(prefix: &str) -> Vec<u8> {
    let mut row = object_row(prefix);
    row.push(0xff);
    row
}

fn as_bound(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(row) => Bound::Included(row),
        Bound::Excluded(row) => Bound::Excluded(row),
        Bound::Unbounded => Bound::Unbounded,
    }
}
