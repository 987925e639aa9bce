//! What was said last of each drive, kept in a row of the map.

use std::collections::BTreeMap;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{DriveId, Error, Result, codes};
use dwk_pool::{Roster, Seat};
use serde_json::json;

use super::Event;

/// The row: no container or object has a key that begins so.
pub(super) const KEY: &[u8] = b"\x03drives";
/// The version of its body.
const BODY: u8 = 0;
/// What a drive is in service.
const OK: &str = "ok";

/// Drives by identity, each with its name and state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known(BTreeMap<DriveId, (String, String)>);

impl Known {
    /// The drives as they are.
    pub(super) fn now(roster: &Roster) -> Self {
        Self::with(roster, |seat| seat.state.name())
    }

    /// The drives as if all were well: of those that are not, it is to be said.
    pub(super) fn well(roster: &Roster) -> Self {
        Self::with(roster, |_| OK)
    }

    fn with(roster: &Roster, state: impl Fn(&Seat) -> &str) -> Self {
        let seats = roster.seats.iter();
        Self(seats.map(|seat| (seat.id, (seat.name.clone(), state(seat).to_owned()))).collect())
    }

    /// What is to be said if this was said last, and the drives are as `roster` says.
    pub(super) fn news(&self, roster: &Roster) -> Vec<Event> {
        let seats = roster.seats.iter();
        let changed = seats.filter_map(|seat| {
            let (was, state) = (self.0.get(&seat.id), seat.state.name());
            let what = match was {
                None => "added",
                Some((_, was)) if was == state => return None,
                Some(_) if state == OK => "recovered",
                Some(_) => state,
            };
            let was = was.map(|(_, was)| was.as_str());
            Some(event(what, &seat.name, (seat.id, Some(&seat.location)), (Some(state), was)))
        });
        let is_here = |id: &DriveId| roster.seats.iter().any(|seat| seat.id == *id);
        let gone = self.0.iter().filter(|(id, _)| !is_here(id));
        let removed =
            gone.map(|(id, (name, was))| event("removed", name, (*id, None), (None, Some(was))));
        changed.chain(removed).collect()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(BODY).varint(self.0.len() as u64);
        for (id, (name, state)) in &self.0 {
            writer.bytes(id.as_bytes()).str(name).str(state);
        }
        writer.finish()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body, "the row of drives that were spoken of");
        if reader.u8()? != BODY {
            let text = "the row of drives that were spoken of is of another version";
            return Err(Error::new(&codes::FORMAT_NEWER, text));
        }
        let mut known = BTreeMap::new();
        for _ in 0..reader.count(3)? {
            let id = <[u8; 16]>::try_from(reader.bytes()?).map_err(|_| damaged())?;
            let (name, state) = (reader.str()?.to_owned(), reader.str()?.to_owned());
            known.insert(DriveId::from_bytes(id), (name, state));
        }
        reader.end()?;
        Ok(Self(known))
    }
}

fn damaged() -> Error {
    Error::new(&codes::FORMAT_DAMAGED, "the row of drives that were spoken of is damaged")
}

fn event(
    what: &str,
    drive: &str,
    (id, location): (DriveId, Option<&str>),
    (state, was): (Option<&str>, Option<&str>),
) -> Event {
    let data = json!({
        "drive": drive,
        "id": id.to_string(),
        "location": location,
        "state": state,
        "was": was,
    });
    Event {
        subject: format!("drive.{what}"),
        key: Some(drive.to_owned()),
        header: Some(("drive", drive.to_owned())),
        data,
    }
}
