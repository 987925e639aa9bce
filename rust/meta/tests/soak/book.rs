//! The model: what was acknowledged, and what is in doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::Unbounded;
use std::sync::Arc;

use dwk_base::{Error, Result, codes};
use dwk_meta::Meta;

use crate::world::get;

pub(crate) type Content = Arc<Vec<u8>>;

/// What one commit does, by key; `None` deletes.
pub(crate) type Edit = BTreeMap<String, Option<Content>>;

/// What must be there, and what may be.
#[derive(Clone, Default)]
pub(crate) struct Book {
    pub(crate) known: BTreeMap<String, Content>,
    /// Commits of which nobody knows whether they happened, in their order.
    doubts: Vec<Edit>,
}

fn apply(known: &mut BTreeMap<String, Content>, edit: &Edit) {
    for (key, content) in edit {
        match content {
            Some(content) => drop(known.insert(key.clone(), Arc::clone(content))),
            None => drop(known.remove(key)),
        }
    }
}

/// True if the change may be there all the same.
pub(crate) fn is_doubtful(error: &Error) -> bool {
    error.is(&codes::JOURNAL_MEMBERS)
        || error.is(&codes::CONTEXT_DEADLINE) && error.detail("outcome") == Some("unknown")
}

impl Book {
    /// Notes how a commit ended.
    pub(crate) fn note(&mut self, edit: Edit, done: &Result<u64>) {
        match done {
            Ok(_) => apply(&mut self.known, &edit),
            Err(error) if is_doubtful(error) => self.doubts.push(edit),
            Err(error) => {
                if std::env::var_os("DWK_SEED").is_some() {
                    eprintln!("refused, {:?}: {error:?}", edit.keys());
                }
            }
        }
    }

    /// True if nobody knows of a commit whether it happened.
    pub(crate) fn is_in_doubt(&self) -> bool {
        !self.doubts.is_empty()
    }

    /// True if the key is what it is, whatever became of the commits in doubt.
    pub(crate) fn is_sure(&self, key: &str) -> bool {
        !self.doubts.iter().any(|edit| edit.contains_key(key))
    }

    /// Everything is as acknowledged, and of each commit in doubt all or nothing is there. That is how it is from now
    /// on.
    pub(crate) fn settle(&mut self, meta: &Arc<Meta>, when: &str) {
        self.known = self.judge(&see(meta, when), when);
        self.doubts.clear();
    }

    /// The same, and afterwards it may be otherwise: of a copy.
    pub(crate) fn check(&self, meta: &Arc<Meta>, when: &str) {
        self.judge(&see(meta, when), when);
    }

    fn judge(&self, seen: &BTreeMap<String, Content>, when: &str) -> BTreeMap<String, Content> {
        for chosen in 0u32..1 << self.doubts.len() {
            let mut known = self.known.clone();
            let happened = self.doubts.iter().enumerate().filter(|(n, _)| chosen >> n & 1 == 1);
            happened.for_each(|(_, edit)| apply(&mut known, edit));
            if known == *seen {
                return known;
            }
        }
        let all: BTreeSet<_> = self.known.keys().chain(seen.keys()).collect();
        let differ = all.into_iter().filter(|key| self.known.get(*key) != seen.get(*key));
        let tell = |key: &String| {
            let length = |content: Option<&Content>| content.map(|content| content.len());
            let (known, seen) = (length(self.known.get(key)), length(seen.get(key)));
            format!("{key}: {known:?} bytes, seen {seen:?}")
        };
        let differ: Vec<_> = differ.map(tell).collect();
        let doubts: Vec<Vec<_>> = self.doubts.iter().map(|edit| edit.keys().collect()).collect();
        panic!("{when}: other than acknowledged: {differ:?}, in doubt {doubts:?}");
    }

    /// Whatever can be read is right; the rest is refused.
    pub(crate) fn check_right_or_refused(&self, meta: &Arc<Meta>, when: &str) {
        for (key, content) in &self.known {
            if !self.is_sure(key) {
                continue;
            }
            match get(meta, key.as_bytes()) {
                Ok(Some(got)) => assert!(got == **content, "{when}: other bytes of {key}"),
                Ok(None) => panic!("{when}: {key} is not there, as if it never was"),
                Err(_) => {}
            }
        }
    }
}

/// All that is there.
fn see(meta: &Arc<Meta>, when: &str) -> BTreeMap<String, Content> {
    let rows = meta.range(Unbounded, Unbounded, usize::MAX).unwrap();
    let read = |(key, _): (Vec<u8>, _)| {
        let key = String::from_utf8(key).unwrap();
        let content = get(meta, key.as_bytes());
        let content = content.unwrap_or_else(|error| panic!("{when}, {key}: {error:?}"));
        (key, Arc::new(content.unwrap()))
    };
    rows.into_iter().map(read).collect()
}
