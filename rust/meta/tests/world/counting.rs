//! A drive that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dwk_base::Result;
use dwk_drive::{
    BlobInfo, BlobName, Capacity, Description, Drive, Holder, Lock, LockMode, Log, MemoryDrive,
    Slot,
};

/// A drive that counts what is written to it and what is read of its blobs. Those that share counters count together.
#[derive(Clone)]
pub(crate) struct Counting {
    pub(crate) inner: MemoryDrive,
    pub(crate) read_bytes: Arc<AtomicU64>,
    pub(crate) written_bytes: Arc<AtomicU64>,
    /// Syncs that made removals durable.
    pub(crate) removals: Arc<AtomicU64>,
}

impl Counting {
    /// A drive that counts alone.
    pub(crate) fn new(inner: MemoryDrive) -> Self {
        let [read_bytes, written_bytes, removals] = std::array::from_fn(|_| Arc::default());
        Self { inner, read_bytes, written_bytes, removals }
    }

    /// How much was read since it was last asked.
    pub(crate) fn take_read_bytes(&self) -> u64 {
        self.read_bytes.swap(0, Ordering::Relaxed)
    }

    fn count(&self, bytes: usize) {
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn log(&self) -> &dyn Log {
        self.inner.log().unwrap()
    }
}

impl Drive for Counting {
    fn describe(&self) -> Description {
        self.inner.describe()
    }

    fn put(&self, name: &BlobName, parts: &[Bytes]) -> Result<()> {
        self.count(parts.iter().map(Bytes::len).sum());
        self.inner.put(name, parts)
    }

    fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize> {
        let got = self.inner.read(name, offset, into)?;
        self.read_bytes.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }

    fn list(
        &self,
        folder: Option<&str>,
        after: Option<&BlobName>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        self.inner.list(folder, after, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<()> {
        self.inner.delete(name)
    }

    fn stat(&self, name: &BlobName) -> Result<BlobInfo> {
        self.inner.stat(name)
    }

    fn capacity(&self) -> Result<Capacity> {
        self.inner.capacity()
    }

    fn sync(&self, tag: &'static str) -> Result<()> {
        self.removals.fetch_add(u64::from(tag == "stripe.remove"), Ordering::Relaxed);
        self.inner.sync(tag)
    }

    fn read_superblock(&self, slot: Slot) -> Result<Option<Vec<u8>>> {
        self.inner.read_superblock(slot)
    }

    fn write_superblock(&self, slot: Slot, bytes: &[u8]) -> Result<()> {
        self.count(bytes.len());
        self.inner.write_superblock(slot, bytes)
    }

    fn lock(&self, holder: &Holder, mode: LockMode) -> Result<Box<dyn Lock>> {
        self.inner.lock(holder, mode)
    }

    fn holder(&self) -> Result<Option<Holder>> {
        self.inner.holder()
    }

    fn log(&self) -> Option<&dyn Log> {
        Some(self)
    }
}

impl Log for Counting {
    /// The zeroes are not counted: a slot is used again and again.
    fn create_log(&self, name: &BlobName, bytes: u64) -> Result<()> {
        Self::log(self).create_log(name, bytes)
    }

    fn write_log(&self, name: &BlobName, offset: u64, parts: &[Bytes]) -> Result<()> {
        self.count(parts.iter().map(Bytes::len).sum());
        Self::log(self).write_log(name, offset, parts)
    }

    fn sync_log(&self, name: &BlobName, tag: &'static str) -> Result<()> {
        Self::log(self).sync_log(name, tag)
    }

    fn read_log(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<()> {
        Self::log(self).read_log(name, offset, into)
    }

    fn list_logs(&self) -> Result<Vec<BlobInfo>> {
        Self::log(self).list_logs()
    }

    fn delete_log(&self, name: &BlobName) -> Result<()> {
        Self::log(self).delete_log(name)
    }
}
