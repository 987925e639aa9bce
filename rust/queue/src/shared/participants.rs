//! Who uses the queue: a table of processes, each in a slot of its own.
//!
//! A slot is one word, so claiming it and giving it back are one step each, and a process that is killed
//! leaves its word behind: that is how the others know that it died and did not leave. The next process
//! that joins clears such words away, because somebody is there again then.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use dwk_base::{Error, Result, codes};

use super::layout::{Header, PARTICIPANTS_MAX};
use super::system::{self, Process};

/// One process that uses the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its process id.
    pub pid: u32,
    /// False if it died without leaving.
    pub is_alive: bool,
}

/// Gives `me` a slot and clears away the dead; returns the slot's index.
///
/// # Errors
/// `queue.capacity` if there is no slot.
pub(super) fn join(header: &Header, me: Process) -> Result<usize> {
    let slots = &header.participants.0;
    for slot in slots {
        let word = slot.load(SeqCst);
        if Process::from_word(word).is_some_and(|process| !system::is_alive(process))
            && slot.compare_exchange(word, 0, SeqCst, Relaxed).is_ok()
        {
            header.constants.0.deaths.fetch_add(1, Relaxed);
        }
    }
    let claim = |slot: &std::sync::atomic::AtomicU64| {
        slot.compare_exchange(0, me.word(), SeqCst, Relaxed).is_ok()
    };
    slots.iter().position(claim).ok_or_else(|| {
        let message = format!("{PARTICIPANTS_MAX} processes use the queue already");
        Error::new(&codes::QUEUE_CAPACITY, message)
    })
}

/// Gives the slot back, if it is still `me`'s.
pub(super) fn leave(header: &Header, slot: usize, me: Process) {
    if let Some(slot) = header.participants.0.get(slot) {
        let _ = slot.compare_exchange(me.word(), 0, SeqCst, Relaxed);
    }
}

/// Everybody in the table, once each, in the order of their slots.
pub(super) fn list(header: &Header) -> Vec<Participant> {
    let mut processes: Vec<Process> = Vec::new();
    for process in words(header) {
        if !processes.contains(&process) {
            processes.push(process);
        }
    }
    let participant =
        |process: Process| Participant { pid: process.pid(), is_alive: system::is_alive(process) };
    processes.into_iter().map(participant).collect()
}

/// True if some process other than `me` died and none of the others is left.
pub(super) fn is_abandoned(header: &Header, me: Process) -> bool {
    let mut others = words(header).filter(|process| *process != me).peekable();
    others.peek().is_some() && !others.any(system::is_alive)
}

/// True if any process in the table lives.
pub(super) fn is_used(header: &Header) -> bool {
    words(header).any(system::is_alive)
}

fn words(header: &Header) -> impl Iterator<Item = Process> + '_ {
    header.participants.0.iter().filter_map(|slot| Process::from_word(slot.load(SeqCst)))
}
