use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(target_os = "linux")]
use rustix::fs::FileType;
use tempfile::TempDir;

use super::*;
use crate::conformance;

pub(super) fn name(text: &str) -> BlobName {
    BlobName::new(text).unwrap()
}

pub(super) fn bytes(length: usize, fill: u8) -> Bytes {
    vec![fill; length].into()
}

pub(super) fn me() -> Holder {
    let (host, program) = ("here".to_owned(), "a\ntest".to_owned());
    Holder { pid: 42, host, since_unix_ns: 7, program }
}

/// A drive in a directory of its own.
fn drive() -> (TempDir, PathBuf, LocalDrive) {
    let home = TempDir::new().unwrap();
    let path = home.path().join("d1");
    let drive = LocalDrive::create(&path).unwrap();
    (home, path, drive)
}

fn conforms(home: &TempDir, options: LocalOptions) {
    let number = AtomicU64::new(0);
    conformance::run(&|| {
        let path = home.path().join(number.fetch_add(1, Ordering::SeqCst).to_string());
        Arc::new(LocalDrive::create_with(path, options).unwrap())
    });
}

#[test]
fn local_drive_conforms() {
    conforms(&TempDir::new().unwrap(), LocalOptions::default());
}

#[test]
fn local_drive_conforms_without_direct_writes_and_open_files() {
    let options = LocalOptions { direct_bytes_min: u64::MAX, open_files_max: 0 };
    conforms(&TempDir::new().unwrap(), options);
}

#[test]
fn local_drive_conforms_with_direct_writes_of_any_size_and_one_open_file() {
    let options = LocalOptions { direct_bytes_min: 0, open_files_max: 1 };
    conforms(&TempDir::new().unwrap(), options);
}

