//! Reads while one of the drives in memory is late with each answer, beside the same while none is, in one run.
//!
//! What limits it: with all drives well the copies and the wake-ups of threads; with a late one how soon the others
//! are asked, and how often it is looked whether it is late no more.
//!
//! `cargo bench -p dwk-meta --bench late -- [GEOMETRY...]` (default: 4+2, mirror:2), with `LATE_READS` (200).

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot measure ends")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwk_base::{Deadline, Random, Seams, SeededRandom};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{FaultyDrive, Holder, MemoryDrive, Power};
use dwk_meta::{Change, Meta, Options};
use dwk_pool::{NewDrive, Pool, PoolOptions, Stripe};

const OBJECTS: usize = 48;
const OBJECT_BYTES: usize = 1 << 20;
const RANGE_BYTES: usize = 64 << 10;
const STREAM_BYTES: usize = 64 << 20;
/// How late each answer is, in milliseconds.
const LATE_MS: [u64; 4] = [0, 50, 300, 0];

fn main() {
    let reads = std::env::var("LATE_READS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let given: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let defaults = || vec!["4+2".to_owned(), "mirror:2".to_owned()];
    for geometry in if given.is_empty() { defaults() } else { given } {
        let store = Store::new(&geometry);
        for late in LATE_MS {
            store.drives[0].heal();
            let delay = Effect::Delay(Duration::from_millis(late));
            if late > 0 {
                store.drives[0].inject(Fault::new(delay).on(Operation::Read).named("s/"));
            }
            let name = format!("{geometry}, one drive {late} ms late");
            store.singles(&name, "object of 1 MiB", reads, OBJECT_BYTES);
            store.singles(&name, "range of 64 KiB", reads, RANGE_BYTES);
            store.stream(&name);
        }
    }
}

struct Store {
    drives: Vec<FaultyDrive>,
    meta: Arc<Meta>,
    stripes: Vec<Stripe>,
}

fn holder() -> Holder {
    Holder {
        pid: std::process::id(),
        host: String::new(),
        since_unix_ns: 0,
        program: "bench".into(),
    }
}

fn put(meta: &Arc<Meta>, key: &str, bytes: usize) {
    let random = SeededRandom::new(bytes as u64);
    let (mut upload, mut block) = (meta.upload(), vec![0; 1 << 20]);
    for _ in 0..bytes / block.len() {
        random.fill(&mut block);
        upload.append(&block).unwrap();
    }
    let staged = upload.finish().unwrap();
    let change = Change::new().put(key.as_bytes().to_vec(), Vec::new(), Some(staged));
    meta.commit(change).unwrap();
}

impl Store {
    fn new(geometry: &str) -> Self {
        let count = if geometry == "4+2" { 6 } else { 4 };
        let power = Power::new();
        let drive = |n| FaultyDrive::new(Arc::new(MemoryDrive::new(format!("d{n}"))), &power, n);
        let drives: Vec<_> = (0..count).map(drive).collect();
        let new = |(n, drive): (usize, &FaultyDrive)| NewDrive {
            drive: Arc::new(drive.clone()),
            name: format!("d{n}"),
            labels: BTreeMap::new(),
        };
        let new: Vec<_> = drives.iter().enumerate().map(new).collect();
        let (geometry, options) = (geometry.parse().unwrap(), PoolOptions::default());
        let pool = Pool::create(&new, &geometry, &options, Seams::system(), &holder()).unwrap();
        let meta = Meta::create(pool, Options::default()).unwrap();
        put(&meta, "stream", STREAM_BYTES);
        let space = meta.pool().space();
        let content = vec![7; OBJECT_BYTES];
        let stripe = |_| {
            let mut filling = space.fill(content.len(), &Deadline::never()).unwrap();
            filling.append(&content);
            space.write(filling).unwrap().wait(&Deadline::never()).unwrap()
        };
        let stripes = (0..OBJECTS).map(stripe).collect();
        Self { drives, meta, stripes }
    }

    /// Single reads, one after the other, of stripes and places by chance: past the page cache's short cut.
    fn singles(&self, name: &str, what: &str, reads: usize, bytes: usize) {
        let random = SeededRandom::new(1);
        let (mut took, mut into) = (Vec::new(), vec![0; bytes]);
        for _ in 0..reads {
            let stripe = &self.stripes[random.below(OBJECTS as u64) as usize];
            let offset = random.below((OBJECT_BYTES - bytes) as u64 + 1) as u32;
            let start = Instant::now();
            let reading = self.meta.pool().space().start_read(stripe, offset, bytes as u32);
            reading.wait_into(&mut into, &Deadline::never()).unwrap();
            took.push(start.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let part = |of: f64| took[((took.len() as f64 * of) as usize).min(took.len() - 1)];
        println!(
            "{name:34} {what:16} median {:8.3} ms  99 % {:8.3} ms  mean {:8.3} ms",
            part(0.5),
            part(0.99),
            took.iter().sum::<f64>() / took.len() as f64
        );
    }

    fn stream(&self, name: &str) {
        let (_, mut reader) = self.meta.read(b"stream").unwrap().unwrap();
        let (mut into, start) = (vec![0; 1 << 20], Instant::now());
        for from in (0..STREAM_BYTES).step_by(into.len()) {
            assert_eq!(reader.read_at(from as u64, &mut into).unwrap(), into.len());
        }
        let took = start.elapsed().as_secs_f64() * 1e3;
        println!("{name:34} stream of 64 MiB  {took:8.1} ms");
    }
}
