//! A drive in memory: for tests, for caches, and as the readable twin of the others.
//!
//! # Consistency
//! Everything is "durable" at once, for as long as any clone lives: power cuts are the business of
//! [`crate::FaultyDrive`].

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use dwk_base::{Error, Result, codes};

use crate::checks::{self, guard, read_guard, write_guard};
use crate::{BlobInfo, BlobName, Capacity, Description, Drive, Holder, Lock, LockMode, Log, Slot};

/// The size of a [`MemoryDrive::new`]: as if there were no limit.
const CAPACITY_BYTES: u64 = 1 << 40;

/// A drive in memory. Clones share its content and its lock, so that a test can open it again.
#[derive(Clone)]
pub struct MemoryDrive {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    content: RwLock<Content>,
    holders: Arc<Mutex<Holders>>,
}

#[derive(Default)]
struct Content {
    /// By folder ("" for none), then by name.
    blobs: BTreeMap<String, BTreeMap<BlobName, Vec<u8>>>,
    logs: BTreeMap<BlobName, Vec<u8>>,
    slots: [Option<Vec<u8>>; 2],
    capacity_bytes: u64,
    used_bytes: u64,
}

/// One thing that lies on a drive, for tests that damage it behind the pool's back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// A blob.
    Blob(BlobName),
    /// A log.
    Log(BlobName),
    /// Superblock slot A.
    SuperblockA,
    /// Superblock slot B.
    SuperblockB,
}

impl MemoryDrive {
    /// An empty drive; `name` is its location.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_capacity(name, CAPACITY_BYTES)
    }

    /// An empty drive that holds at most `capacity_bytes` in blobs and logs.
    pub fn with_capacity(name: impl Into<String>, capacity_bytes: u64) -> Self {
        let content = RwLock::new(Content { capacity_bytes, ..Content::default() });
        Self { shared: Arc::new(Shared { name: name.into(), content, holders: Arc::default() }) }
    }

    /// Changes the capacity; what is there stays.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        write_guard(&self.shared.content).capacity_bytes = capacity_bytes;
    }

    /// Everything that lies on it.
    pub fn entries(&self) -> Vec<Entry> {
        let content = read_guard(&self.shared.content);
        let slot = |slot: Slot, entry| content.slots[slot as usize].as_ref().map(|_| entry);
        let blobs = content.blobs.values().flat_map(BTreeMap::keys).cloned().map(Entry::Blob);
        blobs
            .chain(content.logs.keys().cloned().map(Entry::Log))
            .chain(slot(Slot::A, Entry::SuperblockA))
            .chain(slot(Slot::B, Entry::SuperblockB))
            .collect()
    }

    /// The bytes of an entry, if it is there.
    pub fn raw(&self, entry: &Entry) -> Option<Vec<u8>> {
        let content = read_guard(&self.shared.content);
        match entry {
            Entry::Blob(name) => content.blob(name).cloned(),
            Entry::Log(name) => content.logs.get(name).cloned(),
            Entry::SuperblockA => content.slots[0].clone(),
            Entry::SuperblockB => content.slots[1].clone(),
        }
    }

    /// Sets an entry's bytes, whatever was there, or removes it.
    pub fn set_raw(&self, entry: &Entry, bytes: Option<Vec<u8>>) {
        let mut content = write_guard(&self.shared.content);
        match (entry, bytes) {
            (Entry::SuperblockA, bytes) => content.slots[0] = bytes,
            (Entry::SuperblockB, bytes) => content.slots[1] = bytes,
            (Entry::Blob(name), Some(bytes)) => {
                content.remove_blob(name);
                content.insert_blob(name, bytes);
            }
            (Entry::Blob(name), None) => drop(content.remove_blob(name)),
            (Entry::Log(name), bytes) => content.set_log(name, bytes),
        }
    }

    /// Flips the bits of `mask` in the byte at `offset` of an entry; false if there is no such byte.
    pub fn flip(&self, entry: &Entry, offset: usize, mask: u8) -> bool {
        let mut content = write_guard(&self.shared.content);
        let bytes = match entry {
            Entry::Blob(name) => {
                content.blobs.get_mut(name.folder().unwrap_or("")).and_then(|f| f.get_mut(name))
            }
            Entry::Log(name) => content.logs.get_mut(name),
            Entry::SuperblockA => content.slots[0].as_mut(),
            Entry::SuperblockB => content.slots[1].as_mut(),
        };
        bytes.and_then(|bytes| bytes.get_mut(offset)).map(|byte| *byte ^= mask).is_some()
    }

    /// Removes everything, as a new drive in the old one's place would look.
    pub fn wipe(&self) {
        let mut content = write_guard(&self.shared.content);
        let capacity_bytes = content.capacity_bytes;
        *content = Content { capacity_bytes, ..Content::default() };
    }
}

