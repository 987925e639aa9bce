//! What is computed for each register: sums, P and Q, the four-point transform, rows of any matrix.

use super::Transform;
use super::engine::{Shards, Step, run};
use super::lane::{Lane, add, add3, load, store};
use super::parts::Span;
use crate::shared::{Source, Target};

/// Calls the body for each index below a constant ≤ 10, one copy of the code per index.
macro_rules! each {
    ($k:expr, $j:ident, $body:block) => {
        each!(@ $k, $j, $body, 0 1 2 3 4 5 6 7 8 9)
    };
    (@ $k:expr, $j:ident, $body:block, $($n:literal)*) => {
        $(if const { $n < $k } { let $j: usize = $n; $body })*
    };
}

/// Calls the body for each index below a constant ≤ 5.
macro_rules! each_group {
    ($k:expr, $j:ident, $body:block) => { each!(@ $k, $j, $body, 0 1 2 3 4) };
}

/// The sum of all sources.
struct Xor<'a, const K: usize, const ONTO: bool> {
    shards: Shards<'a, K, 1>,
}

impl<L: Lane, const K: usize, const ONTO: bool> Step<L> for Xor<'_, K, ONTO> {
    const STREAMS_FOUR: bool = true;

    #[inline(always)]
    unsafe fn step<const V: usize, const MODE: u8>(&self, at: usize, count: usize) {
        // SAFETY: the step's range lies within the shards.
        unsafe {
            let k = self.shards.count();
            let mut sum = [L::zero(); V];
            if ONTO {
                for v in 0..V {
                    let here = self.shards.target(0, at + v * L::BYTES);
                    sum[v] = load::<L, MODE>(here, count);
                }
            }
            macro_rules! pair {
                ($j:expr) => {
                    for v in 0..V {
                        let here = at + v * L::BYTES;
                        let a = load::<L, MODE>(self.shards.source($j, here), count);
                        let b = self.shards.source($j + 1, here);
                        sum[v] = add3::<L, MODE>(sum[v], a, b, count);
                    }
                };
            }
            if k % 2 == 1 {
                for v in 0..V {
                    let here = self.shards.source(k - 1, at + v * L::BYTES);
                    sum[v] = add::<L, MODE>(sum[v], here, count);
                }
            }
            if const { K == 0 } {
                for pair in (0..k / 2).rev() {
                    pair!(2 * pair);
                }
            } else {
                each!(K / 2, pair, { pair!(2 * pair) });
            }
            for v in 0..V {
                store::<L, MODE>(self.shards.target(0, at + v * L::BYTES), sum[v], count);
            }
        }
    }
}

/// P and Q by Horner's rule, two shards at a time: Q ← 4·Q + 2·(upper) + lower.
struct PlusQ<'a, L: Lane, const K: usize, const ONTO: bool> {
    shards: Shards<'a, K, 2>,
    two: L::Factor,
    four: L::Factor,
}

impl<L: Lane, const K: usize, const ONTO: bool> Step<L> for PlusQ<'_, L, K, ONTO> {
    const ALWAYS_TWO: bool = L::WIDE;

    #[inline(always)]
    unsafe fn step<const V: usize, const MODE: u8>(&self, at: usize, count: usize) {
        // SAFETY: the step's range lies within the shards.
        unsafe {
            let k = self.shards.count();
            let mut p = [L::zero(); V];
            if k % 2 == 1 {
                for v in 0..V {
                    p[v] = load::<L, MODE>(self.shards.source(k - 1, at + v * L::BYTES), count);
                }
            }
            let mut q = p;
            if ONTO {
                // Only the topmost group has an odd number of shards.
                for v in 0..V {
                    p[v] = load::<L, MODE>(self.shards.target(0, at + v * L::BYTES), count);
                    q[v] = load::<L, MODE>(self.shards.target(1, at + v * L::BYTES), count);
                }
            }
            macro_rules! pair {
                ($j:expr) => {
                    for v in 0..V {
                        let here = at + v * L::BYTES;
                        let upper = load::<L, MODE>(self.shards.source($j + 1, here), count);
                        let lower = load::<L, MODE>(self.shards.source($j, here), count);
                        p[v] = L::xor3(p[v], upper, lower);
                        let twice = L::mul(upper, self.two);
                        q[v] = L::xor3(L::mul(q[v], self.four), twice, lower);
                    }
                };
            }
            if const { K == 0 } {
                for pair in (0..k / 2).rev() {
                    pair!(2 * pair);
                }
            } else {
                each!(K / 2, pair, { pair!(2 * (K / 2 - 1 - pair)) });
            }
            for v in 0..V {
                store::<L, MODE>(self.shards.target(0, at + v * L::BYTES), p[v], count);
                store::<L, MODE>(self.shards.target(1, at + v * L::BYTES), q[v], count);
            }
        }
    }
}

