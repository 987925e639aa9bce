//! The loops, written once over a [`Lane`]: a vector register and what the processor does with it.
//!
//! What made them fast, largest first: one load instruction per shard (`K` is a constant and the loop
//! over shards is unrolled; otherwise it descends, because a rolled ascending loop mistrains the stride
//! prefetcher); non-temporal stores when the stripe is larger than the second-level cache, and only then;
//! the four-point transform in registers; three-way exclusive or; two cache lines per source where
//! everything fits the first-level cache, one beyond, but for loops that load a factor per shard.

use std::marker::PhantomData;

use super::{Transform, cache};

/// A vector register.
///
/// # Safety
/// All methods need the instructions of the implementing lane; pointers must be valid for the bytes named.
pub(super) unsafe trait Lane {
    type V: Copy;
    type Factor: Copy;
    /// Bytes in a register, a power of two ≤ 64.
    const BYTES: usize;
    unsafe fn zero() -> Self::V;
    unsafe fn load(from: *const u8) -> Self::V;
    unsafe fn store(to: *mut u8, value: Self::V);
    /// A store that goes around the caches; `to` is aligned to `BYTES`.
    unsafe fn stream(to: *mut u8, value: Self::V);
    /// Orders streamed stores before what follows.
    unsafe fn fence();
    unsafe fn xor(a: Self::V, b: Self::V) -> Self::V;
    #[inline(always)]
    unsafe fn xor3(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the caller has the lane's instructions.
        unsafe { Self::xor(Self::xor(a, b), c) }
    }
    /// The transform's `index`-th factor, ready to multiply with; `index` is within its tables.
    unsafe fn factor(transform: &Transform, index: usize) -> Self::Factor;
    unsafe fn mul(value: Self::V, factor: Self::Factor) -> Self::V;
    /// The first `count < BYTES` bytes, the rest zero.
    #[inline(always)]
    unsafe fn load_part(from: *const u8, count: usize) -> Self::V {
        let mut whole = [0u8; 64];
        // SAFETY: `count` bytes are readable, and less than the buffer.
        unsafe {
            std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), count);
            Self::load(whole.as_ptr())
        }
    }
    /// Stores the first `count < BYTES` bytes.
    #[inline(always)]
    unsafe fn store_part(to: *mut u8, value: Self::V, count: usize) {
        let mut whole = [0u8; 64];
        // SAFETY: `count` bytes are writable, and less than the buffer.
        unsafe {
            Self::store(whole.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(whole.as_ptr(), to, count);
        }
    }
}

/// How a step touches memory.
pub(super) const PLAIN: u8 = 0;
pub(super) const STREAM: u8 = 1;
pub(super) const PART: u8 = 2;

#[inline(always)]
unsafe fn load<L: Lane, const MODE: u8>(from: *const u8, count: usize) -> L::V {
    // SAFETY: the step's range lies within the shard.
    unsafe { if MODE == PART { L::load_part(from, count) } else { L::load(from) } }
}

#[inline(always)]
unsafe fn store<L: Lane, const MODE: u8>(to: *mut u8, value: L::V, count: usize) {
    // SAFETY: as for `load`; streams start at an aligned address.
    unsafe {
        match MODE {
            PART => L::store_part(to, value, count),
            STREAM => L::stream(to, value),
            _ => L::store(to, value),
        }
    }
}

/// Sources and targets of equal length, as addresses. `K` sources, or any number if `K` is 0.
pub(super) struct Shards<'a, const K: usize, const M: usize> {
    fixed: [*const u8; K],
    any: &'a [&'a [u8]],
    targets: [*mut u8; M],
    length: usize,
}

