//! A process that may open few files: drives keep few open, and what cannot be opened is no drive's fault.
//!
//! The limit is the whole process's, so this is a process of its own, with one test.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use dwk_base::codes;
use dwk_drive::{BlobName, Drive, LocalDrive, Slot};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

const FILES_MAX: u64 = 96;
const DRIVES: usize = 12;
const BLOBS: usize = 30;
const LOGS: usize = 60;

fn name(text: &str) -> BlobName {
    BlobName::new(text).unwrap()
}

fn limit(files: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).unwrap();
}

/// Takes every descriptor that is left.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn content(number: usize) -> Bytes {
    vec![number as u8; 5000].into()
}

/// Much is read and little is kept open, on more drives than could keep what one may.
fn drives_share_what_there_is(drives: &[LocalDrive]) {
    for drive in drives {
        for blob in 0..BLOBS {
            drive.put(&name(&format!("s/{blob:04x}")), &[content(blob)]).unwrap();
        }
        drive.sync("test").unwrap();
    }
    let before = take_all().len();
    for drive in drives {
        for blob in 0..BLOBS {
            let mut into = vec![0; 5000];
            drive.read(&name(&format!("s/{blob:04x}")), 0, &mut into).unwrap();
            assert_eq!(into, content(blob));
        }
    }
    let kept = before - take_all().len();
    assert!(kept <= FILES_MAX as usize / 4, "{kept} of {FILES_MAX} descriptors are kept");
    assert!(kept >= DRIVES, "each drive keeps one");
}

fn logs_are_closed_once_they_are_synced(drive: &LocalDrive) {
    let log = drive.log().unwrap();
    let page = |number: usize| Bytes::from(vec![number as u8; 4096]);
    for number in 0..LOGS {
        let journal = name(&format!("journal.{number:04}"));
        log.create_log(&journal, 8192).unwrap();
        log.write_log(&journal, 4096, &[page(number)]).unwrap();
        log.sync_log(&journal, "test").unwrap();
    }
    for number in 0..LOGS {
        let mut into = vec![0; 4096];
        log.read_log(&name(&format!("journal.{number:04}")), 4096, &mut into).unwrap();
        assert_eq!(into, page(number));
    }
}

/// What the process holds open elsewhere takes nothing from what drives must do, as far as they can let go.
fn drives_let_go_for_one_another(drives: &[LocalDrive]) {
    let hog = take_all();
    assert!(!hog.is_empty(), "nothing was left to take");
    for drive in drives {
        drive.read(&name("s/0001"), 0, &mut [0; 10]).unwrap();
        drive.put(&name("s/ffff"), &[content(1)]).unwrap();
    }
    drop(hog);
}

fn want_of_descriptors_is_no_failure(drive: &LocalDrive, path: &Path) {
    drive.write_superblock(Slot::A, &[1; 100]).unwrap();
    drive.put(&name("s/eeee"), &[content(7)]).unwrap();
    drive.delete(&name("s/0000")).unwrap();
    let mut hog = take_all();
    // What fails has everybody let go: then that is taken as well.
    drop(LocalDrive::open(path));
    hog.extend(take_all());
    let results = [
        drive.put(&name("s/dddd"), &[content(1)]),
        drive.read(&name("s/0002"), 0, &mut [0; 10]).map(drop),
        drive.list(Some("s"), None, 10).map(drop),
        drive.sync("test"),
        drive.read_superblock(Slot::A).map(drop),
        drive.write_superblock(Slot::A, &[2]),
        drive.log().unwrap().create_log(&name("journal.9999"), 4096),
        drive.log().unwrap().read_log(&name("journal.0000"), 0, &mut [0; 10]),
        LocalDrive::open(path).map(drop),
    ];
    for (index, result) in results.into_iter().enumerate() {
        let error = result.expect_err(&format!("call {index} worked"));
        assert!(error.is(&codes::PROCESS_EXHAUSTED), "call {index}: {error}");
    }
    drop(hog);
    drive.sync("test").unwrap();
    assert_eq!(drive.stat(&name("s/eeee")).unwrap().bytes, 5000);
    drive.put(&name("s/dddd"), &[content(1)]).unwrap();
    drive.sync("test").unwrap();
}

/// A log that is held takes all that it can without a descriptor.
fn a_log_that_is_held_needs_no_descriptor(drive: &LocalDrive, path: &Path) {
    let log = drive.log().unwrap();
    let (held, other) = (name("journal.0001"), name("journal.0002"));
    log.hold_log(&other).unwrap();
    log.hold_log(&held).unwrap();
    let mut hog = take_all();
    // What fails has everybody let go: then that is taken as well.
    drop(LocalDrive::open(path));
    hog.extend(take_all());
    for round in 0..10 {
        log.write_log(&held, 0, &[Bytes::from(vec![round; 4096])]).unwrap();
        log.sync_log(&held, "test").unwrap();
        let mut into = vec![0; 4096];
        log.read_log(&held, 0, &mut into).unwrap();
        assert_eq!(into, vec![round; 4096]);
    }
    assert!(log.hold_log(&other).unwrap_err().is(&codes::PROCESS_EXHAUSTED));
    log.write_log(&held, 0, &[Bytes::from(vec![10; 4096])]).unwrap();
    drop(hog);
    log.hold_log(&other).unwrap();
}

#[test]
fn drives_do_with_few_descriptors_and_want_of_them_is_no_drives_failure() {
    // Much is synced, and nothing here has to last.
    let home = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let path = |number: usize| home.path().join(format!("d{number}"));
    let drives: Vec<_> = (0..DRIVES).map(|n| LocalDrive::create(path(n)).unwrap()).collect();
    limit(FILES_MAX);
    drives_share_what_there_is(&drives);
    drives_let_go_for_one_another(&drives);
    logs_are_closed_once_they_are_synced(&drives[0]);
    want_of_descriptors_is_no_failure(&drives[0], &path(0));
    a_log_that_is_held_needs_no_descriptor(&drives[0], &path(0));
}
