//! How large the caches are, as the processor itself says.

use std::sync::LazyLock;

/// Taken where the processor does not say.
const LEVEL2_DEFAULT_BYTES: usize = 1 << 20;

/// Bytes of one core's second-level cache.
pub(super) fn level2_bytes() -> usize {
    static BYTES: LazyLock<usize> = LazyLock::new(|| detect().unwrap_or(LEVEL2_DEFAULT_BYTES));
    *BYTES
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn detect() -> Option<usize> {
    use std::arch::x86_64::__cpuid;
    // Leaf 0x8000_0006, ECX bits 31..16: KiB of L2, on AMD and Intel alike.
    const LEAF: u32 = 0x8000_0006;
    if __cpuid(0x8000_0000).eax < LEAF {
        return None;
    }
    let kib = (__cpuid(LEAF).ecx >> 16) as usize;
    (kib > 0).then_some(kib << 10)
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn detect() -> Option<usize> {
    None
}
