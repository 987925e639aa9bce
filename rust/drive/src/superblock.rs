//! What a drive knows about itself and its pool: the superblock, in two slots written in turn.
//!
//! The bytes are drawn in `docs/format/superblock.md`.
//!
//! # Consistency
//! A slot counts when its check holds. A superblock is *in force* or only *proposed*; the newest of each is
//! found, and who opens the pool judges them together with those of the other drives. A cut in the middle
//! of a write damages the slot that was being written, never the other.

use std::collections::BTreeMap;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{DriveId, Epoch, Error, PoolId, Result, codes};

use crate::{ALIGNMENT, Drive, SUPERBLOCK_BYTES_MAX, Slot};

/// The version that this build writes, and the only one that it reads.
pub const FORMAT_VERSION: u16 = 0;

const MAGIC: &[u8; 8] = b"DWKSUPER";
/// Magic, version, revision, body length and check lie here in every version, for ever.
const HEADER_BYTES: usize = 64;
/// The check covers the header before it and the body.
const CHECK_AT: usize = 32;

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

/// Where the next superblock of a drive goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    kept: Slot,
    revision: u64,
}

impl SlotState {
    /// Of a drive whose slots are both lost: whatever lies in them is overwritten.
    pub const fn fresh() -> Self {
        Self { kept: Slot::B, revision: 0 }
    }

    /// The slot that is not written next.
    pub const fn kept(&self) -> Slot {
        self.kept
    }

    /// How many superblocks this drive has been given.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// What was written last does not count: the next one takes its slot.
    pub const fn pass_over(&mut self) {
        self.kept = self.kept.other();
    }
}

/// A superblock and the slot in which it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What the slot says.
    pub superblock: Superblock,
    /// The slot.
    pub slot: Slot,
    revision: u64,
}

impl Placed {
    fn order(&self) -> (Epoch, u64) {
        (self.superblock.epoch, self.revision)
    }
}

/// A drive's superblocks as they were found: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The pool that the drive says it belongs to.
    pub pool: PoolId,
    /// Which drive it says it is.
    pub drive: DriveId,
    /// The newest that is in force.
    pub in_force: Option<Placed>,
    /// The newest that is proposed, if it is newer.
    pub proposed: Option<Placed>,
    /// True if a proposal without anything before it lies here and nothing is in force: nobody ever stored
    /// anything on this drive.
    pub is_unborn: bool,
    /// One slot holds something that is not valid: a cut or damage; the next store mends it.
    pub other_damaged: bool,
    revision: u64,
}

/// What one slot holds.
enum Found {
    Nothing,
    Valid { superblock: Box<Superblock>, revision: u64 },
    Newer { version: u16 },
    Damaged(Error),
}

impl Loaded {
    /// Of what is valid, at least one; `None` of nothing.
    fn of(found: Vec<Placed>, other_damaged: bool) -> Option<Self> {
        let revision = found.iter().map(|placed| placed.revision).max()?;
        let latest = found.iter().max_by_key(|placed| (placed.superblock.in_force, placed.order()));
        let (pool, drive) =
            latest.map(|placed| (placed.superblock.pool, placed.superblock.drive))?;
        let first = found.iter().any(|placed| placed.superblock.is_first_proposal());
        let (in_force, proposed): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|placed| placed.superblock.in_force);
        let newest = |placed: Vec<Placed>| placed.into_iter().max_by_key(Placed::order);
        let (in_force, proposed) = (newest(in_force), newest(proposed));
        let is_unborn = first && in_force.is_none();
        let before = in_force.as_ref().map(|placed| placed.superblock.epoch);
        let proposed = proposed.filter(|placed| before.is_none_or(|b| b < placed.superblock.epoch));
        Some(Self { pool, drive, in_force, proposed, is_unborn, other_damaged, revision })
    }

    /// The last epoch that was in force on this drive; 0 if there was none.
    pub fn took_part(&self) -> Epoch {
        match (&self.in_force, &self.proposed) {
            (Some(placed), _) => placed.superblock.epoch,
            (None, Some(placed)) => placed.superblock.took_part,
            (None, None) => Epoch(0),
        }
    }

    /// Where to write: never over the superblock of that edition, in force rather than proposed, and if it
    /// is not here never over what is in force.
    pub fn keeping(&self, edition: &Edition) -> SlotState {
        let both = || [&self.in_force, &self.proposed].into_iter().flatten();
        let named = both().find(|placed| placed.superblock.edition() == *edition);
        let kept = named.or_else(|| both().next()).map_or(Slot::B, |placed| placed.slot);
        SlotState { kept, revision: self.revision }
    }
}

