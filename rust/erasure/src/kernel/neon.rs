//! 16 bytes at a time: products of nibbles looked up by NEON's table instruction.
#![allow(unsafe_code)]

use std::arch::aarch64::{
    uint8x16_t, vandq_u8, vdupq_n_u8, veorq_u8, vld1q_u8, vqtbl1q_u8, vshrq_n_u8,
};

use super::apply::apply_with;
use super::lane::Lane;
use super::parts::{self, GROUP, Groups, Plan};
use super::steps;
use super::touch::{At, quad};
use super::{Kernel, Shape, Tables, Transform};
use crate::shared::{Source, Target};

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
    type Entry = [u8; 32];
    const BYTES: usize = 16;
    const MANY: bool = true;
    #[inline(always)]
    unsafe fn zero() -> uint8x16_t {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { vdupq_n_u8(0) }
    }
    #[inline(always)]
    unsafe fn load(from: At) -> uint8x16_t {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { quad::load(from) }
    }
    #[inline(always)]
    unsafe fn store(to: At, value: uint8x16_t) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { quad::store(to, value) }
    }
    #[inline(always)]
    unsafe fn stream(to: At, value: uint8x16_t) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { quad::store(to, value) }
    }
    #[inline(always)]
    unsafe fn fence() {}
    #[inline(always)]
    unsafe fn xor(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe { veorq_u8(a, b) }
    }
    #[inline(always)]
    fn table(transform: &Transform) -> &[[u8; 32]] {
        &transform.nibbles
    }
    #[inline(always)]
    unsafe fn factor(entry: *const [u8; 32]) -> (uint8x16_t, uint8x16_t) {
        // SAFETY: the caller's promise (instructions, addresses, table length).
        unsafe {
            let table = entry.cast::<u8>();
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

apply_with!(Quad, "neon", [], []);
