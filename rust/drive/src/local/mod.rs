//! A drive that is a directory.
//!
//! What lies where is drawn in `docs/format/drive.md`.
//!
//! # Consistency
//! A blob is written to a temporary file, synced, and renamed to its name, which is never taken from
//! another: whatever a power cut leaves, a name stands for all of its blob. Names become durable with
//! [`Drive::sync`], which syncs each directory that changed once. Superblocks and logs are written in
//! place; a log is zeroed beforehand so that syncing it writes no metadata.
//!
//! # Retries
//! Interrupted calls are repeated and short writes continued. A failed sync is not: after it the drive
//! refuses every change with `drive.failed`, and only reads go on.
//!
//! # A directory that is removed
//! The directory is held open. Once it is removed every call says `drive.missing`, and nothing is made
//! in its place.

mod blobs;
mod files;
mod handles;
mod inventory;
mod layout;
mod lock;
mod logs;
mod output;
mod root;
mod slots;
mod system;
mod temporary;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dwk_base::{Clock, Error, Result, SystemClock, codes};
use rustix::io::Errno;

use self::blobs::Blobs;
use self::files::{Files, Kind};
use self::logs::Logs;
use self::output::Buffers;
use self::root::{Root, remark};
use self::system::System;
use self::temporary::Temporaries;
use crate::{BlobInfo, BlobName, Capacity, Description, Drive, Holder, Lock, LockMode, Log, Slot};

/// Every sync that a local drive makes, and what it is for. Tests leave each one out and see it missed.
pub const SYNCS: [(&str, &str); 12] = [
    ("create.parent", "the drive's own directory"),
    ("create.skeleton", "the directories that make it a drive"),
    ("lock.recover", "what a process left unsynced that ended without letting go"),
    ("log.content", "a new log's size and zeroes"),
    ("log.delete", "a log's removal"),
    ("log.name", "a new log's name"),
    ("log.sync", "what was written to a log"),
    ("put.file", "a blob's content, before it has a name"),
    ("superblock.file", "a superblock slot"),
    ("superblock.name", "a superblock slot's name, the first time"),
    ("sync.leaf", "names of blobs"),
    ("sync.parent", "names of new directories above blobs"),
];

/// How a local drive goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// Blobs from this size on are written past the page cache where the file system takes it.
    pub direct_bytes_min: u64,
    /// So many blobs are kept open for the next read.
    pub open_files_max: usize,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { direct_bytes_min: 128 * 1024, open_files_max: 64 }
    }
}

/// A drive that is a directory. Clones are the same drive.
#[derive(Clone)]
pub struct LocalDrive {
    shared: Arc<Shared>,
}

struct Shared {
    root: Arc<Root>,
    temporaries: Arc<Temporaries>,
    blobs: Arc<Blobs>,
    logs: Arc<Logs>,
    description: Description,
    clock: Arc<dyn Clock>,
}

