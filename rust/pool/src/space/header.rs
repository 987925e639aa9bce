//! What stands before a shard's payload; drawn in `docs/format/shard.md`.
//!
//! A header says which shard of which stripe of which pool this is, and carries the checks of its own
//! blocks and of all shards of the stripe. It is believed only after it agrees with the table of stripes.

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Epoch, Error, PoolId, Result, StripeId, codes};
use dwk_chunk::{crc64_join_blocks, crc64nvme};
use dwk_drive::{ALIGNMENT, BlobName};

use crate::{Stripe, StripeCode};

/// The folder of shards.
pub(crate) const FOLDER: &str = "s";
const MAGIC: [u8; 8] = *b"DWKSHARD";
const FORMAT_VERSION: u32 = 0;
/// What stands before the checks.
const FIXED_BYTES: usize = 80;
const CHECK_BYTES: usize = 8;
const WHAT: &str = "a shard's header";

/// The name of a shard.
///
/// # Errors
/// None that could be: the name is made of hex digits.
pub(crate) fn name(stripe: StripeId, index: usize) -> Result<BlobName> {
    BlobName::new(format!("{FOLDER}/{stripe}.{index:02x}"))
}

/// The stripe and index that a name says, if it is a shard's.
pub(crate) fn parse_name(name: &BlobName) -> Option<(StripeId, usize)> {
    let (id, index) = name.leaf().split_once('.')?;
    let shard = (id.parse().ok()?, usize::from_str_radix(index, 16).ok()?);
    let canonical = self::name(shard.0, shard.1).is_ok_and(|canonical| canonical == *name);
    (canonical && shard.1 < 256).then_some(shard)
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) pool: PoolId,
    pub(crate) stripe: StripeId,
    pub(crate) epoch: Epoch,
    pub(crate) code: StripeCode,
    pub(crate) index: usize,
    pub(crate) shard_bytes: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) block_bytes: u32,
    /// CRC-64/NVME of each shard's payload.
    pub(crate) shard_checks: Vec<u64>,
    /// CRC-64/NVME of each block of this shard's payload.
    pub(crate) block_checks: Vec<u64>,
}

/// How long the header of a shard is, in bytes.
pub(crate) fn header_bytes(shards: usize, shard_bytes: u32, block_bytes: u32) -> usize {
    let checks = shards + shard_bytes.div_ceil(block_bytes) as usize;
    (FIXED_BYTES + (checks + 1) * CHECK_BYTES).next_multiple_of(ALIGNMENT)
}

impl Header {
    /// Its length in bytes.
    pub(crate) fn bytes(&self) -> usize {
        header_bytes(self.shard_checks.len(), self.shard_bytes, self.block_bytes)
    }

