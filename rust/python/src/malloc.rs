//! What the C library's allocator is told about results of several large pieces.
//!
//! glibc takes a large piece from the system and gives it back when it is freed, and touching new memory costs more
//! than most codes do (a fault for each page). It learns: once a piece of some size was freed, pieces up to that size
//! stay, and up to twice that size of what was freed (`M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` in mallopt(3)). From
//! four pieces of 1 MiB it learns 1 MiB, and gives back what four of them leave each time.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Smaller pieces come from the heap in any case.
const LEAST_BYTES: usize = 128 << 10;
/// The most that is told: at most twice as much stays with the process for good.
const MOST_BYTES: usize = 16 << 20;

/// The largest of what was told.
static TOLD: AtomicUsize = AtomicUsize::new(LEAST_BYTES);

/// Tells the allocator that results of so many bytes, in several pieces, are made, and will be again: one piece of that
/// size is taken, not touched, and freed. Where the program has set the allocator, or it is another one, that does
/// nothing.
pub(crate) fn expect(bytes: usize) {
    if bytes <= MOST_BYTES && bytes > TOLD.fetch_max(bytes, Ordering::Relaxed) {
        let mut piece = Vec::<u8>::new();
        // Where there is no room for it, who wants the results is told so.
        let _ = piece.try_reserve_exact(bytes);
        drop(black_box(piece));
    }
}