impl LocalDrive {
    /// Opens a directory that is there, whatever lies in it; nothing is changed.
    ///
    /// # Errors
    /// `drive.missing` if it is not there; `drive.io`
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, LocalOptions::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: LocalOptions) -> Result<Self> {
        let path = path.as_ref();
        let location = path.display().to_string();
        let opened = System::open(path);
        let opened =
            opened.and_then(|system| Ok((system.device()?, system.is_read_only()?, system)));
        let (device, is_read_only, system) =
            opened.map_err(|errno| open_error(&location, errno))?;
        let description = Description {
            kind: "local",
            location: location.clone(),
            failure_domain: Some(format!("device:{device}")),
            is_read_only,
            labels: BTreeMap::new(),
        };
        let clock = Arc::new(SystemClock::default());
        Ok(Self::assemble(Box::new(system), description, options, clock))
    }

    /// Makes a drive of a directory, which is made too if it is not there (its parent must be). Durable
    /// on return. A directory that was made a drive and never got anything may be made one again.
    ///
    /// # Errors
    /// `drive.not_empty` if something lies in it; `drive.missing` if there is no parent; `drive.full`,
    /// `drive.read_only`, `drive.io`
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::create_with(path, LocalOptions::default())
    }

    /// As [`create`](Self::create), with options.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_with(path: impl AsRef<Path>, options: LocalOptions) -> Result<Self> {
        let path = path.as_ref();
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                let location = path.display().to_string();
                if errno == Errno::NOENT {
                    let text = format!("cannot make {location}: make the directory above it first");
                    return Err(Error::new(&codes::DRIVE_MISSING, text).with("path", location));
                }
                return Err(open_error(&location, errno));
            }
            _ => {}
        }
        let drive = Self::open_with(path, options)?;
        drive.make_skeleton()?;
        Ok(drive)
    }

    /// Fails as [`create`](Self::create) would, and makes nothing. What is not there may be made.
    ///
    /// # Errors
    /// `drive.not_empty` if something lies in it; `drive.missing` if it is no directory; `drive.io`
    pub fn check_new(path: impl AsRef<Path>) -> Result<()> {
        match path.as_ref().symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            _ => Self::open(path)?.check_empty(),
        }
    }

    /// Takes away again what makes `path` a drive, for who made it and could not use it; the directory
    /// itself stays. A drive that holds a blob, or that somebody has, stays as it is.
    ///
    /// # Errors
    /// `store.locked`, and those of [`open`](Self::open)
    pub fn unmake(path: impl AsRef<Path>, holder: &Holder) -> Result<()> {
        let path = path.as_ref();
        let drive = Self::open(path)?;
        let lock = match drive.lock(holder, LockMode::Exclusive) {
            Err(error) if error.is(&codes::DRIVE_MISSING) => None,
            lock => Some(lock?),
        };
        for folder in [None, Some("s")] {
            if !drive.list(folder, None, 1)?.is_empty() {
                return Ok(());
            }
        }
        drive.list_logs()?.iter().try_for_each(|log| drive.delete_log(&log.name))?;
        // What cannot be removed is empty and may be made a drive again.
        for file in [layout::slot(Slot::A), layout::slot(Slot::B), layout::LOCK] {
            let _ = std::fs::remove_file(path.join(file));
        }
        for directory in layout::SKELETON {
            let _ = std::fs::remove_dir(path.join(directory));
        }
        drop(lock);
        Ok(())
    }

    fn assemble(
        files: Box<dyn Files>,
        description: Description,
        options: LocalOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let root = Arc::new(Root::new(files, description.location.clone()));
        let temporaries = Arc::new(Temporaries::new(Arc::clone(&root)));
        let buffers = Arc::new(Buffers::default());
        let logs = Logs::new(Arc::clone(&root), Arc::clone(&temporaries), Arc::clone(&buffers));
        let logs = Arc::new(logs);
        let blobs =
            Arc::new(Blobs::new(Arc::clone(&root), Arc::clone(&temporaries), buffers, &options));
        Self { shared: Arc::new(Shared { root, temporaries, blobs, logs, description, clock }) }
    }

    fn make_skeleton(&self) -> Result<()> {
        let root = &self.shared.root;
        self.check_empty()?;
        for directory in layout::SKELETON {
            match root.files().make_directory(directory) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(root.error("mkdir", directory, errno)),
            }
        }
        root.synced("fsync", "", root.files().sync_directory("", "create.skeleton"))?;
        root.synced("fsync", "..", root.files().sync_parent("create.parent"))
    }

    /// An empty skeleton, a lock and what a file system puts into its own root do not count.
    fn check_empty(&self) -> Result<()> {
        let root = &self.shared.root;
        for (name, kind) in root.list("")? {
            let harmless = match name.as_str() {
                layout::BLOBS | layout::LOGS | layout::TEMPORARY => root.list(&name)?.is_empty(),
                layout::LOCK => kind == Kind::File,
                "lost+found" => kind == Kind::Directory,
                _ => false,
            };
            if !harmless {
                let message = format!("{} holds {name}", root.location());
                return Err(Error::new(&codes::DRIVE_NOT_EMPTY, message).with("name", name));
            }
        }
        Ok(())
    }
}

fn open_error(location: &str, errno: Errno) -> Error {
    let code = match errno {
        Errno::NOENT | Errno::NOTDIR => &codes::DRIVE_MISSING,
        _ => root::code(errno),
    };
    let why = remark(errno);
    Error::new(code, format!("cannot open the directory {location}{why}"))
        .with("path", location)
        .with("errno", errno.raw_os_error())
        .caused_by(std::io::Error::from(errno))
}