impl<'a, const K: usize, const M: usize> Shards<'a, K, M> {
    #[inline(always)]
    pub(super) fn new(sources: &'a [&'a [u8]], targets: &mut [&mut [u8]]) -> Self {
        debug_assert!(K == 0 || K == sources.len());
        debug_assert!(M == targets.len());
        Self {
            fixed: std::array::from_fn(|j| sources[j].as_ptr()),
            any: sources,
            length: targets[0].len(),
            targets: std::array::from_fn(|r| targets[r].as_mut_ptr()),
        }
    }

    /// The same shards, their number not known at compile time.
    #[inline(always)]
    fn rolled(&self) -> Shards<'a, 0, M> {
        Shards { fixed: [], any: self.any, targets: self.targets, length: self.length }
    }

    #[inline(always)]
    fn count(&self) -> usize {
        if K == 0 { self.any.len() } else { K }
    }

    /// # Safety
    /// `j` is below the count and `at` within the length.
    #[inline(always)]
    unsafe fn source(&self, j: usize, at: usize) -> *const u8 {
        // SAFETY: the caller's promise.
        unsafe {
            let start = if K == 0 { self.any.get_unchecked(j).as_ptr() } else { self.fixed[j] };
            start.add(at)
        }
    }

    /// # Safety
    /// `at` is within the length.
    #[inline(always)]
    unsafe fn target(&self, r: usize, at: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.targets[r].add(at) }
    }

    /// Bytes before the targets' common alignment to `bytes`, or none if they have none in common.
    #[inline(always)]
    fn head(&self, bytes: usize) -> Option<usize> {
        let offset = |target: *mut u8| target as usize & (bytes - 1);
        let first = offset(*self.targets.first()?);
        let common = self.targets.iter().all(|&target| offset(target) == first);
        common.then_some((bytes - first) & (bytes - 1))
    }
}

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

/// One step of a loop: `V` registers of every shard from `at` on, or `count` bytes of one (`PART`).
pub(super) trait Step<L: Lane> {
    /// Up to this many bytes of a stripe, steps take two registers per shard.
    const TWO_LINES_BYTES_MAX: usize = LEVEL1_BYTES;
    /// Streams four registers of each shard in turn: worth it where there is little to compute, so that the
    /// third-level cache is asked for longer runs (xor of 8 shards of 1 MiB on Zen 5: 118 beside 105 GB/s).
    const STREAMS_FOUR: bool = false;
    /// # Safety
    /// The range lies within the shards; the lane's instructions are there.
    unsafe fn step<const V: usize, const MODE: u8>(&self, at: usize, count: usize);
}

/// Steps over whole registers from `at` on; returns where fewer than a step's bytes are left.
///
/// # Safety
/// The lane's instructions are there; the shards have at least `length` bytes.
#[inline(always)]
unsafe fn bulk<L: Lane, S: Step<L>, const V: usize, const MODE: u8>(
    step: &S,
    mut at: usize,
    length: usize,
) -> usize {
    while at + V * L::BYTES <= length {
        // SAFETY: the range was checked against the length.
        unsafe { step.step::<V, MODE>(at, 0) };
        at += V * L::BYTES;
    }
    at
}

/// What lies in the first-level cache beside everything else.
const LEVEL1_BYTES: usize = 40 << 10;

/// Walks `step` over all bytes of the shards, streaming if the stripe outgrows the cache and its targets
/// are aligned alike; `rests` does the same for what is less than a register. `accumulate`: the targets are read too, so that streaming would not pay.
///
/// # Safety
/// The lane's instructions are there.
#[inline(always)]
unsafe fn run<L: Lane, S: Step<L>, R: Step<L>, const K: usize, const M: usize>(
    step: &S,
    rests: &R,
    shards: &Shards<'_, K, M>,
    accumulate: bool,
    wide: bool,
) {
    let length = shards.length;
    let stripe = (shards.count() + M) * length;
    let large = stripe > cache::level2_bytes() && !accumulate;
    let head = if large { shards.head(L::BYTES) } else { None };
    // SAFETY: `bulk` stays within the length, and so do the two rests.
    unsafe {
        let (start, end) = if let Some(head) = head {
            let start = head.min(length);
            let four = S::STREAMS_FOUR && wide;
            let end = if four { bulk::<L, S, 4, STREAM>(step, start, length) } else { start };
            let end = bulk::<L, S, 1, STREAM>(step, end, length);
            L::fence();
            (start, end)
        } else {
            let two = wide && stripe <= S::TWO_LINES_BYTES_MAX;
            let end = if two { bulk::<L, S, 2, PLAIN>(step, 0, length) } else { 0 };
            (0, bulk::<L, S, 1, PLAIN>(step, end, length))
        };
        for (at, count) in [(0, start), (end, length - end)] {
            if count > 0 {
                rests.step::<1, PART>(at, count);
            }
        }
    }
}

