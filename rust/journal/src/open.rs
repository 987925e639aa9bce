//! Makes a log, or finds it again: survey every copy, choose the chain, mend every copy, begin an epoch.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use dwk_base::{Deadline, DriveId, Epoch, Error, Result, Seams, codes};

use crate::chain::{self, Assignment, Chain};
use crate::format::{Hash, Stamp, damaged};
use crate::mend::{self, Failure, Lack};
use crate::replica::Replica;
use crate::segment::Mark;
use crate::shelf::{Found, Place};
use crate::view::{View, is_batch};
use crate::writer::{Room, Tip, Writer};
use crate::{Identity, Member, Membership, Options, Recovery, SYNC_MEND};

/// How often a batch that is known to be there is read before it counts as lost.
const FETCH_TRIES: usize = 4;

/// Everything that opening needs.
pub(crate) struct Opening {
    pub identity: Identity,
    pub options: Options,
    pub membership: Arc<dyn Membership>,
    seams: Seams,
    replicas: Vec<Arc<Replica>>,
}

impl Opening {
    /// Checks what is given.
    pub(crate) fn new(
        identity: Identity,
        members: Vec<Member>,
        options: Options,
        membership: Arc<dyn Membership>,
        seams: Seams,
    ) -> Result<Self> {
        options.check()?;
        if members.is_empty() {
            let message = "no drive that holds the journal is present";
            return Err(Error::new(&codes::JOURNAL_MEMBERS, message));
        }
        let mut ids = BTreeSet::new();
        if let Some(twice) = members.iter().find(|member| !ids.insert(member.id)) {
            let message = format!("drive {} is named twice as a journal member", twice.id);
            return Err(Error::new(&codes::DRIVE_DUPLICATE, message).with("drive", twice.id));
        }
        let replicas =
            members.into_iter().map(|member| Arc::new(Replica::new(member, &options))).collect();
        Ok(Self { identity, options, membership, seams, replicas })
    }

    /// Makes a new log on drives that hold none.
    pub(crate) fn create(self) -> Result<Writer> {
        for replica in &self.replicas {
            let found = survey(std::slice::from_ref(replica), &self.identity, &Deadline::never())
                .remove(0)?;
            if found.iter().any(in_use) {
                let message = format!("drive {} holds a journal already", replica.id);
                return Err(Error::new(&codes::DRIVE_NOT_EMPTY, message).with("drive", replica.id));
            }
            clear(replica, found)?;
        }
        let mut stamp: Stamp = [0; 16];
        self.seams.random.fill(&mut stamp);
        let tip = Tip { number: 0, hash: [0; 32], next_sequence: 1, segment: None, offset: 0 };
        let view = Arc::new(View::new(self.replicas.clone(), BTreeMap::new(), &self.options));
        let mut writer = self.writer(stamp, tip, 1, view);
        writer.write(&[], Room::Opening)?;
        Ok(writer)
    }

    /// Finds the log, has the new epoch begun, makes every copy equal, and goes on under that epoch. What has
    /// begun is brought to its end.
    pub(crate) fn open(
        mut self,
        begin: &dyn Fn() -> Result<Epoch>,
        until: &Deadline,
    ) -> Result<(Writer, Recovery)> {
        let (chain, found, mut failed) = self.find(until)?;
        self.identity.epoch = begin()?;
        if chain.tip.epoch >= self.identity.epoch {
            let message = format!(
                "the journal was written under epoch {}, and this opening has {}",
                chain.tip.epoch, self.identity.epoch
            );
            return Err(Error::new(&codes::JOURNAL_EPOCH, message).with("epoch", chain.tip.epoch));
        }
        let mut recovery = recovery(&chain);
        let mut lacking = Vec::new();
        for (index, replica) in self.replicas.iter().enumerate() {
            let Some(found) = &found[index] else { continue };
            let have = adopt(replica, found, &chain);
            match self.mend_all(index, &have, &chain) {
                Ok((count, lacks)) => {
                    recovery.repaired_batches += count;
                    lacking.extend(lacks.into_iter().map(|segment| (replica.id, segment)));
                }
                Err(Failure::Member(error)) if error.is_of_process() => return Err(error),
                Err(Failure::Member(error)) => failed.push((replica.id, error)),
                Err(Failure::Lost(error)) => return Err(error),
            }
        }
        let view =
            Arc::new(View::new(self.replicas.clone(), chain.segments.clone(), &self.options));
        for (drive, segment) in lacking {
            view.note_bad(drive, segment);
        }
        let mut writer = self.writer(chain.tip.stamp, tip(&chain), chain.tip.floor, view);
        let before: Vec<DriveId> = self.replicas.iter().map(|replica| replica.id).collect();
        writer.evict_all(failed)?;
        // Only now: until every copy was whole, a left-over slot may have held the last copy of a batch.
        let tidied = writer.view.replicas().into_iter().filter_map(|replica| {
            replica.run(|shelf, drive| shelf.tidy(drive)).err().map(|error| (replica.id, error))
        });
        let failed = tidied.collect();
        writer.evict_but_full(failed)?;
        writer.hold()?;
        writer.write(&[], Room::Opening)?;
        writer.prepare_spares();
        let left: Vec<DriveId> = writer.view.replicas().iter().map(|r| r.id).collect();
        recovery.evicted = before.into_iter().filter(|id| !left.contains(id)).collect();
        Ok((writer, recovery))
    }

