//! The drives of a history: which there are, which of them count as lost, and what was done to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use dwk_base::{Random, SeededRandom};
use dwk_drive::{Drive, FaultyDrive, MemoryDrive, Power};

/// One drive.
pub(crate) struct Disk {
    pub(crate) memory: MemoryDrive,
    pub(crate) drive: FaultyDrive,
    /// Its number on the switch.
    plug: usize,
}

/// All drives by place: `d1` is the first. While one takes another's place both are there.
pub(crate) struct Drives {
    pub(crate) power: Power,
    pub(crate) places: Vec<Vec<Disk>>,
    made: usize,
    seed: u64,
    /// Places on which something is wrong now.
    pub(crate) sick: BTreeSet<usize>,
    /// Places that were behind or failed: until the store says that all is well.
    pub(crate) behind: BTreeSet<usize>,
    /// Places on which something went wrong that nobody could notice: until all is well and was read.
    pub(crate) unseen: BTreeSet<usize>,
    /// Places where one drive takes another's place.
    pub(crate) busy: BTreeSet<usize>,
    /// How things were at an earlier time.
    pub(crate) earlier: Vec<Option<MemoryDrive>>,
}

impl Drives {
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        let (sick, behind, unseen, busy) = Default::default();
        let (power, places) = (Power::new(), Vec::new());
        let earlier = (0..count).map(|_| None).collect();
        let mut drives = Self { power, places, made: 0, seed, sick, behind, unseen, busy, earlier };
        for place in 0..count {
            let disk = drives.make(place);
            drives.places.push(vec![disk]);
        }
        drives
    }

    /// A new, empty drive for a place.
    pub(crate) fn make(&mut self, place: usize) -> Disk {
        let plug = self.made;
        self.made += 1;
        let memory = MemoryDrive::new(format!("place{}-{plug}", place + 1));
        let seed = self.seed ^ ((plug as u64) << 32);
        let drive = FaultyDrive::new(Arc::new(memory.clone()), &self.power, seed);
        Disk { memory, drive, plug }
    }

    /// The drive that has the place, or had it first.
    pub(crate) fn disk(&self, place: usize) -> &Disk {
        &self.places[place][0]
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Disk> {
        self.places.iter().flatten()
    }

    /// Places that count as lost.
    pub(crate) fn lost(&self) -> BTreeSet<usize> {
        let sets = [&self.sick, &self.behind, &self.unseen, &self.busy];
        sets.into_iter().flatten().copied().collect()
    }

    /// The place meant by a number, if something may go wrong there.
    pub(crate) fn may_harm(&self, number: u64, tolerance: usize) -> Option<usize> {
        let (place, lost) = ((number % self.places.len() as u64) as usize, self.lost());
        let place = if lost.len() < tolerance {
            place
        } else {
            *lost.iter().nth(number as usize % lost.len().max(1))?
        };
        (!self.busy.contains(&place)).then_some(place)
    }

    /// The power comes back after a cut (or is cut now).
    pub(crate) fn restore(&mut self) {
        let drives = self.power.restore();
        for disk in self.places.iter_mut().flatten() {
            disk.drive = drives[disk.plug].clone();
        }
    }

    pub(crate) fn ease(&mut self, place: usize) {
        self.places[place].iter().for_each(|disk| disk.drive.heal());
        if self.sick.remove(&place) {
            self.behind.insert(place);
        }
    }

    pub(crate) fn ease_all(&mut self) {
        (0..self.places.len()).for_each(|place| self.ease(place));
    }

    /// What is to be opened: all but those places, in any order.
    pub(crate) fn present(
        &self,
        gone: &BTreeSet<usize>,
        random: &SeededRandom,
    ) -> Vec<Arc<dyn Drive>> {
        let here = self.places.iter().enumerate().filter(|(place, _)| !gone.contains(place));
        let here = here.flat_map(|(_, disks)| disks);
        let mut here: Vec<_> =
            here.map(|disk| Arc::new(disk.drive.clone()) as Arc<dyn Drive>).collect();
        for last in (1..here.len()).rev() {
            here.swap(last, random.below(last as u64 + 1) as usize);
        }
        here
    }
}
