//! The rows of one stream's messages, as the map has them.

use std::ops::Bound;
use std::sync::Arc;

use dwk_base::{Deadline, Result};
use dwk_meta::{ContentReader, Meta};

use crate::frame::Header;
use crate::keys::{frame_row, numbers_of};

/// How many rows are looked at under one look at the map.
const PAGE: usize = 1024;

/// One stream's rows in the map.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    pub(crate) meta: Arc<Meta>,
    pub(crate) id: u64,
}

/// A header and the version of its row.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) header: Header,
    pub(crate) version: u64,
}

impl Frames {
    fn key(&self, first: u64) -> Vec<u8> {
        frame_row(self.id, first)
    }

    /// The first number of the frame that is responsible for `sequence`, or of the next one if there is none.
    pub(crate) fn first_of(&self, sequence: u64) -> Result<Option<u64>> {
        let (low, key, high) = (self.key(0), self.key(sequence), self.key(u64::MAX));
        let found = self.meta.seek(&low, &key, &high)?;
        found.map(|(key, _)| Ok(numbers_of(&key)?.1)).transpose()
    }

    /// The first number of the first frame that begins after `sequence`.
    pub(crate) fn next_after(&self, sequence: u64) -> Result<Option<u64>> {
        let (from, to) = (self.key(sequence), self.key(u64::MAX));
        let rows = self.meta.range(Bound::Excluded(&from), Bound::Excluded(&to), 1)?;
        rows.first().map(|(key, _)| Ok(numbers_of(key)?.1)).transpose()
    }

    /// What is known of the frame that is responsible for `sequence`, or of the next one if there is none.
    ///
    /// # Errors
    /// `format.damaged`, `format.newer`
    pub(crate) fn around(&self, sequence: u64) -> Result<Option<Header>> {
        let (low, key, high) = (self.key(0), self.key(sequence), self.key(u64::MAX));
        let found = self.meta.seek(&low, &key, &high)?;
        found.map(|(key, row)| Header::decode(numbers_of(&key)?.1, &row.body)).transpose()
    }

    /// Up to `limit` frames in their order, each with its first number, from the one that begins at `first` or
    /// the next one. What is damaged is there as its error.
    ///
    /// # Errors
    /// Those of reading the map.
    pub(crate) fn page(&self, first: u64, limit: usize) -> Result<Vec<(u64, Result<Known>)>> {
        let (from, to) = (self.key(first), self.key(u64::MAX));
        let rows = self.meta.range(Bound::Included(&from), Bound::Excluded(&to), limit)?;
        let known = |(key, row): (Vec<u8>, dwk_meta::Row)| {
            let (_, first) = numbers_of(&key)?;
            let header = Header::decode(first, &row.body);
            Ok((first, header.map(|header| Known { header, version: row.version })))
        };
        rows.into_iter().map(known).collect()
    }

    /// Visits what is known of every frame from the one that begins at `first` or the next one, until `visit`
    /// returns false. What is damaged is left out.
    ///
    /// # Errors
    /// Those of reading the map, and of `visit`.
    pub(crate) fn visit(
        &self,
        mut first: u64,
        visit: &mut dyn FnMut(Known) -> Result<bool>,
    ) -> Result<()> {
        loop {
            let page = self.page(first, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            first = last + 1;
            for known in page.into_iter().filter_map(|(_, known)| known.ok()) {
                if !visit(known)? {
                    return Ok(());
                }
            }
        }
    }

    /// A frame and a reader of its content, seen at one moment; `None` if there is none any more.
    ///
    /// # Errors
    /// As [`around`](Self::around), and those of reading the journal.
    pub(crate) fn open(
        &self,
        first: u64,
        deadline: &Deadline,
    ) -> Result<Option<(Known, ContentReader)>> {
        let found = self.meta.read_until(&self.key(first), deadline)?;
        found
            .map(|(row, mut reader)| {
                reader.set_deadline(deadline);
                let header = Header::decode(first, &row.body)?;
                Ok((Known { header, version: row.version }, reader))
            })
            .transpose()
    }
}
