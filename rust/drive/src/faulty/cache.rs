//! The volatile cache: what was written and not yet synced, and what a power cut leaves of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use dwk_base::{Random, Result};

use crate::{ALIGNMENT, BlobInfo, BlobName, Drive, Slot};

/// What a power cut keeps whole.
const SECTOR_BYTES: usize = 512;

/// Unsynced changes on top of a drive, whose own content counts as durable.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// By name, the changes in their order.
    blobs: BTreeMap<BlobName, Vec<Change>>,
    /// By log, the writes in their order.
    logs: BTreeMap<BlobName, Vec<Write>>,
    /// Calls that are durable when they return, cut off before they did.
    half_done: Vec<HalfDone>,
}

/// Where a blob is to be looked for.
pub(super) enum Seen<'a> {
    /// On the drive below.
    Below,
    /// Nowhere: its deletion lies in the cache.
    Deleted,
    /// In the cache.
    Here(&'a Bytes),
}

#[derive(Debug)]
struct Change {
    /// `None`: deleted.
    content: Option<Bytes>,
    /// A sync failed and this was lost in it: it is seen until the power goes, and never durable.
    forsaken: bool,
}

#[derive(Debug)]
struct Write {
    offset: u64,
    bytes: Bytes,
    forsaken: bool,
}

/// A call that the cut came upon.
#[derive(Debug)]
pub(super) enum HalfDone {
    Superblock(Slot, Vec<u8>),
    CreateLog(BlobName, u64),
    DeleteLog(BlobName),
}

/// What a cut does to one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lost,
    Kept,
    Chance,
}

impl Fate {
    fn draw(random: &dyn Random) -> Self {
        [Self::Lost, Self::Kept, Self::Chance, Self::Chance][random.below(4) as usize]
    }

    /// True if this piece is kept.
    fn keeps(self, random: &dyn Random) -> bool {
        match self {
            Self::Lost => false,
            Self::Kept => true,
            Self::Chance => random.below(2) == 1,
        }
    }
}

impl Cache {
    /// What the cache says of a blob.
    pub(super) fn blob(&self, name: &BlobName) -> Seen<'_> {
        match self.blobs.get(name).and_then(|changes| changes.last()) {
            None => Seen::Below,
            Some(Change { content: None, .. }) => Seen::Deleted,
            Some(Change { content: Some(bytes), .. }) => Seen::Here(bytes),
        }
    }

    /// Puts or deletes (`None`) a blob.
    pub(super) fn change(&mut self, name: &BlobName, content: Option<Bytes>) {
        let changes = self.blobs.entry(name.clone()).or_default();
        changes.push(Change { content, forsaken: false });
    }

    /// Bytes that the unsynced puts will need.
    pub(super) fn put_bytes(&self) -> u64 {
        let puts = self.blobs.values().flatten().filter_map(|change| change.content.as_ref());
        puts.map(|bytes| bytes.len() as u64).sum()
    }

    /// How many blobs are deleted here: a listing must ask for so many more.
    pub(super) fn deleted(&self) -> usize {
        self.blobs.values().filter(|changes| is_delete(changes)).count()
    }

    /// Lays the cache over a listing of what is below.
    pub(super) fn overlay(
        &self,
        below: Vec<BlobInfo>,
        folder: Option<&str>,
        after: Option<&BlobName>,
        limit: usize,
    ) -> Vec<BlobInfo> {
        let mut seen: BTreeMap<BlobName, u64> =
            below.into_iter().map(|info| (info.name, info.bytes)).collect();
        let ours = self.blobs.iter().filter(|(name, _)| name.folder() == folder);
        for (name, changes) in ours.filter(|(name, _)| after.is_none_or(|after| *name > after)) {
            match changes.last().and_then(|change| change.content.as_ref()) {
                Some(bytes) => drop(seen.insert(name.clone(), bytes.len() as u64)),
                None => drop(seen.remove(name)),
            }
        }
        seen.into_iter().take(limit).map(|(name, bytes)| BlobInfo { name, bytes }).collect()
    }

    /// Notes a log write.
    pub(super) fn write_log(&mut self, name: &BlobName, offset: u64, parts: &[Bytes]) {
        let write = Write { offset, bytes: parts.concat().into(), forsaken: false };
        self.logs.entry(name.clone()).or_default().push(write);
    }

    /// Lays the cache over what was read from a log.
    pub(super) fn overlay_log(&self, name: &BlobName, offset: u64, into: &mut [u8]) {
        for write in self.logs.get(name).into_iter().flatten() {
            let start = write.offset.max(offset);
            let end = (write.offset + write.bytes.len() as u64).min(offset + into.len() as u64);
            if start < end {
                let from =
                    &write.bytes[(start - write.offset) as usize..(end - write.offset) as usize];
                into[(start - offset) as usize..(end - offset) as usize].copy_from_slice(from);
            }
        }
    }

    /// Forgets a log that is deleted.
    pub(super) fn drop_log(&mut self, name: &BlobName) {
        self.logs.remove(name);
    }

    /// Notes a call that the cut came upon.
    pub(super) fn half_done(&mut self, call: HalfDone) {
        self.half_done.push(call);
    }

    /// A sync of names failed: some of what it should have made durable never will be.
    pub(super) fn forsake_blobs(&mut self, random: &dyn Random) {
        for changes in self.blobs.values_mut() {
            let from = random.below(changes.len() as u64 + 1) as usize;
            changes[from..].iter_mut().for_each(|change| change.forsaken = true);
        }
    }

    /// A sync of a log failed: some of its writes never will be durable.
    pub(super) fn forsake_log(&mut self, name: &BlobName, random: &dyn Random) {
        for write in self.logs.get_mut(name).into_iter().flatten() {
            write.forsaken |= random.below(2) == 1;
        }
    }

    /// Moves all puts and deletes down to `drive`.
    pub(super) fn flush_blobs(&mut self, drive: &dyn Drive) -> Result<()> {
        for (name, changes) in &mut self.blobs {
            let durable =
                changes.iter().position(|change| change.forsaken).unwrap_or(changes.len());
            let last = changes.drain(..durable).next_back();
            if let Some(change) = last {
                settle(drive, name, change.content.as_ref())?;
            }
        }
        self.blobs.retain(|_, changes| !changes.is_empty());
        Ok(())
    }

    /// Moves all writes to one log down to `drive`.
    pub(super) fn flush_log(&mut self, drive: &dyn Drive, name: &BlobName) -> Result<()> {
        let Some(log) = drive.log() else { return Ok(()) };
        let Some(writes) = self.logs.get_mut(name) else { return Ok(()) };
        for write in writes.iter().filter(|write| !write.forsaken) {
            log.write_log(name, write.offset, std::slice::from_ref(&write.bytes))?;
        }
        // What lies over a forsaken write stays here too, so that reads go on to see the later one.
        let covered = writes.iter().position(|write| write.forsaken).unwrap_or(writes.len());
        writes.drain(..covered);
        for write in writes.iter_mut() {
            write.forsaken = true;
        }
        self.logs.retain(|_, writes| !writes.is_empty());
        Ok(())
    }

    /// The power went and came back: some of what was unsynced moves down, the rest is gone.
    ///
    /// What `drive` refuses counts as lost, which is as good an outcome as any.
    pub(super) fn survive(&mut self, drive: &dyn Drive, random: &dyn Random) {
        let cache = std::mem::take(self);
        let fate = Fate::draw(random);
        for (name, changes) in cache.blobs {
            survive_blob(drive, &name, changes, fate, random);
        }
        let fate = Fate::draw(random);
        for (name, writes) in cache.logs {
            survive_log(drive, &name, writes, fate, random);
        }
        for call in cache.half_done {
            let _ = survive_half_done(drive, call, random);
        }
    }
}

