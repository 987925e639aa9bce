//! Other systems than Linux: no queue can be made or attached to, so nothing behind that is ever called.

use std::convert::Infallible;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use dwk_base::{Error, Result};

use super::{Process, unsupported};

fn refused() -> Error {
    unsupported("this system is not Linux")
}

/// There are none.
pub(in super::super) struct File {
    pub bytes: u64,
    none: Infallible,
}

impl File {
    pub(in super::super) fn identity(&self) -> (u64, u64) {
        match self.none {}
    }

    pub(in super::super) fn give_name(&self, _name: &str) -> Result<()> {
        match self.none {}
    }

    pub(in super::super) fn has_name(&self, _name: &str) -> bool {
        match self.none {}
    }

    pub(in super::super) fn lock_now(&self) -> bool {
        match self.none {}
    }

    pub(in super::super) fn unlink(_name: &str, _identity: (u64, u64)) {}
}

pub(in super::super) fn map(file: &File, _bytes: usize) -> Result<NonNull<u8>> {
    match file.none {}
}

/// # Safety
/// None is needed: there is no mapping.
#[allow(unsafe_code)]
pub(in super::super) unsafe fn unmap(_start: NonNull<u8>, _bytes: usize) {}

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
