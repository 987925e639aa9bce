//! What lies on a member, byte by byte: `docs/format/journal.md` draws it.
//!
//! Nothing here does I/O. Parsing never panics and never trusts a length that it has not checked.

use bytes::Bytes;
use dwk_base::codec::{Reader, Writer};
use dwk_base::{DriveId, Epoch, Error, PoolId, Result, codes};
use dwk_chunk::blake3;
use dwk_drive::ALIGNMENT;

/// Batches begin and end at multiples of this, so that a cut while writing one cannot touch another.
pub(crate) const BLOCK: usize = ALIGNMENT;
/// Where a segment's first batch begins: after the header's block.
pub(crate) const FIRST_OFFSET: u32 = BLOCK as u32;
/// A batch's fields before its first record.
pub(crate) const BATCH_HEADER_BYTES: usize = 164;
/// What a record takes besides its bytes.
pub(crate) const RECORD_HEADER_BYTES: usize = 4;
/// The format's version.
pub(crate) const VERSION: u16 = 0;

const HASH_BYTES: usize = 32;
const SEGMENT_MAGIC: &[u8; 8] = b"DWKJSEGM";
const BATCH_MAGIC: &[u8; 8] = b"DWKJBATC";

/// A BLAKE3 that ties a batch to everything before it.
pub(crate) type Hash = [u8; HASH_BYTES];

/// Tells the log's own batches from look-alikes inside records: drawn when the log is made, and never
/// shown to those who write records.
pub(crate) type Stamp = [u8; 16];

/// What a segment begins with. It follows from the segment's first batch, but for the drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub stamp: Stamp,
    pub pool: PoolId,
    pub drive: DriveId,
    pub segment: u64,
    pub segment_bytes: u32,
    pub epoch: Epoch,
    pub first_sequence: u64,
    pub first_batch: u64,
    /// Hash of the last batch of the segment before.
    pub previous: Hash,
}

impl SegmentHeader {
    /// The header's block, in aligned memory.
    pub(crate) fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(BLOCK);
        writer.raw(SEGMENT_MAGIC).u16(VERSION).u16(0).u32(self.segment_bytes);
        writer.raw(&self.stamp).raw(self.pool.as_bytes()).raw(self.drive.as_bytes());
        writer.u64(self.segment).u64(self.epoch.0).u64(self.first_sequence).u64(self.first_batch);
        writer.raw(&self.previous).pad_to(BLOCK - HASH_BYTES);
        let check = blake3(writer.as_slice());
        let mut block = Aligned::new(BLOCK);
        block.push(writer.as_slice());
        block.push(&check);
        block.finish()
    }

    /// Parses a whole, undamaged block; `None` for anything else.
    pub(crate) fn parse(block: &[u8]) -> Option<Self> {
        let (body, check) = block.get(..BLOCK)?.split_at(BLOCK - HASH_BYTES);
        if blake3(body) != check {
            return None;
        }
        let mut reader = Reader::new(body, "a journal segment's header");
        Self::read(&mut reader).ok()?
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>> {
        if reader.raw(8)? != SEGMENT_MAGIC || reader.u16()? != VERSION {
            return Ok(None);
        }
        reader.u16()?;
        let segment_bytes = reader.u32()?;
        Ok(Some(Self {
            segment_bytes,
            stamp: reader.array()?,
            pool: PoolId::from_bytes(reader.array()?),
            drive: DriveId::from_bytes(reader.array()?),
            segment: reader.u64()?,
            epoch: Epoch(reader.u64()?),
            first_sequence: reader.u64()?,
            first_batch: reader.u64()?,
            previous: reader.array()?,
        }))
    }
}

/// A batch's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// BLAKE3 of every byte of the batch after this field.
    pub hash: Hash,
    /// From the first byte of the hash to the end of the padding.
    pub bytes: u32,
    pub stamp: Stamp,
    pub pool: PoolId,
    pub epoch: Epoch,
    /// From 1, dense.
    pub number: u64,
    pub segment: u64,
    /// The segment's whole size.
    pub segment_bytes: u32,
    /// Where in the segment it begins.
    pub offset: u32,
    /// How many records it has.
    pub count: u32,
    /// The first record's; the next one's if there are none.
    pub first_sequence: u64,
    /// Segments with smaller numbers are not needed any more.
    pub floor: u64,
    /// The hash of the batch before; zeroes for the first of all.
    pub previous: Hash,
}

