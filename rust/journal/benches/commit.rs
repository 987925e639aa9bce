//! Durable commits of 1 KiB on three local drives, against a raw loop that does nothing but append 4 KiB to
//! the same number of preallocated files in parallel and sync them.
//!
//! What limits it: the device's sync, and for many writers the cost of waking them. The three ways are
//! interleaved, round by round, and medians are given, because the machine is seldom alone. Run with
//! `cargo bench -p dwk-journal`; `DWK_BENCH_DIR` says where the drives lie, `DWK_BENCH_ROUNDS` how often.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dwk_base::{DriveId, Epoch, Error, PoolId, Result, Seams};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Attached, BlobName, Drive, FaultyDrive, LocalDrive, MemoryDrive, Power};
use dwk_journal::{Identity, Journal, Member, Membership, Options};

const MEMBERS: usize = 3;
const RECORD_BYTES: usize = 1024;
const WRITERS: usize = 64;
const SEGMENT_BYTES: u32 = 16 << 20;

struct Nobody;

impl Membership for Nobody {
    fn evict(&self, _drive: DriveId, why: &Error) -> Result<Epoch> {
        Err(why.clone())
    }
}

/// A drive whose log syncs take longer.
fn slowed(drive: Arc<dyn Drive>, delay: Duration) -> Arc<dyn Drive> {
    if delay.is_zero() {
        return drive;
    }
    let drive = FaultyDrive::new(drive, &Power::new(), 1);
    drive.inject(Fault::new(Effect::Delay(delay)).on(Operation::SyncLog));
    Arc::new(drive)
}

fn local(directory: &Path, name: &str) -> Arc<dyn Drive> {
    Arc::new(LocalDrive::create(directory.join(name)).expect("a directory for the bench"))
}

/// The raw loop: a thread for each file.
struct Raw {
    starts: Vec<Sender<u64>>,
    done: Receiver<()>,
    offset: u64,
}

impl Raw {
    fn new(drives: Vec<Arc<dyn Drive>>) -> Self {
        let (finished, done) = channel();
        let start = |drive: Arc<dyn Drive>| {
            let (start, starts) = channel();
            let finished = finished.clone();
            thread::spawn(move || {
                let log = drive.log().expect("a log");
                let name = BlobName::new("raw").expect("a name");
                log.create_log(&name, u64::from(SEGMENT_BYTES)).expect("a log");
                let block = aligned();
                for offset in starts {
                    log.write_log(&name, offset, std::slice::from_ref(&block)).expect("a write");
                    log.sync_log(&name, "raw").expect("a sync");
                    let _ = finished.send(());
                }
            });
            start
        };
        let starts = drives.into_iter().map(start).collect();
        Self { starts, done, offset: 0 }
    }

    fn commit(&mut self) {
        self.offset = (self.offset + 4096) % u64::from(SEGMENT_BYTES);
        for start in &self.starts {
            start.send(self.offset).expect("the thread is there");
        }
        for _ in &self.starts {
            self.done.recv().expect("the thread is there");
        }
    }
}

fn aligned() -> Bytes {
    let bytes = vec![7u8; 8192];
    let start = bytes.as_ptr().align_offset(4096);
    Bytes::from(bytes).slice(start..start + 4096)
}

fn journal(drives: Vec<Arc<dyn Drive>>) -> Journal {
    let member = |(index, drive): (usize, Arc<dyn Drive>)| Member {
        id: DriveId::from_u128(index as u128),
        drive: Attached::new(drive),
    };
    let members = drives.into_iter().enumerate().map(member).collect();
    let identity = Identity { pool: PoolId::from_u128(1), epoch: Epoch(1) };
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    Journal::create(identity, members, options, Arc::new(Nobody), Seams::system())
        .expect("a journal")
}

/// Commits per second of `writers` threads that commit `each` records.
fn commit(journal: &Journal, writers: usize, each: usize) -> f64 {
    let record = Bytes::from(vec![5; RECORD_BYTES]);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                for _ in 0..each {
                    journal.commit(record.clone()).expect("a commit");
                }
            });
        }
    });
    let rate = (writers * each) as f64 / start.elapsed().as_secs_f64();
    journal.release(journal.last_sequence()).expect("open to write");
    rate
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// One table row: raw loop, one writer, many writers.
fn compare(what: &str, rounds: usize, each: usize, drive: &dyn Fn(&str) -> Arc<dyn Drive>) {
    let many = |prefix: &str| (0..MEMBERS).map(|i| drive(&format!("{prefix}{i}"))).collect();
    let mut raw = Raw::new(many("raw"));
    let (one, all) = (journal(many("one")), journal(many("all")));
    let (mut raws, mut ones, mut alls) = (vec![], vec![], vec![]);
    for _ in 0..rounds {
        let start = Instant::now();
        (0..each).for_each(|_| raw.commit());
        raws.push(each as f64 / start.elapsed().as_secs_f64());
        ones.push(commit(&one, 1, each));
        alls.push(commit(&all, WRITERS, each));
    }
    let (raw, one, all) = (median(raws), median(ones), median(alls));
    println!(
        "{what:<28} raw {raw:>8.0}/s   one writer {one:>8.0}/s = {:>5.2} x raw   {WRITERS} writers \
         {all:>8.0}/s = {:>6.1} x one",
        one / raw,
        all / one
    );
}

fn main() {
    let rounds = std::env::var("DWK_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(9);
    let base = std::env::var_os("DWK_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(base).expect("a directory for the bench");
    let at = |name: &str| directory.path().join(name);
    for part in ["plain", "slow"] {
        std::fs::create_dir(at(part)).expect("a directory for the bench");
    }
    println!(
        "{RECORD_BYTES} byte records, {MEMBERS} members, medians of {rounds} interleaved rounds"
    );
    compare("local drives", rounds, 200, &|name| local(&at("plain"), name));
    let late = Duration::from_millis(2);
    compare("local drives, syncs + 2 ms", rounds, 30, &|name| {
        slowed(local(&at("slow"), name), late)
    });
    compare("memory, no device at all", rounds, 500, &|name| Arc::new(MemoryDrive::new(name)));
}
