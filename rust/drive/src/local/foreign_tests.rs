//! What is none of the drive's and lies where a blob should: no blob, in nobody's way, and left whole.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::tests::{bytes, name};
use super::*;

/// Puts something at a place, and says how to see that it is still there.
fn put_in_place(what: FileType, path: &Path) {
    let _ = fs::remove_file(path);
    match what {
        FileType::Directory => {
            fs::create_dir(path).unwrap();
            fs::write(path.join("theirs"), "content").unwrap();
        }
        FileType::Symlink => std::os::unix::fs::symlink("nowhere", path).unwrap(),
        FileType::Socket => drop(UnixListener::bind(path).unwrap()),
        FileType::RegularFile => fs::write(path, "content").unwrap(),
        _ => mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
    }
}

fn is_whole(what: FileType, path: &Path) -> bool {
    let mode = |metadata: fs::Metadata| std::os::unix::fs::MetadataExt::mode(&metadata);
    let is_same = path.symlink_metadata().is_ok_and(|m| FileType::from_raw_mode(mode(m)) == what);
    let content = |path| fs::read(path).is_ok_and(|content| content == b"content");
    is_same
        && match what {
            FileType::Directory => content(path.join("theirs")),
            FileType::RegularFile => content(path.to_owned()),
            _ => true,
        }
}

const FOREIGN: [FileType; 4] =
    [FileType::Directory, FileType::Fifo, FileType::Socket, FileType::Symlink];

/// In a short place: a socket's path may not be long.
fn drive() -> (TempDir, LocalDrive) {
    let home = TempDir::new_in("/tmp").unwrap();
    let drive = LocalDrive::create(home.path().join("d")).unwrap();
    (home, drive)
}

#[test]
fn what_lies_where_a_blob_should_is_no_blob_and_makes_way_for_one() {
    for what in FOREIGN {
        let (home, drive) = drive();
        let blob = name("s/0123.00");
        drive.put(&blob, &[bytes(10, 1)]).unwrap();
        for round in 0..3 {
            let place = home.path().join("d/blobs/s/01/0123.00");
            put_in_place(what, &place);
            assert!(drive.read(&blob, 0, &mut [0; 10]).is_err());
            assert!(drive.stat(&blob).unwrap_err().is(&codes::BLOB_NOT_FOUND));
            assert!(drive.delete(&blob).unwrap_err().is(&codes::BLOB_NOT_FOUND), "{what:?}");
            assert!(is_whole(what, &place), "{what:?} was removed");
            drive.put(&blob, &[bytes(10, round)]).unwrap();
            drive.sync("test").unwrap();
            let mut into = [9; 10];
            assert_eq!(drive.read(&blob, 0, &mut into).unwrap(), 10);
            assert_eq!(into, [round; 10]);
            let aside = format!("blobs/s/01/0123.00+{round}");
            assert!(is_whole(what, &home.path().join("d").join(&aside)), "{what:?} is lost");
            assert!(drive.unknown(10).unwrap().contains(&aside), "a scrub says where it is");
        }
        assert_eq!(drive.list(Some("s"), None, 10).unwrap().len(), 1);
    }
}

#[test]
fn what_lies_where_a_directory_of_blobs_should_makes_way_for_it() {
    let kinds = [FileType::RegularFile, FileType::Fifo, FileType::Socket, FileType::Symlink];
    for (what, place) in kinds.into_iter().flat_map(|what| ["01", ""].map(|below| (what, below))) {
        let (home, drive) = drive();
        drive.put(&name("s/0123.00"), &[bytes(10, 1)]).unwrap();
        let folder = home.path().join("d/blobs/s");
        let place = if place.is_empty() { folder } else { folder.join(place) };
        fs::remove_dir_all(&place).unwrap();
        put_in_place(what, &place);
        for blob in ["s/0123.00", "s/01ff.00", "s/ff00.00"] {
            drive.put(&name(blob), &[bytes(10, 2)]).unwrap();
        }
        drive.sync("test").unwrap();
        assert_eq!(drive.list(Some("s"), None, 10).unwrap().len(), 3, "{what:?} {place:?}");
        let aside = format!("{}+0", place.display());
        assert!(is_whole(what, Path::new(&aside)), "{what:?} {place:?} is lost");
    }
}

#[test]
fn a_directory_that_is_a_link_to_one_stays_one() {
    let (home, drive) = drive();
    drive.put(&name("s/0123.00"), &[bytes(10, 1)]).unwrap();
    let folder = home.path().join("d/blobs/s");
    fs::rename(&folder, home.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(home.path().join("elsewhere"), &folder).unwrap();
    fs::remove_dir(home.path().join("elsewhere/ff")).unwrap();
    fs::write(home.path().join("elsewhere/ff"), "content").unwrap();
    drive.put(&name("s/ff00.00"), &[bytes(10, 2)]).unwrap();
    assert!(folder.symlink_metadata().unwrap().is_symlink());
    assert_eq!(drive.read(&name("s/0123.00"), 0, &mut [0; 10]).unwrap(), 10);
    assert!(home.path().join("elsewhere/ff+0").is_file());
}
