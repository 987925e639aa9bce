//! Rows of the map and where their content lies.

use bytes::Bytes;
use dwk_base::codec::{Reader, Writer};
use dwk_base::{Result, StripeId};
use dwk_journal::Position;

/// The most that the address of a piece in a stripe takes.
pub(crate) const PIECE_BYTES_MAX: usize = 1 + 16 + 5 + 5 + 8;

/// One key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The sequence number of the commit that wrote it: it grows with every change and is never re-used.
    pub version: u64,
    /// What the floor above keeps in it.
    pub body: Bytes,
    /// Bytes too many for a row, if there are any.
    pub content: Option<Content>,
}

/// Where a row's bytes lie, piece after piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub(crate) pieces: Vec<Piece>,
}

/// One run of bytes in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) place: Place,
    pub(crate) bytes: u32,
    /// CRC-64/NVME of the piece.
    pub(crate) check: u64,
}

/// Where a piece lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a record of the journal, `offset` bytes into it.
    Journal { position: Position, offset: u32 },
    /// In a stripe, `offset` bytes into its content.
    Stripe { id: StripeId, offset: u32 },
}

impl Content {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.bytes)).sum()
    }

    /// CRC-64/NVME of the whole, joined from the pieces.
    pub fn check(&self) -> u64 {
        self.pieces.iter().fold(dwk_chunk::crc64nvme(&[]), |whole, piece| {
            dwk_chunk::crc64_join(whole, piece.check, piece.bytes.into())
        })
    }

    /// What of it lies in stripes, as (stripe, bytes).
    pub(crate) fn in_stripes(&self) -> impl Iterator<Item = (StripeId, u32)> {
        self.pieces.iter().filter_map(|piece| match piece.place {
            Place::Stripe { id, .. } => Some((id, piece.bytes)),
            Place::Journal { .. } => None,
        })
    }

    /// The oldest record that holds a part of it.
    pub(crate) fn oldest_record(&self) -> Option<u64> {
        let sequence = |piece: &Piece| match piece.place {
            Place::Journal { position, .. } => Some(position.sequence),
            Place::Stripe { .. } => None,
        };
        self.pieces.iter().filter_map(sequence).min()
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.varint(self.pieces.len() as u64);
        for piece in &self.pieces {
            match piece.place {
                Place::Journal { position, offset } => writer
                    .u8(0)
                    .varint(position.sequence)
                    .varint(position.segment)
                    .varint(position.offset.into())
                    .varint(position.bytes.into())
                    .varint(offset.into()),
                Place::Stripe { id, offset } => {
                    writer.u8(1).raw(id.as_bytes()).varint(offset.into())
                }
            };
            writer.varint(piece.bytes.into()).u64(piece.check);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        const PIECE_BYTES_MIN: usize = 14;
        let count = reader.count(PIECE_BYTES_MIN)?;
        let pieces = (0..count).map(|_| Piece::decode(reader)).collect::<Result<_>>()?;
        Ok(Self { pieces })
    }
}

impl Piece {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let place = match reader.u8()? {
            0 => {
                let (sequence, segment) = (reader.varint()?, reader.varint()?);
                let (offset, bytes) = (number(reader)?, number(reader)?);
                let position = Position { sequence, segment, offset, bytes };
                Place::Journal { position, offset: number(reader)? }
            }
            1 => {
                Place::Stripe { id: StripeId::from_bytes(reader.array()?), offset: number(reader)? }
            }
            _ => return Err(reader.damaged("an unknown place")),
        };
        let piece = Self { place, bytes: number(reader)?, check: reader.u64()? };
        if piece.lies_within() { Ok(piece) } else { Err(reader.damaged("a piece has no room")) }
    }

    /// False if it ends beyond what holds it, as far as the address tells.
    fn lies_within(&self) -> bool {
        match self.place {
            Place::Journal { position, offset } => {
                let ends = offset.checked_add(self.bytes);
                ends.is_some_and(|end| end <= position.bytes)
                    && position.offset.checked_add(position.bytes).is_some()
            }
            Place::Stripe { offset, .. } => offset.checked_add(self.bytes).is_some(),
        }
    }
}

fn number(reader: &mut Reader<'_>) -> Result<u32> {
    u32::try_from(reader.varint()?).map_err(|_| reader.damaged("a number is too large"))
}

impl Row {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.varint(self.version).bytes(&self.body);
        match &self.content {
            None => writer.u8(0),
            Some(content) => {
                content.encode(writer.u8(1));
                writer
            }
        };
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let version = reader.varint()?;
        let body = Bytes::copy_from_slice(reader.bytes()?);
        let content = match reader.u8()? {
            0 => None,
            _ => Some(Content::decode(reader)?),
        };
        Ok(Self { version, body, content })
    }
}
