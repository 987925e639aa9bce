//! Scrub, rebuild and refresh: what is missing or damaged is whole again, whatever comes in between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwk_base::{StripeId, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{BlobName, Drive, Entry};

use super::super::orphans::SYNC_QUARANTINE;
use super::super::presence::{Found, Presence};
use super::super::recover::Recovery;
use super::super::restore::{Restored, SYNC_REPAIR, Wanted};
use super::super::{Control, header, lock};
use super::damage::{HARMS, Harm, harm};
use super::world::{NEVER, RS42, World, bytes};
use crate::{Ledger, Seat, State, Stripe};

type Stored = Vec<(Stripe, Vec<u8>)>;

fn fill(world: &World, count: u64) -> Stored {
    let content = |seed| bytes(seed, 5000 + (seed as usize * 7919) % 60_000);
    (0..count).map(|seed| (world.put(&content(seed)).unwrap(), content(seed))).collect()
}

/// Every stripe of the table has its content.
fn check(world: &World, stored: &Stored, when: &str) {
    for (stripe, content) in stored {
        let now = world.table.stripe(stripe.id).unwrap().unwrap();
        let read = world.get(&now).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert!(read == *content, "{when}");
    }
}

/// Any two drives can be lost.
fn check_redundant(world: &World, stored: &Stored, when: &str) {
    let drives = world.drives.len() as u16;
    for a in 0..drives {
        for b in a + 1..drives {
            let states = [a, b].map(|seat| world.roster.load().seats[usize::from(seat)].state);
            world.set_state(a, State::Failed);
            world.set_state(b, State::Failed);
            check(world, stored, when);
            world.set_state(a, states[0]);
            world.set_state(b, states[1]);
        }
    }
}

#[test]
fn a_rebuild_restores_what_is_gone_and_reads_only_what_it_needs() {
    let world = World::new(6, RS42, 1);
    let stored = fill(&world, 12);
    world.memory[2].wipe();
    let report = world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert_eq!((report.missing_shards, report.restored_shards), (12, 12));
    let needed: u64 = stored.iter().map(|(stripe, _)| 4 * u64::from(stripe.shard_bytes)).sum();
    assert_eq!(report.read_bytes, needed);
    assert!(report.is_complete());
    world.assert_whole("rebuilt");
    check_redundant(&world, &stored, "rebuilt");
    let again = world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert_eq!((again.missing_shards, again.read_bytes), (0, 0));
}

#[test]
fn what_lay_on_a_lost_drive_goes_to_others() {
    for which in [None, Some(2)] {
        let world = World::new(8, RS42, 2);
        let stored = fill(&world, 12);
        world.set_state(2, State::Missing);
        let lost = stored.iter().filter(|(stripe, _)| stripe.placement.contains(&2)).count();
        let report = world.space.rebuild(&world.table, which, &Control::default()).unwrap();
        assert_eq!(report.restored_shards, lost as u64);
        for stripe in lock(&world.table.stripes).values() {
            assert!(!stripe.placement.contains(&2));
        }
        world.memory[2].wipe();
        world.assert_whole("rebuilt");
        check_redundant(&world, &stored, "rebuilt");
    }
}

#[test]
fn a_preferred_drive_gets_the_shards() {
    let world = World::new(8, RS42, 3);
    world.set_state(7, State::Draining);
    let stored = fill(&world, 12);
    world.set_state(7, State::Ok);
    world.set_state(2, State::Failed);
    let lost = stored.iter().filter(|(stripe, _)| stripe.placement.contains(&2)).count();
    world.space.rebuild(&world.table, Some(2), &Control::new().onto(7)).unwrap();
    let there = world.files().iter().filter(|(drive, _)| *drive == 7).count();
    assert_eq!(there, lost);
}

#[test]
fn a_draining_drive_is_emptied_by_copying() {
    let world = World::new(7, RS42, 4);
    let stored = fill(&world, 12);
    world.set_state(3, State::Draining);
    let there: Vec<_> = stored.iter().filter(|(stripe, _)| stripe.placement.contains(&3)).collect();
    let report = world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert_eq!(report.restored_shards, there.len() as u64);
    let needed: u64 = there.iter().map(|(stripe, _)| u64::from(stripe.shard_bytes)).sum();
    assert_eq!(report.read_bytes, needed, "each is read once, from where it is");
    world.settle();
    world.assert_whole("drained");
    assert!(world.files().iter().all(|(drive, _)| *drive != 3));
    check(&world, &stored, "drained");
}