/// The sum of all sources.
pub(super) struct Xor<'a, const K: usize> {
    shards: Shards<'a, K, 1>,
    accumulate: bool,
}

impl<L: Lane, const K: usize> Step<L> for Xor<'_, K> {
    const STREAMS_FOUR: bool = true;

    #[inline(always)]
    unsafe fn step<const V: usize, const MODE: u8>(&self, at: usize, count: usize) {
        // SAFETY: the step's range lies within the shards.
        unsafe {
            let k = self.shards.count();
            let mut sum = [L::zero(); V];
            if self.accumulate {
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
                        let b = load::<L, MODE>(self.shards.source($j + 1, here), count);
                        sum[v] = L::xor3(sum[v], a, b);
                    }
                };
            }
            if k % 2 == 1 {
                for v in 0..V {
                    let here = self.shards.source(k - 1, at + v * L::BYTES);
                    sum[v] = L::xor(sum[v], load::<L, MODE>(here, count));
                }
            }
            if K == 0 {
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
pub(super) struct PlusQ<'a, L: Lane, const K: usize> {
    pub(super) shards: Shards<'a, K, 2>,
    pub(super) two: L::Factor,
    pub(super) four: L::Factor,
}

impl<L: Lane, const K: usize> Step<L> for PlusQ<'_, L, K> {
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
            if K == 0 {
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
pub(super) struct FourPoint<'a, L: Lane, const K: usize, const M: usize> {
    pub(super) shards: Shards<'a, K, M>,
    pub(super) transform: &'a Transform,
    pub(super) lane: PhantomData<L>,
}

impl<L: Lane, const K: usize, const M: usize> Step<L> for FourPoint<'_, L, K, M> {
    // Factors are loaded once for both.
    const TWO_LINES_BYTES_MAX: usize = usize::MAX;

    #[inline(always)]
    unsafe fn step<const V: usize, const MODE: u8>(&self, at: usize, count: usize) {
        // SAFETY: the step's range lies within the shards; there are three factors per group and one.
        unsafe {
            let k = self.shards.count();
            let mut c = [[L::zero(); V]; 4];
            macro_rules! group {
                ($g:expr, $present:expr) => {{
                    let (g, present): (usize, usize) = ($g, $present);
                    let low = L::factor(self.transform, 1 + 3 * g);
                    let high = L::factor(self.transform, 2 + 3 * g);
                    let cross = L::factor(self.transform, 3 + 3 * g);
                    for v in 0..V {
                        let here = at + v * L::BYTES;
                        let get =
                            |i: usize| load::<L, MODE>(self.shards.source(4 * g + i, here), count);
                        let e0 = get(0);
                        let a1 = if present > 1 { L::xor(e0, get(1)) } else { e0 };
                        let a0 = L::xor(e0, L::mul(a1, low));
                        let (d2, d3) = match present {
                            4 => {
                                let (e2, e3) = (get(2), get(3));
                                let b1 = L::xor(e2, e3);
                                (L::xor3(a0, e2, L::mul(b1, high)), L::xor(a1, b1))
                            }
                            3 => {
                                let e2 = get(2);
                                (L::xor3(a0, e2, L::mul(e2, high)), L::xor(a1, e2))
                            }
                            _ => (a0, a1),
                        };
                        c[0][v] = L::xor3(c[0][v], a0, L::mul(d2, cross));
                        c[1][v] = L::xor3(c[1][v], a1, L::mul(d3, cross));
                        c[2][v] = L::xor(c[2][v], d2);
                        c[3][v] = L::xor(c[3][v], d3);
                    }
                }};
            }
            if K == 0 {
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
            let two = L::factor(self.transform, 0);
            for v in 0..V {
                let here = at + v * L::BYTES;
                let [c0, c1, c2, c3] = [c[0][v], c[1][v], c[2][v], c[3][v]];
                let b1 = L::xor(c1, c3);
                let r2 = L::xor3(c0, c2, L::mul(b1, two));
                let results = [c0, L::xor(c0, c1), r2, L::xor(r2, b1)];
                for r in 0..M {
                    store::<L, MODE>(self.shards.target(r, here), results[r], count);
                }
            }
        }
    }
}

