//! The real file system, through rustix. `EINTR` is retried, except at syncs: those are never retried.

use std::ffi::CStr;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, RwLock};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{self, Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};

use super::files::{File, Files, How, Io, Kind, Node};
use super::handles;
use super::root::{CLOSED, NO_FILE, PAST_LIMIT, is_exhaustion};
use crate::checks::{read_guard, write_guard};
use crate::{Capacity, LockMode};

/// Nobody else's: without a key of its own a pool's root key lies on its drives.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o700);

/// A directory of the operating system, held open: if it is removed, nothing is made in its place.
pub(super) struct System {
    /// None once it was closed.
    root: RwLock<Option<Arc<OwnedFd>>>,
    /// It has no device: nothing waits for one, and there is no cache to go past.
    is_memory: bool,
}

impl System {
    pub(super) fn open(path: &Path) -> Io<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = opened(|| fs::open(path, flags, Mode::empty()))?;
        let is_memory = lies_in_memory(&root);
        Ok(Self { root: RwLock::new(Some(Arc::new(root))), is_memory })
    }

    fn root(&self) -> Io<Arc<OwnedFd>> {
        read_guard(&self.root).clone().ok_or(CLOSED)
    }

    /// The number of the file system's device.
    #[allow(clippy::unnecessary_cast, reason = "its type differs between platforms")]
    pub(super) fn device(&self) -> Io<u64> {
        Ok(fs::fstat(&*self.root()?)?.st_dev as u64)
    }

    /// True if the file system is mounted read-only.
    pub(super) fn is_read_only(&self) -> Io<bool> {
        let root = self.root()?;
        let stat = retry_on_intr(|| fs::fstatvfs(&*root))?;
        Ok(stat.f_flag.contains(fs::StatVfsMountFlags::RDONLY))
    }

    fn directory(&self, path: &str) -> Io<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = self.root()?;
        opened(|| fs::openat(&*root, here(path), flags, Mode::empty()))
    }
}

/// Opens; if the process has too many files open, once more without those that drives could do without.
fn opened(open: impl Fn() -> Io<OwnedFd>) -> Io<OwnedFd> {
    match retry_on_intr(&open) {
        Err(errno) if is_exhaustion(errno) => {
            handles::let_go();
            retry_on_intr(&open)
        }
        result => result,
    }
}

/// Fails if the process may not write a file up to `end`.
fn within_limit(end: u64) -> Io<()> {
    let limit = getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| end > limit) { Err(PAST_LIMIT) } else { Ok(()) }
}

/// Renames to a name that is free: a link does not replace what is there. A directory has no links; it may take the
/// place of an empty one, which is made for it where nothing was.
fn rename_by_link(root: &OwnedFd, from: &str, to: &str) -> Io<()> {
    let none = AtFlags::empty();
    match retry_on_intr(|| fs::linkat(root, from, root, to, none)) {
        Err(Errno::PERM | Errno::ISDIR | Errno::ACCESS) if is_directory(root, from)? => {
            retry_on_intr(|| fs::mkdirat(root, to, DIRECTORY_MODE))?;
            retry_on_intr(|| fs::renameat(root, from, root, to)).inspect_err(|_| {
                let _ = retry_on_intr(|| fs::unlinkat(root, to, AtFlags::REMOVEDIR));
            })
        }
        linked => {
            linked?;
            retry_on_intr(|| fs::unlinkat(root, from, none))
        }
    }
}