impl BatchHeader {
    /// The sequence number after the last record's.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.first_sequence.saturating_add(u64::from(self.count))
    }

    /// Where the next batch begins, if it lies in the same segment.
    pub(crate) fn end(&self) -> u32 {
        self.offset.saturating_add(self.bytes)
    }

    /// The order in which batches of several branches of a log win.
    pub(crate) fn rank(&self) -> (Epoch, u64) {
        (self.epoch, self.number)
    }

    /// Reads the fields without checking the hash; `None` if this cannot be a batch.
    pub(crate) fn peek(bytes: &[u8]) -> Option<Self> {
        if bytes.get(HASH_BYTES..HASH_BYTES + 8)? != BATCH_MAGIC {
            return None;
        }
        Self::read(&mut Reader::new(bytes, "a journal batch")).ok()?
    }

    /// Reads a batch that begins at `bytes[0]` and checks every byte of it; `None` if it is not whole.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Self::peek(bytes)?;
        let whole = bytes.get(..header.bytes as usize)?;
        (blake3(&whole[HASH_BYTES..]) == header.hash).then_some(header)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>> {
        let hash = reader.array()?;
        reader.raw(8)?;
        let version = reader.u16()?;
        reader.u16()?;
        let header = Self {
            hash,
            bytes: reader.u32()?,
            stamp: reader.array()?,
            pool: PoolId::from_bytes(reader.array()?),
            epoch: Epoch(reader.u64()?),
            number: reader.u64()?,
            segment: reader.u64()?,
            segment_bytes: reader.u32()?,
            offset: reader.u32()?,
            count: reader.u32()?,
            first_sequence: reader.u64()?,
            floor: reader.u64()?,
            previous: reader.array()?,
        };
        let whole =
            version == VERSION && header.bytes > 0 && header.bytes.is_multiple_of(BLOCK as u32);
        Ok(whole.then_some(header))
    }
}

/// Where each record's bytes lie in a batch: (offset, length).
pub(crate) fn records(batch: &[u8], header: &BatchHeader) -> Result<Vec<(u32, u32)>> {
    let mut reader = Reader::new(batch, "a journal batch");
    reader.raw(BATCH_HEADER_BYTES)?;
    if header.count as usize > reader.rest().len() / RECORD_HEADER_BYTES {
        return Err(reader.damaged("it cannot hold that many records"));
    }
    (0..header.count)
        .map(|_| {
            let length = reader.u32()?;
            let offset = batch.len() - reader.rest().len();
            reader.raw(length as usize)?;
            Ok((offset as u32, length))
        })
        .collect()
}

/// A batch, ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub header: BatchHeader,
    pub bytes: Bytes,
}

/// What a batch of `count` records of `record_bytes` in total takes on a member.
pub(crate) fn batch_bytes(count: usize, record_bytes: usize) -> usize {
    (BATCH_HEADER_BYTES + count * RECORD_HEADER_BYTES + record_bytes).next_multiple_of(BLOCK)
}

impl Batch {
    /// Builds a batch: `header` says everything but hash, length and count.
    pub(crate) fn build(mut header: BatchHeader, records: &[Bytes]) -> Self {
        let total = batch_bytes(records.len(), records.iter().map(Bytes::len).sum());
        header.bytes = total as u32;
        header.count = records.len() as u32;
        let mut buffer = Aligned::new(total);
        buffer.push(&[0; HASH_BYTES]);
        buffer.push(BATCH_MAGIC);
        buffer.push(&VERSION.to_le_bytes());
        buffer.push(&[0; 2]);
        buffer.push(&header.bytes.to_le_bytes());
        buffer.push(&header.stamp);
        buffer.push(header.pool.as_bytes());
        buffer.push(&header.epoch.0.to_le_bytes());
        buffer.push(&header.number.to_le_bytes());
        buffer.push(&header.segment.to_le_bytes());
        buffer.push(&header.segment_bytes.to_le_bytes());
        buffer.push(&header.offset.to_le_bytes());
        buffer.push(&header.count.to_le_bytes());
        buffer.push(&header.first_sequence.to_le_bytes());
        buffer.push(&header.floor.to_le_bytes());
        buffer.push(&header.previous);
        debug_assert_eq!(buffer.len(), BATCH_HEADER_BYTES, "the fields fill the header");
        for record in records {
            buffer.push(&(record.len() as u32).to_le_bytes());
            buffer.push(record);
        }
        buffer.fill();
        header.hash = blake3(&buffer.as_mut()[HASH_BYTES..]);
        buffer.as_mut()[..HASH_BYTES].copy_from_slice(&header.hash);
        Self { header, bytes: buffer.finish() }
    }
}