/// `M` rows of any matrix from row `first` on.
pub(super) struct Rows<'a, L: Lane, const M: usize> {
    pub(super) shards: Shards<'a, 0, M>,
    pub(super) transform: &'a Transform,
    pub(super) first: usize,
    pub(super) accumulate: bool,
    pub(super) lane: PhantomData<L>,
}

impl<L: Lane, const M: usize> Step<L> for Rows<'_, L, M> {
    // Factors are loaded once for both.
    const TWO_LINES_BYTES_MAX: usize = usize::MAX;

    #[inline(always)]
    unsafe fn step<const V: usize, const MODE: u8>(&self, at: usize, count: usize) {
        // SAFETY: the step's range lies within the shards; there is a factor per row and source.
        unsafe {
            let (k, stride) = (self.shards.count(), self.transform.matrix.rows);
            let mut sums = [[L::zero(); V]; M];
            if self.accumulate {
                for r in 0..M {
                    for v in 0..V {
                        let here = self.shards.target(r, at + v * L::BYTES);
                        sums[r][v] = load::<L, MODE>(here, count);
                    }
                }
            }
            let factor =
                |j: usize, r: usize| L::factor(self.transform, j * stride + self.first + r);
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
            for pair in (0..k / 2).rev() {
                pair!(2 * pair);
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

/// # Safety
/// The lane's instructions are there; `apply`'s promises hold; the shape is `Xor`.
#[inline(always)]
pub(super) unsafe fn xor<L: Lane, const K: usize>(
    sources: &[&[u8]],
    targets: &mut [&mut [u8]],
    accumulate: bool,
    wide: bool,
) {
    let step = Xor::<K> { shards: Shards::new(sources, targets), accumulate };
    let rests = Xor::<0> { shards: step.shards.rolled(), accumulate };
    // SAFETY: passed on.
    unsafe { run::<L, _, _, K, 1>(&step, &rests, &step.shards, accumulate, wide) }
}

/// # Safety
/// As for [`xor`], with the shape `PlusQ`.
#[inline(always)]
pub(super) unsafe fn plus_q<L: Lane, const K: usize>(
    transform: &Transform,
    sources: &[&[u8]],
    targets: &mut [&mut [u8]],
    wide: bool,
) {
    // SAFETY: passed on; the shape has two factors.
    unsafe {
        let (two, four) = (L::factor(transform, 0), L::factor(transform, 1));
        let step = PlusQ::<L, K> { shards: Shards::new(sources, targets), two, four };
        let rests = PlusQ::<L, 0> { shards: step.shards.rolled(), two, four };
        run::<L, _, _, K, 2>(&step, &rests, &step.shards, false, wide);
    }
}

/// # Safety
/// As for [`xor`], with the shape `FourPoint` and `M` rows.
#[inline(always)]
pub(super) unsafe fn four_point<L: Lane, const K: usize, const M: usize>(
    transform: &Transform,
    sources: &[&[u8]],
    targets: &mut [&mut [u8]],
    wide: bool,
) {
    let shards = Shards::new(sources, targets);
    let step = FourPoint::<L, K, M> { shards, transform, lane: PhantomData };
    let shards = step.shards.rolled();
    let rests = FourPoint::<L, 0, M> { shards, transform, lane: PhantomData };
    // SAFETY: passed on.
    unsafe { run::<L, _, _, K, M>(&step, &rests, &step.shards, false, wide) }
}

/// # Safety
/// As for [`xor`], with the shape `Rows`; there are `M` rows from `first` on.
#[inline(always)]
pub(super) unsafe fn rows<L: Lane, const M: usize>(
    transform: &Transform,
    first: usize,
    sources: &[&[u8]],
    targets: &mut [&mut [u8]],
    accumulate: bool,
    wide: bool,
) {
    let shards = Shards::new(sources, targets);
    let step = Rows::<L, M> { shards, transform, first, accumulate, lane: PhantomData };
    // SAFETY: passed on.
    unsafe { run::<L, _, _, 0, M>(&step, &step, &step.shards, accumulate, wide) }
}