impl Superblock {
    /// Reads both slots; `None` if the drive never had a superblock.
    ///
    /// # Errors
    /// `superblock.damaged` if something is there and nothing is valid; `format.newer` if a valid slot
    /// is of another version or uses features that this build does not know; else what the drive says.
    pub fn load(drive: &dyn Drive) -> Result<Option<Loaded>> {
        let mut valid = Vec::new();
        let mut damage = None;
        for slot in Slot::BOTH {
            match look(drive, slot) {
                Found::Nothing => {}
                Found::Newer { version } => return Err(newer(drive, version)),
                Found::Damaged(error) => damage = Some(error),
                Found::Valid { superblock, revision } => {
                    valid.push(Placed { superblock: *superblock, slot, revision });
                }
            }
        }
        match (Loaded::of(valid, damage.is_some()), damage) {
            (None, Some(error)) => Err(error),
            (loaded, _) => Ok(loaded),
        }
    }

    /// True if a slot is there, none is valid and one was never written whole: the power went while the
    /// drive was given its very first superblock. A slot that cannot be read may be anything.
    pub fn is_torn_first(drive: &dyn Drive) -> bool {
        let there = Slot::BOTH.map(|slot| drive.read_superblock(slot));
        let is_there = there.iter().any(|slot| matches!(slot, Ok(Some(_))));
        let found = Slot::BOTH.map(|slot| look(drive, slot));
        let is_none = |found: &Found| matches!(found, Found::Nothing | Found::Damaged(_));
        is_there
            && there.iter().all(Result::is_ok)
            && found.iter().all(is_none)
            && found.iter().any(|found| matches!(found, Found::Nothing))
    }

    /// Writes this superblock to both slots, so that nothing older is left on the drive. Durable on
    /// return.
    ///
    /// # Errors
    /// `buffer.length` if it does not fit a slot; else what the drive says.
    pub fn create(&self, drive: &dyn Drive) -> Result<SlotState> {
        let mut state = SlotState::fresh();
        self.store(drive, &mut state)?;
        self.store(drive, &mut state)?;
        Ok(state)
    }

