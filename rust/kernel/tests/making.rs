//! Making a store that was cut off is begun again in the same place.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Result, Seams, SystemRandom, codes};
use dwk_drive::{FaultyDrive, Holder, LocalDrive, Power};
use dwk_kernel::{Context, Create, Deadline, Drives, Kernel, OpenSpec, Principal};
use dwk_pool::{NewDrive, Pool, PoolOptions};

fn open(path: &Path, create: Create) -> Result<Kernel> {
    let seams = Seams::system();
    let drives = (create != Create::Never).then_some(Drives::Count(3));
    let geometry = drives.as_ref().map(|_| "2+1".to_owned());
    let path = Some(path.to_owned());
    let spec = OpenSpec { path, drives, geometry, create, ..OpenSpec::default() };
    let deadline = Deadline::after(Arc::clone(&seams.clock), Duration::from_mins(10));
    let context = Context::new(Principal::new("test")?, deadline, &SystemRandom);
    Kernel::open(&spec, &context, &seams)
}

/// Makes a pool on d1 to d3 under `path`, as the kernel does, and cuts it off; false if it was made.
fn make_until(path: &Path, step: u64) -> bool {
    let power = Power::new();
    let places: Vec<PathBuf> = (1..=3).map(|n| path.join(format!("d{n}"))).collect();
    let new = places.iter().zip(1..).map(|(place, n)| {
        let local = LocalDrive::create(place).unwrap();
        let drive = Arc::new(FaultyDrive::new(Arc::new(local), &power, step));
        NewDrive { drive, name: format!("d{n}"), labels: BTreeMap::new() }
    });
    let new: Vec<_> = new.collect();
    power.cut_in(step);
    let holder = Holder { pid: 1, host: "t".into(), since_unix_ns: 0, program: "t".into() };
    let geometry = "2+1".parse().unwrap();
    drop(Pool::create(&new, &geometry, &PoolOptions::default(), Seams::system(), &holder));
    let is_cut = power.is_cut();
    power.restore();
    is_cut
}

#[test]
fn a_store_whose_making_was_cut_off_anywhere_is_made_in_the_same_place() {
    let (mut unfinished, mut made) = (0, 0);
    for step in 1.. {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let is_cut = make_until(path, step);
        match open(path, Create::Never) {
            Ok(kernel) => {
                made += 1;
                drop(kernel);
            }
            Err(error) => {
                let none = error.is(&codes::STORE_UNFINISHED) || error.is(&codes::STORE_NOT_FOUND);
                assert!(is_cut && none, "step {step}: {error}");
                unfinished += usize::from(error.is(&codes::STORE_UNFINISHED));
            }
        }
        let opened = open(path, Create::IfMissing);
        drop(opened.unwrap_or_else(|error| panic!("step {step}: {error}")));
        if !is_cut {
            break;
        }
    }
    assert!(unfinished > 5 && made > 1, "{unfinished} {made}");
}
