//! The world that these tests run in: streams on a small pool whose drives' power can be cut.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Clock, Deadline, ManualClock, Result, Seams, SeededRandom};
use dwk_bus::{Bus, Envelope, Limits, Message, Pattern, Space, Subject};
use dwk_drive::{Drive, FaultyDrive, Holder, MemoryDrive, Power};
use dwk_meta::Meta;
use dwk_pool::{NewDrive, OpenOptions, Pool, PoolOptions, SpaceOptions};
use dwk_stream::{Cursor, From, Options, Stored, Stream, StreamConfig, Streams};

pub(crate) const TENANT: &str = "acme";

pub(crate) struct World {
    pub(crate) memory: Vec<MemoryDrive>,
    pub(crate) drives: Vec<FaultyDrive>,
    pub(crate) power: Power,
    /// The clock of streams and messages; drives have their own.
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) space: Space,
    pub(crate) options: Options,
    seed: u64,
    pool: PoolOptions,
}

fn holder() -> Holder {
    Holder { pid: 1, host: "test".into(), since_unix_ns: 0, program: "test".into() }
}

/// Everything small, so that few steps reach every corner.
fn small() -> PoolOptions {
    let journal = dwk_journal::Options {
        segment_bytes: 64 << 10,
        record_bytes_max: 20 << 10,
        batch_bytes_max: 20 << 10,
        recent_bytes_max: 0,
        ..dwk_journal::Options::default()
    };
    let space =
        SpaceOptions { shard_bytes_max: 8 << 10, block_bytes: 4 << 10, ..SpaceOptions::default() };
    PoolOptions { space, journal, drive_timeout: Duration::from_secs(5) }
}

impl World {
    /// A small one: nothing happens in the background.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, 1 << 40, small())
    }

    /// One of the usual sizes.
    pub(crate) fn usual(seed: u64) -> Self {
        Self::with(seed, 1 << 40, PoolOptions::default())
    }

    /// A small one on drives of `drive_bytes` each.
    pub(crate) fn narrow(seed: u64, drive_bytes: u64) -> Self {
        Self::with(seed, drive_bytes, small())
    }

    fn with(seed: u64, drive_bytes: u64, pool: PoolOptions) -> Self {
        let drive = |n| MemoryDrive::with_capacity(format!("d{n}"), drive_bytes);
        let memory: Vec<_> = (1..=3).map(drive).collect();
        let power = Power::new();
        let faulty = |(index, drive): (usize, &MemoryDrive)| {
            FaultyDrive::new(Arc::new(drive.clone()), &power, seed ^ (index as u64) << 32)
        };
        let drives = memory.iter().enumerate().map(faulty).collect();
        let clock = Arc::new(ManualClock::default());
        clock.advance(Duration::from_hours(24));
        let random = Arc::new(SeededRandom::new(seed));
        let bus = Bus::new(Arc::clone(&clock) as Arc<dyn Clock>, random, Limits::default());
        let space = bus.space(TENANT).unwrap();
        let options = Options { background: false, ..Options::default() };
        Self { memory, drives, power, clock, space, options, seed, pool }
    }

    pub(crate) fn create(&self) -> Result<Arc<Meta>> {
        let new = |(index, drive): (usize, &FaultyDrive)| NewDrive {
            drive: Arc::new(drive.clone()),
            name: format!("d{}", index + 1),
            labels: BTreeMap::new(),
        };
        let drives: Vec<_> = self.drives.iter().enumerate().map(new).collect();
        let geometry = "2+1".parse()?;
        let seams = Seams::seeded(self.seed);
        let pool = Pool::create(&drives, &geometry, &self.pool, seams, &holder())?;
        Meta::create(pool, Self::meta_options())
    }

    fn meta_options() -> dwk_meta::Options {
        dwk_meta::Options { journal_bytes_max: 1 << 30, ..dwk_meta::Options::default() }
    }

    pub(crate) fn open(&self) -> Result<Arc<Meta>> {
        let drives = self.drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>);
        let open = OpenOptions { pool: self.pool.clone(), ..OpenOptions::default() };
        let seams = Seams::seeded(self.seed ^ self.power.steps());
        Meta::open(Pool::open(drives.collect(), open, seams, &holder())?, Self::meta_options())
    }

    /// The power comes back after a cut (or is cut now).
    pub(crate) fn restart(&mut self) {
        self.drives = self.power.restore();
    }

    /// The streams of an open map.
    pub(crate) fn streams(&self, meta: &Arc<Meta>) -> Result<Streams> {
        let random = Arc::new(SeededRandom::new(self.seed ^ self.power.steps()));
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Streams::open(Arc::clone(meta), Seams { clock, random }, self.options.clone())
    }

    /// Closes everything and opens it again.
    pub(crate) fn again(&self, meta: Arc<Meta>, streams: Streams) -> (Arc<Meta>, Streams) {
        streams.close();
        drop(streams);
        meta.close().unwrap();
        drop(meta);
        let meta = self.open().unwrap();
        let streams = self.streams(&meta).unwrap();
        (meta, streams)
    }

    /// A message about `subject`.
    pub(crate) fn message(&self, subject: &str, data: impl Into<Vec<u8>>) -> Envelope {
        let subject = Subject::new(subject).unwrap();
        self.space.stamp(Message::new(subject, data.into())).unwrap()
    }

    /// One that goes to those only who name what it is about.
    pub(crate) fn announcement(&self, subject: &str, data: impl Into<Vec<u8>>) -> Envelope {
        let subject = Subject::new(subject).unwrap();
        self.space.stamp_announcement(Message::new(subject, data.into())).unwrap()
    }

    pub(crate) fn keyed(&self, subject: &str, key: &str, data: impl Into<Vec<u8>>) -> Envelope {
        let subject = Subject::new(subject).unwrap();
        self.space.stamp(Message::new(subject, data.into()).keyed(key)).unwrap()
    }
}

/// Takes everything about `a`.
pub(crate) fn config() -> StreamConfig {
    StreamConfig::new(vec![Pattern::new("a.>").unwrap()])
}

pub(crate) fn never() -> Deadline {
    Deadline::never()
}

/// Everything from the first message on, by a cursor with small bites.
pub(crate) fn all(stream: &Stream) -> Vec<Stored> {
    rest(&mut stream.cursor(From::First).unwrap())
}

pub(crate) fn rest(cursor: &mut Cursor) -> Vec<Stored> {
    let mut all = Vec::new();
    loop {
        let some = cursor.next_many(7, 50_000, &never()).unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

pub(crate) fn sequences(stored: &[Stored]) -> Vec<u64> {
    stored.iter().map(|stored| stored.sequence).collect()
}

pub(crate) fn texts(stored: &[Stored]) -> Vec<String> {
    let text = |stored: &Stored| String::from_utf8_lossy(stored.envelope.data()).into_owned();
    stored.iter().map(text).collect()
}