    /// Finds the log and writes nothing.
    pub(crate) fn open_read_only(self, until: &Deadline) -> Result<(Arc<View>, Recovery)> {
        let (chain, found, failed) = self.find(until)?;
        let mut recovery = recovery(&chain);
        for (replica, found) in self.replicas.iter().zip(&found) {
            if let Some(found) = found {
                adopt(replica, found, &chain);
            }
        }
        let view = Arc::new(View::new(self.replicas, chain.segments, &self.options));
        view.raise_epoch(self.identity.epoch);
        for (drive, _) in failed {
            view.leave(drive);
            recovery.evicted.push(drive);
        }
        Ok((view, recovery))
    }

    /// What each member holds (`None`: it failed), the log that follows from it, and who failed.
    #[allow(clippy::type_complexity)]
    fn find(
        &self,
        until: &Deadline,
    ) -> Result<(Chain, Vec<Option<Vec<Found>>>, Vec<(DriveId, Error)>)> {
        let mut failed = Vec::new();
        let mut found = Vec::new();
        let answers = survey(&self.replicas, &self.identity, until);
        until.check().inspect_err(|_| {
            // What waits on the drives' threads is not begun any more.
            self.replicas.iter().for_each(|replica| replica.dismiss());
        })?;
        for (replica, answer) in self.replicas.iter().zip(answers) {
            match answer {
                Ok(units) => found.push(Some(units)),
                Err(error) => {
                    failed.push((replica.id, error));
                    found.push(None);
                }
            }
        }
        if let Some((_, error)) = failed.iter().find(|(_, error)| error.is_of_process()) {
            return Err(error.clone());
        }
        if let Some((drive, error)) = failed.first().filter(|_| failed.len() == found.len()) {
            let message =
                format!("no drive's journal can be read; drive {drive}: {}", error.message());
            return Err(Error::new(&codes::JOURNAL_MEMBERS, message).caused_by(error.clone()));
        }
        let present: Vec<Vec<Found>> =
            found.iter().map(|units| units.clone().unwrap_or_default()).collect();
        Ok((chain::choose(&present)?, found, failed))
    }

