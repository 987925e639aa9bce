//! What the shared memory holds before the ring.
//!
//! | offset | what | written by |
//! |---|---|---|
//! | 0 | magic, version, size, namespace: constant once the queue has its name; recoveries, deaths | the maker; whoever finds a dead process |
//! | 128 | producers: their lock, the head as they last saw it, how many puts | who holds that lock |
//! | 256 | the tail | who holds the producers' lock; closing sets its lowest bit |
//! | 384 | consumers: their lock, the tail as they last saw it, how many gets | who holds that lock |
//! | 512 | the head | who holds the consumers' lock |
//! | 640 | where consumers wait for a message | anybody |
//! | 768 | where producers wait for room | anybody |
//! | 4096 | participants, 8 bytes each | each its own; whoever finds it dead |
//! | 12288 | the ring | who holds the producers' lock |
//!
//! Lines are 128 bytes apart, because processors fetch lines of 64 in pairs. A producer reads the head only
//! when what it saw last leaves no room, a consumer the tail only when it has taken all that it saw: so
//! both ends run mostly on lines of their own.
//!
//! Everything here is an atomic: other processes write to it, and nothing that is read is believed.

use std::mem::offset_of;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::event::Event;
use super::lock::Lock;

/// Processes that can use one queue at a time.
pub(super) const PARTICIPANTS_MAX: usize = 1024;
/// Where the ring begins.
pub(super) const HEADER_BYTES: usize = size_of::<Header>();

const MAGIC: u64 = u64::from_le_bytes(*b"DWKQUEUE");
/// Changes with anything in this file, and with what bits mean in others of this module.
const VERSION: u64 = 1;

/// See the module.
#[repr(C)]
pub(super) struct Header {
    pub constants: Line<Constants>,
    pub producers: Line<Side>,
    pub tail: Line<AtomicU64>,
    pub consumers: Line<Side>,
    pub head: Line<AtomicU64>,
    pub not_empty: Line<Bell>,
    pub not_full: Line<Bell>,
    pub participants: Table,
}

const _: () = assert!(offset_of!(Header, not_full) == 768);
const _: () = assert!(offset_of!(Header, participants) == 4096);
const _: () = assert!(HEADER_BYTES == 12288);

/// A pair of cache lines.
#[repr(C, align(128))]
pub(super) struct Line<T>(pub T);

/// A process in each slot, 0 if it is free.
#[repr(C, align(4096))]
pub(super) struct Table(pub [AtomicU64; PARTICIPANTS_MAX]);

#[repr(C)]
pub(super) struct Constants {
    magic: AtomicU64,
    version: AtomicU64,
    capacity_bytes: AtomicU64,
    pub namespace: AtomicU64,
    /// Locks that were taken from the dead.
    pub recoveries: AtomicU64,
    /// Participants that died without leaving.
    pub deaths: AtomicU64,
}

/// One end of the queue.
#[repr(C)]
pub(super) struct Side {
    pub lock: Lock,
    /// The other end's cursor, as it was last seen from here. Released and acquired although the lock does that
    /// too: one that was taken from a dead holder was never released.
    pub seen: AtomicU64,
    /// Messages that went through here.
    pub moved: AtomicU64,
}

/// Where one side waits for the other.
#[repr(C)]
pub(super) struct Bell {
    pub event: Event,
    /// Calls that had to wait.
    pub waits: AtomicU64,
}

impl Header {
    /// Fills in the constants; the magic comes last.
    pub(super) fn fill(&self, capacity_bytes: u64, namespace: u64) {
        let constants = &self.constants.0;
        constants.version.store(VERSION, Relaxed);
        constants.capacity_bytes.store(capacity_bytes, Relaxed);
        constants.namespace.store(namespace, Relaxed);
        constants.magic.store(MAGIC, Release);
    }

    /// True if this is a queue of this version.
    pub(super) fn is_ours(&self) -> bool {
        let constants = &self.constants.0;
        constants.magic.load(Acquire) == MAGIC && constants.version.load(Relaxed) == VERSION
    }

    /// What the maker says that the ring has.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.constants.0.capacity_bytes.load(Relaxed)
    }
}
