//! Packing: content leaves the journal, or a half-empty stripe, for full stripes.
//!
//! A packed row keeps its version: only where its content lies changes, and only if the row is still of
//! that version when the record is applied. A piece that cannot be read stays where it is, and is told of
//! when everything else is done.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::Ordering;

use dwk_base::{Error, Result, StripeId, codes};

use crate::meta::Meta;
use crate::record::{Operation, RecordWriter};
use crate::row::{Content, Piece, Place};
use crate::state::Key;

/// The most rows that one record relocates.
const ROWS_MAX: usize = 4096;
/// The most bytes of relocations that one record holds, if the journal takes twice as many.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// Rows looked at under one read of the map.
const PAGE: usize = 4096;

/// A piece that is to lie elsewhere.
#[derive(Debug)]
struct Item {
    key: Key,
    version: u64,
    piece: Piece,
    /// Where its bytes begin in the batch.
    start: usize,
}

/// Gathers pieces until they fill a stripe, then moves them.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    meta: &'a Meta,
    journal: dwk_journal::Reader<'a>,
    bytes: Vec<u8>,
    items: Vec<Item>,
    bytes_max: usize,
    done: Packed,
}

/// What packing did.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) moved_bytes: u64,
    /// Pieces that could not be read.
    pub(crate) lost_pieces: u64,
    why: Option<Error>,
    /// Stripes with such pieces.
    pub(crate) lost_in: BTreeSet<StripeId>,
}

impl Packed {
    /// Fails if something could not be read.
    pub(crate) fn whole(self) -> Result<()> {
        let Some(why) = self.why else { return Ok(()) };
        let text =
            format!("{} pieces of content cannot be read: {}", self.lost_pieces, why.message());
        Err(Error::new(why.code(), text).caused_by(why))
    }

    fn lost(&mut self, piece: &Piece, why: Error) {
        self.lost_pieces += 1;
        self.why.get_or_insert(why);
        if let Place::Stripe { id, .. } = piece.place {
            self.lost_in.insert(id);
        }
    }
}

impl<'a> Packer<'a> {
    pub(crate) fn new(meta: &'a Meta) -> Self {
        let bytes_max = meta.pool().space().payload_bytes_max();
        let journal = meta.journal().reader();
        let (bytes, items, done) = (Vec::new(), Vec::new(), Packed::default());
        Self { meta, journal, bytes, items, bytes_max, done }
    }

