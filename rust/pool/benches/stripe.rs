//! Stripes against plain files, in one run: put, get and rebuild at 4+2 on six directories.
//!
//! What limits it: on a disk the device; in memory the copies that the kernel makes and the pages that it
//! clears. The time of the processors, over all threads, stands beside the time of the clock: on a machine that
//! others use too it is the one to look at. Each figure is the median of interleaved rounds; the ratio is plain time / our time, so that 100 %
//! is as fast as the plain files.
//!
//! `cargo bench -p dwk-pool --bench stripe [-- DIRECTORY...]` (default: the temporary directory and
//! /dev/shm), with `STRIPE_MIB` (512) and `STRIPE_ROUNDS` (5).

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot measure ends")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dwk_base::{Deadline, DriveId, Epoch, Error, PoolId, Result, Seams, StripeId};
use dwk_drive::{Attached, Drive, LocalDrive};
use dwk_pool::{
    Control, Ledger, Roster, RosterCell, Seat, Space, SpaceOptions, State, Stripe, Watch,
};

const NEVER: Deadline = Deadline::never();
const DRIVES: usize = 6;
const DATA: usize = 4;
const WINDOW: usize = 4 << 20;
const AHEAD: usize = 5;
const IN_FLIGHT: usize = 2;
const PLAIN: usize = 1 << 20;

fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (bytes, rounds) = (number("STRIPE_MIB", 512) << 20, number("STRIPE_ROUNDS", 5));
    let given: Vec<PathBuf> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(PathBuf::from)
        .collect();
    let places =
        if given.is_empty() { vec![std::env::temp_dir(), "/dev/shm".into()] } else { given };
    let source: Vec<u8> = noise(64 << 20);
    for place in places.iter().filter(|place| place.is_dir()) {
        let root = place.join(format!("dwk-bench-{}", std::process::id()));
        fs::create_dir(&root).unwrap();
        bench(place, &root, &source, bytes, rounds);
        fs::remove_dir_all(&root).unwrap();
    }
}

