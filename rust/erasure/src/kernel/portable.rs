//! The reference: one byte at a time through the multiplication table.

use super::{Kernel, Tables, Transform};
use crate::gf;
use crate::shared::{Source, Target};

pub(super) static KERNEL: Kernel =
    Kernel { name: "portable", tables: Tables::None, runs_here: || true, apply };

/// The bytes handled at a time, through buffers that stay in the first-level cache.
const BLOCK: usize = 4096;

fn apply(
    transform: &Transform,
    sources: &[Source<'_>],
    targets: &mut [Target<'_>],
    accumulate: bool,
) {
    let length = sources[0].len();
    let (mut bytes, mut sum) = ([0; BLOCK], [0; BLOCK]);
    for start in (0..length).step_by(BLOCK) {
        let count = BLOCK.min(length - start);
        let (bytes, sum) = (&mut bytes[..count], &mut sum[..count]);
        for (row, target) in targets.iter_mut().enumerate() {
            if accumulate {
                target.source().read(start, sum);
            } else {
                sum.fill(0);
            }
            for (source, &factor) in sources.iter().zip(transform.matrix.row(row)) {
                source.read(start, bytes);
                add_product(sum, bytes, factor);
            }
            target.write(start, sum);
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
