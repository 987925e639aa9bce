//! Membership changes in two steps: cut off anywhere, no drive is lost and nothing that was decided is undone.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use dwk_base::{Epoch, Random, Result, Seams, SeededRandom, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{BlobName, Drive, Edition, Entry, FaultyDrive, Log, MemoryDrive, Slot, Superblock};
use dwk_meta::Meta;
use dwk_pool::{Control, NewDrive, Pool, PoolStatus, Redundancy, State};
use world::{Model, World, bytes, check, create_on, get, holder, open_on, options, put};

fn status(meta: &Arc<Meta>) -> PoolStatus {
    meta.pool().status(&**meta).unwrap()
}

fn close(meta: Arc<Meta>) {
    meta.close().unwrap();
    drop(meta);
}

fn add(meta: &Arc<Meta>, model: &mut Model, key: &str, content: Vec<u8>) -> Result<()> {
    put(meta, key.as_bytes(), &content)?;
    model.insert(key.as_bytes().to_vec(), content);
    Ok(())
}

/// What is in force on a drive.
fn edition(drive: &dyn Drive) -> Edition {
    Superblock::load(drive).unwrap().unwrap().in_force.unwrap().superblock.edition()
}

/// A change of membership, and what it writes beside it.
type Script = fn(&World, &Arc<Meta>, &mut Model) -> Result<()>;

fn opening(_: &World, meta: &Arc<Meta>, _: &mut Model) -> Result<()> {
    meta.pool().check_open()
}

fn closing(_: &World, meta: &Arc<Meta>, model: &mut Model) -> Result<()> {
    add(meta, model, "small", bytes(1, 300))?;
    meta.close()
}

fn eviction(world: &World, meta: &Arc<Meta>, model: &mut Model) -> Result<()> {
    world.drives[1].set_vanished(true);
    add(meta, model, "small", bytes(1, 300))?;
    add(meta, model, "large", bytes(2, 20_000))
}

fn replace(world: &World, meta: &Arc<Meta>, model: &mut Model) -> Result<()> {
    let fresh = FaultyDrive::new(Arc::new(world.spare.clone()), &world.power, 99);
    let fresh: Arc<dyn Drive> = Arc::new(fresh);
    meta.pool().replace(&**meta, "d2", &fresh, &holder(), &Control::default())?;
    add(meta, model, "behind", bytes(3, 300))
}

/// Cuts at each step of an opening and of `script`. After each cut the pool goes on without any one drive,
/// which then comes back.
fn cut_everywhere(count: usize, geometry: &'static str, script: Script) {
    let seeds = if std::env::var_os("DWK_LONG").is_some() { 20 } else { 1 };
    for seed in 0..seeds {
        for step in 1.. {
            let mut world = World::new(count, geometry, seed * 1000 + step);
            let mut model = Model::new();
            let meta = world.create().unwrap();
            add(&meta, &mut model, "before", bytes(7, 30_000)).unwrap();
            close(meta);
            world.power.cut_in(step);
            let done = world.open().and_then(|meta| script(&world, &meta, &mut model));
            let is_cut = world.power.is_cut();
            assert!(is_cut || done.is_ok(), "step {step}: {done:?}");
            world.restart();
            let when = format!("{geometry}, seed {seed}, cut at step {step}");
            go_on_without_each(&world, &model, &when);
            if !is_cut {
                assert!(step > 8, "only {step} steps");
                break;
            }
        }
    }
}

/// What was not acknowledged before the cut is there or not.
fn settle(meta: &Arc<Meta>, model: &mut Model) {
    for key in ["small", "large", "behind"].map(|key| key.as_bytes().to_vec()) {
        if let Some(content) = get(meta, &key).unwrap() {
            model.insert(key, content);
        }
    }
}

fn go_on_without_each(world: &World, model: &Model, when: &str) {
    for gone in 0..world.copies().len() {
        let when = format!("{when}, without {:?}", world.copies()[gone]);
        let all = world.copies();
        let left: Vec<_> = all.iter().enumerate().filter(|(n, _)| *n != gone).collect();
        let left: Vec<_> = left.into_iter().map(|(_, drive)| drive.clone()).collect();
        let meta = open_on(&left, options()).unwrap_or_else(|error| panic!("{when}: {error}"));
        let mut model = model.clone();
        settle(&meta, &mut model);
        check(&meta, &model, &when);
        // The last half of a mirror is only read.
        if meta.pool().check_writable().is_ok() {
            add(&meta, &mut model, "meanwhile", bytes(8, 20_000)).unwrap();
            add(&meta, &mut model, "inline", bytes(9, 200)).unwrap();
        }
        close(meta);
        comes_back(&all, &mut model, &when);
    }
}

