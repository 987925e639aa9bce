//! Where things lie in a drive's directory; drawn in `docs/format/drive.md`.

use super::files::Kind;
use crate::{BlobName, Slot};

/// Blobs, by folder, fanned out.
pub(super) const BLOBS: &str = "blobs";
/// Logs.
pub(super) const LOGS: &str = "logs";
/// What is being written and has no name yet.
pub(super) const TEMPORARY: &str = "tmp";
/// The lock and who holds it.
pub(super) const LOCK: &str = "lock";
/// The directories that make a directory a drive.
pub(super) const SKELETON: [&str; 3] = [BLOBS, LOGS, TEMPORARY];

/// Stands where no name of a blob can: for "no folder" and for leaves that do not begin in hex.
pub(super) const PLAIN: &str = "+";

/// A superblock slot's file.
pub(super) const fn slot(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "superblock.a",
        Slot::B => "superblock.b",
    }
}

/// The directory of a folder.
pub(super) fn folder(folder: Option<&str>) -> String {
    format!("{BLOBS}/{}", folder.unwrap_or(PLAIN))
}

/// The directory below a folder in which a leaf lies: its first two hex digits, or the one for the rest.
pub(super) fn fan(leaf: &str) -> &str {
    match leaf.as_bytes() {
        [a, b, ..] if is_hex(*a) && is_hex(*b) => &leaf[..2],
        _ => PLAIN,
    }
}

/// The directories that are made together with that of a leaf.
pub(super) fn siblings(leaf: &str) -> Vec<String> {
    match fan(leaf) {
        PLAIN => vec![PLAIN.to_owned()],
        _ => (0..=0xffu8).map(|number| format!("{number:02x}")).collect(),
    }
}

/// The directory in which a blob lies.
pub(super) fn directory(name: &BlobName) -> String {
    format!("{}/{}", folder(name.folder()), fan(name.leaf()))
}

/// A blob's file.
pub(super) fn blob(name: &BlobName) -> String {
    format!("{}/{}", directory(name), name.leaf())
}

/// A log's file.
pub(super) fn log(name: &BlobName) -> String {
    format!("{LOGS}/{}", name.as_str().replace('/', PLAIN))
}

/// The log that lies in a file of this name.
pub(super) fn log_name(file: &str) -> Option<BlobName> {
    BlobName::new(file.replace(PLAIN, "/")).ok().filter(|_| !file.contains('/'))
}

/// The blob that a file in a fan-out directory is, if it is one and lies where it should.
pub(super) fn blob_name(folder: Option<&str>, fan_out: &str, file: &str) -> Option<BlobName> {
    let name = match folder {
        Some(folder) => format!("{folder}/{file}"),
        None => file.to_owned(),
    };
    let here = fan(file) == fan_out && !file.contains('/');
    BlobName::new(name).ok().filter(|name| here && name.folder() == folder)
}

/// True for the directory of a folder below [`BLOBS`], or of the blobs without one.
pub(super) fn is_folder(directory: &str) -> bool {
    directory == PLAIN || BlobName::new(format!("{directory}/x")).is_ok()
}

/// Two hex digits: a directory of the fan-out.
pub(super) fn is_fan((name, kind): &(String, Kind)) -> bool {
    *kind == Kind::Directory && name.len() == 2 && name.bytes().all(is_hex)
}

/// The directory of leaves that are not hex.
pub(super) fn is_plain((name, kind): &(String, Kind)) -> bool {
    *kind == Kind::Directory && name == PLAIN
}

const fn is_hex(digit: u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_are_one_to_one() {
        for text in ["s/0123ab.00", "0123", "x", "s/x", "s/012", "j.0/abcd", "abcdef"] {
            let name = BlobName::new(text).unwrap();
            let path = blob(&name);
            let (directory, file) = path.rsplit_once('/').unwrap();
            let fan_out = directory.strip_prefix(&folder(name.folder())).unwrap();
            let fan_out = fan_out.strip_prefix('/').unwrap();
            assert_eq!(blob_name(name.folder(), fan_out, file), Some(name.clone()));
            assert_eq!(blob_name(name.folder(), "ee", file), None);
            let path = log(&name);
            assert_eq!(log_name(path.strip_prefix("logs/").unwrap()), Some(name));
        }
        assert_eq!(blob(&BlobName::new("s/0123ab.00").unwrap()), "blobs/s/01/0123ab.00");
        assert_eq!(blob(&BlobName::new("manifest").unwrap()), "blobs/+/+/manifest");
    }

    #[test]
    fn foreign_files_are_no_blobs() {
        for file in ["0123AB", ".hidden", "a+b", "ä", ""] {
            assert_eq!(blob_name(Some("s"), fan(file), file), None);
        }
        assert!(is_folder("s") && is_folder("+") && !is_folder("lost+found"));
    }
}
