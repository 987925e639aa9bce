//! Streams and ranges of objects while one drive is late with each answer.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::time::{Duration, Instant};

use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_pool::{PoolStatus, Redundancy, State};
use world::{World, bytes, put};

const LATE: Duration = Duration::from_millis(150);

#[test]
fn streams_do_not_wait_for_a_late_drive_which_is_blamed_for_nothing() {
    for (geometry, drives) in [("4+2", 6), ("mirror:2", 3), ("raid5:3", 3)] {
        let world = World::new(drives, geometry, 7);
        let meta = world.create().unwrap();
        let content = bytes(1, 1 << 20);
        put(&meta, b"key", &content).unwrap();
        let late = Fault::new(Effect::Delay(LATE)).on(Operation::Read).named("s/");
        world.drives[0].inject(late);
        let (_, mut reader) = meta.read(b"key").unwrap().unwrap();
        let (start, mut into) = (Instant::now(), vec![0; 10_000]);
        for from in (0..content.len()).step_by(into.len()) {
            let got = reader.read_at(from as u64, &mut into).unwrap();
            assert!(into[..got] == content[from..from + got], "{geometry}: other bytes at {from}");
        }
        // More than thirty stripes, most of them with a shard there: a fraction of the time that waiting takes.
        assert!(start.elapsed() < LATE * 8, "{geometry}: {:?}", start.elapsed());
        let status = meta.pool().status(&*meta).unwrap();
        assert!(status.hedges.asked > 0 && status.hedges.asked < 40, "{:?}", status.hedges);
        assert!(status.drives.iter().all(|drive| drive.state == State::Ok), "{status:?}");
        assert_eq!((status.redundancy, status.degraded_stripes), (Redundancy::Full, 0));
        world.drives[0].heal();
        world::settle(&meta);
        let late: Vec<u64> =
            meta.pool().status(&*meta).unwrap().drives.iter().map(|one| one.answers.late).collect();
        assert!(late[1..].iter().all(|others| *others < late[0]), "{geometry}: {late:?}");
        meta.close().unwrap();
    }
}

#[test]
fn who_asks_is_told_of_a_drive_that_is_late_often() {
    let world = World::new(6, "4+2", 8);
    let meta = world.create().unwrap();
    put(&meta, b"key", &bytes(1, 400_000)).unwrap();
    let status = || meta.pool().status(&*meta).unwrap();
    let told = |status: &PoolStatus| status.advice.iter().any(|text| text.starts_with("d3 gave"));
    let read = || {
        world::get(&meta, b"key").unwrap().unwrap();
        status()
    };
    for _ in 0..20 {
        assert_eq!(read().advice, Vec::<String>::new());
    }
    let late = Fault::new(Effect::Delay(Duration::from_millis(30))).on(Operation::Read).named("s/");
    world.drives[2].inject(late);
    let for_a_minute = || {
        let start = Instant::now();
        std::iter::repeat_with(read).take_while(move |_| start.elapsed() < Duration::from_mins(1))
    };
    let now = for_a_minute().find(told).unwrap();
    assert!(now.drives[2].answers.late >= 100, "{:?}", now.drives[2].answers);
    assert_eq!((now.advice.len(), now.redundancy), (1, Redundancy::Full), "{:?}", now.advice);
    // When it is well again its part of late answers becomes small.
    world.drives[2].heal();
    for_a_minute().find(|status| !told(status)).unwrap();
}
