//! A store of six directories at 4+2 beside plain files, in one run.
//!
//! What limits it: a put, the drives' write rate (it writes 1.5 bytes for one) and, where the drives are
//! memory, two copies of every byte and the encoding; small puts, the drives' sync.
//!
//! `cargo bench -p dwk-meta --bench store -- [DIR] [MiB]`; DIR is the system's temporary directory
//! unless given: name a directory on the disk that you mean, and one on tmpfs.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use dwk_base::Seams;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, FaultyDrive, Holder, LocalDrive, Power};
use dwk_meta::{Change, Meta, Options};
use dwk_pool::{NewDrive, Pool, PoolOptions};

const ROUNDS: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mib: usize = arguments.next().map_or(512, |text| text.parse().unwrap());
    let work = tempfile::tempdir_in(dir).unwrap();
    println!("{} MiB in {}, medians of {ROUNDS} interleaved rounds", mib, work.path().display());
    large(work.path(), mib << 20);
    small(work.path(), Duration::ZERO);
    small(work.path(), Duration::from_millis(2));
}

/// A store of six directories; each sync of its journal takes `late` longer than it does.
fn store(path: &Path, late: Duration) -> Arc<Meta> {
    fs::create_dir_all(path).unwrap();
    let power = Power::new();
    let new = |n: usize| {
        let local = Arc::new(LocalDrive::create(path.join(format!("d{n}"))).unwrap());
        let drive: Arc<dyn Drive> = if late.is_zero() {
            local
        } else {
            let drive = FaultyDrive::new(local, &power, n as u64);
            drive.inject(Fault::new(Effect::Delay(late)).on(Operation::SyncLog));
            Arc::new(drive)
        };
        NewDrive { drive, name: format!("d{n}"), labels: BTreeMap::new() }
    };
    let drives: Vec<_> = (1..=6).map(new).collect();
    let holder = Holder {
        pid: std::process::id(),
        host: String::new(),
        since_unix_ns: 0,
        program: "bench".into(),
    };
    let geometry = "4+2".parse().unwrap();
    let options = PoolOptions::default();
    let pool = Pool::create(&drives, &geometry, &options, Seams::system(), &holder).unwrap();
    Meta::create(pool, Options::default()).unwrap()
}

/// Puts and gets of one large object.
fn large(work: &Path, length: usize) {
    let source = work.join("source");
    write_plain(&source, length);
    let (plain, copy) = (work.join("plain"), work.join("copy"));
    let meta = store(&work.join("large"), Duration::ZERO);
    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..=ROUNDS {
        let took = [
            time(|| write_from(&source, &plain, length + length / 2)),
            time(|| put_file(&meta, &source)),
            time(|| copy_out(&source, &copy)),
            {
                // What was put past the page cache is not warm before it was read once.
                get_file(&meta, &copy);
                time(|| get_file(&meta, &copy))
            },
        ];
        if round > 0 {
            times.iter_mut().zip(took).for_each(|(all, took)| all.push(took));
        }
        meta.commit(Change::new().delete(b"file".to_vec())).unwrap();
        meta.collect().unwrap();
    }
    let [plain, put, copy, get] = times.map(median);
    let rate = |seconds: f64| length as f64 / seconds / 1e6;
    println!(
        "put  {:.2} x a plain file of 1.5 times the size and one fsync ({:.0} MB/s)",
        plain / put,
        rate(put)
    );
    println!("get  {:.2} x a plain copy out, warm ({:.0} MB/s)", copy / get, rate(get));
    meta.close().unwrap();
}

