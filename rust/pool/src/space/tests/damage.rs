//! Every loss and damage that the code survives gives the right bytes; beyond it, right or refused.

use std::time::Duration;

use dwk_base::codes;
use dwk_drive::Entry;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_erasure::CodeSpec;
use proptest::prelude::*;

use super::super::lock;
use super::super::shard::Reach;
use super::world::{RS42, World, bytes, options};
use crate::{Control, SpaceOptions, State, Stripe};

/// What is done to a shard's file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Harm {
    FlipHeader,
    FlipPayload,
    Truncate,
    TruncateInHeader,
    Empty,
    Zero,
    Extend,
    /// The file of the other stripe in this one's place.
    OtherStripe,
    /// The file of the next shard in this one's place.
    OtherShard,
    Remove,
}

pub(super) const HARMS: [Harm; 10] = [
    Harm::FlipHeader,
    Harm::FlipPayload,
    Harm::Truncate,
    Harm::TruncateInHeader,
    Harm::Empty,
    Harm::Zero,
    Harm::Extend,
    Harm::OtherStripe,
    Harm::OtherShard,
    Harm::Remove,
];

pub(super) fn harm(
    world: &World,
    stripe: &Stripe,
    other: &Stripe,
    index: usize,
    harm: Harm,
    at: usize,
) {
    let (drive, entry) = world.entry(stripe, index);
    let Some(whole) = drive.raw(&entry) else { return };
    if whole.len() <= 4096 {
        return;
    }
    let mut damaged = whole.clone();
    let damaged = match harm {
        Harm::FlipHeader => {
            damaged[at % 4096] ^= 1 << (at % 8);
            Some(damaged)
        }
        Harm::FlipPayload => {
            let byte = 4096 + at % (damaged.len() - 4096);
            damaged[byte] ^= 1 << (at % 8);
            Some(damaged)
        }
        Harm::Truncate => Some(damaged[..damaged.len() - 1 - at % (damaged.len() - 4096)].to_vec()),
        Harm::TruncateInHeader => Some(damaged[..at % 4096].to_vec()),
        Harm::Empty => Some(Vec::new()),
        Harm::Zero => Some(vec![0; damaged.len()]),
        Harm::Extend => Some([damaged, vec![1; 10]].concat()),
        Harm::OtherStripe => {
            let (drive, entry) = world.entry(other, index);
            drive.raw(&entry)
        }
        Harm::OtherShard => {
            let (drive, entry) = world.entry(stripe, (index + 1) % stripe.placement.len());
            drive.raw(&entry).or(Some(whole))
        }
        Harm::Remove => None,
    };
    drive.set_raw(&entry, damaged);
}

#[test]
fn every_loss_of_up_to_t_drives_gives_the_right_bytes() {
    for (code, tolerance) in [
        (RS42, 2),
        (CodeSpec::Copies { n: 3 }, 2),
        (CodeSpec::Xor { k: 3 }, 1),
        (CodeSpec::ReedSolomon { k: 3, m: 3 }, 3),
        (CodeSpec::Lrc { k: 4, l: 2, g: 2 }, 3),
    ] {
        let shards = code.k() + code.m();
        let world = World::new(shards, code, 1);
        let content = bytes(1, 20_000.min(world.space.payload_bytes_max()));
        let stripe = world.put(&content).unwrap();
        for pattern in 0u32..1 << shards {
            let lost: Vec<u16> =
                (0..shards as u16).filter(|seat| pattern >> seat & 1 == 1).collect();
            for seat in &lost {
                world.set_state(*seat, State::Failed);
            }
            match world.get(&stripe) {
                Ok(read) => assert!(read == content, "{code} without {lost:?}"),
                Err(error) => {
                    assert!(lost.len() > tolerance, "{code} without {lost:?}: {error}");
                    assert!(error.is(&codes::DATA_CORRUPT), "{error}");
                }
            }
            for seat in &lost {
                world.set_state(*seat, State::Ok);
            }
        }
    }
}