/// The drive that was away is there again: it is one of the others, and everything is as safe as it was.
fn comes_back(all: &[MemoryDrive], model: &mut Model, when: &str) {
    let meta = open_on(all, options()).unwrap_or_else(|error| panic!("{when}: {error}"));
    settle(&meta, model);
    check(&meta, model, when);
    let now = status(&meta);
    assert!(now.drives.iter().all(|drive| drive.state != State::Foreign), "{when}: {now:?}");
    assert!(!now.warnings.iter().any(|text| text.contains("not merged")), "{when}: {now:?}");
    meta.pool().rebuild(&*meta, None, &Control::default()).unwrap();
    let now = status(&meta);
    assert_eq!(now.redundancy, Redundancy::Full, "{when}: {now:?}");
    assert!(now.drives.iter().all(|drive| drive.state == State::Ok), "{when}: {now:?}");
    assert_eq!(now.advice, Vec::<String>::new(), "{when}: {now:?}");
    check(&meta, model, when);
    let members: Vec<_> = now.drives.iter().map(|drive| drive.location.clone()).collect();
    close(meta);
    let members = all.iter().filter(|drive| members.contains(&drive.describe().location));
    let editions: Vec<_> = members.map(|drive| edition(drive)).collect();
    assert!(editions.windows(2).all(|pair| pair[0] == pair[1]), "{when}: {editions:?}");
}

#[test]
fn power_cut_at_every_step_of_an_opening_costs_no_drive() {
    cut_everywhere(3, "2+1", opening);
    cut_everywhere(2, "mirror:2", opening);
}

#[test]
fn power_cut_at_every_step_of_a_close_costs_no_drive() {
    cut_everywhere(3, "2+1", closing);
    cut_everywhere(2, "mirror:2", closing);
}

#[test]
fn power_cut_at_every_step_of_an_eviction_costs_no_drive() {
    // The drive that is evicted is one loss, the one that is away afterwards another.
    cut_everywhere(5, "2+2", eviction);
}

#[test]
fn power_cut_at_every_step_of_a_replace_costs_no_drive() {
    cut_everywhere(3, "2+1", replace);
}

/// Lets only one of the drives be written a superblock while `change` is tried.
fn only(index: usize, world: &World, change: impl FnOnce() -> Result<()>) {
    let refuse = Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::WriteSuperblock);
    for (_, drive) in world.drives.iter().enumerate().filter(|(other, _)| *other != index) {
        drive.inject(refuse.clone());
    }
    let error = change().unwrap_err();
    assert!(error.is(&codes::DRIVES_TOO_MANY_LOST), "{error}");
    assert!(error.message().contains("reached 1 drives and needs 2"), "{error}");
    world.drives.iter().for_each(FaultyDrive::heal);
}

#[test]
fn tries_that_never_counted_do_not_revert_what_the_rest_decided() {
    let mut world = World::new(3, "2+1", 11);
    let mut model = Model::new();
    let meta = world.create().unwrap();
    add(&meta, &mut model, "before", bytes(1, 30_000)).unwrap();
    close(meta);
    for _ in 0..3 {
        only(2, &world, || world.open().map(drop));
        world.restart();
    }
    let all = world.copies();
    let meta = open_on(&all[..2], options()).unwrap();
    let fresh = MemoryDrive::new("fresh");
    let shared: Arc<dyn Drive> = Arc::new(fresh.clone());
    meta.pool().replace(&*meta, "d2", &shared, &holder(), &Control::default()).unwrap();
    add(&meta, &mut model, "decided", bytes(2, 30_000)).unwrap();
    // As a kill leaves it: no closing that would raise the epoch.
    drop(meta);
    let again = vec![all[0].clone(), fresh, all[2].clone()];
    comes_back(&again, &mut model, "tried");
    let meta = open_on(&again, options()).unwrap();
    assert_eq!(status(&meta).drives.len(), 3);
}

#[test]
fn what_is_in_force_stays_on_a_drive_that_hears_of_tries_only() {
    let world = World::new(3, "2+1", 12);
    let meta = world.create().unwrap();
    let before = edition(&world.drives[2]);
    for _ in 0..3 {
        let scrub = || meta.pool().scrub(&*meta, &Control::default()).map(drop);
        only(2, &world, scrub);
        assert_eq!(edition(&world.drives[2]), before);
    }
    meta.pool().scrub(&*meta, &Control::default()).unwrap();
    assert!(world.drives.iter().all(|drive| edition(drive) == edition(&world.drives[0])));
    assert_ne!(edition(&world.drives[2]), before);
}

