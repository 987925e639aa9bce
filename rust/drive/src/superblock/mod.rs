//! What a drive knows about itself and its pool: the superblock, in two slots written in turn.
//!
//! The bytes are drawn in `docs/format/superblock.md`.
//!
//! # Consistency
//! A slot counts when its check holds. A superblock is *in force* or only *proposed*; the newest of each is
//! found, and who opens the pool judges them together with those of the other drives. A cut in the middle
//! of a write damages the slot that was being written, never the other.

mod slots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{DriveId, Epoch, Error, PoolId, Result, codes};

use crate::{ALIGNMENT, SUPERBLOCK_BYTES_MAX};

use slots::Found;
pub use slots::{Loaded, Placed, SlotState};

/// The version that this build writes, and the only one that it reads.
pub const FORMAT_VERSION: u16 = 0;

const MAGIC: &[u8; 8] = b"DWKSUPER";
/// Magic, version, revision, body length and check lie here in every version, for ever.
const HEADER_BYTES: usize = 64;
/// The check covers the header before it and the body.
const CHECK_AT: usize = 32;
/// No drive gets beyond it, one by one: a higher revision was made up.
const REVISION_LAST: u64 = u64::MAX / 2;

/// Bits that say what the format uses beyond its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// May be ignored.
    pub compatible: u64,
    /// Who does not know one of these may read, not write.
    pub read_only: u64,
    /// Who does not know one of these must not open.
    pub incompatible: u64,
}

/// How a member was doing when the superblock was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MemberState {
    /// In service.
    Ok = 0,
    /// Evicted: it returned an error.
    Failed = 1,
    /// It was away while the pool moved on.
    Stale = 2,
    /// Its shards are being moved away.
    Draining = 3,
    /// No member any more; the row keeps its index from being used again.
    Removed = 4,
}

impl MemberState {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Ok, Self::Failed, Self::Stale, Self::Draining, Self::Removed]
            .into_iter()
            .find(|state| *state as u8 == byte)
    }
}

/// One drive of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// Stable number, never used again.
    pub index: u16,
    /// The drive's identity.
    pub id: DriveId,
    /// What people call it: `"d1"`.
    pub name: String,
    /// How it is doing.
    pub state: MemberState,
    /// Where it was seen last; a hint.
    pub location: String,
    /// What its owner calls it by.
    pub labels: BTreeMap<String, String>,
    /// Its whole size when it was seen last.
    pub capacity_bytes: u64,
    /// The last epoch that was meant for it. A drive on which a lower one is in force is stale; one on which
    /// a higher one is went on by itself and is never merged.
    pub epoch: Epoch,
}

/// One state of a pool's membership, by its number and its content: numbers alone are drawn twice when
/// drives go on without each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edition {
    /// Membership's version.
    pub epoch: Epoch,
    /// BLAKE3 of what all drives share of it.
    pub digest: [u8; 32],
}

/// What each drive of a pool carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// [`FORMAT_VERSION`]
    pub format_version: u16,
    /// Feature bits.
    pub features: Features,
    /// The pool.
    pub pool: PoolId,
    /// The drive it lies on.
    pub drive: DriveId,
    /// Membership's version.
    pub epoch: Epoch,
    /// When the pool was made, in nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// When this was written, in nanoseconds since 1970.
    pub written_unix_ns: u64,
    /// True if the pool was closed and nothing has been written since.
    pub clean: bool,
    /// False while it is only proposed: it does not count unless it has to, see `docs/format/superblock.md`.
    pub in_force: bool,
    /// The last epoch that was in force on the drive that it lies on: its own if it is in force.
    pub took_part: Epoch,
    /// What it was made from: first the edition that was in force, then proposals that may have become so
    /// where nobody saw it. Empty for a pool's first.
    pub follows: Vec<Edition>,
    /// The geometry, as it prints.
    pub geometry: String,
    /// All members that there ever were.
    pub members: Vec<MemberRow>,
    /// The drives that hold the journal.
    pub journal: Vec<DriveId>,
    /// Wrapped keys, sealed elsewhere; opaque here.
    pub keyring: Vec<u8>,
    /// Further settings of the pool.
    pub options: Vec<(String, String)>,
}

