//! 16 bytes at a time: products of nibbles looked up by NEON's table instruction.
#![allow(unsafe_code)]

use std::arch::aarch64::{
    uint8x16_t, vandq_u8, vdupq_n_u8, veorq_u8, vld1q_u8, vqtbl1q_u8, vshrq_n_u8, vst1q_u8,
};

use super::engine::{self, Lane};
use super::{Kernel, Shape, Tables, Transform};

pub(super) static KERNEL: Kernel = Kernel {
    name: "neon",
    tables: Tables::Nibbles,
    runs_here: || std::arch::is_aarch64_feature_detected!("neon"),
    apply,
};

struct Quad;

// SAFETY: each method does what the trait says, and needs neon, no more.
unsafe impl Lane for Quad {
    type V = uint8x16_t;
    type Factor = (uint8x16_t, uint8x16_t);
    const BYTES: usize = 16;
    #[inline(always)]
    unsafe fn zero() -> uint8x16_t {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { vdupq_n_u8(0) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> uint8x16_t {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { vld1q_u8(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, value: uint8x16_t) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { vst1q_u8(to, value) }
    }
    #[inline(always)]
    unsafe fn stream(to: *mut u8, value: uint8x16_t) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { vst1q_u8(to, value) }
    }
    #[inline(always)]
    unsafe fn fence() {}
    #[inline(always)]
    unsafe fn xor(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { veorq_u8(a, b) }
    }
    #[inline(always)]
    unsafe fn factor(transform: &Transform, index: usize) -> (uint8x16_t, uint8x16_t) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe {
            let table = transform.nibbles.get_unchecked(index).as_ptr();
            (vld1q_u8(table), vld1q_u8(table.add(16)))
        }
    }
    #[inline(always)]
    unsafe fn mul(value: uint8x16_t, factor: (uint8x16_t, uint8x16_t)) -> uint8x16_t {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe {
            let lower = vandq_u8(value, vdupq_n_u8(15));
            let upper = vshrq_n_u8::<4>(value);
            veorq_u8(vqtbl1q_u8(factor.0, lower), vqtbl1q_u8(factor.1, upper))
        }
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

#[target_feature(enable = "neon")]
unsafe fn xor(sources: &[&[u8]], targets: &mut [&mut [u8]], accumulate: bool) {
    // SAFETY: this function has the lane's instructions.
    unsafe { engine::xor::<Quad, 0>(sources, targets, accumulate, true) }
}

#[target_feature(enable = "neon")]
unsafe fn plus_q(transform: &Transform, sources: &[&[u8]], targets: &mut [&mut [u8]]) {
    // SAFETY: this function has the lane's instructions.
    unsafe { engine::plus_q::<Quad, 0>(transform, sources, targets, true) }
}

#[target_feature(enable = "neon")]
unsafe fn four_point<const M: usize>(
    transform: &Transform,
    sources: &[&[u8]],
    targets: &mut [&mut [u8]],
) {
    // SAFETY: this function has the lane's instructions.
    unsafe { engine::four_point::<Quad, 0, M>(transform, sources, targets, true) }
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

#[target_feature(enable = "neon")]
unsafe fn tile_of<const M: usize>(
    transform: &Transform,
    first: usize,
    sources: &[&[u8]],
    targets: &mut [&mut [u8]],
    accumulate: bool,
) {
    // SAFETY: this function has the lane's instructions.
    unsafe { engine::rows::<Quad, M>(transform, first, sources, targets, accumulate, true) }
}