impl fmt::Debug for MemoryDrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryDrive").field(&self.shared.name).finish()
    }
}

impl Content {
    fn blob(&self, name: &BlobName) -> Option<&Vec<u8>> {
        self.blobs.get(name.folder().unwrap_or(""))?.get(name)
    }

    fn insert_blob(&mut self, name: &BlobName, bytes: Vec<u8>) {
        self.used_bytes += bytes.len() as u64;
        let folder = name.folder().unwrap_or("").to_owned();
        self.blobs.entry(folder).or_default().insert(name.clone(), bytes);
    }

    fn remove_blob(&mut self, name: &BlobName) -> Option<Vec<u8>> {
        let bytes = self.blobs.get_mut(name.folder().unwrap_or(""))?.remove(name)?;
        self.used_bytes -= bytes.len() as u64;
        Some(bytes)
    }

    fn set_log(&mut self, name: &BlobName, bytes: Option<Vec<u8>>) {
        self.used_bytes += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let old = match bytes {
            Some(bytes) => self.logs.insert(name.clone(), bytes),
            None => self.logs.remove(name),
        };
        self.used_bytes -= old.map_or(0, |old| old.len() as u64);
    }

    fn room_for(&self, bytes: u64) -> Result<()> {
        let free_bytes = self.capacity_bytes.saturating_sub(self.used_bytes);
        if bytes <= free_bytes {
            return Ok(());
        }
        let message = format!("{bytes} bytes do not fit the {free_bytes} that are free");
        Err(Error::new(&codes::DRIVE_FULL, message))
    }
}

impl Drive for MemoryDrive {
    fn describe(&self) -> Description {
        Description {
            kind: "memory",
            location: format!("memory://{}", self.shared.name),
            failure_domain: None,
            is_read_only: false,
            labels: BTreeMap::new(),
        }
    }

    fn put(&self, name: &BlobName, parts: &[Bytes]) -> Result<()> {
        let bytes = parts.concat();
        let mut content = write_guard(&self.shared.content);
        if content.blob(name).is_some() {
            return Err(checks::exists(name));
        }
        content.room_for(bytes.len() as u64)?;
        content.insert_blob(name, bytes);
        Ok(())
    }

    fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize> {
        let content = read_guard(&self.shared.content);
        let bytes = content.blob(name).ok_or_else(|| checks::not_found(name))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let length = into.len().min(bytes.len() - start);
        into[..length].copy_from_slice(&bytes[start..start + length]);
        Ok(length)
    }

    fn read_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<Option<usize>> {
        self.read(name, offset, into).map(Some)
    }

    fn list(
        &self,
        folder: Option<&str>,
        after: Option<&BlobName>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        let content = read_guard(&self.shared.content);
        let Some(blobs) = content.blobs.get(folder.unwrap_or("")) else { return Ok(Vec::new()) };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = blobs.range::<BlobName, _>((start, Bound::Unbounded)).take(limit);
        Ok(page.map(info).collect())
    }

    fn delete(&self, name: &BlobName) -> Result<()> {
        let removed = write_guard(&self.shared.content).remove_blob(name);
        removed.map(drop).ok_or_else(|| checks::not_found(name))
    }

    fn stat(&self, name: &BlobName) -> Result<BlobInfo> {
        let content = read_guard(&self.shared.content);
        let bytes = content.blob(name).ok_or_else(|| checks::not_found(name))?;
        Ok(info((name, bytes)))
    }

    fn capacity(&self) -> Result<Capacity> {
        let content = read_guard(&self.shared.content);
        let free_bytes = content.capacity_bytes.saturating_sub(content.used_bytes);
        Ok(Capacity { total_bytes: content.capacity_bytes, free_bytes })
    }

    fn sync(&self, _tag: &'static str) -> Result<()> {
        Ok(())
    }

    fn read_superblock(&self, slot: Slot) -> Result<Option<Vec<u8>>> {
        Ok(read_guard(&self.shared.content).slots[slot as usize].clone())
    }