/// Memory that begins at a multiple of [`BLOCK`]: a vector with slack before it.
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl Aligned {
    /// Room for exactly `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(size + BLOCK);
        let start = bytes.as_ptr().align_offset(BLOCK);
        bytes.resize(start, 0);
        Self { bytes, start, size }
    }

    /// `size` zeroes, to be read into.
    pub(crate) fn zeroed(size: usize) -> Self {
        let mut zeroed = Self::new(size);
        zeroed.fill();
        zeroed
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        debug_assert!(self.len() + bytes.len() <= self.size, "more than there is room for");
        self.bytes.extend_from_slice(bytes);
    }

    /// Zeroes up to the end.
    pub(crate) fn fill(&mut self) {
        self.bytes.resize(self.start + self.size, 0);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.fill();
        Bytes::from(self.bytes).slice(self.start..)
    }
}

/// The error for a place in the log that no present copy has.
pub(crate) fn damaged(what: impl Into<String>) -> Error {
    Error::new(&codes::JOURNAL_DAMAGED, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn head() -> BatchHeader {
        BatchHeader {
            hash: [0; 32],
            bytes: 0,
            stamp: [3; 16],
            pool: PoolId::from_u128(1),
            epoch: Epoch(4),
            number: 5,
            segment: 6,
            segment_bytes: 1 << 20,
            offset: 4096,
            count: 0,
            first_sequence: 7,
            floor: 2,
            previous: [9; 32],
        }
    }

    #[test]
    fn a_batch_reads_back_and_lies_aligned() {
        let records = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 9000])];
        let batch = Batch::build(head(), &records);
        assert_eq!(batch.bytes.as_ptr().align_offset(BLOCK), 0);
        assert_eq!(batch.bytes.len(), 12288);
        assert_eq!(BatchHeader::parse(&batch.bytes), Some(batch.header.clone()));
        let read: Vec<&[u8]> = super::records(&batch.bytes, &batch.header)
            .unwrap()
            .into_iter()
            .map(|(offset, length)| &batch.bytes[offset as usize..(offset + length) as usize])
            .collect();
        assert_eq!(read, records.iter().map(|r| &r[..]).collect::<Vec<_>>());
        assert_eq!(batch.header.next_sequence(), 10);
    }

    #[test]
    fn no_flip_in_a_batch_or_header_goes_unseen() {
        let batch = Batch::build(head(), &[Bytes::from_static(b"record")]);
        let header = SegmentHeader {
            stamp: [1; 16],
            pool: PoolId::from_u128(2),
            drive: DriveId::from_u128(3),
            segment: 4,
            segment_bytes: 65536,
            epoch: Epoch(5),
            first_sequence: 6,
            first_batch: 7,
            previous: [8; 32],
        };
        let block = header.encode();
        assert_eq!(SegmentHeader::parse(&block), Some(header));
        for at in 0..BLOCK {
            let mut bytes = batch.bytes.to_vec();
            bytes[at] ^= 1 << (at % 8);
            assert_eq!(BatchHeader::parse(&bytes), None, "batch, byte {at}");
            let mut bytes = block.to_vec();
            bytes[at] ^= 1 << (at % 8);
            assert_eq!(SegmentHeader::parse(&bytes), None, "header, byte {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn junk_never_panics(mut junk in prop::collection::vec(any::<u8>(), 0..5000), mark in any::<bool>()) {
            if mark && junk.len() > 200 {
                junk[32..40].copy_from_slice(BATCH_MAGIC);
                junk[40..42].fill(0);
            }
            prop_assert!(BatchHeader::parse(&junk).is_none());
            if let Some(header) = BatchHeader::peek(&junk) {
                let _ = super::records(&junk, &header);
            }
            prop_assert!(SegmentHeader::parse(&junk).is_none());
        }
    }
}
