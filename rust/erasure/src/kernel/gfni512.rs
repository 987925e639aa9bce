//! 64 bytes at a time: GFNI's affine instruction and AVX-512's three-way logic.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, __mmask64, _mm_sfence, _mm512_gf2p8affine_epi64_epi8, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

use super::apply::apply_with;
use super::lane::Lane;
use super::parts::{self, GROUP, Groups, Plan};
use super::steps;
use super::touch::{At, zmm};
use super::{Kernel, Shape, Tables, Transform};
use crate::shared::{Source, Target};

pub(super) static KERNEL: Kernel = Kernel {
    name: "gfni512",
    tables: Tables::Affine,
    runs_here: || {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("gfni")
    },
    apply,
};

struct Zmm;

const fn mask(count: usize) -> __mmask64 {
    (1 << count) - 1
}

// SAFETY: each method does what the trait says, and needs avx512f, avx512bw and gfni, no more.
unsafe impl Lane for Zmm {
    type V = __m512i;
    type Factor = __m512i;
    type Entry = u64;
    const BYTES: usize = 64;
    const WIDE: bool = true;
    const FACTORS: usize = 16;
    const MANY: bool = true;
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load(from: At) -> __m512i {
        // SAFETY: 64 bytes are readable.
        unsafe { zmm::load(from) }
    }
    #[inline(always)]
    unsafe fn store(to: At, value: __m512i) {
        // SAFETY: 64 bytes are writable.
        unsafe { zmm::store(to, value) }
    }
    #[inline(always)]
    unsafe fn stream(to: At, value: __m512i) {
        // SAFETY: 64 aligned bytes are writable.
        unsafe { zmm::stream(to, value) }
    }
    #[inline(always)]
    unsafe fn fence() {
        // SAFETY: the caller has the instructions.
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    unsafe fn xor(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_xor_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_ternarylogic_epi64::<0x96>(a, b, c) }
    }
    #[inline(always)]
    unsafe fn xor_at(a: __m512i, from: At) -> __m512i {
        // SAFETY: 64 bytes are readable.
        unsafe { zmm::xor(a, from) }
    }
    #[inline(always)]
    unsafe fn xor3_at(a: __m512i, b: __m512i, from: At) -> __m512i {
        // SAFETY: 64 bytes are readable.
        unsafe { zmm::xor3(a, b, from) }
    }
    #[inline(always)]
    fn table(transform: &Transform) -> &[u64] {
        &transform.affine
    }
    #[inline(always)]
    unsafe fn factor(entry: *const u64) -> __m512i {
        // SAFETY: the entry is readable.
        unsafe { _mm512_set1_epi64((*entry).cast_signed()) }
    }
    #[inline(always)]
    unsafe fn mul(value: __m512i, factor: __m512i) -> __m512i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_gf2p8affine_epi64_epi8::<0>(value, factor) }
    }
    #[inline(always)]
    unsafe fn load_part(from: At, count: usize) -> __m512i {
        // SAFETY: masked-off bytes are not touched; `count` bytes are readable.
        unsafe { zmm::load_part(from, mask(count)) }
    }
    #[inline(always)]
    unsafe fn store_part(to: At, value: __m512i, count: usize) {
        // SAFETY: masked-off bytes are not touched; `count` bytes are writable.
        unsafe { zmm::store_part(to, mask(count), value) }
    }
}

apply_with!(Zmm, "avx512f,avx512bw,gfni", [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20], [1 2 3 4 5 6 7 8]);
