//! The seam between [`super::LocalDrive`] and the operating system: the calls it makes, no more.
//!
//! The real body is `system.rs`; tests have one in memory that loses what was not synced.

use std::io::IoSlice;

use rustix::io::Errno;

use crate::{Capacity, LockMode};

/// A call's result.
pub(super) type Io<T> = Result<T, Errno>;

/// How a file is opened. Symbolic links are never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// To read; it must be there.
    Read,
    /// To read, if that needs no device: `EAGAIN` otherwise.
    ReadNow,
    /// To read and write; it must be there.
    Write,
    /// To read and write; it must not be there (`EEXIST`).
    CreateNew,
    /// To read and write, made if it is not there.
    Create,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Other,
}

/// What `stat` says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    /// 0: it was removed and lives only as long as it is open.
    pub(super) links: u64,
}

/// One directory and all below it; paths are relative to it, `""` is itself.
pub(super) trait Files: Send + Sync {
    fn open(&self, path: &str, how: How) -> Io<Box<dyn File>>;
    /// Renames; `EEXIST` if the new name is taken, and then nothing changes.
    fn rename_new(&self, from: &str, to: &str) -> Io<()>;
    fn remove(&self, path: &str) -> Io<()>;
    fn make_directory(&self, path: &str) -> Io<()>;
    /// Names in a directory, in no order.
    fn list(&self, path: &str) -> Io<Vec<(String, Kind)>>;
    fn stat(&self, path: &str) -> Io<Node>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &str, tag: &'static str) -> Io<()>;
    /// Makes the directory's own name durable.
    fn sync_parent(&self, tag: &'static str) -> Io<()>;
    /// Makes everything durable, whoever wrote it.
    fn sync_all(&self, tag: &'static str) -> Io<()>;
    fn space(&self) -> Io<Capacity>;
    /// Lets the directory go: `EBADF` from now on.
    fn close(&self) {}
}

/// An open file. Dropping it closes it and ends its lock.
pub(super) trait File: Send + Sync {
    /// May return less than asked, 0 only at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> Io<usize>;
    /// `EAGAIN` if it would have to wait for a device.
    fn read_at_now(&self, into: &mut [u8], offset: u64) -> Io<usize>;
    /// May write less than asked.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Io<usize>;
    fn node(&self) -> Io<Node>;
    fn set_bytes(&self, bytes: u64) -> Io<()>;
    /// Reserves room and extends the file.
    fn allocate(&self, bytes: u64) -> Io<()>;
    /// Fails if the process may not write it up to `end`.
    fn may_reach(&self, end: u64) -> Io<()> {
        let _ = end;
        Ok(())
    }

    /// Switches the page cache off (or on again) for writes to come.
    fn set_direct(&self, direct: bool) -> Io<()>;
    /// Makes content and size durable.
    fn sync(&self, tag: &'static str) -> Io<()>;
    /// Makes content durable, and of the metadata what is needed to read it.
    fn sync_data(&self, tag: &'static str) -> Io<()>;
    /// Takes the lock of this open file: `false` if another one holds it.
    fn try_lock(&self, mode: LockMode) -> Io<bool>;
    /// A process that shares the lock of this file, and its name, as far as the system tells.
    fn sharer(&self) -> Option<(u32, String)> {
        None
    }

    /// True if a process of this machine has ended and something of it is left all the same, as far as the system
    /// tells: a thread that waits for a disk keeps all that its process had.
    fn has_ended(&self, _pid: u32) -> bool {
        false
    }

    /// Lets the lock go also where a forked child still has a copy of this open file.
    fn unlock(&self) {}
}
