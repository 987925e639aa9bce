//! The world that these tests run in: a small pool on drives whose power can be cut.

#![allow(dead_code, unused_imports, reason = "each test takes what it needs")]

mod counting;
mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Result, Seams};
use dwk_drive::{Drive, Entry, FaultyDrive, Holder, MemoryDrive, Power};
use dwk_meta::{Change, Meta, Options};
use dwk_pool::{NewDrive, OpenOptions, Pool, PoolOptions, SpaceOptions};

pub(crate) use counting::Counting;
pub(crate) use ledger::Ledger;

/// What was acknowledged: key → content.
pub(crate) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) struct World {
    pub(crate) geometry: &'static str,
    pub(crate) memory: Vec<MemoryDrive>,
    /// An empty one that may take another one's place.
    pub(crate) spare: MemoryDrive,
    pub(crate) drives: Vec<FaultyDrive>,
    pub(crate) power: Power,
    pub(crate) seed: u64,
    pub(crate) pool: PoolOptions,
}

pub(crate) fn holder() -> Holder {
    Holder { pid: 1, host: "test".into(), since_unix_ns: 0, program: "test".into() }
}

/// Everything small, so that few steps reach every corner.
pub(crate) fn pool_options() -> PoolOptions {
    let journal = dwk_journal::Options {
        segment_bytes: 64 << 10,
        record_bytes_max: 20 << 10,
        batch_bytes_max: 20 << 10,
        // What is read comes from the drives.
        recent_bytes_max: 0,
        ..dwk_journal::Options::default()
    };
    let space =
        SpaceOptions { shard_bytes_max: 8 << 10, block_bytes: 4 << 10, ..SpaceOptions::default() };
    PoolOptions { space, journal, drive_timeout: Duration::from_secs(5) }
}

pub(crate) fn options() -> Options {
    Options { inline_bytes_max: 2 << 10, journal_bytes_max: 1 << 30, ..Options::default() }
}

impl World {
    pub(crate) fn new(drives: usize, geometry: &'static str, seed: u64) -> Self {
        let memory = (1..=drives).map(|d| MemoryDrive::new(format!("d{d}"))).collect();
        Self::on(memory, geometry, seed)
    }

    /// A world on these drives, whose content counts as durable.
    pub(crate) fn on(memory: Vec<MemoryDrive>, geometry: &'static str, seed: u64) -> Self {
        let power = Power::new();
        let faulty = |(index, drive): (usize, &MemoryDrive)| {
            FaultyDrive::new(Arc::new(drive.clone()), &power, seed ^ (index as u64) << 32)
        };
        let drives = memory.iter().enumerate().map(faulty).collect();
        let spare = MemoryDrive::new("spare");
        Self { geometry, memory, spare, drives, power, seed, pool: pool_options() }
    }

    pub(crate) fn create(&self) -> Result<Arc<Meta>> {
        let new = |(index, drive): (usize, &FaultyDrive)| NewDrive {
            drive: Arc::new(drive.clone()),
            name: format!("d{}", index + 1),
            labels: BTreeMap::new(),
        };
        let drives: Vec<_> = self.drives.iter().enumerate().map(new).collect();
        let seams = Seams::seeded(self.seed);
        let geometry = self.geometry.parse()?;
        let pool = Pool::create(&drives, &geometry, &self.pool, seams, &holder())?;
        Meta::create(pool, options())
    }

    pub(crate) fn open(&self) -> Result<Arc<Meta>> {
        self.open_without(&[])
    }

    /// Opens with some drives gone.
    pub(crate) fn open_without(&self, gone: &[usize]) -> Result<Arc<Meta>> {
        let here = self.drives.iter().enumerate().filter(|(index, _)| !gone.contains(index));
        let drives = here.map(|(_, drive)| Arc::new(drive.clone()) as Arc<dyn Drive>).collect();
        let open = OpenOptions { pool: self.pool.clone(), ..OpenOptions::default() };
        let seams = Seams::seeded(self.seed ^ self.power.steps());
        Meta::open(Pool::open(drives, open, seams, &holder())?, options())
    }

    /// Copies of all drives on which something lies.
    pub(crate) fn copies(&self) -> Vec<MemoryDrive> {
        let spare = Some(&self.spare).filter(|spare| !spare.entries().is_empty());
        self.memory.iter().chain(spare).map(copy_of).collect()
    }