impl Superblock {
    /// Which edition it is: the same on every drive, proposed or in force.
    pub fn edition(&self) -> Edition {
        let (drive, in_force, took_part) = (DriveId::default(), false, Epoch(0));
        let shared = Self { drive, in_force, took_part, ..self.clone() };
        Edition { epoch: self.epoch, digest: dwk_chunk::blake3(&shared.encode_body()) }
    }

    /// True for what is proposed with nothing in force before it.
    pub const fn is_first_proposal(&self) -> bool {
        !self.in_force && self.follows.is_empty()
    }

    /// True if this build knows every feature that a writer must know.
    pub const fn writable(&self) -> bool {
        self.features.read_only == 0
    }

    /// The member with this identity.
    pub fn member(&self, id: DriveId) -> Option<&MemberRow> {
        self.members.iter().find(|row| row.id == id)
    }

    /// The bytes of a slot: padded to a multiple of [`ALIGNMENT`].
    ///
    /// # Errors
    /// `buffer.length` if they are more than [`SUPERBLOCK_BYTES_MAX`]; `superblock.damaged` if nobody would read them, because
    /// the epoch or the revision that this one follows was made up.
    pub fn encode(&self, revision: u64) -> Result<Vec<u8>> {
        if self.epoch > Epoch::LAST || revision > REVISION_LAST {
            let last = if revision > REVISION_LAST { "revision" } else { "epoch" };
            let message = format!(
                "no {last} can follow that of a superblock here: it was made up, open without the drive that has it"
            );
            return Err(Error::new(&codes::SUPERBLOCK_DAMAGED, message));
        }
        let body = self.encode_body();
        let mut writer = Writer::with_capacity(HEADER_BYTES + body.len());
        writer
            .raw(MAGIC)
            .u16(self.format_version)
            .u16(0)
            .u32(body.len() as u32)
            .u64(revision)
            .u64(0);
        let check = check(writer.as_slice(), &body);
        writer.raw(&check).raw(&body);
        let padded = writer.len().next_multiple_of(ALIGNMENT);
        if padded > SUPERBLOCK_BYTES_MAX {
            let message = format!("a superblock of {padded} bytes does not fit its slot");
            return Err(Error::new(&codes::BUFFER_LENGTH, message));
        }
        writer.pad_to(padded);
        Ok(writer.finish())
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let Features { compatible, read_only, incompatible } = self.features;
        writer.u64(compatible).u64(read_only).u64(incompatible);
        writer.raw(self.pool.as_bytes()).raw(self.drive.as_bytes()).u64(self.epoch.0);
        writer.u64(self.created_unix_ns).u64(self.written_unix_ns).u8(u8::from(self.clean));
        writer.u8(u8::from(self.in_force)).u64(self.took_part.0);
        writer.varint(self.follows.len() as u64);
        for edition in &self.follows {
            writer.u64(edition.epoch.0).raw(&edition.digest);
        }
        writer.str(&self.geometry).varint(self.members.len() as u64);
        for member in &self.members {
            member.encode(&mut writer);
        }
        writer.varint(self.journal.len() as u64);
        for id in &self.journal {
            writer.raw(id.as_bytes());
        }
        writer.bytes(&self.keyring).varint(self.options.len() as u64);
        for (name, value) in &self.options {
            writer.str(name).str(value);
        }
        writer.finish()
    }

