//! The mapping: raw memory that other processes write to at any time.
//!
//! No Rust reference ever points into it except to atomics. Bytes of messages are copied in and out by raw
//! pointers; the cursors' protocol keeps honest processes from touching the same bytes at the same time, and
//! what a dishonest one does changes which bytes are copied, not where from or how many.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use dwk_base::Result;

use super::layout::{HEADER_BYTES, Header};
use super::system::{self, File};

/// A header and a ring behind it.
pub(super) struct Memory {
    start: NonNull<u8>,
    ring_bytes: usize,
}

// SAFETY: everything in it is reached through atomics, or copied under the queue's locks.
#[allow(unsafe_code)]
unsafe impl Send for Memory {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps the header of `file` and `ring_bytes` behind it, for writing; the file must have so many.
    ///
    /// # Errors
    /// `queue.capacity` if the process has no room for that.
    pub(super) fn map(file: &File, ring_bytes: usize) -> Result<Self> {
        Ok(Self { start: system::map(file, HEADER_BYTES + ring_bytes)?, ring_bytes })
    }

    /// What comes before the ring.
    #[allow(unsafe_code)]
    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: the mapping is that long, starts at a page, lives as long as `self`, and the header
        // is made of atomics, for which every value is one.
        unsafe { self.start.cast().as_ref() }
    }

    /// A unit of the ring, which starts at a multiple of 8.
    #[allow(unsafe_code)]
    #[inline]
    pub(super) fn unit(&self, offset: usize) -> &AtomicU64 {
        let at = self.at(offset, size_of::<u64>());
        assert!(offset.is_multiple_of(align_of::<AtomicU64>()));
        // SAFETY: it lies in the mapping and is aligned, as the ring is; only atomics see it as a word.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }

    /// Copies `bytes` into the ring.
    #[allow(unsafe_code)]
    #[inline]
    pub(super) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let at = self.at(offset, bytes.len());
        // SAFETY: the range lies in the mapping, which overlaps no Rust memory.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// Fills `into` out of the ring.
    #[allow(unsafe_code)]
    #[inline]
    pub(super) fn copy_out(&self, offset: usize, into: &mut [MaybeUninit<u8>]) {
        let at = self.at(offset, into.len());
        // SAFETY: as above, in the other direction.
        unsafe { at.copy_to_nonoverlapping(into.as_mut_ptr().cast(), into.len()) }
    }

    #[allow(unsafe_code)]
    #[inline]
    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.ring_bytes), "the ring has no such range");
        // SAFETY: just checked; the ring lies behind the header in the same mapping.
        unsafe { self.start.as_ptr().add(HEADER_BYTES + offset) }
    }
}

impl Drop for Memory {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: made by `map`, and all that points into it borrows `self`.
        unsafe { system::unmap(self.start, HEADER_BYTES + self.ring_bytes) };
    }
}
