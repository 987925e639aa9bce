//! The loops over bytes, and the choice among them.
//!
//! [`Transform`] says what is computed (its matrix is the definition); a [`Kernel`] computes it with the
//! instructions it has. `portable` is the readable reference that every other one is tested against.
//! The choice is made once, by what the processor can do. The environment variable `DWKERNEL_ERASURE_KERNEL`
//! (a name of [`names`]) overrides it; if this processor cannot run what it names, no code can be made, so
//! that whoever forces a kernel never gets another one unawares.

// The engine's parts must end up inside a function that has the lane's instructions, and its loops run
// over registers by index so that they unroll.
#![allow(clippy::inline_always, clippy::needless_range_loop)]

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod apply;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod cache;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod engine;
#[cfg(target_arch = "x86_64")]
mod gfni256;
#[cfg(target_arch = "x86_64")]
mod gfni512;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod lane;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod parts;
mod portable;
pub mod shared;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod steps;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod touch;

use std::sync::LazyLock;

use dwk_base::{Error, Result, codes};

use crate::gf;
use crate::matrix::Matrix;
use crate::shared::{Source, Target};

/// The structure that a kernel may exploit; whatever it does, the result is the matrix's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Any matrix.
    Rows,
    /// One row of ones.
    Xor,
    /// A row of ones and the powers of two.
    PlusQ,
    /// Three or four rows of the four-point transform.
    FourPoint,
}

/// A matrix applied to shards: what it is, and the tables a kernel wants for it.
#[derive(Debug)]
pub(crate) struct Transform {
    pub(crate) shape: Shape,
    pub(crate) matrix: Matrix,
    /// Constants to multiply by, in the order in which the shape's loop uses them.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "of x86-64 only"))]
    pub(crate) affine: Vec<u64>,
    pub(crate) nibbles: Vec<[u8; 32]>,
}

impl Transform {
    /// The tables for `matrix`, of which the caller knows the `shape`.
    pub(crate) fn new(matrix: Matrix, shape: Shape) -> Self {
        let ones_first = matrix.rows > 0 && matrix.row(0).iter().all(|&x| x == 1);
        let shape = if matrix.rows == 1 && ones_first { Shape::Xor } else { shape };
        let factors = factors(&matrix, shape);
        let (mut affine, mut nibbles) = (Vec::new(), Vec::new());
        match kernel().tables {
            Tables::None => {}
            Tables::Affine => affine = factors.iter().map(|&c| gf::affine(c)).collect(),
            Tables::Nibbles => nibbles = factors.iter().map(|&c| gf::nibbles(c)).collect(),
        }
        Self { shape, matrix, affine, nibbles }
    }

