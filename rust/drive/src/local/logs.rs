//! Logs: preallocated and zeroed, then written in place past the page cache, so that a sync has nothing
//! to do but to flush the device.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, TryLockError};

use bytes::Bytes;
use dwk_base::{Error, Result, codes};
use rustix::io::Errno;

use super::files::{File, How, Kind, Node};
use super::handles::{self, Keeper};
use super::layout::{self, LOGS};
use super::output::{Buffers, Output};
use super::root::Root;
use super::temporary::Temporaries;
use crate::checks::{self, guard, read_guard, write_guard};
use crate::{BlobInfo, BlobName};

/// A log is zeroed in writes of this size.
const ZEROES_BYTES: usize = 1 << 20;

/// So many logs stay open, and those beside them that wait for a sync.
const OPEN_MAX: usize = 16;

pub(super) struct Logs {
    root: Arc<Root>,
    temporaries: Arc<Temporaries>,
    buffers: Arc<Buffers>,
    open: Arc<Open>,
    /// True if a removal was not made durable, for want of a descriptor. Removals take turns.
    removed: Mutex<bool>,
}

/// The logs that are open.
#[derive(Default)]
struct Open(RwLock<HashMap<BlobName, Arc<OpenLog>>>);

struct OpenLog {
    /// Writes past the page cache.
    writer: Box<dyn File>,
    /// Reads through it: what is read once is often read again.
    reader: Box<dyn File>,
    path: String,
    bytes: u64,
    /// It was written to, and no sync has come after: an error of the device is told where it is still open.
    unsynced: AtomicBool,
    /// It stays open until another one is held.
    held: AtomicBool,
}

/// Keeps what somebody uses, what waits for a sync and what is held.
fn close_idle(open: &mut HashMap<BlobName, Arc<OpenLog>>) {
    let is_set = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
    let is_used = |log: &Arc<OpenLog>| {
        Arc::strong_count(log) > 1 || is_set(&log.unsynced) || is_set(&log.held)
    };
    open.retain(|_, log| is_used(log));
}

impl Keeper for Open {
    fn let_go(&self) {
        // Who holds it may be the one who wants this.
        if let Ok(mut open) = self.0.try_write() {
            close_idle(&mut open);
        }
    }
}

impl OpenLog {
    /// False if it was removed, whoever did it.
    fn is_there(&self) -> bool {
        matches!(self.reader.node(), Ok(Node { links: 1.., .. }))
    }
}

impl Logs {
    pub(super) fn new(
        root: Arc<Root>,
        temporaries: Arc<Temporaries>,
        buffers: Arc<Buffers>,
    ) -> Self {
        let open = Arc::new(Open::default());
        let keeper: Arc<dyn Keeper> = Arc::clone(&open) as _;
        handles::enrol(Arc::downgrade(&keeper));
        Self { root, temporaries, buffers, open, removed: Mutex::default() }
    }

    pub(super) fn create(&self, name: &BlobName, bytes: u64) -> Result<()> {
        self.root.trusted()?;
        checks::log_size(name, bytes)?;
        let path = layout::log(name);
        if self.root.files().stat(&path).is_ok() {
            return Err(checks::exists(name));
        }
        let (temporary, file) = self.temporaries.create()?;
        self.fill(&*file, &temporary, bytes)
            .and_then(|()| match self.root.files().rename_new(&temporary, &path) {
                Err(Errno::EXIST) => Err(checks::exists(name)),
                result => self.root.done("rename", &path, result),
            })
            .inspect_err(|_| self.temporaries.discard(&temporary))?;
        drop(file); // one descriptor at a time
        let synced = self.root.files().sync_directory(LOGS, "log.name");
        let named = self.root.synced("fsync", LOGS, synced);
        named.inspect_err(|_| self.temporaries.discard(&path))
    }

    fn fill(&self, file: &dyn File, path: &str, bytes: u64) -> Result<()> {
        match file.allocate(bytes) {
            // Zeroes will reserve the room as well.
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {}
            Err(errno) => return Err(self.root.error("fallocate", path, errno)),
        }
        let zeroes = Bytes::from(vec![0; ZEROES_BYTES]);
        let mut output = Output { root: &self.root, file, path, offset: 0 };
        while output.offset < bytes {
            let count = (bytes - output.offset).min(ZEROES_BYTES as u64);
            output.write_direct(&[zeroes.slice(..count as usize)], &self.buffers)?;
        }
        self.root.synced_new("fsync", path, file.sync("log.content"))
    }

    fn open(&self, name: &BlobName) -> Result<Arc<OpenLog>> {
        if let Some(log) = read_guard(&self.open.0).get(name).filter(|log| log.is_there()) {
            return Ok(Arc::clone(log));
        }
        let mut open = write_guard(&self.open.0);
        if let Some(log) = open.get(name) {
            if log.is_there() {
                return Ok(Arc::clone(log));
            }
            // Removed behind our back; whatever has its name now is another log.
            open.remove(name);
        }
        if open.len() >= OPEN_MAX {
            close_idle(&mut open);
        }
        let log = match self.open_anew(name) {
            Err(error) if error.is(&codes::PROCESS_EXHAUSTED) => {
                // Ours are locked, so nobody else can have closed them.
                close_idle(&mut open);
                self.open_anew(name)
            }
            log => log,
        };
        let log = Arc::new(log?);
        open.insert(name.clone(), Arc::clone(&log));
        Ok(log)
    }

