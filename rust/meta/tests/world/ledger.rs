//! What a store must say after the power came back.

use std::sync::Arc;

use dwk_base::{Result, codes};
use dwk_meta::Meta;

use super::{Model, check, delete, get, put};

/// What was acknowledged, and what was under way when the power went.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) acknowledged: Model,
    /// The change under way when the power went: it happened or it did not.
    unsure: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Ledger {
    pub(crate) fn put(&mut self, meta: &Arc<Meta>, key: &str, content: Vec<u8>) -> Result<()> {
        let key = key.as_bytes().to_vec();
        let done = put(meta, &key, &content);
        self.note(key, Some(content), done)
    }

    pub(crate) fn delete(&mut self, meta: &Arc<Meta>, key: &str) -> Result<()> {
        let key = key.as_bytes().to_vec();
        let done = delete(meta, &key);
        self.note(key, None, done)
    }

    fn note(&mut self, key: Vec<u8>, content: Option<Vec<u8>>, done: Result<u64>) -> Result<()> {
        match done {
            Ok(_) => self.settle(key, content),
            // The only error after which a change may be there all the same.
            Err(error) if error.is(&codes::JOURNAL_MEMBERS) => {
                self.unsure = Some((key, content));
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn settle(&mut self, key: Vec<u8>, content: Option<Vec<u8>>) {
        match content {
            Some(content) => drop(self.acknowledged.insert(key, content)),
            None => drop(self.acknowledged.remove(&key)),
        }
    }

    /// Settles the unsure change by what is there, then everything must be as acknowledged.
    pub(crate) fn check(&mut self, meta: &Arc<Meta>, when: &str) {
        if let Some((key, content)) = self.unsure.take() {
            let now = get(meta, &key).unwrap_or_else(|error| panic!("{when}: {error}"));
            if now == content {
                self.settle(key, content);
            }
        }
        check(meta, &self.acknowledged, when);
    }
}
