//! Which rows have content in stripes that are to be packed: looked for in one pass over the map for many stripes,
//! and used up step by step.
//!
//! What is found may be out of date when it is used: a row is looked at again then, and a stripe in which something is
//! left is chosen again. The memory for it is bounded; for stripes of which it holds no list the map is gone over.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::Ordering;

use dwk_base::StripeId;

use crate::meta::Meta;
use crate::row::Content;
use crate::state::Key;

/// The most keys that are remembered.
pub(crate) const KEYS_MAX: usize = 65_536;
/// Rows looked at under one read of the map.
const PAGE: usize = 4096;

/// Keys of rows with content in a stripe, by stripe.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    keys: BTreeMap<StripeId, Vec<Key>>,
}

impl Owners {
    /// Takes the owners of content in `stripes`, in order; `None` if those of one of them are not known.
    pub(crate) fn take(&mut self, stripes: &BTreeSet<StripeId>) -> Option<BTreeSet<Key>> {
        if !stripes.iter().all(|id| self.keys.contains_key(id)) {
            return None;
        }
        Some(stripes.iter().filter_map(|id| self.keys.remove(id)).flatten().collect())
    }

    /// Looks for the owners of as many of `wanted` as there is room for, the first ones first.
    pub(crate) fn find(&mut self, meta: &Meta, wanted: &[StripeId], keys_max: usize) {
        let mut found = Found::new(wanted, keys_max);
        let mut from: Bound<Vec<u8>> = Bound::Unbounded;
        loop {
            let (mut last, mut rows) = (None, 0);
            let state = meta.state();
            let page = state.range(from.as_ref().map(Vec::as_slice), Bound::Unbounded).take(PAGE);
            for (key, row) in page {
                let content = row.content.iter();
                content.flat_map(Content::in_stripes).for_each(|(id, _)| found.add(id, key));
                (last, rows) = (Some(key), rows + 1);
            }
            meta.keeper.looked_rows.fetch_add(rows, Ordering::Relaxed);
            let Some(last) = last else { break };
            from = Bound::Excluded(last.to_vec());
        }
        self.keys = found.keys;
    }

    /// Forgets all of it.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
    }
}

/// What a pass has found so far.
struct Found<'a> {
    /// Stripes that are still looked for.
    wanted: &'a [StripeId],
    keys: BTreeMap<StripeId, Vec<Key>>,
    count: usize,
    keys_max: usize,
}

impl<'a> Found<'a> {
    fn new(wanted: &'a [StripeId], keys_max: usize) -> Self {
        let keys = wanted.iter().map(|id| (*id, Vec::new())).collect();
        Self { wanted, keys, count: 0, keys_max }
    }

    fn add(&mut self, id: StripeId, key: &Key) {
        let Some(keys) = self.keys.get_mut(&id) else { return };
        // One row may have several pieces in a stripe.
        if keys.last() == Some(key) {
            return;
        }
        keys.push(key.clone());
        self.count += 1;
        while self.count > self.keys_max {
            let Some((last, rest)) = self.wanted.split_last() else { return };
            self.wanted = rest;
            self.count -= self.keys.remove(last).map_or(0, |keys| keys.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emptiest_stripes_are_kept_when_there_is_no_room_for_all() {
        let ids: Vec<StripeId> = [5u128, 3, 9].map(StripeId::from_u128).to_vec();
        let mut found = Found::new(&ids, 4);
        for n in 0..3u8 {
            for id in &ids {
                found.add(*id, &Box::from([n]));
                found.add(*id, &Box::from([n]));
            }
        }
        let kept: Vec<_> = found.keys.iter().map(|(id, keys)| (*id, keys.len())).collect();
        assert_eq!(kept, [(ids[0], 3)]);
        let mut owners = Owners { keys: found.keys };
        assert_eq!(owners.take(&ids.iter().copied().collect()), None);
        assert_eq!(owners.take(&[ids[0]].into()).map(|keys| keys.len()), Some(3));
        assert_eq!(owners.take(&[ids[0]].into()), None, "they are used up");
    }
}
