//! 64 bytes at a time: GFNI's affine instruction and AVX-512's three-way logic.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, __mmask64, _mm_sfence, _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512,
    _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_storeu_si512, _mm512_stream_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

use super::engine::{self, Lane};
use super::{Kernel, Shape, Tables, Transform};

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
    const BYTES: usize = 64;
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: 64 bytes are readable.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, value: __m512i) {
        // SAFETY: 64 bytes are writable.
        unsafe { _mm512_storeu_si512(to.cast(), value) }
    }
    #[inline(always)]
    unsafe fn stream(to: *mut u8, value: __m512i) {
        // SAFETY: 64 aligned bytes are writable.
        unsafe { _mm512_stream_si512(to.cast(), value) }
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
    unsafe fn factor(transform: &Transform, index: usize) -> __m512i {
        // SAFETY: the caller knows that the table has this entry.
        unsafe { _mm512_set1_epi64(transform.affine.get_unchecked(index).cast_signed()) }
    }
    #[inline(always)]
    unsafe fn mul(value: __m512i, factor: __m512i) -> __m512i {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_gf2p8affine_epi64_epi8::<0>(value, factor) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const u8, count: usize) -> __m512i {
        // SAFETY: masked-off bytes are not touched; `count` bytes are readable.
        unsafe { _mm512_maskz_loadu_epi8(mask(count), from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_part(to: *mut u8, value: __m512i, count: usize) {
        // SAFETY: masked-off bytes are not touched; `count` bytes are writable.
        unsafe { _mm512_mask_storeu_epi8(to.cast(), mask(count), value) }
    }
}

fn apply(transform: &Transform, sources: &[&[u8]], targets: &mut [&mut [u8]], accumulate: bool) {
    // SAFETY: this kernel is only chosen where its instructions are; `Transform::apply` checked lengths.
    unsafe {
        match (transform.shape, accumulate) {
            (Shape::Xor, _) => xor(sources, targets, accumulate),
            (Shape::PlusQ, false) => plus_q(transform, sources, targets),
            (Shape::FourPoint, false) if targets.len() == 4 => four(transform, sources, targets),
            (Shape::FourPoint, false) => three(transform, sources, targets),
            _ => rows(transform, sources, targets, accumulate),
        }
    }
}

/// `$call!(K)` for the constant `K` that equals `$k`, or for 0 where there is none up to 20.
macro_rules! with_count {
    ($k:expr, $call:ident) => {
        with_count!(@ $k, $call, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
    };
    (@ $k:expr, $call:ident, $($n:literal)*) => {
        match $k { $($n => $call!($n),)* _ => $call!(0) }
    };
}

#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn xor(sources: &[&[u8]], targets: &mut [&mut [u8]], accumulate: bool) {
    macro_rules! call {
        ($k:literal) => {
            engine::xor::<Zmm, $k>(sources, targets, accumulate, true)
        };
    }
    // SAFETY: this function has the lane's instructions.
    unsafe { with_count!(sources.len(), call) }
}

#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn plus_q(transform: &Transform, sources: &[&[u8]], targets: &mut [&mut [u8]]) {
    macro_rules! call {
        ($k:literal) => {
            engine::plus_q::<Zmm, $k>(transform, sources, targets, true)
        };
    }
    // SAFETY: this function has the lane's instructions.
    unsafe { with_count!(sources.len(), call) }
}

#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn three(transform: &Transform, sources: &[&[u8]], targets: &mut [&mut [u8]]) {
    macro_rules! call {
        ($k:literal) => {
            engine::four_point::<Zmm, $k, 3>(transform, sources, targets, true)
        };
    }
    // SAFETY: this function has the lane's instructions.
    unsafe { with_count!(sources.len(), call) }
}

#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn four(transform: &Transform, sources: &[&[u8]], targets: &mut [&mut [u8]]) {
    macro_rules! call {
        ($k:literal) => {
            engine::four_point::<Zmm, $k, 4>(transform, sources, targets, true)
        };
    }
    // SAFETY: this function has the lane's instructions.
    unsafe { with_count!(sources.len(), call) }
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

#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn tile_of<const M: usize>(
    transform: &Transform,
    first: usize,
    sources: &[&[u8]],
    targets: &mut [&mut [u8]],
    accumulate: bool,
) {
    // SAFETY: this function has the lane's instructions.
    unsafe { engine::rows::<Zmm, M>(transform, first, sources, targets, accumulate, true) }
}
