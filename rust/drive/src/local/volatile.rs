//! A file system in memory that forgets what was not synced: the simulated body of the seam, for tests.
//!
//! Each file and each directory has what is seen and what is durable. `fsync` of a file makes its content
//! and size durable and no name; `fsync` of a directory makes its names durable and no content. At a cut
//! every sector of 512 bytes, every size and every name that was not synced is kept or lost by itself.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard};

use dwk_base::{Random, SeededRandom};
use rustix::io::Errno;

use super::files::{File, Files, How, Io, Kind, Node};
use crate::checks::guard;
use crate::{ALIGNMENT, Capacity, LockMode};

const SECTOR_BYTES: usize = 512;
const ROOT: u64 = 0;

/// The machine with its one disk, on which lies one directory.
#[derive(Clone)]
pub(super) struct Machine(Arc<Mutex<World>>);

struct World {
    things: BTreeMap<u64, Thing>,
    next: u64,
    /// The directory's own name in its parent is durable.
    is_named: bool,
    locks: Vec<(u64, u64, LockMode)>,
    random: SeededRandom,
    /// Processes of an earlier life are dead.
    life: u64,
    is_cut: bool,
    steps: u64,
    cut_at: u64,
    last: Step,
    omitted: Option<&'static str>,
    failing: Option<(&'static str, Errno)>,
    room_bytes: u64,
    is_read_only: bool,
    /// What every call says.
    refusal: Option<Errno>,
    /// How many calls of any kind were made, and the one that fails.
    calls: u64,
    broken_call: Option<(u64, Errno)>,
}

#[derive(Clone)]
struct Thing {
    seen: Content,
    durable: Content,
}

#[derive(Clone, PartialEq)]
enum Content {
    File(Vec<u8>),
    Directory(BTreeMap<String, u64>),
}

impl Content {
    fn file(&self) -> Io<&Vec<u8>> {
        if let Self::File(bytes) = self { Ok(bytes) } else { Err(Errno::ISDIR) }
    }

