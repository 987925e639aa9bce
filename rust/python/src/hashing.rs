//! `dwkernel.hashing`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism};

use dwk_base::{Error, codes};
use dwk_chunk::{Blake3, Crc64};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::buffers::{Input, Source};
use crate::detach::detach_if_long;
use crate::errors;

/// Shared inputs up to this are gathered and hashed side by side; longer ones fill the lanes alone.
const GATHER_BYTES_MAX: usize = 16 << 10;
/// Inputs that are gathered at a time, so that the copies stay in the cache.
const GATHER_COUNT_MAX: usize = 32;
/// A thread is worth its start from about this much work on.
const THREAD_BYTES_MIN: usize = 1 << 20;

/// The BLAKE3 hash of a buffer.
///
/// Args:
///     data: any C-contiguous buffer.
///     key: 32 bytes; with it the hash can only be made by who has it.
///
/// Returns:
///     32 bytes.
///
/// Raises:
///     Invalid: `buffer.type`; `hash.key` if the key is not 32 bytes.
///
/// Releases the GIL from 16 KiB on. Thread-safe; a buffer that changes meanwhile gives some hash.
///
/// Source: O'Connor, Aumasson, Neves, Wilcox-O'Hearn: BLAKE3 (2020).
#[pyfunction]
#[pyo3(signature = (data, key=None))]
pub(crate) fn blake3<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    key: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (input, key) = (Input::new(data)?, key.map(key_of).transpose()?);
    let source = input.source();
    let hash = detach_if_long(py, input.len(), || Ok(hash_one(key.as_ref(), source)))?;
    Ok(PyBytes::new(py, &hash))
}

/// The BLAKE3 hash of each buffer; short ones (1 to 16 KiB) are hashed side by side, several times faster.
///
/// Args:
///     buffers: an iterable of C-contiguous buffers.
///     key: 32 bytes, as for `blake3`.
///     threads: how many at most; by default as many as there are idle processors. One more is
///         started for each MiB, and gone at the end of the call.
///
/// Returns:
///     A list of 32 bytes each, in the order of the buffers; each equals `blake3` of that buffer.
///
/// Raises:
///     Invalid: `buffer.type`; `hash.key` if the key is not 32 bytes.
///
/// Releases the GIL from 16 KiB in all on.
#[pyfunction]
#[pyo3(signature = (buffers, key=None, *, threads=None))]
pub(crate) fn blake3_many<'py>(
    py: Python<'py>,
    buffers: &Bound<'py, PyAny>,
    key: Option<&Bound<'py, PyAny>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyList>> {
    let key = key.map(key_of).transpose()?;
    let inputs = buffers
        .try_iter()?
        .map(|buffer| Input::new(&buffer?))
        .collect::<PyResult<Vec<Input<'py>>>>()?;
    let sources: Vec<Source<'_>> = inputs.iter().map(Input::source).collect();
    let bytes = inputs.iter().map(Input::len).sum();
    let hashes = detach_if_long(py, bytes, || {
        let threads = if bytes < 2 * THREAD_BYTES_MIN { Some(1) } else { threads };
        let threads = threads.unwrap_or_else(idle_processors);
        Ok(hash_all(key.as_ref(), &sources, threads))
    })?;
    PyList::new(py, hashes.iter().map(|hash| PyBytes::new(py, hash)))
}

/// The CRC-64/NVME of a buffer, 0 for an empty one.
///
/// Args:
///     data: any C-contiguous buffer.
///
/// Returns:
///     The CRC, from 0 to 2**64 - 1.
///
/// Raises:
///     Invalid: `buffer.type`.
///
/// Releases the GIL from 16 KiB on.
///
/// Source: NVM Express Command Set Specification, 64b CRC.
#[pyfunction]
pub(crate) fn crc64nvme<'py>(py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<u64> {
    let input = Input::new(data)?;
    let source = input.source();
    detach_if_long(py, input.len(), || {
        let mut crc = Crc64::new();
        source.for_each_piece(|piece| {
            crc.update(piece);
        });
        Ok(crc.value())
    })
}

/// The CRC-64/NVME of A and B in sequence, from their CRCs and B's length, without reading them again.
///
/// Args:
///     a: the CRC of A.
///     b: the CRC of B.
///     b_bytes: the length of B in bytes.
///
/// Returns:
///     The CRC of A + B.
///
/// Raises:
///     OverflowError: if one is not from 0 to 2**64 - 1.
#[pyfunction]
pub(crate) fn crc64_join(a: u64, b: u64, b_bytes: u64) -> u64 {
    dwk_chunk::crc64_join(a, b, b_bytes)
}

