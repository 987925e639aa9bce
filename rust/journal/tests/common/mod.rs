//! A world for journals: drives on one power switch, a register of members, and what was acknowledged.
#![allow(dead_code, unreachable_pub, clippy::missing_panics_doc, clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dwk_base::{
    Deadline, DriveId, Epoch, Error, PoolId, Random, Result, Seams, SeededRandom, codes,
};
use dwk_drive::{
    Attached, BlobInfo, BlobName, Capacity, Description, Drive, FaultyDrive, Holder, Lock,
    LockMode, MemoryDrive, Power, Slot,
};
use dwk_journal::{Identity, Journal, Member, Membership, Options, Position, Recovery};

pub const NEVER: Deadline = Deadline::never();
pub const POOL: PoolId = PoolId::from_u128(77);

/// What a drive of the world can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Slots,
    Blobs,
}

/// A drive without the log capability.
pub struct NoLog(pub FaultyDrive);

impl Drive for NoLog {
    fn describe(&self) -> Description {
        self.0.describe()
    }
    fn put(&self, name: &BlobName, parts: &[Bytes]) -> Result<()> {
        self.0.put(name, parts)
    }
    fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize> {
        self.0.read(name, offset, into)
    }
    fn list(&self, f: Option<&str>, a: Option<&BlobName>, limit: usize) -> Result<Vec<BlobInfo>> {
        self.0.list(f, a, limit)
    }
    fn delete(&self, name: &BlobName) -> Result<()> {
        self.0.delete(name)
    }
    fn stat(&self, name: &BlobName) -> Result<BlobInfo> {
        self.0.stat(name)
    }
    fn capacity(&self) -> Result<Capacity> {
        self.0.capacity()
    }
    fn sync(&self, tag: &'static str) -> Result<()> {
        self.0.sync(tag)
    }
    fn read_superblock(&self, slot: Slot) -> Result<Option<Vec<u8>>> {
        self.0.read_superblock(slot)
    }
    fn write_superblock(&self, slot: Slot, bytes: &[u8]) -> Result<()> {
        self.0.write_superblock(slot, bytes)
    }
    fn lock(&self, holder: &Holder, mode: LockMode) -> Result<Box<dyn Lock>> {
        self.0.lock(holder, mode)
    }
    fn holder(&self) -> Result<Option<Holder>> {
        self.0.holder()
    }
}

/// Stands for the superblocks: the epoch and the members, durable at once, or not when the power goes.
pub struct Register {
    state: Mutex<(Epoch, Vec<usize>)>,
    power: Power,
    /// Its steps are steps of the world.
    meter: Mutex<FaultyDrive>,
    random: SeededRandom,
    pub refuse: AtomicBool,
    pub evictions: AtomicU64,
}

impl Register {
    fn change(&self, change: impl FnOnce(&mut (Epoch, Vec<usize>))) -> Result<Epoch> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err(Error::new(&codes::DRIVE_IO, "the register refuses"));
        }
        let mut state = self.state.lock().unwrap();
        let went = self.power.is_cut();
        let step = self.meter.lock().unwrap().sync("register");
        // Cut in the middle: durable or not, and nobody is told.
        if step.is_ok() || (!went && self.random.below(2) == 0) {
            change(&mut state);
        }
        step.map(|()| state.0)
    }

    pub fn members(&self) -> Vec<usize> {
        self.state.lock().unwrap().1.clone()
    }

    pub fn epoch(&self) -> Epoch {
        self.state.lock().unwrap().0
    }

    /// A new epoch in which only `present` are members: who is away when the log is opened is none any more.
    pub fn begin(&self, present: &[usize]) -> Result<Epoch> {
        self.change(|state| {
            state.0 = state.0.next();
            state.1.retain(|index| present.contains(index));
        })
    }

    pub fn join(&self, index: usize) -> Result<()> {
        self.change(|state| {
            state.0 = state.0.next();
            state.1.push(index);
        })
        .map(drop)
    }
}

impl Membership for Register {
    fn evict(&self, drive: DriveId, _why: &Error) -> Result<Epoch> {
        self.evictions.fetch_add(1, Ordering::SeqCst);
        self.change(|state| {
            state.0 = state.0.next();
            state.1.retain(|index| id(*index) != drive);
        })
    }
}

/// The identity of drive `index`.
pub fn id(index: usize) -> DriveId {
    DriveId::from_u128(1000 + index as u128)
}

/// Drives, the power, the register.
pub struct World {
    pub power: Power,
    pub memories: Vec<MemoryDrive>,
    pub drives: Mutex<Vec<FaultyDrive>>,
    pub bodies: Vec<Body>,
    pub register: Arc<Register>,
    pub options: Options,
    pub seed: u64,
}

/// Small segments, so that a short test fills several.
pub fn small() -> Options {
    Options {
        segment_bytes: 65536,
        record_bytes_max: 20000,
        batch_bytes_max: 40000,
        queue_bytes_max: 200_000,
        spare_segments: 0,
        recent_bytes_max: 0,
        reserved_segments: 0,
        member_timeout: Duration::from_secs(20),
        ..Options::default()
    }
}