#[test]
fn local_drive_conforms_on_tmpfs() {
    match TempDir::new_in("/dev/shm") {
        Ok(home) => conforms(&home, LocalOptions::default()),
        Err(error) => println!("skipped: no directory in /dev/shm: {error}"),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_closed_drive_keeps_nothing_open_and_says_so() {
    let (_home, path, drive) = drive();
    let open_in_it = || {
        let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .filter(|to| to.starts_with(&path))
            .count()
    };
    drive.put(&name("s/0123"), &[bytes(200_000, 1)]).unwrap();
    let mut read = [0; 10];
    drive.read(&name("s/0123"), 0, &mut read).unwrap();
    drive.create_log(&name("journal.0"), 8192).unwrap();
    drive.write_log(&name("journal.0"), 4096, &[bytes(4096, 2)]).unwrap();
    assert!(open_in_it() >= 4, "the directory, the blob, the log twice");
    drive.close();
    assert_eq!(open_in_it(), 0);
    let refused = [
        drive.put(&name("s/4567"), &[]).unwrap_err(),
        drive.read(&name("s/0123"), 0, &mut read).unwrap_err(),
        drive.sync_log(&name("journal.0"), "test").unwrap_err(),
        drive.list_logs().unwrap_err(),
    ];
    for error in refused {
        assert!(error.is(&codes::STORE_CLOSED), "{error:?}");
    }
    assert_eq!(open_in_it(), 0);
    let again = LocalDrive::open(&path).unwrap();
    assert_eq!(again.stat(&name("s/0123")).unwrap().bytes, 200_000);
}

#[test]
fn what_was_stored_is_there_when_the_drive_is_opened_again() {
    let (_home, path, drive) = drive();
    drive.put(&name("s/0123"), &[bytes(200_000, 1)]).unwrap();
    drive.create_log(&name("journal.0"), 8192).unwrap();
    drive.write_log(&name("journal.0"), 4096, &[bytes(4096, 2)]).unwrap();
    drive.write_superblock(Slot::B, &[3; 100]).unwrap();
    drop(drive);
    let again = LocalDrive::open(&path).unwrap();
    assert_eq!(again.stat(&name("s/0123")).unwrap().bytes, 200_000);
    assert!(path.join("blobs/s/01/0123").is_file());
    let mut read = [0; 8192];
    again.read_log(&name("journal.0"), 0, &mut read).unwrap();
    assert_eq!((read[4095], read[4096]), (0, 2));
    assert_eq!(again.read_superblock(Slot::B).unwrap().unwrap()[..100], [3; 100]);
    assert_eq!(again.unknown(100).unwrap(), Vec::<String>::new());
}

#[test]
fn a_directory_that_is_not_there_is_missing() {
    let home = TempDir::new().unwrap();
    let absent = home.path().join("none");
    assert!(LocalDrive::open(&absent).unwrap_err().is(&codes::DRIVE_MISSING));
    assert!(LocalDrive::create(absent.join("deep")).unwrap_err().is(&codes::DRIVE_MISSING));
    let file = home.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(LocalDrive::open(&file).unwrap_err().is(&codes::DRIVE_MISSING));
    assert!(!absent.exists());
}

#[test]
fn an_empty_directory_is_opened_and_never_adopted() {
    let home = TempDir::new().unwrap();
    let drive = LocalDrive::open(home.path()).unwrap();
    assert_eq!(drive.read_superblock(Slot::A).unwrap(), None);
    assert!(drive.list(Some("s"), None, 10).unwrap().is_empty());
    assert!(drive.put(&name("a"), &[]).unwrap_err().is(&codes::DRIVE_MISSING));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn creating_takes_an_empty_directory_or_an_unused_drive_and_nothing_else() {
    let (_home, path, drive) = drive();
    drop(drive.lock(&me(), LockMode::Exclusive).unwrap());
    fs::create_dir(path.join("lost+found")).unwrap();
    LocalDrive::create(&path).unwrap();
    drive.put(&name("a"), &[]).unwrap();
    assert!(LocalDrive::create(&path).unwrap_err().is(&codes::DRIVE_NOT_EMPTY));
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("photo.jpg"), "x").unwrap();
    assert!(LocalDrive::create(home.path()).unwrap_err().is(&codes::DRIVE_NOT_EMPTY));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn what_was_made_a_drive_can_be_unmade_unless_it_holds_something_or_is_held() {
    let (_home, path, drive) = drive();
    drive.write_superblock(Slot::A, &[1]).unwrap();
    drive.create_log(&name("journal.0"), 8192).unwrap();
    let lock = drive.lock(&me(), LockMode::Exclusive).unwrap();
    assert!(LocalDrive::unmake(&path, &me()).unwrap_err().is(&codes::STORE_LOCKED));
    assert!(path.join("superblock.a").exists() && path.join("logs/journal.0").exists());
    drop(lock);
    drive.put(&name("s/0123"), &[bytes(10, 1)]).unwrap();
    LocalDrive::unmake(&path, &me()).unwrap();
    assert_eq!(drive.stat(&name("s/0123")).unwrap().bytes, 10);
    assert!(path.join("superblock.a").exists());
    let other = path.with_file_name("d2");
    LocalDrive::create(&other).unwrap();
    LocalDrive::check_new(&other).unwrap();
    assert!(LocalDrive::check_new(&path).unwrap_err().is(&codes::DRIVE_NOT_EMPTY));
    LocalDrive::unmake(&other, &me()).unwrap();
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_removed_while_it_is_open_is_missing_in_every_call() {
    let (_home, path, drive) = drive();
    let (blob, log) = (name("s/0123"), name("journal.0"));
    drive.put(&blob, &[bytes(10, 1)]).unwrap();
    drive.create_log(&log, 4096).unwrap();
    drive.read(&blob, 0, &mut [0; 10]).unwrap();
    drive.read_log(&log, 0, &mut [0; 10]).unwrap();
    drive.write_log(&log, 0, &[bytes(4096, 1)]).unwrap();
    fs::remove_dir_all(&path).unwrap();
    let results = [
        drive.put(&name("s/4567"), &[]),
        drive.read(&blob, 0, &mut [0; 10]).map(drop),
        drive.read_now(&blob, 0, &mut [0; 10]).map(drop),
        drive.stat(&blob).map(drop),
        drive.delete(&blob),
        drive.list(Some("s"), None, 1).map(drop),
        drive.capacity().map(drop),
        drive.sync("test"),
        drive.read_superblock(Slot::A).map(drop),
        drive.write_superblock(Slot::A, &[1]),
        drive.lock(&me(), LockMode::Exclusive).map(drop),
        drive.holder().map(drop),
        drive.create_log(&name("journal.1"), 4096),
        drive.sync_log(&log, "test"),
        drive.read_log(&log, 0, &mut [0; 10]),
        drive.list_logs().map(drop),
        drive.delete_log(&log),
        drive.unknown(1).map(drop),
    ];
    for (index, result) in results.into_iter().enumerate() {
        assert!(result.unwrap_err().is(&codes::DRIVE_MISSING), "call {index}");
    }
    assert!(!path.exists());
}

#[test]
fn a_log_that_is_removed_behind_our_back_is_noticed_by_the_sync() {
    let (_home, path, drive) = drive();
    let log = name("journal.0");
    drive.create_log(&log, 4096).unwrap();
    drive.write_log(&log, 0, &[bytes(4096, 1)]).unwrap();
    fs::remove_file(path.join("logs/journal.0")).unwrap();
    assert!(drive.sync_log(&log, "test").unwrap_err().is(&codes::BLOB_NOT_FOUND));
}

#[test]
fn what_is_removed_or_replaced_behind_our_back_is_noticed_though_it_is_open() {
    let (_home, path, drive) = drive();
    let (blob, log) = (name("s/0123"), name("journal.0"));
    let (blob_path, log_path) = (path.join("blobs/s/01/0123"), path.join("logs/journal.0"));
    drive.put(&blob, &[bytes(10, 1)]).unwrap();
    drive.create_log(&log, 4096).unwrap();
    drive.read(&blob, 0, &mut [0; 10]).unwrap();
    drive.read_log(&log, 0, &mut [0; 10]).unwrap();
    fs::remove_file(&blob_path).unwrap();
    fs::remove_file(&log_path).unwrap();
    for code in [
        drive.read(&blob, 0, &mut [0; 10]).unwrap_err().code(),
        drive.read_log(&log, 0, &mut [0; 10]).unwrap_err().code(),
        drive.write_log(&log, 0, &[bytes(4096, 1)]).unwrap_err().code(),
    ] {
        assert_eq!(code, &codes::BLOB_NOT_FOUND);
    }
    fs::write(&blob_path, [7; 5]).unwrap();
    fs::write(&log_path, [7; 8192]).unwrap();
    let mut read = [0; 5];
    assert_eq!((drive.read(&blob, 0, &mut read).unwrap(), read), (5, [7; 5]));
    drive.read_log(&log, 8000, &mut read).unwrap();
    assert_eq!(read, [7; 5]);
}

#[test]
fn what_is_stored_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (_home, path, drive) = drive();
    drive.put(&name("s/0123"), &[]).unwrap();
    drive.write_superblock(Slot::A, &[1]).unwrap();
    for file in ["blobs", "blobs/s/01/0123", "superblock.a"] {
        let mode = fs::metadata(path.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
}

#[test]
fn a_log_that_was_cut_short_is_refused_and_not_read_as_zeroes() {
    let (_home, path, drive) = drive();
    let log = name("journal.0");
    drive.create_log(&log, 8192).unwrap();
    drive.read_log(&log, 0, &mut [0; 8192]).unwrap();
    fs::File::options()
        .write(true)
        .open(path.join("logs/journal.0"))
        .unwrap()
        .set_len(5000)
        .unwrap();
    assert!(drive.read_log(&log, 0, &mut [0; 8192]).unwrap_err().is(&codes::BUFFER_LENGTH));
    let again = LocalDrive::open(&path).unwrap();
    assert_eq!(again.list_logs().unwrap()[0].bytes, 5000);
}

#[test]
fn foreign_files_are_ignored_and_mentioned() {
    let (_home, path, drive) = drive();
    drive.put(&name("s/0123"), &[]).unwrap();
    drive.put(&name("plain"), &[]).unwrap();
    for foreign in ["notes.txt", "logs/UPPER", "blobs/s/README", "blobs/s/01/4567", "blobs/+/+/.x"]
    {
        fs::write(path.join(foreign), "x").unwrap();
    }
    fs::create_dir_all(path.join("blobs/s/zz/01")).unwrap();
    fs::create_dir_all(path.join("blobs/s/01/0123.d")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path.join("blobs/s/01/0123.l")).unwrap();
    assert_eq!(drive.list(Some("s"), None, 10).unwrap().len(), 1);
    assert_eq!(drive.list(None, None, 10).unwrap().len(), 1);
    assert!(drive.list_logs().unwrap().is_empty());
    let mut unknown = drive.unknown(100).unwrap();
    unknown.sort();
    assert_eq!(
        unknown,
        [
            "blobs/+/+/.x",
            "blobs/s/01/0123.d",
            "blobs/s/01/0123.l",
            "blobs/s/01/4567",
            "blobs/s/README",
            "blobs/s/zz",
            "logs/UPPER",
            "notes.txt",
        ]
    );
    assert_eq!(drive.unknown(2).unwrap().len(), 2);
}

#[test]
fn symbolic_links_are_not_followed() {
    let (home, path, drive) = drive();
    let outside = home.path().join("outside");
    fs::write(&outside, "secret").unwrap();
    drive.put(&name("s/0123"), &[]).unwrap();
    std::os::unix::fs::symlink(&outside, path.join("blobs/s/01/0123.l")).unwrap();
    assert!(drive.read(&name("s/0123.l"), 0, &mut [0; 6]).is_err());
    std::os::unix::fs::symlink(&outside, path.join("superblock.a")).unwrap();
    assert!(drive.write_superblock(Slot::A, &[1]).is_err());
    assert_eq!(fs::read(&outside).unwrap(), b"secret");
}

#[test]
fn the_text_of_a_dead_process_is_nobody() {
    let (_home, path, drive) = drive();
    let dead = "pid 1\nhost x\nsince_unix_ns 1\nprogram y\n";
    fs::write(path.join("lock"), dead).unwrap();
    assert_eq!(drive.holder().unwrap(), None);
    let lock = drive.lock(&me(), LockMode::Exclusive).unwrap();
    let program = "a test".to_owned();
    assert_eq!(drive.holder().unwrap(), Some(Holder { program, ..me() }));
    // In a second opening too, as another process would see it.
    let other = LocalDrive::open(&path).unwrap();
    assert_eq!(other.holder().unwrap().map(|holder| holder.pid), Some(42));
    assert!(other.lock(&me(), LockMode::Shared).unwrap_err().is(&codes::STORE_LOCKED));
    drop(lock);
    assert_eq!(fs::read(path.join("lock")).unwrap(), [0; 4096]);
    for garbage in [&b"\xff\xfe\x00"[..], b"pid x\n", b"{}", &[b'p'; 10_000]] {
        fs::write(path.join("lock"), garbage).unwrap();
        assert_eq!(drive.holder().unwrap(), None);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn who_is_refused_is_told_that_the_holder_has_ended_but_for_a_disk_that_hangs() {
    let (_home, path, drive) = drive();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let holder = Holder { pid: child.id(), ..me() };
    let _lock = drive.lock(&holder, LockMode::Exclusive).unwrap();
    let other = LocalDrive::open(&path).unwrap();
    let said = |me: &Holder| {
        let error = other.lock(me, LockMode::Exclusive).unwrap_err();
        assert!(error.is(&codes::STORE_LOCKED), "{error}");
        error.message().contains("once that disk answers")
    };
    // It is a zombie as long as nobody asks what became of it.
    while fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|s| !s.contains(") Z"))
    {
        std::thread::yield_now();
    }
    assert!(said(&me()));
    assert!(!said(&Holder { host: "elsewhere".to_owned(), ..me() }), "a number of another machine");
    child.wait().unwrap();
    assert!(!said(&me()), "it has gone, and somebody else holds the drive");
}

#[test]
fn asking_who_holds_a_drive_keeps_nobody_from_taking_it() {
    let (_home, path, drive) = drive();
    let asking = LocalDrive::open(&path).unwrap();
    fs::write(path.join("lock"), "pid 1\nhost x\nsince_unix_ns 1\nprogram y\n").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..300).for_each(|_| drop(asking.holder().unwrap())));
        for _ in 0..300 {
            drop(drive.lock(&me(), LockMode::Exclusive).unwrap());
        }
    });
}

#[test]
fn leftovers_of_an_earlier_process_are_removed_by_the_next_holder() {
    let (_home, path, drive) = drive();
    fs::write(path.join("tmp/0"), "half a blob").unwrap();
    drive.put(&name("a"), &[bytes(10, 1)]).unwrap();
    assert!(path.join("tmp/0").exists(), "removed without the lock");
    drop(drive.lock(&me(), LockMode::Shared).unwrap());
    assert!(path.join("tmp/0").exists(), "removed by a reader");
    drop(drive.lock(&me(), LockMode::Exclusive).unwrap());
    assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_no_drive_is_not_taken_and_nothing_in_it_changes() {
    let home = TempDir::new().unwrap();
    let path = home.path();
    let empty = LocalDrive::open(path).unwrap();
    for mode in [LockMode::Shared, LockMode::Exclusive] {
        assert!(empty.lock(&me(), mode).unwrap_err().is(&codes::DRIVE_MISSING));
    }
    assert_eq!(fs::read_dir(path).unwrap().count(), 0, "something was made in it");
    for directory in ["tmp", "blobs", "logs"] {
        fs::create_dir(path.join(directory)).unwrap();
        fs::write(path.join("tmp/1"), "years of work").unwrap();
        fs::write(path.join("lock"), "my own file").unwrap();
        assert!(empty.lock(&me(), LockMode::Exclusive).unwrap_err().is(&codes::DRIVE_MISSING));
        assert_eq!(fs::read(path.join("tmp/1")).unwrap(), b"years of work");
        assert_eq!(fs::read(path.join("lock")).unwrap(), b"my own file");
    }
}

#[test]
fn only_what_is_ours_is_removed_from_the_temporary_directory() {
    let (_home, path, drive) = drive();
    for name in ["0", "17", "thesis.tex", "1.bak"] {
        fs::write(path.join("tmp").join(name), "x").unwrap();
    }
    drop(drive.lock(&me(), LockMode::Exclusive).unwrap());
    let left = fs::read_dir(path.join("tmp")).unwrap().map(|at| at.unwrap().file_name());
    assert_eq!(left.collect::<std::collections::BTreeSet<_>>().len(), 2);
    assert!(path.join("tmp/thesis.tex").exists() && path.join("tmp/1.bak").exists());
}

#[test]
fn drives_on_one_file_system_say_so() {
    let (home, _path, one) = drive();
    let two = LocalDrive::create(home.path().join("d2")).unwrap();
    assert!(one.describe().failure_domain.is_some());
    assert_eq!(one.describe().failure_domain, two.describe().failure_domain);
}

#[test]
fn read_now_reads_what_is_cached() {
    let (_home, _path, drive) = drive();
    reads_now(&drive);
}

#[test]
fn read_now_never_waits_on_tmpfs() {
    match TempDir::new_in("/dev/shm") {
        Ok(home) => reads_now(&LocalDrive::create(home.path().join("d1")).unwrap()),
        Err(error) => println!("skipped: no directory in /dev/shm: {error}"),
    }
}

#[test]
fn read_log_now_reads_what_is_cached_and_never_what_was_there_before() {
    let (_home, path, drive) = drive();
    let (log, journal) = (drive.log().unwrap(), name("journal.0000"));
    log.create_log(&journal, 1 << 20).unwrap();
    let mut into = [0; 5000];
    let mut served = 0;
    for round in 1..50u8 {
        // Past the page cache, in which the last round left what was there before.
        log.write_log(&journal, 8192, &[bytes(8192, round)]).unwrap();
        let now = log.read_log_now(&journal, 9000, &mut into).unwrap();
        assert!(!now || into == [round; 5000], "round {round}");
        log.read_log(&journal, 9000, &mut into).unwrap();
        served += u8::from(log.read_log_now(&journal, 9000, &mut into).unwrap());
        assert_eq!(into, [round; 5000]);
    }
    assert!(served > 40, "only {served} of 49 reads of what is cached were served");
    let again = LocalDrive::open(&path).unwrap();
    let log = again.log().unwrap();
    assert!(!log.read_log_now(&journal, 0, &mut into).unwrap(), "nobody has opened it yet");
    log.read_log(&journal, 0, &mut into).unwrap();
    log.delete_log(&journal).unwrap();
    let gone = log.read_log_now(&journal, 0, &mut into);
    assert!(!gone.unwrap(), "it was deleted");
}

fn reads_now(drive: &LocalDrive) {
    drive.put(&name("s/0123"), &[bytes(5000, 7)]).unwrap();
    let mut into = [0; 6000];
    drive.read(&name("s/0123"), 0, &mut into).unwrap();
    assert_eq!(drive.read_now(&name("s/0123"), 0, &mut into).unwrap(), Some(5000));
    assert_eq!(drive.read_now(&name("s/0123"), 4990, &mut into[..100]).unwrap(), Some(10));
    drive.delete(&name("s/0123")).unwrap();
    drive.put(&name("s/0123"), &[bytes(10, 8)]).unwrap();
    drive.read(&name("s/0123"), 0, &mut into).unwrap();
    assert_eq!((into[0], drive.read_now(&name("s/0123"), 0, &mut into).unwrap()), (8, Some(10)));
}

/// Puts something that is no file where the drive looks for one: opening it waits, or reads without end.
#[cfg(target_os = "linux")]
fn put_in_place(what: FileType, path: &std::path::Path) {
    let _ = fs::remove_file(path);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    match what {
        FileType::Directory => fs::create_dir(path).unwrap(),
        FileType::Symlink => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        // A device needs rights that a test may not have.
        _ => rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0).unwrap(),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_links_and_directories_in_the_place_of_files_are_refused_and_nobody_waits_for_them() {
    for what in [FileType::Fifo, FileType::Symlink, FileType::Directory] {
        let (_home, path, drive) = drive();
        drive.put(&name("s/0123"), &[bytes(10, 1)]).unwrap();
        drive.create_log(&name("journal.0"), 8192).unwrap();
        for place in ["blobs/s/01/0123", "logs/journal.0", "superblock.a", "lock"] {
            put_in_place(what, &path.join(place));
        }
        let log = name("journal.0");
        let refused = [
            drive.read(&name("s/0123"), 0, &mut [0; 10]).map(drop),
            drive.read_log(&log, 0, &mut [0; 10]),
            drive.write_log(&log, 0, &[bytes(4096, 1)]),
            drive.sync_log(&log, "test"),
            drive.read_superblock(Slot::A).map(drop),
            drive.write_superblock(Slot::A, &[1]),
            drive.lock(&me(), LockMode::Exclusive).map(drop),
            drive.holder().map(drop),
        ];
        for (index, result) in refused.into_iter().enumerate() {
            let error = result.expect_err(&format!("{what:?}: call {index} worked"));
            assert!(error.is(&codes::DRIVE_IO), "{what:?}: call {index}: {error}");
            assert!(error.message().contains("no plain file"), "{what:?}: call {index}: {error}");
        }
        assert_eq!(drive.read_now(&name("s/0123"), 0, &mut [0; 10]).unwrap(), None);
        assert!(drive.stat(&name("s/0123")).unwrap_err().is(&codes::BLOB_NOT_FOUND));
        assert!(drive.list_logs().unwrap().is_empty());
        drive.put(&name("s/0124"), &[bytes(10, 1)]).unwrap();
        drive.sync("test").unwrap();
    }
}
