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
        let mut proposals = proposals(drives.clone(), &ground);
        let in_force = drives.clone().filter_map(|loaded| loaded.in_force.as_ref());
        let known = in_force.map(|placed| &placed.superblock).find(|s| s.edition() == ground);
        let seen = proposals.iter().flat_map(|proposal| {
            proposal.superblock.follows.iter().copied().chain([proposal.edition])
        });
        let seen: Vec<_> = seen.collect();
        proposals.retain(|proposal| proposal.may_count(&drives));
        let superblock = latest(&proposals).map(|proposal| proposal.superblock).or(known)?;
        let tried = drives.flat_map(|loaded| [&loaded.in_force, &loaded.proposed]).flatten();
        Some(Self {
            superblock: superblock.clone(),
            edition: superblock.edition(),
            follows: follows(ground, seen.into_iter()),
            tried: tried.map(|placed| placed.superblock.epoch).max()?,
        })
    }

    /// True if the drive has what is gone on from, what that was made from, or the last that was meant for it (one
    /// that is marked failed is told of no change, and may hold the journal all the same until another one does).
    /// One that has none of these has lost what it had: it is an older copy of itself.
    pub(crate) fn reached(&self, loaded: &Loaded) -> bool {
        let meant = self.superblock.member(loaded.drive).map(|row| row.epoch);
        let both = [&loaded.in_force, &loaded.proposed].into_iter().flatten();
        let mut editions = both.map(|placed| placed.superblock.edition());
        Some(loaded.has()) >= meant
            || editions.any(|edition| edition == self.edition || self.follows.contains(&edition))
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
    /// False if the drives that were to hold the journal are all here and none has the last that was meant for it:
    /// such a proposal was put in force nowhere.
    fn may_count<'a>(&self, drives: &(impl Iterator<Item = &'a Loaded> + Clone)) -> bool {
        let journal = &self.superblock.journal;
        let lacks = |id: &DriveId| {
            let loaded = drives.clone().find(|loaded| loaded.drive == *id);
            let meant = self.superblock.member(*id).map(|row| row.epoch);
            loaded.is_some_and(|loaded| Some(loaded.has()) < meant)
        };
        journal.is_empty() || !journal.iter().all(lacks)
    }

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dwk_base::PoolId;
    use dwk_drive::{FORMAT_VERSION, Features, MemberRow, MemberState, MemoryDrive};

    use super::*;

    const DRIVES: u128 = 6;

    /// A superblock of `epoch` that was meant for these drives.
    fn superblock(epoch: u64, follows: &[&Superblock], meant_for: &[u128]) -> Superblock {
        let row = |drive: u128| MemberRow {
            index: drive as u16,
            id: DriveId::from_u128(drive),
            name: format!("d{drive}"),
            state: MemberState::Ok,
            location: String::new(),
            labels: BTreeMap::new(),
            capacity_bytes: 0,
            epoch: Epoch(if meant_for.contains(&drive) { epoch } else { 1 }),
        };
        Superblock {
            format_version: FORMAT_VERSION,
            features: Features::default(),
            pool: PoolId::from_u128(7),
            drive: DriveId::default(),
            epoch: Epoch(epoch),
            created_unix_ns: 0,
            written_unix_ns: 0,
            clean: false,
            in_force: false,
            took_part: Epoch(0),
            follows: follows.iter().map(|superblock| superblock.edition()).collect(),
            geometry: "4+2".to_owned(),
            members: (1..=DRIVES).map(row).collect(),
            journal: Vec::new(),
            keyring: meant_for.iter().map(|drive| *drive as u8).collect(),
            options: Vec::new(),
        }
    }

    /// A drive with these in its slots: what is in force, what is proposed.
    fn drive(id: u128, in_force: Option<&Superblock>, proposed: Option<&Superblock>) -> Loaded {
        let body = MemoryDrive::new(id.to_string());
        let mut state = dwk_drive::SlotState::fresh();
        for (superblock, in_force) in [(in_force, true), (proposed, false)] {
            if let Some(superblock) = superblock {
                let drive = DriveId::from_u128(id);
                let written = Superblock { drive, in_force, ..superblock.clone() };
                written.store(&body, &mut state).unwrap();
            }
        }
        Superblock::load(&body).unwrap().unwrap()
    }

    fn found(drives: &[Loaded]) -> Verdict {
        Verdict::of(drives.iter()).unwrap()
    }

    const ALL: [u128; 6] = [1, 2, 3, 4, 5, 6];

    #[test]
    fn a_proposal_made_from_what_is_in_force_is_taken_up_and_any_other_is_not() {
        let old = superblock(4, &[], &ALL);
        let base = superblock(5, &[&old], &ALL);
        let (next, late) = (superblock(6, &[&base], &ALL), superblock(9, &[&old], &ALL));
        let verdict = found(&[drive(1, Some(&base), None), drive(2, Some(&base), Some(&next))]);
        assert_eq!(verdict.edition, next.edition());
        assert_eq!(verdict.follows, [base.edition(), next.edition()]);
        let verdict = found(&[drive(1, Some(&base), None), drive(2, Some(&old), Some(&late))]);
        assert_eq!(verdict.edition, base.edition());
        assert_eq!((verdict.follows, verdict.tried), (vec![base.edition()], Epoch(9)));
    }

    #[test]
    fn where_only_proposals_can_be_read_what_they_were_made_from_was_in_force() {
        let old = superblock(4, &[], &ALL);
        let base = superblock(5, &[&old], &ALL);
        let next = superblock(6, &[&base], &ALL);
        // One that was away long ago does not bring the old state back.
        let verdict = found(&[drive(1, Some(&old), None), drive(2, None, Some(&next))]);
        assert_eq!(verdict.edition, next.edition());
        assert_eq!(verdict.follows[0], base.edition());
        assert!(Verdict::of([drive(1, None, Some(&superblock(1, &[], &ALL)))].iter()).is_none());
    }

    #[test]
    fn what_contains_a_proposal_that_is_in_force_elsewhere_is_taken_up_with_it() {
        let base = superblock(5, &[], &ALL);
        let first = superblock(6, &[&base], &ALL);
        let second = superblock(7, &[&base, &first], &ALL);
        let there = drive(1, Some(&first), None);
        for verdict in [
            found(&[there, drive(2, Some(&base), Some(&second))]),
            found(&[drive(2, Some(&base), Some(&second)), drive(3, Some(&base), Some(&first))]),
        ] {
            assert_eq!(verdict.edition, second.edition());
        }
    }

    #[test]
    fn what_names_a_proposal_was_made_after_it_whoever_it_was_meant_for() {
        let base = superblock(5, &[], &ALL);
        let first = superblock(6, &[&base], &[3]);
        // Did not reach d3, which it was meant for as well.
        let second = superblock(7, &[&base, &first], &[2, 3]);
        let verdict =
            found(&[drive(2, Some(&base), Some(&second)), drive(3, Some(&base), Some(&first))]);
        assert_eq!(verdict.edition, second.edition());
    }

    #[test]
    fn of_openings_that_did_not_see_each_other_the_later_one_is_taken_up_whatever_its_number() {
        let base = superblock(5, &[], &ALL);
        // Two tries reached d1 and d2 only; then the pool was opened without those.
        let early = superblock(8, &[&base], &ALL);
        let late = superblock(6, &[&base], &[3, 4, 5, 6]);
        let verdict = found(&[
            drive(1, Some(&base), Some(&early)),
            drive(2, Some(&base), Some(&early)),
            drive(3, Some(&base), Some(&late)),
            drive(4, Some(&base), None),
        ]);
        assert_eq!(verdict.edition, late.edition());
        assert!(verdict.follows.contains(&early.edition()));
        assert_eq!(verdict.tried, Epoch(8));
    }

    #[test]
    fn of_two_in_force_with_one_number_most_drives_decide() {
        let base = superblock(5, &[], &ALL);
        let (one, other) = (superblock(6, &[&base], &[1]), superblock(6, &[&base], &[2, 3]));
        let three = [
            drive(1, Some(&one), None),
            drive(2, Some(&other), None),
            drive(3, Some(&other), None),
        ];
        assert_eq!(found(&three).edition, other.edition());
    }

    #[test]
    fn what_a_change_follows_stays_short_and_keeps_the_ground_first() {
        let many: Vec<_> = (1..200).map(|n| superblock(n, &[], &ALL).edition()).collect();
        let kept = follows(many[0], many.iter().copied());
        assert_eq!((kept.len(), kept[0], kept[1]), (FOLLOWS_MAX, many[0], many[198]));
    }
}