#[test]
fn a_scrub_finds_and_repairs_every_damage() {
    let world = World::new(6, RS42, 5);
    let stored = fill(&world, 10);
    let other = world.put(&bytes(99, 30_000)).unwrap();
    for (n, kind) in HARMS.into_iter().enumerate() {
        harm(&world, &stored[n].0, &other, n % 6, kind, 5000 + 13 * n);
    }
    let report = world.space.scrub(&world.table, &Control::default()).unwrap();
    let harmless = HARMS.iter().filter(|kind| matches!(kind, Harm::Extend)).count();
    assert_eq!(report.damaged_shards, (HARMS.len() - harmless) as u64, "{report:?}");
    assert_eq!(report.restored_shards, report.damaged_shards);
    assert!(report.is_clean(), "{report:?}");
    world.settle();
    world.assert_whole("scrubbed");
    check_redundant(&world, &stored, "scrubbed");
    let again = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert_eq!((again.damaged_shards, again.good_shards, again.orphans), (0, 66, 0));
}

#[test]
fn what_is_lost_is_reported_and_the_rest_repaired() {
    let world = World::new(6, RS42, 6);
    let stored = fill(&world, 4);
    for index in 0..3 {
        harm(&world, &stored[1].0, &stored[0].0, index, Harm::Zero, 0);
    }
    harm(&world, &stored[2].0, &stored[0].0, 0, Harm::Remove, 0);
    let scrub = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert_eq!((scrub.lost_stripes, scrub.lost.as_slice()), (1, &[stored[1].0.id][..]));
    assert_eq!(scrub.restored_shards, 1);
    assert!(!scrub.is_clean() && scrub.finished);
    harm(&world, &stored[3].0, &stored[0].0, 5, Harm::Remove, 0);
    let rebuild = world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert_eq!(rebuild.restored_shards, 1);
}

#[test]
fn what_reads_found_damaged_a_rebuild_repairs() {
    let world = World::new(6, RS42, 7);
    let stored = fill(&world, 3);
    harm(&world, &stored[1].0, &stored[0].0, 0, Harm::FlipPayload, 77);
    check(&world, &stored, "damaged");
    world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert_eq!(world.take_repairs(), []);
    let scrub = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert_eq!(scrub.damaged_shards, 0);
}

#[test]
fn a_stripe_that_changed_meanwhile_keeps_its_place() {
    let world = World::new(8, RS42, 8);
    let stored = fill(&world, 4);
    let before = lock(&world.table.stripes).clone();
    world.table.refuse.store(true, Ordering::SeqCst);
    world.set_state(2, State::Failed);
    world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert_eq!(*lock(&world.table.stripes), before);
    world.settle();
    world.assert_whole("nothing was left behind");
    check(&world, &stored, "refused");
}

#[test]
fn a_rebuild_ends_although_a_drive_hangs_in_its_listing() {
    let timeout = Duration::from_millis(100);
    let options = crate::SpaceOptions { drive_timeout: timeout, ..super::world::options() };
    let world = World::with(7, RS42, 23, options);
    let stored = fill(&world, 4);
    world.drives[1].inject(Fault::new(Effect::Hang).on(Operation::List));
    let (answer, answered) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let report = world.space.rebuild(&world.table, None, &Control::default());
            answer.send(report).unwrap();
        });
        let report = answered.recv_timeout(Duration::from_secs(10));
        world.drives[1].release();
        let report = report.expect("it ended").unwrap();
        assert_eq!((report.unlisted_drives, report.missing_shards), (1, 0));
        assert!(report.finished && !report.is_complete());
    });
    world.drives[1].heal();
    world.settle();
    check(&world, &stored, "afterwards");
    let again = world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert!(again.is_complete(), "{again:?}");
}