    /// `targets[r] = Σ matrix[r][j] · sources[j]`, or `+=` if `accumulate`.
    ///
    /// All have one length, and there are as many as the matrix has rows and columns.
    pub(crate) fn apply(
        &self,
        sources: &[Source<'_>],
        targets: &mut [Target<'_>],
        accumulate: bool,
    ) {
        let fits = self.try_apply(sources, targets, accumulate);
        assert!(fits, "the shards have several lengths, or are too many or too few");
    }

    /// As [`Self::apply`]; false, and nothing done, if they are not what it says.
    #[must_use]
    pub(crate) fn try_apply(
        &self,
        sources: &[Source<'_>],
        targets: &mut [Target<'_>],
        accumulate: bool,
    ) -> bool {
        self.apply_with(kernel(), sources, targets, accumulate)
    }

    fn apply_with(
        &self,
        kernel: &Kernel,
        sources: &[Source<'_>],
        targets: &mut [Target<'_>],
        accumulate: bool,
    ) -> bool {
        assert!(!accumulate || matches!(self.shape, Shape::Rows | Shape::Xor));
        // The kernels do their own pointer arithmetic on the strength of these.
        if (targets.len(), sources.len()) != (self.matrix.rows, self.matrix.columns) {
            return false;
        }
        let Some(length) = sources.first().map(Source::len) else { return true };
        let fits = sources.iter().all(|source| source.len() == length)
            && targets.iter().all(|target| target.len() == length);
        if fits && length > 0 && !targets.is_empty() {
            (kernel.apply)(self, sources, targets, accumulate);
        }
        fits
    }
}

fn factors(matrix: &Matrix, shape: Shape) -> Vec<u8> {
    match shape {
        Shape::Xor => Vec::new(),
        Shape::PlusQ => vec![2, 4],
        Shape::FourPoint => four_point_factors(matrix.columns),
        Shape::Rows => (0..matrix.columns)
            .flat_map(|j| (0..matrix.rows).map(move |r| (r, j)))
            .map(|(r, j)| matrix.at(r, j))
            .collect(),
    }
}

/// The twiddle factors of the four-point transform: 2, then three per group of four data shards.
fn four_point_factors(k: usize) -> Vec<u8> {
    let s1 = |x: u8| gf::mul(x, x) ^ x;
    let groups = (0..k.div_ceil(4)).flat_map(|group| {
        let start = 4 * (group as u8 + 1);
        [start, start ^ 2, gf::mul(s1(start), gf::inverse(s1(2)))]
    });
    std::iter::once(2).chain(groups).collect()
}

/// The tables a kernel multiplies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tables {
    None,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "of x86-64 only"))]
    Affine,
    Nibbles,
}

type Apply = fn(&Transform, &[Source<'_>], &mut [Target<'_>], bool);

/// One implementation.
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    pub(crate) tables: Tables,
    /// True if this processor has the instructions.
    pub(crate) runs_here: fn() -> bool,
    /// Lengths and counts were checked by the caller; only called where `runs_here`.
    pub(crate) apply: Apply,
}

/// Best first.
static KERNELS: &[&Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    &gfni512::KERNEL,
    #[cfg(target_arch = "x86_64")]
    &gfni256::KERNEL,
    #[cfg(target_arch = "x86_64")]
    &avx2::KERNEL,
    #[cfg(target_arch = "aarch64")]
    &neon::KERNEL,
    &portable::KERNEL,
];

/// Names the kernel to use; empty is as good as absent.
const VARIABLE: &str = "DWKERNEL_ERASURE_KERNEL";

static CHOICE: LazyLock<Result<&'static Kernel>> = LazyLock::new(|| {
    let wanted = std::env::var_os(VARIABLE).map(|name| name.to_string_lossy().into_owned());
    choose(wanted.as_deref().filter(|name| !name.is_empty()))
});

/// Kernels that this processor can run, best first.
fn here() -> impl Iterator<Item = &'static Kernel> {
    KERNELS.iter().copied().filter(|kernel| (kernel.runs_here)())
}

fn best() -> &'static Kernel {
    here().next().unwrap_or(&portable::KERNEL)
}

fn choose(wanted: Option<&str>) -> Result<&'static Kernel> {
    let Some(wanted) = wanted else { return Ok(best()) };
    here().find(|kernel| kernel.name == wanted).ok_or_else(|| {
        let text = format!(
            "{VARIABLE} is {wanted:?}, and this processor runs only {}",
            names().join(", ")
        );
        Error::new(&codes::STORE_OPTION, text).with("variable", VARIABLE)
    })
}

/// Fails if the environment names a kernel that this processor cannot run.
pub(crate) fn check() -> Result<()> {
    CHOICE.as_ref().map(|_| ()).map_err(Clone::clone)
}

/// The kernel in use.
fn kernel() -> &'static Kernel {
    // After an error there is no code that could use it.
    CHOICE.as_ref().copied().unwrap_or_else(|_| best())
}

/// The name of the kernel in use: `gfni512`, `gfni256`, `avx2`, `neon` or `portable`.
pub fn name() -> &'static str {
    kernel().name
}

/// The kernels that this processor can run, best first.
pub fn names() -> Vec<&'static str> {
    here().map(|kernel| kernel.name).collect()
}

#[cfg(test)]
#[cfg(all(unix, not(miri)))]
mod fence_tests;
#[cfg(test)]
mod tests;