impl World {
    /// `bodies.len()` drives, of which the first `members` hold the journal.
    pub fn new(bodies: &[Body], members: usize, options: Options, seed: u64) -> Self {
        let power = Power::new();
        let memories: Vec<_> =
            (0..bodies.len()).map(|index| MemoryDrive::new(format!("d{index}"))).collect();
        let meter = FaultyDrive::new(Arc::new(MemoryDrive::new("register")), &power, seed);
        let faulty = |(index, memory): (usize, &MemoryDrive)| {
            let seed = seed.wrapping_mul(31).wrapping_add(index as u64);
            FaultyDrive::new(Arc::new(memory.clone()), &power, seed)
        };
        let drives = memories.iter().enumerate().map(faulty).collect();
        let register = Register {
            state: Mutex::new((Epoch(1), (0..members).collect())),
            power: power.clone(),
            meter: Mutex::new(meter),
            random: SeededRandom::new(seed),
            refuse: AtomicBool::new(false),
            evictions: AtomicU64::new(0),
        };
        Self {
            power,
            memories,
            drives: Mutex::new(drives),
            bodies: bodies.to_vec(),
            register: Arc::new(register),
            options,
            seed,
        }
    }

    pub fn slots(count: usize, seed: u64) -> Self {
        Self::new(&vec![Body::Slots; count], count, small(), seed)
    }

    pub fn faulty(&self, index: usize) -> FaultyDrive {
        self.drives.lock().unwrap()[index].clone()
    }

    pub fn member(&self, index: usize) -> Member {
        let faulty = self.faulty(index);
        let drive: Arc<dyn Drive> = match self.bodies[index] {
            Body::Slots => Arc::new(faulty),
            Body::Blobs => Arc::new(NoLog(faulty)),
        };
        Member { id: id(index), drive: Attached::new(drive) }
    }

    pub fn omit(&self, tag: &'static str) {
        self.drives.lock().unwrap().iter().for_each(|drive| drive.omit(tag));
    }

    /// The power goes (if it has not yet) and comes back.
    pub fn restart(&self) {
        let mut restored = self.power.restore();
        *self.register.meter.lock().unwrap() = restored.remove(0);
        *self.drives.lock().unwrap() = restored;
    }

    fn seams(&self) -> Seams {
        Seams::seeded(self.seed)
    }

    pub fn create(&self) -> Result<Journal> {
        let members = self.register.members().into_iter().map(|i| self.member(i)).collect();
        let identity = Identity { pool: POOL, epoch: self.register.epoch() };
        let membership: Arc<dyn Membership> = Arc::clone(&self.register) as _;
        Journal::create(identity, members, self.options.clone(), membership, self.seams())
    }

    /// Opens with those members whose index `present` accepts; the others are members no more.
    pub fn open_with(&self, present: impl Fn(usize) -> bool) -> Result<(Journal, Recovery)> {
        let here: Vec<_> = self.register.members().into_iter().filter(|i| present(*i)).collect();
        let epoch = self.register.begin(&here)?;
        let members = here.into_iter().map(|index| self.member(index)).collect();
        let identity = Identity { pool: POOL, epoch };
        let membership: Arc<dyn Membership> = Arc::clone(&self.register) as _;
        Journal::open(identity, members, self.options.clone(), membership, self.seams())
    }

    pub fn open(&self) -> Result<(Journal, Recovery)> {
        self.open_with(|_| true)
    }

    pub fn open_read_only(&self, present: impl Fn(usize) -> bool) -> Result<(Journal, Recovery)> {
        let members = self.register.members().into_iter().filter(|index| present(*index));
        let members = members.map(|index| self.member(index)).collect();
        let identity = Identity { pool: POOL, epoch: self.register.epoch() };
        let membership: Arc<dyn Membership> = Arc::clone(&self.register) as _;
        let (options, seams) = (self.options.clone(), self.seams());
        Journal::open_read_only(identity, members, options, membership, seams, &NEVER)
    }
}

/// A record whose content follows from its number and length.
pub fn record(number: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length.max(8)];
    SeededRandom::new(number).fill(&mut bytes);
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes.into()
}

/// A length that varies with the number.
pub fn length(number: u64) -> usize {
    [10, 1000, 3000, 5000, 15000, 4096 - 164 - 4, 8][number as usize % 7]
}

/// Commits records `range`.
pub fn commit_range(journal: &Journal, range: std::ops::Range<u64>) -> Result<Vec<Position>> {
    range.map(|number| journal.commit(record(number, length(number)))).collect()
}

/// All records that the journal replays, checked to be what they say and in order without a gap.
pub fn replayed(journal: &Journal, from: u64) -> Result<Vec<(Position, Vec<u8>)>> {
    let mut all: Vec<(Position, Vec<u8>)> = Vec::new();
    journal.replay(from, &mut |position, bytes| {
        if let Some((last, _)) = all.last() {
            assert_eq!(last.sequence + 1, position.sequence, "a gap");
        }
        assert_eq!(position.bytes as usize, bytes.len());
        all.push((position, bytes.to_vec()));
        Ok(())
    })?;
    Ok(all)
}

/// The numbers of the records, each checked to be byte for byte what was committed.
pub fn numbers(journal: &Journal) -> Vec<u64> {
    replayed(journal, 0)
        .unwrap()
        .into_iter()
        .map(|(_, bytes)| {
            let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes, record(number, bytes.len()), "record {number} is another one");
            number
        })
        .collect()
}
