//! Who is in the pool right now: an immutable snapshot that I/O paths take once per operation.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use dwk_base::{DriveId, Epoch, Error, Result, codes};
use dwk_drive::Attached;

/// How a drive is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// In service.
    Ok,
    /// A member that cannot be reached.
    Missing,
    /// It returned an I/O error and is not trusted any more.
    Failed,
    /// It returned damaged bytes; still read, to be scrubbed.
    Suspect,
    /// It was away while the pool moved on and has not been brought up to date yet.
    Stale,
    /// Its shards are being moved away; it takes no new ones.
    Draining,
    /// It belongs to another pool.
    Foreign,
}

impl State {
    /// As status and docs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Failed => "failed",
            Self::Suspect => "suspect",
            Self::Stale => "stale",
            Self::Draining => "draining",
            Self::Foreign => "foreign",
        }
    }

    /// May be read from.
    pub const fn readable(self) -> bool {
        matches!(self, Self::Ok | Self::Suspect | Self::Stale | Self::Draining)
    }

    /// May get new shards.
    pub const fn writable(self) -> bool {
        matches!(self, Self::Ok | Self::Suspect)
    }
}

/// A drive's place in the pool.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Stable number, never re-used: placements are lists of these.
    pub index: u16,
    /// The drive's identity.
    pub id: DriveId,
    /// What people call it: `"d1"`.
    pub name: String,
    /// How it is doing.
    pub state: State,
    /// Drives with an equal value of this fail together; placement spreads over it.
    pub failure_domain: String,
    /// What its owner calls it by.
    pub labels: BTreeMap<String, String>,
    /// Where it was seen last.
    pub location: String,
    /// Its whole size when it was seen last.
    pub capacity_bytes: u64,
    /// It failed because nothing can be written there: what lies there is read where too much is lost without it.
    pub is_last_resort: bool,
    /// The drive, if it is here.
    pub drive: Option<Arc<Attached>>,
}

impl Seat {
    /// The drive if it can be read from.
    pub fn readable(&self) -> Option<&Arc<Attached>> {
        self.drive.as_ref().filter(|_| self.state.readable())
    }

    /// The drive if it is to be read only where too much is lost without it. It is never written to.
    pub fn last_resort(&self) -> Option<&Arc<Attached>> {
        self.drive.as_ref().filter(|_| self.is_last_resort && self.state == State::Failed)
    }

    /// The drive if it can get new shards.
    pub fn writable(&self) -> Option<&Arc<Attached>> {
        self.drive.as_ref().filter(|_| self.state.writable())
    }

    /// Room left beside everything that is on its way there.
    pub fn free_bytes(&self) -> u64 {
        self.drive.as_ref().map_or(0, |drive| drive.room().free_bytes())
    }
}

/// Every seat, in the order of index, at one epoch.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// Membership's version.
    pub epoch: Epoch,
    /// The seats.
    pub seats: Vec<Arc<Seat>>,
}

impl Roster {
    /// The seat with this index, if there ever was one that was not removed.
    pub fn seat(&self, index: u16) -> Option<&Arc<Seat>> {
        self.seats.iter().find(|seat| seat.index == index)
    }

    /// The seat that people call `name`, by name, identity or location.
    ///
    /// # Errors
    /// `drive.unknown`
    pub fn named(&self, name: &str) -> Result<&Arc<Seat>> {
        let matches = |seat: &&Arc<Seat>| {
            seat.name == name || seat.location == name || seat.id.to_string() == name
        };
        self.seats.iter().find(matches).ok_or_else(|| {
            let known: Vec<_> = self.seats.iter().map(|seat| seat.name.as_str()).collect();
            let text = format!("no drive {name:?} in this pool, which has {}", known.join(", "));
            Error::new(&codes::DRIVE_UNKNOWN, text).with("drive", name)
        })
    }

    /// Seats that can get new shards.
    pub fn writable(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.seats.iter().filter(|seat| seat.writable().is_some())
    }
}

/// The current roster, swapped whole.
#[derive(Debug, Default)]
pub struct RosterCell(RwLock<Arc<Roster>>);

impl RosterCell {
    /// Starts with `roster`.
    pub fn new(roster: Roster) -> Self {
        Self(RwLock::new(Arc::new(roster)))
    }

    /// The snapshot of now.
    pub fn load(&self) -> Arc<Roster> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Swaps in another one.
    pub fn store(&self, roster: Roster) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roster);
    }
}

/// Told by the I/O paths about drives that misbehave; decides what to do about them.
pub trait Watch: Send + Sync {
    /// A call failed in a way that the drive is not to be trusted with new data.
    fn failed(&self, index: u16, error: &Error);
    /// The drive returned bytes that are not what was written.
    fn corrupted(&self, index: u16, what: &str);
}