fn bench(place: &Path, root: &Path, source: &[u8], bytes: usize, rounds: usize) {
    let mut times: BTreeMap<&str, Vec<Spent>> = BTreeMap::new();
    let mut took = |what: &'static str, spent: Spent| times.entry(what).or_default().push(spent);
    for round in 0..rounds {
        let bench = Bench::new(&root.join(format!("round{round}")));
        let plain = root.join("plain");
        took("put, plain", timed(|| plain_put(&plain, source, bytes / 2 * 3)));
        fs::remove_file(&plain).unwrap();
        took("put", timed(|| bench.put(source, bytes)));
        plain_put(&plain, source, bytes);
        let out = root.join("out");
        for (plain_name, name, cold) in
            [("get cold, plain", "get cold", true), ("get again, plain", "get again", false)]
        {
            let ready = || if cold { evict(root) } else { bench.get(&out) };
            ready();
            took(plain_name, timed(|| plain_copy(&plain, &out)));
            fs::remove_file(&out).unwrap();
            ready();
            took(name, timed(|| bench.get(&out)));
            assert_eq!(fs::metadata(&out).unwrap().len() as usize, bytes);
            fs::remove_file(&out).unwrap();
        }
        fs::remove_file(&plain).unwrap();
        evict(root);
        took("rebuild, ideal", timed(|| bench.ideal_rebuild(&root.join("ideal"), source)));
        fs::remove_file(root.join("ideal")).unwrap();
        bench.wipe(2);
        evict(root);
        took("rebuild", timed(|| bench.rebuild()));
    }
    println!("{} ({} MiB of content, 4+2, median of {rounds})", place.display(), bytes >> 20);
    println!("{:12} {:>7} {:>9} {:>9} {:>13}", "", "ratio", "ours", "plain", "processors");
    let median = |what: &str, of: fn(&Spent) -> f64| {
        let mut sorted: Vec<f64> = times[what].iter().map(of).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    for (ours, plain) in [
        ("put", "put, plain"),
        ("get cold", "get cold, plain"),
        ("get again", "get again, plain"),
        ("rebuild", "rebuild, ideal"),
    ] {
        let clock = |what| median(what, |spent| spent.clock);
        let (time, base) = (clock(ours), clock(plain));
        let rate = |time: f64| bytes as f64 / time / 1e9;
        let percent = 100.0 * base / time;
        let work = |what| median(what, |spent| spent.processors);
        let (mine, theirs) = (work(ours), work(plain));
        let (fast, slow) = (rate(time), rate(base));
        println!(
            "{ours:12} {percent:6.0}% {fast:5.2} GB/s {slow:5.2} GB/s {mine:5.2} / {theirs:4.2} s"
        );
    }
}

/// Seconds.
struct Spent {
    clock: f64,
    processors: f64,
}

/// Seconds that all threads of this process worked so far.
fn processors() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn timed(work: impl FnOnce()) -> Spent {
    let (start, before) = (Instant::now(), processors());
    work();
    Spent { clock: start.elapsed().as_secs_f64(), processors: processors() - before }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut noise = Vec::with_capacity(bytes);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise
}

/// The files below `path` are on the device and nothing of them in the page cache; others are left alone.
fn evict(path: &Path) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            evict(&entry.unwrap().path());
        }
    } else if let Ok(file) = File::open(path) {
        file.sync_all().unwrap();
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

fn pieces(source: &[u8], bytes: usize) -> impl Iterator<Item = &[u8]> {
    let whole = source.chunks(PLAIN).cycle();
    let mut left = bytes;
    whole.map_while(move |piece| {
        let taken = piece.len().min(left);
        left -= taken;
        (taken > 0).then_some(&piece[..taken])
    })
}

fn plain_put(path: &Path, source: &[u8], bytes: usize) {
    let mut file = File::create(path).unwrap();
    pieces(source, bytes).for_each(|piece| file.write_all(piece).unwrap());
    file.sync_all().unwrap();
}

fn plain_copy(from: &Path, to: &Path) {
    let (mut from, mut to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let mut buffer = vec![0; PLAIN];
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => break,
            count => to.write_all(&buffer[..count]).unwrap(),
        }
    }
}

struct Bench {
    root: PathBuf,
    roster: Arc<RosterCell>,
    space: Space,
    table: Table,
}

#[derive(Default)]
struct Table(Mutex<BTreeMap<StripeId, Stripe>>);

impl Ledger for Table {
    fn stripe(&self, id: StripeId) -> Result<Option<Stripe>> {
        Ok(self.0.lock().unwrap().get(&id).cloned())
    }

    fn stripes(&self, after: Option<StripeId>, limit: usize) -> Result<Vec<Stripe>> {
        let table = self.0.lock().unwrap();
        let later = table.values().filter(|stripe| after.is_none_or(|after| stripe.id > after));
        Ok(later.take(limit).cloned().collect())
    }

    fn rewrite(&self, _stripes: &BTreeSet<StripeId>) -> Result<u64> {
        Ok(0)
    }

    fn moved(&self, _: &Stripe, new: &Stripe) -> Result<bool> {
        self.0.lock().unwrap().insert(new.id, new.clone());
        Ok(true)
    }
}

struct Loud;

impl Watch for Loud {
    fn failed(&self, index: u16, error: &Error) {
        println!("drive {index} failed: {error}");
    }

    fn corrupted(&self, index: u16, what: &str) {
        println!("drive {index} is damaged: {what}");
    }
}

