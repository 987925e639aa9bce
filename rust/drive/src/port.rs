//! The port: what a drive must do so that a pool can use it.
//!
//! # Consistency
//! Blobs are written once. A blob is seen whole or not at all. What a call changed is durable only
//! after a later [`Drive::sync`] returned `Ok`; before that a power cut may keep it, lose it, or (for
//! bodies that cannot do better) leave it torn: whoever reads a blob verifies it. Superblock slots and
//! created logs are durable when their call returns.
//!
//! # Retries
//! None here. After one failed sync nothing that was unsynced may be believed: the drive is done for
//! this opening, and the pool writes its data elsewhere.
//!
//! # Cancellation
//! Calls block. Who must not wait for a drive that hangs uses an [`crate::Attached`] drive and gives
//! up the ticket.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use dwk_base::{Error, Result, codes};

/// Offsets, lengths and memory of log writes are multiples of this many bytes, and so are the
/// payload offsets of shards, so that `O_DIRECT` can be used.
pub const ALIGNMENT: usize = 4096;

/// The longest superblock that a slot takes, in bytes.
pub const SUPERBLOCK_BYTES_MAX: usize = 256 * 1024;

/// A blob's or log's name: 1 to 200 of `a-z 0-9 . - _`, with at most one `/` inside (a folder).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobName(String);

impl BlobName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// `blob.name`
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let plain =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'/');
        let parts = name.split('/').count();
        let dots = name.split('/').any(|part| part.is_empty() || part.starts_with('.'));
        if name.is_empty() || name.len() > 200 || parts > 2 || dots || !name.bytes().all(plain) {
            return Err(Error::new(&codes::BLOB_NAME, format!("not a blob name: {name:?}")));
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder before the `/`, if there is one.
    pub fn folder(&self) -> Option<&str> {
        self.0.split_once('/').map(|(folder, _)| folder)
    }

    /// The name without its folder.
    pub fn leaf(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, leaf)| leaf)
    }
}

impl FromStr for BlobName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a listing or [`Drive::stat`] says of a blob or log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub name: BlobName,
    /// Its length.
    pub bytes: u64,
}

/// Room on a drive, in bytes. Preallocated logs count as used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// All of it.
    pub total_bytes: u64,
    /// What can still be written.
    pub free_bytes: u64,
}

/// What a drive is, for people and for the check that two drives do not fail together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// `"local"`, `"memory"`, …
    pub kind: &'static str,
    /// A path or URL that finds the drive again.
    pub location: String,
    /// Drives with the same domain (a file system, a host) fail together.
    pub failure_domain: Option<String>,
    /// It lies where nothing can be written, as far as that is known without trying.
    pub is_read_only: bool,
    /// Anything else worth showing.
    pub labels: BTreeMap<String, String>,
}

/// One of the two places of a superblock, written in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Who holds a drive, as the lock says it to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Host name.
    pub host: String,
    /// Since when, in nanoseconds since 1970.
    pub since_unix_ns: u64,
    /// What it is, such as the command's name.
    pub program: String,
}

/// How a drive is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// One process, alone.
    Exclusive,
    /// Any number of readers.
    Shared,
}

/// Holds a drive's lock until it is dropped.
pub trait Lock: Send + Sync {}

impl fmt::Debug for dyn Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

