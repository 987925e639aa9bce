//! A change takes its place first and is waited for later: in order, and nothing of it is half there.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dwk_base::{Deadline, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_meta::{Change, Meta, Require, Submitted};
use world::{World, bytes, get, options};

fn submit(meta: &Arc<Meta>, key: &[u8], content: &[u8]) -> dwk_base::Result<Submitted> {
    let mut upload = meta.upload();
    upload.append(content)?;
    let staged = upload.finish()?;
    let change = Change::new().put(key.to_vec(), b"body".to_vec(), Some(staged));
    meta.submit(change.require(key.to_vec(), Require::Absent), &Deadline::never())
}

/// Waits, a while, until `key` is there.
fn comes(meta: &Arc<Meta>, key: &[u8]) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        if get(meta, key).unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

#[test]
fn changes_happen_in_the_order_in_which_they_were_submitted_whoever_waits_first() {
    let world = World::new(3, "2+1", 1);
    let meta = world.create().unwrap();
    let submitted: Vec<_> =
        (0..20u8).map(|n| submit(&meta, &[n], &bytes(n.into(), 100)).unwrap()).collect();
    let mut versions: Vec<u64> =
        submitted.iter().rev().map(|one| one.wait(&Deadline::never()).unwrap()).collect();
    versions.reverse();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    for (n, one) in submitted.iter().enumerate() {
        assert_eq!(one.outcome().unwrap().unwrap(), versions[n]);
        assert_eq!(get(&meta, &[n as u8]).unwrap(), Some(bytes(n as u64, 100)));
    }
}

#[test]
fn what_is_on_its_way_counts_for_requirements_of_others() {
    let world = World::new(3, "2+1", 2);
    let meta = world.create().unwrap();
    let first = submit(&meta, b"key", b"one").unwrap();
    let error = submit(&meta, b"key", b"two").unwrap_err();
    assert!(error.is(&codes::OBJECT_CONFLICT), "{error}");
    first.wait(&Deadline::never()).unwrap();
    assert_eq!(get(&meta, b"key").unwrap(), Some(b"one".to_vec()));
    drop(first);
    meta.commit(Change::new().delete(b"key".to_vec()).require(b"key".to_vec(), Require::Present))
        .unwrap();
    submit(&meta, b"key", b"two").unwrap().wait(&Deadline::never()).unwrap();
}

#[test]
fn a_submission_that_is_dropped_unwaited_arrives_whole_with_its_stripes() {
    let world = World::new(3, "2+1", 3);
    let meta = world.create().unwrap();
    let content = bytes(7, 30_000);
    assert!(content.len() > options().inline_bytes_max);
    drop(submit(&meta, b"key", &content).unwrap());
    meta.await_left(&Deadline::never()).unwrap();
    assert_eq!(get(&meta, b"key").unwrap(), Some(content.clone()));
    // Nobody waits at all: it is written all the same, and others see it coming.
    drop(submit(&meta, b"more", &content).unwrap());
    let error = submit(&meta, b"more", b"x").unwrap_err();
    assert!(error.is(&codes::OBJECT_CONFLICT), "{error}");
    assert!(comes(&meta, b"more"));
    meta.close().unwrap();
    drop(meta);
    assert_eq!(get(&world.open().unwrap(), b"more").unwrap(), Some(content));
}

#[test]
fn a_submission_without_room_fails_and_those_behind_it_too_until_it_is_let_go() {
    let world = World::new(3, "2+1", 4);
    let meta = world.create().unwrap();
    // The spare segments first: then the journal needs new room.
    for n in 0..40u8 {
        submit(&meta, &[1, n], &bytes(n.into(), 2000)).unwrap().wait(&Deadline::never()).unwrap();
    }
    world.drives.iter().for_each(|drive| drive.set_full(true));
    let mut n = 0u8;
    let failed = loop {
        n += 1;
        assert!(n < 200, "the drives never lacked room");
        let Ok(one) = submit(&meta, &[2, n], &bytes(n.into(), 2000)) else { continue };
        let two = submit(&meta, &[3, n], &bytes(n.into(), 2000)).unwrap();
        if one.wait(&Deadline::never()).is_err() {
            break (one, two);
        }
    };
    let (one, two) = failed;
    for one in [&one, &two] {
        let error = one.wait(&Deadline::never()).unwrap_err();
        assert!(error.is(&codes::DRIVE_FULL), "{error}");
    }
    assert!(get(&meta, &[2, n]).unwrap().is_none() && get(&meta, &[3, n]).unwrap().is_none());
    world.drives.iter().for_each(|drive| drive.set_full(false));
    let held = submit(&meta, &[3, n], b"held").unwrap_err();
    assert!(held.is(&codes::DRIVE_FULL), "{held}");
    drop((one, two));
    submit(&meta, &[3, n], b"again").unwrap().wait(&Deadline::never()).unwrap();
    assert_eq!(get(&meta, &[3, n]).unwrap(), Some(b"again".to_vec()));
}

#[test]
fn a_wait_that_ends_early_says_so_and_the_next_wait_tells_what_became_of_it() {
    let world = World::new(3, "2+1", 5);
    let meta = world.create().unwrap();
    world.drives.iter().for_each(|drive| {
        drive.inject(Fault::new(Effect::Hang).on(Operation::SyncLog));
    });
    let submitted = submit(&meta, b"key", b"value").unwrap();
    let clock = Arc::clone(&meta.pool().seams().clock);
    let error = submitted.wait(&Deadline::after(clock, Duration::from_millis(50))).unwrap_err();
    assert!(error.is(&codes::CONTEXT_DEADLINE), "{error}");
    assert_eq!(error.detail("outcome"), Some("unknown"));
    assert!(submitted.outcome().is_none());
    world.drives.iter().for_each(|drive| {
        drive.heal();
        drive.release();
    });
    submitted.wait(&Deadline::never()).unwrap();
    assert_eq!(get(&meta, b"key").unwrap(), Some(b"value".to_vec()));
}

#[test]
fn content_rides_in_the_journal_up_to_what_its_upload_says() {
    let world = World::new(3, "2+1", 6);
    let meta = world.create().unwrap();
    let content = bytes(1, 10_000);
    let mut upload = meta.upload().with_inline_max(12_000);
    upload.append(&content).unwrap();
    let staged = upload.finish().unwrap();
    meta.commit(Change::new().put(b"key".to_vec(), b"body".to_vec(), Some(staged))).unwrap();
    assert_eq!(meta.status().stripes, 0);
    assert_eq!(get(&meta, b"key").unwrap(), Some(content));
}

#[test]
fn seeking_finds_the_row_at_or_before_a_key_and_else_the_next_one() {
    let world = World::new(3, "2+1", 7);
    let meta = world.create().unwrap();
    for key in [b"b3", b"b6", b"c1", b"a9"] {
        world::put(&meta, key, b"x").unwrap();
    }
    let seek = |key: &[u8]| meta.seek(b"b", key, b"c").unwrap().map(|(key, _)| key);
    for (key, found) in [("b3", "b3"), ("b5", "b3"), ("b9", "b6"), ("b1", "b3")] {
        assert_eq!(seek(key.as_bytes()).unwrap(), found.as_bytes(), "{key}");
    }
    world::delete(&meta, b"b3").unwrap();
    world::delete(&meta, b"b6").unwrap();
    assert_eq!(seek(b"b5"), None);
}
