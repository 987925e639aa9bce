//! How a member keeps its copy of the log: in preallocated slots, or in numbered blobs.

mod blobs;
mod search;
mod slots;

use bytes::Bytes;
use dwk_base::{Error, PoolId, Result, codes};
use dwk_drive::{BlobName, Drive};

pub(crate) use blobs::BlobShelf;
pub(crate) use slots::SlotShelf;

use crate::format::{BatchHeader, SegmentHeader, Stamp};
use crate::replica::Stretch;

/// Something on a member that may hold batches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Unit {
    pub name: BlobName,
    pub bytes: u64,
}

/// What was found in a unit.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub unit: Unit,
    /// The stamps at places where no record ever lies: the header's, the first batch's.
    pub stamps: Vec<Stamp>,
    /// The batches that are whole and at their place, of whatever branch or age.
    pub batches: Vec<BatchHeader>,
}

/// A batch on its way to a member.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub segment: u64,
    pub offset: u32,
    pub batch: Bytes,
    /// The header, if the batch is the first of its segment.
    pub header: Option<Bytes>,
    /// An earlier try may have got anywhere, but was not durable.
    pub again: bool,
}

/// How the place of a segment is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Good,
    /// Its header is not as it should be.
    BadHeader,
    /// It is missing, or not as long as it should be.
    Unusable,
}

/// True for what damage does to what is stored: it is on a bad place of the device, cut short, or gone. Any other
/// reason, such as want of descriptors or of rights, may be the same on every member, and what is well must not be
/// taken for empty.
fn is_damage(error: &Error) -> bool {
    let damage =
        [&codes::DRIVE_IO, &codes::BUFFER_LENGTH, &codes::BLOB_NOT_FOUND, &codes::FORMAT_DAMAGED];
    damage.into_iter().any(|code| error.is(code))
}

/// One member's copy. All of it is called on threads that may block.
pub(crate) trait Shelf: Send + Sync {
    /// True if units are slots, which hold a segment each; false if each is a batch.
    fn slots(&self) -> bool;

    /// Everything that may hold batches.
    fn units(&self, drive: &dyn Drive) -> Result<Vec<Unit>>;

    /// Reads a unit whole. What cannot be read is as if it were damaged.
    fn examine(&self, drive: &dyn Drive, unit: &Unit, pool: PoolId) -> Result<Found>;

    /// Reads a batch that [`examine`](Self::examine) found.
    fn fetch(&self, drive: &dyn Drive, unit: &Unit, offset: u32, bytes: u32) -> Result<Bytes>;

    /// From now on `keep` are the copy of these segments, and `rest` and `idle` are left over from another
    /// time. No batch of the log was found in what is `idle`: a full drive may use that at once.
    fn adopt(&self, keep: Vec<(u64, Unit)>, rest: Vec<Unit>, idle: Vec<Unit>);

    /// Frees what [`adopt`](Self::adopt) called left over. Called when nothing of it is needed any more.
    fn tidy(&self, drive: &dyn Drive) -> Result<()>;

    /// Takes room for a segment, if it has none yet, and holds it: then its batches cannot find the drive full, nor
    /// the process without a descriptor.
    fn reserve(&self, drive: &dyn Drive, segment: u64) -> Result<()>;

    /// Writes a batch and makes it durable.
    fn append(&self, drive: &dyn Drive, append: &Append, tag: &'static str) -> Result<()>;

    /// Prepares a segment to be written again in parts, in another place if `anew` says that the old one
    /// is of no use; true if a header was written.
    fn begin(&self, drive: &dyn Drive, header: &SegmentHeader, anew: bool) -> Result<bool>;

    /// Writes a batch again, over whatever is there; durable after [`settle`](Self::settle).
    fn restore(&self, drive: &dyn Drive, segment: u64, offset: u32, batch: &Bytes) -> Result<()>;

    /// Makes what was restored in a segment durable.
    fn settle(&self, drive: &dyn Drive, segment: u64, tag: &'static str) -> Result<()>;

    /// Looks at the place of a segment, but for its batches.
    ///
    /// # Errors
    /// Those of the process.
    fn place(&self, drive: &dyn Drive, header: &SegmentHeader) -> Result<Place>;

    /// Fills `into`, which is as long as the stretch.
    fn read(&self, drive: &dyn Drive, stretch: Stretch, into: &mut [u8]) -> Result<()>;

    /// As [`read`](Self::read), but never waits for a device: false if it would have to.
    fn read_now(&self, drive: &dyn Drive, stretch: Stretch, into: &mut [u8]) -> Result<bool>;

    /// Gives a segment's room back.
    fn retire(&self, drive: &dyn Drive, segment: u64) -> Result<()>;

    /// How many segments could be begun without new room; no limit where none is taken ahead of time.
    fn free_segments(&self) -> usize;

    /// Makes room until there are `count` free segments.
    fn make_spares(&self, drive: &dyn Drive, count: usize) -> Result<()>;

    /// Removes everything: the drive does not hold the log.
    fn give_up(&self, drive: &dyn Drive) -> Result<()>;

    /// True if there are fewer than `count` free segments and nobody is making them yet; then the caller
    /// calls [`prepare_spares`](Self::prepare_spares).
    fn wants_spares(&self, count: usize) -> bool;

    /// Makes room as [`make_spares`](Self::make_spares) does, ahead of time.
    fn prepare_spares(&self, drive: &dyn Drive, count: usize) -> Result<()>;

    /// Bytes taken on the drive.
    fn taken_bytes(&self) -> u64;
}
