//! Open files, kept for the next read; at most so many per drive, and no more in all than leave the process
//! most of the descriptors that it may have.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::process::{Resource, getrlimit};

use super::files::File;
use crate::BlobName;
use crate::checks::guard;

/// What all drives of the process keep open may be this part of the descriptors that it may have.
const SHARE: u64 = 4;

/// How many drives share it.
static DRIVES: AtomicU64 = AtomicU64::new(0);
/// Those who keep files open that they could do without.
static KEEPERS: Mutex<Vec<Weak<dyn Keeper>>> = Mutex::new(Vec::new());

/// Keeps files open that it could do without.
pub(super) trait Keeper: Send + Sync {
    /// Closes them, as far as that is possible without waiting.
    fn let_go(&self);
}

/// Has `keeper` close its files when the process has too many.
pub(super) fn enrol(keeper: Weak<dyn Keeper>) {
    let mut keepers = guard(&KEEPERS);
    keepers.retain(|keeper| keeper.strong_count() > 0);
    keepers.push(keeper);
}

/// Closes everything that any drive of the process could do without.
pub(super) fn let_go() {
    let keepers = guard(&KEEPERS).iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
    for keeper in keepers {
        keeper.let_go();
    }
}

/// How many blobs each drive may keep open; at least one, because who has too many lets go.
fn fair_share() -> usize {
    let all = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |files| files / SHARE);
    let one = all / DRIVES.load(Ordering::Relaxed).max(1);
    usize::try_from(one).unwrap_or(usize::MAX).max(1)
}

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
        DRIVES.fetch_add(1, Ordering::Relaxed);
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
        let max = self.max.min(fair_share());
        let mut state = guard(&self.state);
        if state.forgotten != since.0 || max == 0 {
            return;
        }
        while state.open.len() >= max {
            let oldest = state.open.iter().min_by_key(|(_, entry)| entry.used);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
            state.open.remove(&name);
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

    /// Closes everything; what is under way is not kept.
    pub(super) fn close(&self) {
        let mut state = guard(&self.state);
        state.forgotten += 1;
        state.open.clear();
    }
}

impl Keeper for Handles {
    fn let_go(&self) {
        guard(&self.state).open.clear();
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        DRIVES.fetch_sub(1, Ordering::Relaxed);
    }
}
