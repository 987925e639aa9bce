//! What a processor's registers can do, and how a step touches memory.

use super::Transform;
use super::touch::At;
use crate::shared::{Source, Target};

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
    /// Factors that stay in registers beside what else is there.
    const FACTORS: usize = 0;
    /// There are registers enough for two cache lines of each shard at once.
    const MANY: bool;
    unsafe fn zero() -> Self::V;
    unsafe fn load(from: At) -> Self::V;
    unsafe fn store(to: At, value: Self::V);
    /// A store that goes around the caches; `to` is aligned to `BYTES`.
    unsafe fn stream(to: At, value: Self::V);
    /// Orders streamed stores before what follows.
    unsafe fn fence();
    unsafe fn xor(a: Self::V, b: Self::V) -> Self::V;
    #[inline(always)]
    unsafe fn xor3(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the caller has the lane's instructions.
        unsafe { Self::xor(Self::xor(a, b), c) }
    }
    /// [`Self::xor`] of what lies there, in one instruction where there is one.
    #[inline(always)]
    unsafe fn xor_at(a: Self::V, from: At) -> Self::V {
        // SAFETY: the caller has the lane's instructions, and the bytes are readable.
        unsafe { Self::xor(a, Self::load(from)) }
    }
    /// [`Self::xor3`] of what lies there.
    #[inline(always)]
    unsafe fn xor3_at(a: Self::V, b: Self::V, from: At) -> Self::V {
        // SAFETY: as above.
        unsafe { Self::xor_at(Self::xor(a, b), from) }
    }
    /// The transform's tables of this sort.
    fn table(transform: &Transform) -> &[Self::Entry];
    /// The factor of an entry, ready to multiply with.
    unsafe fn factor(entry: *const Self::Entry) -> Self::Factor;
    unsafe fn mul(value: Self::V, factor: Self::Factor) -> Self::V;
    /// The first `count < BYTES` bytes, the rest zero.
    #[inline(always)]
    unsafe fn load_part(from: At, count: usize) -> Self::V {
        let mut whole = [0u8; 64];
        // SAFETY: `count` bytes are readable, and less than the buffer.
        unsafe {
            Source::new(from.pointer(), count).read(0, &mut whole[..count]);
            Self::load(At::own(&mut whole))
        }
    }
    /// Stores the first `count < BYTES` bytes.
    #[inline(always)]
    unsafe fn store_part(to: At, value: Self::V, count: usize) {
        let mut whole = [0u8; 64];
        // SAFETY: `count` bytes are writable, and less than the buffer.
        unsafe {
            Self::store(At::own(&mut whole), value);
            Target::new(to.pointer(), count).write(0, &whole[..count]);
        }
    }
}

/// How a step touches memory.
pub(super) const PLAIN: u8 = 0;
pub(super) const STREAM: u8 = 1;
pub(super) const PART: u8 = 2;

#[inline(always)]
pub(super) unsafe fn load<L: Lane, const MODE: u8>(from: At, count: usize) -> L::V {
    // SAFETY: the step's range lies within the shard.
    unsafe { if MODE == PART { L::load_part(from, count) } else { L::load(from) } }
}

/// `a` plus what lies there.
#[inline(always)]
pub(super) unsafe fn add<L: Lane, const MODE: u8>(a: L::V, from: At, count: usize) -> L::V {
    // SAFETY: as for `load`.
    unsafe { if MODE == PART { L::xor(a, L::load_part(from, count)) } else { L::xor_at(a, from) } }
}

/// `a` plus `b` plus what lies there.
#[inline(always)]
pub(super) unsafe fn add3<L: Lane, const MODE: u8>(
    a: L::V,
    b: L::V,
    from: At,
    count: usize,
) -> L::V {
    // SAFETY: as for `load`.
    unsafe {
        if MODE == PART { L::xor3(a, b, L::load_part(from, count)) } else { L::xor3_at(a, b, from) }
    }
}

#[inline(always)]
pub(super) unsafe fn store<L: Lane, const MODE: u8>(to: At, value: L::V, count: usize) {
    // SAFETY: as for `load`; streams start at an aligned address.
    unsafe {
        match MODE {
            PART => L::store_part(to, value, count),
            STREAM => L::stream(to, value),
            _ => L::store(to, value),
        }
    }
}
