//! After a loss and its repair everything is as safe as before, whatever was written meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dwk_base::{Result, Seams, codes};
use dwk_drive::{Drive, MemoryDrive};
use dwk_meta::{Change, Meta};
use dwk_pool::{Control, NewDrive, OpenOptions, Pool, PoolStatus, Redundancy};
use world::{Model, World, bytes, check, get, holder, options, pool_options, put};

fn drives(count: usize) -> Vec<MemoryDrive> {
    (1..=count).map(|n| MemoryDrive::new(format!("d{n}"))).collect()
}

fn shared(drive: &MemoryDrive) -> Arc<dyn Drive> {
    Arc::new(drive.clone())
}

fn create(drives: &[MemoryDrive], geometry: &str) -> Arc<Meta> {
    let new = drives.iter().enumerate().map(|(n, drive)| NewDrive {
        drive: shared(drive),
        name: format!("d{}", n + 1),
        labels: BTreeMap::new(),
    });
    let (new, geometry) = (new.collect::<Vec<_>>(), geometry.parse().unwrap());
    let pool = Pool::create(&new, &geometry, &pool_options(), Seams::system(), &holder()).unwrap();
    Meta::create(pool, options()).unwrap()
}

fn open(drives: &[MemoryDrive]) -> Result<Arc<Meta>> {
    let open = OpenOptions { pool: pool_options(), ..OpenOptions::default() };
    let drives = drives.iter().map(shared).collect();
    Meta::open(Pool::open(drives, open, Seams::system(), &holder())?, options())
}

fn close(meta: Arc<Meta>) {
    meta.close().unwrap();
    drop(meta);
}

fn status(meta: &Arc<Meta>) -> PoolStatus {
    meta.pool().status(&**meta).unwrap()
}

fn replace(meta: &Arc<Meta>, old: &str, new: &MemoryDrive) -> dwk_pool::RebuildReport {
    let control = Control::default();
    meta.pool().replace(&**meta, old, &shared(new), &holder(), &control).unwrap()
}

/// Values large and small, some of them folded.
fn fill(meta: &Arc<Meta>, name: &str) -> Model {
    let mut model = Model::new();
    for n in 0..18u64 {
        let length = if n % 6 == 5 { 30_000 } else { 500 };
        let (key, content) = (format!("{name}{n}").into_bytes(), bytes(n, length));
        put(meta, &key, &content).unwrap();
        model.insert(key, content);
        if n == 11 {
            meta.checkpoint().unwrap();
        }
    }
    model
}

/// Whichever drives are lost, up to `lost` of them: what is left opens, and everything is there.
fn check_every_loss(drives: &[MemoryDrive], lost: u32, model: &Model) {
    for pattern in 0u32..1 << drives.len() {
        if pattern.count_ones() > lost {
            continue;
        }
        let left = drives.iter().enumerate().filter(|(n, _)| pattern >> n & 1 == 0);
        // Copies, for an opening writes.
        let left: Vec<_> = left.map(|(_, drive)| copy(drive)).collect();
        let when = format!("without {pattern:b}");
        let meta = open(&left).unwrap_or_else(|error| panic!("{when}: {error}"));
        check(&meta, model, &when);
    }
}

fn copy(drive: &MemoryDrive) -> MemoryDrive {
    let copy = MemoryDrive::new(drive.describe().location);
    for entry in drive.entries() {
        copy.set_raw(&entry, drive.raw(&entry));
    }
    copy
}

fn says_rebuild(status: &PoolStatus) -> bool {
    status.redundancy == Redundancy::Degraded
        && status.weak_stripes > 0
        && status.advice.iter().any(|advice| advice.contains("run `rebuild`"))
}

