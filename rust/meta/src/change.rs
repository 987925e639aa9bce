//! What a caller asks a commit to do.

use crate::upload::Staged;

/// What a key must be like for a commit to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// It is not there.
    Absent,
    /// It is there.
    Present,
    /// It is there at exactly this version.
    Version(u64),
}

#[derive(Debug)]
pub(crate) enum Verb {
    Put { body: Vec<u8>, content: Source },
    Delete,
}

#[derive(Debug)]
pub(crate) enum Source {
    None,
    Keep,
    Staged(Staged),
}

/// Changes that happen together or not at all.
#[derive(Debug, Default)]
#[must_use]
pub struct Change {
    pub(crate) verbs: Vec<(Vec<u8>, Verb)>,
    pub(crate) requires: Vec<(Vec<u8>, Require)>,
}

impl Change {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a row.
    pub fn put(mut self, key: Vec<u8>, body: Vec<u8>, content: Option<Staged>) -> Self {
        let content = content.map_or(Source::None, Source::Staged);
        self.verbs.push((key, Verb::Put { body, content }));
        self
    }

    /// Writes a row's body and leaves its content as it is.
    pub fn keep_content(mut self, key: Vec<u8>, body: Vec<u8>) -> Self {
        self.verbs.push((key, Verb::Put { body, content: Source::Keep }));
        self
    }

    /// Removes a row; a key that is not there stays so.
    pub fn delete(mut self, key: Vec<u8>) -> Self {
        self.verbs.push((key, Verb::Delete));
        self
    }

    /// Lets the commit happen only if `key` is as required just before it.
    pub fn require(mut self, key: Vec<u8>, require: Require) -> Self {
        self.requires.push((key, require));
        self
    }

    /// True if it needs room: what only removes never lacks it.
    pub(crate) fn adds(&self) -> bool {
        self.verbs.iter().any(|(_, verb)| matches!(verb, Verb::Put { .. }))
    }

    /// The stripes that it brought are named by a commit, or may be.
    pub(crate) fn keep(self) {
        for (_, verb) in self.verbs {
            if let Verb::Put { content: Source::Staged(staged), .. } = verb {
                staged.keep();
            }
        }
    }
}
