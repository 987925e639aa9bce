//! After a loss and its repair everything is as safe as before, whatever was written meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use dwk_base::codes;
use dwk_pool::Control;
use world::{Model, World, bytes, check, put};

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
                assert!(error.is(&codes::POOL_BUSY), "{error}");
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