    /// Takes a piece of a row along, if it can be read.
    ///
    /// # Errors
    /// Those of writing what was gathered.
    pub(crate) fn add(&mut self, key: &[u8], version: u64, piece: Piece) -> Result<()> {
        let length = piece.bytes as usize;
        if self.bytes.len() + length > self.bytes_max || self.items.len() == ROWS_MAX {
            self.flush()?;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        if let Err(error) = self.read_piece(&piece, start) {
            self.bytes.truncate(start);
            self.done.lost(&piece, error);
            return Ok(());
        }
        self.items.push(Item { key: key.into(), version, piece, start });
        Ok(())
    }

    /// Writes the batch into stripes and commits where its pieces lie now.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let (bytes, items) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.items));
        if items.is_empty() {
            return Ok(());
        }
        let mut upload = self.meta.upload().with_reserve();
        upload.append(&bytes)?;
        let staged = upload.finish()?;
        let content = staged.content();
        let mut record = RecordWriter::new();
        staged.stripes().for_each(|stripe| record.push(&Operation::AddStripe(stripe.clone())));
        // From here on a record may name the stripes.
        staged.keep();
        let record_bytes_max = self.meta.journal().options().record_bytes_max as usize;
        let mut rows: BTreeMap<(&[u8], u64), Vec<&Item>> = BTreeMap::new();
        for item in &items {
            rows.entry((&item.key, item.version)).or_default().push(item);
        }
        for ((key, version), items) in rows {
            let Some(old) = self.current(key, version) else { continue };
            let pieces = old.pieces.iter().flat_map(|piece| {
                match items.iter().find(|item| item.piece == *piece) {
                    Some(item) => slice(&content, &bytes, item.start, piece.bytes as usize),
                    None => vec![*piece],
                }
            });
            let content = Content { pieces: pieces.collect() };
            record.push(&Operation::Relocate { key, version, content });
            if record.len() > RECORD_BYTES_MAX.min(record_bytes_max / 2) {
                self.meta.commit_record(std::mem::replace(&mut record, RecordWriter::new()))?;
            }
        }
        if !record.is_empty() {
            self.meta.commit_record(record)?;
        }
        self.done.moved_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Reads a piece to where it stands in the batch.
    fn read_piece(&mut self, piece: &Piece, start: usize) -> Result<()> {
        let (meta, into) = (self.meta, &mut self.bytes[start..]);
        let right = |bytes: &[u8]| dwk_chunk::crc64nvme(bytes) == piece.check;
        match piece.place {
            Place::Journal { position, offset } => {
                self.journal.read(position, offset, into, &right)
            }
            Place::Stripe { id, offset } => {
                meta.pool().space().read(&meta.placed(id)?, offset, into)?;
                if right(into) {
                    return Ok(());
                }
                // It will get a new check where it goes: one that says that this is what was put.
                let text = format!(
                    "{} bytes at {offset} of stripe {id} are not what was put",
                    piece.bytes
                );
                Err(Error::new(&codes::DATA_CORRUPT, text).with("stripe", id))
            }
        }
    }

    fn current(&self, key: &[u8], version: u64) -> Option<Content> {
        let state = self.meta.state();
        state.row(key).filter(|row| row.version == version).and_then(|row| row.content.clone())
    }
}

/// The pieces of `content`, whose bytes are `bytes`, that hold `length` bytes from `start`.
fn slice(content: &Content, bytes: &[u8], start: usize, length: usize) -> Vec<Piece> {
    let (mut pieces, mut begin) = (Vec::new(), 0);
    for piece in &content.pieces {
        let end = begin + piece.bytes as usize;
        let (from, to) = (start.max(begin), (start + length).min(end));
        if let (true, Place::Stripe { id, offset }) = (from < to, piece.place) {
            let place = Place::Stripe { id, offset: offset + (from - begin) as u32 };
            let check = dwk_chunk::crc64nvme(&bytes[from..to]);
            pieces.push(Piece { place, bytes: (to - from) as u32, check });
        }
        begin = end;
    }
    pieces
}

/// Moves all content that lies in records before `before` into stripes.
pub(crate) fn journal_content(meta: &Meta, before: u64) -> Result<Packed> {
    let mut packer = Packer::new(meta);
    let mut last: Option<(u64, Key)> = None;
    loop {
        let page: Vec<(u64, Key)> = {
            let state = meta.state();
            let old = state.inline_after(last.as_ref()).take_while(|entry| entry.0 < before);
            old.take(PAGE).cloned().collect()
        };
        let Some(end) = page.last().cloned() else { break };
        for (_, key) in &page {
            let row = meta.state().row(key).cloned();
            let Some(row) = row else { continue };
            let Some(content) = row.content else { continue };
            for piece in content.pieces {
                if matches!(piece.place, Place::Journal { position, .. } if position.sequence < before)
                {
                    packer.add(key, row.version, piece)?;
                }
            }
        }
        last = Some(end);
    }
    packer.flush()?;
    Ok(packer.done)
}

/// Moves what lives in `stripes` elsewhere, in one pass over the map.
pub(crate) fn stripes(meta: &Meta, stripes: &BTreeSet<StripeId>) -> Result<Packed> {
    let mut packer = Packer::new(meta);
    let mut from: Bound<Vec<u8>> = Bound::Unbounded;
    loop {
        let (found, last) = find(meta, stripes, from.as_ref().map(Vec::as_slice));
        for (key, version, piece) in found {
            packer.add(&key, version, piece)?;
        }
        let Some(last) = last else { break };
        from = Bound::Excluded(last.into_vec());
    }
    packer.flush()?;
    Ok(packer.done)
}

/// Moves what the rows of `keys` have in `stripes` elsewhere.
pub(crate) fn stripes_of(
    meta: &Meta,
    stripes: &BTreeSet<StripeId>,
    keys: BTreeSet<Key>,
) -> Result<Packed> {
    let mut packer = Packer::new(meta);
    for key in keys {
        let row = meta.state().row(&key).cloned();
        let Some(row) = row else { continue };
        for piece in row.content.into_iter().flat_map(|content| content.pieces) {
            if matches!(piece.place, Place::Stripe { id, .. } if stripes.contains(&id)) {
                packer.add(&key, row.version, piece)?;
            }
        }
    }
    packer.flush()?;
    Ok(packer.done)
}

/// The pieces in `stripes` of the next rows after `from`, and the last of these rows.
fn find(
    meta: &Meta,
    stripes: &BTreeSet<StripeId>,
    from: Bound<&[u8]>,
) -> (Vec<(Key, u64, Piece)>, Option<Key>) {
    let (mut found, mut last, mut rows) = (Vec::new(), None, 0);
    let state = meta.state();
    for (key, row) in state.range(from, Bound::Unbounded).take(PAGE) {
        let pieces = row.content.iter().flat_map(|content| &content.pieces);
        let wanted = |piece: &&Piece| matches!(piece.place, Place::Stripe { id, .. } if stripes.contains(&id));
        found.extend(pieces.filter(wanted).map(|piece| (key.clone(), row.version, *piece)));
        (last, rows) = (Some(key), rows + 1);
    }
    meta.keeper.looked_rows.fetch_add(rows, Ordering::Relaxed);
    (found, last.cloned())
}