#[test]
fn what_was_written_on_too_few_drives_is_as_safe_as_the_rest_once_they_are_replaced() {
    for (geometry, count) in [("mirror:2", 2), ("mirror:3", 3), ("1+2", 3)] {
        let mut all = drives(count);
        let meta = create(&all, geometry);
        let mut model = fill(&meta, "before");
        close(meta);
        let meta = open(&all[..1]).unwrap();
        assert_eq!(status(&meta).weak_stripes, 0, "{geometry}");
        model.extend(fill(&meta, "meanwhile"));
        assert!(says_rebuild(&status(&meta)), "{geometry}: {:?}", status(&meta));
        let again = meta.pool().rebuild(&*meta, None, &Control::default()).unwrap();
        assert!(!again.is_complete() && again.weak_stripes > 0, "{geometry}: {again:?}");
        for (n, drive) in all.iter_mut().enumerate().skip(1) {
            assert!(says_rebuild(&status(&meta)), "{geometry}: {:?}", status(&meta));
            let fresh = MemoryDrive::new(format!("fresh{n}"));
            let report = replace(&meta, &format!("d{}", n + 1), &fresh);
            assert_eq!(report.is_complete(), n == count - 1, "{geometry}: {report:?}");
            assert!(report.widened_stripes > 0, "{geometry}: {report:?}");
            *drive = fresh;
        }
        let now = status(&meta);
        assert_eq!((now.redundancy, now.weak_stripes), (Redundancy::Full, 0), "{geometry}");
        assert_eq!(now.advice, Vec::<String>::new(), "{geometry}");
        check(&meta, &model, geometry);
        close(meta);
        check_every_loss(&all, count as u32 - 1, &model);
    }
}

#[test]
fn what_was_written_on_too_few_drives_is_as_safe_as_the_rest_once_they_are_back() {
    for (geometry, count) in [("mirror:2", 2), ("mirror:3", 3)] {
        let all = drives(count);
        close(create(&all, geometry));
        let meta = open(&all[..1]).unwrap();
        let model = fill(&meta, "meanwhile");
        close(meta);
        let meta = open(&all).unwrap();
        let now = status(&meta);
        assert_eq!((now.redundancy, now.weak_stripes), (Redundancy::Full, 0), "{geometry}");
        check(&meta, &model, geometry);
        close(meta);
        check_every_loss(&all, count as u32 - 1, &model);
    }
}

#[test]
fn a_replace_is_not_done_while_stripes_are_yet_to_be_made_safer() {
    let all = drives(2);
    close(create(&all, "mirror:2"));
    let meta = open(&all[..1]).unwrap();
    fill(&meta, "meanwhile");
    let told: Arc<Mutex<Vec<(f64, u64)>>> = Arc::default();
    let (tell, looks) = (Arc::clone(&told), Arc::clone(&meta));
    let control = Control::new().on_progress(move |progress| {
        let weak = looks.pool().space().weak_stripes(&*looks).unwrap();
        tell.lock().unwrap().push((progress.fraction, weak));
    });
    let new = shared(&MemoryDrive::new("fresh"));
    let report = meta.pool().replace(&*meta, "d2", &new, &holder(), &control).unwrap();
    assert!(report.is_complete() && report.widened_stripes > 0, "{report:?}");
    let told = told.lock().unwrap();
    assert!(told.iter().all(|(fraction, weak)| *fraction < 1.0 || *weak == 0), "{told:?}");
    assert!(told.is_sorted_by(|one, other| one.0 <= other.0), "{told:?}");
    assert!(told.iter().any(|(_, weak)| *weak > 0), "{told:?}");
    assert_eq!(told.last().unwrap().0.to_bits(), 1f64.to_bits(), "{told:?}");
}

