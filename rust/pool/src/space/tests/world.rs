//! A space with its roster, its table of stripes and its watch, as small as can be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwk_base::{
    Clock, Deadline, DriveId, Epoch, Error, ManualClock, PoolId, Result, Seams, SeededRandom,
    StripeId, SystemClock, codes,
};
use dwk_drive::{Attached, BlobName, Entry, FaultyDrive, MemoryDrive, Power};
use dwk_erasure::CodeSpec;

use super::super::{Space, SpaceOptions, header, lock};
use crate::{Ledger, Roster, RosterCell, Seat, State, Stripe, Watch};

pub(super) const NEVER: Deadline = Deadline::never();
pub(super) const RS42: CodeSpec = CodeSpec::ReedSolomon { k: 4, m: 2 };

/// Everything small, so that few steps reach every corner.
pub(super) fn options() -> SpaceOptions {
    SpaceOptions {
        shard_bytes_max: 16 << 10,
        memory_bytes: 4 << 20,
        block_bytes: 4 << 10,
        drive_timeout: Duration::from_secs(5),
        late_read: Duration::from_secs(2),
        repair_width: 1,
        ..SpaceOptions::default()
    }
}

pub(super) struct World {
    pub(super) code: CodeSpec,
    pub(super) options: SpaceOptions,
    pub(super) memory: Vec<MemoryDrive>,
    pub(super) drives: Vec<FaultyDrive>,
    pub(super) power: Power,
    pub(super) roster: Arc<RosterCell>,
    pub(super) watch: Arc<Heard>,
    pub(super) table: Table,
    pub(super) space: Space,
    pub(super) epoch: u64,
    clock: Arc<dyn Clock>,
}

/// Remembers what it was told, and takes failed drives out of service.
#[derive(Default)]
pub(super) struct Heard {
    roster: Mutex<Option<Arc<RosterCell>>>,
    pub(super) failed: Mutex<Vec<u16>>,
    pub(super) corrupted: Mutex<Vec<u16>>,
}

impl Watch for Heard {
    fn failed(&self, index: u16, _error: &Error) {
        lock(&self.failed).push(index);
        if let Some(roster) = &*lock(&self.roster) {
            set_state(roster, index, State::Failed);
        }
    }

    fn corrupted(&self, index: u16, _what: &str) {
        lock(&self.corrupted).push(index);
    }
}

/// The table of stripes, in memory.
#[derive(Default)]
pub(super) struct Table {
    pub(super) stripes: Mutex<BTreeMap<StripeId, Stripe>>,
    pub(super) refuse: AtomicBool,
}

impl Ledger for Table {
    fn stripe(&self, id: StripeId) -> Result<Option<Stripe>> {
        Ok(lock(&self.stripes).get(&id).cloned())
    }

    fn stripes(&self, after: Option<StripeId>, limit: usize) -> Result<Vec<Stripe>> {
        let stripes = lock(&self.stripes);
        let later = stripes.values().filter(|stripe| after.is_none_or(|after| stripe.id > after));
        Ok(later.take(limit).cloned().collect())
    }

    fn rewrite(&self, _stripes: &BTreeSet<StripeId>) -> Result<u64> {
        Ok(0)
    }

    fn moved(&self, old: &Stripe, new: &Stripe) -> Result<bool> {
        let mut stripes = lock(&self.stripes);
        let same = stripes.get(&old.id) == Some(old) && !self.refuse.load(Ordering::SeqCst);
        if same {
            stripes.insert(new.id, new.clone());
        }
        Ok(same)
    }
}

pub(super) fn set_state(roster: &RosterCell, index: u16, state: State) {
    let now = roster.load();
    let seats = now.seats.iter().map(|seat| {
        if seat.index == index { Arc::new(copy(seat, state)) } else { Arc::clone(seat) }
    });
    roster.store(Roster { epoch: now.epoch, seats: seats.collect() });
}

fn copy(seat: &Seat, state: State) -> Seat {
    let drive = if state == State::Missing { None } else { seat.drive.clone() };
    Seat { state, drive, ..seat.clone() }
}

fn open(
    code: CodeSpec,
    options: &SpaceOptions,
    roster: &Arc<RosterCell>,
    watch: &Arc<Heard>,
    (clock, seed): (&Arc<dyn Clock>, u64),
) -> Space {
    let (roster, watch) = (Arc::clone(roster), Arc::clone(watch) as Arc<dyn Watch>);
    let seams = Seams { clock: Arc::clone(clock), random: Arc::new(SeededRandom::new(seed)) };
    Space::with_code(PoolId::from_u128(7), code, options.clone(), roster, watch, seams).unwrap()
}

impl World {
    pub(super) fn remove(&self, stripe: &Stripe) {
        self.space.remove(std::slice::from_ref(stripe));
    }

    pub(super) fn new(drives: usize, code: CodeSpec, seed: u64) -> Self {
        Self::with(drives, code, seed, options())
    }

    /// One whose time stands still: however busy the machine is, no drive is late.
    pub(super) fn still(drives: usize, code: CodeSpec, seed: u64) -> Self {
        Self::on_clock(drives, code, seed, options(), Arc::new(ManualClock::default()))
    }

    pub(super) fn with(count: usize, code: CodeSpec, seed: u64, options: SpaceOptions) -> Self {
        Self::on_clock(count, code, seed, options, Arc::new(SystemClock::default()))
    }