    fn write_superblock(&self, slot: Slot, bytes: &[u8]) -> Result<()> {
        checks::superblock_size(bytes)?;
        write_guard(&self.shared.content).slots[slot as usize] = Some(bytes.to_vec());
        Ok(())
    }

    fn lock(&self, holder: &Holder, mode: LockMode) -> Result<Box<dyn Lock>> {
        let mut holders = guard(&self.shared.holders);
        let taken = match mode {
            LockMode::Exclusive => holders.held.values().next(),
            LockMode::Shared => holders.held.values().find(|(_, m)| *m == LockMode::Exclusive),
        };
        if let Some((other, _)) = taken {
            return Err(checks::locked(Some(other)));
        }
        holders.drawn += 1;
        let number = holders.drawn;
        holders.held.insert(number, (holder.clone(), mode));
        Ok(Box::new(MemoryLock { holders: Arc::clone(&self.shared.holders), number }))
    }

    fn holder(&self) -> Result<Option<Holder>> {
        let holders = guard(&self.shared.holders);
        Ok(holders.held.values().next().map(|(holder, _)| holder.clone()))
    }

    fn log(&self) -> Option<&dyn Log> {
        Some(self)
    }
}

impl Log for MemoryDrive {
    fn create_log(&self, name: &BlobName, bytes: u64) -> Result<()> {
        checks::log_size(name, bytes)?;
        let mut content = write_guard(&self.shared.content);
        if content.logs.contains_key(name) {
            return Err(checks::exists(name));
        }
        content.room_for(bytes)?;
        content.set_log(name, Some(vec![0; bytes as usize]));
        Ok(())
    }

    fn write_log(&self, name: &BlobName, offset: u64, parts: &[Bytes]) -> Result<()> {
        let mut content = write_guard(&self.shared.content);
        let log = content.logs.get_mut(name).ok_or_else(|| checks::not_found(name))?;
        checks::log_write(name, log.len() as u64, offset, checks::total_bytes(parts))?;
        let mut at = offset as usize;
        for part in parts {
            log[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }

    fn sync_log(&self, name: &BlobName, _tag: &'static str) -> Result<()> {
        let content = read_guard(&self.shared.content);
        content.logs.get(name).map(drop).ok_or_else(|| checks::not_found(name))
    }

    fn read_log(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<()> {
        let content = read_guard(&self.shared.content);
        let log = content.logs.get(name).ok_or_else(|| checks::not_found(name))?;
        checks::log_range(name, log.len() as u64, offset, into.len() as u64)?;
        into.copy_from_slice(&log[offset as usize..offset as usize + into.len()]);
        Ok(())
    }

    fn read_log_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<bool> {
        self.read_log(name, offset, into).map(|()| true)
    }

    fn list_logs(&self) -> Result<Vec<BlobInfo>> {
        Ok(read_guard(&self.shared.content).logs.iter().map(info).collect())
    }

    fn delete_log(&self, name: &BlobName) -> Result<()> {
        let mut content = write_guard(&self.shared.content);
        if !content.logs.contains_key(name) {
            return Err(checks::not_found(name));
        }
        content.set_log(name, None);
        Ok(())
    }
}

fn info((name, bytes): (&BlobName, &Vec<u8>)) -> BlobInfo {
    BlobInfo { name: name.clone(), bytes: bytes.len() as u64 }
}

#[derive(Default)]
struct Holders {
    drawn: u64,
    held: BTreeMap<u64, (Holder, LockMode)>,
}

struct MemoryLock {
    holders: Arc<Mutex<Holders>>,
    number: u64,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        guard(&self.holders).held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_the_same_drive_and_damage_shows() {
        let drive = MemoryDrive::with_capacity("d1", 10);
        let name = BlobName::new("s/ab").unwrap();
        drive.put(&name, &[Bytes::from_static(b"hello")]).unwrap();
        let again = drive.clone();
        assert_eq!(again.entries(), [Entry::Blob(name.clone())]);
        assert!(again.flip(&Entry::Blob(name.clone()), 0, 1));
        assert_eq!(drive.raw(&Entry::Blob(name.clone())).unwrap(), b"iello");
        let six = [Bytes::from_static(b"123456")];
        let refused = drive.put(&BlobName::new("x").unwrap(), &six).unwrap_err();
        assert!(refused.is(&codes::DRIVE_FULL));
        drive.delete(&name).unwrap();
        drive.put(&name, &six).unwrap();
        drive.wipe();
        assert!(again.entries().is_empty());
        assert_eq!(again.capacity().unwrap().free_bytes, 10);
    }
}
