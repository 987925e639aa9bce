//! The map, open: reads from memory, commits through the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use bytes::Bytes;
use dwk_base::{Deadline, Error, Result, StripeId, codes};
use dwk_journal::{Apply, Journal, Position};
use dwk_pool::{Ledger, Pool, Stripe, StripeCode, Usage};

use crate::commit::Staging;
use crate::damage::Keeping;
use crate::healer::Healer;
use crate::keeper::Keeper;
use crate::pins::{Pin, Pins};
use crate::reader::ContentReader;
use crate::record::{Operation, RecordWriter};
use crate::row::{Content, Row};
use crate::state::State;
use crate::upload::Upload;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 8 << 10;
/// The longest body of a row, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Sizes and thresholds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Content up to this many bytes rides in the journal.
    pub inline_bytes_max: usize,
    /// The journal is folded when it holds more than this.
    pub journal_bytes_max: u64,
    /// Stripes with less live content than this share of theirs are packed.
    pub live_fraction_min: f64,
    /// The keeper collects when so many bytes more than it left behind are dead.
    pub garbage_bytes_max: u64,
    /// How long an opening heals before the rest goes on while others work.
    pub heal_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inline_bytes_max: 64 << 10,
            journal_bytes_max: 64 << 20,
            live_fraction_min: 0.5,
            garbage_bytes_max: 64 << 20,
            heal_time: Duration::from_secs(2),
        }
    }
}

/// What the map holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaStatus {
    /// Rows.
    pub rows: u64,
    /// Stripes in the table.
    pub stripes: u64,
    /// Bytes of content that rows refer to, checkpoints included.
    pub live_bytes: u64,
    /// The last commit that is applied.
    pub applied: u64,
    /// The last commit that the checkpoint holds.
    pub folded: u64,
    /// Runs of the checkpoint.
    pub runs: u64,
}

/// The map.
pub struct Meta {
    pool: Arc<Pool>,
    options: Options,
    state: Arc<RwLock<State>>,
    /// Why the map is not to be trusted any more.
    broken: Arc<OnceLock<Error>>,
    pub(crate) staging: Arc<Mutex<Staging>>,
    pins: Arc<Pins>,
    me: Weak<Self>,
    pub(crate) keeper: Keeper,
    pub(crate) healer: Healer,
    pub(crate) keeping: Keeping,
}

