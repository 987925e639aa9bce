//! Where a subscription's overflow waits: a file that grows at its end and is read from its start.

mod local;
mod log;
mod memory;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use dwk_base::{Random, Result};

pub use local::LocalSpill;
pub use memory::MemorySpill;

pub(crate) use log::Log;

/// A file of bytes that are appended, read back once and given up again, in that order. It need not
/// survive its process.
pub trait SpillFile: Send {
    /// Adds `bytes` at the end. After an error the end is where it was.
    ///
    /// # Errors
    /// `drive.full` when there is no room, `process.exhausted`, `process.file_size`, `drive.io`.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Fills `into` from `offset`, counted from the first byte that was ever appended.
    ///
    /// # Errors
    /// `drive.io`; what was not appended or is trimmed cannot be read.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<()>;

    /// Gives up everything before `offset`; its room may be used again.
    fn trim(&mut self, offset: u64);
}

/// Room for a subscription's overflow.
pub struct Spill {
    pub(crate) file: Box<dyn SpillFile>,
    pub(crate) bytes_max: u64,
}

impl Spill {
    /// Up to `bytes_max` bytes of overflow in a file of the caller's.
    pub fn new(file: impl SpillFile + 'static, bytes_max: u64) -> Self {
        Self { file: Box::new(file), bytes_max }
    }

    /// Up to `bytes_max` bytes of overflow in memory, without what envelopes take beside their bytes.
    pub fn in_memory(bytes_max: u64) -> Self {
        Self::new(MemorySpill::default(), bytes_max)
    }

    /// Up to `bytes_max` bytes of overflow in a temporary file in `directory`, which is made when it is
    /// first needed, has no name, and ends with the subscription.
    pub fn in_directory(
        directory: impl Into<PathBuf>,
        bytes_max: u64,
        random: Arc<dyn Random>,
    ) -> Self {
        Self::new(LocalSpill::new(directory, random), bytes_max)
    }
}

impl fmt::Debug for Spill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spill").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