    /// As it lies on a drive.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let bytes = self.bytes();
        let mut writer = Writer::with_capacity(bytes);
        writer.raw(&MAGIC).u32(FORMAT_VERSION).u32(bytes as u32);
        writer.raw(self.pool.as_bytes()).raw(self.stripe.as_bytes()).u64(self.epoch.0);
        writer.u32(self.code.matrix_id).u8(self.code.data).u8(self.code.parity);
        writer.u8(self.code.local).u8(self.index as u8);
        writer.u32(self.shard_bytes).u32(self.payload_bytes).u32(self.block_bytes).u32(0);
        for check in self.shard_checks.iter().chain(&self.block_checks) {
            writer.u64(*check);
        }
        writer.pad_to(bytes - CHECK_BYTES);
        let check = crc64nvme(writer.as_slice());
        writer.u64(check);
        writer.finish()
    }

    /// Takes a header from the beginning of a shard; `bytes` may go on after it.
    ///
    /// # Errors
    /// `format.newer`, `format.damaged`; `bytes` may also just be too short, see [`length`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let length = length(bytes)?;
        let Some(bytes) = bytes.get(..length) else {
            return Err(Reader::new(bytes, WHAT).damaged("it ends early"));
        };
        let (body, check) = bytes.split_at(length - CHECK_BYTES);
        let mut reader = Reader::new(body, WHAT);
        if check != crc64nvme(body).to_le_bytes() {
            return Err(reader.damaged("its check is wrong"));
        }
        reader.raw(16)?;
        let pool = PoolId::from_bytes(reader.array()?);
        let stripe = StripeId::from_bytes(reader.array()?);
        let epoch = Epoch(reader.u64()?);
        let (matrix_id, data) = (reader.u32()?, reader.u8()?);
        let (parity, local, index) = (reader.u8()?, reader.u8()?, usize::from(reader.u8()?));
        let code = StripeCode { matrix_id, data, parity, local };
        let (shard_bytes, payload_bytes) = (reader.u32()?, reader.u32()?);
        let block_bytes = reader.u32()?;
        reader.u32()?;
        let shards = usize::from(data) + usize::from(parity);
        if !block_bytes.is_power_of_two() || index >= shards {
            return Err(reader.damaged("its numbers contradict each other"));
        }
        if header_bytes(shards, shard_bytes, block_bytes) != length {
            return Err(reader.damaged("its length contradicts its numbers"));
        }
        let mut checks =
            |count: usize| (0..count).map(|_| reader.u64()).collect::<Result<Vec<_>>>();
        let shard_checks = checks(shards)?;
        let block_checks = checks(shard_bytes.div_ceil(block_bytes) as usize)?;
        if crc64_join_blocks(&block_checks, shard_bytes.into(), block_bytes.into())
            != shard_checks[index]
        {
            return Err(reader.damaged("its checks contradict each other"));
        }
        Ok(Self {
            pool,
            stripe,
            epoch,
            code,
            index,
            shard_bytes,
            payload_bytes,
            block_bytes,
            shard_checks,
            block_checks,
        })
    }

    /// Fails unless this is the header of shard `index` of `stripe` as the table of stripes has it.
    ///
    /// # Errors
    /// `format.damaged`
    pub(crate) fn agree(&self, pool: PoolId, stripe: &Stripe, index: usize) -> Result<()> {
        let right = self.pool == pool
            && self.stripe == stripe.id
            && self.index == index
            && self.code == stripe.code
            && self.epoch == stripe.epoch
            && self.shard_bytes == stripe.shard_bytes
            && self.payload_bytes == stripe.payload_bytes;
        if right {
            return Ok(());
        }
        let text = format!("shard {index} of stripe {} is another one in its place", stripe.id);
        Err(Error::new(&codes::FORMAT_DAMAGED, text).with("stripe", stripe.id))
    }

    /// Fails unless `payload`, which begins with block `first`, has the checks of this header.
    ///
    /// # Errors
    /// `data.corrupt`
    pub(crate) fn verify(&self, first: usize, payload: &[u8]) -> Result<()> {
        let blocks = payload.chunks(self.block_bytes as usize);
        for (index, block) in blocks.enumerate() {
            if self.block_checks.get(first + index) != Some(&crc64nvme(block)) {
                let (shard, block) = (self.index, first + index);
                let text = format!("block {block} of shard {shard} of stripe {}", self.stripe);
                let error = Error::new(&codes::DATA_CORRUPT, format!("{text} has a wrong check"));
                return Err(error.with("stripe", self.stripe).with("shard", shard));
            }
        }
        Ok(())
    }
}

