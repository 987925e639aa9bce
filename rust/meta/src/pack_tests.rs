//! What packing costs: it looks at the map for what it moves, not again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dwk_base::Seams;
use dwk_drive::{Holder, MemoryDrive};
use dwk_pool::{NewDrive, Pool, PoolOptions, SpaceOptions};

use crate::{Change, Meta, Options};

/// A store of small stripes.
fn create() -> Arc<Meta> {
    let new = |n: u64| NewDrive {
        drive: Arc::new(MemoryDrive::new(format!("d{n}"))),
        name: format!("d{n}"),
        labels: BTreeMap::new(),
    };
    let new: Vec<_> = (1..4).map(new).collect();
    let space =
        SpaceOptions { shard_bytes_max: 8 << 10, block_bytes: 4 << 10, ..SpaceOptions::default() };
    let options = PoolOptions { space, ..PoolOptions::default() };
    let holder = Holder { pid: 1, host: "test".into(), since_unix_ns: 0, program: "test".into() };
    let geometry = "2+1".parse().unwrap();
    let pool = Pool::create(&new, &geometry, &options, Seams::system(), &holder).unwrap();
    let options = Options { garbage_bytes_max: 1 << 40, ..Options::default() };
    Meta::create(pool, options).unwrap()
}

fn key(n: u64) -> Vec<u8> {
    format!("key{:08x}", n.wrapping_mul(0x9e37_79b1) as u32).into_bytes()
}

fn content(n: u64) -> Vec<u8> {
    (0..300).map(|at| (n.wrapping_mul(31) + at) as u8).collect()
}

fn read(meta: &Arc<Meta>, n: u64) -> Option<Vec<u8>> {
    let (_, mut reader) = meta.read(&key(n)).unwrap()?;
    let mut content = vec![0; reader.bytes() as usize];
    reader.read_at(0, &mut content).unwrap();
    Some(content)
}

#[test]
fn packing_many_stripes_looks_at_the_map_once() {
    let rows = if std::env::var_os("DWK_LONG").is_some() { 100_000 } else { 6_000 };
    let meta = create();
    // Many in a commit, so that nothing is to be folded meanwhile.
    for first in (0..rows).step_by(100) {
        let put = |change: Change, n| {
            let mut upload = meta.upload();
            upload.append(&content(n)).unwrap();
            change.put(key(n), Vec::new(), Some(upload.finish().unwrap()))
        };
        meta.commit((first..first + 100).fold(Change::new(), put)).unwrap();
    }
    meta.checkpoint().unwrap();
    let gone = |n: u64| n % 5 < 3;
    for first in (0..rows).step_by(100) {
        let gone = (first..first + 100).filter(|n| gone(*n));
        let delete = |change: Change, n| change.delete(key(n));
        meta.commit(gone.fold(Change::new(), delete)).unwrap();
    }
    meta.checkpoint().unwrap();
    let mut steps = 0;
    let (report, all) = meta
        .collect_while(|_, _| {
            steps += 1;
            // Beside it a row goes, and one is written anew.
            meta.commit(Change::new().delete(key(5 * steps + 3))).unwrap();
            meta.commit(Change::new().put(key(5 * steps + 4), Vec::new(), None)).unwrap();
            true
        })
        .unwrap();
    assert!(all && report.packed_bytes > rows * 100 && steps > 5, "{report:?} in {steps} steps");
    let looked = meta.keeper.looked_rows.load(Ordering::Relaxed);
    assert!(looked <= 3 * rows, "{looked} rows of {rows} were looked at in {steps} steps");
    println!("{looked} rows of {rows} looked at in {steps} steps");
    for n in 0..rows {
        let (group, place) = (n / 5, n % 5);
        let changed = (1..=steps).contains(&group) && place > 2;
        let expected = match () {
            () if gone(n) || changed && place == 3 => None,
            () if changed => Some(Vec::new()),
            () => Some(content(n)),
        };
        assert!(read(&meta, n) == expected, "{n}");
    }
    let state = meta.state();
    assert!(state.garbage_bytes() * 2 < state.stripe_bytes(), "half-empty stripes are left");
}
