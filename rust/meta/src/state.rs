//! The map: what the journal adds up to. Pure: records in, rows out.
//!
//! `live` of a stripe is the sum of the pieces that rows and runs have in it, kept by difference at
//! every change of a row, so that it is right whatever order replay begins in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use dwk_base::{Result, StripeId};
use dwk_journal::Position;
use dwk_pool::{Damage, Stripe, StripeCode, Usage};

use crate::record::{NewContent, Operation, Root, visit};
use crate::row::{Content, Piece, Place, Row};

/// A key of the map.
pub(crate) type Key = Box<[u8]>;

/// A stripe and how much of it is referred to.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) stripe: Stripe,
    pub(crate) live_bytes: u64,
}

/// The map and what is kept beside it.
#[derive(Debug, Default)]
pub(crate) struct State {
    rows: BTreeMap<Key, Row>,
    stripes: BTreeMap<StripeId, Kept>,
    /// Keys whose content lies in the journal, by the record that holds it.
    inline: BTreeSet<(u64, Key)>,
    /// Stripes that nobody refers to, with the record since when.
    dead: BTreeMap<StripeId, u64>,
    /// What the table says lies on each seat.
    usage: BTreeMap<u16, Usage>,
    /// Stripes that are written and that no record names yet.
    coming: BTreeMap<StripeId, Stripe>,
    /// How many stripes there are of each code.
    codes: HashMap<StripeCode, u64>,
    dirty_rows: BTreeSet<Key>,
    dirty_stripes: BTreeSet<StripeId>,
    root: Root,
    /// Damage that is known, as it was kept last.
    damage: Damage,
    applied: u64,
    live_bytes: u64,
    /// Content of all stripes in the table, and how much of it is referred to.
    stripe_bytes: u64,
    stripe_live_bytes: u64,
}

impl State {
    /// Applies one record.
    pub(crate) fn apply(&mut self, position: Position, record: &[u8]) -> Result<()> {
        visit(record, |operation, offset| {
            self.operate(position, operation, offset);
            Ok(())
        })?;
        self.applied = position.sequence;
        Ok(())
    }

    fn operate(&mut self, position: Position, operation: Operation<'_>, offset: u32) {
        let sequence = position.sequence;
        match operation {
            Operation::Put { key, body, content } => {
                let content = match content {
                    NewContent::None => None,
                    NewContent::Keep => self.rows.get(key).and_then(|row| row.content.clone()),
                    NewContent::Pieces(content) => Some(content),
                    NewContent::Inline { bytes, check } => {
                        let place = Place::Journal { position, offset };
                        let piece = Piece { place, bytes: bytes.len() as u32, check };
                        Some(Content { pieces: vec![piece] })
                    }
                };
                let body = Bytes::copy_from_slice(body);
                self.set_row(key, Some(Row { version: sequence, body, content }), sequence);
            }
            Operation::Delete { key } => self.set_row(key, None, sequence),
            Operation::Relocate { key, version, content } => {
                if let Some(row) = self.rows.get(key).filter(|row| row.version == version) {
                    let row = Row { content: Some(content), ..row.clone() };
                    self.set_row(key, Some(row), sequence);
                }
            }
            Operation::AddStripe(stripe) => {
                let id = stripe.id;
                self.coming.remove(&id);
                self.place_stripe(stripe);
                if self.stripes.get(&id).is_some_and(|kept| kept.live_bytes == 0) {
                    self.dead.insert(id, sequence);
                }
            }
            Operation::MoveStripe(stripe) => {
                if self.stripes.contains_key(&stripe.id) {
                    self.place_stripe(stripe);
                }
            }
            Operation::DropStripe(id) => self.drop_stripe(id),
            Operation::Root(root) => self.set_root(root, sequence),
            Operation::Damage(damage) => self.damage = damage,
        }
    }

    /// Puts a row as a run has it: nothing becomes dirty.
    pub(crate) fn load_row(&mut self, key: &[u8], row: Option<Row>) {
        self.set_row(key, row, 0);
        self.dirty_rows.remove(key);
    }

    /// Puts a stripe as a run has it.
    pub(crate) fn load_stripe(&mut self, id: StripeId, stripe: Option<Stripe>) {
        match stripe {
            Some(stripe) => self.place_stripe(stripe),
            None => self.drop_stripe(id),
        }
        self.dirty_stripes.remove(&id);
    }

