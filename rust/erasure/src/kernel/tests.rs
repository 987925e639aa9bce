//! Every kernel that this processor can run, against the reference.

use super::*;
use crate::matrix;

/// Bytes that differ from shard to shard, without a pattern.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

/// Tables of every sort, whatever kernel is in use.
fn with_all_tables(matrix: Matrix, shape: Shape) -> Transform {
    let mut transform = Transform::new(matrix, shape);
    let factors = factors(&transform.matrix, transform.shape);
    transform.affine = factors.iter().map(|&c| gf::affine(c)).collect();
    transform.nibbles = factors.iter().map(|&c| gf::nibbles(c)).collect();
    transform
}

/// `offset` bytes of misalignment for sources, and as many for targets if `shift_targets`.
fn check(transform: &Transform, length: usize, offset: usize, shift_targets: bool) {
    let (m, k) = (transform.matrix.rows, transform.matrix.columns);
    let whole: Vec<Vec<u8>> = (0..k).map(|j| noise(j as u64 + 1, length + offset)).collect();
    let sources: Vec<Source<'_>> = whole.iter().map(|s| s[offset..].into()).collect();
    let shift = if shift_targets { offset } else { 0 };
    for accumulate in [false, true] {
        if accumulate && !matches!(transform.shape, Shape::Rows | Shape::Xor) {
            continue;
        }
        let results = KERNELS.iter().filter(|kernel| (kernel.runs_here)()).map(|kernel| {
            let mut space: Vec<Vec<u8>> =
                (0..m).map(|r| noise(1000 + r as u64, length + shift + 7)).collect();
            let mut targets: Vec<Target<'_>> =
                space.iter_mut().map(|t| (&mut t[shift..shift + length]).into()).collect();
            assert!(transform.apply_with(kernel, &sources, &mut targets, accumulate));
            (kernel.name, space)
        });
        let mut all: Vec<_> = results.collect();
        let (_, reference) = all.pop().unwrap();
        for (name, result) in all {
            let what = (transform.shape, m, k);
            assert!(result == reference, "{name} {what:?} {length} {offset} {accumulate}");
        }
    }
}

const LENGTHS: &[usize] = if cfg!(miri) {
    &[0, 1, 65]
} else {
    &[0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 255, 1000, 4096]
};

pub(super) fn transforms(k: usize) -> Vec<Transform> {
    vec![
        with_all_tables(matrix::ones(1, k), Shape::Xor),
        with_all_tables(matrix::linux_md(k), Shape::PlusQ),
        with_all_tables(matrix::four_point(3, k), Shape::FourPoint),
        with_all_tables(matrix::four_point(4, k), Shape::FourPoint),
        with_all_tables(matrix::cauchy(1 + k % 7, k), Shape::Rows),
    ]
}

#[test]
fn every_kernel_equals_the_reference_for_edge_lengths_and_offsets() {
    let counts = if cfg!(miri) { 1..=5 } else { 1..=26 };
    for k in counts {
        for transform in transforms(k) {
            for &length in LENGTHS {
                check(&transform, length, 0, false);
                check(&transform, length, 1 + k % 63, k % 2 == 0);
            }
        }
    }
}

#[test]
fn every_kernel_equals_the_reference_for_every_row_count() {
    for k in if cfg!(miri) { 2..=2 } else { 2..=21 } {
        for m in 1..=9 {
            let transform = with_all_tables(matrix::cauchy(m, k), Shape::Rows);
            check(&transform, 64 * 3 + k, m, true);
        }
    }
}

#[test]
#[cfg(not(miri))]
fn every_kernel_equals_the_reference_in_groups_and_blocks() {
    for k in [8, 9, 11, 12, 13, 16, 17, 20, 27, 32] {
        for length in [4096 + 65, 2 * 4096, 3 * 4096 + 321] {
            for transform in transforms(k) {
                check(&transform, length, 0, false);
                check(&transform, length, 7, true);
            }
        }
    }
}

#[test]
#[cfg(not(miri))]
fn every_kernel_equals_the_reference_when_it_streams() {
    let length = cache::level2_bytes() / 3 + 77;
    for k in [2, 5, 7, 8, 12, 16, 17, 23] {
        for transform in transforms(k) {
            check(&transform, length, 0, false);
            check(&transform, length, 9, true);
        }
    }
}

#[test]
#[cfg(not(miri))]
fn largest_codes_equal_the_reference() {
    for (m, k) in [(4, 251), (3, matrix::FOUR_POINT_MAX)] {
        check(&with_all_tables(matrix::four_point(m, k), Shape::FourPoint), 321, 3, true);
    }
    check(&with_all_tables(matrix::linux_md(253), Shape::PlusQ), 321, 3, true);
    check(&with_all_tables(matrix::cauchy(127, 128), Shape::Rows), 130, 3, true);
}

#[test]
fn the_environment_can_only_name_what_runs_here() {
    assert!(names().contains(&name()));
    assert_eq!(names().last(), Some(&"portable"));
    for kernel in here() {
        assert_eq!(choose(Some(kernel.name)).ok().map(|chosen| chosen.name), Some(kernel.name));
    }
    assert_eq!(choose(None).ok().map(|chosen| chosen.name), names().first().copied());
    for wrong in ["gfni1024", "Portable", " portable", "neon,avx2"] {
        let error = choose(Some(wrong)).err().map(|error| error.to_string()).unwrap();
        assert!(error.contains(wrong) && error.contains("portable"), "{error}");
    }
}

/// The job that forces one kernel after the other proves nothing if this does not hold.
#[test]
fn the_kernel_that_the_environment_names_is_in_use() {
    if let Some(wanted) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) {
        assert_eq!(Some(name()), wanted.to_str());
        super::check().unwrap();
    }
}