#[test]
fn every_damage_to_two_shards_gives_the_right_bytes_and_is_noted() {
    let world = World::new(6, RS42, 2);
    for (seed, first) in HARMS.into_iter().enumerate() {
        for second in HARMS {
            let content = bytes(seed as u64, 60_000);
            let (stripe, other) = (world.put(&content).unwrap(), world.put(&content).unwrap());
            let a = seed % 4;
            harm(&world, &stripe, &other, a, first, 1000 * seed + 77);
            harm(&world, &stripe, &other, a + 1, second, 9000 - 500 * seed);
            let read =
                world.get(&stripe).unwrap_or_else(|error| panic!("{first:?} {second:?}: {error}"));
            assert!(read == content, "{first:?} {second:?}");
            let harmless = |harm| matches!(harm, Harm::Extend);
            let noted = world.take_repairs();
            if !harmless(first) {
                assert_eq!(noted, [stripe.id], "{first:?} {second:?}");
            }
            world.remove(&stripe);
            world.remove(&other);
        }
    }
    assert!(lock(&world.watch.failed).is_empty());
    assert!(!lock(&world.watch.corrupted).is_empty());
}

#[test]
fn beyond_t_a_read_is_refused_and_never_wrong() {
    let world = World::new(6, RS42, 3);
    for (seed, kind) in HARMS.into_iter().enumerate() {
        let content = bytes(seed as u64, 60_000);
        let other = world.put(&bytes(99, 60_000)).unwrap();
        let stripe = world.put(&content).unwrap();
        (0..3).for_each(|index| harm(&world, &stripe, &other, index, kind, 4096 + seed * 37));
        match world.get(&stripe) {
            Ok(read) => assert!(read == content, "{kind:?}"),
            Err(error) => assert!(error.is(&codes::DATA_CORRUPT), "{kind:?}: {error}"),
        }
    }
}

#[test]
fn shards_of_two_stripes_of_one_name_are_never_mixed() {
    // As if two writers had drawn the same name: each shard is right in itself.
    for code in [RS42, CodeSpec::ReedSolomon { k: 2, m: 2 }] {
        let shards = code.k() + code.m();
        let [world, other] = [(); 2].map(|()| World::new(shards, code, 4));
        let (a, b) = (bytes(1, code.k() * 15_000), bytes(2, code.k() * 15_000));
        let (first, second) = (world.put(&a).unwrap(), other.put(&b).unwrap());
        assert_eq!((first.id, &first.placement), (second.id, &second.placement), "one seed");
        for foreign in 0..shards {
            for index in 0..foreign {
                let from = other.entry(&second, index);
                world.entry(&first, index).0.set_raw(&from.1, from.0.raw(&from.1));
            }
            for gone in 0..shards as u16 {
                world.set_state(gone, State::Failed);
                let memory = &world.space.shared.read_memory;
                for with_memory in [true, false] {
                    let taken = (!with_memory).then(|| memory.take_anyway(memory.bytes_max()));
                    world.space.shared.headers.forget_all();
                    let read = world.get(&first);
                    drop(taken);
                    let what = format!("{code}: {foreign} foreign shards, without d{gone}");
                    match read {
                        Ok(read) => assert!(read == a || read == b, "{what} were mixed"),
                        Err(error) => assert!(error.is(&codes::DATA_CORRUPT), "{what}: {error}"),
                    }
                }
                world.set_state(gone, State::Ok);
            }
        }
    }
}

#[test]
fn drives_that_err_or_flip_what_they_read_are_read_around() {
    for effect in [Effect::Error(&codes::DRIVE_IO), Effect::Flip] {
        let world = World::new(6, RS42, 5);
        let content = bytes(1, 64 << 10);
        let stripe = world.put(&content).unwrap();
        for drive in [1, 4] {
            world.drives[drive].inject(Fault::new(effect).on(Operation::Read));
        }
        for _ in 0..3 {
            assert!(world.get(&stripe).unwrap() == content);
        }
        assert_eq!(world.take_repairs(), [stripe.id]);
    }
}

#[test]
fn a_late_drive_is_read_around() {
    let options = SpaceOptions {
        late_read: Duration::from_millis(50),
        drive_timeout: Duration::from_secs(2),
        ..options()
    };
    let world = World::with(6, RS42, 6, options);
    let content = bytes(1, 64 << 10);
    let stripe = world.put(&content).unwrap();
    let late = usize::from(stripe.placement[1]);
    world.drives[late].inject(Fault::new(Effect::Hang).on(Operation::Read));
    assert!(world.get(&stripe).unwrap() == content);
    world.drives[late].release();
    world.drives[late].heal();
    // One that is needed is waited for.
    let needed: Vec<_> = stripe.placement[..3].to_vec();
    needed.iter().take(2).for_each(|seat| world.set_state(*seat, State::Failed));
    let slow = Fault::new(Effect::Delay(Duration::from_millis(150))).on(Operation::Read);
    world.drives[usize::from(needed[2])].inject(slow);
    let mut read = vec![0; content.len()];
    world.space.read(&stripe, 0, &mut read).unwrap();
    assert!(read == content);
}

