//! What publishers of one stream were told, and what may therefore be there.

use std::collections::{BTreeMap, BTreeSet};

use dwk_base::Result;
use dwk_bus::Envelope;
use dwk_stream::{From, Retention, Stored, Stream};

use crate::chance::name_of;
use crate::world::never;

/// Whether a message went because somebody said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gone {
    No,
    /// Who purged was not told that it is done.
    Maybe,
    /// It goes, but who read ahead may still hand it out.
    Soon,
    Yes,
}

#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) envelope: Envelope,
    pub(crate) unix_ns: u64,
    pub(crate) gone: Gone,
    /// The stream does not show it any more, because all consumers have done it.
    pub(crate) released: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) name: &'static str,
    pub(crate) retention: Retention,
    pub(crate) there: BTreeMap<u64, Known>,
    /// Names of messages that may be there: their publisher was told of a failure.
    pub(crate) unsure: BTreeSet<String>,
    /// Those that come later, and when.
    pub(crate) delayed: BTreeMap<String, u64>,
    /// Those that may come later.
    pub(crate) unsure_delayed: BTreeSet<String>,
}

impl Told {
    pub(crate) fn new(name: &'static str, retention: Retention) -> Self {
        let (there, unsure, delayed) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { name, retention, there, unsure, delayed, unsure_delayed: BTreeSet::new() }
    }

    /// A publisher was told that it is there.
    pub(crate) fn published(&mut self, sequence: u64, envelope: &Envelope, unix_ns: u64) {
        let (name, gone) = (name_of(envelope), Gone::No);
        let known = Known { name, envelope: envelope.clone(), unix_ns, gone, released: false };
        let before = self.there.insert(sequence, known);
        assert!(before.is_none(), "{}: number {sequence} was given twice", self.name);
    }

    pub(crate) fn purged(&mut self, to: u64, gone: Gone) {
        for known in self.there.range_mut(..=to).map(|(_, known)| known) {
            known.gone = known.gone.max(gone);
        }
    }

    /// Looks what is there: everything that has to be, and nothing that nobody sent. Returns the numbers of
    /// messages that are missing and that nobody purged.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn look(&mut self, stream: &Stream, now_ns: u64) -> Result<BTreeSet<u64>> {
        let mut missing: BTreeSet<u64> = self.there.keys().copied().collect();
        for stored in read(stream)? {
            let (sequence, name) = (stored.sequence, name_of(&stored.envelope));
            missing.remove(&sequence);
            if let Some(known) = self.there.get_mut(&sequence) {
                assert_eq!(known.name, name, "{}: another message {sequence}", self.name);
                assert!(known.gone < Gone::Soon, "{}: {sequence} was purged", self.name);
                known.released = false;
                continue;
            }
            let due = self.delayed.remove(&name);
            let is_known = due.is_some() || self.unsure.remove(&name);
            let is_known = is_known || self.unsure_delayed.remove(&name);
            assert!(is_known, "{}: nobody sent {sequence}, {name}", self.name);
            assert!(due.is_none_or(|due| due <= now_ns), "{}: {name} is early", self.name);
            self.published(sequence, &stored.envelope, stored.published_unix_ns);
        }
        missing.retain(|sequence| self.there[sequence].gone == Gone::No);
        for sequence in &missing {
            let is_lost = self.retention == Retention::Limits;
            assert!(!is_lost, "{}: message {sequence} is lost", self.name);
        }
        Ok(missing)
    }

    /// The number of a message.
    pub(crate) fn number_of(&self, name: &str) -> Option<u64> {
        self.there.iter().find(|(_, known)| known.name == name).map(|(sequence, _)| *sequence)
    }
}

/// Everything that a stream shows.
fn read(stream: &Stream) -> Result<Vec<Stored>> {
    let (mut cursor, mut all) = (stream.cursor(From::First)?, Vec::new());
    loop {
        let some = cursor.next_many(7, 50_000, &never())?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}