/// One failure unit: write-once blobs, two superblock slots, a lock, and perhaps logs.
///
/// `tag` at every sync names the reason (`"stripe.write"`): for metrics, and so that a test can leave
/// out just this one and see that it was needed.
pub trait Drive: Send + Sync + 'static {
    /// What it is.
    fn describe(&self) -> Description;

    /// Writes a blob: the concatenation of `parts`. Not durable before [`sync`](Self::sync).
    ///
    /// # Errors
    /// `blob.exists` (the old content stays), `drive.full`, `drive.read_only`, `drive.io`
    fn put(&self, name: &BlobName, parts: &[Bytes]) -> Result<()>;

    /// Reads at `offset` and returns how many bytes were there: fewer than asked only at the end.
    ///
    /// # Errors
    /// `blob.not_found`, `drive.io`
    fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize>;

    /// Like [`read`](Self::read), but never waits for a device: `None` if it would have to.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<Option<usize>> {
        let _ = (name, offset, into);
        Ok(None)
    }

    /// Up to `limit` blobs of `folder` (`None`: those without a folder), in the order of names, after
    /// the name `after`. Unfinished blobs are not listed.
    ///
    /// # Errors
    /// `drive.io`
    fn list(
        &self,
        folder: Option<&str>,
        after: Option<&BlobName>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>>;

    /// Removes a blob. Not durable before [`sync`](Self::sync).
    ///
    /// # Errors
    /// `blob.not_found`, `drive.io`, `drive.read_only`
    fn delete(&self, name: &BlobName) -> Result<()>;

    /// A blob's length.
    ///
    /// # Errors
    /// `blob.not_found`, `drive.io`
    fn stat(&self, name: &BlobName) -> Result<BlobInfo>;

    /// Room.
    ///
    /// # Errors
    /// `drive.io`
    fn capacity(&self) -> Result<Capacity>;

    /// Makes every put and delete that returned before durable, names included.
    ///
    /// # Errors
    /// `drive.io`: nothing that was unsynced may be believed any more.
    fn sync(&self, tag: &'static str) -> Result<()>;

    /// What the slot holds; `None` if it was never written. May be torn or damaged.
    ///
    /// # Errors
    /// `drive.io`
    fn read_superblock(&self, slot: Slot) -> Result<Option<Vec<u8>>>;

    /// Writes a slot, at most [`SUPERBLOCK_BYTES_MAX`] bytes. Durable on return. A cut in the middle
    /// may damage this slot, never the other.
    ///
    /// # Errors
    /// `drive.io`, `drive.full`, `drive.read_only`
    fn write_superblock(&self, slot: Slot, bytes: &[u8]) -> Result<()>;

    /// Takes the drive for this process, at once or not at all. The lock ends with the process.
    ///
    /// # Errors
    /// `store.locked`, with the details `pid`, `host`, `since`
    fn lock(&self, holder: &Holder, mode: LockMode) -> Result<Box<dyn Lock>>;

    /// Who holds it now, as far as can be told without taking it.
    ///
    /// # Errors
    /// `drive.io`
    fn holder(&self) -> Result<Option<Holder>>;

    /// Up to `limit` things that lie on the drive and are none of its own, as paths for people: a scrub
    /// mentions them, nobody touches them.
    ///
    /// # Errors
    /// `drive.io`
    fn unknown(&self, limit: usize) -> Result<Vec<String>> {
        let _ = limit;
        Ok(Vec::new())
    }

    /// Lets go of everything that it keeps open: what it lies on can be taken away. Who calls afterwards gets
    /// `store.closed`, or an answer, where nothing needs to be open.
    fn close(&self) {}

    /// The log capability, if the drive can preallocate, write at an offset and sync.
    fn log(&self) -> Option<&dyn Log> {
        None
    }
}

/// Preallocated files for the journal: written in place, synced one by one.
///
/// Offsets, lengths and buffers of writes are multiples of [`ALIGNMENT`]. A power cut leaves, of
/// what was not synced, any subset of aligned sectors of 512 bytes; what was synced before stays.
pub trait Log: Send + Sync {
    /// Makes a log of `bytes` zeroes; content, size and name are durable on return.
    ///
    /// # Errors
    /// `blob.exists`, `drive.full`, `drive.io`, `drive.read_only`
    fn create_log(&self, name: &BlobName, bytes: u64) -> Result<()>;

    /// Sees to it that writing and syncing this log needs nothing of the process that it could run out of, until
    /// another log of the drive is held.
    ///
    /// # Errors
    /// `blob.not_found`, `process.exhausted`, `process.file_size`, `drive.io`
    fn hold_log(&self, name: &BlobName) -> Result<()> {
        let _ = name;
        Ok(())
    }

    /// Overwrites at `offset`, within the log's size. Not durable before [`sync_log`](Self::sync_log).
    ///
    /// # Errors
    /// `blob.not_found`, `buffer.length` (not aligned, or past the end), `drive.io`
    fn write_log(&self, name: &BlobName, offset: u64, parts: &[Bytes]) -> Result<()>;

    /// Makes every write to this log that returned before durable.
    ///
    /// # Errors
    /// `drive.io`
    fn sync_log(&self, name: &BlobName, tag: &'static str) -> Result<()>;

    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// `blob.not_found`, `buffer.length` (past the end), `drive.io`
    fn read_log(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<()>;

    /// Like [`read_log`](Self::read_log), but never waits for a device: false if it would have to; what
    /// `into` holds then has no meaning.
    ///
    /// # Errors
    /// As [`read_log`](Self::read_log).
    fn read_log_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<bool> {
        let _ = (name, offset, into);
        Ok(false)
    }

    /// All logs.
    ///
    /// # Errors
    /// `drive.io`
    fn list_logs(&self) -> Result<Vec<BlobInfo>>;

    /// Removes a log; durable on return.
    ///
    /// # Errors
    /// `blob.not_found`, `drive.io`
    fn delete_log(&self, name: &BlobName) -> Result<()>;
}
