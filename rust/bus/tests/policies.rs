//! What happens to slow consumers, and to those who publish to them.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    NEVER, after_ms, eventually, message, named, now, number, numbered, numbers, pattern, soon,
    space, texts,
};
use dwk_base::{Error, Result, SeededRandom, codes};
use dwk_bus::{MemorySpill, Options, Policy, Published, Spill, SpillFile};

#[test]
fn who_blocks_holds_the_publisher_until_there_is_room() {
    let space = space();
    let subscription = space.subscribe(pattern("a"), named("slow", Policy::Block, 1)).unwrap();
    space.publish(message("a", "1"), &now()).unwrap();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| space.publish(message("a", "2"), &soon()).unwrap());
        eventually("the publisher waits", || subscription.stats().waits == 1);
        assert!(!publisher.is_finished());
        assert_eq!(&**subscription.next(&now()).unwrap().unwrap().data(), b"1");
        assert_eq!(publisher.join().unwrap().queued, 1);
    });
    assert_eq!(texts(&subscription), ["2"]);
}

#[test]
fn who_stays_full_is_named_and_everybody_else_has_the_message() {
    let space = space();
    let slow = ["slow-1", "slow-2"]
        .map(|name| space.subscribe(pattern("a"), named(name, Policy::Block, 1)).unwrap());
    let quick = space.subscribe(pattern(">"), Options::default()).unwrap();
    space.publish(message("a", "1"), &now()).unwrap();
    let start = Instant::now();
    let error = space.publish(message("a", "2"), &after_ms(30)).unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert!(error.is(&codes::BUS_FULL), "{error}");
    assert_eq!(error.detail("subscribers"), Some("slow-1,slow-2"));
    assert_eq!(error.detail("queued"), Some("1"));
    assert_eq!(error.detail("matched"), Some("3"));
    assert_eq!(texts(&quick), ["1", "2"]);
    for subscription in &slow {
        assert_eq!(texts(subscription), ["1"]);
    }
}

#[test]
fn everybody_else_has_the_message_while_one_still_blocks() {
    let space = space();
    let _slow = space.subscribe(pattern("a"), named("slow", Policy::Block, 1)).unwrap();
    let quick = space.subscribe(pattern("a"), Options::default()).unwrap();
    space.publish(message("a", "1"), &now()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| space.publish(message("a", "2"), &after_ms(300)).unwrap_err());
        let batch = (0..2).map(|n| message("a", format!("b{n}"))).collect();
        scope.spawn(|| space.publish_many(batch, &after_ms(300)).unwrap_err());
        let start = Instant::now();
        let got = (0..4).map(|_| quick.next(&soon()).unwrap().unwrap());
        assert_eq!(got.count(), 4);
        assert!(start.elapsed() < Duration::from_millis(250), "{:?}", start.elapsed());
    });
}

#[test]
fn a_batch_waits_for_room_and_says_how_many_were_missed() {
    let space = space();
    let subscription = space.subscribe(pattern("a"), named("slow", Policy::Block, 10)).unwrap();
    let batch = |range: std::ops::Range<u32>| range.map(|n| numbered("a", n)).collect::<Vec<_>>();
    let error = space.publish_many(batch(0..25), &now()).unwrap_err();
    assert_eq!(error.detail("missed"), Some("15"));
    assert_eq!(error.detail("queued"), Some("10"));
    assert_eq!(numbers(&subscription), (0..10).collect::<Vec<_>>());
    thread::scope(|scope| {
        scope.spawn(|| space.publish_many(batch(0..1000), &soon()).unwrap());
        for expected in 0..1000 {
            assert_eq!(number(subscription.next(&soon()).unwrap().unwrap().data()), expected);
        }
    });
}

#[test]
fn a_publisher_that_is_held_back_ends_when_the_subscriber_leaves() {
    for drop_it in [true, false] {
        let space = space();
        let subscription = space.subscribe(pattern("a"), named("slow", Policy::Block, 1)).unwrap();
        space.publish(message("a", "1"), &now()).unwrap();
        thread::scope(|scope| {
            let publisher = scope.spawn(|| space.publish(message("a", "2"), &NEVER).unwrap());
            eventually("the publisher waits", || subscription.stats().waits == 1);
            let kept = if drop_it {
                drop(subscription);
                None
            } else {
                subscription.close();
                Some(subscription)
            };
            assert_eq!(publisher.join().unwrap().queued, 0);
            drop(kept);
        });
    }
}