/// How many threads would find a processor now, this one counted.
///
/// On a busy machine a second thread only waits, and its batch with it.
fn idle_processors() -> usize {
    let processors = available_parallelism().map_or(1, usize::from);
    // "0.20 0.18 0.12 3/80 11206": three threads of the machine run or could run, this one is one.
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let runnable = loads.split(' ').nth(3).and_then(|field| field.split('/').next()?.parse().ok());
    (processors + 1).saturating_sub(runnable.unwrap_or(1)).max(1)
}

fn key_of(key: &Bound<'_, PyAny>) -> PyResult<[u8; 32]> {
    let mut bytes = Vec::new();
    let input = Input::new(key)?;
    if input.len() == 32 {
        input.source().for_each_piece(|piece| bytes.extend_from_slice(piece));
    }
    bytes.try_into().map_err(|_| {
        let message = format!("the key has {} bytes", input.len());
        errors::to_py(key.py(), &Error::new(&codes::HASH_KEY, message))
    })
}

fn hash_one(key: Option<&[u8; 32]>, source: Source<'_>) -> [u8; 32] {
    match (source, key) {
        (Source::Bytes(bytes), None) => dwk_chunk::blake3(bytes),
        (Source::Bytes(bytes), Some(key)) => dwk_chunk::blake3_keyed(key, bytes),
        (Source::Shared(_), key) => {
            let mut hasher = key.map_or_else(Blake3::new, Blake3::keyed);
            source.for_each_piece(|piece| {
                hasher.update(piece);
            });
            hasher.value()
        }
    }
}

/// Hashes all sources, on up to `threads` threads if there is enough work for each.
///
/// Whoever is free takes the next part, so a thread that gets no processor costs nothing but its start.
fn hash_all(key: Option<&[u8; 32]>, sources: &[Source<'_>], threads: usize) -> Vec<[u8; 32]> {
    let bytes: usize = sources.iter().map(|source| source.len()).sum();
    let threads = threads.min(bytes / THREAD_BYTES_MIN).max(1);
    if threads == 1 {
        return hash_part(key, sources);
    }
    let parts: Vec<&[Source<'_>]> = sources.chunks(sources.len().div_ceil(8 * threads)).collect();
    let hashes: Vec<OnceLock<Vec<[u8; 32]>>> = parts.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((part, hashes)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            parts.get(index).zip(hashes.get(index))
        } {
            hashes.get_or_init(|| hash_part(key, part));
        }
    };
    std::thread::scope(|scope| {
        // Where there is no room for one more, those that are there do the work.
        for _ in 1..threads {
            if Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    hashes.into_iter().flat_map(|part| part.into_inner().unwrap_or_default()).collect()
}

fn hash_part(key: Option<&[u8; 32]>, sources: &[Source<'_>]) -> Vec<[u8; 32]> {
    let many = |slices: &[&[u8]]| match key {
        None => dwk_chunk::blake3_many(slices),
        Some(key) => dwk_chunk::blake3_many_keyed(key, slices),
    };
    let borrowed = sources.iter().all(|source| matches!(source, Source::Bytes(_)));
    let count = if borrowed { sources.len().max(1) } else { GATHER_COUNT_MAX };
    sources.chunks(count).flat_map(|group| hash_group(key, group, many)).collect()
}

/// Hashes a few sources, or many of which none is shared.
fn hash_group(
    key: Option<&[u8; 32]>,
    group: &[Source<'_>],
    many: impl Fn(&[&[u8]]) -> Vec<[u8; 32]>,
) -> Vec<[u8; 32]> {
    let gathers = |source: &Source<'_>| match source {
        Source::Bytes(_) => true,
        Source::Shared(shared) => shared.len() <= GATHER_BYTES_MAX,
    };
    let short = || group.iter().filter(|source| gathers(source));
    let copied_bytes = |source: &Source<'_>| match source {
        Source::Bytes(_) => 0,
        Source::Shared(shared) => shared.len(),
    };
    let mut scratch = vec![0; short().map(copied_bytes).sum()];
    let mut room = &mut scratch[..];
    let slices: Vec<&[u8]> = short()
        .map(|source| match source {
            Source::Bytes(bytes) => *bytes,
            Source::Shared(shared) => {
                let (copy, rest) = std::mem::take(&mut room).split_at_mut(shared.len());
                shared.read(0, copy);
                room = rest;
                copy
            }
        })
        .collect();
    let mut gathered = many(&slices).into_iter();
    group
        .iter()
        .map(|source| {
            let from_lanes = if gathers(source) { gathered.next() } else { None };
            from_lanes.unwrap_or_else(|| hash_one(key, *source))
        })
        .collect()
}
