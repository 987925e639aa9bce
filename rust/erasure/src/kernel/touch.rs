//! Registers from and to memory, by one instruction each.
//!
//! Assembly, because other threads may use the memory meanwhile ([`crate::shared`]). An address is its
//! shard's beginning and an index, which the instructions add: the loops keep the beginnings in registers.

/// An address.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) base: *mut u8,
    pub(super) index: usize,
}

impl At {
    /// The beginning of a buffer of one's own.
    #[inline(always)]
    pub(super) fn own(buffer: &mut [u8; 64]) -> Self {
        Self { base: buffer.as_mut_ptr(), index: 0 }
    }

    /// # Safety
    /// The address lies within a shard, or right behind it.
    #[inline(always)]
    pub(super) unsafe fn pointer(self) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.base.add(self.index) }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod zmm {
    use std::arch::asm;
    use std::arch::x86_64::{__m512i, __mmask64};

    use super::At;

    /// # Safety
    /// 64 bytes are readable.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn load(from: At) -> __m512i {
        let value;
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "vmovdqu64 {}, [{} + {}]",
                out(zmm_reg) value, in(reg) from.base, in(reg) from.index,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }

    /// `a` xor what lies there.
    ///
    /// # Safety
    /// 64 bytes are readable.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn xor(a: __m512i, from: At) -> __m512i {
        let value;
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "vpxorq {}, {}, [{} + {}]",
                out(zmm_reg) value, in(zmm_reg) a, in(reg) from.base, in(reg) from.index,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }

    /// `a` xor `b` xor what lies there.
    ///
    /// # Safety
    /// 64 bytes are readable.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn xor3(a: __m512i, b: __m512i, from: At) -> __m512i {
        let value;
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "vpternlogq {}, {}, [{} + {}], 0x96",
                inlateout(zmm_reg) a => value, in(zmm_reg) b, in(reg) from.base, in(reg) from.index,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }

    /// # Safety
    /// 64 bytes are writable.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn store(to: At, value: __m512i) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "vmovdqu64 [{} + {}], {}",
                in(reg) to.base, in(reg) to.index, in(zmm_reg) value,
                options(nostack, preserves_flags)
            );
        }
    }

    /// Past the caches.
    ///
    /// # Safety
    /// 64 bytes are writable, and aligned.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn stream(to: At, value: __m512i) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "vmovntdq [{} + {}], {}",
                in(reg) to.base, in(reg) to.index, in(zmm_reg) value,
                options(nostack, preserves_flags)
            );
        }
    }

    /// The bytes of the mask, the rest zero.
    ///
    /// # Safety
    /// They are readable.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(in super::super) unsafe fn load_part(from: At, mask: __mmask64) -> __m512i {
        let value;
        // SAFETY: the caller's promise; masked-off bytes are not touched.
        unsafe {
            asm!(
                "vmovdqu8 {}{{{}}}{{z}}, [{} + {}]",
                out(zmm_reg) value, in(kreg) mask, in(reg) from.base, in(reg) from.index,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }

    /// The bytes of the mask.
    ///
    /// # Safety
    /// They are writable.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(in super::super) unsafe fn store_part(to: At, mask: __mmask64, value: __m512i) {
        // SAFETY: the caller's promise; masked-off bytes are not touched.
        unsafe {
            asm!(
                "vmovdqu8 [{} + {}]{{{}}}, {}",
                in(reg) to.base, in(reg) to.index, in(kreg) mask, in(zmm_reg) value,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod ymm {
    use std::arch::asm;
    use std::arch::x86_64::__m256i;

    use super::At;

    /// # Safety
    /// 32 bytes are readable.
    #[inline]
    #[target_feature(enable = "avx")]
    pub(in super::super) unsafe fn load(from: At) -> __m256i {
        let value;
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "vmovdqu {}, [{} + {}]",
                out(ymm_reg) value, in(reg) from.base, in(reg) from.index,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }

    /// `a` xor what lies there.
    ///
    /// # Safety
    /// 32 bytes are readable.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(in super::super) unsafe fn xor(a: __m256i, from: At) -> __m256i {
        let value;
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "vpxor {}, {}, [{} + {}]",
                out(ymm_reg) value, in(ymm_reg) a, in(reg) from.base, in(reg) from.index,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }

    /// # Safety
    /// 32 bytes are writable.
    #[inline]
    #[target_feature(enable = "avx")]
    pub(in super::super) unsafe fn store(to: At, value: __m256i) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "vmovdqu [{} + {}], {}",
                in(reg) to.base, in(reg) to.index, in(ymm_reg) value,
                options(nostack, preserves_flags)
            );
        }
    }

    /// Past the caches.
    ///
    /// # Safety
    /// 32 bytes are writable, and aligned.
    #[inline]
    #[target_feature(enable = "avx")]
    pub(in super::super) unsafe fn stream(to: At, value: __m256i) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "vmovntdq [{} + {}], {}",
                in(reg) to.base, in(reg) to.index, in(ymm_reg) value,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) mod quad {
    use std::arch::aarch64::uint8x16_t;
    use std::arch::asm;

    use super::At;

    /// # Safety
    /// 16 bytes are readable.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) unsafe fn load(from: At) -> uint8x16_t {
        let value;
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "ldr {:q}, [{}, {}]",
                out(vreg) value, in(reg) from.base, in(reg) from.index,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }

    /// # Safety
    /// 16 bytes are writable.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) unsafe fn store(to: At, value: uint8x16_t) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "str {2:q}, [{0}, {1}]",
                in(reg) to.base, in(reg) to.index, in(vreg) value,
                options(nostack, preserves_flags)
            );
        }
    }
}
