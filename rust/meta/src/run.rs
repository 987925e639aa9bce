//! Runs: the immutable, sorted pieces of a checkpoint, and their merging.
//!
//! An entry is a key and a value, or a key alone where it went. Keys of stripes begin with 0, those of
//! rows with 1, so that a run is one sorted list. docs/format/checkpoint.md draws the bytes.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Error, Result, StripeId, codes};
use dwk_pool::Stripe;

use crate::row::{Content, Row};

const STRIPE: u8 = 0;
const ROW: u8 = 1;
/// An entry's head is read in one piece of this size.
const READ_BYTES: usize = 1 << 20;

/// A run as the root names it, with all that is needed to read it before any table is loaded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunRef {
    pub(crate) content: Content,
    pub(crate) stripes: Vec<Stripe>,
    pub(crate) entries: u64,
}

impl RunRef {
    /// True if a part of it lies in one of `stripes`.
    pub(crate) fn lies_in(&self, stripes: &BTreeSet<StripeId>) -> bool {
        self.stripes.iter().any(|stripe| stripes.contains(&stripe.id))
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        self.content.encode(writer);
        writer.varint(self.entries).varint(self.stripes.len() as u64);
        self.stripes.iter().for_each(|stripe| stripe.encode(writer));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let content = Content::decode(reader)?;
        let entries = reader.varint()?;
        let count = reader.count(20)?;
        let stripes = (0..count).map(|_| Stripe::decode(reader)).collect::<Result<_>>()?;
        Ok(Self { content, stripes, entries })
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    /// `None`: the key went.
    pub(crate) value: Option<Vec<u8>>,
}

/// What an entry means.
pub(crate) enum Meaning<'a> {
    Row(&'a [u8], Option<Row>),
    Stripe(StripeId, Option<Stripe>),
}

impl Entry {
    pub(crate) fn row(key: &[u8], row: Option<&Row>) -> Self {
        let value = row.map(|row| {
            let mut writer = Writer::new();
            row.encode(&mut writer);
            writer.finish()
        });
        Self { key: [&[ROW], key].concat(), value }
    }

    pub(crate) fn stripe(id: StripeId, stripe: Option<&Stripe>) -> Self {
        let value = stripe.map(|stripe| {
            let mut writer = Writer::new();
            stripe.encode(&mut writer);
            writer.finish()
        });
        Self { key: [&[STRIPE], id.as_bytes().as_slice()].concat(), value }
    }

    pub(crate) fn meaning(&self) -> Result<Meaning<'_>> {
        let mut value = self.value.as_deref().map(|value| Reader::new(value, "a checkpoint"));
        match self.key.split_first() {
            Some((&ROW, key)) => {
                Ok(Meaning::Row(key, value.as_mut().map(Row::decode).transpose()?))
            }
            Some((&STRIPE, id)) => {
                let id = Reader::new(id, "a checkpoint").array().map(StripeId::from_bytes)?;
                Ok(Meaning::Stripe(id, value.as_mut().map(Stripe::decode).transpose()?))
            }
            _ => Err(damaged("an entry of an unknown kind")),
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.key);
        match &self.value {
            None => writer.u8(0),
            Some(value) => writer.u8(1).bytes(value),
        };
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let key = reader.bytes()?.to_vec();
        let value = match reader.u8()? {
            0 => None,
            _ => Some(reader.bytes()?.to_vec()),
        };
        Ok(Self { key, value })
    }
}

fn damaged(why: &str) -> Error {
    Error::new(&codes::FORMAT_DAMAGED, format!("a checkpoint is damaged: {why}"))
}

/// Gives the next bytes of a run, 0 at its end.
pub(crate) type Fill<'a> = Box<dyn FnMut(&mut [u8]) -> Result<usize> + 'a>;

/// Reads entries one after the other.
pub(crate) struct Entries<'a> {
    fill: Fill<'a>,
    buffer: Vec<u8>,
    start: usize,
    left: u64,
    last: Option<Vec<u8>>,
}

