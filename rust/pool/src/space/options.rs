//! Sizes and limits of a space.

use std::time::Duration;

use dwk_base::{Error, Result, codes};
use dwk_drive::ALIGNMENT;

/// Sizes and limits.
#[derive(Clone, Debug)]
pub struct SpaceOptions {
    /// The largest payload of a shard; less where a stripe would not fit a quarter of the memory.
    pub shard_bytes_max: u32,
    /// Memory for stripes on their way in and out.
    pub memory_bytes: u64,
    /// What one check covers: the least that is read and verified. A power of two from 512.
    pub block_bytes: u32,
    /// A drive that takes longer for one shard has failed.
    pub drive_timeout: Duration,
    /// How long a read waits for a drive at most before it reconstructs what lies there from the others. Mostly it
    /// does so much sooner: once others would usually have answered.
    pub late_read: Duration,
    /// With how many others a drive shares stripes: fewer make it less likely that a few lost drives
    /// share one, more make a rebuild faster. At least twice the shards of a stripe.
    pub scatter_width: usize,
    /// The part of each drive that only repair, packing and checkpoints may fill.
    pub reserve_fraction: f64,
    /// How many stripes a rebuild or scrub works on at once.
    pub repair_width: usize,
    /// Stripes that reads found damaged and that are remembered until they are repaired.
    pub repairs_max: usize,
    /// Memory for the headers of shards that were read.
    pub header_cache_bytes: usize,
}

impl Default for SpaceOptions {
    fn default() -> Self {
        Self {
            shard_bytes_max: 4 << 20,
            memory_bytes: 128 << 20,
            block_bytes: 64 << 10,
            drive_timeout: Duration::from_secs(30),
            late_read: Duration::from_secs(2),
            scatter_width: 32,
            reserve_fraction: 0.02,
            repair_width: 2,
            repairs_max: 65_536,
            header_cache_bytes: 8 << 20,
        }
    }
}

impl SpaceOptions {
    /// Fails on numbers that nothing can work with.
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |text: &str| Err(Error::new(&codes::STORE_OPTION, text.to_owned()));
        if (self.shard_bytes_max as usize) < ALIGNMENT || self.shard_bytes_max > 1 << 30 {
            return bad("shard_bytes_max is not between 4 KiB and 1 GiB");
        }
        if !self.block_bytes.is_power_of_two() || !(512..=1 << 24).contains(&self.block_bytes) {
            return bad("block_bytes is not a power of two between 512 and 16 MiB");
        }
        if self.memory_bytes < 1 << 20 {
            return bad("memory_bytes is less than 1 MiB");
        }
        if !(0.0..=0.5).contains(&self.reserve_fraction) {
            return bad("reserve_fraction is not between 0 and 0.5");
        }
        Ok(())
    }
}
