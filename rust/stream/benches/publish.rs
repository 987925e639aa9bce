//! Publishing and reading, on drives in memory and in directories.
//!
//! What limits it: publishing, waking threads (each message wakes one) and the drives' sync; reading, decoding
//! envelopes, each of which is some allocations.
//!
//! `cargo bench -p dwk-stream --bench publish -- [DIR [DRIVES [PUBLISHERS]]]`; DIR is the system's temporary
//! directory unless given, DRIVES are 3, as 2+1, or 1. PUBLISHERS: publishing by so many alone, in DIR alone.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
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
    let only: Option<usize> = arguments.next().map(|count| count.parse().unwrap());
    if only.is_none() {
        let memory = |n| Arc::new(MemoryDrive::new(format!("d{n}"))) as Arc<dyn Drive>;
        run("memory", (1..=count).map(memory).collect(), None);
    }
    let work = tempfile::tempdir_in(dir).unwrap();
    let local = |n| {
        Arc::new(LocalDrive::create(work.path().join(format!("d{n}"))).unwrap()) as Arc<dyn Drive>
    };
    run(&work.path().display().to_string(), (1..=count).map(local).collect(), only);
}

fn run(name: &str, drives: Vec<Arc<dyn Drive>>, only: Option<usize>) {
    let meta = store(drives);
    let streams = Streams::open(Arc::clone(&meta), Seams::system(), Options::default()).unwrap();
    let bus = Bus::new(Arc::new(SystemClock::default()), Arc::new(SystemRandom), Limits::default());
    let space = Arc::new(bus.space("").unwrap());
    println!("{name}: messages of {MESSAGE_BYTES} bytes");
    for publishers in only.map_or_else(|| vec![1, 8, 64], |only| vec![only]) {
        let config = StreamConfig::new(vec![Pattern::new(">").unwrap()]);
        let stream =
            streams.create("", &format!("s{publishers}"), config, &Deadline::never()).unwrap();
        publish(&stream, &space, publishers);
        publish_as_tasks(&stream, &space, publishers);
        if publishers == 64 && only.is_none() {
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
    let begin = Instant::now();
    let times = std::thread::scope(|scope| {
        let work = || {
            let subject = Subject::new("a.b").unwrap();
            let data = vec![7u8; MESSAGE_BYTES];
            let mut times = Vec::new();
            while begin.elapsed() < TIME {
                let envelope = space.stamp(Message::new(subject.clone(), data.clone())).unwrap();
                let start = Instant::now();
                stream.publish(&envelope, None, &Deadline::never()).unwrap();
                times.push(start.elapsed());
            }
            times
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    report(&format!("{threads} publishers"), stream, begin.elapsed(), times);
}

/// What `times` of single publishes add up to.
fn report(name: &str, stream: &Stream, elapsed: Duration, mut times: Vec<Duration>) {
    times.sort_unstable();
    let status = stream.status();
    println!(
        "  {name}: {:.0}/s, half within {:?}, 99 % within {:?}; {} messages in {} frames and {} blocks",
        times.len() as f64 / elapsed.as_secs_f64(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        status.messages,
        status.frames,
        status.blocks,
    );
}

/// Tasks that publish one message after the other, on two threads of tokio.
fn publish_as_tasks(stream: &Stream, space: &Arc<Space>, tasks: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let begin = Instant::now();
    let spawn = |_| runtime.spawn(task(stream.clone(), Arc::clone(space), begin));
    let tasks: Vec<_> = (0..tasks).map(spawn).collect();
    let name = format!("{} publishers as tasks", tasks.len());
    let times = tasks.into_iter().flat_map(|task| runtime.block_on(task).unwrap()).collect();
    report(&name, stream, begin.elapsed(), times);
}

async fn task(stream: Stream, space: Arc<Space>, begin: Instant) -> Vec<Duration> {
    let subject = Subject::new("a.b").unwrap();
    let data = vec![7u8; MESSAGE_BYTES];
    let mut times = Vec::new();
    while begin.elapsed() < TIME {
        let envelope = space.stamp(Message::new(subject.clone(), data.clone())).unwrap();
        let start = Instant::now();
        stream.publish_async(&[(envelope, None)]).unwrap().await.unwrap();
        times.push(start.elapsed());
    }
    times
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
