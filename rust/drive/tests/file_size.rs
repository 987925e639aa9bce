//! A process that may write short files only: it is told so before the system kills it, and no drive is blamed.
//!
//! The limit is the whole process's, so this is a process of its own, with one test. Nothing here ignores `SIGXFSZ`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]

use bytes::Bytes;
use dwk_base::codes;
use dwk_drive::{BlobName, Drive, LocalDrive, Slot};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

const FILE_BYTES_MAX: u64 = 20_480;
const LOG_BYTES: u64 = 65_536;

fn name(text: &str) -> BlobName {
    BlobName::new(text).unwrap()
}

fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
}

fn zeroes(count: usize) -> [Bytes; 1] {
    [vec![0; count].into()]
}

#[test]
fn a_process_that_may_write_short_files_only_is_told_so_and_the_drive_stays_well() {
    let home = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let drive = LocalDrive::create(home.path().join("d1")).unwrap();
    let log = drive.log().unwrap();
    let journal = name("journal.0000");
    log.create_log(&journal, LOG_BYTES).unwrap();
    let before = getrlimit(Resource::Fsize).current;
    limit(Some(FILE_BYTES_MAX));
    let refused = [
        drive.put(&name("s/0001"), &zeroes(100_000)),
        drive.put(&name("s/0002"), &zeroes(1 << 20)),
        drive.write_superblock(Slot::A, &[1]),
        log.create_log(&name("journal.0001"), LOG_BYTES),
        log.hold_log(&journal),
        log.write_log(&journal, LOG_BYTES - 4096, &zeroes(4096)),
        log.write_log(&journal, FILE_BYTES_MAX - 4096, &zeroes(8192)),
    ];
    let allowed = [
        drive.put(&name("s/0003"), &zeroes(FILE_BYTES_MAX as usize)),
        drive.sync("test"),
        log.write_log(&journal, 0, &zeroes(FILE_BYTES_MAX as usize)),
        log.sync_log(&journal, "test"),
    ];
    limit(before);
    for (index, result) in refused.into_iter().enumerate() {
        let error = result.expect_err(&format!("call {index} worked"));
        assert!(error.is(&codes::PROCESS_FILE_SIZE), "call {index}: {error}");
        assert_eq!(error.detail("errno"), Some("27"), "call {index}");
    }
    allowed.into_iter().for_each(Result::unwrap);
    drive.put(&name("s/0001"), &zeroes(100_000)).unwrap();
    drive.write_superblock(Slot::A, &[1]).unwrap();
    log.hold_log(&journal).unwrap();
    log.write_log(&journal, LOG_BYTES - 4096, &zeroes(4096)).unwrap();
    log.sync_log(&journal, "test").unwrap();
    drive.sync("test").unwrap();
    assert_eq!(drive.list(Some("s"), None, 10).unwrap().len(), 2, "nothing is half there");
}
