//! 32 bytes at a time: GFNI's affine instruction on AVX2 registers.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm_sfence, _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm256_stream_si256, _mm256_xor_si256,
};

use super::engine::{self, Lane};
use super::{Kernel, Shape, Tables, Transform};

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
    const BYTES: usize = 32;
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, value: __m256i) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_storeu_si256(to.cast(), value) }
    }
    #[inline(always)]
    unsafe fn stream(to: *mut u8, value: __m256i) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_stream_si256(to.cast(), value) }
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
    unsafe fn factor(transform: &Transform, index: usize) -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_set1_epi64x(transform.affine.get_unchecked(index).cast_signed()) }
    }
    #[inline(always)]
    unsafe fn mul(value: __m256i, factor: __m256i) -> __m256i {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { _mm256_gf2p8affine_epi64_epi8::<0>(value, factor) }
    }
}

fn apply(transform: &Transform, sources: &[&[u8]], targets: &mut [&mut [u8]], accumulate: bool) {
    // SAFETY: this kernel is only chosen where its instructions are; `Transform::apply` checked lengths.
    unsafe {
        match (transform.shape, accumulate) {
            (Shape::Xor, _) => xor(sources, targets, accumulate),
            (Shape::PlusQ, false) => plus_q(transform, sources, targets),
            (Shape::FourPoint, false) if targets.len() == 4 => {
                four_point::<4>(transform, sources, targets);
            }
            (Shape::FourPoint, false) => four_point::<3>(transform, sources, targets),
            _ => rows(transform, sources, targets, accumulate),
        }
    }
}

#[target_feature(enable = "avx2,gfni")]
unsafe fn xor(sources: &[&[u8]], targets: &mut [&mut [u8]], accumulate: bool) {
    // SAFETY: this function has the lane's instructions.
    unsafe { engine::xor::<Ymm, 0>(sources, targets, accumulate, true) }
}

#[target_feature(enable = "avx2,gfni")]
unsafe fn plus_q(transform: &Transform, sources: &[&[u8]], targets: &mut [&mut [u8]]) {
    // SAFETY: this function has the lane's instructions.
    unsafe { engine::plus_q::<Ymm, 0>(transform, sources, targets, true) }
}

#[target_feature(enable = "avx2,gfni")]
unsafe fn four_point<const M: usize>(
    transform: &Transform,
    sources: &[&[u8]],
    targets: &mut [&mut [u8]],
) {
    // SAFETY: this function has the lane's instructions.
    unsafe { engine::four_point::<Ymm, 0, M>(transform, sources, targets, true) }
}

/// Four rows at a time, then the rest.
///
/// # Safety
/// The lane's instructions are there.
unsafe fn rows(t: &Transform, sources: &[&[u8]], targets: &mut [&mut [u8]], accumulate: bool) {
    for (tile, targets) in targets.chunks_mut(4).enumerate() {
        let first = 4 * tile;
        // SAFETY: passed on; the tile's rows are the matrix's.
        unsafe {
            match targets.len() {
                1 => tile_of::<1>(t, first, sources, targets, accumulate),
                2 => tile_of::<2>(t, first, sources, targets, accumulate),
                3 => tile_of::<3>(t, first, sources, targets, accumulate),
                _ => tile_of::<4>(t, first, sources, targets, accumulate),
            }
        }
    }
}

#[target_feature(enable = "avx2,gfni")]
unsafe fn tile_of<const M: usize>(
    transform: &Transform,
    first: usize,
    sources: &[&[u8]],
    targets: &mut [&mut [u8]],
    accumulate: bool,
) {
    // SAFETY: this function has the lane's instructions.
    unsafe { engine::rows::<Ymm, M>(transform, first, sources, targets, accumulate, true) }
}
