//! Names of queues: files in `/dev/shm`, for this user only.
//!
//! A file gets its name when it is complete, in one step, so nobody ever sees half a queue, and a maker that
//! is killed before that leaves nothing.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dwk_base::{Error, Result, codes};
use rustix::fs::{
    self, AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, Stat,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;

use crate::shared::system::unsupported;

const DIRECTORY: &str = "/dev/shm";
const MODE: Mode = Mode::from_raw_mode(0o600);

/// A file that has been opened, and its size.
pub(in crate::shared) struct File {
    descriptor: OwnedFd,
    identity: (u64, u64),
    pub bytes: u64,
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl File {
    fn new(descriptor: OwnedFd, stat: &Stat) -> Self {
        Self { descriptor, identity: identity(stat), bytes: stat.st_size.cast_unsigned() }
    }

    /// Which file it is, whatever its name.
    pub(in crate::shared) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// `queue.exists`, `queue.unsupported`
    pub(in crate::shared) fn give_name(&self, name: &str) -> Result<()> {
        let from = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        let link = || fs::linkat(CWD, &*from, CWD, path(name), AtFlags::SYMLINK_FOLLOW);
        retry_on_intr(link).map_err(|errno| match errno {
            Errno::EXIST => Error::new(&codes::QUEUE_EXISTS, format!("there is a queue {name:?}"))
                .with("name", name),
            errno => unsupported(format!("{DIRECTORY} takes no name")).caused_by(errno),
        })
    }

    /// True if `name` is this file's now.
    pub(in crate::shared) fn has_name(&self, name: &str) -> bool {
        is_named(name, self.identity)
    }

    /// Locks the file for who removes its name, unless somebody else has it.
    pub(in crate::shared) fn lock_now(&self) -> bool {
        fs::flock(&self.descriptor, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Removes the name, if it is still that file's.
    pub(in crate::shared) fn unlink(name: &str, identity: (u64, u64)) {
        if is_named(name, identity) {
            let _ = fs::unlink(path(name));
        }
    }
}

/// A file of `bytes`, all of them there, without a name yet.
///
/// # Errors
/// `queue.capacity` if there is no room for it; `queue.unsupported`
pub(in crate::shared) fn create(bytes: u64) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let fails = |errno: Errno| match errno {
        Errno::NOSPC | Errno::NOMEM | Errno::FBIG => {
            let message = format!("{DIRECTORY} has no room for {bytes} bytes");
            Error::new(&codes::QUEUE_CAPACITY, message).caused_by(errno)
        }
        errno => unsupported(format!("{DIRECTORY} gives no shared memory")).caused_by(errno),
    };
    let make = || {
        let descriptor = retry_on_intr(|| fs::open(DIRECTORY, flags, MODE))?;
        // All of it now: where room ends later, writing would end the process with SIGBUS.
        retry_on_intr(|| fs::fallocate(&descriptor, FallocateFlags::empty(), 0, bytes))?;
        let stat = fs::fstat(&descriptor)?;
        Ok(File::new(descriptor, &stat))
    };
    make().map_err(fails)
}

/// The file of that name.
///
/// # Errors
/// `queue.not_found`; `queue.damaged` if it is no file of this user alone.
pub(in crate::shared) fn open(name: &str) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let damaged = |what: &str| {
        Error::new(&codes::QUEUE_DAMAGED, format!("the shared memory of queue {name:?} {what}"))
    };
    let open = || {
        let descriptor = retry_on_intr(|| fs::open(path(name), flags, Mode::empty()))?;
        let stat = fs::fstat(&descriptor)?;
        Ok((descriptor, stat))
    };
    let (descriptor, stat) = open().map_err(|errno: Errno| match errno {
        Errno::NOENT => Error::new(&codes::QUEUE_NOT_FOUND, format!("there is no queue {name:?}"))
            .with("name", name),
        errno => damaged("cannot be opened").caused_by(errno),
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(damaged("is no file"));
    }
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
        return Err(damaged("is not this user's alone"));
    }
    Ok(File::new(descriptor, &stat))
}

/// The names of all queues of this user.
pub(in crate::shared) fn leftovers() -> Vec<String> {
    let prefix = prefix();
    let entries = std::fs::read_dir(DIRECTORY).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect()
}

fn prefix() -> String {
    format!("dwkernel-{}-", geteuid().as_raw())
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DIRECTORY).join(prefix() + name)
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

fn is_named(name: &str, file: (u64, u64)) -> bool {
    fs::lstat(path(name)).is_ok_and(|stat| identity(&stat) == file)
}
