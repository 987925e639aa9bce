//! Which messages were seen a short while ago, by the identity that their senders gave them.
//!
//! Identities are kept as the first 128 bits of their BLAKE3, so that each takes the same little room.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// A `message_id`, hashed.
pub(crate) type Id = [u8; 16];

pub(crate) fn id_of(message_id: &[u8]) -> Id {
    let hash = dwk_chunk::blake3(message_id);
    let mut id = Id::default();
    id.iter_mut().zip(hash).for_each(|(to, byte)| *to = byte);
    id
}

/// The identities of the last messages, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Window {
    sequences: HashMap<Id, u64>,
    order: VecDeque<Seen>,
    /// When the youngest one was committed that was forgotten before its time.
    forgotten_unix_ns: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    id: Id,
    sequence: u64,
    unix_ns: u64,
}

/// How long a window is, and how many identities it holds at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) window: Duration,
    pub(crate) ids_max: usize,
}

impl Limits {
    /// What was committed before then is not in the window any more.
    pub(crate) fn begin(&self, now_unix_ns: u64) -> u64 {
        let window_ns = u64::try_from(self.window.as_nanos()).unwrap_or(u64::MAX);
        now_unix_ns.saturating_sub(window_ns)
    }
}

impl Window {
    /// The number of the message that had this identity.
    pub(crate) fn find(&self, id: &Id) -> Option<u64> {
        self.sequences.get(id).copied()
    }

    /// Remembers a message that comes after all others.
    pub(crate) fn add(&mut self, id: Id, sequence: u64, unix_ns: u64) {
        self.sequences.insert(id, sequence);
        self.order.push_back(Seen { id, sequence, unix_ns });
    }

    /// Forgets messages that never came to be: those from `sequence` on.
    pub(crate) fn take_back(&mut self, sequence: u64) {
        while self.order.back().is_some_and(|seen| seen.sequence >= sequence) {
            if let Some(seen) = self.order.pop_back() {
                self.forget(seen);
            }
        }
    }

    /// Forgets what is too old or too much.
    pub(crate) fn trim(&mut self, limits: Limits, now_unix_ns: u64) {
        let begin = limits.begin(now_unix_ns);
        while let Some(seen) = self.order.front().copied() {
            let is_old = seen.unix_ns < begin || limits.window.is_zero();
            if !is_old && self.order.len() <= limits.ids_max {
                return;
            }
            if !is_old {
                self.forgotten_unix_ns = Some(seen.unix_ns);
            }
            self.order.pop_front();
            self.forget(seen);
        }
    }

    /// The identities of messages up to then cannot be known.
    pub(crate) fn lost(&mut self, unix_ns: u64) {
        self.forgotten_unix_ns = self.forgotten_unix_ns.max(Some(unix_ns));
    }

    fn forget(&mut self, seen: Seen) {
        if self.sequences.get(&seen.id) == Some(&seen.sequence) {
            self.sequences.remove(&seen.id);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// True if identities were forgotten that should still be known.
    pub(crate) fn is_short(&self, limits: Limits, now_unix_ns: u64) -> bool {
        self.forgotten_unix_ns.is_some_and(|unix_ns| unix_ns >= limits.begin(now_unix_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { window: Duration::from_nanos(100), ids_max: 3 };

    fn window(times: &[u64]) -> Window {
        let mut window = Window::default();
        for (sequence, unix_ns) in (1..).zip(times) {
            window.add(id_of(&[sequence as u8]), sequence, *unix_ns);
        }
        window
    }

    #[test]
    fn an_identity_is_known_until_its_time_is_over() {
        let mut window = window(&[10, 50]);
        window.trim(LIMITS, 110);
        assert_eq!(window.find(&id_of(&[1])), Some(1));
        window.trim(LIMITS, 111);
        assert_eq!((window.find(&id_of(&[1])), window.find(&id_of(&[2]))), (None, Some(2)));
        assert!(!window.is_short(LIMITS, 111));
    }

    #[test]
    fn too_many_identities_shorten_the_window_and_that_is_known_until_it_is_over() {
        let mut window = window(&[10, 20, 30, 40, 50]);
        window.trim(LIMITS, 60);
        assert_eq!(
            (window.len(), window.find(&id_of(&[2])), window.find(&id_of(&[3]))),
            (3, None, Some(3))
        );
        assert!(window.is_short(LIMITS, 120) && !window.is_short(LIMITS, 121));
    }

    #[test]
    fn what_is_taken_back_was_never_seen() {
        let mut window = window(&[1, 2, 3]);
        window.take_back(2);
        assert_eq!((window.len(), window.find(&id_of(&[2]))), (1, None));
        window.add(id_of(&[9]), 2, 2);
        assert_eq!(window.find(&id_of(&[9])), Some(2));
    }

    #[test]
    fn an_identity_that_came_again_after_its_time_is_the_later_message() {
        let mut window = window(&[10]);
        window.add(id_of(&[1]), 7, 200);
        window.trim(LIMITS, 200);
        assert_eq!(window.find(&id_of(&[1])), Some(7));
    }
}