/// Three or four parities by an additive transform of four points (after Lin, Chung and Han): each
/// group of four data shards is brought to the coefficients of its polynomial, these are summed, and the
/// sum is evaluated at the four parity points. Missing shards of the last group are zero.
struct FourPoint<'a, L: Lane, const K: usize, const M: usize, const ONTO: bool> {
    shards: Shards<'a, K, M>,
    /// Three for each four shards.
    factors: *const L::Entry,
    two: L::Factor,
}

impl<L: Lane, const K: usize, const M: usize, const ONTO: bool> Step<L>
    for FourPoint<'_, L, K, M, ONTO>
{
    // Factors are loaded once for both.
    const ALWAYS_TWO: bool = true;

    #[inline(always)]
    unsafe fn step<const V: usize, const MODE: u8>(&self, at: usize, count: usize) {
        // SAFETY: the step's range lies within the shards; there are three factors per group and one.
        unsafe {
            let k = self.shards.count();
            let mut c = [[L::zero(); V]; 4];
            macro_rules! group {
                ($g:expr, $present:expr) => {{
                    let (g, present): (usize, usize) = ($g, $present);
                    let low = L::factor(self.factors.add(3 * g));
                    let high = L::factor(self.factors.add(3 * g + 1));
                    let cross = L::factor(self.factors.add(3 * g + 2));
                    for v in 0..V {
                        let here = at + v * L::BYTES;
                        let at = |i: usize| self.shards.source(4 * g + i, here);
                        let get = |i: usize| load::<L, MODE>(at(i), count);
                        let plus = |e: L::V, i: usize| add::<L, MODE>(e, at(i), count);
                        let e0 = get(0);
                        let a1 = if present > 1 { plus(e0, 1) } else { e0 };
                        let a0 = L::xor(e0, L::mul(a1, low));
                        let (d2, d3) = if present > 2 {
                            let e2 = get(2);
                            let b1 = if present > 3 { plus(e2, 3) } else { e2 };
                            (L::xor3(a0, e2, L::mul(b1, high)), L::xor(a1, b1))
                        } else {
                            (a0, a1)
                        };
                        c[0][v] = L::xor3(c[0][v], a0, L::mul(d2, cross));
                        c[1][v] = L::xor3(c[1][v], a1, L::mul(d3, cross));
                        c[2][v] = L::xor(c[2][v], d2);
                        c[3][v] = L::xor(c[3][v], d3);
                    }
                }};
            }
            if const { K == 0 } {
                match k % 4 {
                    0 => {}
                    1 => group!(k / 4, 1),
                    2 => group!(k / 4, 2),
                    _ => group!(k / 4, 3),
                }
                for g in (0..k / 4).rev() {
                    group!(g, 4);
                }
            } else {
                each_group!(K / 4, g, { group!(g, 4) });
                if !K.is_multiple_of(4) {
                    group!(K / 4, K % 4);
                }
            }
            for v in 0..V {
                let here = at + v * L::BYTES;
                let [c0, c1, c2, c3] = [c[0][v], c[1][v], c[2][v], c[3][v]];
                let b1 = L::xor(c1, c3);
                let r2 = L::xor3(c0, c2, L::mul(b1, self.two));
                let results = [c0, L::xor(c0, c1), r2, L::xor(r2, b1)];
                for r in 0..M {
                    let target = self.shards.target(r, here);
                    let mut result = results[r];
                    if ONTO {
                        result = add::<L, MODE>(result, target, count);
                    }
                    store::<L, MODE>(target, result, count);
                }
            }
        }
    }
}

/// `M` rows of any matrix.
struct Rows<'a, L: Lane, const K: usize, const M: usize> {
    shards: Shards<'a, K, M>,
    /// A column of the matrix after the other, from one of the tile's rows to that of the next.
    factors: *const L::Entry,
    /// From a column to the next.
    stride: usize,
    accumulate: bool,
}

