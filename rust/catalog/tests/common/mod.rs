//! A catalog over a pool in memory.

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Seams, SystemClock};
use dwk_catalog::{Catalog, ContainerName, Deadline};
use dwk_meta::Meta;

pub(crate) fn catalog(containers: &[&str]) -> Catalog {
    let catalog = Catalog::new(Meta::fake(), Seams::seeded(1));
    for container in containers {
        catalog.create_container(&name(container), b"").expect("a test's own name is good");
    }
    catalog
}

pub(crate) fn name(text: &str) -> ContainerName {
    ContainerName::new(text).expect("a test's own name is good")
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), Duration::from_mins(1))
}
