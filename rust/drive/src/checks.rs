//! What every body checks and says in the same words.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use dwk_base::{Error, Result, codes};

use crate::{ALIGNMENT, BlobName, Holder, SUPERBLOCK_BYTES_MAX};

/// The length of all parts together.
pub(crate) fn total_bytes(parts: &[Bytes]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// A new log's size is a multiple of [`ALIGNMENT`].
pub(crate) fn log_size(name: &BlobName, bytes: u64) -> Result<()> {
    if bytes.is_multiple_of(ALIGNMENT as u64) {
        return Ok(());
    }
    let message = format!("log {name} cannot have {bytes} bytes: not a multiple of {ALIGNMENT}");
    Err(Error::new(&codes::BUFFER_LENGTH, message).with("name", name))
}

/// A write is aligned and lies within the log.
pub(crate) fn log_write(name: &BlobName, size: u64, offset: u64, bytes: u64) -> Result<()> {
    let align = ALIGNMENT as u64;
    if !offset.is_multiple_of(align) || !bytes.is_multiple_of(align) {
        let message = format!("a write of {bytes} bytes at {offset} to log {name} is not aligned");
        return Err(Error::new(&codes::BUFFER_LENGTH, message).with("name", name));
    }
    log_range(name, size, offset, bytes)
}

/// A range lies within the log.
pub(crate) fn log_range(name: &BlobName, size: u64, offset: u64, bytes: u64) -> Result<()> {
    if offset.checked_add(bytes).is_some_and(|end| end <= size) {
        return Ok(());
    }
    let message =
        format!("{bytes} bytes at {offset} are past the end of log {name} ({size} bytes)");
    Err(Error::new(&codes::BUFFER_LENGTH, message).with("name", name))
}

/// A slot's content is not too long.
pub(crate) fn superblock_size(bytes: &[u8]) -> Result<()> {
    if bytes.len() <= SUPERBLOCK_BYTES_MAX {
        return Ok(());
    }
    let message = format!("a superblock of {} bytes does not fit its slot", bytes.len());
    Err(Error::new(&codes::BUFFER_LENGTH, message))
}

/// `blob.not_found`
pub(crate) fn not_found(name: &BlobName) -> Error {
    Error::new(&codes::BLOB_NOT_FOUND, format!("no blob {name} on the drive")).with("name", name)
}

/// `blob.exists`
pub(crate) fn exists(name: &BlobName) -> Error {
    Error::new(&codes::BLOB_EXISTS, format!("blob {name} is there already")).with("name", name)
}

/// `store.locked`
pub(crate) fn locked(holder: Option<&Holder>) -> Error {
    match holder {
        // Only who holds it alone says who it is.
        None => Error::new(
            &codes::STORE_LOCKED,
            "the drive is held by others who read it, or by somebody who has just taken it",
        ),
        Some(Holder { pid, host, since_unix_ns, program }) => {
            let message = format!("the drive is held by {program} (process {pid} on {host})");
            Error::new(&codes::STORE_LOCKED, message)
                .with("pid", pid)
                .with("host", host)
                .with("since", since_unix_ns)
                .with("program", program)
        }
    }
}

/// `store.locked` by a process that has ended but for a thread in a call of the system.
pub(crate) fn ended(holder: &Holder) -> Error {
    let Holder { pid, host, since_unix_ns, program } = holder;
    let message = format!(
        "the drive is held by what is left of {program} (process {pid} on {host}), which has ended but for a call \
         to a disk that does not answer: it lets go once that disk answers or is taken away"
    );
    Error::new(&codes::STORE_LOCKED, message)
        .with("pid", pid)
        .with("host", host)
        .with("since", since_unix_ns)
        .with("program", program)
        .with("ended", true)
}

/// `store.locked` by somebody who reads.
pub(crate) fn shared(pid: u32, program: &str) -> Error {
    let message = format!("the drive is held by {program} (process {pid}), which reads it");
    Error::new(&codes::STORE_LOCKED, message).with("pid", pid).with("program", program)
}

/// Takes a mutex. A panic elsewhere leaves plain data behind, which stays usable.
pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock to read, as [`guard`].
pub(crate) fn read_guard<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock to write, as [`guard`].
pub(crate) fn write_guard<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
