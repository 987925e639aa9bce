//! The shards of a stripe of which some are lost.

use crate::shared::{Source, Target};

/// One shard as reconstruction finds it.
#[derive(Debug)]
pub enum Slot<S, T> {
    /// Its bytes are here, and right.
    Present(S),
    /// It is lost. The buffer's content is ignored; it is filled if the shard is wanted.
    Lost(T),
    /// It is lost or was not read, and there is no buffer for it.
    Absent,
}

/// One shard as [`Code::reconstruct`] finds it.
pub type Shard<'a> = Slot<&'a [u8], &'a mut [u8]>;

/// One shard as [`Code::reconstruct_shared`] finds it.
pub type SharedShard<'a> = Slot<Source<'a>, Target<'a>>;

/// Bytes that a shard is read from.
pub(crate) trait Readable {
    fn source(&self) -> Source<'_>;
}

impl Readable for &[u8] {
    fn source(&self) -> Source<'_> {
        (*self).into()
    }
}

impl Readable for Source<'_> {
    fn source(&self) -> Source<'_> {
        *self
    }
}

/// Bytes that a shard is written to.
pub(crate) trait Writable {
    fn target(&mut self) -> Target<'_>;
}

impl Writable for &mut [u8] {
    fn target(&mut self) -> Target<'_> {
        (&mut **self).into()
    }
}

impl Writable for Target<'_> {
    fn target(&mut self) -> Target<'_> {
        self.reborrow()
    }
}