#[test]
fn any_number_of_strangers_takes_little_memory_and_each_is_seen() {
    let world = World::new(6, RS42, 24);
    let stored = fill(&world, 3);
    let stranger = |n: u128| header::name(StripeId::from_u128(n << 100 | n), 1).unwrap();
    for n in 1..=5000 {
        world.memory[2].set_raw(&Entry::Blob(stranger(n)), Some(Vec::new()));
    }
    let ids: std::collections::BTreeSet<_> = stored.iter().map(|(stripe, _)| stripe.id).collect();
    let seats = world.roster.load().seats.clone();
    let mut presence = Presence::new(seats, None, Duration::from_secs(5)).unwrap();
    let (mut found, mut seen) = (Found::default(), 0);
    for last in [ids.last().copied(), None] {
        loop {
            let more = presence.up_to(last, &ids, &mut found);
            assert!(found.strangers.len() <= 1024, "{}", found.strangers.len());
            seen += std::mem::take(&mut found.strangers).len();
            if !more {
                break;
            }
        }
    }
    assert_eq!((seen, found.shards.len()), (5000, 18));
    let report = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert_eq!((report.orphans, report.stripes), (5000, 3));
}

/// Restores a shard of a stripe as the row `stripe` says, whatever the table says meanwhile.
pub(super) fn restore(world: &World, stripe: &Stripe, wanted: &Wanted) -> Restored {
    let (shared, stripe) = (&world.space.shared, Arc::new(stripe.clone()));
    let range = 0..stripe.shard_bytes as usize;
    let mut recovery = Recovery::new(shared, &stripe, range).unwrap();
    shared.restore(&world.table, &mut recovery, &stripe, wanted, None).unwrap()
}

#[test]
fn two_repairs_of_one_stripe_do_not_take_each_others_shards() {
    let world = World::new(7, RS42, 20);
    let stored = fill(&world, 6);
    world.set_state(2, State::Failed);
    for (stripe, _) in stored.iter().filter(|(stripe, _)| stripe.placement.contains(&2)) {
        // Both began with the same row, and only one other drive is left.
        let wanted = Wanted { elsewhere: vec![index_on(stripe, 2)], ..Wanted::default() };
        assert_eq!(restore(&world, stripe, &wanted).shards, 1);
        assert_eq!(restore(&world, stripe, &wanted).shards, 1);
    }
    world.settle();
    world.memory[2].wipe();
    world.assert_whole("repaired twice");
    check_redundant(&world, &stored, "repaired twice");
}

#[test]
fn a_shard_that_is_well_is_never_deleted_by_a_repair() {
    let world = World::new(6, RS42, 21);
    let stored = fill(&world, 1);
    let stripe = &stored[0].0;
    let seat = usize::from(stripe.placement[1]);
    world.drives[seat].inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::Delete));
    let wanted = Wanted { in_place: vec![1], ..Wanted::default() };
    let before = world.roster.load().seats[seat].free_bytes();
    assert_eq!(restore(&world, stripe, &wanted).shards, 1);
    assert_eq!(world.roster.load().seats[seat].free_bytes(), before);
    assert!(lock(&world.watch.failed).is_empty());
    world.assert_whole("kept");
}

#[test]
fn a_second_repair_is_refused_while_one_runs() {
    let world = World::new(6, RS42, 22);
    fill(&world, 2);
    let (space, table, control) = (&world.space, &world.table, Control::default());
    let first = space.sweep_alone().unwrap();
    assert!(space.scrub(table, &control).unwrap_err().is(&codes::POOL_REPAIRING));
    assert!(space.rebuild(table, None, &control).unwrap_err().is(&codes::POOL_REPAIRING));
    assert!(space.refresh(table, 1, &control).unwrap_err().is(&codes::POOL_REPAIRING));
    drop(first);
    assert!(space.scrub(table, &control).unwrap().is_clean());
    assert!(space.rebuild(table, None, &control).unwrap().is_complete());
}

#[test]
fn an_early_end_can_be_resumed_and_progress_is_told() {
    let world = World::new(6, RS42, 9);
    let stored = fill(&world, 300);
    world.memory[1].wipe();
    let control = Arc::new(Mutex::new(None::<Arc<Control>>));
    let told = Arc::new(AtomicU64::new(0));
    let (inner, count) = (Arc::clone(&control), Arc::clone(&told));
    let first = Arc::new(Control::new().on_progress(move |progress| {
        assert!((0.0..=1.0).contains(&progress.fraction));
        if count.fetch_add(1, Ordering::SeqCst) == 200 {
            lock(&inner).as_ref().unwrap().cancel();
        }
    }));
    *lock(&control) = Some(Arc::clone(&first));
    let report = world.space.rebuild(&world.table, None, &first).unwrap();
    assert!(!report.finished && report.restored_shards == 201, "{report:?}");
    let after = report.after.unwrap();
    let rest = Control::new().starting_after(after);
    let report = world.space.rebuild(&world.table, None, &rest).unwrap();
    assert!(report.finished);
    assert_eq!(report.restored_shards, 99);
    assert!(report.stripes < 300);
    world.assert_whole("resumed");
    check(&world, &stored, "resumed");
}