#[test]
fn a_drive_that_hangs_is_waited_for_once_takes_little_memory_and_is_reported() {
    let options = SpaceOptions {
        late_read: Duration::from_millis(100),
        drive_timeout: Duration::from_secs(1),
        memory_bytes: 1 << 20,
        ..options()
    };
    let world = World::with(6, RS42, 7, options);
    let content = bytes(1, 60_000);
    let stripe = world.put(&content).unwrap();
    let seat = stripe.placement[0];
    let drive = &world.drives[usize::from(seat)];
    drive.inject(Fault::new(Effect::Hang).on(Operation::Read));
    let shared = &world.space.shared;
    let read = || {
        let mut into = vec![0; content.len()];
        world.space.read(&stripe, 0, &mut into).unwrap();
        assert!(into == content);
    };
    shared.headers.forget_all();
    read();
    let (once, start) = (shared.read_memory.used_bytes(), std::time::Instant::now());
    (0..20).for_each(|_| read());
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    assert_eq!(
        shared.read_memory.used_bytes(),
        once,
        "no buffer is held for reads that came later"
    );
    assert!(lock(&world.watch.failed).is_empty());
    while start.elapsed() < Duration::from_millis(1100) {
        std::thread::sleep(Duration::from_millis(20));
    }
    read();
    assert_eq!(*lock(&world.watch.failed), [seat]);
    drive.release();
}

#[test]
fn a_late_drive_that_is_needed_is_waited_for_and_read_again_when_it_answers() {
    let options = SpaceOptions { late_read: Duration::from_millis(20), ..options() };
    let world = World::with(6, RS42, 8, options);
    let content = bytes(1, 60_000);
    let stripe = world.put(&content).unwrap();
    let late = &world.drives[usize::from(stripe.placement[1])];
    late.inject(Fault::new(Effect::Hang).on(Operation::Read));
    world.space.shared.headers.forget_all();
    assert!(world.get(&stripe).unwrap() == content);
    stripe.placement[2..4].iter().for_each(|seat| world.set_state(*seat, State::Failed));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| world.get(&stripe).unwrap());
        std::thread::sleep(Duration::from_millis(60));
        late.release();
        late.heal();
        assert!(reader.join().unwrap() == content);
    });
    assert!(lock(&world.watch.failed).is_empty());
    world.settle();
    assert_eq!(world.space.shared.reach(&stripe, 1), Reach::Ready);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_gives_right_bytes_or_is_refused(
        seed: u64,
        length in 1usize..65_536,
        harms in proptest::collection::vec((0usize..6, 0usize..HARMS.len(), any::<usize>()), 0..5),
        ranges in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
    ) {
        let world = World::new(6, RS42, seed);
        let content = bytes(seed, length);
        let stripe = world.put(&content).unwrap();
        let other = world.put(&bytes(!seed, length)).unwrap();
        let mut harmed = std::collections::BTreeSet::new();
        for (index, kind, at) in harms {
            if harmed.insert(index) {
                harm(&world, &stripe, &other, index, HARMS[kind], at);
            }
        }
        for (from, bytes) in ranges {
            let from = from.index(length);
            let mut into = vec![0; bytes.index(length - from) + 1];
            match world.space.read(&stripe, from as u32, &mut into) {
                Ok(()) => prop_assert!(into == content[from..from + into.len()]),
                Err(error) => {
                    prop_assert!(harmed.len() > 2, "{}", error);
                    prop_assert!(error.is(&codes::DATA_CORRUPT));
                }
            }
        }
    }
}

#[test]
fn a_damaged_mark_of_quarantine_keeps_an_orphan_no_longer_than_one_opening_more() {
    let mut world = World::new(6, RS42, 12);
    world.write(&bytes(50, 40_000)).unwrap();
    let scrub = |world: &World| {
        world.space.scrub(&world.table, &Control::default()).unwrap();
        world.settle();
    };
    scrub(&world);
    for drive in &world.memory {
        for entry in drive.entries() {
            if matches!(&entry, Entry::Blob(name) if name.as_str().starts_with("q/")) {
                assert!(drive.flip(&entry, 3, 1));
            }
        }
    }
    for left in [12, 0] {
        world.reopen();
        scrub(&world);
        assert_eq!(world.files().len(), left);
    }
}
