//! The reference: one byte at a time through the multiplication table.

use super::{Kernel, Tables, Transform};
use crate::gf;

pub(super) static KERNEL: Kernel =
    Kernel { name: "portable", tables: Tables::None, runs_here: || true, apply };

/// The bytes handled at a time, so that targets stay in the first-level cache.
const BLOCK: usize = 4096;

fn apply(transform: &Transform, sources: &[&[u8]], targets: &mut [&mut [u8]], accumulate: bool) {
    let length = sources[0].len();
    for start in (0..length).step_by(BLOCK) {
        let block = start..length.min(start + BLOCK);
        for (row, target) in targets.iter_mut().enumerate() {
            let target = &mut target[block.clone()];
            if !accumulate {
                target.fill(0);
            }
            for (source, &factor) in sources.iter().zip(transform.matrix.row(row)) {
                add_product(target, &source[block.clone()], factor);
            }
        }
    }
}

/// `target += factor · source`.
fn add_product(target: &mut [u8], source: &[u8], factor: u8) {
    match factor {
        0 => {}
        1 => target.iter_mut().zip(source).for_each(|(t, s)| *t ^= s),
        _ => {
            let times = &gf::table()[factor as usize];
            target.iter_mut().zip(source).for_each(|(t, s)| *t ^= times[*s as usize]);
        }
    }
}