#[test]
fn a_scrub_goes_on_where_the_progress_of_the_one_before_says() {
    let world = World::new(6, RS42, 25);
    let mut stored = fill(&world, 300);
    stored.sort_by_key(|(stripe, _)| stripe.id);
    let wrong = |n: usize| harm(&world, &stored[n].0, &stored[0].0, 1, Harm::FlipPayload, 99);
    wrong(5);
    // As if it was killed after 200 stripes: of its report nothing is known, of its progress what was told.
    let kept: Arc<Mutex<Option<StripeId>>> = Arc::default();
    let (told, count) = (Arc::clone(&kept), AtomicU64::new(0));
    let control = Control::new().on_progress(move |progress| {
        if count.fetch_add(1, Ordering::SeqCst) < 200 {
            *lock(&told) = progress.after;
        }
    });
    let whole = world.space.scrub(&world.table, &control).unwrap();
    assert_eq!((whole.stripes, whole.damaged_shards), (300, 1));
    let after = lock(&kept).unwrap();
    let done = stored.iter().filter(|(stripe, _)| stripe.id <= after).count();
    assert!(done > 0 && done <= 200, "{done}");
    // Before that nothing is looked at again, after that everything.
    [done - 1, done, 299].into_iter().for_each(wrong);
    let rest = world.space.scrub(&world.table, &Control::new().starting_after(after)).unwrap();
    assert_eq!((rest.stripes, rest.damaged_shards), (300 - done as u64, 2), "{rest:?}");
    assert!(rest.is_clean() && rest.after == Some(stored[299].0.id));
    let again = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert_eq!(again.damaged_shards, 1);
    check(&world, &stored, "scrubbed in two runs");
}

#[test]
fn the_rate_is_kept() {
    let world = World::new(6, RS42, 10);
    fill(&world, 10);
    let before = std::time::Instant::now();
    let report = world.space.scrub(&world.table, &Control::new().with_rate(1 << 21)).unwrap();
    let least = Duration::from_secs_f64(report.read_bytes as f64 / f64::from(1 << 21));
    assert!(before.elapsed() >= least, "{:?} for {} bytes", before.elapsed(), report.read_bytes);
}

#[test]
fn orphans_go_through_quarantine_and_only_after_another_opening() {
    let mut world = World::new(6, RS42, 11);
    let stored = fill(&world, 2);
    world.write(&bytes(50, 40_000)).unwrap();
    let scrub = |world: &World| {
        let report = world.space.scrub(&world.table, &Control::default()).unwrap();
        (report.orphans, report.removed_orphans)
    };
    assert_eq!(scrub(&world), (6, 0), "it may be about to be committed");
    assert_eq!(scrub(&world), (6, 0));
    world.reopen();
    // Another one, of this opening.
    let young = world.write(&bytes(51, 40_000)).unwrap();
    assert_eq!(scrub(&world), (6, 6));
    assert_eq!(world.files().len(), 12 + 6 + 6, "the young one and its marks are left");
    lock(&world.table.stripes).insert(young.id, young.clone());
    world.reopen();
    assert_eq!(scrub(&world), (0, 0));
    world.settle();
    world.assert_whole("its commit came first");
    check(&world, &stored, "after quarantine");
}

