//! A drive on which things go wrong, by a seed: for tests of whatever stands on drives.
//!
//! [`FaultyDrive`] decorates any drive. It has a volatile cache: what was not synced lies in it, is
//! seen by reads, and is kept, lost or torn when [`Power`] is cut. [`Fault`]s strike calls. The same
//! seed and the same order of calls give the same history; who calls from several threads orders them.

mod cache;
mod faults;
mod power;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dwk_base::{Clock, Error, Random, Result, SeededRandom, SystemClock, codes};

use self::cache::{Cache, HalfDone, Seen};
use self::faults::Faults;
pub use self::faults::{Effect, Fault, Operation};
pub use self::power::Power;
use self::power::{Supply, cut};
use crate::checks::{self, guard};
use crate::{BlobInfo, BlobName, Capacity, Description, Drive, Holder, Lock, LockMode, Log, Slot};

/// A seeded decorator over any drive. Clones are the same drive.
#[derive(Clone)]
pub struct FaultyDrive {
    shared: Arc<Shared>,
    life: u64,
}

struct Shared {
    inner: Arc<dyn Drive>,
    supply: Arc<Supply>,
    random: SeededRandom,
    clock: Arc<dyn Clock>,
    faults: Mutex<Faults>,
    cache: Mutex<Cache>,
    hanging: Mutex<Hanging>,
    released: Condvar,
    locks: Mutex<Vec<HeldLock>>,
}

/// Whether calls that meet [`Effect::Hang`] or [`Effect::Withhold`] wait, and how many do.
#[derive(Default)]
struct Hanging {
    on: bool,
    calls: usize,
}

type HeldLock = Arc<Mutex<Option<Box<dyn Lock>>>>;

/// A call that may go on.
struct Call {
    /// It is the one at which the power goes: it may be half done, and fails.
    cutting: bool,
    /// What it reads is wrong.
    flip: bool,
    /// Its answer waits.
    withhold: bool,
}

impl FaultyDrive {
    /// Wraps `inner`, whose content counts as durable.
    pub fn new(inner: Arc<dyn Drive>, power: &Power, seed: u64) -> Self {
        Self::with_clock(inner, power, seed, Arc::new(SystemClock::default()))
    }

    /// As [`new`](Self::new), with the clock on which delays are slept.
    pub fn with_clock(
        inner: Arc<dyn Drive>,
        power: &Power,
        seed: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        power.plug_in(Arc::new(Shared {
            inner,
            supply: power.supply(),
            random: SeededRandom::new(seed),
            clock,
            faults: Mutex::default(),
            cache: Mutex::default(),
            hanging: Mutex::default(),
            released: Condvar::new(),
            locks: Mutex::default(),
        }))
    }

    /// Adds a rule.
    pub fn inject(&self, fault: Fault) {
        if fault.hangs() {
            guard(&self.shared.hanging).on = true;
        }
        guard(&self.shared.faults).rules.push(fault);
    }

    /// Makes the drive well again: no rules, nothing omitted, not full, writable, there.
    pub fn heal(&self) {
        *guard(&self.shared.faults) = Faults::default();
        self.release();
    }

    /// Every sync with this tag returns `Ok` and does nothing.
    pub fn omit(&self, tag: &'static str) {
        guard(&self.shared.faults).omitted.push(tag);
    }

    /// Puts and new logs fail with `drive.full`.
    pub fn set_full(&self, full: bool) {
        guard(&self.shared.faults).full = full;
    }

    /// Every change fails with `drive.read_only`.
    pub fn set_read_only(&self, read_only: bool) {
        guard(&self.shared.faults).read_only = read_only;
    }

    /// Every call fails with `drive.missing`, until it is back.
    pub fn set_vanished(&self, vanished: bool) {
        guard(&self.shared.faults).vanished = vanished;
    }

    /// How many calls [`Effect::Hang`] and [`Effect::Withhold`] hold up now.
    pub fn held_calls(&self) -> usize {
        guard(&self.shared.hanging).calls
    }

    /// Lets go on what [`Effect::Hang`] and [`Effect::Withhold`] hold up, now and until the next such rule is
    /// added.
    pub fn release(&self) {
        guard(&self.shared.hanging).on = false;
        self.shared.released.notify_all();
    }