    fn open_anew(&self, name: &BlobName) -> Result<OpenLog> {
        let path = layout::log(name);
        let writer = self.open_file(name, &path, How::Write)?;
        let reader = self.open_file(name, &path, How::Read)?;
        let bytes = self.root.done("fstat", &path, reader.node())?.bytes;
        let (unsynced, held) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(OpenLog { writer, reader, path, bytes, unsynced, held })
    }

    fn open_file(&self, name: &BlobName, path: &str, how: How) -> Result<Box<dyn File>> {
        match self.root.files().open(path, how) {
            // A drive that can only be read has logs that can only be read.
            Err(Errno::ROFS | Errno::ACCESS) if how == How::Write => {
                self.open_file(name, path, How::Read)
            }
            Err(Errno::NOENT) => Err(self.not_found(name)),
            result => self.root.done("open", path, result),
        }
    }

    /// Keeps a log open, so that writing and syncing it needs no descriptor; the one that was held before is not
    /// any more.
    pub(super) fn hold(&self, name: &BlobName) -> Result<()> {
        self.root.trusted()?;
        let log = self.open(name)?;
        self.root.done("pwritev", &log.path, log.writer.may_reach(log.bytes))?;
        for open in read_guard(&self.open.0).values() {
            open.held.store(Arc::ptr_eq(open, &log), Ordering::SeqCst);
        }
        Ok(())
    }

    pub(super) fn write(&self, name: &BlobName, offset: u64, parts: &[Bytes]) -> Result<()> {
        self.root.trusted()?;
        let log = self.open(name)?;
        checks::log_write(name, log.bytes, offset, checks::total_bytes(parts))?;
        let mut output = Output { root: &self.root, file: &*log.writer, path: &log.path, offset };
        log.unsynced.store(true, Ordering::SeqCst);
        let written = output.write_direct(parts, &self.buffers);
        // Again: a sync that began before the write is none for it.
        log.unsynced.store(true, Ordering::SeqCst);
        written
    }

    pub(super) fn sync(&self, name: &BlobName) -> Result<()> {
        self.root.trusted()?;
        let log = self.open(name)?;
        log.unsynced.store(false, Ordering::SeqCst);
        self.root.synced("fdatasync", &log.path, log.writer.sync_data("log.sync"))?;
        // A log that was removed goes on as if it were there; nothing in it will be found again.
        self.root.alive()?;
        match self.root.done("fstat", &log.path, log.writer.node())?.links {
            0 => Err(self.not_found(name)),
            _ => Ok(()),
        }
    }

    /// True if nothing waits for a sync.
    pub(super) fn are_synced(&self) -> bool {
        let open = read_guard(&self.open.0);
        !*guard(&self.removed) && !open.values().any(|log| log.unsynced.load(Ordering::SeqCst))
    }

    pub(super) fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<()> {
        self.root.alive()?;
        let log = self.open(name)?;
        checks::log_range(name, log.bytes, offset, into.len() as u64)?;
        let count = self.root.read(&*log.reader, &log.path, offset, into)?;
        // Cut short behind our back.
        checks::log_range(name, offset.saturating_add(count as u64), offset, into.len() as u64)
    }

    /// Reads what lies in the page cache of a log that is open; false if that is not enough.
    pub(super) fn read_now(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<bool> {
        self.root.alive()?;
        let log = {
            // Who opens a log holds the lock meanwhile, and may be waiting for the device.
            let open = match self.open.0.try_read() {
                Ok(open) => open,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Ok(false),
            };
            let Some(log) = open.get(name).filter(|log| log.is_there()) else { return Ok(false) };
            Arc::clone(log)
        };
        checks::log_range(name, log.bytes, offset, into.len() as u64)?;
        let mut filled = 0;
        while filled < into.len() {
            match log.reader.read_at_now(&mut into[filled..], offset + filled as u64) {
                // Whatever is wrong, the waiting read will say it.
                Ok(0) | Err(_) => return Ok(false),
                Ok(count) => filled += count,
            }
        }
        Ok(true)
    }

    pub(super) fn list(&self) -> Result<Vec<BlobInfo>> {
        self.root.alive()?;
        let mut logs = Vec::new();
        for (file, kind) in self.root.list(LOGS)? {
            let Some(name) = layout::log_name(&file).filter(|_| kind == Kind::File) else {
                continue;
            };
            let path = layout::log(&name);
            match self.root.files().stat(&path) {
                Ok(node) => logs.push(BlobInfo { name, bytes: node.bytes }),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.root.error("stat", &path, errno)),
            }
        }
        logs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(logs)
    }

    pub(super) fn delete(&self, name: &BlobName) -> Result<()> {
        self.root.trusted()?;
        let path = layout::log(name);
        let mut waits = guard(&self.removed);
        let removed = self.root.files().remove(&path);
        write_guard(&self.open.0).remove(name);
        if removed != Err(Errno::NOENT) {
            self.root.done("unlink", &path, removed)?;
            *waits = true;
        }
        // Also if it was removed before, and that could not be made durable then.
        if *waits {
            let synced = self.root.files().sync_directory(LOGS, "log.delete");
            self.root.synced("fsync", LOGS, synced)?;
            *waits = false;
        }
        removed.map_err(|_| self.not_found(name))
    }

    /// Closes everything: after the directory, so that nothing is opened any more.
    pub(super) fn close(&self) {
        write_guard(&self.open.0).clear();
    }

    fn not_found(&self, name: &BlobName) -> Error {
        self.root.alive().err().unwrap_or_else(|| checks::not_found(name))
    }
}
