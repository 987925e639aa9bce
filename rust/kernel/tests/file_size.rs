//! A process that may write no files: it is told so before the system kills it, and makes no store.
//!
//! The limit is the whole process's, so this is a process of its own, with one test. Nothing here ignores `SIGXFSZ`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use dwk_base::{Seams, SystemRandom, codes};
use dwk_kernel::{Context, Create, Deadline, Drives, Kernel, OpenSpec, Principal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
}

#[test]
fn where_a_store_is_found_is_not_written_past_what_the_process_may() {
    let home = tempfile::tempdir().unwrap();
    let open = |create| {
        let drives = (1..=3).map(|n| format!("memory://short-{n}")).collect();
        let path = Some(home.path().join("store"));
        let spec =
            OpenSpec { path, drives: Some(Drives::At(drives)), create, ..OpenSpec::default() };
        let context =
            Context::new(Principal::new("test").unwrap(), Deadline::never(), &SystemRandom);
        Kernel::open(&spec, &context, &Seams::system())
    };
    let before = getrlimit(Resource::Fsize).current;
    limit(Some(10));
    let refused = open(Create::New);
    limit(before);
    let error = refused.err().unwrap();
    assert!(error.is(&codes::PROCESS_FILE_SIZE), "{error}");
    assert!(!home.path().join("store/store.json").exists());
    drop(open(Create::Never).or_else(|_| open(Create::New)).unwrap());
    assert!(home.path().join("store/store.json").exists());
}
