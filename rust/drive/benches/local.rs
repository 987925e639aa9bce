//! What a local drive costs next to the bare calls, interleaved in one process; medians, ratios first.
//!
//! Limited by the device's flush (puts, log), by its bandwidth (large puts, cold reads), and by system
//! calls (warm reads). Run: `cargo bench -p dwk-drive --bench local [-- DIRECTORY]`, which must lie on the
//! file system to be measured.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dwk_base::Result;
use dwk_drive::local::LocalOptions;
use dwk_drive::{ALIGNMENT, Attached, BlobName, Drive, LocalDrive, Log};
use rustix::fs::Advice;

/// Times in turn what it is given, and keeps the medians.
struct Race<'a> {
    title: String,
    runners: Vec<(&'static str, Runner<'a>)>,
}

type Runner<'a> = Box<dyn FnMut(usize) + 'a>;

impl<'a> Race<'a> {
    fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), runners: Vec::new() }
    }

    fn with(mut self, name: &'static str, run: impl FnMut(usize) + 'a) -> Self {
        self.runners.push((name, Box::new(run)));
        self
    }

    /// Runs `rounds` rounds; `repeat` calls make one sample. The first runner is the yardstick.
    fn run(mut self, rounds: usize, repeat: usize) {
        let mut samples = vec![Vec::with_capacity(rounds); self.runners.len()];
        for round in 0..rounds {
            for (index, (_, run)) in self.runners.iter_mut().enumerate() {
                let start = Instant::now();
                (0..repeat).for_each(|call| run(round * repeat + call));
                samples[index].push(start.elapsed() / repeat as u32);
            }
        }
        let medians = samples.into_iter().map(median).collect::<Vec<_>>();
        println!("\n{}", self.title);
        for ((name, _), time) in self.runners.iter().zip(&medians) {
            let ratio = medians[0].as_secs_f64() / time.as_secs_f64();
            println!("  {ratio:5.2} ×  {:>10.1} µs  {name}", time.as_secs_f64() * 1e6);
        }
    }
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// Bytes in aligned memory, as the pool's buffers are.
fn aligned(length: usize) -> Bytes {
    let memory = (0..length + ALIGNMENT).map(|at| ((at * 31) >> 3) as u8).collect::<Vec<_>>();
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    Bytes::from(memory).slice(start..start + length)
}

fn name(text: &str) -> BlobName {
    BlobName::new(text).unwrap()
}

/// Hex names that spread as random ones do.
fn shard(kind: &str, number: usize) -> BlobName {
    let id = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    name(&format!("s/{id:016x}.{kind}"))
}

fn drive(home: &Path, text: &str, direct_bytes_min: u64) -> LocalDrive {
    let options = LocalOptions { direct_bytes_min, ..LocalOptions::default() };
    LocalDrive::create_with(home.join(text), options).unwrap()
}

fn puts(home: &Path) {
    for (length, rounds) in
        [(4096, 200), (65_536, 200), (131_072, 200), (262_144, 100), (1 << 20, 60), (4 << 20, 40)]
    {
        let content = aligned(length);
        let (direct, buffered) = (drive(home, "direct", 0), drive(home, "buffered", u64::MAX));
        let put = |drive: &LocalDrive, round: usize| {
            drive.put(&shard("00", round), std::slice::from_ref(&content)).unwrap();
            drive.sync("bench").unwrap();
        };
        Race::new(format!("put of {length} bytes, durable"))
            .with("a plain file, written and synced, its name not", |round| {
                let file = File::create(home.join(format!("plain.{round}"))).unwrap();
                file.write_all_at(&content, 0).unwrap();
                file.sync_all().unwrap();
            })
            .with("put + sync, through the cache", |round| put(&buffered, round))
            .with("put + sync, past the cache", |round| put(&direct, round))
            .run(rounds, 1);
        for directory in ["direct", "buffered"] {
            fs::remove_dir_all(home.join(directory)).unwrap();
        }
        (0..rounds).for_each(|round| fs::remove_file(home.join(format!("plain.{round}"))).unwrap());
    }
}