fn shared(drive: &(impl Drive + Clone + 'static)) -> Arc<dyn Drive> {
    Arc::new(drive.clone())
}

fn forced(drives: Vec<Arc<dyn Drive>>) -> Arc<Meta> {
    let pool = world::pool_options();
    let open = dwk_pool::OpenOptions { pool, force: true, ..Default::default() };
    let pool = Pool::open(drives, open, Seams::system(), &holder()).unwrap();
    Meta::open(pool, options()).unwrap()
}

#[test]
fn a_drive_that_went_on_alone_is_foreign_all_the_same() {
    let all = world::drives_of(3, "split", 1 << 30);
    let meta = create_on(&all, "mirror:3", options());
    put(&meta, b"both", b"1").unwrap();
    close(meta);
    let alone = forced(all[..1].iter().map(shared).collect());
    put(&alone, b"both", b"alone").unwrap();
    close(alone);
    for content in [b"2", b"3"] {
        let rest = open_on(&all[1..], options()).unwrap();
        put(&rest, b"both", content).unwrap();
        close(rest);
    }
    let meta = open_on(&all, options()).unwrap();
    assert_eq!(status(&meta).drives[0].state, State::Foreign);
    assert_eq!(get(&meta, b"both").unwrap().unwrap(), b"3");
}

#[test]
fn a_drive_that_went_on_alone_is_foreign_if_only_what_it_proposed_then_can_be_read() {
    let world = World::new(3, "mirror:3", 85);
    let meta = world.create().unwrap();
    let lone = &world.drives[0];
    for gone in &world.drives[1..] {
        gone.set_vanished(true);
        put(&meta, b"key", b"alone").unwrap();
    }
    // Closing is proposed and does not come in force.
    let once = Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::WriteSuperblock);
    lone.inject(once.after(1).times(1));
    assert!(meta.close().is_err());
    drop(meta);
    let loaded = Superblock::load(lone).unwrap().unwrap();
    assert!(loaded.proposed.is_some());
    let slot = loaded.in_force.unwrap().slot;
    let slot = if slot == Slot::A { Entry::SuperblockA } else { Entry::SuperblockB };
    world.memory[0].flip(&slot, 100, 1);
    world.drives[1..].iter().for_each(|drive| drive.set_vanished(false));
    for content in [b"2", b"3", b"4"] {
        let rest = forced(world.drives[1..].iter().map(shared).collect());
        put(&rest, b"key", content).unwrap();
        close(rest);
    }
    let meta = world.open().unwrap();
    assert_eq!(status(&meta).drives[0].state, State::Foreign);
    assert_eq!(get(&meta, b"key").unwrap().unwrap(), b"4");
}

/// True if making the pool, cut at `step`, was cut at all. Whatever is left is a pool or can be made one.
fn cut_create(count: usize, geometry: &'static str, seed: u64, step: u64, again: u64) -> bool {
    let when = format!("{geometry}, seed {seed}, cut at step {step}, then {again}");
    let mut world = World::new(count, geometry, seed << 32 | step);
    world.power.cut_in(step);
    let made = world.create();
    let is_cut = world.power.is_cut();
    assert!(is_cut || made.is_ok(), "{when}: {made:?}");
    drop(made);
    world.restart();
    for gone in 0..count {
        let mut left = world.copies();
        left.remove(gone);
        match open_on(&left, options()) {
            Ok(meta) => check(&meta, &Model::new(), &when),
            Err(error) => {
                let none = error.is(&codes::STORE_UNFINISHED) || error.is(&codes::STORE_NOT_FOUND);
                assert!(is_cut && none, "{when}, without {gone}: {error}");
            }
        }
    }
    if is_cut
        && again > 0
        && world.drives.iter().all(|drive| !dwk_pool::carries_pool(drive).unwrap())
    {
        world.power.cut_in(again);
        drop(world.create());
        world.restart();
    }
    let before = world.copies();
    let opened = open_on(&before, options());
    let meta = match opened {
        Ok(meta) => meta,
        Err(error) => {
            let none = error.is(&codes::STORE_UNFINISHED) || error.is(&codes::STORE_NOT_FOUND);
            assert!(is_cut && none, "{when}: {error}");
            create_on(&before, geometry, options())
        }
    };
    let mut model = Model::new();
    add(&meta, &mut model, "key", bytes(1, 20_000)).unwrap();
    close(meta);
    for drive in &before {
        let logs = drive.entries().into_iter().filter(|entry| matches!(entry, Entry::Log(_)));
        assert!(logs.count() <= 4, "{when}: nothing is left of an earlier try");
    }
    comes_back(&before, &mut model, &when);
    is_cut
}