/// The power goes right after `act`; what it brings back quarantine removes, and nothing else goes.
fn comes_back_and_goes(name: &str, act: impl Fn(&mut World)) {
    let mut came_back = 0;
    for seed in 0..6 {
        let mut world = World::new(8, RS42, 80 + seed);
        let stored = fill(&world, 4);
        world.settle();
        act(&mut world);
        // Whatever the drives were asked for is done, not all of it durable.
        let list = |drive: &dyn Drive| Ok(drive.list(Some("s"), None, 1000)?.len());
        let seats = world.roster.load().seats.clone();
        let files = |seat: &Arc<Seat>| seat.drive.as_ref().unwrap().submit(list).wait().unwrap();
        let kept = lock(&world.table.stripes).values().map(|stripe| stripe.placement.len()).sum();
        assert_eq!(seats.iter().map(files).sum::<usize>(), kept, "{name}: it was deleted");
        world.restart();
        came_back += world.files().len() - kept;
        for _ in 0..2 {
            world.space.scrub(&world.table, &Control::default()).unwrap();
            world.reopen();
        }
        world.settle();
        world.assert_whole(name);
        lock(&world.table.stripes).values().for_each(|stripe| {
            let content = stored.iter().find(|(other, _)| other.id == stripe.id).unwrap();
            assert!(world.get(stripe).unwrap() == content.1, "{name}");
        });
    }
    assert!(came_back > 0, "{name}: nothing came back, this proves nothing");
}

#[test]
fn deletions_that_are_not_synced_come_back_as_orphans_and_go_through_quarantine() {
    comes_back_and_goes("a stripe that nobody wants", |world| {
        let mut filling = world.space.fill(30_000, &NEVER).unwrap();
        filling.append(&bytes(1, 30_000));
        let writing = world.space.write(filling).unwrap();
        world.settle();
        drop(writing);
    });
    comes_back_and_goes("a shard that moved", |world| {
        world.set_state(3, State::Draining);
        world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    });
    comes_back_and_goes("a shard on a drive that was away", |world| {
        let stripe = lock(&world.table.stripes).pop_first().unwrap().1;
        let seat = stripe.placement[2];
        world.set_state(seat, State::Missing);
        world.remove(&stripe);
        world.reopen();
        world.set_state(seat, State::Stale);
        let report = world.space.refresh(&world.table, seat, &Control::default()).unwrap();
        assert_eq!(report.removed_files, 1);
    });
}

#[test]
fn a_mark_is_durable() {
    for omitted in [false, true] {
        let mut left = 0;
        for seed in 0..5 {
            let mut world = World::new(6, RS42, 60 + seed);
            world.write(&bytes(1, 10_000)).unwrap();
            if omitted {
                world.drives.iter().for_each(|drive| drive.omit(SYNC_QUARANTINE));
            }
            world.space.scrub(&world.table, &Control::default()).unwrap();
            world.restart();
            world.space.scrub(&world.table, &Control::default()).unwrap();
            left +=
                world.files().iter().filter(|(_, name)| name.as_str().starts_with("s/")).count();
        }
        assert_eq!(left > 0, omitted, "{left} orphans are left");
    }
}

#[test]
fn foreign_files_are_reported_and_left_alone() {
    let mut world = World::new(6, RS42, 12);
    let stored = fill(&world, 2);
    let stranger = Entry::Blob(BlobName::new("s/readme.txt").unwrap());
    world.memory[0].set_raw(&stranger, Some(b"hello".to_vec()));
    let strange = header::name(StripeId::from_u128(5), 1).unwrap();
    let mut other = header::tests::sample(4096, 512).0;
    other.pool = dwk_base::PoolId::from_u128(99);
    world.memory[1].set_raw(&Entry::Blob(strange.clone()), Some(other.encode()));
    for _ in 0..3 {
        let report = world.space.scrub(&world.table, &Control::default()).unwrap();
        assert_eq!((report.foreign_files, report.orphans, report.removed_orphans), (2, 0, 0));
        world.reopen();
    }
    assert!(world.memory[1].raw(&Entry::Blob(strange)).is_some());
    check(&world, &stored, "with strangers");
}

