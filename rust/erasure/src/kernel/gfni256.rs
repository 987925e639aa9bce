//! 32 bytes at a time: GFNI's affine instruction on AVX2 registers.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm_sfence, _mm256_gf2p8affine_epi64_epi8, _mm256_set1_epi64x, _mm256_setzero_si256,
    _mm256_xor_si256,
};

use super::apply::apply_with;
use super::lane::Lane;
use super::parts::{self, GROUP, Groups, Plan};
use super::steps;
use super::touch::{At, ymm};
use super::{Kernel, Shape, Tables, Transform};
use crate::shared::{Source, Target};

pub(super) static KERNEL: Kernel = Kernel {
    name: "gfni256",
    tables: Tables::Affine,
    runs_here: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni"),
    apply,
};

struct Ymm;

// SAFETY: each method does what the trait says, and needs avx2 and gfni, no more.
unsafe impl Lane for Ymm {
    type V = __m256i;
    type Factor = __m256i;
    type Entry = u64;
    const BYTES: usize = 32;
    const FACTORS: usize = 8;
    const MANY: bool = true;
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load(from: At) -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { ymm::load(from) }
    }
    #[inline(always)]
    unsafe fn store(to: At, value: __m256i) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { ymm::store(to, value) }
    }
    #[inline(always)]
    unsafe fn stream(to: At, value: __m256i) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { ymm::stream(to, value) }
    }
    #[inline(always)]
    unsafe fn fence() {
        // SAFETY: the caller has the instructions.
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    unsafe fn xor(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_xor_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn xor_at(a: __m256i, from: At) -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { ymm::xor(a, from) }
    }
    #[inline(always)]
    fn table(transform: &Transform) -> &[u64] {
        &transform.affine
    }
    #[inline(always)]
    unsafe fn factor(entry: *const u64) -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_set1_epi64x((*entry).cast_signed()) }
    }
    #[inline(always)]
    unsafe fn mul(value: __m256i, factor: __m256i) -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_gf2p8affine_epi64_epi8::<0>(value, factor) }
    }
}

// The counts of usual geometries: each takes as long to compile as the next.
apply_with!(Ymm, "avx2,gfni", [2 3 4 5 6 8 10 12 16], [4 8]);
