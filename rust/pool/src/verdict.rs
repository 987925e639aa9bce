//! Which superblock counts, judged from those of all drives that are here.
//!
//! The newest one in force is the ground. A proposal that was made from it is taken up, because a drive
//! that is away may have it in force already; any other proposal never counted and is dropped. Why that is
//! enough is in `docs/decisions/0004-two-steps.md`.

use std::collections::{BTreeMap, BTreeSet};

use dwk_base::{DriveId, Epoch};
use dwk_drive::{Edition, Loaded, Superblock};

/// How many editions a superblock names at most as those that it follows. Each opening that is cut off in
/// the middle of a change adds one.
const FOLLOWS_MAX: usize = 64;

/// What the drives together say.
pub(crate) struct Verdict {
    /// The superblock to go on from. `drive` is that of one of the drives.
    pub(crate) superblock: Superblock,
    /// Which one that is.
    pub(crate) edition: Edition,
    /// What the next change follows.
    pub(crate) follows: Vec<Edition>,
    /// The last epoch that was written anywhere.
    pub(crate) tried: Epoch,
}

/// A proposal, and the drives that hold it.
struct Proposal<'a> {
    edition: Edition,
    superblock: &'a Superblock,
    holders: BTreeSet<DriveId>,
}

impl Verdict {
    /// Judges; `None` if nothing was ever in force.
    pub(crate) fn of<'a>(drives: impl Iterator<Item = &'a Loaded> + Clone) -> Option<Self> {
        let ground = ground(drives.clone())?;
        let proposals = proposals(drives.clone(), &ground);
        let in_force = drives.clone().filter_map(|loaded| loaded.in_force.as_ref());
        let known = in_force.map(|placed| &placed.superblock).find(|s| s.edition() == ground);
        let superblock = latest(&proposals).map(|proposal| proposal.superblock).or(known)?;
        let seen = proposals.iter().flat_map(|proposal| {
            proposal.superblock.follows.iter().copied().chain([proposal.edition])
        });
        let tried = drives.flat_map(|loaded| [&loaded.in_force, &loaded.proposed]).flatten();
        Some(Self {
            superblock: superblock.clone(),
            edition: superblock.edition(),
            follows: follows(ground, seen),
            tried: tried.map(|placed| placed.superblock.epoch).max()?,
        })
    }
}

/// `first`, then the newest of the others.
pub(crate) fn follows(first: Edition, others: impl Iterator<Item = Edition>) -> Vec<Edition> {
    let others: BTreeSet<_> = others.filter(|edition| *edition != first).collect();
    [first].into_iter().chain(others.into_iter().rev()).take(FOLLOWS_MAX).collect()
}

/// The newest edition that was in force: a drive has it so, or has a proposal that was made from it. Of
/// several of one epoch that which most drives speak for.
fn ground<'a>(drives: impl Iterator<Item = &'a Loaded>) -> Option<Edition> {
    let mut votes: BTreeMap<Edition, usize> = BTreeMap::new();
    for loaded in drives {
        let in_force = loaded.in_force.as_ref().map(|placed| placed.superblock.edition());
        let made_from =
            loaded.proposed.as_ref().and_then(|placed| placed.superblock.follows.first().copied());
        let editions: BTreeSet<_> = in_force.into_iter().chain(made_from).collect();
        for edition in editions {
            *votes.entry(edition).or_default() += 1;
        }
    }
    votes
        .into_iter()
        .max_by_key(|(edition, count)| (edition.epoch, *count))
        .map(|(edition, _)| edition)
}

/// The proposals that follow `ground`.
fn proposals<'a>(drives: impl Iterator<Item = &'a Loaded>, ground: &Edition) -> Vec<Proposal<'a>> {
    let mut found: BTreeMap<Edition, Proposal<'a>> = BTreeMap::new();
    for loaded in drives {
        let Some(placed) = &loaded.proposed else { continue };
        let superblock = &placed.superblock;
        if superblock.follows.contains(ground) {
            let edition = superblock.edition();
            let holders = BTreeSet::new();
            let entry = found.entry(edition).or_insert(Proposal { edition, superblock, holders });
            entry.holders.insert(loaded.drive);
        }
    }
    found.into_values().collect()
}

/// The proposal that was made last: by openings that did not see each other's there can be several.
fn latest<'a, 'b>(proposals: &'b [Proposal<'a>]) -> Option<&'b Proposal<'a>> {
    let beaten = |one: &Proposal<'_>| proposals.iter().any(|other| other.is_later_than(one));
    let last = |one: &&Proposal<'_>| (one.superblock.written_unix_ns, one.edition);
    let unbeaten = proposals.iter().filter(|one| !beaten(one)).max_by_key(last);
    unbeaten.or_else(|| proposals.iter().max_by_key(last))
}

impl Proposal<'_> {
    /// True if this one was certainly made after the other: it says so, or it was meant for none of the
    /// drives that hold the other (who had seen one of them would have taken the other up), while the
    /// other was meant for one that holds this.
    fn is_later_than(&self, other: &Self) -> bool {
        let knows = |one: &Self, of: &Self| one.superblock.follows.contains(&of.edition);
        if knows(self, other) || knows(other, self) {
            return knows(self, other);
        }
        !self.is_meant_for_any(&other.holders) && other.is_meant_for_any(&self.holders)
    }

    fn is_meant_for_any(&self, drives: &BTreeSet<DriveId>) -> bool {
        let rows = self.superblock.members.iter();
        rows.filter(|row| drives.contains(&row.id)).any(|row| row.epoch == self.superblock.epoch)
    }
}
