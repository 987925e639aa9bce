//! The conformance suite is worth what it finds: for each of its checks there are drives that break a promise
//! of it, one promise each, and are found out.

#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dwk_base::{Result, codes};
use dwk_drive::{
    BlobInfo, BlobName, Capacity, Description, Drive, Holder, Lock, LockMode, Log, MemoryDrive,
    Slot, conformance,
};

/// What a drive does wrong, and which check has to find it.
const BREAKS: [(Break, &str); 37] = [
    (Break::ReadsOneByteWrong, "blobs are read as they were put"),
    (Break::ForgetsTheLastPart, "large blobs of odd parts"),
    (Break::TouchesMoreThanItRead, "ranges"),
    (Break::ReadsNowFromTheBeginning, "ranges"),
    (Break::FailsPastTheEnd, "ranges"),
    (Break::Overwrites, "blobs are written once"),
    (Break::SaysPutAndKeepsTheOld, "blobs are written once"),
    (Break::SaysPutAndKeepsTheOld, "one of many writers wins"),
    (Break::ReadsNothingOfWhatIsMissing, "what is not there"),
    (Break::KnowsWhatIsMissing, "what is not there"),
    (Break::DeletesWhatIsMissing, "what is not there"),
    (Break::DeletesNothing, "deletion"),
    (Break::ReadsWhatWasDeleted, "deletion"),
    (Break::ReadsNowWhatWasDeleted, "deletion"),
    (Break::ListsBackwards, "listings"),
    (Break::ListsFromTheBeginning, "listings"),
    (Break::ListsMoreThanAsked, "listings"),
    (Break::ListsWrongLengths, "listings"),
    (Break::ListsNothingUnsynced, "listings"),
    (Break::IsNowhere, "description and capacity"),
    (Break::HasMoreFreeThanThereIs, "description and capacity"),
    (Break::HasOneSlot, "superblock slots"),
    (Break::LeavesTheTailOfASlot, "superblock slots"),
    (Break::TakesAnySuperblock, "superblock slots"),
    (Break::LocksNothing, "locks"),
    (Break::HidesItsHolder, "locks"),
    (Break::SharesNoLock, "locks"),
    (Break::LocksForEver, "locks"),
    (Break::MakesLogsOfOnes, "logs begin as zeroes"),
    (Break::WritesLogsAtTheBeginning, "logs are written in place"),
    (Break::ReadsLogsNowAsTheyWere, "logs are written in place"),
    (Break::TakesAnyLogSize, "logs refuse what does not fit"),
    (Break::SyncsMissingLogs, "logs refuse what does not fit"),
    (Break::ReadsLogsPastTheEnd, "logs refuse what does not fit"),
    (Break::DeletesNoLog, "logs are listed and deleted"),
    (Break::ListsNoLog, "logs are listed and deleted"),
    (Break::KeepsLogsAmongBlobs, "names that look alike"),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Break {
    Nothing,
    ReadsOneByteWrong,
    ForgetsTheLastPart,
    TouchesMoreThanItRead,
    ReadsNowFromTheBeginning,
    FailsPastTheEnd,
    Overwrites,
    SaysPutAndKeepsTheOld,
    ReadsNothingOfWhatIsMissing,
    KnowsWhatIsMissing,
    DeletesWhatIsMissing,
    DeletesNothing,
    ReadsWhatWasDeleted,
    ReadsNowWhatWasDeleted,
    ListsBackwards,
    ListsFromTheBeginning,
    ListsMoreThanAsked,
    ListsWrongLengths,
    ListsNothingUnsynced,
    IsNowhere,
    HasMoreFreeThanThereIs,
    HasOneSlot,
    LeavesTheTailOfASlot,
    TakesAnySuperblock,
    LocksNothing,
    HidesItsHolder,
    SharesNoLock,
    LocksForEver,
    MakesLogsOfOnes,
    WritesLogsAtTheBeginning,
    ReadsLogsNowAsTheyWere,
    TakesAnyLogSize,
    SyncsMissingLogs,
    ReadsLogsPastTheEnd,
    DeletesNoLog,
    ListsNoLog,
    KeepsLogsAmongBlobs,
}

struct Broken {
    inner: MemoryDrive,
    how: Break,
    /// What was there once: what a cache would hold that nobody clears.
    once: Mutex<BTreeMap<BlobName, Bytes>>,
    synced: Mutex<Vec<BlobName>>,
    kept: Mutex<Vec<Box<dyn Lock>>>,
}

struct Free;

impl Lock for Free {}

impl Broken {
    fn new(how: Break) -> Self {
        let (once, synced, kept) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { inner: MemoryDrive::new("broken"), how, once, synced, kept }
    }

    fn read_once(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Option<usize> {
        let once = self.once.lock().unwrap();
        let bytes = once.get(name)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = into.len().min(bytes.len() - start);
        into[..count].copy_from_slice(&bytes[start..start + count]);
        Some(count)
    }
}

impl Drive for Broken {
    fn describe(&self) -> Description {
        let mut description = self.inner.describe();
        if self.how == Break::IsNowhere {
            description.location.clear();
        }
        description
    }

    fn put(&self, name: &BlobName, parts: &[Bytes]) -> Result<()> {
        let parts = match (self.how, parts) {
            (Break::ForgetsTheLastPart, [rest @ .., _]) if !rest.is_empty() => rest,
            _ => parts,
        };
        if self.how == Break::Overwrites && self.inner.stat(name).is_ok() {
            self.inner.delete(name)?;
        }
        self.once.lock().unwrap().entry(name.clone()).or_insert_with(|| parts.concat().into());
        match self.inner.put(name, parts) {
            Err(_) if self.how == Break::SaysPutAndKeepsTheOld => Ok(()),
            result => result,
        }
    }

    fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize> {
        if self.how == Break::ReadsWhatWasDeleted
            && let Some(count) = self.read_once(name, offset, into)
        {
            return Ok(count);
        }
        let count = match self.inner.read(name, offset, into) {
            Err(_) if self.how == Break::ReadsNothingOfWhatIsMissing => 0,
            result => result?,
        };
        match self.how {
            Break::ReadsOneByteWrong if count > 1000 => into[count - 1] ^= 1,
            Break::TouchesMoreThanItRead => into[count..].fill(0),
            Break::FailsPastTheEnd if offset > self.inner.stat(name)?.bytes => {
                return Err(dwk_base::Error::new(&codes::BUFFER_LENGTH, "past the end"));
            }
            _ => {}
        }
        Ok(count)
    }

    fn read_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<Option<usize>> {
        match self.how {
            Break::ReadsNowFromTheBeginning => self.inner.read_now(name, 0, into),
            Break::ReadsNowWhatWasDeleted => Ok(self.read_once(name, offset, into)),
            _ => Ok(None),
        }
    }

    fn list(
        &self,
        folder: Option<&str>,
        after: Option<&BlobName>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        let after = after.filter(|_| self.how != Break::ListsFromTheBeginning);
        let more = usize::from(self.how == Break::ListsMoreThanAsked && limit > 0);
        let mut page = self.inner.list(folder, after, limit + more)?;
        match self.how {
            Break::ListsBackwards => page.reverse(),
            Break::ListsWrongLengths => page.iter_mut().for_each(|info| info.bytes += 1),
            Break::ListsNothingUnsynced => {
                let synced = self.synced.lock().unwrap();
                page.retain(|info| synced.contains(&info.name));
            }
            _ => {}
        }
        Ok(page)
    }

    fn delete(&self, name: &BlobName) -> Result<()> {
        match self.how {
            Break::DeletesNothing => self.inner.stat(name).map(drop),
            Break::DeletesWhatIsMissing => self.inner.delete(name).or(Ok(())),
            _ => self.inner.delete(name),
        }
    }

    fn stat(&self, name: &BlobName) -> Result<BlobInfo> {
        match self.inner.stat(name) {
            Err(_) if self.how == Break::KnowsWhatIsMissing => {
                Ok(BlobInfo { name: name.clone(), bytes: 0 })
            }
            result => result,
        }
    }

    fn capacity(&self) -> Result<Capacity> {
        let mut capacity = self.inner.capacity()?;
        if self.how == Break::HasMoreFreeThanThereIs {
            capacity.free_bytes = capacity.total_bytes + 1;
        }
        Ok(capacity)
    }

    fn sync(&self, tag: &'static str) -> Result<()> {
        let blobs = [None, Some("s")].map(|folder| self.inner.list(folder, None, 1000));
        let names = blobs.into_iter().flatten().flatten().map(|info| info.name);
        self.synced.lock().unwrap().extend(names);
        self.inner.sync(tag)
    }

    fn read_superblock(&self, slot: Slot) -> Result<Option<Vec<u8>>> {
        let slot = if self.how == Break::HasOneSlot { Slot::A } else { slot };
        self.inner.read_superblock(slot)
    }

    fn write_superblock(&self, slot: Slot, bytes: &[u8]) -> Result<()> {
        let mut bytes = bytes.to_vec();
        match self.how {
            Break::HasOneSlot => return self.inner.write_superblock(Slot::A, &bytes),
            Break::TakesAnySuperblock => bytes.truncate(dwk_drive::SUPERBLOCK_BYTES_MAX),
            Break::LeavesTheTailOfASlot => {
                let old = self.inner.read_superblock(slot)?.unwrap_or_default();
                bytes.extend(old.get(bytes.len()..).unwrap_or_default());
            }
            _ => {}
        }
        self.inner.write_superblock(slot, &bytes)
    }

    fn lock(&self, holder: &Holder, mode: LockMode) -> Result<Box<dyn Lock>> {
        match self.how {
            Break::LocksNothing => Ok(Box::new(Free)),
            Break::SharesNoLock => self.inner.lock(holder, LockMode::Exclusive),
            Break::LocksForEver => {
                self.kept.lock().unwrap().push(self.inner.lock(holder, mode)?);
                Ok(Box::new(Free))
            }
            _ => self.inner.lock(holder, mode),
        }
    }

    fn holder(&self) -> Result<Option<Holder>> {
        Ok(self.inner.holder()?.filter(|_| self.how != Break::HidesItsHolder))
    }

    fn log(&self) -> Option<&dyn Log> {
        Some(self)
    }
}

impl Log for Broken {
    fn create_log(&self, name: &BlobName, bytes: u64) -> Result<()> {
        match self.how {
            Break::KeepsLogsAmongBlobs if self.inner.stat(name).is_ok() => {
                Err(dwk_base::Error::new(&codes::BLOB_EXISTS, "a blob has that name"))
            }
            Break::TakesAnyLogSize => self.inner.create_log(name, bytes.next_multiple_of(4096)),
            Break::MakesLogsOfOnes => {
                self.inner.create_log(name, bytes)?;
                self.inner.write_log(name, 0, &[vec![1; bytes as usize].into()])
            }
            _ => self.inner.create_log(name, bytes),
        }
    }

    fn write_log(&self, name: &BlobName, offset: u64, parts: &[Bytes]) -> Result<()> {
        if self.how == Break::ReadsLogsNowAsTheyWere {
            let once = || all_of_log(&self.inner, name);
            self.once.lock().unwrap().entry(name.clone()).or_insert_with(once);
        }
        let begin = self.how == Break::WritesLogsAtTheBeginning;
        self.inner.write_log(name, if begin { 0 } else { offset }, parts)
    }

    fn sync_log(&self, name: &BlobName, tag: &'static str) -> Result<()> {
        match self.how {
            Break::SyncsMissingLogs => Ok(()),
            _ => self.inner.sync_log(name, tag),
        }
    }

    fn read_log(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<()> {
        match self.inner.read_log(name, offset, into) {
            Err(error)
                if self.how == Break::ReadsLogsPastTheEnd && error.is(&codes::BUFFER_LENGTH) =>
            {
                into.fill(0);
                Ok(())
            }
            result => result,
        }
    }

    fn read_log_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<bool> {
        Ok(self.how == Break::ReadsLogsNowAsTheyWere
            && self.read_once(name, offset, into) == Some(into.len()))
    }

    fn list_logs(&self) -> Result<Vec<BlobInfo>> {
        let logs = self.inner.list_logs()?;
        Ok(if self.how == Break::ListsNoLog { Vec::new() } else { logs })
    }

    fn delete_log(&self, name: &BlobName) -> Result<()> {
        match self.how {
            Break::DeletesNoLog => self.inner.sync_log(name, "test"),
            _ => self.inner.delete_log(name),
        }
    }
}

fn all_of_log(drive: &MemoryDrive, name: &BlobName) -> Bytes {
    let logs = drive.list_logs().unwrap();
    let bytes = logs.iter().find(|log| log.name == *name).map_or(0, |log| log.bytes);
    let mut content = vec![0; bytes as usize];
    let _ = drive.read_log(name, 0, &mut content);
    content.into()
}

/// What a check says of a drive: nothing if it finds nothing.
fn finds(check: conformance::Check, how: Break) -> Option<String> {
    let drive: Arc<dyn Drive> = Arc::new(Broken::new(how));
    let found = catch_unwind(AssertUnwindSafe(|| check(&drive))).err()?;
    let text = found.downcast_ref::<String>().cloned();
    Some(text.or_else(|| found.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap())
}

#[test]
fn a_drive_that_breaks_a_promise_is_found_by_the_check_that_is_for_it() {
    for (name, check) in conformance::CHECKS {
        assert_eq!(finds(check, Break::Nothing), None, "{name}");
        let breaks = BREAKS.iter().filter(|(_, found_by)| *found_by == name);
        let mut count = 0;
        for (how, _) in breaks {
            let found = finds(check, *how).unwrap_or_else(|| panic!("{name} passes {how:?}"));
            assert!(found.starts_with("a promise is broken: "), "{how:?}: {found}");
            count += 1;
        }
        assert!(count > 0, "no drive breaks what is checked by: {name}");
    }
}
