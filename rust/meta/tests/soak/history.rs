//! A history: a store, its drives, the model, and what is under way.

use std::collections::BTreeSet;
use std::sync::Arc;

use dwk_base::{Error, Random, SeededRandom, codes};
use dwk_meta::{ContentReader, Meta, Options, Staged};
use dwk_pool::{PoolOptions, PoolStatus, Redundancy};

use super::book::{Book, Content};
use super::drives::Drives;
use super::plan::{Setup, Step};
use crate::world::{options, pool_options};

pub(crate) struct History {
    pub(crate) setup: Setup,
    pub(crate) tolerance: usize,
    pub(crate) random: SeededRandom,
    pub(crate) drives: Drives,
    pub(crate) meta: Option<Arc<Meta>>,
    /// Places that the store was opened without.
    pub(crate) gone: BTreeSet<usize>,
    pub(crate) book: Book,
    pub(crate) held: Vec<(ContentReader, Content)>,
    pub(crate) staged: Vec<(String, Content, Staged)>,
    pub(crate) written: u64,
    pub(crate) full: bool,
    /// Opens what is only one half of a mirror as if the other were lost for good.
    pub(crate) force: bool,
    pub(crate) pool: PoolOptions,
    pub(crate) options: Options,
    pub(crate) now: String,
    pub(crate) aloud: bool,
}

impl History {
    pub(crate) fn new(setup: Setup, seed: u64, aloud: bool) -> Self {
        let random = SeededRandom::new(seed);
        let mut pool = pool_options();
        pool.space.late_read = std::time::Duration::from_secs(1);
        pool.journal.late_read = std::time::Duration::from_secs(1);
        pool.drive_timeout = std::time::Duration::from_secs(30);
        let mut limits = options();
        // The keeper works by itself in some histories.
        if random.below(2) == 0 {
            limits.journal_bytes_max = 100 << 10;
            limits.garbage_bytes_max = 40 << 10;
        }
        let geometry: dwk_erasure::Geometry = setup.geometry.parse().unwrap();
        let mut history = Self {
            setup,
            tolerance: geometry.tolerance(),
            drives: Drives::new(setup.drives, seed),
            random,
            meta: None,
            gone: BTreeSet::new(),
            book: Book::default(),
            held: Vec::new(),
            staged: Vec::new(),
            written: 0,
            full: false,
            force: false,
            pool,
            options: limits,
            now: String::new(),
            aloud,
        };
        history.meta = Some(history.create());
        history
    }

    pub(crate) fn meta(&self) -> &Arc<Meta> {
        self.meta.as_ref().unwrap()
    }

    pub(crate) fn play(mut self, steps: &[Step]) {
        for (number, step) in steps.iter().enumerate() {
            self.now = format!("step {number}, {step:?}");
            self.tell();
            self.take(*step);
            if self.drives.power.is_cut() {
                self.now += ", cut";
                self.restart();
            } else if self.book.is_in_doubt() && self.meta().pool().check_writable().is_ok() {
                self.now += ", stopped";
                assert!(self.is_half(), "{}: the journal stopped", self.now);
                self.leave(false);
                self.drives.ease_all();
                if !self.reopen(BTreeSet::new()) {
                    self.restart();
                }
            }
            self.look();
        }
        "in the end".clone_into(&mut self.now);
        self.tell();
        self.drives.power.cut_at(u64::MAX);
        // What a failed sync left half done on a drive goes with the power.
        self.drives.ease_all();
        self.drives.power.cut_now();
        self.restart();
        self.drives.power.cut_at(u64::MAX);
        self.recover();
        self.empty();
    }

    fn tell(&self) {
        if self.aloud {
            let (drives, gone) = (&self.drives, &self.gone);
            eprintln!(
                "{}: sick {:?} behind {:?} unseen {:?} busy {:?} gone {gone:?} full {}",
                self.now, drives.sick, drives.behind, drives.unseen, drives.busy, self.full
            );
        }
    }

