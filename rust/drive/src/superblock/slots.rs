//! The two slots of a drive: what lies in them, and which one is written next.

use dwk_base::{DriveId, Epoch, Error, PoolId, Result, codes};

use super::{Edition, FORMAT_VERSION, Superblock, parse};
use crate::{Drive, Slot};

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
pub(super) enum Found {
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

    /// The last epoch that lies on this drive, in force or proposed.
    pub fn has(&self) -> Epoch {
        let both = [&self.in_force, &self.proposed].into_iter().flatten();
        both.map(|placed| placed.superblock.epoch).max().unwrap_or_default()
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
    /// is of another version or uses features that this build does not know; `process.exhausted` if a slot
    /// could not be opened for want of descriptors; else what the drive says.
    pub fn load(drive: &dyn Drive) -> Result<Option<Loaded>> {
        let mut valid = Vec::new();
        let mut damage = None;
        for slot in Slot::BOTH {
            match look(drive, slot) {
                Found::Nothing => {}
                Found::Newer { version } => return Err(newer(drive, version)),
                // The slot may be well, and the newer of the two.
                Found::Damaged(error) if error.is(&codes::PROCESS_EXHAUSTED) => return Err(error),
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
    ///
    /// # Errors
    /// Those of the process: they say nothing about the slots.
    pub fn is_torn_first(drive: &dyn Drive) -> Result<bool> {
        let there = Slot::BOTH.map(|slot| drive.read_superblock(slot));
        if let Some(error) =
            there.iter().filter_map(|read| read.as_ref().err()).find(|e| e.is_of_process())
        {
            return Err(error.clone());
        }
        let is_there = there.iter().any(|slot| matches!(slot, Ok(Some(_))));
        let found = Slot::BOTH.map(|slot| look(drive, slot));
        let is_none = |found: &Found| matches!(found, Found::Nothing | Found::Damaged(_));
        Ok(is_there
            && there.iter().all(Result::is_ok)
            && found.iter().all(is_none)
            && found.iter().any(|found| matches!(found, Found::Nothing)))
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
