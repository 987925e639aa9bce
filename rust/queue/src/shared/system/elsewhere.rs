//! Other systems than Linux: no queue can be made or attached to, so nothing behind that is ever called.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use dwk_base::{Error, Result};

use super::{Process, unsupported};

fn refused() -> Error {
    unsupported("this system is not Linux")
}

pub(in super::super) struct File {
    descriptor: OwnedFd,
    pub bytes: u64,
}

impl File {
    pub(in super::super) fn give_name(&self, _name: &str) -> Result<()> {
        Err(refused())
    }

    pub(in super::super) fn identity(&self) -> (u64, u64) {
        (0, 0)
    }

    pub(in super::super) fn has_name(&self, _name: &str) -> bool {
        false
    }

    pub(in super::super) fn lock_now(&self) -> bool {
        false
    }

    pub(in super::super) fn unlink(_name: &str, _identity: (u64, u64)) {}
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

pub(in super::super) fn create(_bytes: u64) -> Result<File> {
    Err(refused())
}

pub(in super::super) fn open(_name: &str) -> Result<File> {
    Err(refused())
}

pub(in super::super) fn leftovers() -> Vec<String> {
    Vec::new()
}

pub(in super::super) fn this_process() -> Result<Process> {
    Err(refused())
}

pub(in super::super) fn namespace() -> Result<u64> {
    Err(refused())
}

pub(in super::super) fn is_alive(_process: Process) -> bool {
    true
}

pub(in super::super) fn futex_wait(_word: &AtomicU32, _seen: u32, _limit: Duration) {}

pub(in super::super) fn futex_wake(_word: &AtomicU32, _count: u32) -> usize {
    0
}