fn is_directory(root: &OwnedFd, path: &str) -> Io<bool> {
    let stat = retry_on_intr(|| fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(node(&stat).kind == Kind::Directory)
}

/// The empty path is the directory itself.
const fn here(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

impl Files for System {
    fn open(&self, path: &str, how: How) -> Io<Box<dyn File>> {
        let access = match how {
            How::Read | How::ReadNow => OFlags::RDONLY,
            How::Write => OFlags::RDWR,
            How::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            How::Create => OFlags::RDWR | OFlags::CREATE,
        };
        // A pipe that lies where a file should be would wait for its other end.
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let root = self.root()?;
        let file = match how {
            How::ReadNow => open_cached(&root, path, flags)?,
            _ => opened(|| fs::openat(&*root, path, flags, FILE_MODE))?,
        };
        if node(&fs::fstat(&file)?).kind != Kind::File {
            return Err(NO_FILE);
        }
        Ok(Box::new(SystemFile { file, is_memory: self.is_memory }))
    }

    fn rename_new(&self, from: &str, to: &str) -> Io<()> {
        let root = self.root()?;
        match rename_exclusively(&root, from, to) {
            // Not every file system knows it (NFS, some FUSE).
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => rename_by_link(&root, from, to),
            result => result,
        }
    }

    fn remove(&self, path: &str) -> Io<()> {
        let root = self.root()?;
        retry_on_intr(|| fs::unlinkat(&*root, path, AtFlags::empty()))
    }

    fn make_directory(&self, path: &str) -> Io<()> {
        let root = self.root()?;
        retry_on_intr(|| fs::mkdirat(&*root, path, DIRECTORY_MODE))
    }

    fn list(&self, path: &str) -> Io<Vec<(String, Kind)>> {
        let mut names = Vec::new();
        for entry in fs::Dir::new(self.directory(path)?)? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                let kind = match entry.file_type() {
                    // Some file systems do not say it in the directory.
                    FileType::Unknown => self.kind(path, entry.file_name())?,
                    known => kind(known),
                };
                names.push((entry.file_name().to_string_lossy().into_owned(), kind));
            }
        }
        Ok(names)
    }

    fn stat(&self, path: &str) -> Io<Node> {
        let root = self.root()?;
        if path.is_empty() {
            return fs::fstat(&*root).map(|stat| node(&stat));
        }
        let stat = retry_on_intr(|| fs::statat(&*root, path, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(node(&stat))
    }

    fn sync_directory(&self, path: &str, _tag: &'static str) -> Io<()> {
        sync_whole(&self.directory(path)?)
    }

    fn sync_parent(&self, _tag: &'static str) -> Io<()> {
        sync_whole(&self.directory("..")?)
    }

    fn sync_all(&self, _tag: &'static str) -> Io<()> {
        sync_file_system(&*self.root()?)
    }

    fn space(&self) -> Io<Capacity> {
        let root = self.root()?;
        let stat = retry_on_intr(|| fs::fstatvfs(&*root))?;
        Ok(capacity(&stat))
    }

    fn close(&self) {
        write_guard(&self.root).take();
    }
}

impl System {
    fn kind(&self, directory: &str, name: &CStr) -> Io<Kind> {
        let path = format!("{}/{}", here(directory), name.to_string_lossy());
        self.stat(&path).map(|node| node.kind)
    }
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    }
}

#[allow(clippy::unnecessary_cast, reason = "its type differs between platforms")]
fn node(stat: &fs::Stat) -> Node {
    Node {
        kind: kind(FileType::from_raw_mode(stat.st_mode)),
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        links: stat.st_nlink as u64,
    }
}

/// Without a free inode nothing new fits, however many bytes are free. Who makes them as they are needed says that
/// there are none at all.
fn capacity(stat: &fs::StatVfs) -> Capacity {
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let takes_files = stat.f_files == 0 || stat.f_favail > 0;
    let free_bytes = if takes_files { bytes(stat.f_bavail) } else { 0 };
    Capacity { total_bytes: bytes(stat.f_blocks), free_bytes }
}

/// Who reads the file at `place`, if a line of `/proc/locks` says so (proc_locks(5)).
#[cfg(target_os = "linux")]
fn sharer(line: &str, place: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let is_shared = (words.next(), words.next(), words.next())
        == (Some("FLOCK"), Some("ADVISORY"), Some("READ"));
    let pid = words.next()?.parse().ok()?;
    (is_shared && words.next() == Some(place)).then_some(pid)
}

struct SystemFile {
    file: OwnedFd,
    is_memory: bool,
}

impl File for SystemFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> Io<usize> {
        retry_on_intr(|| io::pread(&self.file, &mut *into, offset))
    }

    fn read_at_now(&self, into: &mut [u8], offset: u64) -> Io<usize> {
        // Memory does not know the flag, nor does it need it.
        if self.is_memory {
            return self.read_at(into, offset);
        }
        read_without_waiting(&self.file, into, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Io<usize> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        within_limit(offset.saturating_add(bytes))?;
        retry_on_intr(|| io::pwritev(&self.file, parts, offset))
    }

    #[cfg(target_os = "linux")]
    fn sharer(&self) -> Option<(u32, String)> {
        let stat = fs::fstat(&self.file).ok()?;
        let (major, minor) = (fs::major(stat.st_dev), fs::minor(stat.st_dev));
        let place = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let pid = locks.lines().find_map(|line| sharer(line, &place))?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some((pid, name.trim_end().to_owned()))
    }

    #[cfg(target_os = "linux")]
    fn has_ended(&self, pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The state follows the name, which may hold anything (proc_pid_stat(5)).
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    }

    fn node(&self) -> Io<Node> {
        fs::fstat(&self.file).map(|stat| node(&stat))
    }

    fn set_bytes(&self, bytes: u64) -> Io<()> {
        within_limit(bytes)?;
        retry_on_intr(|| fs::ftruncate(&self.file, bytes))
    }

    fn allocate(&self, bytes: u64) -> Io<()> {
        within_limit(bytes)?;
        preallocate(&self.file, bytes)
    }

    fn may_reach(&self, end: u64) -> Io<()> {
        within_limit(end)
    }

    fn set_direct(&self, direct: bool) -> Io<()> {
        match self.is_memory {
            true if direct => Err(Errno::INVAL),
            true => Ok(()),
            false => bypass_cache(&self.file, direct),
        }
    }

    fn sync(&self, _tag: &'static str) -> Io<()> {
        sync_whole(&self.file)
    }

    fn sync_data(&self, _tag: &'static str) -> Io<()> {
        sync_content(&self.file)
    }

    fn try_lock(&self, mode: LockMode) -> Io<bool> {
        // Not a POSIX record lock: those vanish when any descriptor of the file is closed.
        let operation = match mode {
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
        };
        match retry_on_intr(|| fs::flock(&self.file, operation)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn unlock(&self) {
        // Closing lets go too, once nobody has a copy.
        let _ = fs::flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(target_os = "linux")]
use self::linux::{
    bypass_cache, lies_in_memory, open_cached, preallocate, read_without_waiting,
    rename_exclusively, sync_content, sync_file_system, sync_whole,
};
#[cfg(not(target_os = "linux"))]
use self::other::{
    bypass_cache, lies_in_memory, open_cached, preallocate, read_without_waiting,
    rename_exclusively, sync_content, sync_file_system, sync_whole,
};

/// What only Linux has.
#[cfg(target_os = "linux")]
mod linux {
    use std::io::IoSliceMut;

    use rustix::fs::{FallocateFlags, RenameFlags, ResolveFlags};
    use rustix::io::ReadWriteFlags;

    use super::{Errno, Io, Mode, OFlags, OwnedFd, fs, io, retry_on_intr};

    pub(super) fn open_cached(root: &OwnedFd, path: &str, flags: OFlags) -> Io<OwnedFd> {
        let resolve = ResolveFlags::CACHED | ResolveFlags::NO_SYMLINKS;
        match fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => Err(Errno::AGAIN),
            result => result,
        }
    }

    pub(super) fn rename_exclusively(root: &OwnedFd, from: &str, to: &str) -> Io<()> {
        retry_on_intr(|| fs::renameat_with(root, from, root, to, RenameFlags::NOREPLACE))
    }

    pub(super) fn read_without_waiting(file: &OwnedFd, into: &mut [u8], at: u64) -> Io<usize> {
        let mut parts = [IoSliceMut::new(into)];
        match io::preadv2(file, &mut parts, at, ReadWriteFlags::NOWAIT) {
            Err(Errno::NOSYS | Errno::NOTSUP | Errno::INTR) => Err(Errno::AGAIN),
            result => result,
        }
    }

    pub(super) fn lies_in_memory(root: &OwnedFd) -> bool {
        /// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h.
        const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
        fs::fstatfs(root).is_ok_and(|stat| MEMORY.contains(&(stat.f_type as u64)))
    }

    pub(super) fn preallocate(file: &OwnedFd, bytes: u64) -> Io<()> {
        retry_on_intr(|| fs::fallocate(file, FallocateFlags::empty(), 0, bytes))
    }

    pub(super) fn bypass_cache(file: &OwnedFd, direct: bool) -> Io<()> {
        let flags = fs::fcntl_getfl(file)?;
        let flags = if direct { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
        fs::fcntl_setfl(file, flags)
    }

    pub(super) fn sync_whole(file: &OwnedFd) -> Io<()> {
        fs::fsync(file)
    }

    pub(super) fn sync_content(file: &OwnedFd) -> Io<()> {
        fs::fdatasync(file)
    }

    pub(super) fn sync_file_system(root: &OwnedFd) -> Io<()> {
        fs::syncfs(root)
    }
}

/// What stands in for it elsewhere. Built by CI, not tested.
#[cfg(not(target_os = "linux"))]
mod other {
    use super::{Errno, Io, OFlags, OwnedFd, fs, retry_on_intr};

    pub(super) fn open_cached(_root: &OwnedFd, _path: &str, _flags: OFlags) -> Io<OwnedFd> {
        Err(Errno::AGAIN)
    }

    pub(super) fn rename_exclusively(_root: &OwnedFd, _from: &str, _to: &str) -> Io<()> {
        Err(Errno::NOTSUP)
    }

    pub(super) fn read_without_waiting(_file: &OwnedFd, _into: &mut [u8], _at: u64) -> Io<usize> {
        Err(Errno::AGAIN)
    }

    pub(super) fn lies_in_memory(_root: &OwnedFd) -> bool {
        false
    }

    pub(super) fn preallocate(file: &OwnedFd, bytes: u64) -> Io<()> {
        retry_on_intr(|| fs::ftruncate(file, bytes))
    }

    pub(super) fn bypass_cache(_file: &OwnedFd, direct: bool) -> Io<()> {
        if direct { Err(Errno::INVAL) } else { Ok(()) }
    }

    /// `fsync` leaves the device's own cache alone on Apple's systems.
    pub(super) fn sync_whole(file: &OwnedFd) -> Io<()> {
        #[cfg(target_vendor = "apple")]
        return fs::fcntl_fullfsync(file);
        #[cfg(not(target_vendor = "apple"))]
        return fs::fsync(file);
    }

    pub(super) fn sync_content(file: &OwnedFd) -> Io<()> {
        sync_whole(file)
    }

    pub(super) fn sync_file_system(root: &OwnedFd) -> Io<()> {
        fs::sync();
        sync_whole(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_a_free_inode_is_full() {
        let home = tempfile::TempDir::new().unwrap();
        let stat = fs::statvfs(home.path()).unwrap();
        let with = |files, free| fs::StatVfs { f_files: files, f_favail: free, ..stat };
        let free_bytes = stat.f_bavail * stat.f_frsize;
        assert_eq!(capacity(&with(1000, 1)).free_bytes, free_bytes);
        assert_eq!(capacity(&with(1000, 0)).free_bytes, 0);
        assert_eq!(
            capacity(&with(0, 0)).free_bytes,
            free_bytes,
            "it makes them as they are needed"
        );
        assert_eq!(capacity(&with(1000, 0)).total_bytes, capacity(&stat).total_bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod renaming_tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// As a file system without `renameat2` has it.
    #[test]
    fn without_a_call_for_it_whatever_lies_there_is_renamed_and_nothing_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let (at, root) = (|name: &str| home.path().join(name), opened_root(home.path()));
        std::fs::create_dir(at("directory")).unwrap();
        std::fs::write(at("directory/theirs"), "content").unwrap();
        std::fs::write(at("file"), "content").unwrap();
        symlink("nowhere", at("link")).unwrap();
        std::fs::create_dir(at("taken-directory")).unwrap();
        std::fs::write(at("taken-file"), "content").unwrap();
        for name in ["directory", "file", "link"] {
            for taken in ["taken-directory", "taken-file"] {
                assert_eq!(
                    rename_by_link(&root, name, taken),
                    Err(Errno::EXIST),
                    "{name}, {taken}"
                );
            }
            let free = format!("{name}+0");
            rename_by_link(&root, name, &free).unwrap();
            assert!(at(name).symlink_metadata().is_err());
            assert!(at(&free).symlink_metadata().is_ok());
        }
        assert_eq!(std::fs::read(at("directory+0/theirs")).unwrap(), b"content");
        assert!(at("taken-directory").is_dir());
        assert_eq!(rename_by_link(&root, "gone", "new"), Err(Errno::NOENT));
    }

    fn opened_root(path: &Path) -> OwnedFd {
        fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }
}
