//! A large object streamed from six directories at 4+2 with drives away, beside the same with all of them, in one run.
//!
//! What limits it: on a disk the device, which reads as much either way; in memory the copy out of the page cache, the
//! checks and what is computed. The time of the processors, over all threads, stands beside the time of the clock.
//!
//! `cargo bench -p dwk-meta --bench degraded -- [DIR...]` (default: the temporary directory and /dev/shm), with
//! `DEGRADED_MIB` (512) and `DEGRADED_ROUNDS` (9). A directory in memory has no cold reads.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot measure ends")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use dwk_base::Seams;
use dwk_drive::{Drive, Holder, LocalDrive};
use dwk_meta::{Change, Meta, Options};
use dwk_pool::{NewDrive, OpenOptions, Pool, PoolOptions};

const STEP_BYTES: usize = 1 << 20;
/// Which drives are away.
const AWAY: [&[usize]; 4] = [&[], &[0], &[0, 1], &[]];
const NAMES: [&str; 4] = ["all", "one away", "two away", "all, again"];

fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (bytes, rounds) = (number("DEGRADED_MIB", 512) << 20, number("DEGRADED_ROUNDS", 9));
    let given: Vec<PathBuf> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(PathBuf::from)
        .collect();
    let places =
        if given.is_empty() { vec![std::env::temp_dir(), "/dev/shm".into()] } else { given };
    for place in places.iter().filter(|place| place.is_dir()) {
        let work = tempfile::tempdir_in(place).unwrap();
        create(work.path(), bytes);
        for cold in [false, true] {
            measure(work.path(), bytes, rounds, cold);
        }
    }
}

fn holder() -> Holder {
    Holder {
        pid: std::process::id(),
        host: String::new(),
        since_unix_ns: 0,
        program: "bench".into(),
    }
}

fn directory(work: &Path, n: usize) -> PathBuf {
    work.join(format!("d{n}"))
}

fn create(work: &Path, bytes: usize) {
    let new = |n: usize| NewDrive {
        drive: Arc::new(LocalDrive::create(directory(work, n)).unwrap()),
        name: format!("d{n}"),
        labels: BTreeMap::new(),
    };
    let drives: Vec<_> = (0..6).map(new).collect();
    let (geometry, options) = ("4+2".parse().unwrap(), PoolOptions::default());
    let pool = Pool::create(&drives, &geometry, &options, Seams::system(), &holder()).unwrap();
    let meta = Meta::create(pool, Options::default()).unwrap();
    let mut upload = meta.upload();
    let mut state = 1u64;
    let mut block = vec![0u8; STEP_BYTES];
    for _ in 0..bytes / STEP_BYTES {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&(state ^ state >> 29).to_le_bytes());
        }
        upload.append(&block).unwrap();
    }
    let staged = upload.finish().unwrap();
    meta.commit(Change::new().put(b"key".to_vec(), Vec::new(), Some(staged))).unwrap();
    meta.close().unwrap();
}

fn open(work: &Path, away: &[usize]) -> Arc<Meta> {
    let here = (0..6).filter(|n| !away.contains(n));
    let drive = |n| Arc::new(LocalDrive::open(directory(work, n)).unwrap()) as Arc<dyn Drive>;
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let pool = Pool::open(here.map(drive).collect(), options, Seams::system(), &holder()).unwrap();
    Meta::open(pool, Options::default()).unwrap()
}

fn measure(work: &Path, bytes: usize, rounds: usize, cold: bool) {
    let metas: Vec<_> = AWAY.iter().map(|away| open(work, away)).collect();
    let mut spent: Vec<Vec<(f64, f64)>> = vec![Vec::new(); AWAY.len()];
    for round in 0..=rounds {
        for (meta, spent) in metas.iter().zip(&mut spent) {
            if cold {
                evict(work);
            }
            let (start, before) = (Instant::now(), processors());
            stream(meta, bytes);
            let took = (start.elapsed().as_secs_f64(), processors() - before);
            if round > 0 {
                spent.push(took);
            }
        }
    }
    let how = if cold { "cold" } else { "warm" };
    println!("{} ({} MiB, 4+2, {how}, median of {rounds})", work.display(), bytes >> 20);
    let median = |of: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| {
        let mut sorted: Vec<f64> = of.iter().map(which).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let base = median(&spent[0], |spent| spent.0);
    for (name, spent) in NAMES.iter().zip(&spent) {
        let (clock, work) = (median(spent, |spent| spent.0), median(spent, |spent| spent.1));
        let (ratio, rate) = (100.0 * base / clock, bytes as f64 / clock / 1e9);
        println!("{name:12} {ratio:6.0}% {rate:6.2} GB/s {:6.0} ms of processors", work * 1e3);
    }
}

fn stream(meta: &Arc<Meta>, bytes: usize) {
    let (_, mut reader) = meta.read(b"key").unwrap().unwrap();
    let mut into = vec![0; STEP_BYTES];
    for from in (0..bytes).step_by(STEP_BYTES) {
        assert_eq!(reader.read_at(from as u64, &mut into).unwrap(), STEP_BYTES);
    }
}

/// Seconds that all threads of this process worked so far.
fn processors() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e9
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
