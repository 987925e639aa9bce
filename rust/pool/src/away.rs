//! Drives that an opening could not use: what that says of their seats, and of the opening if there are
//! no others.

use std::collections::BTreeMap;

use dwk_base::{DriveId, Error, PoolId, codes};
use dwk_drive::MemberState;

use crate::membership::{Remark, Table};

/// Where a drive should be, and why it cannot be used.
#[derive(Debug, Default)]
pub(crate) struct Away(Vec<(String, Error)>);

impl Away {
    pub(crate) fn new(found: Vec<(String, Error)>) -> Self {
        Self(found)
    }

    pub(crate) fn push(&mut self, location: String, error: Error) {
        self.0.push((location, error));
    }

    /// True if creating a pool on one of them did not finish.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.0.iter().any(|(_, error)| error.is(&codes::STORE_UNFINISHED))
    }

    /// What to say if no drive is left to open: the most telling of the reasons.
    pub(crate) fn refusal(&self, expected: Option<PoolId>) -> Error {
        // Of a pool that was made, nothing lies on a drive of one that was not.
        let other = |error: &&Error| expected.is_some() && error.is(&codes::STORE_UNFINISHED);
        let errors = self.0.iter().map(|(_, error)| error).filter(|error| !other(error));
        let telling = errors.min_by_key(|error| rank(error));
        match telling {
            Some(error) if rank(error) < RANK_MISSING => error.clone(),
            // A store that is known to be somewhere is not one that is yet to be made.
            _ if expected.is_some() && !self.0.is_empty() => {
                let places: Vec<_> = self.0.iter().map(|(place, _)| place.as_str()).collect();
                let text = format!("none of the drives is here: {}", places.join(", "));
                Error::new(&codes::DRIVES_TOO_MANY_LOST, text).with("missing", places.len())
            }
            Some(error) if rank(error) == RANK_MISSING => error.clone(),
            _ => Error::new(&codes::STORE_NOT_FOUND, "no drive carries a pool"),
        }
    }

    /// Tells the seats whose drives these are; what has no seat is a warning.
    pub(crate) fn tell(
        self,
        table: &mut Table,
        places: &BTreeMap<String, DriveId>,
        warnings: &mut Vec<String>,
    ) {
        for (location, error) in self.0 {
            let id = seat_at(table, &location, places);
            match (id, remark(&location, &error)) {
                (Some(id), Some(remark)) => {
                    table.remarks.insert(id, remark);
                }
                (None, Some(remark)) => warnings.push(remark.text),
                (_, None) => {}
            }
        }
    }
}

/// The member without a drive that lay at `location`, as somebody remembers or as its row says.
pub(crate) fn seat_at(
    table: &Table,
    location: &str,
    places: &BTreeMap<String, DriveId>,
) -> Option<DriveId> {
    let remembered = places.get(location);
    let mut rows =
        table.superblock.members.iter().filter(|row| {
            row.state != MemberState::Removed && !table.present.contains_key(&row.id)
        });
    let row = rows.find(|row| match remembered {
        Some(id) => row.id == *id,
        None => row.location == location,
    });
    row.map(|row| row.id)
}

const RANK_MISSING: u8 = 3;

/// How little an error says about why nothing can be opened.
fn rank(error: &Error) -> u8 {
    if error.is(&codes::DRIVE_READ_ONLY) || error.is(&codes::STORE_UNFINISHED) {
        0
    } else if error.is(&codes::DRIVE_FOREIGN) {
        2
    } else if error.is(&codes::DRIVE_MISSING) {
        RANK_MISSING
    } else if error.is(&codes::STORE_NOT_FOUND) {
        RANK_MISSING + 1
    } else {
        1
    }
}

/// What is worth saying; that a drive is not there its state says.
fn remark(location: &str, error: &Error) -> Option<Remark> {
    let (text, cure) = if error.is(&codes::DRIVE_MISSING) {
        return None;
    } else if error.is(&codes::DRIVE_FOREIGN) {
        (format!("{location} holds a drive of another pool"), "put the right one back")
    } else if error.is(&codes::STORE_NOT_FOUND) {
        (format!("{location} is empty and not taken for it"), "bring it back")
    } else if error.is(&codes::STORE_UNFINISHED) {
        (
            format!("{location} is of a pool that was not made, and not taken for it"),
            "bring it back",
        )
    } else if error.is(&codes::DRIVE_READ_ONLY) {
        (format!("{location} is read-only: {}", error.message()), "make it writable")
    } else {
        (format!("{location} cannot be used: {}", error.message()), "mend that")
    };
    Some(Remark { is_foreign: error.is(&codes::DRIVE_FOREIGN), text, cure: Some(cure) })
}