fn appends(home: &Path) {
    const LOG_BYTES: usize = 16 << 20;
    for length in [4096, 16_384, 65_536, 262_144] {
        let content = aligned(length);
        let drive = drive(home, "log", 0);
        let log = name("journal.0");
        drive.create_log(&log, LOG_BYTES as u64).unwrap();
        let raw = File::create(home.join("raw")).unwrap();
        raw.write_all_at(&vec![0; LOG_BYTES], 0).unwrap();
        raw.sync_all().unwrap();
        let offset = |round: usize| (round * length % LOG_BYTES) as u64;
        Race::new(format!("append of {length} bytes to a zeroed log, durable"))
            .with("pwrite + fdatasync", |round| {
                raw.write_all_at(&content, offset(round)).unwrap();
                raw.sync_data().unwrap();
            })
            .with("write_log + sync_log", |round| {
                drive.write_log(&log, offset(round), std::slice::from_ref(&content)).unwrap();
                drive.sync_log(&log, "bench").unwrap();
            })
            .run(300, 1);
        fs::remove_dir_all(home.join("log")).unwrap();
    }
}

fn warm_reads(home: &Path) {
    let drive = drive(home, "warm", u64::MAX);
    let blob = shard("00", 0);
    drive.put(&blob, &[aligned(4 << 20)]).unwrap();
    fs::write(home.join("warm.raw"), aligned(4 << 20)).unwrap();
    let raw = File::open(home.join("warm.raw")).unwrap();
    let attached = Attached::new(Arc::new(drive.clone()));
    let offset = |round: usize| (round * 4096 * 37 % (4 << 20)) as u64;
    let mut into = [[0; 4096]; 3];
    let [one, two, three] = &mut into;
    Race::new("read of 4096 warm bytes")
        .with("pread of an open file", |round| {
            raw.read_exact_at(one, offset(round)).unwrap();
        })
        .with("read_now", |round| {
            assert!(drive.read_now(&blob, offset(round), two).unwrap().is_some());
        })
        .with("read", |round| {
            black_box(drive.read(&blob, offset(round), three).unwrap());
        })
        .run(200, 50);
    // Apart from the others: who runs after a change of threads finds cold caches.
    Race::new("read of 4096 warm bytes, handed over")
        .with("read, on the caller's thread", |round| {
            let mut into = [0; 4096];
            drive.read(&blob, offset(round), &mut into).unwrap();
            black_box(&into);
        })
        .with("read, on the drive's thread", |round| {
            let (blob, at) = (blob.clone(), offset(round));
            let read = move |drive: &dyn Drive| -> Result<usize> {
                let mut into = [0; 4096];
                let count = drive.read(&blob, at, &mut into)?;
                black_box(&into);
                Ok(count)
            };
            attached.submit(read).wait().unwrap();
        })
        .run(200, 50);
}

fn cold_reads(home: &Path) {
    let drive = drive(home, "cold", 0);
    let length = 4 << 20;
    let mut paths: Vec<PathBuf> = Vec::new();
    for number in 0..8 {
        drive.put(&shard("00", number), &[aligned(length)]).unwrap();
        let blob = shard("00", number);
        let (leaf, base) = (blob.leaf().to_owned(), home.join("cold/blobs/s"));
        paths.push(base.join(&leaf[..2]).join(&leaf));
    }
    let forget = |number: usize| {
        let file = File::open(&paths[number % 8]).unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    };
    let mut into = [vec![0; length], vec![0; length], vec![0; length]];
    let [one, two, three] = &mut into;
    Race::new("read of 4 MiB that are not in the cache (with open, and with making them cold)")
        .with("pread", |number| {
            forget(number);
            File::open(&paths[number % 8]).unwrap().read_exact_at(one, 0).unwrap();
        })
        .with("read", |number| {
            forget(number);
            drive.read(&shard("00", number % 8), 0, two).unwrap();
        })
        .with("pread, past the cache", |number| {
            forget(number);
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECT;
            let mode = rustix::fs::Mode::empty();
            let Ok(file) = rustix::fs::open(&paths[number % 8], flags, mode) else { return };
            let start = three.as_ptr().align_offset(ALIGNMENT);
            let _ = rustix::io::pread(&file, &mut three[start..length - ALIGNMENT + start], 0);
        })
        .run(60, 1);
}

fn main() {
    let home = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let home = home.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let home = home.join("drive-bench");
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    println!("in {}", home.display());
    puts(&home);
    appends(&home);
    warm_reads(&home);
    cold_reads(&home);
    fs::remove_dir_all(&home).unwrap();
}