fn write_plain(path: &Path, length: usize) {
    let mut file = File::create(path).unwrap();
    let mut state = 1u64;
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..length >> 20 {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&(state ^ state >> 29).to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
}

/// The plain write: `length` bytes taken from `source` round and round, one fsync.
fn write_from(source: &Path, target: &Path, length: usize) {
    let _ = fs::remove_file(target);
    let mut from = File::open(source).unwrap();
    let mut to = File::create(target).unwrap();
    let mut block = vec![0u8; 1 << 20];
    let mut left = length;
    while left > 0 {
        let got = from.read(&mut block).unwrap();
        if got == 0 {
            from = File::open(source).unwrap();
            continue;
        }
        let take = got.min(left);
        to.write_all(&block[..take]).unwrap();
        left -= take;
    }
    to.sync_all().unwrap();
}

fn copy_out(source: &Path, target: &Path) {
    let _ = fs::remove_file(target);
    let (mut from, mut to) = (File::open(source).unwrap(), File::create(target).unwrap());
    let mut block = vec![0u8; 1 << 20];
    loop {
        let got = from.read(&mut block).unwrap();
        if got == 0 {
            return;
        }
        to.write_all(&block[..got]).unwrap();
    }
}

fn put_file(meta: &Arc<Meta>, source: &Path) {
    let mut from = File::open(source).unwrap();
    let mut upload = meta.upload();
    while upload.append_from(&mut from, usize::MAX).unwrap() > 0 {}
    let staged = upload.finish().unwrap();
    meta.commit(Change::new().put(b"file".to_vec(), Vec::new(), Some(staged))).unwrap();
}

fn get_file(meta: &Arc<Meta>, target: &Path) {
    let _ = fs::remove_file(target);
    let mut to = File::create(target).unwrap();
    let (_, mut reader) = meta.read(b"file").unwrap().unwrap();
    let mut block = vec![0u8; 4 << 20];
    let mut offset = 0;
    loop {
        let got = reader.read_at(offset, &mut block).unwrap();
        if got == 0 {
            return;
        }
        to.write_all(&block[..got]).unwrap();
        offset += got as u64;
    }
}

/// Durable puts of 1 KiB, where a sync takes `late` longer than it does.
fn small(work: &Path, late: Duration) {
    let name = format!("small-{}", late.as_millis());
    let meta = store(&work.join(&name), late);
    let seconds = Duration::from_secs(2);
    let mut raws = Vec::new();
    let mut ones = Vec::new();
    let mut manies = Vec::new();
    for round in 0..3u32 {
        raws.push(raw_loop(&work.join(format!("{name}-raw-{round}")), seconds, late));
        ones.push(writers(&meta, 1, seconds));
        manies.push(writers(&meta, 64, seconds));
    }
    let (raw, one, many) = (median(raws), median(ones), median(manies));
    let what = format!("1 KiB durable puts, syncs + {} ms", late.as_millis());
    let ratio = one / raw;
    println!("{what}, one writer   {ratio:.2} x the raw loop ({one:.0}/s, raw {raw:.0}/s)");
    println!("{what}, 64 writers   {:.1} x one writer ({many:.0}/s)", many / one);
    meta.close().unwrap();
}

/// Has three threads write 4 KiB onto three preallocated, zeroed files and sync them, waits for all of
/// them, and so on.
fn raw_loop(path: &Path, seconds: Duration, late: Duration) -> f64 {
    const BYTES: u64 = 16 << 20;
    fs::create_dir(path).unwrap();
    let (done, finished) = channel();
    let starts: Vec<Sender<u64>> = (0..3)
        .map(|n| {
            let mut options = File::options();
            let options = options.create_new(true).read(true).write(true);
            let mut file = options.open(path.join(n.to_string())).unwrap();
            file.write_all(&vec![0; BYTES as usize]).unwrap();
            file.sync_all().unwrap();
            let (start, starts) = channel();
            let done = done.clone();
            std::thread::spawn(move || {
                for offset in starts {
                    file.write_all_at(&[7u8; 4096], offset).unwrap();
                    rustix::fs::fdatasync(&file).unwrap();
                    std::thread::sleep(late);
                    done.send(()).unwrap();
                }
            });
            start
        })
        .collect();
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < seconds {
        for thread in &starts {
            thread.send(count * 4096 % BYTES).unwrap();
        }
        for _ in &starts {
            finished.recv().unwrap();
        }
        count += 1;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn writers(meta: &Arc<Meta>, threads: u64, seconds: Duration) -> f64 {
    let count = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let count = &count;
            scope.spawn(move || {
                let (start, content) = (Instant::now(), [thread as u8; 1024]);
                for n in 0u64.. {
                    let mut upload = meta.upload();
                    upload.append(&content).unwrap();
                    let staged = upload.finish().unwrap();
                    let key = format!("{thread}/{}", n % 1000).into_bytes();
                    meta.commit(Change::new().put(key, Vec::new(), Some(staged))).unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                    if start.elapsed() > seconds {
                        return;
                    }
                }
            });
        }
    });
    count.load(Ordering::Relaxed) as f64 / seconds.as_secs_f64()
}

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
