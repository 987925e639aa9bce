//! From content to shards in one pass: while a column of all shards is in the cache, its blocks are
//! checked and its parity is computed.

use bytes::Bytes;
use dwk_base::{PoolId, Result};
use dwk_chunk::{crc64_join, crc64_join_blocks, crc64nvme};
use dwk_erasure::Code;

use super::buffers::Buffer;
use super::coding;
use super::header::{self, Header};
use crate::Stripe;

/// Columns are at least this wide.
const COLUMN_BYTES: usize = 64 << 10;

/// A shard as a drive takes it: header and payload.
pub(crate) type Parts = [Bytes; 2];

/// How a buffer holds a stripe: the data shards, the parity shards, the headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) data: usize,
    pub(crate) parity: usize,
    pub(crate) shard_bytes: usize,
    pub(crate) header_bytes: usize,
}

impl Shape {
    /// For `bytes` of content.
    pub(crate) fn new(bytes: usize, data: usize, parity: usize, block_bytes: u32) -> Self {
        let shard_bytes = coding::shard_bytes(bytes, data);
        let header_bytes = header::header_bytes(data + parity, shard_bytes as u32, block_bytes);
        Self { data, parity, shard_bytes, header_bytes }
    }

    pub(crate) const fn shards(&self) -> usize {
        self.data + self.parity
    }

    /// What a shard's file takes.
    pub(crate) const fn file_bytes(&self) -> usize {
        self.shard_bytes + self.header_bytes
    }

    /// What the whole stripe takes.
    pub(crate) const fn bytes(&self) -> usize {
        self.shards() * self.file_bytes()
    }
}

/// A stripe as the drives take it.
pub(crate) struct Encoded {
    pub(crate) shards: Vec<Parts>,
    /// CRC-64/NVME of the content.
    pub(crate) content_check: u64,
}

/// Encodes the first `stripe.payload_bytes` of `buffer`, which is as large as `shape` says.
///
/// # Errors
/// None that could be: the lengths are those that the code asks for.
pub(crate) fn encode(
    mut buffer: Buffer,
    shape: Shape,
    code: &Code,
    pool: PoolId,
    stripe: &Stripe,
    block_bytes: u32,
) -> Result<Encoded> {
    let bytes = shape.shard_bytes;
    let (data, rest) = buffer.as_mut().split_at_mut(shape.data * bytes);
    let (parity, headers) = rest.split_at_mut(shape.parity * bytes);
    data[stripe.payload_bytes as usize..].fill(0);
    let mut checks = vec![Vec::new(); shape.shards()];
    let block = block_bytes as usize;
    for start in (0..bytes).step_by(COLUMN_BYTES.max(block)) {
        let column = start..bytes.min(start + COLUMN_BYTES.max(block));
        let data: Vec<&[u8]> = data.chunks(bytes).map(|shard| &shard[column.clone()]).collect();
        let mut parity: Vec<&mut [u8]> =
            parity.chunks_mut(bytes).map(|shard| &mut shard[column.clone()]).collect();
        code.encode(&data, &mut parity)?;
        let parity = parity.into_iter().map(|shard| &*shard);
        for (checks, shard) in checks.iter_mut().zip(data.into_iter().chain(parity)) {
            checks.extend(shard.chunks(block).map(crc64nvme));
        }
    }
    let join = |checks: &Vec<u64>| crc64_join_blocks(checks, bytes as u64, block_bytes.into());
    let shard_checks: Vec<u64> = checks.iter().map(join).collect();
    let content = &data[..stripe.payload_bytes as usize];
    let content_check = check_content(content, bytes, block, &shard_checks, &checks);
    for (index, block_checks) in checks.into_iter().enumerate() {
        let shard_checks = shard_checks.clone();
        let header = of(pool, stripe, index, block_bytes, shard_checks, block_checks).encode();
        headers[index * shape.header_bytes..][..shape.header_bytes].copy_from_slice(&header);
    }
    let whole = Bytes::from_owner(buffer);
    let payloads = shape.shards() * bytes;
    let parts = (0..shape.shards()).map(|index| {
        let header = payloads + index * shape.header_bytes;
        [
            whole.slice(header..header + shape.header_bytes),
            whole.slice(index * bytes..(index + 1) * bytes),
        ]
    });
    Ok(Encoded { shards: parts.collect(), content_check })
}

/// The check of the content from those of its shards and blocks: only what is left of a block is read once more.
fn check_content(
    content: &[u8],
    bytes: usize,
    block: usize,
    shard_checks: &[u64],
    checks: &[Vec<u64>],
) -> u64 {
    let mut joined = crc64nvme(&[]);
    for (index, shard) in content.chunks(bytes).enumerate() {
        let (check, length) = if shard.len() == bytes {
            (shard_checks[index], bytes)
        } else {
            let blocks = shard.len() / block;
            let length = blocks * block;
            (crc64_join_blocks(&checks[index][..blocks], length as u64, block as u64), length)
        };
        joined = crc64_join(joined, check, length as u64);
        let rest = &shard[length..];
        joined = crc64_join(joined, crc64nvme(rest), rest.len() as u64);
    }
    joined
}

/// The header of a shard of `stripe`.
pub(crate) fn of(
    pool: PoolId,
    stripe: &Stripe,
    index: usize,
    block_bytes: u32,
    shard_checks: Vec<u64>,
    block_checks: Vec<u64>,
) -> Header {
    Header {
        pool,
        stripe: stripe.id,
        epoch: stripe.epoch,
        code: stripe.code,
        index,
        shard_bytes: stripe.shard_bytes,
        payload_bytes: stripe.payload_bytes,
        block_bytes,
        shard_checks,
        block_checks,
    }
}