    /// What lies below the cache.
    pub fn inner(&self) -> &Arc<dyn Drive> {
        &self.shared.inner
    }

    fn below(&self) -> &dyn Drive {
        &*self.shared.inner
    }

    /// The log below. [`Drive::log`] gives ours only where there is one.
    fn log_below(&self) -> Result<&dyn Log> {
        self.below().log().ok_or_else(|| Error::new(&codes::INTERNAL_BUG, "the drive has no logs"))
    }

    /// Stands before every call: power, then faults.
    fn enter(&self, operation: Operation, name: &str) -> Result<Call> {
        let shared = &*self.shared;
        let cutting = shared.supply.step(self.life, !operation.mutates())?;
        let effects = {
            let mut faults = guard(&shared.faults);
            if let Some(error) = standing_fault(&faults, operation) {
                return Err(error);
            }
            faults.strike(operation, name, &shared.random)
        };
        let mut call = Call { cutting, flip: false, withhold: false };
        for effect in effects {
            match effect {
                Effect::Error(code) => return Err(Error::new(code, "an injected error")),
                Effect::Delay(duration) => shared.clock.sleep(duration),
                Effect::Hang => self.hang(),
                Effect::Withhold => call.withhold = true,
                Effect::Flip => call.flip = true,
            }
        }
        // The power may have gone while the call waited.
        if !cutting {
            shared.supply.alive(self.life)?;
        }
        Ok(call)
    }

    /// The cache, unless the power came back since the call began: then the caller is a ghost.
    fn cache(&self) -> Result<MutexGuard<'_, Cache>> {
        let cache = guard(&self.shared.cache);
        self.shared.supply.same_life(self.life)?;
        Ok(cache)
    }

    fn hang(&self) {
        let mut hanging = guard(&self.shared.hanging);
        hanging.calls += 1;
        while hanging.on {
            hanging = self.shared.released.wait(hanging).unwrap_or_else(PoisonError::into_inner);
        }
        hanging.calls -= 1;
    }

    /// A sync failed, of one log or of names: some of what it should have made durable never will be. Unless it was
    /// the process that could not even try.
    fn forsake(&self, log: Option<&BlobName>, why: &Error) {
        if why.is_of_process() {
            return;
        }
        // What fails for want of power is the cut's business.
        let (Ok(mut cache), Ok(())) = (self.cache(), self.shared.supply.alive(self.life)) else {
            return;
        };
        match log {
            None => cache.forsake_blobs(&self.shared.random),
            Some(name) => cache.forsake_log(name, &self.shared.random),
        }
    }

    fn omits(&self, tag: &str) -> bool {
        guard(&self.shared.faults).omitted.contains(&tag)
    }

    fn flip_bit(&self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let bit = self.shared.random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    fn read_whole(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize> {
        let cache = self.cache()?;
        match cache.blob(name) {
            Seen::Below => self.below().read(name, offset, into),
            Seen::Deleted => Err(checks::not_found(name)),
            Seen::Here(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let length = into.len().min(bytes.len() - start);
                into[..length].copy_from_slice(&bytes[start..start + length]);
                Ok(length)
            }
        }
    }

    fn stat_in(&self, cache: &Cache, name: &BlobName) -> Result<BlobInfo> {
        match cache.blob(name) {
            Seen::Below => self.below().stat(name),
            Seen::Deleted => Err(checks::not_found(name)),
            Seen::Here(bytes) => Ok(BlobInfo { name: name.clone(), bytes: bytes.len() as u64 }),
        }
    }
}

/// Full, read-only and vanished are states, not events.
fn standing_fault(faults: &Faults, operation: Operation) -> Option<Error> {
    let needs_room = matches!(operation, Operation::Put | Operation::CreateLog);
    if faults.vanished {
        Some(Error::new(&codes::DRIVE_MISSING, "the drive has vanished"))
    } else if faults.read_only && operation.mutates() {
        Some(Error::new(&codes::DRIVE_READ_ONLY, "the drive is read-only"))
    } else if faults.full && needs_room {
        Some(Error::new(&codes::DRIVE_FULL, "the drive is full"))
    } else {
        None
    }
}

impl Shared {
    /// The power went and came back.
    fn survive(&self) {
        guard(&self.cache).survive(&*self.inner, &self.random);
        for lock in guard(&self.locks).drain(..) {
            drop(guard(&lock).take());
        }
    }
}

impl fmt::Debug for FaultyDrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultyDrive").field(&self.below().describe().location).finish()
    }
}