impl<'a> Entries<'a> {
    /// Reads from `fill`; `entries` is how many there must be.
    pub(crate) fn new(entries: u64, fill: impl FnMut(&mut [u8]) -> Result<usize> + 'a) -> Self {
        let fill: Fill<'a> = Box::new(fill);
        Self { fill, buffer: Vec::new(), start: 0, left: entries, last: None }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        if self.left == 0 {
            return Ok(None);
        }
        loop {
            let mut reader = Reader::new(&self.buffer[self.start..], "a checkpoint");
            if let Ok(entry) = Entry::decode(&mut reader) {
                self.start = self.buffer.len() - reader.rest().len();
                self.left -= 1;
                if self.last.as_ref().is_some_and(|last| *last >= entry.key) {
                    return Err(damaged("its entries are out of order"));
                }
                self.last = Some(entry.key.clone());
                return Ok(Some(entry));
            }
            if !self.more()? {
                return Err(damaged("it ends early"));
            }
        }
    }

    fn more(&mut self) -> Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + READ_BYTES, 0);
        let got = (self.fill)(&mut self.buffer[old..])?;
        self.buffer.truncate(old + got);
        Ok(got > 0)
    }
}

/// Merges runs, oldest first: of equal keys the newest entry stays; `bottom` drops what went.
pub(crate) fn merge(
    mut runs: Vec<Entries<'_>>,
    bottom: bool,
    mut emit: impl FnMut(Entry) -> Result<()>,
) -> Result<()> {
    let mut heads = runs.iter_mut().map(Entries::next).collect::<Result<Vec<_>>>()?;
    loop {
        let mut best: Option<usize> = None;
        for index in 0..heads.len() {
            let Some(entry) = &heads[index] else { continue };
            let older = best.and_then(|best| heads[best].as_ref());
            if older.is_none_or(|older| entry.key.cmp(&older.key) != Ordering::Greater) {
                best = Some(index); // the later run wins a tie
            }
        }
        let Some(best) = best else { return Ok(()) };
        let Some(entry) = heads[best].take() else { return Ok(()) };
        for index in 0..heads.len() {
            let same = heads[index].as_ref().is_some_and(|head| head.key == entry.key);
            if index == best || same {
                heads[index] = runs[index].next()?;
            }
        }
        if entry.value.is_some() || !bottom {
            emit(entry)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pairs: &[(&str, Option<&str>)]) -> (u64, Vec<u8>) {
        let mut writer = Writer::new();
        for (key, value) in pairs {
            let value = value.map(|value| value.as_bytes().to_vec());
            Entry { key: key.as_bytes().to_vec(), value }.encode(&mut writer);
        }
        (pairs.len() as u64, writer.finish())
    }

    fn entries((count, bytes): (u64, Vec<u8>)) -> Entries<'static> {
        let mut rest = bytes;
        Entries::new(count, move |into| {
            let take = rest.len().min(7).min(into.len());
            into[..take].copy_from_slice(&rest[..take]);
            rest.drain(..take);
            Ok(take)
        })
    }

    fn merged(bottom: bool) -> Vec<(String, Option<String>)> {
        let old = run(&[("a", Some("1")), ("b", Some("2")), ("d", Some("3"))]);
        let new = run(&[("a", Some("9")), ("b", None), ("c", Some("4"))]);
        let mut out = Vec::new();
        merge(vec![entries(old), entries(new)], bottom, |entry| {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            out.push((text(entry.key), entry.value.map(text)));
            Ok(())
        })
        .unwrap();
        out
    }

    #[test]
    fn the_newest_entry_wins_and_the_bottom_forgets_what_went() {
        let some = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        let kept = vec![some("a", "9"), some("c", "4"), some("d", "3")];
        assert_eq!(merged(true), kept);
        let mut all = kept;
        all.insert(1, ("b".to_owned(), None));
        assert_eq!(merged(false), all);
    }

    #[test]
    fn a_run_that_ends_early_or_is_out_of_order_is_refused() {
        let (count, bytes) = run(&[("b", None), ("a", None)]);
        let mut reader = entries((count, bytes.clone()));
        assert!(reader.next().is_ok());
        assert!(reader.next().is_err());
        let mut reader = entries((count, bytes[..4].to_vec()));
        assert!(reader.next().is_ok());
        assert!(reader.next().is_err());
    }
}
