//! What a processor's registers can do, and how a step touches memory.

use super::Transform;

/// A vector register.
///
/// # Safety
/// All methods need the instructions of the implementing lane; pointers must be valid for the bytes named.
pub(super) unsafe trait Lane {
    type V: Copy;
    type Factor: Copy;
    /// What a transform has of a factor.
    type Entry;
    /// Bytes in a register, a power of two ≤ 64.
    const BYTES: usize;
    /// It computes faster than the second-level cache can feed it.
    const WIDE: bool = false;
    /// There are registers enough for two cache lines of each shard at once.
    const MANY: bool;
    unsafe fn zero() -> Self::V;
    unsafe fn load(from: *const u8) -> Self::V;
    unsafe fn store(to: *mut u8, value: Self::V);
    /// A store that goes around the caches; `to` is aligned to `BYTES`.
    unsafe fn stream(to: *mut u8, value: Self::V);
    /// Orders streamed stores before what follows.
    unsafe fn fence();
    unsafe fn xor(a: Self::V, b: Self::V) -> Self::V;
    #[inline(always)]
    unsafe fn xor3(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the caller has the lane's instructions.
        unsafe { Self::xor(Self::xor(a, b), c) }
    }
    /// The transform's tables of this sort.
    fn table(transform: &Transform) -> &[Self::Entry];
    /// The factor of an entry, ready to multiply with.
    unsafe fn factor(entry: *const Self::Entry) -> Self::Factor;
    unsafe fn mul(value: Self::V, factor: Self::Factor) -> Self::V;
    /// The first `count < BYTES` bytes, the rest zero.
    #[inline(always)]
    unsafe fn load_part(from: *const u8, count: usize) -> Self::V {
        let mut whole = [0u8; 64];
        // SAFETY: `count` bytes are readable, and less than the buffer.
        unsafe {
            std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), count);
            Self::load(whole.as_ptr())
        }
    }
    /// Stores the first `count < BYTES` bytes.
    #[inline(always)]
    unsafe fn store_part(to: *mut u8, value: Self::V, count: usize) {
        let mut whole = [0u8; 64];
        // SAFETY: `count` bytes are writable, and less than the buffer.
        unsafe {
            Self::store(whole.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(whole.as_ptr(), to, count);
        }
    }
}

/// How a step touches memory.
pub(super) const PLAIN: u8 = 0;
pub(super) const STREAM: u8 = 1;
pub(super) const PART: u8 = 2;

#[inline(always)]
pub(super) unsafe fn load<L: Lane, const MODE: u8>(from: *const u8, count: usize) -> L::V {
    // SAFETY: the step's range lies within the shard.
    unsafe { if MODE == PART { L::load_part(from, count) } else { L::load(from) } }
}

#[inline(always)]
pub(super) unsafe fn store<L: Lane, const MODE: u8>(to: *mut u8, value: L::V, count: usize) {
    // SAFETY: as for `load`; streams start at an aligned address.
    unsafe {
        match MODE {
            PART => L::store_part(to, value, count),
            STREAM => L::stream(to, value),
            _ => L::store(to, value),
        }
    }
}