impl Drive for FaultyDrive {
    fn describe(&self) -> Description {
        self.below().describe()
    }

    fn put(&self, name: &BlobName, parts: &[Bytes]) -> Result<()> {
        let call = self.enter(Operation::Put, name.as_str())?;
        let mut cache = self.cache()?;
        match self.stat_in(&cache, name) {
            Ok(_) => return Err(checks::exists(name)),
            Err(error) if error.is(&codes::BLOB_NOT_FOUND) => {}
            Err(error) => return Err(error),
        }
        let needed = checks::total_bytes(parts) + cache.put_bytes();
        if needed > self.below().capacity()?.free_bytes {
            let message = format!("{needed} unsynced bytes do not fit the drive");
            return Err(Error::new(&codes::DRIVE_FULL, message));
        }
        cache.change(name, Some(parts.concat().into()));
        if call.cutting { Err(cut()) } else { Ok(()) }
    }

    fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize> {
        let call = self.enter(Operation::Read, name.as_str())?;
        let length = self.read_whole(name, offset, into)?;
        if call.flip {
            self.flip_bit(&mut into[..length]);
        }
        if call.cutting { Err(cut()) } else { Ok(length) }
    }

    fn read_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<Option<usize>> {
        if guard(&self.shared.faults).may_wait(Operation::Read, name.as_str()) {
            return Ok(None);
        }
        self.read(name, offset, into).map(Some)
    }

    fn list(
        &self,
        folder: Option<&str>,
        after: Option<&BlobName>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        let call = self.enter(Operation::List, folder.unwrap_or(""))?;
        let cache = self.cache()?;
        let below = self.below().list(folder, after, limit.saturating_add(cache.deleted()))?;
        if call.cutting { Err(cut()) } else { Ok(cache.overlay(below, folder, after, limit)) }
    }

    fn delete(&self, name: &BlobName) -> Result<()> {
        let call = self.enter(Operation::Delete, name.as_str())?;
        let mut cache = self.cache()?;
        self.stat_in(&cache, name)?;
        cache.change(name, None);
        if call.cutting { Err(cut()) } else { Ok(()) }
    }

    fn stat(&self, name: &BlobName) -> Result<BlobInfo> {
        let call = self.enter(Operation::Stat, name.as_str())?;
        let info = self.stat_in(&*self.cache()?, name)?;
        if call.cutting { Err(cut()) } else { Ok(info) }
    }

    fn capacity(&self) -> Result<Capacity> {
        let call = self.enter(Operation::Capacity, "")?;
        let unsynced = self.cache()?.put_bytes();
        let mut capacity = self.below().capacity()?;
        capacity.free_bytes = capacity.free_bytes.saturating_sub(unsynced);
        if call.withhold {
            self.hang();
        }
        if call.cutting { Err(cut()) } else { Ok(capacity) }
    }

    fn sync(&self, tag: &'static str) -> Result<()> {
        let call = self.enter(Operation::Sync, tag);
        let call = call.inspect_err(|error| self.forsake(None, error))?;
        if call.cutting {
            return Err(cut());
        }
        if self.omits(tag) {
            return Ok(());
        }
        let mut cache = self.cache()?;
        cache.flush_blobs(self.below())?;
        self.below().sync(tag)
    }

    fn read_superblock(&self, slot: Slot) -> Result<Option<Vec<u8>>> {
        let call = self.enter(Operation::ReadSuperblock, "")?;
        let mut bytes = self.below().read_superblock(slot)?;
        if let (true, Some(bytes)) = (call.flip, &mut bytes) {
            self.flip_bit(bytes);
        }
        if call.cutting { Err(cut()) } else { Ok(bytes) }
    }

    fn write_superblock(&self, slot: Slot, bytes: &[u8]) -> Result<()> {
        let call = self.enter(Operation::WriteSuperblock, "")?;
        checks::superblock_size(bytes)?;
        if call.cutting {
            self.cache()?.half_done(HalfDone::Superblock(slot, bytes.to_vec()));
            return Err(cut());
        }
        let _cache = self.cache()?;
        self.below().write_superblock(slot, bytes)
    }

