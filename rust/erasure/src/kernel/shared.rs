//! Bytes that other threads may use meanwhile.
//!
//! Memory of Python's arrays and shared mappings can be written to at any moment, whatever Rust's borrows
//! say; a slice of it would be undefined behaviour. A [`Source`] and a [`Target`] are addresses instead, and
//! who computes with them touches the memory only by instructions of the processor: assembly, or relaxed
//! atomics. Whatever the hardware loads is computed with, so that bytes which change during a call give a
//! wrong result, never a wrong access.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

/// Bytes to be read.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Source<'a> {
    bytes: *const [u8],
    of: PhantomData<&'a [u8]>,
}

/// Bytes to be written.
#[derive(Debug)]
#[repr(transparent)]
pub struct Target<'a> {
    bytes: *mut [u8],
    of: PhantomData<&'a mut [u8]>,
}

// SAFETY: other threads may use the memory at any time, that is what these are for.
unsafe impl Send for Source<'_> {}
// SAFETY: as above.
unsafe impl Sync for Source<'_> {}
// SAFETY: as above.
unsafe impl Send for Target<'_> {}
// SAFETY: as above; writing takes a `&mut`.
unsafe impl Sync for Target<'_> {}

impl<'a> From<&'a [u8]> for Source<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Self { bytes, of: PhantomData }
    }
}

impl<'a> From<&'a mut [u8]> for Target<'a> {
    #[inline]
    fn from(bytes: &'a mut [u8]) -> Self {
        Self { bytes, of: PhantomData }
    }
}

impl<'a> Source<'a> {
    /// `length` bytes from `start` on, which others may write to.
    ///
    /// # Safety
    /// They are mapped and readable for `'a`.
    #[must_use]
    pub unsafe fn new(start: *const u8, length: usize) -> Self {
        Self { bytes: std::ptr::slice_from_raw_parts(start, length), of: PhantomData }
    }

    /// Slices as sources, without a copy.
    #[inline]
    pub(crate) fn all<'s>(slices: &'s [&'a [u8]]) -> &'s [Self] {
        // SAFETY: a reference to a slice is laid out as a pointer to it, which is all that `Self` has.
        unsafe { std::slice::from_raw_parts(slices.as_ptr().cast(), slices.len()) }
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where they begin.
    #[must_use]
    #[inline]
    pub fn start(&self) -> *const u8 {
        self.bytes.cast()
    }

    /// Those of a range, which lies within them.
    #[inline]
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        check(&range, self.len());
        // SAFETY: the range was checked.
        unsafe { Self::new(self.start().add(range.start), range.len()) }
    }

    /// Copies bytes from `from` on until `into` is full.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn read(&self, from: usize, into: &mut [u8]) {
        let part = self.part(from..from.saturating_add(into.len()));
        // SAFETY: both are valid; `into` is nobody else's.
        unsafe { copy(part.start(), into.as_mut_ptr(), into.len()) }
    }
}

impl<'a> Target<'a> {
    /// `length` bytes from `start` on, which others may read and write.
    ///
    /// # Safety
    /// They are mapped and writable for `'a`.
    #[must_use]
    pub unsafe fn new(start: *mut u8, length: usize) -> Self {
        Self { bytes: std::ptr::slice_from_raw_parts_mut(start, length), of: PhantomData }
    }

    /// Slices as targets, without a copy.
    #[inline]
    pub(crate) fn all<'s>(slices: &'s mut [&'a mut [u8]]) -> &'s mut [Self] {
        // SAFETY: as for sources; the result borrows `slices` mutably.
        unsafe { std::slice::from_raw_parts_mut(slices.as_mut_ptr().cast(), slices.len()) }
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where they begin.
    #[must_use]
    #[inline]
    pub fn start(&self) -> *mut u8 {
        self.bytes.cast()
    }

    /// The same bytes for as long as `self` is borrowed.
    #[inline]
    pub(crate) fn reborrow(&mut self) -> Target<'_> {
        Target { bytes: self.bytes, of: PhantomData }
    }

    /// Those of a range, which lies within them.
    #[inline]
    pub(crate) fn part(&mut self, range: Range<usize>) -> Target<'_> {
        check(&range, self.len());
        // SAFETY: the range was checked.
        unsafe { Target::new(self.start().add(range.start), range.len()) }
    }