    /// After all runs are loaded: what they add up to.
    ///
    /// Runs name stripes and the rows in them in any order: what is live is counted here, anew.
    pub(crate) fn loaded(&mut self, root: &Root) {
        self.applied = root.folded;
        self.live_bytes = 0;
        self.dead = self.stripes.keys().map(|id| (*id, root.folded)).collect();
        self.stripes.values_mut().for_each(|kept| kept.live_bytes = 0);
        self.stripe_live_bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        for content in rows.values().filter_map(|row| row.content.as_ref()) {
            self.count(content, true, root.folded);
        }
        self.rows = rows;
        self.set_root(root.clone(), root.folded);
    }

    fn set_row(&mut self, key: &[u8], row: Option<Row>, sequence: u64) {
        let new = row.as_ref().and_then(|row| row.content.clone());
        let key: Key = key.into();
        let old = match row {
            Some(row) => self.rows.insert(key.clone(), row),
            None => self.rows.remove(&key),
        };
        if let Some(content) = new {
            if let Some(record) = content.oldest_record() {
                self.inline.insert((record, key.clone()));
            }
            self.count(&content, true, sequence);
        }
        if let Some(content) = old.and_then(|row| row.content) {
            if let Some(record) = content.oldest_record() {
                let still = self.rows.get(&key).and_then(|row| row.content.as_ref());
                if still.and_then(Content::oldest_record) != Some(record) {
                    self.inline.remove(&(record, key.clone()));
                }
            }
            self.count(&content, false, sequence);
        }
        self.dirty_rows.insert(key);
    }

    fn set_root(&mut self, root: Root, sequence: u64) {
        for run in &root.runs {
            self.count(&run.content, true, sequence);
        }
        for run in std::mem::replace(&mut self.root, root).runs {
            self.count(&run.content, false, sequence);
        }
    }

    fn place_stripe(&mut self, stripe: Stripe) {
        let id = stripe.id;
        self.lies(&stripe, true);
        self.stripe_bytes += u64::from(stripe.payload_bytes);
        let live_bytes = self.stripes.get(&id).map_or(0, |kept| kept.live_bytes);
        if let Some(old) = self.stripes.insert(id, Kept { stripe, live_bytes }) {
            self.lies(&old.stripe, false);
            self.stripe_bytes -= u64::from(old.stripe.payload_bytes);
        }
        self.dirty_stripes.insert(id);
    }

    fn drop_stripe(&mut self, id: StripeId) {
        if let Some(old) = self.stripes.remove(&id) {
            self.lies(&old.stripe, false);
            self.stripe_bytes -= u64::from(old.stripe.payload_bytes);
            self.stripe_live_bytes -= old.live_bytes;
        }
        self.dead.remove(&id);
        self.dirty_stripes.insert(id);
    }

    /// Counts a stripe's shards on (or off) the seats that hold them, and its code.
    fn lies(&mut self, stripe: &Stripe, more: bool) {
        let stripes = self.codes.entry(stripe.code).or_default();
        *stripes = if more { *stripes + 1 } else { stripes.saturating_sub(1) };
        let bytes = u64::from(stripe.shard_bytes);
        for seat in &stripe.placement {
            let usage = self.usage.entry(*seat).or_default();
            if more {
                (usage.shards, usage.bytes) = (usage.shards + 1, usage.bytes + bytes);
            } else {
                usage.shards = usage.shards.saturating_sub(1);
                usage.bytes = usage.bytes.saturating_sub(bytes);
            }
        }
    }

    /// How many stripes that something lies in, or will as soon as a record names them, there are of each code.
    pub(crate) fn codes(&self) -> BTreeMap<StripeCode, u64> {
        let mut codes: BTreeMap<StripeCode, u64> = self.codes.clone().into_iter().collect();
        for kept in self.dead.keys().filter_map(|id| self.stripes.get(id)) {
            if let Some(stripes) = codes.get_mut(&kept.stripe.code) {
                *stripes = stripes.saturating_sub(1);
            }
        }
        for stripe in self.coming.values() {
            *codes.entry(stripe.code).or_default() += 1;
        }
        codes.retain(|_, stripes| *stripes > 0);
        codes
    }

    /// What lies on a seat, what is [coming](Self::announce) too.
    pub(crate) fn usage(&self, seat: u16) -> Usage {
        let mut usage = self.usage.get(&seat).copied().unwrap_or_default();
        for stripe in self.coming.values().filter(|stripe| stripe.placement.contains(&seat)) {
            usage.shards += 1;
            usage.bytes += u64::from(stripe.shard_bytes);
        }
        usage
    }

