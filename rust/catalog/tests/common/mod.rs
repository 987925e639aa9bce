//! A catalog over a pool in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Seams, SystemClock};
use dwk_catalog::{Catalog, ContainerName, Deadline};
use dwk_drive::{Holder, MemoryDrive};
use dwk_meta::{Meta, Options};
use dwk_pool::{NewDrive, Pool, PoolOptions};

pub(crate) fn catalog(containers: &[&str]) -> Catalog {
    let seams = Seams::seeded(1);
    let catalog = Catalog::new(meta(&seams), seams);
    for container in containers {
        let made = catalog.create_container(&name(container), b"");
        made.expect("a new container can be made");
    }
    catalog
}

fn meta(seams: &Seams) -> Arc<Meta> {
    let named = |n: usize| NewDrive {
        drive: Arc::new(MemoryDrive::new(format!("memory://{n}"))),
        name: format!("d{n}"),
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
    let drives: Vec<_> = (1..=3).map(named).collect();
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
