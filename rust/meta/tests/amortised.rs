//! What a put costs does not depend on how many there are: bytes written, counted at the drives.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::print_stdout, reason = "the figures are of interest")]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dwk_base::Seams;
use dwk_drive::{Drive, MemoryDrive};
use dwk_meta::{Change, Meta, Options};
use dwk_pool::{NewDrive, OpenOptions, Pool, PoolOptions, SpaceOptions};
use world::{Counting, bytes, holder};

/// Puts that one commit brings: as many as would wait together.
const TOGETHER: u64 = 8;
const VALUE_BYTES: usize = 100;

fn options() -> Options {
    Options { journal_bytes_max: 256 << 10, ..Options::default() }
}

/// A sixteenth of what is usual, so that there is as much to do among fewer objects.
fn pool_options() -> PoolOptions {
    let journal = dwk_journal::Options {
        segment_bytes: 128 << 10,
        record_bytes_max: 56 << 10,
        batch_bytes_max: 56 << 10,
        ..dwk_journal::Options::default()
    };
    let space = SpaceOptions {
        shard_bytes_max: 256 << 10,
        block_bytes: 4 << 10,
        ..SpaceOptions::default()
    };
    PoolOptions { space, journal, ..world::pool_options() }
}

fn put_some(meta: &Arc<Meta>, from: u64) {
    let mut change = Change::new();
    for n in from..from + TOGETHER {
        let mut upload = meta.upload();
        upload.append(&bytes(n, VALUE_BYTES)).unwrap();
        // Not in the order of their keys.
        let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
        change = change.put(key, b"body".to_vec(), Some(upload.finish().unwrap()));
    }
    meta.commit(change).unwrap();
}

/// A new pool on three drives that count together.
fn create(name: &str, options: Options) -> (Vec<Counting>, Arc<Meta>) {
    let (written_bytes, removals) = (Arc::default(), Arc::default());
    let drive = |n| Counting {
        written_bytes: Arc::clone(&written_bytes),
        removals: Arc::clone(&removals),
        ..Counting::new(MemoryDrive::new(format!("{name}{n}")))
    };
    let drives: Vec<_> = (1..=3).map(drive).collect();
    let new = |drive: &Counting| NewDrive {
        drive: Arc::new(drive.clone()),
        name: drive.describe().location,
        labels: BTreeMap::new(),
    };
    let new: Vec<_> = drives.iter().map(new).collect();
    let (geometry, seams) = ("2+1".parse().unwrap(), Seams::system());
    let pool = Pool::create(&new, &geometry, &pool_options(), seams, &holder()).unwrap();
    (drives, Meta::create(pool, options).unwrap())
}

/// Bytes written until now and by folding what was put until now.
fn settled(meta: &Arc<Meta>, drives: &[Counting]) -> u64 {
    meta.checkpoint().unwrap();
    drives[0].written_bytes.load(Ordering::Relaxed)
}

/// Bytes written per put in the last half of the way to 10^3, 10^4, … objects; reopened now and then if at all.
fn costs(name: &str, reopen: bool) -> Vec<f64> {
    let (drives, mut meta) = create(name, options());
    let powers = if std::env::var_os("DWK_LONG").is_some() { 3..=6 } else { 3..=5 };
    let (mut costs, mut count) = (Vec::new(), 0);
    for power in powers {
        let end = 10u64.pow(power);
        let mut before = None;
        let reopen_every = if reopen { (end / 25).max(4000) } else { u64::MAX };
        while count < end {
            put_some(&meta, count);
            count += TOGETHER;
            if count % reopen_every < TOGETHER {
                meta.close().unwrap();
                let here = drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>);
                let open = OpenOptions { pool: pool_options(), ..OpenOptions::default() };
                let pool = Pool::open(here.collect(), open, Seams::system(), &holder()).unwrap();
                meta = Meta::open(pool, options()).unwrap();
            }
            if before.is_none() && count >= end / 2 {
                before = Some((count, settled(&meta, &drives)));
            }
        }
        let (first, before) = before.unwrap();
        let cost = (settled(&meta, &drives) - before) as f64 / (count - first) as f64;
        println!("{name}: {cost:.0} bytes written per put of {VALUE_BYTES} at {end} objects");
        costs.push(cost);
    }
    assert_eq!(meta.status().rows, count);
    costs
}

#[test]
fn a_put_costs_as_much_among_many_objects_as_among_few() {
    let costs = costs("open", false);
    assert!(costs[costs.len() - 1] <= 2.0 * costs[0], "{costs:?}");
}

#[test]
fn reopening_now_and_then_does_not_make_puts_dearer() {
    let costs = costs("reopened", true);
    assert!(costs[costs.len() - 1] <= 2.0 * costs[0], "{costs:?}");
}

#[test]
fn many_stripes_are_given_back_with_few_syncs() {
    let (drives, meta) = create("removed", Options::default());
    let key = |n: u64| format!("k{n:03}").into_bytes();
    for n in 0..200 {
        world::put(&meta, &key(n), &bytes(n, 70_000)).unwrap();
    }
    for n in 0..200 {
        world::delete(&meta, &key(n)).unwrap();
    }
    assert_eq!(meta.collect().unwrap().dropped_stripes, 200);
    let left = drives.iter().map(|drive| drive.list(Some("s"), None, 1000).unwrap().len());
    assert_eq!(left.sum::<usize>(), 0);
    let removals = drives[0].removals.load(Ordering::Relaxed);
    assert!(removals <= 3, "{removals} syncs for 200 stripes on three drives");
}
