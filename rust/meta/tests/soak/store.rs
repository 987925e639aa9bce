//! Making, opening, closing, mending.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwk_base::{Deadline, Random, Result, Seams, codes};
use dwk_drive::Drive;
use dwk_meta::Meta;
use dwk_pool::{Control, NewDrive, OpenOptions, Pool, Redundancy, State};

use super::history::History;
use crate::world::{copy_of, holder};

/// How long somebody who is gone may hold a drive.
const SOON: Duration = Duration::from_secs(20);

impl History {
    pub(crate) fn create(&self) -> Arc<Meta> {
        let new = |(place, disk): (usize, &super::drives::Disk)| NewDrive {
            drive: Arc::new(disk.drive.clone()),
            name: format!("d{}", place + 1),
            labels: BTreeMap::new(),
        };
        let drives: Vec<_> = self.drives.all().enumerate().map(new).collect();
        let seams = Seams::seeded(self.random.next_u64());
        let geometry = self.setup.geometry.parse().unwrap();
        let pool = Pool::create(&drives, &geometry, &self.pool, seams, &holder()).unwrap();
        Meta::create(pool, self.options.clone()).unwrap()
    }

    fn try_open(&self, drives: Vec<Arc<dyn Drive>>) -> Result<Arc<Meta>> {
        let (pool, force) = (self.pool.clone(), self.force);
        let open = OpenOptions { pool, force, ..OpenOptions::default() };
        let seams = Seams::seeded(self.random.next_u64());
        Meta::open(Pool::open(drives, open, seams, &holder())?, self.options.clone())
    }

    /// Opens, once who had it open has let go of the drives.
    pub(crate) fn open(&self, gone: &BTreeSet<usize>) -> Result<Arc<Meta>> {
        let begin = Instant::now();
        loop {
            match self.try_open(self.drives.present(gone, &self.random)) {
                Err(error) if error.is(&codes::STORE_LOCKED) && begin.elapsed() < SOON => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                opened => return opened,
            }
        }
    }

    /// Lets go of the store, in order or not.
    pub(crate) fn leave(&mut self, clean: bool) {
        self.held.clear();
        self.staged.clear();
        let Some(meta) = self.meta.take() else { return };
        if clean {
            let done = meta.close();
            self.meta = Some(meta);
            self.expect(done);
            self.meta = None;
        }
    }

    /// The power comes back, perhaps to go again while the store is opened.
    pub(crate) fn restart(&mut self) {
        loop {
            self.leave(false);
            self.drives.restore();
            self.keep_earlier();
            self.probe();
            if self.random.below(2) == 0 {
                let within = [4, 12, 60][self.random.below(3) as usize];
                self.drives.power.cut_in(1 + self.random.below(within));
            }
            let gone = self.draw_gone();
            if self.reopen(gone) {
                return;
            }
        }
    }

    /// Remembers how things are, for a drive that is to be turned back.
    pub(crate) fn keep_earlier(&mut self) {
        let place = self.random.below(self.setup.drives as u64) as usize;
        if !self.drives.unseen.contains(&place) && !self.drives.busy.contains(&place) {
            self.drives.earlier[place] = Some(copy_of(&self.drives.disk(place).memory));
        }
    }

    /// Places that are not to be opened: as many as may be lost.
    pub(crate) fn draw_gone(&self) -> BTreeSet<usize> {
        let mut gone = BTreeSet::new();
        if self.random.below(2) == 0 {
            return gone;
        }
        for _ in 0..self.random.below(self.tolerance as u64 + 1) {
            gone.extend(self.drives.may_harm_also(&gone, self.random.next_u64(), self.tolerance));
        }
        gone
    }

