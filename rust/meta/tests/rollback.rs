//! A drive goes back in time: an old copy of it, made by whatever copies drives, lies in its place.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;

use dwk_base::{Error, Seams, codes};
use dwk_drive::{Drive, MemoryDrive};
use dwk_meta::Meta;
use dwk_pool::{OpenOptions, Pool};
use world::{Model, World, bytes, check, copy_of, holder, options, pool_options, put};

fn open(drives: &[MemoryDrive], change: impl Fn(&mut OpenOptions)) -> Result<Arc<Meta>, Error> {
    let drives = drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>).collect();
    let mut open = OpenOptions { pool: pool_options(), ..OpenOptions::default() };
    change(&mut open);
    Meta::open(Pool::open(drives, open, Seams::system(), &holder())?, options())
}

/// Drives after three openings with a change in each, what they hold, and copies of them after each opening.
fn history(
    geometry: &'static str,
    count: usize,
) -> (Vec<MemoryDrive>, Model, Vec<Vec<MemoryDrive>>) {
    let world = World::new(count, geometry, 90);
    let mut meta = world.create().unwrap();
    let (mut model, mut copies) = (Model::new(), Vec::new());
    for round in 0..3u64 {
        for n in 0..6u64 {
            let (key, content) = (format!("k{n}").into_bytes(), bytes(round * 10 + n, 300));
            put(&meta, &key, &content).unwrap();
            model.insert(key, content);
        }
        meta.close().unwrap();
        drop(meta);
        copies.push(world.copies());
        meta = open(&world.memory, |_| {}).unwrap();
    }
    meta.close().unwrap();
    (world.copies(), model, copies)
}

#[test]
fn a_drive_that_went_back_in_time_is_brought_up_to_date_from_the_others() {
    for (geometry, count) in [("3+1", 4), ("4+2", 6)] {
        let (now, model, copies) = history(geometry, count);
        for old in &copies {
            for index in 0..count {
                let mut drives: Vec<_> = now.iter().map(copy_of).collect();
                drives[index] = copy_of(&old[index]);

                let meta = open(&drives, |open| open.read_only = true).unwrap();
                check(&meta, &model, "read only");
                meta.close().unwrap();
                let meta = open(&drives, |_| {}).unwrap();
                check(&meta, &model, "opened");
                meta.close().unwrap();
                for alone in 0..count {
                    let rest = drives.iter().enumerate().filter(|(i, _)| *i != alone);
                    let rest: Vec<_> = rest.map(|(_, drive)| copy_of(drive)).collect();
                    let meta = open(&rest, |_| {}).unwrap();
                    check(&meta, &model, "healed, and another one away");
                    meta.close().unwrap();
                }
            }
        }
    }
}

#[test]
fn an_old_copy_is_never_the_journal_when_all_other_members_are_away() {
    let (now, _, copies) = history("3+1", 4);
    for (old, copy) in copies.iter().enumerate() {
        let drives = [&copy[1], &now[2], &now[3]].map(copy_of);
        for read_only in [true, false] {
            let opened = open(&drives, |open| open.read_only = read_only);
            let error = opened.err().unwrap_or_else(|| panic!("opened with copy {old}"));
            assert!(error.is(&codes::JOURNAL_MEMBERS), "{error}");
            assert!(error.message().contains("not here: d1 ("), "{error}");
            assert!(error.message().contains("opened with force"), "{error}");
        }
        // What the old state refers to may be gone meanwhile; that is another error.
        match open(&drives, |open| open.force = true) {
            Err(error) => assert!(error.is(&codes::DATA_CORRUPT), "{error}"),
            Ok(meta) => {
                let told = meta.pool().status(&*meta).unwrap().warnings;
                assert!(told.iter().any(|text| text.contains("older states")), "{told:?}");
            }
        }
    }
}