#[test]
fn a_drive_that_was_away_is_brought_up_to_date_by_reading_only_what_changed() {
    let mut world = World::new(6, RS42, 13);
    let mut stored = fill(&world, 10);
    world.set_state(3, State::Missing);
    for (stripe, _) in stored.drain(..3) {
        world.remove(&stripe);
        lock(&world.table.stripes).remove(&stripe.id);
    }
    stored.extend(fill(&world, 2));
    // What it should have, as if it had been on it when it vanished.
    world.reopen();
    world.set_state(3, State::Stale);
    let (drive, entry) = world.entry(&stored[0].0, index_on(&stored[0].0, 3));
    drive.set_raw(&entry, None);
    let (drive, entry) = world.entry(&stored[1].0, index_on(&stored[1].0, 3));
    let whole = drive.raw(&entry).unwrap();
    drive.set_raw(&entry, Some(whole[..whole.len() - 1].to_vec()));
    let report = world.space.refresh(&world.table, 3, &Control::default()).unwrap();
    assert_eq!((report.missing_shards, report.restored_shards, report.removed_files), (2, 2, 3));
    let read: u64 = stored[..2].iter().map(|(stripe, _)| 4 * u64::from(stripe.shard_bytes)).sum();
    assert_eq!(report.read_bytes, read);
    world.settle();
    world.assert_whole("refreshed");
    world.set_state(3, State::Ok);
    check(&world, &stored, "refreshed");
}

fn index_on(stripe: &Stripe, seat: u16) -> usize {
    stripe.placement.iter().position(|other| *other == seat).unwrap()
}

/// The power goes at every step of `repair`; afterwards everything is there, and repair makes it whole.
fn survives_cuts(seed: u64, harmed: impl Fn(&World), repair: impl Fn(&World)) {
    let begin = |seed| {
        let world = World::new(7, RS42, seed);
        let stored = fill(&world, 3);
        world.settle();
        harmed(&world);
        (world, stored)
    };
    let (world, _) = begin(seed);
    let before = world.power.steps();
    repair(&world);
    let steps = world.power.steps() - before;
    assert!(steps >= 6, "{steps}");
    let stride = if std::env::var_os("DWK_LONG").is_some() { 1 } else { 1 + steps / 40 };
    for step in (1..=steps).step_by(stride as usize) {
        let (mut world, stored) = begin(seed + step);
        world.power.cut_in(step);
        repair(&world);
        world.restart();
        check(&world, &stored, &format!("step {step}"));
        harmed(&world);
        repair(&world);
        let report = world.space.scrub(&world.table, &Control::default()).unwrap();
        assert!(report.is_clean() && report.damaged_shards == 0, "step {step}: {report:?}");
        check_redundant(&world, &stored, &format!("step {step}, repaired"));
    }
}

#[test]
fn a_rebuild_survives_a_power_cut_at_every_step() {
    let lose = |world: &World| world.set_state(2, State::Failed);
    let rebuild = |world: &World| {
        let _ = world.space.rebuild(&world.table, None, &Control::default());
    };
    survives_cuts(100, lose, rebuild);
    let drain = |world: &World| world.set_state(2, State::Draining);
    survives_cuts(200, drain, rebuild);
}

#[test]
fn a_scrub_survives_a_power_cut_at_every_step() {
    let wipe = |world: &World| {
        for stripe in lock(&world.table.stripes).values() {
            harm(world, stripe, stripe, 1, Harm::FlipHeader, 9);
        }
    };
    let scrub = |world: &World| {
        let _ = world.space.scrub(&world.table, &Control::default());
    };
    survives_cuts(300, wipe, scrub);
}

#[test]
fn without_the_sync_of_a_repair_it_is_lost() {
    for omitted in [false, true] {
        let mut damaged = 0;
        for seed in 0..5 {
            let mut world = World::new(7, RS42, 400 + seed);
            fill(&world, 3);
            if omitted {
                world.drives.iter().for_each(|drive| drive.omit(SYNC_REPAIR));
            }
            world.set_state(2, State::Failed);
            world.space.rebuild(&world.table, None, &Control::default()).unwrap();
            world.restart();
            let report = world.space.scrub(&world.table, &Control::default()).unwrap();
            damaged += report.damaged_shards;
        }
        assert_eq!(damaged > 0, omitted);
    }
}

#[test]
fn several_workers_do_the_same() {
    let options = crate::SpaceOptions { repair_width: 4, ..super::world::options() };
    let world = World::with(7, RS42, 14, options);
    let stored = fill(&world, 60);
    world.memory[4].wipe();
    world.set_state(5, State::Failed);
    let report = world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert!(report.is_complete(), "{report:?}");
    world.memory[5].wipe();
    world.settle();
    world.assert_whole("rebuilt");
    world.set_state(5, State::Ok);
    check_redundant(&world, &stored, "rebuilt");
    assert!(world.drives[0].capacity().is_ok());
}
