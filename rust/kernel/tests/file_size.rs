//! A process that may write no files: the system does not kill it, and who asks is told what could not be
//! written.
//!
//! The limit is the whole process's, so this is a process of its own, with one test. Nothing here ignores `SIGXFSZ`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use dwk_base::{Seams, SystemRandom};
use dwk_kernel::operations::Status;
use dwk_kernel::{Context, Create, Deadline, Drives, Kernel, OpenSpec, Principal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
}

fn context() -> Context {
    Context::new(Principal::new("test").unwrap(), Deadline::never(), &SystemRandom)
}

#[test]
fn where_a_store_is_found_is_not_written_past_what_the_process_may() {
    let home = tempfile::tempdir().unwrap();
    let open = |create| {
        let drives = (1..=3).map(|n| format!("memory://short-{n}")).collect();
        let path = Some(home.path().join("store"));
        let spec =
            OpenSpec { path, drives: Some(Drives::At(drives)), create, ..OpenSpec::default() };
        Kernel::open(&spec, &context(), &Seams::system())
    };
    let before = getrlimit(Resource::Fsize).current;
    limit(Some(10));
    let opened = open(Create::New);
    limit(before);
    let opened = opened.unwrap();
    let status = opened.execute(&context(), Status).unwrap();
    let said = status.warnings.iter().find(|text| text.contains("is not noted"));
    assert!(said.is_some_and(|text| text.contains("store.json")), "{:?}", status.warnings);
    assert!(!home.path().join("store/store.json").exists());
    drop(opened);
    drop(open(Create::Never).unwrap());
    assert!(home.path().join("store/store.json").exists());
}
