//! Open files, kept for the next read; at most so many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::files::File;
use crate::BlobName;
use crate::checks::guard;

/// A bounded cache of open blobs: the one that was not used for longest makes room.
pub(super) struct Handles {
    max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<BlobName, Entry>,
    /// Counts uses.
    now: u64,
    /// Counts what was forgotten: what was opened before may be gone since.
    forgotten: u64,
}

struct Entry {
    file: Arc<dyn File>,
    used: u64,
}

/// When a file was opened, as [`Handles::keep`] wants to know it.
#[derive(Clone, Copy)]
pub(super) struct Since(u64);

impl Handles {
    pub(super) fn new(max: usize) -> Self {
        Self { max, state: Mutex::default() }
    }

    /// The open file, if it is here; else the time from which it may be opened and kept.
    pub(super) fn get(&self, name: &BlobName) -> Result<Arc<dyn File>, Since> {
        let mut state = guard(&self.state);
        state.now += 1;
        let now = state.now;
        match state.open.get_mut(name) {
            Some(entry) => {
                entry.used = now;
                Ok(Arc::clone(&entry.file))
            }
            None => Err(Since(state.forgotten)),
        }
    }

    /// Keeps a file that was opened after `since`, unless something was forgotten meanwhile.
    pub(super) fn keep(&self, name: &BlobName, file: &Arc<dyn File>, since: Since) {
        let mut state = guard(&self.state);
        if state.forgotten != since.0 || self.max == 0 {
            return;
        }
        if state.open.len() >= self.max {
            let oldest = state.open.iter().min_by_key(|(_, entry)| entry.used);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                state.open.remove(&name);
            }
        }
        let entry = Entry { file: Arc::clone(file), used: state.now };
        state.open.insert(name.clone(), entry);
    }

    /// The blob is removed.
    pub(super) fn forget(&self, name: &BlobName) {
        let mut state = guard(&self.state);
        state.forgotten += 1;
        state.open.remove(name);
    }
}