impl Bench {
    fn new(root: &Path) -> Self {
        fs::create_dir(root).unwrap();
        let roster = Arc::new(RosterCell::default());
        let seats = (0..DRIVES).map(|n| {
            let drive = LocalDrive::create(root.join(format!("d{n}"))).unwrap();
            let location = drive.describe().location;
            let drive = Attached::new(Arc::new(drive));
            let capacity = drive.ask_room().unwrap().wait_for(Duration::MAX).unwrap();
            Arc::new(Seat {
                index: n as u16,
                id: DriveId::from_u128(n as u128),
                name: format!("d{n}"),
                state: State::Ok,
                failure_domain: String::new(),
                labels: BTreeMap::new(),
                location,
                capacity_bytes: capacity.total_bytes,
                is_last_resort: false,
                drive: Some(drive),
            })
        });
        roster.store(Roster { epoch: Epoch(1), seats: seats.collect() });
        let space = Space::new(
            PoolId::from_u128(1),
            &"4+2".parse().unwrap(),
            SpaceOptions::default(),
            Arc::clone(&roster),
            Arc::new(Loud),
            Seams::system(),
        );
        Self { root: root.to_owned(), roster, space: space.unwrap(), table: Table::default() }
    }

    fn keep(&self, stripe: Stripe) {
        self.table.0.lock().unwrap().insert(stripe.id, stripe);
    }

    /// As an upload does it: one stripe fills while others are written.
    fn put(&self, source: &[u8], bytes: usize) {
        let mut in_flight = VecDeque::new();
        let mut filling = self.space.fill(self.space.payload_bytes_max(), &NEVER).unwrap();
        for mut piece in pieces(source, bytes) {
            while !piece.is_empty() {
                let taken = filling.append(piece);
                piece = &piece[taken..];
                if filling.is_full() {
                    if in_flight.len() >= IN_FLIGHT {
                        let writing: dwk_pool::Writing = in_flight.pop_front().unwrap();
                        self.keep(writing.wait(&NEVER).unwrap());
                    }
                    in_flight.push_back(self.space.write(filling).unwrap());
                    filling = self.space.fill(self.space.payload_bytes_max(), &NEVER).unwrap();
                }
            }
        }
        if !filling.is_empty() {
            in_flight.push_back(self.space.write(filling).unwrap());
        }
        for writing in in_flight {
            self.keep(writing.wait(&NEVER).unwrap());
        }
    }

    /// As a reader does it: some windows under way while one is copied out.
    fn get(&self, to: &Path) {
        let mut to = File::create(to).unwrap();
        let mut buffer = vec![0; WINDOW];
        let stripes = self.table.stripes(None, usize::MAX).unwrap();
        let mut windows = stripes.iter().flat_map(|stripe| {
            let starts = (0..stripe.payload_bytes).step_by(WINDOW);
            starts.map(move |start| {
                (stripe, start, (stripe.payload_bytes - start).min(WINDOW as u32))
            })
        });
        let mut ahead = VecDeque::new();
        loop {
            while ahead.len() < AHEAD {
                let Some((stripe, start, bytes)) = windows.next() else { break };
                ahead.push_back((self.space.start_read(stripe, start, bytes), bytes as usize));
            }
            let Some((reading, bytes)) = ahead.pop_front() else { break };
            reading.wait_into(&mut buffer[..bytes], &NEVER).unwrap();
            to.write_all(&buffer[..bytes]).unwrap();
        }
    }

    fn files(&self, drive: usize) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut left = vec![self.root.join(format!("d{drive}/blobs/s"))];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { left.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    fn wipe(&self, drive: usize) {
        self.files(drive).iter().for_each(|file| fs::remove_file(file).unwrap());
    }

    fn rebuild(&self) {
        let report = self.space.rebuild(&self.table, None, &Control::default()).unwrap();
        assert!(report.is_complete() && report.restored_shards > 0, "{report:?}");
        assert_eq!(self.roster.load().seats.len(), DRIVES);
    }

    /// Reads the files of k drives and writes as much as one of them holds, all at the same time.
    fn ideal_rebuild(&self, to: &Path, source: &[u8]) {
        let one: u64 = self.files(0).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        std::thread::scope(|scope| {
            for drive in 0..DATA {
                scope.spawn(move || {
                    let mut buffer = vec![0; PLAIN];
                    for file in self.files(drive) {
                        let mut file = File::open(file).unwrap();
                        while file.read(&mut buffer).unwrap() > 0 {}
                    }
                });
            }
            plain_put(to, source, one as usize);
        });
    }
}
