//! What the drives hold at a moment, looked at on copies: with more drives lost, and with more lost than may be.

use std::collections::BTreeSet;
use std::sync::Arc;

use dwk_base::{Random, Result, Seams, codes};
use dwk_drive::{Drive, Entry, MemoryDrive};
use dwk_meta::Meta;
use dwk_pool::{OpenOptions, Pool};

use super::drives::Drives;
use super::harm::damage;
use super::history::History;
use crate::world::{copy_of, holder};

impl Drives {
    /// A place that may be lost as well, beside those.
    pub(crate) fn may_harm_also(
        &self,
        chosen: &BTreeSet<usize>,
        number: u64,
        tolerance: usize,
    ) -> Option<usize> {
        let all: BTreeSet<usize> = self.lost().union(chosen).copied().collect();
        let place = (number % self.places.len() as u64) as usize;
        let place = if all.len() < tolerance {
            place
        } else {
            *all.iter().nth(number as usize % all.len().max(1))?
        };
        (!self.busy.contains(&place)).then_some(place)
    }
}

impl History {
    fn copies(&self, gone: &BTreeSet<usize>) -> Vec<MemoryDrive> {
        let places = self.drives.places.iter().enumerate();
        let here = places.filter(|(place, _)| !gone.contains(place));
        here.flat_map(|(_, disks)| disks).map(|disk| copy_of(&disk.memory)).collect()
    }

    fn open_copies(&self, copies: &[MemoryDrive], read_only: bool) -> Result<Arc<Meta>> {
        let drives = copies.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>).collect();
        let open = OpenOptions { pool: self.pool.clone(), read_only, ..OpenOptions::default() };
        let seams = Seams::seeded(self.random.next_u64());
        Meta::open(Pool::open(drives, open, seams, &holder())?, self.options.clone())
    }

    /// The drives lie there without power: whatever may be lost of them is lost in copies.
    pub(crate) fn probe(&mut self) {
        let mut gone = BTreeSet::new();
        for _ in 0..=self.random.below(self.tolerance as u64 + 1) {
            let number = self.random.next_u64();
            gone.extend(self.drives.may_harm_also(&gone, number, self.tolerance));
        }
        let read_only = self.random.below(3) == 0;
        let when = format!("{}, a copy without {gone:?}, read-only {read_only}", self.now);
        let copies = self.copies(&gone);
        let meta = self.open_copies(&copies, read_only);
        let meta = meta.unwrap_or_else(|error| panic!("{when}: {error:?}"));
        self.book.check(&meta, &when);
        drop(meta);
        match self.random.below(4) {
            0 => self.probe_too_few(),
            1 => self.probe_too_much_damage(),
            _ => {}
        }
    }

    /// More are lost than may be: it is refused.
    fn probe_too_few(&self) {
        let mut gone = BTreeSet::new();
        while gone.len() <= self.tolerance {
            gone.insert(self.random.below(self.setup.drives as u64) as usize);
        }
        let copies = self.copies(&gone);
        let when = format!("{}, a copy without {gone:?}", self.now);
        let Err(error) = self.open_copies(&copies, false) else { panic!("{when}: it opens") };
        let right = [
            &codes::DRIVES_TOO_MANY_LOST,
            &codes::STORE_NOT_FOUND,
            &codes::SUPERBLOCK_DAMAGED,
            &codes::DRIVE_MISSING,
        ];
        assert!(right.iter().any(|code| error.is(code)), "{when}: {error:?}");
    }

    /// Shards are damaged on any number of drives: what is read is right or refused.
    fn probe_too_much_damage(&self) {
        let copies = self.copies(&BTreeSet::new());
        for copy in &copies {
            let rest = copy_of(copy);
            damage(&rest, &self.random);
            for entry in copy.entries() {
                if matches!(entry, Entry::Blob(_)) {
                    copy.set_raw(&entry, rest.raw(&entry));
                }
            }
        }
        let when = format!("{}, a copy with too much damage", self.now);
        if let Ok(meta) = self.open_copies(&copies, false) {
            self.book.check_right_or_refused(&meta, &when);
        }
    }
}