    /// Opens without those; false if the power went.
    pub(crate) fn reopen(&mut self, gone: BTreeSet<usize>) -> bool {
        let opened = self.open(&gone);
        if self.aloud {
            let how = opened.as_ref().map(|meta| {
                let states: Vec<_> = meta.pool().roster().seats.iter().map(|s| s.state).collect();
                (meta.pool().check_writable().is_ok(), meta.pool().epoch(), states)
            });
            let (power, force) = (self.drives.power.is_cut(), self.force);
            eprintln!("  without {gone:?}, cut {power}, forced {force}: writable {how:?}");
        }
        self.drives.behind.extend(&gone);
        self.gone = gone;
        match opened {
            Ok(meta) => {
                if !self.drives.power.is_cut() {
                    self.sort_out(&meta);
                    let (mut book, when) = (self.book.clone(), format!("{}, opened", self.now));
                    let cut_at = self.drives.power.clone();
                    // What is under way is still to be cut: not while everything is looked at.
                    cut_at.cut_at(u64::MAX);
                    if cut_at.is_cut() {
                        self.meta = Some(meta);
                        return false;
                    }
                    if meta.pool().check_writable().is_ok() {
                        book.settle(&meta, &when);
                        self.book = book;
                    } else {
                        // Who only reads cannot make durable what it sees of commits in doubt.
                        book.check(&meta, &when);
                    }
                }
                self.meta = Some(meta);
                !self.drives.power.is_cut()
            }
            // The last half of a mirror cannot be told that the other is out.
            Err(error) if error.is(&codes::DRIVES_TOO_MANY_LOST) && self.is_half() => {
                self.drives.ease_all();
                self.reopen(BTreeSet::new())
            }
            // Each opening writes, and what is kept for that comes to an end.
            Err(error) if error.is(&codes::DRIVE_FULL) && self.full => {
                self.full = false;
                self.drives.all().for_each(|disk| disk.drive.set_full(false));
                self.reopen(BTreeSet::new())
            }
            Err(error) => {
                let gone = &self.gone;
                let cut = self.drives.power.is_cut();
                assert!(cut, "{}: without {gone:?} it does not open: {error:?}", self.now);
                false
            }
        }
    }

    /// Of two drives for one place, forgets the one that is no member.
    pub(crate) fn sort_out(&mut self, meta: &Arc<Meta>) {
        let roster = meta.pool().roster();
        for (place, disks) in self.drives.places.iter_mut().enumerate().filter(|(_, d)| d.len() > 1)
        {
            let (name, old) = (format!("d{}", place + 1), format!("d{}.old", place + 1));
            let is_member = |disk: &super::drives::Disk| {
                let location = disk.memory.describe().location;
                let mut seats = roster.seats.iter();
                seats.any(|s| s.location == location && (s.name == name || s.name == old))
            };
            disks.retain(is_member);
            assert!(!disks.is_empty(), "{}: nobody has the place of {name}", self.now);
        }
    }

    /// True if so few drives are well that they would not be missed if they were lost.
    pub(crate) fn is_half(&self) -> bool {
        self.setup.drives <= self.tolerance + self.drives.lost().len()
    }

    pub(crate) fn status(&self) -> dwk_pool::PoolStatus {
        let meta = self.meta();
        meta.pool().status(&**meta).unwrap()
    }

    /// Whatever is wrong is mended, as a careful owner does, and then all is well.
    pub(crate) fn recover(&mut self) {
        self.drives.ease_all();
        self.full = false;
        self.leave(self.random.below(2) == 0);
        if !self.drives.unseen.is_empty() {
            // What a drive forgot shows when the power was gone.
            self.drives.restore();
        }
        let opened = self.reopen(BTreeSet::new());
        assert!(opened, "{}: the power did not go", self.now);
        if self.meta().pool().check_writable().is_err() {
            assert!(self.is_half(), "{}: {:#?}", self.now, self.status());
            self.leave(true);
            self.force = true;
            assert!(self.reopen(BTreeSet::new()));
            self.force = false;
        }
        let paused = Arc::clone(self.meta());
        let paused = paused.pause_healing(&Deadline::never()).unwrap();
        self.rebuild();
        for place in 0..self.setup.drives {
            let name = format!("d{}", place + 1);
            let state = self.status().drives.iter().find(|d| d.name == name).unwrap().state;
            if matches!(state, State::Missing | State::Foreign | State::Failed | State::Stale) {
                let may = self.drives.lost().contains(&place);
                assert!(may, "{}: {name} is {state:?}: {:#?}", self.now, self.status());
                self.replace(place);
            }
        }
        self.rebuild();
        self.sweep();
        drop(paused);
        let status = self.status();
        let when = &self.now;
        assert_eq!(status.redundancy, Redundancy::Full, "{when}: {status:#?}");
        assert_eq!(status.advice, Vec::<String>::new(), "{when}: {status:#?}");
        let meta = Arc::clone(self.meta());
        self.sort_out(&meta);
        for set in [&mut self.drives.sick, &mut self.drives.behind, &mut self.drives.unseen] {
            set.clear();
        }
        self.drives.busy.clear();
        self.book.settle(&meta, &self.now);
    }