impl<L: Lane, const K: usize, const M: usize> Step<L> for Rows<'_, L, K, M> {
    // Factors are loaded once for both. With avx2's 16 registers 2 rows gain 20 % (Zen 5), 4 lose 10 %.
    const ALWAYS_TWO: bool = true;
    const NARROW: bool = M <= 2;
    const STREAMS_ONLY: bool = K != 0;

    #[inline(always)]
    unsafe fn step<const V: usize, const MODE: u8>(&self, at: usize, count: usize) {
        // SAFETY: the step's range lies within the shards; there is a factor per row and source.
        unsafe {
            let k = self.shards.count();
            let mut sums = [[L::zero(); V]; M];
            if self.accumulate {
                for r in 0..M {
                    for v in 0..V {
                        let here = self.shards.target(r, at + v * L::BYTES);
                        sums[r][v] = load::<L, MODE>(here, count);
                    }
                }
            }
            let factor = |j: usize, r: usize| L::factor(self.factors.add(j * self.stride + r));
            macro_rules! pair {
                ($j:expr) => {{
                    let j: usize = $j;
                    for v in 0..V {
                        let here = at + v * L::BYTES;
                        let a = load::<L, MODE>(self.shards.source(j, here), count);
                        let b = load::<L, MODE>(self.shards.source(j + 1, here), count);
                        for r in 0..M {
                            let (x, y) = (L::mul(a, factor(j, r)), L::mul(b, factor(j + 1, r)));
                            sums[r][v] = L::xor3(sums[r][v], x, y);
                        }
                    }
                }};
            }
            if k % 2 == 1 {
                for v in 0..V {
                    let a = load::<L, MODE>(self.shards.source(k - 1, at + v * L::BYTES), count);
                    for r in 0..M {
                        sums[r][v] = L::xor(sums[r][v], L::mul(a, factor(k - 1, r)));
                    }
                }
            }
            if const { K == 0 } {
                for pair in (0..k / 2).rev() {
                    pair!(2 * pair);
                }
            } else {
                each!(K / 2, pair, { pair!(2 * pair) });
            }
            for r in 0..M {
                for v in 0..V {
                    let here = self.shards.target(r, at + v * L::BYTES);
                    store::<L, MODE>(here, sums[r][v], count);
                }
            }
        }
    }
}

/// `M` rows of any matrix for `K` sources whose factors stay in registers.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "of x86-64 only"))]
struct Tile<'a, L: Lane, const K: usize, const M: usize, const ONTO: bool> {
    shards: Shards<'a, K, M>,
    factors: [[L::Factor; M]; K],
}

impl<L: Lane, const K: usize, const M: usize, const ONTO: bool> Step<L>
    for Tile<'_, L, K, M, ONTO>
{
    #[inline(always)]
    unsafe fn step<const V: usize, const MODE: u8>(&self, at: usize, count: usize) {
        // SAFETY: the step's range lies within the shards.
        unsafe {
            for v in 0..V {
                let here = at + v * L::BYTES;
                let mut sums = [L::zero(); M];
                if ONTO {
                    for r in 0..M {
                        sums[r] = load::<L, MODE>(self.shards.target(r, here), count);
                    }
                }
                for j in (0..K - K % 2).step_by(2) {
                    let a = load::<L, MODE>(self.shards.source(j, here), count);
                    let b = load::<L, MODE>(self.shards.source(j + 1, here), count);
                    for r in 0..M {
                        let x = L::mul(a, self.factors[j][r]);
                        sums[r] = L::xor3(sums[r], x, L::mul(b, self.factors[j + 1][r]));
                    }
                }
                if K % 2 == 1 {
                    let a = load::<L, MODE>(self.shards.source(K - 1, here), count);
                    for r in 0..M {
                        sums[r] = L::xor(sums[r], L::mul(a, self.factors[K - 1][r]));
                    }
                }
                for r in 0..M {
                    store::<L, MODE>(self.shards.target(r, here), sums[r], count);
                }
            }
        }
    }
}