impl Meta {
    /// The map of a new pool.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn create(pool: Arc<Pool>, options: Options) -> Result<Arc<Self>> {
        Self::open(pool, options)
    }

    /// [`open_until`](Self::open_until), however long it takes.
    ///
    /// # Errors
    /// As `open_until`.
    pub fn open(pool: Arc<Pool>, options: Options) -> Result<Arc<Self>> {
        Self::open_until(pool, options, &Deadline::never())
    }

    /// Loads the last checkpoint and replays the journal from there, then brings drives that were away up
    /// to date: for a moment ([`Options::heal_time`]), and what takes longer while others work.
    ///
    /// # Errors
    /// `journal.damaged`, `data.corrupt`, `format.damaged`, `context.deadline`, `context.cancelled`
    pub fn open_until(pool: Arc<Pool>, options: Options, deadline: &Deadline) -> Result<Arc<Self>> {
        let state = Arc::new(RwLock::new(crate::checkpoint::load(&pool, deadline)?));
        let broken = Arc::new(OnceLock::new());
        let applier = Applier { state: Arc::clone(&state), broken: Arc::clone(&broken) };
        pool.journal().set_apply(Arc::new(applier));
        let meta = Arc::new_cyclic(|me| Self {
            pool,
            options,
            state,
            broken,
            staging: Arc::default(),
            pins: Arc::default(),
            me: Weak::clone(me),
            keeper: Keeper::default(),
            healer: Healer::default(),
            keeping: Keeping::default(),
        });
        deadline.check()?;
        meta.recall_damage()?;
        if meta.pool.check_writable().is_ok() {
            let clock = Arc::clone(&meta.pool.seams().clock);
            meta.heal_until(&deadline.at_most(clock, meta.options.heal_time));
        }
        if meta.pool.check_writable().is_ok() && !deadline.is_unwanted() {
            // What the last opening left to do: who never closes would never get it done.
            meta.keeper.look(&meta)?;
        }
        Ok(meta)
    }

    /// The pool under it.
    pub const fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn downgrade(&self) -> Weak<Self> {
        Weak::clone(&self.me)
    }

    pub(crate) fn journal(&self) -> &Journal {
        self.pool.journal()
    }

    pub(crate) const fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// Holds what a reader of `content` needs, as long as the state is locked at the latest.
    fn pin(&self, state: &State, content: &Content) -> Pin {
        self.pins.pin(state.applied(), content.oldest_record())
    }

    /// A row.
    ///
    /// # Errors
    /// None in this version: the map is in memory.
    pub fn get(&self, key: &[u8]) -> Result<Option<Row>> {
        Ok(self.state().row(key).cloned())
    }

    /// A row and a reader of its content, seen at one moment.
    ///
    /// # Errors
    /// `journal.damaged`
    pub fn read(self: &Arc<Self>, key: &[u8]) -> Result<Option<(Row, ContentReader)>> {
        self.read_until(key, &Deadline::never())
    }

    /// [`read`](Self::read), waiting for drives no longer than to the deadline. Each read of the content may
    /// have [one of its own](ContentReader::set_deadline).
    ///
    /// # Errors
    /// As `read`, and `context.deadline`.
    pub fn read_until(
        self: &Arc<Self>,
        key: &[u8],
        deadline: &Deadline,
    ) -> Result<Option<(Row, ContentReader)>> {
        let state = self.state();
        let Some(row) = state.row(key).cloned() else { return Ok(None) };
        let content = row.content.clone().unwrap_or_default();
        let pin = self.pin(&state, &content);
        drop(state);
        Ok(Some((row, ContentReader::new(Arc::clone(self), content, pin, deadline)?)))
    }

    /// Up to `limit` rows in the order of keys.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Row)>> {
        let state = self.state();
        let rows = state.range(from, to).take(limit);
        Ok(rows.map(|(key, row)| (key.to_vec(), row.clone())).collect())
    }

    /// The row of the greatest key of `low..=key`; if there is none, that of the least key of `key..high`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn seek(&self, low: &[u8], key: &[u8], high: &[u8]) -> Result<Option<(Vec<u8>, Row)>> {
        let state = self.state();
        let before = state.range(Bound::Included(low), Bound::Included(key)).next_back();
        let found =
            before.or_else(|| state.range(Bound::Excluded(key), Bound::Excluded(high)).next());
        Ok(found.map(|(key, row)| (key.to_vec(), row.clone())))
    }

    /// Begins to take content.
    pub fn upload(&self) -> Upload {
        self.upload_until(&Deadline::never())
    }

    /// Begins to take content, which waits for drives and memory no longer than to the deadline.
    pub fn upload_until(&self, deadline: &Deadline) -> Upload {
        let (pool, inline_bytes_max) = (Arc::clone(&self.pool), self.options.inline_bytes_max);
        Upload::new(pool, self.downgrade(), inline_bytes_max, deadline.clone())
    }

    /// Commits the kernel's own bookkeeping, which requires nothing: it gives room back, or makes safer.
    pub(crate) fn commit_record(&self, record: RecordWriter) -> Result<Position> {
        self.check_writable()?;
        let record = record.finish();
        match self.journal().commit_reserved(record.clone()) {
            // It may not have been judged: an ordinary record before it found no room.
            Err(error) if error.is(&codes::DRIVE_FULL) => self.journal().commit_reserved(record),
            done => done,
        }
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.broken.get() {
            Some(error) => Err(error.clone()),
            None => self.pool.check_writable(),
        }
    }

    /// What the map holds.
    pub fn status(&self) -> MetaStatus {
        let state = self.state();
        MetaStatus {
            rows: state.row_count() as u64,
            stripes: state.stripe_count() as u64,
            live_bytes: state.live_bytes(),
            applied: state.applied(),
            folded: state.root().folded,
            runs: state.root().runs.len() as u64,
        }
    }

    /// Stops the healer and the keeper and closes the pool, with what there is to fold left to the next opening:
    /// for who has no time.
    ///
    /// # Errors
    /// Those of closing the pool; everything acknowledged is durable all the same.
    pub fn close_now(&self) -> Result<()> {
        self.healer.halt();
        self.keeper.halt();
        self.pool.close()
    }

    /// Checkpoints what is worth it, stops the keeper and closes the pool. Whoever still reads may go on
    /// until the drives are gone.
    ///
    /// # Errors
    /// Those of a checkpoint and of closing the pool; everything acknowledged is durable all the same.
    pub fn close(&self) -> Result<()> {
        self.healer.halt();
        let folded = self.keeper.stop(self);
        self.pool.close()?;
        folded
    }
}

/// Called by the journal's leader, in the order of the log.
struct Applier {
    state: Arc<RwLock<State>>,
    broken: Arc<OnceLock<Error>>,
}

impl Apply for Applier {
    fn apply(&self, position: Position, record: &Bytes) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Every record that reaches the journal was built by this version's encoder: this is a bug, and
        // the map is not what the journal says any more.
        if let Err(error) = state.apply(position, record) {
            let text = format!("record {} does not apply", position.sequence);
            let _ = self.broken.set(Error::new(&codes::INTERNAL_BUG, text).caused_by(error));
        }
    }
}

impl Ledger for Meta {
    fn stripe(&self, id: StripeId) -> Result<Option<Stripe>> {
        Ok(self.state().stripe(id).map(|kept| kept.stripe.clone()))
    }

    fn stripes(&self, after: Option<StripeId>, limit: usize) -> Result<Vec<Stripe>> {
        let state = self.state();
        Ok(state.stripes_after(after).take(limit).map(|kept| kept.stripe.clone()).collect())
    }

    fn usage(&self, seat: u16) -> Result<Usage> {
        Ok(self.state().usage(seat))
    }

    fn codes(&self) -> Result<BTreeMap<StripeCode, u64>> {
        Ok(self.state().codes())
    }

    fn rewrite(&self, stripes: &BTreeSet<StripeId>) -> Result<u64> {
        crate::rewrite::rewrite(self, stripes)
    }

    fn keep_damage(&self) -> Result<()> {
        self.note_damage()
    }

    fn moved(&self, old: &Stripe, new: &Stripe) -> Result<bool> {
        // One mover at a time: nobody else changes a placement between the look and the record.
        let _alone = self.keeper.alone();
        if self.state().stripe(old.id).is_none_or(|kept| kept.stripe != *old) {
            return Ok(false);
        }
        let mut record = RecordWriter::new();
        record.push(&Operation::MoveStripe(new.clone()));
        self.commit_record(record)?;
        Ok(true)
    }
}

impl Drop for Meta {
    fn drop(&mut self) {
        self.healer.halt();
        self.keeper.halt();
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meta").field("status", &self.status()).finish_non_exhaustive()
    }
}