#[test]
fn the_oldest_go_first_or_the_newest_do_and_both_are_counted() {
    let space = space();
    let oldest = space.subscribe(pattern("a"), named("o", Policy::DropOldest, 3)).unwrap();
    let newest = space.subscribe(pattern("a"), named("n", Policy::DropNewest, 3)).unwrap();
    let published: Vec<Published> =
        (0..8).map(|number| space.publish(numbered("a", number), &now()).unwrap()).collect();
    assert_eq!(published[2], Published { matched: 2, queued: 2, dropped: 0 });
    assert_eq!(published[3], Published { matched: 2, queued: 1, dropped: 2 });
    assert_eq!(oldest.stats().dropped, 5);
    assert_eq!(newest.stats().dropped, 5);
    assert_eq!(numbers(&oldest), [5, 6, 7]);
    assert_eq!(numbers(&newest), [0, 1, 2]);
}

#[test]
fn a_limit_in_bytes_counts_like_one_in_messages() {
    let space = space();
    let options = Options { bytes_max: 10_000, ..named("o", Policy::DropOldest, 1000) };
    let subscription = space.subscribe(pattern("a"), options).unwrap();
    for text in ["a", "b", "c"] {
        space.publish(message("a", text.repeat(4000)), &now()).unwrap();
    }
    let stats = subscription.stats();
    assert_eq!((stats.depth, stats.dropped), (2, 1));
    assert!((8000..=10_000).contains(&stats.depth_bytes));
    assert_eq!(texts(&subscription), ["b".repeat(4000), "c".repeat(4000)]);
    assert_eq!(subscription.stats().depth_bytes, 0);
}

fn spilling(spill: Spill, messages_max: usize) -> Options {
    named("spilling", Policy::Spill(spill), messages_max)
}

fn spills() -> (tempfile::TempDir, Vec<Spill>) {
    let directory = tempfile::tempdir().unwrap();
    let random = Arc::new(SeededRandom::new(1));
    let local = Spill::in_directory(directory.path(), 1 << 20, random);
    (directory, vec![Spill::in_memory(1 << 20), local])
}

#[test]
fn overflow_is_spilled_and_comes_back_in_order() {
    let (_directory, spills) = spills();
    for spill in spills {
        let space = space();
        let subscription = space.subscribe(pattern("a"), spilling(spill, 4)).unwrap();
        for number in 0..50 {
            assert_eq!(space.publish(numbered("a", number), &now()).unwrap().queued, 1);
        }
        let stats = subscription.stats();
        assert_eq!((stats.depth, stats.spilled, stats.dropped), (50, 46, 0));
        assert!(stats.spilled_bytes > 0);
        for number in 0..30 {
            assert_eq!(common::number(subscription.next(&now()).unwrap().unwrap().data()), number);
        }
        // Newer ones go behind what is still in the file, singly and in batches.
        space.publish(numbered("a", 50), &now()).unwrap();
        space.publish_many((51..60).map(|n| numbered("a", n)).collect(), &now()).unwrap();
        assert_eq!(numbers(&subscription), (30..60).collect::<Vec<_>>());
        assert_eq!((subscription.stats().depth, subscription.stats().spilled_bytes), (0, 0));
        space.publish(numbered("a", 60), &now()).unwrap();
        assert_eq!(subscription.stats().spilled, 0, "it goes on in memory");
        assert_eq!(numbers(&subscription), [60]);
    }
}

#[test]
fn what_is_spilled_is_drained_after_closing() {
    let space = space();
    let spill = Spill::in_memory(1 << 20);
    let subscription = space.subscribe(pattern("a"), spilling(spill, 2)).unwrap();
    for number in 0..20 {
        space.publish(numbered("a", number), &now()).unwrap();
    }
    subscription.close();
    assert_eq!(numbers(&subscription), (0..20).collect::<Vec<_>>());
    assert!(subscription.next(&soon()).unwrap_err().is(&codes::BUS_CLOSED));
}

