//! Reads do not wait for a slow drive where the others are enough, and ask little more of them.

use std::time::{Duration, Instant};

use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_erasure::CodeSpec;

use super::super::shard::Reach;
use super::super::{Control, Hedges, lock};
use super::world::{NEVER, RS42, World, bytes, options};
use crate::Stripe;

const SLOW: Duration = Duration::from_millis(300);
const SHARD: usize = 16 << 10;

fn slow(by: Duration) -> Fault {
    Fault::new(Effect::Delay(by)).on(Operation::Read)
}

/// A world with a stripe, of whose drives it is known how fast they are.
fn warm(code: CodeSpec, seed: u64) -> (World, Vec<u8>, Stripe) {
    let world = World::new(code.k() + code.m(), code, seed);
    let content = bytes(seed, code.k() * SHARD);
    let stripe = world.put(&content).unwrap();
    let shared = &world.space.shared;
    let indexes: Vec<usize> = (0..stripe.placement.len()).collect();
    for _ in 0..30 {
        // Of parity, too.
        let stripe = std::sync::Arc::new(stripe.clone());
        let mut recovery = super::super::recover::Recovery::new(shared, &stripe, 0..SHARD).unwrap();
        recovery.read(&indexes).unwrap();
    }
    (world, content, stripe)
}

fn read(world: &World, stripe: &Stripe, content: &[u8], from: usize, length: usize) -> Duration {
    let start = Instant::now();
    let mut into = vec![0; length];
    let reading = world.space.start_read(stripe, from as u32, length as u32);
    reading.wait_into(&mut into, &NEVER).unwrap();
    assert!(into == content[from..from + length], "other bytes at {from}");
    start.elapsed()
}

fn assert_nobody_is_blamed(world: &World) {
    assert!(lock(&world.watch.failed).is_empty());
    assert!(lock(&world.watch.corrupted).is_empty());
    assert_eq!(world.take_repairs(), []);
}

#[test]
fn a_slow_drive_does_not_hold_up_reads_and_the_bytes_are_right() {
    let lrc = CodeSpec::Lrc { k: 4, l: 2, g: 1 };
    let codes = [RS42, CodeSpec::Copies { n: 2 }, CodeSpec::Copies { n: 3 }, lrc];
    for code in codes.into_iter().chain([CodeSpec::Xor { k: 3 }]) {
        let (world, content, stripe) = warm(code, 100);
        let drive = &world.drives[usize::from(stripe.placement[0])];
        drive.inject(slow(SLOW));
        let ranges = [(0, content.len()), (100, 50), (5000, 9000), (SHARD - 7, 7)];
        // The last one is not on the slow drive at all, unless all is.
        let ranges = ranges.into_iter().chain([(content.len() - 10, 10)]);
        let mut took = Duration::ZERO;
        for (from, length) in ranges.cycle().take(20) {
            took += read(&world, &stripe, &content, from, length);
        }
        assert!(took < SLOW * 3, "{code}: {took:?}");
        let hedges = world.space.hedges();
        assert!(hedges.asked > 0 && hedges.won > 0, "{code}: {hedges:?}");
        assert_nobody_is_blamed(&world);
        drive.heal();
        world.settle();
        let memory = &world.space.shared.read_memory;
        assert_eq!(memory.used_bytes(), 0, "{code}: what came late gives its memory back");
        assert!(world.space.answers(stripe.placement[0]).late > 0);
        assert_nobody_is_blamed(&world);
    }
}

#[test]
fn without_redundancy_a_slow_drive_is_waited_for() {
    let (world, content, stripe) = warm(CodeSpec::None { k: 3 }, 101);
    world.drives[usize::from(stripe.placement[1])].inject(slow(SLOW / 3));
    for _ in 0..4 {
        assert!(read(&world, &stripe, &content, 0, content.len()) >= SLOW / 3);
        assert!(!world.space.is_impaired(&stripe), "there is nothing to compute it from");
    }
    assert_eq!(world.space.hedges(), Hedges::default());
}

#[test]
fn who_was_late_in_a_row_is_not_waited_for_at_all_until_it_is_in_time_again() {
    let (world, content, stripe) = warm(RS42, 102);
    let seat = stripe.placement[1];
    let drive = &world.drives[usize::from(seat)];
    drive.inject(slow(Duration::from_millis(60)));
    assert!(!world.space.is_impaired(&stripe));
    for _ in 0..3 {
        read(&world, &stripe, &content, 0, content.len());
        world.settle();
    }
    let shared = &world.space.shared;
    assert_eq!(shared.promptness(&stripe, 1, SHARD), Reach::Slow);
    assert!(world.space.is_impaired(&stripe), "streams read all of it at once");
    let (before, begun) = (world.space.hedges(), shared.owed.begun());
    for _ in 0..10 {
        read(&world, &stripe, &content, 0, content.len());
        world.settle();
    }
    assert_eq!(world.space.hedges(), before, "nobody waits before asking the others");
    // Four shards each time, and a look at the slow one.
    assert_eq!(shared.owed.begun() - begun, 50);
    assert!(!shared.pace.is_slow(stripe.placement[0]));
    drive.heal();
    read(&world, &stripe, &content, 0, content.len());
    world.settle();
    assert_eq!(shared.promptness(&stripe, 1, SHARD), Reach::Ready);
    let begun = shared.owed.begun();
    read(&world, &stripe, &content, 0, content.len());
    assert_eq!(shared.owed.begun() - begun, 4);
    assert_nobody_is_blamed(&world);
}