#[test]
fn power_cut_at_every_step_of_create_leaves_a_pool_or_drives_that_can_be_made_one() {
    for (count, geometry) in [(3, "2+1"), (2, "mirror:2")] {
        for seed in 0..4 {
            let cuts =
                (1..1000).take_while(|step| cut_create(count, geometry, seed, *step, 0)).count();
            assert!(cuts > 5 * count, "only {cuts} steps");
            for step in 1..=cuts as u64 {
                cut_create(count, geometry, seed, step, 1 + (step * 7 + seed) % cuts as u64);
            }
        }
    }
}

fn create(drives: &[MemoryDrive]) -> Result<Arc<Pool>> {
    let new = drives.iter().map(|drive| NewDrive {
        drive: Arc::new(drive.clone()),
        name: drive.describe().location,
        labels: BTreeMap::new(),
    });
    let (new, seams) = (new.collect::<Vec<_>>(), Seams::system());
    Pool::create(&new, &"2+1".parse()?, &world::pool_options(), seams, &holder())
}

/// Drives on which making a pool was cut off just before it was in force.
fn unborn() -> Vec<MemoryDrive> {
    for step in 1.. {
        let mut world = World::new(3, "2+1", 70);
        world.power.cut_in(step);
        drop(world.create());
        world.restart();
        let all = world.copies();
        let logs = |drive: &MemoryDrive| !drive.list_logs().unwrap().is_empty();
        if all.iter().all(|drive| dwk_pool::is_unfinished(drive).unwrap())
            && all[..2].iter().all(logs)
        {
            return all;
        }
    }
    unreachable!()
}

#[test]
fn making_a_pool_again_leaves_no_log_of_the_first_try() {
    let all = unborn();
    let left = BlobName::new("journal.0007").unwrap();
    for drive in &all {
        drive.create_log(&left, 64 << 10).unwrap();
    }
    assert!(open_on(&all, options()).unwrap_err().is(&codes::STORE_UNFINISHED));
    drop(create_on(&all, "2+1", options()));
    let logs: Vec<_> = all.iter().flat_map(|drive| drive.list_logs().unwrap()).collect();
    assert!(!logs.iter().any(|log| log.name == left), "{logs:?}");
}

#[test]
fn an_unborn_drive_with_a_blob_is_not_taken_for_an_empty_one() {
    let all = unborn();
    all[1].put(&BlobName::new("s/ab").unwrap(), &[bytes::Bytes::from_static(b"x")]).unwrap();
    assert!(create(&all).unwrap_err().is(&codes::DRIVE_NOT_EMPTY));
    assert!(open_on(&all, options()).unwrap_err().is(&codes::STORE_UNFINISHED));
}

#[test]
fn a_drive_whose_very_first_superblock_is_torn_is_empty_and_one_that_held_more_is_not() {
    let torn = || {
        let drives = world::drives_of(3, "torn", 1 << 30);
        drives[0].set_raw(&Entry::SuperblockA, Some(vec![7; 4096]));
        drives
    };
    let all = torn();
    assert!(open_on(&all, options()).unwrap_err().is(&codes::STORE_UNFINISHED));
    create(&all).unwrap();
    let all = torn();
    all[0].create_log(&BlobName::new("journal.0000").unwrap(), 64 << 10).unwrap();
    assert!(create(&all).unwrap_err().is(&codes::DRIVE_NOT_EMPTY));
    assert!(open_on(&all, options()).unwrap_err().is(&codes::SUPERBLOCK_DAMAGED));
    let all = torn();
    all[0].set_raw(&Entry::SuperblockB, Some(vec![7; 4096]));
    assert!(create(&all).unwrap_err().is(&codes::DRIVE_NOT_EMPTY));
}

#[test]
fn a_drive_of_a_pool_that_was_not_made_is_no_part_of_one_that_was() {
    let mut all = world::drives_of(3, "made", 1 << 30);
    let meta = create_on(&all, "2+1", options());
    put(&meta, b"key", b"value").unwrap();
    close(meta);
    all[2] = unborn()[2].clone();
    let meta = open_on(&all, options()).unwrap();
    assert_eq!(get(&meta, b"key").unwrap().unwrap(), b"value");
    assert_eq!(status(&meta).drives[2].state, State::Missing);
    let fresh: Arc<dyn Drive> = Arc::new(all[2].clone());
    meta.pool().replace(&*meta, "d3", &fresh, &holder(), &Control::default()).unwrap();
    assert_eq!(status(&meta).redundancy, Redundancy::Full);
}

