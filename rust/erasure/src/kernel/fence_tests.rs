//! No kernel touches a byte outside the shards: beside them lie pages that nobody may touch.

use std::ffi::c_void;
use std::slice;

use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};

use super::tests::transforms;
use super::*;

const PAGE_BYTES: usize = 64 << 10;

/// Memory between two pages of which every access ends the test.
struct Fenced {
    whole: *mut c_void,
    inner_bytes: usize,
}

impl Fenced {
    fn new(bytes: usize) -> Self {
        let inner_bytes = bytes.next_multiple_of(PAGE_BYTES);
        let whole_bytes = inner_bytes + 2 * PAGE_BYTES;
        // SAFETY: a new mapping, of which the inner pages become accessible.
        unsafe {
            let none = std::ptr::null_mut();
            let whole =
                mm::mmap_anonymous(none, whole_bytes, ProtFlags::empty(), MapFlags::PRIVATE)
                    .unwrap();
            let inner = whole.byte_add(PAGE_BYTES);
            let flags = MprotectFlags::READ | MprotectFlags::WRITE;
            mm::mprotect(inner, inner_bytes, flags).unwrap();
            Self { whole, inner_bytes }
        }
    }

    /// `length` bytes that begin after the lower fence, or end before the upper one.
    fn bytes(&mut self, length: usize, low: bool) -> &mut [u8] {
        let skipped = if low { 0 } else { self.inner_bytes - length };
        // SAFETY: the inner pages are ours alone as long as `self` is borrowed.
        unsafe {
            let start = self.whole.byte_add(PAGE_BYTES + skipped).cast();
            slice::from_raw_parts_mut(start, length)
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: nothing of the mapping is borrowed any more.
        unsafe { mm::munmap(self.whole, self.inner_bytes + 2 * PAGE_BYTES).unwrap() }
    }
}

fn check(transform: &Transform, fences: &mut [Fenced], length: usize, low: bool) {
    let (m, k) = (transform.matrix.rows, transform.matrix.columns);
    let mut shards: Vec<&mut [u8]> =
        fences[..k + m].iter_mut().map(|fence| fence.bytes(length, low)).collect();
    for (seed, shard) in shards.iter_mut().enumerate() {
        shard.fill(seed as u8);
    }
    let (sources, targets) = shards.split_at_mut(k);
    let sources: Vec<Source<'_>> = sources.iter().map(|source| (&**source).into()).collect();
    let targets = Target::all(targets);
    for kernel in here() {
        assert!(transform.apply_with(kernel, &sources, targets, false));
        if matches!(transform.shape, Shape::Rows | Shape::Xor) {
            assert!(transform.apply_with(kernel, &sources, targets, true));
        }
    }
}

#[test]
fn no_kernel_touches_a_byte_outside_the_shards() {
    let streams = cache::level2_bytes() / 4 + 77;
    let mut fences: Vec<Fenced> = (0..30).map(|_| Fenced::new(streams)).collect();
    for k in [1, 2, 5, 8, 11, 16, 17, 21] {
        for transform in transforms(k) {
            for length in (0..=130).chain([4095, 4096, 4097, 12_321]) {
                check(&transform, &mut fences, length, false);
                check(&transform, &mut fences, length, true);
            }
            check(&transform, &mut fences, streams, false);
            check(&transform, &mut fences, streams, true);
        }
    }
}