    /// Makes one member's copy whole; returns how many batches and headers were written, and which segments it
    /// goes on without, because it is full.
    fn mend_all(
        &self,
        index: usize,
        have: &HashSet<Hash>,
        chain: &Chain,
    ) -> Result<(u64, Vec<u64>), Failure> {
        let (mut written, mut lacks) = (0, Vec::new());
        for segment in chain.segments.values() {
            let marks = segment.marks();
            let batches = marks.into_iter().filter(|mark| !have.contains(&mark.hash)).collect();
            let lack = Lack { place: Place::Good, batches };
            let fetch = |mark: &Mark| self.fetch(mark, chain);
            match mend::mend(&self.replicas[index], segment, &lack, &fetch, SYNC_MEND) {
                Ok(count) => written += count,
                Err(Failure::Member(error))
                    if error.is(&codes::DRIVE_FULL) && segment.number < chain.tip.segment =>
                {
                    lacks.push(segment.number);
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok((written, lacks))
    }

    /// A batch from any place where the survey saw it. A drive that fails or lies now and then is asked again:
    /// it may have the only copy.
    fn fetch(&self, mark: &Mark, chain: &Chain) -> Result<Bytes> {
        let Mark { offset, bytes, .. } = *mark;
        let sources = chain.sources.get(&mark.hash).map_or(&[][..], Vec::as_slice);
        let mut lack = damaged("a batch of the journal could not be read a second time");
        for (member, unit) in (0..FETCH_TRIES).flat_map(|_| sources) {
            let unit = unit.clone();
            let replica = &self.replicas[*member];
            let read = replica.run(move |shelf, drive| shelf.fetch(drive, &unit, offset, bytes));
            match read {
                Ok(batch) if is_batch(mark, &batch) => return Ok(batch),
                Err(error) if error.is_of_process() => lack = error,
                _ => {}
            }
        }
        Err(lack.with("offset", offset))
    }

    fn writer(&self, stamp: Stamp, tip: Tip, floor: u64, view: Arc<View>) -> Writer {
        view.raise_epoch(self.identity.epoch);
        Writer {
            pool: self.identity.pool,
            stamp,
            options: self.options.clone(),
            membership: Arc::clone(&self.membership),
            clock: Arc::clone(&self.seams.clock),
            view,
            tip,
            floor,
            retired: Vec::new(),
            evicted: Vec::new(),
        }
    }
}

/// Reads everything that each member holds, all members at once. Once `until` has passed no answer is one.
pub(crate) fn survey(
    replicas: &[Arc<Replica>],
    identity: &Identity,
    until: &Deadline,
) -> Vec<Result<Vec<Found>>> {
    let pool = identity.pool;
    let started: Vec<_> = replicas
        .iter()
        .map(|replica| {
            let units = replica.start(|shelf, drive| shelf.units(drive));
            let units = replica.finish_until(&units, until)?;
            let examine = |unit| replica.start(move |s, drive| s.examine(drive, &unit, pool));
            Ok(units.into_iter().map(examine).collect::<Vec<_>>())
        })
        .collect();
    let finish = |(replica, tickets): (&Arc<Replica>, Result<Vec<_>>)| {
        let finish = |ticket| {
            let found: Found = replica.finish_until(&ticket, until)?;
            until.tell(found.batches.iter().map(|batch| u64::from(batch.bytes)).sum());
            Ok(found)
        };
        tickets?.into_iter().map(finish).collect()
    };
    replicas.iter().zip(started).map(finish).collect()
}

/// Declares everything on a member left over, and frees it.
pub(crate) fn clear(replica: &Replica, found: Vec<Found>) -> Result<()> {
    let rest = found.into_iter().map(|found| found.unit).collect();
    replica.shelf().adopt(Vec::new(), rest, Vec::new());
    replica.run(|shelf, drive| shelf.tidy(drive))
}

/// True for what may be somebody's log. A lone first batch without a record is what a creation leaves
/// behind that was cut off before anybody could commit.
fn in_use(found: &Found) -> bool {
    found.batches.iter().any(|batch| batch.number != 1 || batch.count != 0)
}

/// Tells a member's shelf what is what; returns which batches of the log its copy has.
fn adopt(replica: &Replica, found: &[Found], chain: &Chain) -> HashSet<Hash> {
    let Assignment { keep, rest, idle } = chain::assign(found, chain, replica.shelf().slots());
    let kept: HashSet<_> = keep.iter().map(|(segment, unit)| (*segment, unit)).collect();
    // A slot may hold, behind its segment's batches, good ones of another segment from an earlier use.
    let have = found
        .iter()
        .flat_map(|found| found.batches.iter().map(move |batch| (&found.unit, batch)))
        .filter(|(unit, batch)| kept.contains(&(batch.segment, *unit)))
        .map(|(_, batch)| batch.hash)
        .collect();
    replica.shelf().adopt(keep, rest, idle);
    have
}

fn tip(chain: &Chain) -> Tip {
    Tip {
        number: chain.tip.number,
        hash: chain.tip.hash,
        next_sequence: chain.tip.next_sequence(),
        segment: chain.segments.get(&chain.tip.segment).cloned(),
        offset: chain.tip.end(),
    }
}

fn recovery(chain: &Chain) -> Recovery {
    Recovery {
        first_sequence: chain.segments.values().next().map_or(1, |s| s.first_sequence),
        last_sequence: chain.tip.next_sequence() - 1,
        epoch: chain.tip.epoch,
        ..Recovery::default()
    }
}
