//! What reads take from the drives, counted there: each byte that is needed about once, whichever drives are away.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::print_stdout, reason = "the figures are of interest")]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use dwk_base::{ManualClock, Random, Seams, SeededRandom};
use dwk_drive::{Drive, Entry, MemoryDrive};
use dwk_meta::{Meta, Options};
use dwk_pool::{NewDrive, OpenOptions, Pool, PoolOptions};
use world::{Counting, bytes, holder, put};

const CONTENT_BYTES: usize = 40 << 20;
const BLOCK_BYTES: usize = 64 << 10;
/// As a program reads a stream.
const STEP_BYTES: usize = 1 << 20;
const GEOMETRIES: [(&str, usize); 5] =
    [("4+2", 6), ("8+3", 11), ("raid6:5", 5), ("mirror:3", 3), ("lrc:4+2+1", 7)];

/// Time stands still: however busy the machine is, no drive is late and nothing is asked for because of that.
fn still(seed: u64) -> Seams {
    Seams { clock: Arc::new(ManualClock::default()), random: Arc::new(SeededRandom::new(seed)) }
}

/// A pool with one large object, on drives that count.
struct Counted {
    drives: Vec<Counting>,
    content: Vec<u8>,
}

impl Counted {
    fn new(geometry: &str, count: usize) -> Self {
        let drive = |n| Counting::new(MemoryDrive::new(format!("d{n}")));
        let drives: Vec<_> = (1..=count).map(drive).collect();
        let new = |drive: &Counting| NewDrive {
            drive: Arc::new(drive.clone()),
            name: drive.describe().location,
            labels: BTreeMap::new(),
        };
        let new: Vec<_> = drives.iter().map(new).collect();
        let (options, seams) = (PoolOptions::default(), still(1));
        let geometry = geometry.parse().unwrap();
        let pool = Pool::create(&new, &geometry, &options, seams, &holder()).unwrap();
        let meta = Meta::create(pool, Options::default()).unwrap();
        let content = bytes(1, CONTENT_BYTES);
        put(&meta, b"key", &content).unwrap();
        meta.close().unwrap();
        Self { drives, content }
    }

    /// Opens it without some drives.
    fn open_without(&self, gone: &[usize]) -> Arc<Meta> {
        let here = self.drives.iter().enumerate().filter(|(index, _)| !gone.contains(index));
        let here = here.map(|(_, drive)| Arc::new(drive.clone()) as Arc<dyn Drive>).collect();
        let pool = Pool::open(here, OpenOptions::default(), still(2), &holder()).unwrap();
        Meta::open(pool, Options::default()).unwrap()
    }

    /// Reads ranges one after the other, and says how many times their length the drives read.
    fn times(&self, meta: &Arc<Meta>, ranges: impl Iterator<Item = (usize, usize)>) -> f64 {
        let (_, mut reader) = meta.read(b"key").unwrap().unwrap();
        self.take();
        let (mut into, mut wanted) = (Vec::new(), 0);
        for (from, length) in ranges {
            into.resize(length, 0);
            assert_eq!(reader.read_at(from as u64, &mut into).unwrap(), length);
            assert!(into == self.content[from..from + length], "other bytes at {from}");
            wanted += length;
        }
        drop(reader);
        world::settle(meta);
        self.take() as f64 / wanted as f64
    }

    fn take(&self) -> u64 {
        self.drives.iter().map(Counting::take_read_bytes).sum()
    }

    fn stream(&self, meta: &Arc<Meta>) -> f64 {
        self.times(meta, (0..CONTENT_BYTES).step_by(STEP_BYTES).map(|from| (from, STEP_BYTES)))
    }

    fn whole(&self, meta: &Arc<Meta>) -> f64 {
        self.times(meta, std::iter::once((0, CONTENT_BYTES)))
    }

    /// Ranges at random places, whole blocks.
    fn random(&self, meta: &Arc<Meta>, blocks: u64) -> f64 {
        let random = SeededRandom::new(7);
        let one = |_| {
            let length = BLOCK_BYTES * (1 + random.below(blocks) as usize);
            let last = (CONTENT_BYTES - length) / BLOCK_BYTES;
            (BLOCK_BYTES * random.below(last as u64) as usize, length)
        };
        self.times(meta, (0..60).map(one))
    }
}

#[test]
fn a_stream_and_a_whole_read_take_each_byte_about_once_whichever_drives_are_away() {
    for (geometry, count) in GEOMETRIES {
        let counted = Counted::new(geometry, count);
        for gone in [&[][..], &[0], &[1], &[0, 2], &[1, 2]] {
            let meta = counted.open_without(gone);
            let (stream, whole) = (counted.stream(&meta), counted.whole(&meta));
            println!("{geometry} without {gone:?}: stream {stream:.3}, whole {whole:.3}");
            // Whether a stream is one is not known at its first step, which takes up to k times as much.
            let first = if gone.is_empty() { 0.0 } else { 8.0 * STEP_BYTES as f64 };
            assert!(stream < 1.02 + first / CONTENT_BYTES as f64, "{geometry} {gone:?}: {stream}");
            assert!(whole < 1.02, "{geometry} without {gone:?}: {whole}");
        }
    }
}

#[test]
fn a_range_at_a_random_place_takes_what_it_needs_and_nothing_is_read_ahead() {
    for (geometry, count) in GEOMETRIES {
        let counted = Counted::new(geometry, count);
        for gone in [&[][..], &[0], &[1, 2]] {
            let meta = counted.open_without(gone);
            let (small, large) = (counted.random(&meta, 1), counted.random(&meta, 100));
            println!("{geometry} without {gone:?}: one block {small:.2}, up to 100 {large:.2}");
            if gone.is_empty() {
                // A block of a range may lie in two of a shard.
                assert!(small <= 2.1 && large < 1.15, "{geometry}: {small}, {large}");
            } else {
                assert!(small <= 4.5 && large < 2.3, "{geometry} {gone:?}: {small}, {large}");
            }
        }
    }
}

/// Streams twice from drives the first of which was spoilt, and says how many times its length they read.
fn spoilt(geometry: &str, count: usize, spoil: fn(&MemoryDrive, Entry)) -> [f64; 2] {
    let counted = Counted::new(geometry, count);
    for entry in counted.drives[0].inner.entries() {
        if matches!(&entry, Entry::Blob(name) if name.as_str().starts_with("s/")) {
            spoil(&counted.drives[0].inner, entry);
        }
    }
    let meta = counted.open_without(&[]);
    [(); 2].map(|()| {
        counted.take();
        let all = counted.stream(&meta);
        println!("{geometry} spoilt: all drives together {all:.3}");
        all
    })
}

#[test]
fn a_stream_that_met_damage_takes_each_byte_of_the_other_drives_about_once() {
    let damage = |drive: &MemoryDrive, entry: Entry| {
        let bytes = drive.raw(&entry).unwrap().len();
        for at in (8192..bytes).step_by(BLOCK_BYTES) {
            assert!(drive.flip(&entry, at, 1));
        }
    };
    let remove = |drive: &MemoryDrive, entry: Entry| drive.set_raw(&entry, None);
    for (geometry, count) in [("4+2", 6), ("8+3", 11), ("raid6:5", 5)] {
        let [first, then] = spoilt(geometry, count, damage);
        // What is damaged is read up to where it is, a quarter of a megabyte at a time.
        assert!(first < 1.9 && then < 1.25, "{geometry}: {first}, {then}");
        let [first, then] = spoilt(geometry, count, remove);
        assert!(first < 1.9 && then < 1.12, "{geometry}: {first}, {then}");
    }
}
