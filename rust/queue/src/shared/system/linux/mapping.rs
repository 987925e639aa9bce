//! Memory that is a file's.

use std::os::fd::AsFd;
use std::ptr::NonNull;

use dwk_base::{Error, Result, codes};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::File;

/// Maps the first `bytes` of `file`, which has so many, to be read and written by all who map it.
///
/// # Errors
/// `queue.capacity` if the process has no room for that.
#[allow(unsafe_code)]
pub(in crate::shared) fn map(file: &File, bytes: usize) -> Result<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, where the system has room for one.
    let start =
        unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, file.as_fd(), 0) };
    start.and_then(|start| NonNull::new(start.cast()).ok_or(Errno::NOMEM)).map_err(|errno| {
        let message = format!("no room in this process to map {bytes} bytes");
        Error::new(&codes::QUEUE_CAPACITY, message).caused_by(errno)
    })
}

/// Gives a mapping back.
///
/// # Safety
/// It was made by [`map`] with the same `bytes`, and nobody uses it any more.
#[allow(unsafe_code)]
pub(in crate::shared) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: as the caller says.
    let _ = unsafe { munmap(start.as_ptr().cast(), bytes) };
}
