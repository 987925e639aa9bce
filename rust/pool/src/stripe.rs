//! A stripe as the ledger knows it: what it was encoded with and where its shards lie.

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Epoch, Result, StripeId};

/// The code of a stripe in numbers: with the matrix id, all that decoding needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StripeCode {
    /// Which matrix; see docs/format/matrices.md.
    pub matrix_id: u32,
    /// Data shards.
    pub data: u8,
    /// All parity shards.
    pub parity: u8,
    /// Of these, local ones (0 unless the code is locally repairable).
    pub local: u8,
}

/// One stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stripe {
    /// Its identity, in the name of each of its shards.
    pub id: StripeId,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// What it was encoded with.
    pub code: StripeCode,
    /// Payload of each shard, in bytes.
    pub shard_bytes: u32,
    /// Content, in bytes, laid over the data shards one after the other: byte `i` lies on shard
    /// `i / shard_bytes`. What follows the content is zero.
    pub payload_bytes: u32,
    /// For each shard, the index of the drive that holds it.
    pub placement: Vec<u16>,
}

impl Stripe {
    /// Appends the row.
    pub fn encode(&self, writer: &mut Writer) {
        writer.raw(self.id.as_bytes()).varint(self.epoch.0).varint(self.code.matrix_id.into());
        writer.u8(self.code.data).u8(self.code.parity).u8(self.code.local);
        writer.varint(self.shard_bytes.into()).varint(self.payload_bytes.into());
        writer.varint(self.placement.len() as u64);
        self.placement.iter().for_each(|&index| {
            writer.varint(index.into());
        });
    }

    /// Takes a row.
    ///
    /// # Errors
    /// `format.damaged`
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let id = StripeId::from_bytes(reader.array()?);
        let epoch = Epoch(reader.varint()?);
        let matrix_id = number(reader)?;
        let (data, parity, local) = (reader.u8()?, reader.u8()?, reader.u8()?);
        let code = StripeCode { matrix_id, data, parity, local };
        let (shard_bytes, payload_bytes) = (number(reader)?, number(reader)?);
        let shards = reader.count(1)?;
        let placement = (0..shards)
            .map(|_| u16::try_from(reader.varint()?).map_err(|_| reader.damaged("drive index")))
            .collect::<Result<Vec<_>>>()?;
        let stripe = Self { id, epoch, code, shard_bytes, payload_bytes, placement };
        let fits = u64::from(payload_bytes) <= u64::from(data) * u64::from(shard_bytes);
        if data == 0 || shards != usize::from(data) + usize::from(parity) || !fits {
            return Err(reader.damaged("its numbers contradict each other"));
        }
        Ok(stripe)
    }
}

fn number(reader: &mut Reader<'_>) -> Result<u32> {
    u32::try_from(reader.varint()?).map_err(|_| reader.damaged("a number is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written_and_contradictions_are_refused() {
        let code = StripeCode { matrix_id: 3, data: 4, parity: 2, local: 0 };
        let mut stripe = Stripe {
            id: StripeId::from_u128(7),
            epoch: Epoch(3),
            code,
            shard_bytes: 4096,
            payload_bytes: 4 * 4096,
            placement: vec![0, 1, 2, 3, 300, 5],
        };
        let bytes = |stripe: &Stripe| {
            let mut writer = Writer::new();
            stripe.encode(&mut writer);
            writer.finish()
        };
        let read = Stripe::decode(&mut Reader::new(&bytes(&stripe), "a stripe"));
        assert_eq!(read.ok().as_ref(), Some(&stripe));
        stripe.payload_bytes += 1;
        assert!(Stripe::decode(&mut Reader::new(&bytes(&stripe), "a stripe")).is_err());
    }
}