#[test]
fn where_all_drives_are_slow_little_more_is_asked_for() {
    let (world, content, stripe) = warm(RS42, 103);
    world.drives.iter().for_each(|drive| drive.inject(slow(Duration::from_millis(40))));
    let begun = world.space.shared.owed.begun();
    let reads = 40;
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let (world, content, stripe) = (&world, &content, &stripe);
            scope.spawn(move || {
                for at in 0..reads / 4 {
                    read(world, stripe, content, (at + reader) % 4 * SHARD, 5000);
                }
            });
        }
    });
    let asked = world.space.shared.owed.begun() - begun;
    let (hedges, needed) = (world.space.hedges(), reads as u64);
    assert!(asked <= needed + 64 + 4 + needed / 16, "{asked} for {needed}");
    // As soon as they are known to be slow, nothing is late.
    let begun = world.space.shared.owed.begun();
    for at in 0..8 {
        read(&world, &stripe, &content, at % 4 * SHARD, 5000);
    }
    assert_eq!(world.space.shared.owed.begun() - begun, 8);
    assert_eq!(world.space.hedges(), hedges);
    assert_nobody_is_blamed(&world);
}

#[test]
fn hedges_end_where_their_share_is_used_up() {
    let (world, content, stripe) = warm(RS42, 104);
    let pace = &world.space.shared.pace;
    while pace.may_hedge(200) {}
    let before = world.space.hedges();
    let drive = &world.drives[usize::from(stripe.placement[1])];
    drive.inject(slow(Duration::from_millis(100)).times(1));
    let took = read(&world, &stripe, &content, 0, content.len());
    assert!(took >= Duration::from_millis(100), "{took:?}");
    assert_eq!(world.space.hedges(), before);
    assert_nobody_is_blamed(&world);
}

#[test]
fn what_is_wrong_with_an_answer_that_nobody_waits_for_is_not_noted() {
    for effect in [Effect::Flip, Effect::Error(&dwk_base::codes::DRIVE_IO)] {
        let (world, content, stripe) = warm(RS42, 105);
        let drive = &world.drives[usize::from(stripe.placement[2])];
        drive.inject(slow(SLOW));
        drive.inject(Fault::new(effect).on(Operation::Read));
        assert!(read(&world, &stripe, &content, 0, content.len()) < SLOW);
        drive.release();
        world.settle();
        assert_nobody_is_blamed(&world);
        assert_eq!(world.space.shared.promptness(&stripe, 2, SHARD), Reach::Ready);
    }
}

#[test]
fn a_late_answer_counts_if_it_comes_before_what_was_asked_for_instead() {
    let (world, content, stripe) = warm(RS42, 106);
    let at = |index: usize| &world.drives[usize::from(stripe.placement[index])];
    at(1).inject(slow(Duration::from_millis(100)));
    // All others that this range could be computed from are asked, and hang.
    let others = [0, 2, 3, 4, 5];
    for index in others {
        at(index).inject(Fault::new(Effect::Hang).on(Operation::Read));
    }
    let reading = world.space.start_read(&stripe, SHARD as u32, 100);
    let landed = reading.land(&NEVER).unwrap();
    let mut into = vec![0; 100];
    landed.copy(&mut into).unwrap();
    assert!(into == content[SHARD..SHARD + 100] && !landed.is_computed());
    assert_eq!(world.space.hedges(), Hedges { asked: 1, won: 0 });
    for index in others {
        at(index).heal();
    }
    world.settle();
    assert_nobody_is_blamed(&world);
}

#[test]
fn a_hedge_that_meets_damage_goes_on_with_the_others() {
    let (world, content, stripe) = warm(RS42, 107);
    let at = |index: usize| &world.drives[usize::from(stripe.placement[index])];
    at(1).inject(slow(SLOW));
    at(4).inject(Fault::new(Effect::Flip).on(Operation::Read));
    assert!(read(&world, &stripe, &content, 0, content.len()) < SLOW);
    assert_eq!(world.take_repairs(), [stripe.id], "that one was wrong, whoever asked");
    // With another one damaged the slow one is needed.
    at(5).inject(Fault::new(Effect::Flip).on(Operation::Read));
    assert!(read(&world, &stripe, &content, 0, content.len()) < SLOW * 3);
}

#[test]
fn a_scrub_shows_each_shard_however_slow_its_drive_is() {
    let (world, content, stripe) = warm(RS42, 108);
    let drive = &world.drives[usize::from(stripe.placement[1])];
    drive.inject(slow(Duration::from_millis(60)));
    for _ in 0..4 {
        read(&world, &stripe, &content, 0, content.len());
        world.settle();
    }
    assert_eq!(world.space.shared.promptness(&stripe, 1, SHARD), Reach::Slow);
    let report = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert!(report.is_clean() && report.good_shards == 6, "{report:?}");
    assert_eq!(report.unread_shards, 0);
}

#[test]
fn where_memory_for_reads_is_short_there_are_no_hedges() {
    let options = crate::SpaceOptions { memory_bytes: 1 << 20, ..options() };
    let world = World::with(6, RS42, 109, options);
    let content = bytes(1, 4 * SHARD);
    let stripe = world.put(&content).unwrap();
    let memory = &world.space.shared.read_memory;
    let taken = memory.take_anyway(memory.bytes_max());
    world.drives[usize::from(stripe.placement[1])].inject(slow(SLOW / 2));
    assert!(read(&world, &stripe, &content, 0, content.len()) >= SLOW / 2);
    assert_eq!(world.space.hedges(), Hedges::default());
    drop(taken);
}