    /// What the store says of itself must be so.
    fn look(&mut self) {
        let Some(meta) = self.meta.clone() else { return };
        if self.random.below(3) == 0 {
            self.read_held();
        }
        for _ in 0..2 {
            let key = Self::key(self.random.next_u64());
            if !self.drives.power.is_cut() {
                self.check_key(&key);
            }
        }
        let status = match meta.pool().status(&*meta) {
            Ok(status) => status,
            Err(error) => return assert!(self.drives.power.is_cut(), "{}: {error:?}", self.now),
        };
        if self.drives.power.is_cut() {
            return;
        }
        self.believe(&status);
    }

    /// A key is right, unless the power goes meanwhile.
    pub(crate) fn check_key(&self, key: &str) {
        let when = &self.now;
        if !self.book.is_sure(key) {
            return;
        }
        match crate::world::get(self.meta(), key.as_bytes()) {
            Ok(got) => {
                let known = self.book.known.get(key).map(|content| &**content);
                assert!(got.as_ref() == known, "{when}: {key} is another");
            }
            Err(error) => assert!(self.drives.power.is_cut(), "{when}, {key}: {error:?}"),
        }
    }

    /// Where the store says that all is well, as many drives may be lost again.
    pub(crate) fn believe(&mut self, status: &PoolStatus) {
        let when = &self.now;
        assert_ne!(status.redundancy, Redundancy::Lost, "{when}: {status:#?}");
        if status.redundancy == Redundancy::Full {
            assert!(
                self.gone.is_empty(),
                "{when}: without {:?} it is full: {status:#?}",
                self.gone
            );
            self.drives.behind.clear();
            self.drives.busy.clear();
        }
    }

    /// True if something may fail like this now.
    pub(crate) fn excuses(&self, error: &Error) -> bool {
        if self.drives.power.is_cut() {
            return true;
        }
        let is_full = error.is(&codes::POOL_FULL) || error.is(&codes::DRIVE_FULL);
        let read_only = || self.is_half() && self.meta().pool().check_writable().is_err();
        // In a mirror a drive whose superblock cannot be written holds up every change of membership.
        let change = error.is(&codes::DRIVES_TOO_MANY_LOST) || error.is(&codes::JOURNAL_MEMBERS);
        let half = || self.is_half() && format!("{error:?}").contains("a change of membership");
        is_full && self.may_be_full()
            || error.is(&codes::POOL_READ_ONLY) && read_only()
            || change && half()
    }

    pub(crate) fn may_be_full(&self) -> bool {
        self.full || !self.drives.sick.is_empty()
    }

    #[track_caller]
    pub(crate) fn expect<T>(&self, done: dwk_base::Result<T>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            Err(error) => {
                assert!(self.excuses(&error), "{}: {error:?}", self.now);
                None
            }
        }
    }

    pub(crate) fn key(number: u64) -> String {
        format!("key{:02}", number % 12)
    }

    pub(crate) fn content(&mut self, size: u64) -> Content {
        self.written += 1;
        let length = self.size(size);
        Arc::new(crate::world::bytes(self.written ^ (size << 8), length))
    }

    /// A length at or near a border, or any.
    fn size(&self, number: u64) -> usize {
        let data = 8 << 10;
        let k = self.setup.geometry.split('+').next().and_then(|k| k.chars().last());
        let k = k.and_then(|k| k.to_digit(10)).unwrap_or(1) as usize;
        let near = |border: usize| (border + (number >> 16) as usize % 3).saturating_sub(1);
        match number % 12 {
            0 => 0,
            1 => 1,
            2..5 => 2 + (number >> 8) as usize % 2000,
            5 => near(2 << 10),
            6 => near(4 << 10),
            7 => near(data),
            8 => near(data * k),
            9 => near(2 * data * k),
            _ => (number >> 8) as usize % (5 * data * k),
        }
    }
}