#[test]
fn no_slot_of_a_new_pool_says_that_it_is_unborn() {
    let all = world::drives_of(3, "new", 1 << 30);
    create(&all).unwrap();
    for (drive, slot) in all.iter().zip([Entry::SuperblockA, Entry::SuperblockB]) {
        drive.flip(&slot, 70, 1);
    }
    assert!(all.iter().all(|drive| dwk_pool::carries_pool(drive).unwrap()));
}

/// Openings of some of the drives, cut off anywhere, one after another. At the end all are back.
fn random_history(count: usize, geometry: &'static str, tolerance: usize, seed: u64) {
    let random = SeededRandom::new(seed);
    let mut world = World::new(count, geometry, seed);
    let (mut model, mut unsure) = (Model::new(), Vec::new());
    world.create().unwrap().close().unwrap();
    for round in 0..10 {
        let mut gone: Vec<usize> = (0..count).collect();
        while gone.len() > tolerance || random.below(3) == 0 && !gone.is_empty() {
            gone.swap_remove(random.below(gone.len() as u64) as usize);
        }
        world.power.cut_in(1 + random.below(40));
        let key = format!("key{round}").into_bytes();
        // It may be refused: what was written without some drives needs those with which it was.
        if let Ok(meta) = world.open_without(&gone) {
            match put(&meta, &key, &bytes(round, 300)) {
                Ok(_) => drop(model.insert(key, bytes(round, 300))),
                Err(_) => unsure.push(key),
            }
            if random.below(2) == 0 {
                let _ = meta.close();
            }
        }
        world.restart();
    }
    let when = format!("{geometry}, seed {seed}");
    let meta = world.open().unwrap_or_else(|error| panic!("{when}: {error}"));
    for key in unsure {
        if let Some(content) = get(&meta, &key).unwrap() {
            model.insert(key, content);
        }
    }
    close(meta);
    comes_back(&world.copies(), &mut model, &when);
}

/// A drive that was away took up a proposal, was cut off in an opening that went on from that, and was away
/// while the rest went on from something else.
#[test]
fn a_drive_on_which_only_proposals_are_left_is_one_of_the_others() {
    random_history(5, "2+2", 2, 388);
}

#[test]
fn openings_of_some_drives_cut_off_one_after_another_lose_no_drive_and_no_write() {
    let seeds = if std::env::var_os("DWK_LONG").is_some() { 1000 } else { 20 };
    for seed in 0..seeds {
        random_history(3, "2+1", 1, seed);
        random_history(5, "2+2", 2, seed);
        random_history(6, "4+2", 2, seed);
    }
}

#[test]
fn who_only_reads_judges_alike_and_writes_nothing() {
    let world = World::new(3, "2+1", 13);
    let meta = world.create().unwrap();
    put(&meta, b"key", b"value").unwrap();
    let scrub = || meta.pool().scrub(&*meta, &Control::default()).map(drop);
    let proposed = |index: usize| {
        let loaded = Superblock::load(&world.drives[index]).unwrap().unwrap();
        loaded.proposed.unwrap().superblock.epoch
    };
    let now = meta.pool().epoch();
    only(2, &world, scrub);
    assert!(proposed(2) > now);
    look(&world, now, "those that hold the journal lack it, so it is in force nowhere");
    only(1, &world, scrub);
    look(&world, proposed(1), "it may be in force on a drive that is away");
}

/// Opens copies of the drives only to read, and finds that epoch.
fn look(world: &World, epoch: Epoch, why: &str) {
    let all = world.copies();
    let dump =
        || all.iter().map(|d| d.entries().into_iter().map(|e| d.raw(&e)).collect::<Vec<_>>());
    let before: Vec<_> = dump().collect();
    let drives = all.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>).collect();
    let pool = world::pool_options();
    let open = dwk_pool::OpenOptions { pool, read_only: true, ..Default::default() };
    let pool = Pool::open(drives, open, Seams::system(), &holder()).unwrap();
    assert_eq!(pool.epoch(), epoch, "{why}");
    let reader = Meta::open(pool, options()).unwrap();
    assert_eq!(get(&reader, b"key").unwrap().unwrap(), b"value");
    reader.close().unwrap();
    assert!(before == dump().collect::<Vec<_>>());
}