    fn names(&self) -> Io<&BTreeMap<String, u64>> {
        if let Self::Directory(names) = self { Ok(names) } else { Err(Errno::NOTDIR) }
    }
}

/// What a call does to the world.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Look,
    Change,
    /// Many in a row are one step, or there would be little else.
    MakeDirectory,
    Sync(&'static str),
}

impl Machine {
    /// A directory that was just made.
    pub(super) fn new(seed: u64) -> Self {
        let empty = Content::Directory(BTreeMap::new());
        let root = Thing { seen: empty.clone(), durable: empty };
        Self(Arc::new(Mutex::new(World {
            things: BTreeMap::from([(ROOT, root)]),
            next: 1,
            is_named: false,
            locks: Vec::new(),
            random: SeededRandom::new(seed),
            life: 0,
            is_cut: false,
            steps: 0,
            cut_at: u64::MAX,
            last: Step::Look,
            omitted: None,
            failing: None,
            room_bytes: u64::MAX,
            is_read_only: false,
            refusal: None,
            calls: 0,
            broken_call: None,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        guard(&self.0)
    }

    /// The file system as a process sees it that starts now.
    pub(super) fn files(&self) -> Box<dyn Files> {
        let life = self.world().life;
        Box::new(VolatileFiles { machine: self.clone(), life })
    }

    pub(super) fn omit(&self, tag: &'static str) {
        self.world().omitted = Some(tag);
    }

    /// Syncs with this tag fail.
    pub(super) fn fail(&self, tag: Option<&'static str>) {
        self.world().failing = tag.map(|tag| (tag, Errno::IO));
    }

    /// Syncs with this tag fail with `errno` and do nothing.
    pub(super) fn fail_with(&self, tag: &'static str, errno: Errno) {
        self.world().failing = Some((tag, errno));
    }

    /// The call of this number, counted from 1, fails with `errno` and does nothing.
    pub(super) fn break_call(&self, number: u64, errno: Errno) {
        self.world().broken_call = Some((number, errno));
    }

    /// How many calls of any kind were made.
    pub(super) fn calls(&self) -> u64 {
        self.world().calls
    }

    pub(super) fn set_room(&self, bytes: u64) {
        self.world().room_bytes = bytes;
    }

    pub(super) fn set_read_only(&self, is_read_only: bool) {
        self.world().is_read_only = is_read_only;
    }

    /// Every call fails with this.
    pub(super) fn refuse(&self, errno: Option<Errno>) {
        self.world().refusal = errno;
    }

    /// How many changes and syncs were made.
    pub(super) fn steps(&self) -> u64 {
        self.world().steps
    }

    pub(super) fn cut_at(&self, step: u64) {
        self.world().cut_at = step;
    }

    /// The process dies; what it wrote stays in the cache.
    pub(super) fn kill(&self) {
        let mut world = self.world();
        world.life += 1;
        world.locks.clear();
    }

    /// The power goes and comes back. False if the whole directory is lost.
    pub(super) fn restart(&self) -> bool {
        self.kill();
        let mut world = self.world();
        world.is_cut = false;
        world.cut_at = u64::MAX;
        world.omitted = None;
        world.survive();
        world.is_named || world.random.below(2) == 0
    }
}

impl World {
    /// Stands before every call: `Ok(true)` if the power goes with it.
    fn enter(&mut self, life: u64, step: Step) -> Io<bool> {
        if self.is_cut || self.life != life {
            return Err(Errno::IO);
        }
        if let Some(errno) = self.refusal {
            return Err(errno);
        }
        self.calls += 1;
        if let Some((number, errno)) = self.broken_call
            && number == self.calls
        {
            return Err(errno);
        }
        if step == Step::Look {
            return Ok(false);
        }
        if self.is_read_only && !matches!(step, Step::Sync(_)) {
            return Err(Errno::ROFS);
        }
        let is_next = step == Step::MakeDirectory && self.last == step;
        self.last = step;
        self.steps += u64::from(!is_next);
        if self.steps >= self.cut_at {
            self.is_cut = true;
        }
        match (step, self.failing) {
            (Step::Sync(tag), Some((failing, errno))) if tag == failing => Err(errno),
            _ => Ok(self.is_cut),
        }
    }

    fn find(&self, path: &str) -> Io<u64> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = *self.things[&at].seen.names()?.get(name).ok_or(Errno::NOENT)?;
        }
        Ok(at)
    }

    /// The directory above, and the last name.
    fn above<'a>(&self, path: &'a str) -> Io<(u64, &'a str)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(directory)?, name))
    }

    fn names_mut(&mut self, directory: u64) -> Io<&mut BTreeMap<String, u64>> {
        match self.things.get_mut(&directory).map(|thing| &mut thing.seen) {
            Some(Content::Directory(names)) => Ok(names),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn bytes_mut(&mut self, file: u64) -> Io<&mut Vec<u8>> {
        match self.things.get_mut(&file).map(|thing| &mut thing.seen) {
            Some(Content::File(bytes)) => Ok(bytes),
            _ => Err(Errno::ISDIR),
        }
    }

    fn make(&mut self, path: &str, content: Content, durable: Content) -> Io<u64> {
        let (directory, name) = self.above(path)?;
        let made = self.next;
        if self.names_mut(directory)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        self.names_mut(directory)?.insert(name.to_owned(), made);
        self.next += 1;
        self.things.insert(made, Thing { seen: content, durable });
        Ok(made)
    }

    fn node(&self, thing: u64) -> Node {
        let named = self.things.values().filter_map(|thing| thing.seen.names().ok());
        let links =
            named.flat_map(BTreeMap::values).filter(|named| **named == thing).count() as u64;
        match &self.things[&thing].seen {
            Content::File(bytes) => Node { kind: Kind::File, bytes: bytes.len() as u64, links },
            Content::Directory(_) => {
                Node { kind: Kind::Directory, bytes: 0, links: links + u64::from(thing == ROOT) }
            }
        }
    }

    fn make_durable(&mut self, thing: u64, tag: &str) {
        if self.omitted != Some(tag)
            && let Some(thing) = self.things.get_mut(&thing)
        {
            thing.durable = thing.seen.clone();
        }
    }

    fn used_bytes(&self) -> u64 {
        let files = self.things.values().filter_map(|thing| thing.seen.file().ok());
        files.map(|bytes| bytes.len() as u64).sum()
    }

    fn survive(&mut self) {
        // All of it, nothing of it, or by chance: so that few seeds find much.
        let fate = self.random.below(4);
        let random = &self.random;
        let keeps = || if fate < 2 { fate == 1 } else { random.below(2) == 1 };
        for thing in self.things.values_mut() {
            thing.durable = match (&thing.durable, &thing.seen) {
                (Content::File(old), Content::File(new)) => {
                    Content::File(mix_bytes(old, new, &keeps))
                }
                (Content::Directory(old), Content::Directory(new)) => {
                    Content::Directory(mix_names(old, new, &keeps))
                }
                (durable, _) => durable.clone(),
            };
            thing.seen = thing.durable.clone();
        }
    }
}

fn mix_bytes(old: &[u8], new: &[u8], keeps: &dyn Fn() -> bool) -> Vec<u8> {
    if old == new {
        return old.to_vec();
    }
    let mut mixed = if keeps() { vec![0; new.len()] } else { vec![0; old.len()] };
    for (index, sector) in mixed.chunks_mut(SECTOR_BYTES).enumerate() {
        let from = if keeps() { new } else { old };
        let start = (index * SECTOR_BYTES).min(from.len());
        let piece = &from[start..(start + sector.len()).min(from.len())];
        sector[..piece.len()].copy_from_slice(piece);
    }
    mixed
}

fn mix_names(
    old: &BTreeMap<String, u64>,
    new: &BTreeMap<String, u64>,
    keeps: &dyn Fn() -> bool,
) -> BTreeMap<String, u64> {
    let mut mixed = BTreeMap::new();
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    for name in names {
        let (old, new) = (old.get(name), new.get(name));
        let kept = if old == new || !keeps() { old } else { new };
        if let Some(thing) = kept {
            mixed.insert(name.clone(), *thing);
        }
    }
    mixed
}

struct VolatileFiles {
    machine: Machine,
    life: u64,
}

impl VolatileFiles {
    /// Makes a change, which the cut may come upon: then it is made, not synced, and says `EIO`.
    fn change<T>(&self, change: impl FnOnce(&mut World) -> Io<T>) -> Io<T> {
        let mut world = self.machine.world();
        let is_cutting = world.enter(self.life, Step::Change)?;
        let result = change(&mut world);
        if is_cutting { Err(Errno::IO) } else { result }
    }

    fn look<T>(&self, look: impl FnOnce(&World) -> Io<T>) -> Io<T> {
        let mut world = self.machine.world();
        world.enter(self.life, Step::Look)?;
        look(&world)
    }

    fn sync(&self, tag: &'static str, sync: impl FnOnce(&mut World) -> Io<()>) -> Io<()> {
        let mut world = self.machine.world();
        if world.enter(self.life, Step::Sync(tag))? { Err(Errno::IO) } else { sync(&mut world) }
    }
}

impl Files for VolatileFiles {
    fn open(&self, path: &str, how: How) -> Io<Box<dyn File>> {
        let found = self.look(|world| world.find(path));
        let file = || Content::File(Vec::new());
        let thing = match (found, how) {
            (Ok(_), How::CreateNew) => return Err(Errno::EXIST),
            (Err(Errno::NOENT), How::CreateNew | How::Create) => {
                self.change(|world| world.make(path, file(), file()))?
            }
            (found, _) => found?,
        };
        let mut world = self.machine.world();
        if world.is_read_only && !matches!(how, How::Read | How::ReadNow) {
            return Err(Errno::ROFS);
        }
        world.next += 1;
        Ok(Box::new(VolatileFile {
            files: Self { machine: self.machine.clone(), life: self.life },
            thing,
            number: world.next,
            direct: Mutex::new(false),
        }))
    }

    fn rename_new(&self, from: &str, to: &str) -> Io<()> {
        self.change(|world| {
            let thing = world.find(from)?;
            let ((old, old_name), (new, new_name)) = (world.above(from)?, world.above(to)?);
            if world.names_mut(new)?.contains_key(new_name) {
                return Err(Errno::EXIST);
            }
            world.names_mut(new)?.insert(new_name.to_owned(), thing);
            world.names_mut(old)?.remove(old_name);
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> Io<()> {
        self.change(|world| {
            let (directory, name) = world.above(path)?;
            world.names_mut(directory)?.remove(name).map(drop).ok_or(Errno::NOENT)
        })
    }

    fn make_directory(&self, path: &str) -> Io<()> {
        let empty = || Content::Directory(BTreeMap::new());
        let mut world = self.machine.world();
        let is_cutting = world.enter(self.life, Step::MakeDirectory)?;
        let result = world.make(path, empty(), empty()).map(drop);
        if is_cutting { Err(Errno::IO) } else { result }
    }

    fn list(&self, path: &str) -> Io<Vec<(String, Kind)>> {
        self.look(|world| {
            let names = world.things[&world.find(path)?].seen.names()?;
            Ok(names.iter().map(|(name, thing)| (name.clone(), world.node(*thing).kind)).collect())
        })
    }

    fn stat(&self, path: &str) -> Io<Node> {
        self.look(|world| Ok(world.node(world.find(path)?)))
    }

    fn sync_directory(&self, path: &str, tag: &'static str) -> Io<()> {
        self.sync(tag, |world| {
            let directory = world.find(path)?;
            world.make_durable(directory, tag);
            Ok(())
        })
    }

    fn sync_parent(&self, tag: &'static str) -> Io<()> {
        self.sync(tag, |world| {
            world.is_named |= world.omitted != Some(tag);
            Ok(())
        })
    }

    fn sync_all(&self, tag: &'static str) -> Io<()> {
        self.sync(tag, |world| {
            let all = world.things.keys().copied().collect::<Vec<_>>();
            for thing in all {
                world.make_durable(thing, tag);
            }
            Ok(())
        })
    }

    fn space(&self) -> Io<Capacity> {
        self.look(|world| Ok(Capacity { total_bytes: world.room_bytes, free_bytes: 0 }))
    }
}

struct VolatileFile {
    files: VolatileFiles,
    thing: u64,
    /// Of this open file, for its lock.
    number: u64,
    direct: Mutex<bool>,
}

impl VolatileFile {
    /// What `O_DIRECT` insists on.
    fn check_aligned(&self, parts: &[IoSlice<'_>], offset: u64) -> Io<()> {
        let aligned = |part: &IoSlice<'_>| {
            (part.as_ptr() as usize).is_multiple_of(ALIGNMENT)
                && part.len().is_multiple_of(ALIGNMENT)
        };
        let ok = offset.is_multiple_of(ALIGNMENT as u64) && parts.iter().all(aligned);
        if ok || !*guard(&self.direct) { Ok(()) } else { Err(Errno::INVAL) }
    }
}

impl File for VolatileFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> Io<usize> {
        self.files.look(|world| {
            let bytes = world.things[&self.thing].seen.file()?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let count = into.len().min(bytes.len() - start);
            into[..count].copy_from_slice(&bytes[start..start + count]);
            Ok(count)
        })
    }

    fn read_at_now(&self, into: &mut [u8], offset: u64) -> Io<usize> {
        self.read_at(into, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Io<usize> {
        self.check_aligned(parts, offset)?;
        let mut content = parts.iter().map(|part| &part[..]).collect::<Vec<_>>().concat();
        // Some writes are short; those of whole sectors by whole sectors, as kernels have it.
        let whole = (offset as usize | content.len()).is_multiple_of(SECTOR_BYTES);
        let unit = if whole { SECTOR_BYTES } else { 1 };
        self.files.change(|world| {
            if content.len() > unit && world.random.below(8) == 0 {
                let units = (content.len() / unit) as u64;
                content.truncate(unit * (1 + world.random.below(units - 1)) as usize);
            }
            let (start, end) = (offset as usize, offset as usize + content.len());
            let more = (end as u64).saturating_sub(world.node(self.thing).bytes);
            if more > 0 && world.used_bytes().saturating_add(more) > world.room_bytes {
                return Err(Errno::NOSPC);
            }
            let bytes = world.bytes_mut(self.thing)?;
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(&content);
            Ok(content.len())
        })
    }

    fn node(&self) -> Io<Node> {
        self.files.look(|world| Ok(world.node(self.thing)))
    }

    fn set_bytes(&self, bytes: u64) -> Io<()> {
        self.files.change(|world| {
            world.bytes_mut(self.thing)?.resize(bytes as usize, 0);
            Ok(())
        })
    }

    fn allocate(&self, bytes: u64) -> Io<()> {
        if self
            .files
            .look(|world| Ok(world.used_bytes().saturating_add(bytes) > world.room_bytes))?
        {
            return Err(Errno::NOSPC);
        }
        self.set_bytes(bytes)
    }

    fn set_direct(&self, direct: bool) -> Io<()> {
        *guard(&self.direct) = direct;
        Ok(())
    }

    fn sync(&self, tag: &'static str) -> Io<()> {
        self.files.sync(tag, |world| {
            world.make_durable(self.thing, tag);
            Ok(())
        })
    }

    fn sync_data(&self, tag: &'static str) -> Io<()> {
        self.sync(tag)
    }

    fn try_lock(&self, mode: LockMode) -> Io<bool> {
        let mut world = self.files.machine.world();
        world.enter(self.files.life, Step::Look)?;
        let others =
            world.locks.iter().filter(|lock| lock.0 == self.thing && lock.1 != self.number);
        let alone = LockMode::Exclusive;
        if others.into_iter().any(|lock| mode == alone || lock.2 == alone) {
            return Ok(false);
        }
        world.locks.push((self.thing, self.number, mode));
        Ok(true)
    }
}

impl Drop for VolatileFile {
    fn drop(&mut self) {
        self.files.machine.world().locks.retain(|lock| lock.1 != self.number);
    }
}