#[test]
fn content_on_its_way_that_was_written_on_too_few_drives_is_not_as_safe_as_the_rest() {
    let mut all = drives(2);
    close(create(&all, "mirror:2"));
    let meta = open(&all[..1]).unwrap();
    let mut upload = meta.upload();
    upload.append(&bytes(1, 50_000)).unwrap();
    let staged = upload.finish().unwrap();
    all[1] = MemoryDrive::new("fresh");
    let report = replace(&meta, "d2", &all[1]);
    assert!(report.weak_stripes > 0 && !report.is_complete(), "{report:?}");
    assert!(says_rebuild(&status(&meta)), "{:?}", status(&meta));
    let change = Change::new().put(b"key".to_vec(), b"body".to_vec(), Some(staged));
    meta.commit(change).unwrap();
    assert!(says_rebuild(&status(&meta)), "{:?}", status(&meta));
    assert!(meta.pool().rebuild(&*meta, None, &Control::default()).unwrap().is_complete());
    assert_eq!(status(&meta).redundancy, Redundancy::Full);
    // One that nobody commits is no reason to say so for ever.
    let mut upload = meta.upload();
    upload.append(&bytes(2, 50_000)).unwrap();
    drop(upload);
    assert_eq!(status(&meta).redundancy, Redundancy::Full);
    close(meta);
    check_every_loss(&all, 1, &Model::from([(b"key".to_vec(), bytes(1, 50_000))]));
}

#[test]
fn what_a_reader_reads_while_it_is_made_safer_stays_right() {
    let all = drives(2);
    close(create(&all, "mirror:2"));
    let meta = open(&all[..1]).unwrap();
    put(&meta, b"key", &bytes(1, 50_000)).unwrap();
    let (_, mut reader) = meta.read(b"key").unwrap().unwrap();
    let mut content = vec![0; 50_000];
    reader.read_at(0, &mut content[..10_000]).unwrap();
    let report = replace(&meta, "d2", &MemoryDrive::new("fresh"));
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(status(&meta).weak_stripes, 0);
    reader.read_at(10_000, &mut content[10_000..]).unwrap();
    assert!(content == bytes(1, 50_000));
    assert!(get(&meta, b"key").unwrap().unwrap() == content);
}

#[test]
fn making_safer_survives_a_power_cut_at_every_step() {
    let begin = |seed| {
        let world = World::new(2, "mirror:2", seed);
        world.create().unwrap().close().unwrap();
        let meta = world.open_without(&[1]).unwrap();
        let model = fill(&meta, "meanwhile");
        meta.close().unwrap();
        (world, model)
    };
    let (world, _) = begin(70);
    let before = world.power.steps();
    drop(world.open().unwrap());
    let steps = world.power.steps() - before;
    assert!(steps > 50, "{steps}");
    let stride = if std::env::var_os("DWK_LONG").is_some() { 1 } else { 1 + steps / 40 };
    for step in (1..=steps).step_by(stride as usize) {
        let (mut world, model) = begin(70 + step);
        world.power.cut_in(step);
        drop(world.open());
        world.restart();
        let meta = world.open().unwrap_or_else(|error| panic!("step {step}: {error}"));
        check(&meta, &model, &format!("step {step}"));
        assert_eq!(status(&meta).redundancy, Redundancy::Full, "step {step}");
        close(meta);
        check_every_loss(&world.memory, 1, &model);
    }
}

#[test]
fn rebuilds_at_once_restore_everything_once() {
    let world = World::new(7, "4+2", 33);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for n in 0..40u64 {
        let (key, content) = (format!("k{n}").into_bytes(), bytes(n, 40_000));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    world.drives[0].set_vanished(true);
    put(&meta, b"x", &bytes(99, 40_000)).unwrap();
    model.insert(b"x".to_vec(), bytes(99, 40_000));
    let complete: usize = std::thread::scope(|scope| {
        let rebuild = || match meta.pool().rebuild(&*meta, None, &Control::default()) {
            Ok(report) => usize::from(report.is_complete()),
            Err(error) => {
                assert!(error.is(&codes::POOL_REPAIRING), "{error}");
                0
            }
        };
        let others: Vec<_> = (0..3).map(|_| scope.spawn(rebuild)).collect();
        others.into_iter().map(|other| other.join().unwrap()).sum()
    });
    assert!(complete >= 1, "one of them did it");
    let scrub = meta.pool().scrub(&*meta, &Control::default()).unwrap();
    assert_eq!((scrub.damaged_shards, scrub.absent_shards), (0, 0), "{scrub:?}");
    assert_eq!(meta.pool().status(&*meta).unwrap().degraded_stripes, 0);
    check(&meta, &model, "rebuilt");
}