    fn lock(&self, holder: &Holder, mode: LockMode) -> Result<Box<dyn Lock>> {
        let call = self.enter(Operation::Lock, "")?;
        if call.cutting {
            return Err(cut());
        }
        let held: HeldLock = Arc::new(Mutex::new(Some(self.below().lock(holder, mode)?)));
        let mut locks = guard(&self.shared.locks);
        locks.retain(|held| guard(held).is_some());
        locks.push(Arc::clone(&held));
        Ok(Box::new(FaultyLock(held)))
    }

    fn holder(&self) -> Result<Option<Holder>> {
        self.shared.supply.alive(self.life)?;
        self.below().holder()
    }

    fn unknown(&self, limit: usize) -> Result<Vec<String>> {
        self.shared.supply.alive(self.life)?;
        self.below().unknown(limit)
    }

    fn close(&self) {
        self.below().close();
    }

    fn log(&self) -> Option<&dyn Log> {
        self.below().log().map(|_| self as &dyn Log)
    }
}

/// Ends with the power as well as with its owner.
struct FaultyLock(HeldLock);

impl Lock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        drop(guard(&self.0).take());
    }
}

impl Log for FaultyDrive {
    fn create_log(&self, name: &BlobName, bytes: u64) -> Result<()> {
        let call = self.enter(Operation::CreateLog, name.as_str())?;
        if call.cutting {
            self.cache()?.half_done(HalfDone::CreateLog(name.clone(), bytes));
            return Err(cut());
        }
        let _cache = self.cache()?;
        self.log_below()?.create_log(name, bytes)
    }

    fn hold_log(&self, name: &BlobName) -> Result<()> {
        let call = self.enter(Operation::HoldLog, name.as_str())?;
        self.log_below()?.hold_log(name)?;
        if call.cutting { Err(cut()) } else { Ok(()) }
    }

    fn write_log(&self, name: &BlobName, offset: u64, parts: &[Bytes]) -> Result<()> {
        let call = self.enter(Operation::WriteLog, name.as_str())?;
        let logs = self.log_below()?.list_logs()?;
        let log = logs.iter().find(|log| log.name == *name);
        let size = log.ok_or_else(|| checks::not_found(name))?.bytes;
        checks::log_write(name, size, offset, checks::total_bytes(parts))?;
        self.cache()?.write_log(name, offset, parts);
        if call.cutting { Err(cut()) } else { Ok(()) }
    }

    fn sync_log(&self, name: &BlobName, tag: &'static str) -> Result<()> {
        let call = self.enter(Operation::SyncLog, name.as_str());
        let call = call.inspect_err(|error| self.forsake(Some(name), error))?;
        if call.cutting {
            return Err(cut());
        }
        if self.omits(tag) {
            return Ok(());
        }
        let mut cache = self.cache()?;
        cache.flush_log(self.below(), name)?;
        self.log_below()?.sync_log(name, tag)
    }

    fn read_log(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<()> {
        let call = self.enter(Operation::ReadLog, name.as_str())?;
        let cache = self.cache()?;
        self.log_below()?.read_log(name, offset, into)?;
        cache.overlay_log(name, offset, into);
        if call.flip {
            self.flip_bit(into);
        }
        if call.cutting { Err(cut()) } else { Ok(()) }
    }

    fn read_log_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<bool> {
        if guard(&self.shared.faults).may_wait(Operation::ReadLog, name.as_str()) {
            return Ok(false);
        }
        self.read_log(name, offset, into).map(|()| true)
    }

    fn list_logs(&self) -> Result<Vec<BlobInfo>> {
        let call = self.enter(Operation::ListLogs, "")?;
        let logs = self.log_below()?.list_logs()?;
        if call.cutting { Err(cut()) } else { Ok(logs) }
    }

    fn delete_log(&self, name: &BlobName) -> Result<()> {
        let call = self.enter(Operation::DeleteLog, name.as_str())?;
        if call.cutting {
            self.cache()?.half_done(HalfDone::DeleteLog(name.clone()));
            return Err(cut());
        }
        let mut cache = self.cache()?;
        self.log_below()?.delete_log(name)?;
        cache.drop_log(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