impl fmt::Debug for LocalDrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalDrive").field(&self.shared.root.location()).finish()
    }
}

impl Drive for LocalDrive {
    fn describe(&self) -> Description {
        self.shared.description.clone()
    }

    fn put(&self, name: &BlobName, parts: &[Bytes]) -> Result<()> {
        self.shared.blobs.put(name, parts)
    }

    fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize> {
        self.shared.blobs.read(name, offset, into)
    }

    fn read_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<Option<usize>> {
        self.shared.blobs.read_now(name, offset, into)
    }

    fn list(
        &self,
        folder: Option<&str>,
        after: Option<&BlobName>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        self.shared.blobs.list(folder, after, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<()> {
        self.shared.blobs.delete(name)
    }

    fn stat(&self, name: &BlobName) -> Result<BlobInfo> {
        self.shared.blobs.stat(name)
    }

    fn capacity(&self) -> Result<Capacity> {
        let root = &self.shared.root;
        root.alive()?;
        root.done("statvfs", "", root.files().space())
    }

    fn sync(&self, _tag: &'static str) -> Result<()> {
        self.shared.blobs.sync()
    }

    fn read_superblock(&self, slot: Slot) -> Result<Option<Vec<u8>>> {
        slots::read(&self.shared.root, slot)
    }

    fn write_superblock(&self, slot: Slot, bytes: &[u8]) -> Result<()> {
        slots::write(&self.shared.root, slot, bytes)
    }

    fn lock(&self, holder: &Holder, mode: LockMode) -> Result<Box<dyn Lock>> {
        let root = &*self.shared.root;
        let Some(taken) = lock::take(root, holder, mode, &*self.shared.clock)? else {
            return Ok(Box::new(Unneeded));
        };
        if mode == LockMode::Exclusive {
            if taken.was_abandoned {
                root.synced("syncfs", "", root.files().sync_all("lock.recover"))?;
            }
            self.shared.temporaries.clean()?;
            taken.announce(root, holder)?;
        }
        let (blobs, logs) = (Arc::clone(&self.shared.blobs), Arc::clone(&self.shared.logs));
        Ok(taken.hold(blobs, logs, mode))
    }

    fn holder(&self) -> Result<Option<Holder>> {
        lock::holder(&self.shared.root)
    }

    fn unknown(&self, limit: usize) -> Result<Vec<String>> {
        inventory::unknown(&self.shared.root, limit)
    }

    fn close(&self) {
        self.shared.root.files().close();
        self.shared.blobs.close();
        self.shared.logs.close();
    }

    fn log(&self) -> Option<&dyn Log> {
        Some(self)
    }
}

/// The lock of a drive that can only be read and was never held.
struct Unneeded;

impl Lock for Unneeded {}

impl Log for LocalDrive {
    fn create_log(&self, name: &BlobName, bytes: u64) -> Result<()> {
        self.shared.logs.create(name, bytes)
    }

    fn hold_log(&self, name: &BlobName) -> Result<()> {
        self.shared.logs.hold(name)
    }

    fn write_log(&self, name: &BlobName, offset: u64, parts: &[Bytes]) -> Result<()> {
        self.shared.logs.write(name, offset, parts)
    }

    fn sync_log(&self, name: &BlobName, _tag: &'static str) -> Result<()> {
        self.shared.logs.sync(name)
    }

    fn read_log(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<()> {
        self.shared.logs.read(name, offset, into)
    }

    fn read_log_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<bool> {
        self.shared.logs.read_now(name, offset, into)
    }

    fn list_logs(&self) -> Result<Vec<BlobInfo>> {
        self.shared.logs.list()
    }

    fn delete_log(&self, name: &BlobName) -> Result<()> {
        self.shared.logs.delete(name)
    }
}

/// What a simulated directory says of itself.
#[cfg(test)]
fn simulated() -> Description {
    Description { kind: "local", location: "simulated".to_owned(), ..Description::default() }
}

#[cfg(test)]
mod failing_tests;
#[cfg(all(test, target_os = "linux"))]
mod foreign_tests;
#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin_tests;
#[cfg(test)]
mod volatile;