fn is_delete(changes: &[Change]) -> bool {
    changes.last().is_some_and(|change| change.content.is_none())
}

/// Gives a blob its content (`None`: none), whatever was there.
fn settle(drive: &dyn Drive, name: &BlobName, content: Option<&Bytes>) -> Result<()> {
    if drive.stat(name).is_ok() {
        drive.delete(name)?;
    }
    content.map_or(Ok(()), |bytes| drive.put(name, std::slice::from_ref(bytes)))
}

fn survive_blob(
    drive: &dyn Drive,
    name: &BlobName,
    changes: Vec<Change>,
    fate: Fate,
    random: &dyn Random,
) {
    // Changes to one name keep their order: a beginning of them survives.
    let possible = changes.iter().take_while(|change| !change.forsaken).count();
    let kept = match fate {
        Fate::Lost => 0,
        Fate::Kept => possible,
        Fate::Chance => random.below(possible as u64 + 1) as usize,
    };
    let Some(last) = changes.into_iter().take(kept).next_back() else { return };
    let content = last.content.map(|bytes| match fate {
        Fate::Chance if random.below(3) == 0 => tear(&bytes, random),
        _ => bytes,
    });
    let _ = settle(drive, name, content.as_ref());
}

/// A torn blob: cut short, or with a tail of zeroes or garbage.
fn tear(bytes: &Bytes, random: &dyn Random) -> Bytes {
    let whole = random.below(bytes.len() as u64 + 1) as usize;
    let mut torn = bytes[..whole].to_vec();
    match random.below(3) {
        0 => {}
        1 => torn.resize(bytes.len(), 0),
        _ => {
            torn.resize(bytes.len(), 0);
            random.fill(&mut torn[whole..]);
        }
    }
    torn.into()
}

fn survive_log(
    drive: &dyn Drive,
    name: &BlobName,
    writes: Vec<Write>,
    fate: Fate,
    random: &dyn Random,
) {
    let Some(log) = drive.log() else { return };
    for write in writes.into_iter().filter(|write| !write.forsaken) {
        let mut content = vec![0; write.bytes.len()];
        if log.read_log(name, write.offset, &mut content).is_err() {
            continue;
        }
        mix(&mut content, &write.bytes, fate, random);
        let _ = log.write_log(name, write.offset, &[content.into()]);
    }
}

/// Overwrites some sectors of `old` with those of `new`, which is as long.
fn mix(old: &mut [u8], new: &[u8], fate: Fate, random: &dyn Random) {
    for (old, new) in old.chunks_mut(SECTOR_BYTES).zip(new.chunks(SECTOR_BYTES)) {
        if fate.keeps(random) {
            old.copy_from_slice(new);
        }
    }
}

fn survive_half_done(drive: &dyn Drive, call: HalfDone, random: &dyn Random) -> Result<()> {
    let fate = Fate::draw(random);
    match call {
        HalfDone::Superblock(slot, mut new) => {
            let mut content = drive.read_superblock(slot)?.unwrap_or_default();
            let bytes = content.len().max(new.len()).next_multiple_of(ALIGNMENT);
            content.resize(bytes, 0);
            new.resize(bytes, 0);
            mix(&mut content, &new, fate, random);
            drive.write_superblock(slot, &content)
        }
        HalfDone::CreateLog(name, bytes) if fate.keeps(random) => {
            drive.log().map_or(Ok(()), |log| log.create_log(&name, bytes))
        }
        HalfDone::DeleteLog(name) if fate.keeps(random) => {
            drive.log().map_or(Ok(()), |log| log.delete_log(&name))
        }
        HalfDone::CreateLog(..) | HalfDone::DeleteLog(_) => Ok(()),
    }
}
