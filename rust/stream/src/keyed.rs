//! Of the messages with the same key only the last one is kept.
//!
//! Messages are looked at from the last one back: one whose key was seen already is superseded. At most
//! [`Options::keys_max`](crate::Options::keys_max) keys are remembered: of the keys beyond, which are those
//! that came longest ago, all messages stay.

use std::collections::{BTreeSet, HashSet};

use dwk_base::Result;

use crate::core::Core;
use crate::purge::envelope_of;
use crate::read::is_unreadable;
use crate::upkeep::Upkeep;
use crate::window::{Id, id_of};

impl Core {
    /// Removes messages that are superseded, if there may be enough of them; `eager` if there may be any.
    ///
    /// # Errors
    /// Those of reading frames, of uploads and of commits.
    pub(crate) fn keep_last(&self, upkeep: &mut Upkeep, eager: bool) -> Result<()> {
        if !self.config().keep_last_per_key {
            return Ok(());
        }
        let (messages, end) = {
            let ledger = self.ledger();
            (ledger.shown().messages, ledger.next)
        };
        let new = end.saturating_sub(upkeep.keyed_to);
        let is_due = upkeep.has_merged && new.saturating_mul(2) >= messages;
        if new == 0 || !(eager || is_due) {
            return Ok(());
        }
        let begin = self.limits().begin(self.clock().unix_ns());
        let (keys_max, mut keys) = (self.shared.options.keys_max, HashSet::<Id>::new());
        for known in self.settled()?.into_iter().rev() {
            if upkeep.damaged.contains(&known.header.first) {
                continue;
            }
            let mut found: Vec<(u64, Id, bool)> = Vec::new();
            let read = self.read_entries(known.header.first, &mut |entry| {
                if let Some(key) = envelope_of(entry)?.key() {
                    // What is in the window must be found there, also at the next opening.
                    let is_needed = entry.message_id.is_some() && entry.unix_ns >= begin;
                    found.push((entry.sequence, id_of(key.as_bytes()), is_needed));
                }
                Ok(())
            });
            match read {
                Err(error) if is_unreadable(&error) => {
                    upkeep.damaged.insert(known.header.first);
                    continue;
                }
                read => read?,
            }
            let mut goes = BTreeSet::new();
            for (sequence, key, is_needed) in found.into_iter().rev() {
                let is_seen = keys.contains(&key);
                if !is_seen && keys.len() < keys_max {
                    keys.insert(key);
                }
                if is_seen && !is_needed {
                    goes.insert(sequence);
                }
            }
            // A frame is rewritten when it is merged; until then it is small.
            if known.header.is_block {
                self.rewrite(upkeep, known, &goes)?;
            }
        }
        (upkeep.keyed_to, upkeep.has_merged) = (end, false);
        Ok(())
    }
}