    /// Writes this superblock to the slot that is not kept, which is the kept one from then on. Durable on
    /// return; after an error `state` is as it was.
    ///
    /// # Errors
    /// `buffer.length` if it does not fit a slot; else what the drive says.
    pub fn store(&self, drive: &dyn Drive, state: &mut SlotState) -> Result<()> {
        let next = SlotState { kept: state.kept.other(), revision: state.revision + 1 };
        drive.write_superblock(next.kept, &self.encode(next.revision)?)?;
        *state = next;
        Ok(())
    }

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
    /// `buffer.length` if they are more than [`SUPERBLOCK_BYTES_MAX`].
    pub fn encode(&self, revision: u64) -> Result<Vec<u8>> {
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
            epoch: Epoch(reader.u64()?),
            created_unix_ns: reader.u64()?,
            written_unix_ns: reader.u64()?,
            clean: flag(&mut reader)?,
            in_force: flag(&mut reader)?,
            took_part: Epoch(reader.u64()?),
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
        let epoch = Epoch(reader.u64()?);
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

fn pair(reader: &mut Reader<'_>) -> Result<(String, String)> {
    Ok((reader.str()?.to_owned(), reader.str()?.to_owned()))
}

fn edition(reader: &mut Reader<'_>) -> Result<Edition> {
    Ok(Edition { epoch: Epoch(reader.u64()?), digest: reader.array()? })
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

fn look(drive: &dyn Drive, slot: Slot) -> Found {
    match drive.read_superblock(slot) {
        Err(error) => Found::Damaged(error),
        Ok(None) => Found::Nothing,
        // A slot that was made but not yet written when the power went.
        Ok(Some(bytes)) if bytes.iter().all(|byte| *byte == 0) => Found::Nothing,
        Ok(Some(bytes)) => parse(&bytes).unwrap_or_else(|error| {
            let message = format!("superblock slot {slot:?} of {} is damaged", location(drive));
            Found::Damaged(Error::new(&codes::SUPERBLOCK_DAMAGED, message).caused_by(error))
        }),
    }
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
    Ok(Found::Valid { superblock: Box::new(superblock), revision })
}

fn newer(drive: &dyn Drive, version: u16) -> Error {
    let message = format!(
        "{} holds format version {version} or features beyond this build, which knows version {FORMAT_VERSION}",
        location(drive)
    );
    Error::new(&codes::FORMAT_NEWER, message).with("version", version)
}

fn location(drive: &dyn Drive) -> String {
    drive.describe().location
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Entry, MemoryDrive};

    fn sample(epoch: u64) -> Superblock {
        let row = |index: u16| MemberRow {
            index,
            id: DriveId::from_u128(u128::from(index) + 1),
            name: format!("d{}", index + 1),
            state: MemberState::from_byte(index as u8 % 5).unwrap(),
            location: format!("/mnt/d{index}"),
            labels: BTreeMap::from([("rack".to_owned(), index.to_string())]),
            capacity_bytes: 1 << 40,
            epoch: Epoch(4),
        };
        Superblock {
            format_version: FORMAT_VERSION,
            features: Features::default(),
            pool: PoolId::from_u128(7),
            drive: DriveId::from_u128(1),
            epoch: Epoch(epoch),
            created_unix_ns: 1,
            written_unix_ns: 2,
            clean: true,
            in_force: true,
            took_part: Epoch(epoch),
            follows: vec![Edition { epoch: Epoch(4), digest: [9; 32] }],
            geometry: "4+2".to_owned(),
            members: (0..6).map(row).collect(),
            journal: (1..4).map(DriveId::from_u128).collect(),
            keyring: vec![1, 2, 3],
            options: vec![("block_bytes".to_owned(), "65536".to_owned())],
        }
    }

    fn load(drive: &MemoryDrive) -> Loaded {
        Superblock::load(drive).unwrap().unwrap()
    }

    /// What is in force, on a drive that holds nothing else.
    fn in_force(drive: &MemoryDrive) -> Superblock {
        let loaded = load(drive);
        assert_eq!(loaded.proposed, None);
        loaded.in_force.unwrap().superblock
    }

    fn proposal(epoch: u64) -> Superblock {
        Superblock { in_force: false, took_part: Epoch(1), ..sample(epoch) }
    }

    #[test]
    fn an_empty_drive_has_no_superblock() {
        let drive = MemoryDrive::new("d");
        assert_eq!(Superblock::load(&drive).unwrap(), None);
        drive.set_raw(&Entry::SuperblockA, Some(vec![0; 4096]));
        assert_eq!(Superblock::load(&drive).unwrap(), None);
    }

    #[test]
    fn slots_are_written_in_turn_and_the_latest_wins() {
        let drive = MemoryDrive::new("d");
        let mut state = sample(1).create(&drive).unwrap();
        for epoch in [1, 1, 2, 3, 3] {
            let mut superblock = sample(epoch);
            superblock.written_unix_ns = state.revision() + 100;
            let before = state.kept();
            superblock.store(&drive, &mut state).unwrap();
            assert_ne!(before, state.kept());
            assert_eq!(in_force(&drive), superblock);
            assert_eq!(load(&drive).keeping(&superblock.edition()), state);
            assert!(!load(&drive).other_damaged);
        }
    }

    #[test]
    fn creating_leaves_nothing_of_an_older_pool() {
        let drive = MemoryDrive::new("d");
        sample(900).create(&drive).unwrap();
        let young = Superblock { pool: PoolId::from_u128(8), ..sample(1) };
        young.create(&drive).unwrap();
        assert_eq!(in_force(&drive), young);
    }

    #[test]
    fn a_torn_write_leaves_the_other_slot_and_is_mended_by_the_next() {
        let drive = MemoryDrive::new("d");
        let mut state = sample(1).create(&drive).unwrap();
        sample(2).store(&drive, &mut state).unwrap();
        let torn = if state.kept() == Slot::A { Entry::SuperblockA } else { Entry::SuperblockB };
        let mut bytes = drive.raw(&torn).unwrap();
        bytes[100..].fill(0);
        drive.set_raw(&torn, Some(bytes));
        assert!(load(&drive).other_damaged);
        assert_eq!(in_force(&drive), sample(1));
        let mut state = load(&drive).keeping(&sample(1).edition());
        sample(3).store(&drive, &mut state).unwrap();
        assert!(!load(&drive).other_damaged);
        assert_eq!(in_force(&drive), sample(3));
    }

    #[test]
    fn a_proposal_stands_beside_what_is_in_force_until_it_is_in_force_itself() {
        let drive = MemoryDrive::new("d");
        let mut state = sample(1).create(&drive).unwrap();
        // Tries that do not count never reach the slot of what is in force.
        for epoch in [2, 3] {
            proposal(epoch).store(&drive, &mut state).unwrap();
            state.pass_over();
            let loaded = load(&drive);
            assert_eq!(loaded.keeping(&sample(1).edition()), state);
            assert_eq!(loaded.took_part(), Epoch(1));
            assert_eq!(loaded.in_force.unwrap().superblock, sample(1));
            assert_eq!(loaded.proposed.unwrap().superblock, proposal(epoch));
        }
        proposal(4).store(&drive, &mut state).unwrap();
        assert_eq!(load(&drive).keeping(&sample(4).edition()), state);
        sample(4).store(&drive, &mut state).unwrap();
        assert_eq!(in_force(&drive), sample(4), "its proposal is no news");
        assert_eq!(load(&drive).keeping(&sample(4).edition()), state);
    }

    #[test]
    fn an_edition_is_the_same_on_every_drive_and_in_every_standing_and_for_no_other_content() {
        let elsewhere = Superblock { drive: DriveId::from_u128(5), ..proposal(2) };
        assert_eq!(elsewhere.edition(), sample(2).edition());
        let other = Superblock { written_unix_ns: 3, ..sample(2) };
        assert_ne!(other.edition(), sample(2).edition());
        let other = Superblock { follows: vec![], ..sample(2) };
        assert_ne!(other.edition(), sample(2).edition());
    }

    #[test]
    fn a_drive_is_unborn_while_nothing_was_in_force_and_torn_before_its_first_is_whole() {
        let drive = MemoryDrive::new("d");
        assert!(!Superblock::is_torn_first(&drive));
        drive.set_raw(&Entry::SuperblockA, Some(vec![7; 4096]));
        assert!(Superblock::is_torn_first(&drive));
        drive.set_raw(&Entry::SuperblockA, Some(vec![0; 4096]));
        assert!(Superblock::is_torn_first(&drive));
        let first = Superblock { follows: vec![], ..proposal(1) };
        let mut state = first.create(&drive).unwrap();
        assert!(load(&drive).is_unborn);
        proposal(2).store(&drive, &mut state).unwrap();
        assert!(load(&drive).is_unborn);
        state.pass_over();
        Superblock { follows: vec![], ..sample(1) }.store(&drive, &mut state).unwrap();
        assert!(!load(&drive).is_unborn);
        drive.set_raw(&Entry::SuperblockA, Some(vec![7; 4096]));
        assert!(!Superblock::is_torn_first(&drive));
        let drive = MemoryDrive::new("d");
        proposal(2).create(&drive).unwrap();
        assert!(!load(&drive).is_unborn, "it was made from another one");
    }

    #[test]
    fn both_damaged_is_refused() {
        let drive = MemoryDrive::new("d");
        sample(1).create(&drive).unwrap();
        for entry in [Entry::SuperblockA, Entry::SuperblockB] {
            drive.flip(&entry, 70, 1);
        }
        assert!(Superblock::load(&drive).unwrap_err().is(&codes::SUPERBLOCK_DAMAGED));
    }

    #[test]
    fn another_version_and_unknown_features_are_refused_by_name() {
        let incompatible = Features { incompatible: 4, ..Features::default() };
        let foreign = [
            Superblock { format_version: 1, ..sample(1) },
            Superblock { features: incompatible, ..sample(1) },
        ];
        for superblock in foreign {
            let drive = MemoryDrive::new("d");
            superblock.create(&drive).unwrap();
            assert!(Superblock::load(&drive).unwrap_err().is(&codes::FORMAT_NEWER));
        }
        let read_only = Features { read_only: 1, ..Features::default() };
        let drive = MemoryDrive::new("d");
        Superblock { features: read_only, ..sample(1) }.create(&drive).unwrap();
        assert!(!in_force(&drive).writable());
    }

    #[test]
    fn what_does_not_fit_a_slot_is_refused() {
        let huge = Superblock { keyring: vec![0; SUPERBLOCK_BYTES_MAX], ..sample(1) };
        assert!(huge.encode(1).unwrap_err().is(&codes::BUFFER_LENGTH));
    }

    #[test]
    fn any_single_flip_in_either_slot_yields_a_stored_superblock() {
        let bytes = sample(2).encode(2).unwrap();
        let used = HEADER_BYTES + sample(2).encode_body().len();
        for slot in [Entry::SuperblockA, Entry::SuperblockB] {
            let drive = MemoryDrive::new("d");
            let mut state = sample(1).create(&drive).unwrap();
            sample(2).store(&drive, &mut state).unwrap();
            for bit in 0..bytes.len() * 8 {
                drive.flip(&slot, bit / 8, 1 << (bit % 8));
                let hit_the_later = slot == Entry::SuperblockA && bit / 8 < used;
                assert_eq!(in_force(&drive), sample(if hit_the_later { 1 } else { 2 }), "{bit}");
                assert_eq!(load(&drive).other_damaged, bit / 8 < used, "{bit}");
                drive.flip(&slot, bit / 8, 1 << (bit % 8));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bodies_that_are_no_superblock_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Superblock::decode_body(&body, FORMAT_VERSION);
        }

        #[test]
        fn changed_bodies_never_panic(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
            let mut body = sample(1).encode_body();
            let at = at % body.len();
            body[at] = byte;
            body.truncate(body.len().saturating_sub(cut));
            let _ = Superblock::decode_body(&body, FORMAT_VERSION);
        }

        #[test]
        fn what_is_written_is_read(
            epoch in any::<u64>(), revision in any::<u64>(), text in "\\PC*", clean in any::<bool>(),
            keyring in prop::collection::vec(any::<u8>(), 0..500), members in 0u16..40,
            in_force in any::<bool>(), follows in prop::collection::vec((any::<u64>(), any::<[u8; 32]>()), 0..9),
        ) {
            let mut superblock = sample(epoch);
            (superblock.clean, superblock.in_force) = (clean, in_force);
            let editions = follows.into_iter();
            superblock.follows = editions.map(|(epoch, digest)| Edition { epoch: Epoch(epoch), digest }).collect();
            superblock.keyring = keyring;
            superblock.geometry.clone_from(&text);
            superblock.options.push((text.clone(), text));
            let row = superblock.members[0].clone();
            superblock.members = (0..members).map(|index| MemberRow { index, ..row.clone() }).collect();
            let bytes = superblock.encode(revision).unwrap();
            prop_assert!(bytes.len().is_multiple_of(ALIGNMENT));
            match parse(&bytes) {
                Ok(Found::Valid { superblock: read, revision: number }) => {
                    prop_assert_eq!(*read, superblock);
                    prop_assert_eq!(number, revision);
                }
                _ => prop_assert!(false, "not valid"),
            }
        }
    }
}