    /// What is written there.
    #[inline]
    pub(crate) fn source(&self) -> Source<'_> {
        Source { bytes: self.bytes, of: PhantomData }
    }

    /// Copies `bytes` to where `at` says.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let part = self.part(at..at.saturating_add(bytes.len()));
        // SAFETY: both are valid; they overlap only if a slice was made of shared memory.
        unsafe { copy(bytes.as_ptr(), part.start(), bytes.len()) }
    }

    /// Copies all bytes of a source of the same length.
    ///
    /// # Panics
    /// If it has another one.
    pub fn copy_from(&mut self, source: Source<'_>) {
        assert_eq!(self.len(), source.len());
        // SAFETY: both are valid. Where they overlap, some bytes of the source are overwritten before they
        // are read, as if another thread had done it.
        unsafe { copy(source.start(), self.start(), self.len()) }
    }
}

#[inline]
fn check(range: &Range<usize>, length: usize) {
    assert!(range.start <= range.end && range.end <= length, "{range:?} of {length}");
}

/// Copies although other threads may use either range meanwhile.
///
/// An assembly instruction has no data race in the sense of the language: whatever the hardware loads is
/// stored. Where there is none here, atomic words and bytes promise the same.
///
/// # Safety
/// Both ranges are valid.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy(from: *const u8, into: *mut u8, length: usize) {
    // SAFETY: the caller vouches for the ranges; the ABI has the direction flag cleared.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") length => _,
            inout("rsi") from => _,
            inout("rdi") into => _,
            options(nostack, preserves_flags)
        );
    }
}

/// As above, sixteen bytes at a time.
///
/// # Safety
/// Both ranges are valid.
#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline]
unsafe fn copy(from: *const u8, into: *mut u8, length: usize) {
    // SAFETY: the caller vouches for the ranges.
    unsafe {
        std::arch::asm!(
            "2:",
            "subs {left}, {left}, #16",
            "b.lo 3f",
            "ldp {a}, {b}, [{from}], #16",
            "stp {a}, {b}, [{into}], #16",
            "b 2b",
            "3:",
            "add {left}, {left}, #16",
            "4:",
            "cbz {left}, 5f",
            "ldrb {a:w}, [{from}], #1",
            "strb {a:w}, [{into}], #1",
            "sub {left}, {left}, #1",
            "b 4b",
            "5:",
            left = inout(reg) length => _,
            from = inout(reg) from => _,
            into = inout(reg) into => _,
            a = out(reg) _,
            b = out(reg) _,
            options(nostack)
        );
    }
}

/// As above, for other processors and for Miri, which sees what it does (as tree borrows have it: a load
/// through what could also be stored to).
///
/// # Safety
/// Both ranges are valid.
#[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), miri))]
unsafe fn copy(from: *const u8, into: *mut u8, length: usize) {
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
    const WORD: usize = size_of::<u64>();
    let aligned = |pointer: *const u8| pointer.addr() % align_of::<AtomicU64>() == 0;
    // Miri wants all who share bytes to use pieces of one size.
    let is_fast = aligned(from) && aligned(into) && !cfg!(miri);
    let words = if is_fast { length / WORD } else { 0 };
    // SAFETY: the caller vouches for the ranges; words are taken only where both are aligned. Loads don't
    // write, so that what is read may be read-only.
    unsafe {
        for index in 0..words {
            let word = AtomicU64::from_ptr(from.cast::<u64>().cast_mut().add(index)).load(Relaxed);
            AtomicU64::from_ptr(into.cast::<u64>().add(index)).store(word, Relaxed);
        }
        for index in words * WORD..length {
            let byte = AtomicU8::from_ptr(from.cast_mut().add(index)).load(Relaxed);
            AtomicU8::from_ptr(into.add(index)).store(byte, Relaxed);
        }
    }
}