    fn decode_body(body: &[u8], format_version: u16) -> Result<Self> {
        let mut reader = Reader::new(body, "the superblock");
        let features = Features {
            compatible: reader.u64()?,
            read_only: reader.u64()?,
            incompatible: reader.u64()?,
        };
        let superblock = Self {
            format_version,
            features,
            pool: PoolId::from_bytes(reader.array()?),
            drive: DriveId::from_bytes(reader.array()?),
            epoch: epoch(&mut reader)?,
            created_unix_ns: reader.u64()?,
            written_unix_ns: reader.u64()?,
            clean: flag(&mut reader)?,
            in_force: flag(&mut reader)?,
            took_part: epoch(&mut reader)?,
            follows: list(&mut reader, 8 + 32, edition)?,
            geometry: reader.str()?.to_owned(),
            members: list(&mut reader, MemberRow::BYTES_MIN, MemberRow::decode)?,
            journal: list(&mut reader, 16, |reader| reader.array().map(DriveId::from_bytes))?,
            keyring: reader.bytes()?.to_vec(),
            options: list(&mut reader, 2, pair)?,
        };
        // A compatible feature may have put fields of its own after ours.
        if features.compatible == 0 {
            reader.end()?;
        }
        Ok(superblock)
    }
}

impl MemberRow {
    /// What a row takes at least: index, identity, state, capacity, epoch and three empty fields.
    const BYTES_MIN: usize = 2 + 16 + 1 + 8 + 8 + 3;

    fn encode(&self, writer: &mut Writer) {
        writer
            .u16(self.index)
            .raw(self.id.as_bytes())
            .u8(self.state as u8)
            .u64(self.capacity_bytes)
            .u64(self.epoch.0);
        writer.str(&self.name).str(&self.location).varint(self.labels.len() as u64);
        for (name, value) in &self.labels {
            writer.str(name).str(value);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let index = reader.u16()?;
        let id = DriveId::from_bytes(reader.array()?);
        let state = MemberState::from_byte(reader.u8()?)
            .ok_or_else(|| reader.damaged("a member's state is unknown"))?;
        let capacity_bytes = reader.u64()?;
        let epoch = epoch(reader)?;
        let name = reader.str()?.to_owned();
        let location = reader.str()?.to_owned();
        let labels = list(reader, 2, pair)?.into_iter().collect();
        Ok(Self { index, id, name, state, location, labels, capacity_bytes, epoch })
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.damaged("a flag is neither 0 nor 1")),
    }
}

fn epoch(reader: &mut Reader<'_>) -> Result<Epoch> {
    let epoch = Epoch(reader.u64()?);
    if epoch > Epoch::LAST {
        return Err(reader.damaged("no pool gets to such an epoch"));
    }
    Ok(epoch)
}

fn pair(reader: &mut Reader<'_>) -> Result<(String, String)> {
    Ok((reader.str()?.to_owned(), reader.str()?.to_owned()))
}

fn edition(reader: &mut Reader<'_>) -> Result<Edition> {
    Ok(Edition { epoch: epoch(reader)?, digest: reader.array()? })
}

fn list<T>(
    reader: &mut Reader<'_>,
    bytes_each: usize,
    item: impl Fn(&mut Reader<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = reader.count(bytes_each)?;
    (0..count).map(|_| item(reader)).collect()
}

fn check(header: &[u8], body: &[u8]) -> [u8; 32] {
    dwk_chunk::blake3(&[header, body].concat())
}

fn parse(bytes: &[u8]) -> Result<Found> {
    let mut reader = Reader::new(bytes, "the superblock");
    if reader.raw(MAGIC.len())? != MAGIC {
        return Err(reader.damaged("it does not begin as one"));
    }
    let version = reader.u16()?;
    let _reserved = reader.u16()?;
    let body_bytes = reader.u32()? as usize;
    let revision = reader.u64()?;
    let _reserved = reader.u64()?;
    let expected = reader.array::<32>()?;
    let body = reader.raw(body_bytes)?;
    if check(&bytes[..CHECK_AT], body) != expected {
        return Err(reader.damaged("its check does not match"));
    }
    if version != FORMAT_VERSION {
        return Ok(Found::Newer { version });
    }
    let superblock = Superblock::decode_body(body, version)?;
    if superblock.features.incompatible != 0 {
        return Ok(Found::Newer { version });
    }
    if revision > REVISION_LAST {
        return Err(reader.damaged("no drive gets to such a revision"));
    }
    Ok(Found::Valid { superblock: Box::new(superblock), revision })
}
