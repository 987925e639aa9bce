//! Dead letters that are not buried yet.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use super::letter::{DeadLetter, REASON_BYTES_MAX, Reason};

/// What the reasons of all letters that wait may take together, in bytes: so that a snapshot stays small,
/// also when nobody buries them.
pub(super) const REASONS_BYTES_MAX: usize = 4 << 10;

/// The letters, by the number of their message.
#[derive(Clone, Debug, Default)]
pub(super) struct Letters {
    letters: BTreeMap<u64, DeadLetter>,
    reasons_bytes: usize,
}

impl Letters {
    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    pub(super) fn contains(&self, sequence: u64) -> bool {
        self.letters.contains_key(&sequence)
    }

    /// In the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.values()
    }

    /// The numbers within `range`, in order.
    pub(super) fn within(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = u64> {
        self.letters.range(range).map(|(sequence, _)| *sequence)
    }

    /// Adds a letter; its reason is cut to what there is room for.
    pub(super) fn insert(&mut self, mut letter: DeadLetter) {
        if let Reason::Terminated(text) = &mut letter.reason {
            let room = REASONS_BYTES_MAX - self.reasons_bytes;
            text.truncate(text.floor_char_boundary(room.min(REASON_BYTES_MAX)));
            self.reasons_bytes += text.len();
        }
        self.letters.insert(letter.sequence, letter);
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<DeadLetter> {
        let letter = self.letters.remove(&sequence)?;
        if let Reason::Terminated(text) = &letter.reason {
            self.reasons_bytes -= text.len();
        }
        Some(letter)
    }
}
