//! How a change of the catalog becomes durable: alone, or with whatever else belongs to it.

use dwk_base::{Deadline, Result};
use dwk_meta::Change;

use crate::{Catalog, ContainerInfo, ContainerName, Key, ObjectInfo};

/// What a change does.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// A container is made.
    ContainerCreated(&'a ContainerInfo),
    /// A container is deleted.
    ContainerDeleted(&'a ContainerName),
    /// An object is written, anew or over another one. Its version is that of the commit, and not known yet.
    ObjectCreated(&'a ObjectInfo),
    /// An object is deleted.
    ObjectDeleted(&'a Key),
}

/// Commits a change, whole or not at all; returns its version.
pub type Commit<'a> = Box<dyn FnOnce(Change, Happening<'_>, &Deadline) -> Result<u64> + 'a>;

impl Catalog {
    /// A commit with nothing else in it.
    pub(crate) fn alone(&self) -> Commit<'_> {
        Box::new(|change, _, deadline| self.meta.commit_until(change, deadline))
    }
}