    /// A stripe is written that a record will name, or nobody: then it is to be [forgotten](Self::forget).
    pub(crate) fn announce(&mut self, stripe: &Stripe) {
        self.coming.insert(stripe.id, stripe.clone());
    }

    /// No record will name this stripe.
    pub(crate) fn forget(&mut self, id: StripeId) {
        self.coming.remove(&id);
    }

    /// Counts a content's pieces in (or out of) the stripes that hold them.
    fn count(&mut self, content: &Content, more: bool, sequence: u64) {
        let bytes = content.bytes();
        self.live_bytes =
            if more { self.live_bytes + bytes } else { self.live_bytes.saturating_sub(bytes) };
        for (id, bytes) in content.in_stripes() {
            let Some(kept) = self.stripes.get_mut(&id) else { continue };
            if more {
                kept.live_bytes += u64::from(bytes);
                self.stripe_live_bytes += u64::from(bytes);
                self.dead.remove(&id);
            } else {
                let less = kept.live_bytes.min(bytes.into());
                kept.live_bytes -= less;
                self.stripe_live_bytes -= less;
                if kept.live_bytes == 0 {
                    self.dead.insert(id, sequence);
                }
            }
        }
    }

    pub(crate) fn row(&self, key: &[u8]) -> Option<&Row> {
        self.rows.get(key)
    }

    pub(crate) fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&Key, &Row)> {
        self.rows.range::<[u8], _>((from, to))
    }

    pub(crate) fn row_count(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn stripe(&self, id: StripeId) -> Option<&Kept> {
        self.stripes.get(&id)
    }

    pub(crate) fn stripes_after(&self, after: Option<StripeId>) -> impl Iterator<Item = &Kept> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.stripes.range((from, Bound::Unbounded)).map(|(_, kept)| kept)
    }

    pub(crate) fn stripe_count(&self) -> usize {
        self.stripes.len()
    }

    /// Stripes that nobody has referred to since the record given with each.
    pub(crate) fn dead(&self) -> impl Iterator<Item = (StripeId, u64)> {
        self.dead.iter().map(|(id, since)| (*id, *since))
    }

    /// Keys with content in the journal, oldest record first, after `last`.
    pub(crate) fn inline_after(
        &self,
        last: Option<&(u64, Key)>,
    ) -> impl Iterator<Item = &(u64, Key)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.inline.range((from, Bound::Unbounded))
    }

    pub(crate) const fn root(&self) -> &Root {
        &self.root
    }

    pub(crate) const fn damage(&self) -> &Damage {
        &self.damage
    }

    pub(crate) const fn applied(&self) -> u64 {
        self.applied
    }

    pub(crate) const fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Content of all stripes.
    pub(crate) const fn stripe_bytes(&self) -> u64 {
        self.stripe_bytes
    }

    /// Content of stripes that nobody refers to.
    pub(crate) const fn garbage_bytes(&self) -> u64 {
        self.stripe_bytes.saturating_sub(self.stripe_live_bytes)
    }

    /// Content of the checkpoint's runs.
    pub(crate) fn run_bytes(&self) -> u64 {
        self.root.runs.iter().map(|run| run.content.bytes()).sum()
    }

    /// Takes the keys that changed since the last call.
    pub(crate) fn take_dirty(&mut self) -> (BTreeSet<Key>, BTreeSet<StripeId>) {
        (std::mem::take(&mut self.dirty_rows), std::mem::take(&mut self.dirty_stripes))
    }

    /// Gives back what was taken, after a checkpoint that failed.
    pub(crate) fn give_back_dirty(&mut self, rows: BTreeSet<Key>, stripes: BTreeSet<StripeId>) {
        self.dirty_rows.extend(rows);
        self.dirty_stripes.extend(stripes);
    }

    /// True if more changed since the last checkpoint than that it has stripes of its own now, and those before it
    /// have none: the journal says so at the next opening, as long as nothing else is to be said.
    pub(crate) fn has_news(&self) -> bool {
        let runs = self.root.runs.iter().flat_map(|run| &run.stripes);
        let runs: BTreeMap<StripeId, &Stripe> = runs.map(|stripe| (stripe.id, stripe)).collect();
        let is_news = |id: &StripeId| {
            self.stripe(*id).is_some_and(|kept| runs.get(id) != Some(&&kept.stripe))
        };
        !self.dirty_rows.is_empty() || self.dirty_stripes.iter().any(is_news)
    }

    pub(crate) fn dirty_count(&self) -> usize {
        self.dirty_rows.len() + self.dirty_stripes.len()
    }
}
