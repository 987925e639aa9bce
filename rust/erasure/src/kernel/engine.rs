//! The walk over a stripe: shards as addresses, and a step repeated over their bytes.
//!
//! What made it fast, largest first: one load instruction per shard (`K` is a constant and the loop
//! over shards is unrolled; otherwise it descends, because a rolled ascending loop mistrains the stride
//! prefetcher); non-temporal stores when the stripe is larger than the second-level cache, and only then;
//! few sources at a time while it is in there ([`super::parts`]); two cache lines per source where
//! everything fits the first-level cache, and where a factor is loaded for each shard.

use super::lane::{Lane, PART, PLAIN, STREAM};
use super::parts::{Span, Walk};
use super::touch::At;
use crate::shared::{Source, Target};

/// Sources and targets of equal length, as addresses. `K` sources, or any number if `K` is 0.
pub(super) struct Shards<'a, const K: usize, const M: usize> {
    fixed: [*const u8; K],
    any: &'a [Source<'a>],
    targets: [*mut u8; M],
}

impl<'a, const K: usize, const M: usize> Shards<'a, K, M> {
    #[inline(always)]
    pub(super) fn new(sources: &'a [Source<'_>], targets: &mut [Target<'_>]) -> Self {
        debug_assert!(K == 0 || K == sources.len());
        debug_assert!(M == targets.len());
        Self {
            fixed: std::array::from_fn(|j| sources[j].start()),
            any: sources,
            targets: std::array::from_fn(|r| targets[r].start()),
        }
    }

    /// The same shards, their number not known at compile time.
    #[inline(always)]
    pub(super) fn rolled(&self) -> Shards<'a, 0, M> {
        Shards { fixed: [], any: self.any, targets: self.targets }
    }

    #[inline(always)]
    pub(super) fn count(&self) -> usize {
        if K == 0 { self.any.len() } else { K }
    }

    /// # Safety
    /// `j` is below the count and `at` within the length.
    #[inline(always)]
    pub(super) unsafe fn source(&self, j: usize, at: usize) -> At {
        // SAFETY: the caller's promise.
        unsafe {
            let start = if K == 0 { self.any.get_unchecked(j).start() } else { self.fixed[j] };
            At { base: start.cast_mut(), index: at }
        }
    }

    /// # Safety
    /// `at` is within the length.
    #[inline(always)]
    pub(super) unsafe fn target(&self, r: usize, at: usize) -> At {
        At { base: self.targets[r], index: at }
    }
}

/// One step of a loop: `V` registers of every shard from `at` on, or `count` bytes of one (`PART`).
pub(super) trait Step<L: Lane> {
    /// Steps take two registers of each shard wherever the stripe is, not only in the first-level cache.
    const ALWAYS_TWO: bool = false;
    /// Two registers of each shard are few enough for every lane, also for one without [`Lane::MANY`].
    const NARROW: bool = false;
    /// Streams four registers of each shard in turn: worth it where there is little to compute, so that the
    /// third-level cache is asked for longer runs (xor of 8 shards of 1 MiB on Zen 5: 118 beside 105 GB/s).
    const STREAMS_FOUR: bool = false;
    /// Only streams are walked with it, so that there is less of it to compile.
    const STREAMS_ONLY: bool = false;
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

/// Walks `step` over some bytes of the shards; `rests` does the same for what is less than a register.
///
/// # Safety
/// The lane's instructions are there; the span lies within the shards.
#[inline(always)]
pub(super) unsafe fn run<L: Lane, S: Step<L>, R: Step<L>>(step: &S, rests: &R, span: Span) {
    let (from, to) = (span.from, span.to);
    // SAFETY: `bulk` stays within the span, and so do the two rests.
    unsafe {
        let (start, end) = match span.walk {
            Walk::Stream { aligned_at } => {
                let start = aligned_at.min(to);
                let mut end = start;
                if const { S::STREAMS_FOUR && L::MANY } {
                    end = bulk::<L, S, 4, STREAM>(step, end, to);
                }
                end = bulk::<L, S, 1, STREAM>(step, end, to);
                L::fence();
                (start, end)
            }
            _ if const { S::STREAMS_ONLY } => unreachable!("these steps were made for streams"),
            walk => {
                let mut end = from;
                if const { L::MANY || S::NARROW } && (S::ALWAYS_TWO || walk == Walk::Small) {
                    end = bulk::<L, S, 2, PLAIN>(step, end, to);
                }
                (from, bulk::<L, S, 1, PLAIN>(step, end, to))
            }
        };
        for (at, count) in [(from, start - from), (end, to - end)] {
            if count > 0 {
                rests.step::<1, PART>(at, count);
            }
        }
    }
}