    fn rebuild(&self) {
        let meta = self.meta();
        let report = meta.pool().rebuild(&**meta, None, &Control::default());
        let report = report.unwrap_or_else(|error| panic!("{}: {error:?}", self.now));
        assert_eq!(report.lost_stripes, 0, "{}: {report:?}", self.now);
    }

    /// Scrubs until nothing is found.
    fn sweep(&self) {
        let (meta, when) = (self.meta(), &self.now);
        let scrub = || meta.pool().scrub(&**meta, &Control::default()).unwrap();
        let first = scrub();
        assert!(first.is_clean(), "{when}: {first:?}");
        let second = scrub();
        let found = (second.damaged_shards, second.absent_shards, second.journal_repairs);
        assert!(second.is_clean() && found == (0, 0, 0), "{when}: {second:?}");
    }

    fn replace(&mut self, place: usize) {
        let fresh = self.drives.make(place);
        let drive: Arc<dyn Drive> = Arc::new(fresh.drive.clone());
        let (meta, name) = (Arc::clone(self.meta()), format!("d{}", place + 1));
        let done = meta.pool().replace(&*meta, &name, &drive, &holder(), &Control::default());
        done.unwrap_or_else(|error| panic!("{}: {error:?}", self.now));
        self.drives.places[place].insert(0, fresh);
    }

    /// All is deleted: nothing may be left that takes room.
    pub(crate) fn empty(&mut self) {
        let keys: Vec<_> = self.book.known.keys().cloned().collect();
        for key in keys {
            crate::world::delete(self.meta(), key.as_bytes()).unwrap();
            self.book.known.remove(&key);
        }
        for _ in 0..3 {
            let meta = Arc::clone(self.meta());
            meta.checkpoint().unwrap();
            meta.collect().unwrap();
            let scrubbed = meta.pool().scrub(&*meta, &Control::default()).unwrap();
            assert!(scrubbed.is_clean(), "{}: {scrubbed:?}", self.now);
            drop(meta);
            self.leave(true);
            assert!(self.reopen(BTreeSet::new()));
        }
        let meta = Arc::clone(self.meta());
        let (status, now) = (self.status(), meta.status());
        let used: u64 = status.drives.iter().map(|drive| drive.used_bytes).sum();
        assert!(now.stripes <= 2, "{}: {now:?}, {status:#?}", self.now);
        assert!(now.live_bytes < 1000, "{}: {now:?}", self.now);
        let bound = (64 << 10) * self.setup.drives as u64;
        assert!(used <= bound, "{}: {used} bytes are used: {status:#?}", self.now);
        let shards: u64 = status.drives.iter().map(|drive| drive.shards).sum();
        drop(meta);
        self.leave(true);
        let list = |disk: &super::drives::Disk, folder: &str| {
            let listed = disk.drive.list(Some(folder), None, usize::MAX).unwrap().into_iter();
            listed.map(|info| info.name).collect::<Vec<_>>()
        };
        let both = |disk| list(disk, "s").into_iter().chain(list(disk, "q"));
        let files: Vec<_> = self.drives.all().flat_map(both).collect();
        assert_eq!(files.len() as u64, shards, "{}: files among the shards: {files:?}", self.now);
    }
}
