//! What to do, in sentences for people: one for each drive that is not well, the most urgent first.

use std::collections::BTreeMap;

use dwk_base::DriveId;

use crate::membership::Remark;
use crate::open::LONE_HALF;
use crate::replace::REPLACED;
use crate::{Answers, DriveStatus, State};

/// So many answers of a drive must have been late before somebody is told,
const LATE_MIN: u64 = 100;
/// and one in so many.
const LATE_PART: u64 = 20;

/// What advice depends on besides the drives' states.
pub(crate) struct Advising<'a> {
    pub(crate) remarks: &'a BTreeMap<DriveId, Remark>,
    /// Why the pool can only be read.
    pub(crate) read_only: Option<&'a str>,
}

impl Advising<'_> {
    pub(crate) fn all(
        &self,
        drives: &[DriveStatus],
        degraded: u64,
        lost: u64,
        short: bool,
    ) -> Vec<String> {
        let mut advice = Vec::new();
        if lost > 0 {
            advice.push(format!("{lost} stripes cannot be read: {}", back_first(drives)));
        }
        // While something is lost, who is gone is not to be replaced but found.
        let heeded = drives.iter().filter(|drive| lost == 0 || drive.state.readable());
        let heeded = heeded.filter(|drive| !is_stranded(drive, drives));
        advice.extend(heeded.filter_map(|drive| self.one(drive)));
        if degraded > 0 && advice.is_empty() {
            advice.push(format!("{degraded} stripes miss a shard: run `rebuild`"));
        }
        if short && advice.is_empty() {
            let could = |drive: &DriveStatus| drive.state.writable() && !drive.journal;
            let how = if drives.iter().any(could) {
                "run `rebuild` to make another"
            } else {
                "replace the drives that are full or failed"
            };
            advice.push(format!("the journal has fewer copies than it should: {how}"));
        }
        advice
    }

    fn one(&self, drive: &DriveStatus) -> Option<String> {
        let name = &drive.name;
        if let Some(name) = replaced_by(drive) {
            return Some(format!("{name} is being replaced: run `rebuild` to finish"));
        }
        let remark = self.remarks.get(&drive.id);
        Some(match drive.state {
            State::Missing | State::Foreign => self.absent(drive, remark),
            State::Failed if drive.is_last_resort => format!(
                "{name} cannot be written to any more; what lies on it is still read where nothing else is left: run `drive replace {name} NEW` with an empty drive before it goes"
            ),
            State::Failed => {
                format!("{name} failed: run `drive replace {name} NEW` with an empty drive")
            }
            State::Suspect => {
                format!("{name} returned damaged data: run `scrub`, and watch the drive")
            }
            State::Stale => self.stale(drive, remark),
            State::Draining => format!("{name} is being emptied: run `rebuild` to finish"),
            State::Ok => {
                let Remark { text, cure, .. } = remark?;
                let cure = cure.unwrap_or("replace it");
                format!(
                    "{name} is well now and will not be when the pool is written to: {text}: {cure}"
                )
            }
        })
    }

    fn absent(&self, drive: &DriveStatus, remark: Option<&Remark>) -> String {
        let DriveStatus { name, location, state, .. } = drive;
        let state = state.name();
        let (text, cure) = match remark {
            None => (String::new(), Some(format!("bring {location} back"))),
            Some(remark) => (format!(", {}", remark.text), remark.cure.map(str::to_owned)),
        };
        let cure = cure.map(|cure| format!("{cure} and open again, or "));
        let cure = cure.unwrap_or_default();
        // A half that is only read refuses to have a drive replaced.
        let otherwise = if self.read_only == Some(LONE_HALF) {
            "open with force if it is lost for good".to_owned()
        } else {
            format!("run `drive replace {name} NEW` with an empty drive")
        };
        format!("{name} is {state}{text}: {cure}{otherwise}")
    }

    fn stale(&self, drive: &DriveStatus, remark: Option<&Remark>) -> String {
        let name = &drive.name;
        match remark {
            Some(Remark { text, cure, .. }) => {
                let cure = cure.unwrap_or("replace it");
                format!("{name} is not up to date, and {text}: {cure} and open again")
            }
            None if self.read_only.is_some() => {
                format!("{name} was away: it is brought up to date at the next opening for writing")
            }
            None => {
                format!("{name} was away and is not up to date yet: `rebuild` ends that soonest")
            }
        }
    }
}

/// The name of the drive that takes this one's place.
fn replaced_by(drive: &DriveStatus) -> Option<&str> {
    drive.labels.contains_key(REPLACED).then(|| drive.name.trim_end_matches(".old"))
}

/// True if the drive is being replaced by one that failed or is away: what helps that one helps both.
fn is_stranded(drive: &DriveStatus, drives: &[DriveStatus]) -> bool {
    let is_next = |name, other: &DriveStatus| other.name == name && !other.state.readable();
    replaced_by(drive).is_some_and(|name| drives.iter().any(|other| is_next(name, other)))
}

/// What to do about a drive that is late often; `None` if it is not, or not well: then there is more to say.
pub(crate) fn slow(drive: &DriveStatus) -> Option<String> {
    let Answers { all, late } = drive.answers;
    let is_often = late >= LATE_MIN && late >= all / LATE_PART;
    (is_often && drive.state == State::Ok).then(|| {
        format!(
            "{} gave {late} of {all} answers later than the others usually do, and reads go around it: look at the disk and its cable, or replace it",
            drive.name
        )
    })
}

/// Names what would help.
fn back_first(drives: &[DriveStatus]) -> String {
    let gone = drives.iter().filter(|drive| !drive.state.readable());
    let gone: Vec<_> = gone.map(|drive| format!("{} ({})", drive.name, drive.location)).collect();
    if gone.is_empty() {
        return "run `scrub`, and restore from elsewhere what it names".to_owned();
    }
    format!("bring {} back before anything else", gone.join(", "))
}