#[test]
fn nothing_is_lost_or_out_of_order_while_some_publish_into_the_file_and_another_drains_it() {
    let (_directory, spills) = spills();
    for spill in spills {
        let space = space();
        let subscription = space.subscribe(pattern("a.*"), spilling(spill, 16)).unwrap();
        thread::scope(|scope| {
            for publisher in 0..2 {
                let space = &space;
                scope.spawn(move || {
                    for number in 0..3000 {
                        space.publish(numbered(&format!("a.{publisher}"), number), &now()).unwrap();
                    }
                });
            }
            let mut next = [0, 0];
            for _ in 0..6000 {
                let delivery = subscription.next(&soon()).unwrap().unwrap();
                let from = usize::from(delivery.subject().as_str() == "a.1");
                assert_eq!(number(delivery.data()), next[from]);
                next[from] += 1;
            }
        });
        assert_eq!(subscription.stats().depth, 0);
    }
}

#[test]
fn the_publisher_is_told_at_once_when_the_file_is_at_its_limit() {
    let space = space();
    let spill = Spill::in_memory(200);
    let subscription = space.subscribe(pattern("a"), spilling(spill, 1)).unwrap();
    let told = (0..20).find_map(|number| space.publish(numbered("a", number), &NEVER).err());
    let error = told.unwrap();
    assert!(error.is(&codes::BUS_FULL), "{error}");
    assert_eq!(error.detail("subscribers"), Some("spilling"));
    let kept = numbers(&subscription);
    assert!(kept.len() > 1 && kept.len() < 20);
    assert_eq!(kept, (0..kept.len() as u32).collect::<Vec<_>>());
    space.publish(numbered("a", 99), &now()).unwrap();
    assert_eq!(numbers(&subscription), [99]);
}

/// A disk that is full on demand.
struct Full(MemorySpill, Arc<AtomicBool>);

impl SpillFile for Full {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::new(&codes::DRIVE_FULL, "no room on the disk"));
        }
        self.0.append(bytes)
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, into)
    }

    fn trim(&mut self, offset: u64) {
        self.0.trim(offset);
    }
}

#[test]
fn a_full_disk_is_told_to_the_publisher_and_costs_nothing_that_was_taken_in() {
    let (space, full) = (space(), Arc::<AtomicBool>::default());
    let spill = Spill::new(Full(MemorySpill::default(), Arc::clone(&full)), 1 << 20);
    let subscription = space.subscribe(pattern("a"), spilling(spill, 2)).unwrap();
    let publish = |number| space.publish(numbered("a", number), &NEVER);
    for number in 0..5 {
        publish(number).unwrap();
    }
    full.store(true, Ordering::Relaxed);
    let error = publish(5).unwrap_err();
    assert!(error.is(&codes::BUS_FULL) && error.to_string().contains("no room on the disk"));
    let many = space.publish_many((6..9).map(|n| numbered("a", n)).collect(), &NEVER).unwrap_err();
    assert_eq!(many.detail("missed"), Some("3"));
    full.store(false, Ordering::Relaxed);
    publish(9).unwrap();
    assert_eq!(numbers(&subscription), [0, 1, 2, 3, 4, 9]);
    full.store(true, Ordering::Relaxed);
    publish(10).unwrap();
    assert_eq!(numbers(&subscription), [10], "memory needs no disk");
}

#[test]
fn one_that_stays_full_does_not_hold_up_another_that_gets_room() {
    let space = space();
    let stuck = space.subscribe(pattern("a"), named("stuck", Policy::Block, 1)).unwrap();
    let slow = space.subscribe(pattern("a"), named("slow", Policy::Block, 1)).unwrap();
    space.publish(message("a", "1"), &now()).unwrap();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| space.publish(message("a", "2"), &after_ms(2000)));
        eventually("it waits", || slow.stats().waits > 0 || stuck.stats().waits > 0);
        let start = Instant::now();
        for text in [b"1", b"2"] {
            assert_eq!(&**slow.next(&soon()).unwrap().unwrap().data(), text);
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        stuck.close();
        assert_eq!(publisher.join().unwrap().unwrap().queued, 1);
    });
}
