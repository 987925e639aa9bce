//! 32 bytes at a time: products of nibbles looked up by byte shuffles.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm_sfence, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi64,
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
    name: "avx2",
    tables: Tables::Nibbles,
    runs_here: || is_x86_feature_detected!("avx2"),
    apply,
};

struct Ymm;

// SAFETY: each method does what the trait says, and needs avx2, no more.
unsafe impl Lane for Ymm {
    type V = __m256i;
    type Factor = (__m256i, __m256i);
    type Entry = [u8; 32];
    const BYTES: usize = 32;
    const MANY: bool = false;
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
    fn table(transform: &Transform) -> &[[u8; 32]] {
        &transform.nibbles
    }
    #[inline(always)]
    unsafe fn factor(entry: *const [u8; 32]) -> (__m256i, __m256i) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe {
            let table = entry.cast::<u8>();
            let half = |from: *const u8| _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast()));
            (half(table), half(table.add(16)))
        }
    }
    #[inline(always)]
    unsafe fn mul(value: __m256i, factor: (__m256i, __m256i)) -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe {
            let low = _mm256_set1_epi8(15);
            let upper = _mm256_and_si256(_mm256_srli_epi64::<4>(value), low);
            let lower = _mm256_and_si256(value, low);
            _mm256_xor_si256(
                _mm256_shuffle_epi8(factor.0, lower),
                _mm256_shuffle_epi8(factor.1, upper),
            )
        }
    }
}

// The counts of usual geometries: each takes as long to compile as the next.
apply_with!(Ymm, "avx2", [2 3 4 5 6 8 10 12 16], []);