/// How long the header at the beginning of `bytes` is.
///
/// # Errors
/// `format.newer`, `format.damaged`
pub(crate) fn length(bytes: &[u8]) -> Result<usize> {
    let mut reader = Reader::new(bytes, WHAT);
    if reader.array()? != MAGIC {
        return Err(reader.damaged("it is not a shard"));
    }
    let version = reader.u32()?;
    if version != FORMAT_VERSION {
        let text = format!("a shard has format version {version}, this is {FORMAT_VERSION}");
        return Err(Error::new(&codes::FORMAT_NEWER, text).with("version", version));
    }
    let length = reader.u32()? as usize;
    // 255 shards and the most blocks that the options allow.
    let longest = FIXED_BYTES + CHECK_BYTES * (256 + (1 << 21));
    if !length.is_multiple_of(ALIGNMENT) || length == 0 || length > longest {
        return Err(reader.damaged("its length is impossible"));
    }
    Ok(length)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample(shard_bytes: u32, block_bytes: u32) -> (Header, Vec<u8>) {
        let payload: Vec<u8> = (0..shard_bytes).map(|i| (i * 7 + 3) as u8).collect();
        let block_checks: Vec<u64> = payload.chunks(block_bytes as usize).map(crc64nvme).collect();
        let mut shard_checks = vec![1, 2, 3, 4, 5, 6];
        shard_checks[3] = crc64nvme(&payload);
        let header = Header {
            pool: PoolId::from_u128(1),
            stripe: StripeId::from_u128(2),
            epoch: Epoch(3),
            code: StripeCode { matrix_id: 4, data: 4, parity: 2, local: 0 },
            index: 3,
            shard_bytes,
            payload_bytes: shard_bytes * 4 - 5,
            block_bytes,
            shard_checks,
            block_checks,
        };
        (header, payload)
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_finds_damaged_blocks() {
        for (shard_bytes, block_bytes) in
            [(4096, 512), (12288, 4096), (8192, 65536), (1 << 20, 512)]
        {
            let (header, mut payload) = sample(shard_bytes, block_bytes);
            let bytes = header.encode();
            assert!(bytes.len().is_multiple_of(ALIGNMENT) && bytes.len() == header.bytes());
            assert_eq!(Header::decode(&bytes).unwrap(), header);
            header.verify(0, &payload).unwrap();
            payload[4000] ^= 1;
            assert!(header.verify(0, &payload).is_err());
        }
    }

    #[test]
    fn the_fields_lie_where_the_format_says() {
        let (header, _) = sample(12288, 4096);
        let bytes = header.encode();
        assert_eq!(&bytes[..8], b"DWKSHARD");
        assert_eq!(bytes[8..16], [0, 0, 0, 0, 0, 16, 0, 0]);
        assert_eq!((bytes[31], bytes[47], bytes[48]), (1, 2, 3));
        assert_eq!(bytes[56..64], [4, 0, 0, 0, 4, 2, 0, 3]);
        assert_eq!(bytes[64..68], 12288u32.to_le_bytes());
        assert_eq!(bytes[68..72], (4 * 12288u32 - 5).to_le_bytes());
        assert_eq!(bytes[72..80], [0, 16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[80..88], 1u64.to_le_bytes());
        assert_eq!(bytes[128..136], header.block_checks[0].to_le_bytes());
        assert_eq!(bytes[4088..], crc64nvme(&bytes[..4088]).to_le_bytes());
        assert!(bytes[152..4088].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn another_shard_does_not_agree() {
        let (header, _) = sample(4096, 512);
        let stripe = Stripe {
            id: header.stripe,
            epoch: header.epoch,
            code: header.code,
            shard_bytes: header.shard_bytes,
            payload_bytes: header.payload_bytes,
            placement: vec![0, 1, 2, 3, 4, 5],
        };
        header.agree(header.pool, &stripe, 3).unwrap();
        assert!(header.agree(header.pool, &stripe, 2).is_err());
        assert!(header.agree(PoolId::from_u128(9), &stripe, 3).is_err());
        let other = Stripe { id: StripeId::from_u128(9), ..stripe.clone() };
        assert!(header.agree(header.pool, &other, 3).is_err());
        let other = Stripe { epoch: Epoch(9), ..stripe };
        assert!(header.agree(header.pool, &other, 3).is_err());
    }

    #[test]
    fn names_are_one_to_one() {
        let id = StripeId::from_u128(0xabc);
        let name = name(id, 0x1f).unwrap();
        assert_eq!(name.as_str(), "s/00000000000000000000000000000abc.1f");
        assert_eq!(parse_name(&name), Some((id, 0x1f)));
        for other in ["s/x", "s/00000000000000000000000000000abc.1ff", "s/0.1f"] {
            assert_eq!(parse_name(&BlobName::new(other).unwrap()), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_damage_panics_or_passes(at in 0usize..4096, mask in 1u8.., cut in 0usize..4096) {
            let (header, _) = sample(8192, 512);
            let mut bytes = header.encode();
            prop_assert!(Header::decode(&bytes[..cut]).is_err());
            bytes[at] ^= mask;
            prop_assert!(Header::decode(&bytes).is_err());
        }
    }
}