    /// The power comes back after a cut (or is cut now).
    pub(crate) fn restart(&mut self) {
        self.drives = self.power.restore();
    }
}

/// A drive of the same size and content that has nothing else in common with this one.
pub(crate) fn copy_of(drive: &MemoryDrive) -> MemoryDrive {
    let location = drive.describe().location;
    let capacity_bytes = drive.capacity().unwrap().total_bytes;
    let copy = MemoryDrive::with_capacity(location.trim_start_matches("memory://"), capacity_bytes);
    for entry in drive.entries() {
        copy.set_raw(&entry, drive.raw(&entry));
    }
    copy
}

/// A drive that lost all its shards.
pub(crate) fn lose_blobs(drive: &MemoryDrive) {
    for entry in drive.entries().iter().filter(|entry| matches!(entry, Entry::Blob(_))) {
        drive.set_raw(entry, None);
    }
}

/// A new pool on these drives, each as large as it is.
pub(crate) fn create_on(drives: &[MemoryDrive], geometry: &str, options: Options) -> Arc<Meta> {
    let new = |(index, drive): (usize, &MemoryDrive)| NewDrive {
        drive: Arc::new(drive.clone()),
        name: format!("d{}", index + 1),
        labels: BTreeMap::new(),
    };
    let new: Vec<_> = drives.iter().enumerate().map(new).collect();
    let (geometry, seams) = (geometry.parse().unwrap(), Seams::system());
    let pool = Pool::create(&new, &geometry, &pool_options(), seams, &holder()).unwrap();
    Meta::create(pool, options).unwrap()
}

/// Opens what [`create_on`] made.
pub(crate) fn open_on(drives: &[MemoryDrive], options: Options) -> Result<Arc<Meta>> {
    let drives = drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>).collect();
    let open = OpenOptions { pool: pool_options(), ..OpenOptions::default() };
    Meta::open(Pool::open(drives, open, Seams::system(), &holder())?, options)
}

/// Looks at what [`create_on`] made.
pub(crate) fn look_on(drives: &[MemoryDrive], options: Options) -> Result<Arc<Meta>> {
    let drives = drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>).collect();
    let open = OpenOptions { pool: pool_options(), read_only: true, ..OpenOptions::default() };
    Meta::open(Pool::open(drives, open, Seams::system(), &holder())?, options)
}

/// Drives of `capacity_bytes` each.
pub(crate) fn drives_of(count: usize, name: &str, capacity_bytes: u64) -> Vec<MemoryDrive> {
    let drive = |n| MemoryDrive::with_capacity(format!("{name}{n}"), capacity_bytes);
    (1..=count).map(drive).collect()
}

/// `length` bytes that differ from key to key.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

pub(crate) fn put(meta: &Arc<Meta>, key: &[u8], content: &[u8]) -> Result<u64> {
    let mut upload = meta.upload();
    upload.append(content)?;
    let staged = upload.finish()?;
    meta.commit(Change::new().put(key.to_vec(), b"body".to_vec(), Some(staged)))
}

/// Waits until the drives have done what they were asked to do without anybody waiting.
pub(crate) fn settle(meta: &Meta) {
    let roster = meta.pool().roster();
    let drives = roster.seats.iter().filter_map(|seat| seat.drive.clone());
    let tickets: Vec<_> = drives.map(|drive| drive.submit(Drive::capacity)).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
}

pub(crate) fn delete(meta: &Arc<Meta>, key: &[u8]) -> Result<u64> {
    meta.commit(Change::new().delete(key.to_vec()))
}

pub(crate) fn get(meta: &Arc<Meta>, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some((row, mut reader)) = meta.read(key)? else { return Ok(None) };
    assert_eq!(row.body, b"body".as_slice());
    let mut content = vec![0; reader.bytes() as usize];
    let got = reader.read_at(0, &mut content)?;
    assert_eq!(got, content.len());
    Ok(Some(content))
}

/// Every key has exactly the content of the model, and there is no other key.
pub(crate) fn check(meta: &Arc<Meta>, model: &Model, when: &str) {
    use std::ops::Bound::Unbounded;
    let rows = meta.range(Unbounded, Unbounded, usize::MAX).unwrap();
    let keys: Vec<_> = rows.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, model.keys().cloned().collect::<Vec<_>>(), "{when}");
    for (key, content) in model {
        let got = get(meta, key).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert!(got.as_ref() == Some(content), "{when}: other bytes for {key:?}");
    }
}
