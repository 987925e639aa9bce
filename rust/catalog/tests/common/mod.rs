//! A catalog over a pool in memory.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Seams, SystemClock};
use dwk_catalog::{Catalog, ContainerName};
use dwk_drive::{Drive, Holder, MemoryDrive};
use dwk_meta::{Meta, Options};
use dwk_pool::{NewDrive, Pool, PoolOptions};

pub(crate) fn catalog(containers: &[&str]) -> Catalog {
    catalog_on(memory(), containers)
}

pub(crate) fn meta() -> Arc<Meta> {
    meta_on(memory(), &Seams::seeded(1))
}

fn memory() -> Vec<Arc<dyn Drive>> {
    (1..=3).map(|n| Arc::new(MemoryDrive::new(format!("memory://{n}"))) as _).collect()
}

pub(crate) fn catalog_on(drives: Vec<Arc<dyn Drive>>, containers: &[&str]) -> Catalog {
    let seams = Seams::seeded(1);
    let catalog = Catalog::new(meta_on(drives, &seams), seams);
    for container in containers {
        let made = catalog.create_container(&name(container), b"", &soon());
        made.expect("a new container can be made");
    }
    catalog
}

fn meta_on(drives: Vec<Arc<dyn Drive>>, seams: &Seams) -> Arc<Meta> {
    let named = |(n, drive): (usize, _)| NewDrive {
        drive,
        name: format!("d{}", n + 1),
        labels: BTreeMap::new(),
    };
    let holder = Holder {
        pid: std::process::id(),
        host: "here".into(),
        since_unix_ns: 0,
        program: "test".into(),
    };
    let geometry = "2+1".parse().expect("2+1 is a geometry");
    let mut options = PoolOptions::default();
    options.journal.segment_bytes = 1 << 20;
    options.journal.record_bytes_max = 256 << 10;
    let drives: Vec<_> = drives.into_iter().enumerate().map(named).collect();
    let pool = Pool::create(&drives, &geometry, &options, seams.clone(), &holder);
    Meta::create(pool.expect("a pool in memory is made"), Options::default())
        .expect("a new map opens")
}

pub(crate) fn name(text: &str) -> ContainerName {
    ContainerName::new(text).expect("a test's own name is good")
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), Duration::from_mins(1))
}
