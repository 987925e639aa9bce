//! A stripe's content on its way in.

use std::fmt;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};

use super::buffers::Buffer;
use super::room::Purpose;
use super::{Shared, Space};

/// How long who waits for memory sleeps before it looks whether it can help.
const NAP: Duration = Duration::from_millis(20);
/// Content that gets a stripe even when memory is scarce is this part of what was asked for.
const SCARCE: usize = 4;
/// Less than this is not worth a stripe of its own while memory is scarce.
const SCARCE_BYTES_MIN: usize = 256 << 10;

/// Room for the content of one stripe.
pub struct Filling {
    pub(crate) buffer: Buffer,
    pub(crate) purpose: Purpose,
    length: usize,
    bytes_max: usize,
}

impl Space {
    /// Room for a stripe of `payload_bytes` of content, less if that is more than
    /// [`payload_bytes_max`](Self::payload_bytes_max) or memory is scarce. Waits until there is memory.
    ///
    /// # Errors
    /// `context.deadline`; `pool.busy` if no memory was given back for twice the time that a drive may take.
    pub fn fill(&self, payload_bytes: usize, deadline: &Deadline) -> Result<Filling> {
        let full = self.shared.full_shape();
        let wanted = payload_bytes.clamp(1, full.data * full.shard_bytes);
        let naps = self.shared.options.drive_timeout.as_millis() * 2 / NAP.as_millis() + 1;
        for _ in 0..naps {
            if let Some(filling) = self.shared.try_fill(wanted) {
                return Ok(filling);
            }
            if let Some(filling) = self.shared.try_fill_scarce(wanted) {
                return Ok(filling);
            }
            deadline.check()?;
            self.shared.help_flights();
            let bytes = self.shared.buffer_bytes(wanted);
            if let Some(buffer) =
                self.shared.memory.take_within(bytes, NAP.min(deadline.remaining()))
            {
                return Ok(Filling::new(buffer, wanted));
            }
        }
        let text = "no memory for another stripe was given back in time";
        Err(Error::new(&codes::POOL_BUSY, text))
    }
}

impl Shared {
    /// What a stripe for `payload_bytes` takes on the drives of now.
    fn buffer_bytes(&self, payload_bytes: usize) -> usize {
        let full = self.full_shape();
        let block_bytes = self.options.block_bytes;
        super::encode::Shape::new(payload_bytes, full.data, full.parity, block_bytes).bytes()
    }

    fn try_fill(&self, payload_bytes: usize) -> Option<Filling> {
        let buffer = self.memory.try_take(self.buffer_bytes(payload_bytes))?;
        Some(Filling::new(buffer, payload_bytes))
    }

    fn try_fill_scarce(&self, payload_bytes: usize) -> Option<Filling> {
        let less = payload_bytes / SCARCE;
        if less < SCARCE_BYTES_MIN { None } else { self.try_fill(less) }
    }
}

impl Filling {
    fn new(buffer: Buffer, bytes_max: usize) -> Self {
        Self { buffer, purpose: Purpose::Store, length: 0, bytes_max }
    }

    /// Lets this stripe use the room that is kept for packing, checkpoints and repair.
    #[must_use]
    pub fn with_reserve(mut self) -> Self {
        self.purpose = Purpose::Keep;
        self
    }

    /// Copies as much of `bytes` as fits, and says how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.spare();
        let taken = room.len().min(bytes.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.advance(taken);
        taken
    }

    /// The room that is left, to be written to from its beginning. Its content is arbitrary.
    pub fn spare(&mut self) -> &mut [u8] {
        let (from, to) = (self.length, self.bytes_max);
        &mut self.buffer.as_mut()[from..to]
    }

    /// Says that the first `bytes` of [`spare`](Self::spare) were written.
    ///
    /// # Panics
    /// If that is more than there was.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes_max - self.length, "a stripe was filled beyond its end");
        self.length += bytes;
    }

    /// What is in it.
    pub fn content(&self) -> &[u8] {
        &self.buffer.as_ref()[..self.length]
    }

    /// How much is in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True if nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// True if nothing more fits.
    pub fn is_full(&self) -> bool {
        self.length == self.bytes_max
    }
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filling({} of {} bytes)", self.length, self.bytes_max)
    }
}
