//! In which parts a stripe is computed.
//!
//! A stripe that outgrows the second-level cache is read once, from all sources at a time, and its targets
//! are streamed past the caches. One that fits the first-level cache is computed in one go, too. In
//! between, few sources at a time are faster than many: groups of them are added, one after the other, to
//! blocks of the targets that stay in the first-level cache (P+Q of 16 sources of 4 KiB on Zen 5: 8 and 8
//! at 150 GB/s, all at once at 117).

use super::cache;
use crate::shared::Target;

/// Sources of a group.
pub(super) const GROUP: usize = 8;
/// Fewer sources at a time than this are not worth adding to the targets.
const TILE_MIN: usize = 4;
/// What lies in the first-level cache beside everything else.
const LEVEL1_BYTES: usize = 40 << 10;
/// How much of each shard is computed before the next group's turn.
const BLOCK_BYTES: usize = 4 << 10;

/// Groups of sources.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    /// How many sources, in all but the topmost one.
    size: usize,
    /// So few are no topmost group of their own.
    few: usize,
    /// They are worth it in the first-level cache, too.
    always: bool,
}

impl Groups {
    /// All sources at a time.
    pub(super) const NONE: Self = Self { size: usize::MAX, few: 0, always: false };
    /// For the sake of the second-level cache; they begin at multiples of four.
    pub(super) const FOR_CACHE: Self = Self { size: GROUP, few: 3, always: false };

    /// For the sake of factors, of [`tile`] sources.
    pub(super) const fn for_factors(rows: usize, factors: usize) -> Self {
        let size = tile(rows, factors);
        if size == 0 { Self::NONE } else { Self { size, few: 0, always: true } }
    }
}

/// How many sources' factors for `rows` rows stay in registers that hold so many `factors`; 0 if too few.
pub(super) const fn tile(rows: usize, factors: usize) -> usize {
    let sources = factors / rows;
    if sources < TILE_MIN {
        0
    } else if sources < GROUP {
        sources
    } else {
        GROUP
    }
}

/// How bytes are walked over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// They are in the first-level cache.
    Small,
    /// Through the caches.
    Plain,
    /// Past the caches, from where the targets are aligned.
    Stream { aligned_at: usize },
}

/// Some bytes of each shard.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) walk: Walk,
}

/// The parts of a stripe.
pub(super) struct Plan {
    /// Sources of the topmost group: all of them, or what groups below it leave.
    pub(super) top: usize,
    block: usize,
    length: usize,
    walk: Walk,
}

impl Plan {
    /// Plans for targets of equal lengths, which streams of `alignment` bytes may go to.
    #[inline]
    pub(super) fn new(
        sources: usize,
        targets: &[Target<'_>],
        accumulate: bool,
        alignment: usize,
        groups: Groups,
    ) -> Self {
        let length = targets[0].len();
        let stripe = (sources + targets.len()) * length;
        let whole = |walk| Self { top: sources, block: length, length, walk };
        let (walk, block) = if stripe <= LEVEL1_BYTES {
            (Walk::Small, length)
        } else if stripe <= cache::level2_bytes() {
            (Walk::Plain, BLOCK_BYTES)
        } else {
            // Where the targets are read, too, streaming would not pay.
            let aligned_at = if accumulate { None } else { aligned_at(targets, alignment) };
            return whole(aligned_at.map_or(Walk::Plain, |aligned_at| Walk::Stream { aligned_at }));
        };
        if accumulate || sources <= groups.size || walk == Walk::Small && !groups.always {
            return whole(walk);
        }
        let over = sources % groups.size;
        let top = if over > groups.few { over } else { over + groups.size };
        if top == sources { whole(walk) } else { Self { top, block, length, walk } }
    }

    /// All sources at a time, past the caches.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "of x86-64 only"))]
    #[inline(always)]
    pub(super) fn streams(&self) -> bool {
        matches!(self.walk, Walk::Stream { .. })
    }

    /// The block from `from` on, if there is one.
    #[inline(always)]
    pub(super) fn span(&self, from: usize) -> Option<Span> {
        let to = self.length.min(from + self.block);
        (from < to).then_some(Span { from, to, walk: self.walk })
    }
}

/// Bytes before the targets' common alignment, or none if they have none in common.
fn aligned_at(targets: &[Target<'_>], alignment: usize) -> Option<usize> {
    let offset = |target: &Target<'_>| target.start().addr() & (alignment - 1);
    let first = offset(targets.first()?);
    let common = targets.iter().all(|target| offset(target) == first);
    common.then_some((alignment - first) & (alignment - 1))
}
