//! Streams and ranges of objects while one drive is late with each answer.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::time::{Duration, Instant};

use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_pool::{Redundancy, State};
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
            meta.pool().status(&*meta).unwrap().drives.iter().map(|one| one.late_reads).collect();
        assert!(late[1..].iter().all(|others| *others < late[0]), "{geometry}: {late:?}");
        meta.close().unwrap();
    }
}