/// # Safety
/// The lane's instructions are there; the span lies within the shards; there are `K` sources if `K` is not
/// 0. Here and below the transform has the shape, and as many rows as there are targets. With `ONTO` the
/// targets hold what is to be added to.
#[inline(always)]
pub(super) unsafe fn xor<L: Lane, const K: usize, const ONTO: bool>(
    sources: &[Source<'_>],
    targets: &mut [Target<'_>],
    span: Span,
) {
    let step = Xor::<K, ONTO> { shards: Shards::new(sources, targets) };
    let rests = Xor::<0, ONTO> { shards: step.shards.rolled() };
    // SAFETY: passed on.
    unsafe { run::<L, _, _>(&step, &rests, span) }
}

/// With `ONTO` the targets hold P and Q of the sources above these.
///
/// # Safety
/// As for [`xor`].
#[inline(always)]
pub(super) unsafe fn plus_q<L: Lane, const K: usize, const ONTO: bool>(
    transform: &Transform,
    sources: &[Source<'_>],
    targets: &mut [Target<'_>],
    span: Span,
) {
    const { assert!(!ONTO || K.is_multiple_of(2)) };
    // SAFETY: passed on; the shape has two factors.
    unsafe {
        let factors = L::table(transform).as_ptr();
        let (two, four) = (L::factor(factors), L::factor(factors.add(1)));
        let shards = Shards::new(sources, targets);
        let step = PlusQ::<L, K, ONTO> { shards, two, four };
        let rests = PlusQ::<L, 0, ONTO> { shards: step.shards.rolled(), two, four };
        run::<L, _, _>(&step, &rests, span);
    }
}

/// `first` is the number of the first source, a multiple of four.
///
/// # Safety
/// As for [`xor`].
#[inline(always)]
pub(super) unsafe fn four_point<L: Lane, const K: usize, const M: usize, const ONTO: bool>(
    transform: &Transform,
    first: usize,
    sources: &[Source<'_>],
    targets: &mut [Target<'_>],
    span: Span,
) {
    // SAFETY: passed on; the shape has a factor, and three for each four sources.
    unsafe {
        let table = L::table(transform).as_ptr();
        let (two, factors) = (L::factor(table), table.add(1 + first / 4 * 3));
        let shards = Shards::new(sources, targets);
        let step = FourPoint::<L, K, M, ONTO> { shards, factors, two };
        let shards = step.shards.rolled();
        let rests = FourPoint::<L, 0, M, ONTO> { shards, factors, two };
        run::<L, _, _>(&step, &rests, span);
    }
}

/// The targets are those of `M` rows; `first` is the place of the first row and source in the matrix.
///
/// # Safety
/// As for [`xor`].
#[inline(always)]
pub(super) unsafe fn rows<L: Lane, const K: usize, const M: usize>(
    transform: &Transform,
    (row, first): (usize, usize),
    sources: &[Source<'_>],
    targets: &mut [Target<'_>],
    accumulate: bool,
    span: Span,
) {
    let stride = transform.matrix.rows;
    // SAFETY: passed on; there is a factor per row and source.
    unsafe {
        let factors = L::table(transform).as_ptr().add(first * stride + row);
        let shards = Shards::new(sources, targets);
        let step = Rows::<L, K, M> { shards, factors, stride, accumulate };
        let rests = Rows::<L, 0, M> { shards: step.shards.rolled(), factors, stride, accumulate };
        run::<L, _, _>(&step, &rests, span);
    }
}

/// [`rows`] of few sources.
///
/// # Safety
/// As for [`rows`].
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "of x86-64 only"))]
#[inline(always)]
pub(super) unsafe fn tile<L: Lane, const K: usize, const M: usize, const ONTO: bool>(
    transform: &Transform,
    (row, first): (usize, usize),
    sources: &[Source<'_>],
    targets: &mut [Target<'_>],
    span: Span,
) {
    let stride = transform.matrix.rows;
    // SAFETY: passed on; there is a factor per row and source.
    unsafe {
        let table = L::table(transform).as_ptr().add(first * stride + row);
        let factor = |j: usize, r: usize| L::factor(table.add(j * stride + r));
        let factors = std::array::from_fn(|j| std::array::from_fn(|r| factor(j, r)));
        let step = Tile::<L, K, M, ONTO> { shards: Shards::new(sources, targets), factors };
        run::<L, _, _>(&step, &step, span);
    }
}