    fn on_clock(
        count: usize,
        code: CodeSpec,
        seed: u64,
        options: SpaceOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let power = Power::new();
        let memory: Vec<_> = (0..count).map(|n| MemoryDrive::new(format!("d{n}"))).collect();
        let faulty = |(n, drive): (usize, &MemoryDrive)| {
            FaultyDrive::new(Arc::new(drive.clone()), &power, seed ^ ((n as u64) << 32))
        };
        let drives: Vec<_> = memory.iter().enumerate().map(faulty).collect();
        let roster = Arc::new(RosterCell::default());
        let watch = Arc::new(Heard::default());
        *lock(&watch.roster) = Some(Arc::clone(&roster));
        let space = open(code, &options, &roster, &watch, (&clock, seed));
        let (table, epoch) = (Table::default(), 0);
        let mut world = Self {
            code,
            options,
            memory,
            drives,
            power,
            roster,
            watch,
            table,
            space,
            epoch,
            clock,
        };
        world.seat_all();
        world.open(seed);
        world
    }

    /// As a pool is after opening: every drive well, a new epoch.
    pub(super) fn seat_all(&mut self) {
        self.epoch += 1;
        let seat = |(n, drive): (usize, &FaultyDrive)| {
            let drive = Attached::new(Arc::new(drive.clone()));
            let capacity = drive.ask_room().unwrap().wait_for(Duration::from_mins(1)).unwrap();
            Arc::new(Seat {
                index: n as u16,
                id: DriveId::from_u128(n as u128),
                name: format!("d{n}"),
                state: State::Ok,
                failure_domain: String::new(),
                labels: BTreeMap::new(),
                location: format!("d{n}"),
                capacity_bytes: capacity.total_bytes,
                is_last_resort: false,
                drive: Some(drive),
            })
        };
        let seats = self.drives.iter().enumerate().map(seat).collect();
        self.roster.store(Roster { epoch: Epoch(self.epoch), seats });
    }

    /// The power goes (or is gone) and comes back, and a new process opens the pool.
    pub(super) fn restart(&mut self) {
        self.drives = self.power.restore();
        self.reopen();
    }

    /// A new process opens the pool.
    pub(super) fn reopen(&mut self) {
        self.seat_all();
        self.open(self.power.steps());
    }

    fn open(&mut self, seed: u64) {
        let seams = (&self.clock, seed);
        self.space = open(self.code, &self.options, &self.roster, &self.watch, seams);
    }

    pub(super) fn set_state(&self, index: u16, state: State) {
        set_state(&self.roster, index, state);
    }

    /// Writes a stripe and commits it.
    pub(super) fn put(&self, content: &[u8]) -> Result<Stripe> {
        let stripe = self.write(content)?;
        lock(&self.table.stripes).insert(stripe.id, stripe.clone());
        Ok(stripe)
    }

    /// Writes a stripe that nobody commits.
    pub(super) fn write(&self, content: &[u8]) -> Result<Stripe> {
        let mut filling = self.space.fill(content.len(), &NEVER)?;
        if filling.append(content) < content.len() {
            return Err(Error::new(&codes::POOL_FULL, "it does not fit the drives that are left"));
        }
        self.space.write(filling)?.wait(&NEVER)
    }

    pub(super) fn get(&self, stripe: &Stripe) -> Result<Vec<u8>> {
        let mut content = vec![0xee; stripe.payload_bytes as usize];
        self.space.read(stripe, 0, &mut content)?;
        let mut again = vec![0xdd; content.len()];
        self.space.start_read(stripe, 0, stripe.payload_bytes).wait_into(&mut again, &NEVER)?;
        assert!(content == again, "read and start_read differ");
        Ok(content)
    }

    /// Takes what was noted to be repaired.
    pub(super) fn take_repairs(&self) -> Vec<StripeId> {
        self.space.shared.notes.take()
    }

    /// What the drives' threads were asked for is done and durable.
    pub(super) fn settle(&self) {
        for seat in &self.roster.load().seats {
            if let Some(drive) = &seat.drive {
                let _ = drive.submit(|drive| drive.sync("test")).wait();
            }
        }
    }

    /// The file of a shard.
    pub(super) fn entry(&self, stripe: &Stripe, index: usize) -> (MemoryDrive, Entry) {
        let drive = self.memory[usize::from(stripe.placement[index])].clone();
        (drive, Entry::Blob(header::name(stripe.id, index).unwrap()))
    }

    /// Every blob on every drive: (drive, name).
    pub(super) fn files(&self) -> Vec<(usize, BlobName)> {
        let mut files = Vec::new();
        for (n, drive) in self.memory.iter().enumerate() {
            for entry in drive.entries() {
                if let Entry::Blob(name) = entry {
                    files.push((n, name));
                }
            }
        }
        files
    }

    /// Asserts that the shards of the table's stripes are on the drives, whole, and nothing else is.
    pub(super) fn assert_whole(&self, when: &str) {
        let mut expected = Vec::new();
        for stripe in lock(&self.table.stripes).values() {
            for (index, seat) in stripe.placement.iter().enumerate() {
                expected.push((usize::from(*seat), header::name(stripe.id, index).unwrap()));
            }
        }
        expected.sort();
        let mut files = self.files();
        files.sort();
        assert_eq!(files, expected, "{when}");
    }
}

/// `length` bytes that differ from seed to seed.
pub(super) fn bytes(seed: u64, length: usize) -> Vec<u8> {
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
