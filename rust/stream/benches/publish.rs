//! Publishing and reading, on drives in memory and in directories.
//!
//! What limits it: publishing, waking threads (each message wakes one) and the drives' sync; reading, decoding
//! envelopes, each of which is some allocations.
//!
//! `cargo bench -p dwk-stream --bench publish -- [DIR [DRIVES]]`; DIR is the system's temporary directory unless
//! given, DRIVES are 3, as 2+1, or 1.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dwk_base::{Deadline, Seams, SystemClock, SystemRandom};
use dwk_bus::{Bus, Limits, Message, Pattern, Space, Subject};
use dwk_drive::{Drive, Holder, LocalDrive, MemoryDrive};
use dwk_meta::Meta;
use dwk_pool::{NewDrive, Pool, PoolOptions};
use dwk_stream::{From, Options, Stream, StreamConfig, Streams};

const MESSAGE_BYTES: usize = 256;
const TIME: Duration = Duration::from_secs(3);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let count: u32 = arguments.next().map_or(3, |count| count.parse().unwrap());
    let memory = (1..=count).map(|n| Arc::new(MemoryDrive::new(format!("d{n}"))) as Arc<dyn Drive>);
    run("memory", memory.collect());
    let work = tempfile::tempdir_in(dir).unwrap();
    let local = |n| {
        Arc::new(LocalDrive::create(work.path().join(format!("d{n}"))).unwrap()) as Arc<dyn Drive>
    };
    run(&work.path().display().to_string(), (1..=count).map(local).collect());
}

fn run(name: &str, drives: Vec<Arc<dyn Drive>>) {
    let meta = store(drives);
    let streams = Streams::open(Arc::clone(&meta), Seams::system(), Options::default()).unwrap();
    let bus = Bus::new(Arc::new(SystemClock::default()), Arc::new(SystemRandom), Limits::default());
    let space = bus.space("").unwrap();
    println!("{name}: messages of {MESSAGE_BYTES} bytes");
    for threads in [1, 8, 64] {
        let config = StreamConfig::new(vec![Pattern::new(">").unwrap()]);
        let stream =
            streams.create("", &format!("s{threads}"), config, &Deadline::never()).unwrap();
        publish(&stream, &space, threads);
        if threads == 64 {
            many(&stream, &space);
            read(&stream);
        }
    }
    streams.close();
    drop(streams);
    meta.close().unwrap();
}

fn store(drives: Vec<Arc<dyn Drive>>) -> Arc<Meta> {
    let new = |(n, drive)| NewDrive { drive, name: format!("d{n}"), labels: BTreeMap::new() };
    let drives: Vec<_> = drives.into_iter().enumerate().map(new).collect();
    let holder = Holder {
        pid: std::process::id(),
        host: String::new(),
        since_unix_ns: 0,
        program: "bench".into(),
    };
    let geometry = if drives.len() == 1 { "jbod:1" } else { "2+1" };
    let (geometry, options) = (geometry.parse().unwrap(), PoolOptions::default());
    let pool = Pool::create(&drives, &geometry, &options, Seams::system(), &holder).unwrap();
    Meta::create(pool, dwk_meta::Options::default()).unwrap()
}

/// Threads that publish one message after the other.
fn publish(stream: &Stream, space: &Space, threads: usize) {
    let count = AtomicU64::new(0);
    let begin = Instant::now();
    let worst = std::thread::scope(|scope| {
        let work = || {
            let subject = Subject::new("a.b").unwrap();
            let data = vec![7u8; MESSAGE_BYTES];
            let mut times = Vec::new();
            while begin.elapsed() < TIME {
                let envelope = space.stamp(Message::new(subject.clone(), data.clone())).unwrap();
                let start = Instant::now();
                stream.publish(&envelope, None, &Deadline::never()).unwrap();
                times.push(start.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
            times
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let times = threads.into_iter().flat_map(|thread| thread.join().unwrap());
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    });
    let count = count.load(Ordering::Relaxed);
    let status = stream.status();
    println!(
        "  {threads} publishers: {:.0}/s, half within {:?}, 99 % within {:?}; {} messages in {} frames and {} blocks",
        count as f64 / begin.elapsed().as_secs_f64(),
        worst.0,
        worst.1,
        count,
        status.frames,
        status.blocks,
    );
}

/// One thread that publishes many messages at once.
fn many(stream: &Stream, space: &Space) {
    let subject = Subject::new("a.b").unwrap();
    let begin = Instant::now();
    let mut count = 0;
    while count < 1_000_000 {
        let message = || Message::new(subject.clone(), vec![7u8; MESSAGE_BYTES]);
        let messages: Vec<_> = (0..1000).map(|_| (space.stamp(message()).unwrap(), None)).collect();
        stream.publish_many(&messages, &Deadline::never()).unwrap();
        count += messages.len();
    }
    println!("  a thousand at once: {:.0}/s", count as f64 / begin.elapsed().as_secs_f64());
}

/// Everything from the first message on.
fn read(stream: &Stream) {
    let status = stream.status();
    let begin = Instant::now();
    let (mut cursor, mut count) = (stream.cursor(From::First).unwrap(), 0u64);
    loop {
        let read = cursor.next_many(1000, usize::MAX, &Deadline::never()).unwrap();
        if read.is_empty() {
            break;
        }
        count += read.len() as u64;
    }
    assert_eq!(count, status.messages);
    println!(
        "  reading {count} messages from {} frames and {} blocks: {:.0}/s",
        status.frames,
        status.blocks,
        count as f64 / begin.elapsed().as_secs_f64()
    );
}
