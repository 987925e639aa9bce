//! A process that may write short files only: overflow that has no room there is refused, before the system kills it.
//!
//! The limit is the whole process's, so this is a process of its own, with one test. Nothing here ignores `SIGXFSZ`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::Arc;

use dwk_base::{SystemRandom, codes};
use dwk_bus::{LocalSpill, SpillFile};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const FILE_BYTES_MAX: u64 = 20_480;

fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
}

#[test]
fn overflow_that_the_process_may_not_write_is_refused_and_the_rest_stays() {
    let home = tempfile::tempdir().unwrap();
    let mut spill = LocalSpill::new(home.path(), Arc::new(SystemRandom));
    let before = getrlimit(Resource::Fsize).current;
    limit(Some(FILE_BYTES_MAX));
    let first = spill.append(&[1; 16_000]);
    let refused = spill.append(&[2; 16_000]);
    let last = spill.append(&[3; 4_480]);
    limit(before);
    first.unwrap();
    let error = refused.unwrap_err();
    assert!(error.is(&codes::PROCESS_FILE_SIZE), "{error}");
    last.unwrap();
    spill.append(&[4; 16_000]).unwrap();
    let mut all = vec![0; 16_000 + 4_480 + 16_000];
    spill.read_at(0, &mut all).unwrap();
    assert!(all[..16_000].iter().all(|byte| *byte == 1));
    assert!(all[16_000..20_480].iter().all(|byte| *byte == 3));
    assert!(all[20_480..].iter().all(|byte| *byte == 4));
}
