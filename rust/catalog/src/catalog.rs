//! The catalog itself: what it stands on, and the smallest of its verbs.

use std::sync::Arc;

use dwk_base::{Deadline, Error, Result, Seams, codes};
use dwk_meta::{Change, Meta, Require};

use crate::gate::Gate;
use crate::{Commit, Happening, Key, ObjectInfo};

/// Containers and objects. Shared between threads.
pub struct Catalog {
    pub(crate) meta: Arc<Meta>,
    pub(crate) gate: Gate,
    pub(crate) seams: Seams,
}

impl Catalog {
    /// Over an open map. Cheap: nothing is read.
    pub fn new(meta: Arc<Meta>, seams: Seams) -> Self {
        Self { meta, gate: Gate::default(), seams }
    }

    /// The map under it.
    pub fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }

    /// What is known of an object.
    ///
    /// # Errors
    /// `object.not_found`, `container.not_found`, and those of reading the map
    pub fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.find(key)?.map_or_else(|| Err(self.not_found(key)), Ok)
    }

    /// Deletes an object; with `if_match` only at that etag.
    ///
    /// # Errors
    /// `object.not_found`, `container.not_found`, `object.conflict`, `context.deadline`, and those of a
    /// commit
    pub fn delete(&self, key: &Key, if_match: Option<&str>, deadline: &Deadline) -> Result<()> {
        self.delete_with(key, if_match, deadline, self.alone())
    }

    /// [`delete`](Self::delete), and `commit` makes the change durable: perhaps with more in it.
    ///
    /// # Errors
    /// As `delete`, and what `commit` fails with.
    pub fn delete_with(
        &self,
        key: &Key,
        if_match: Option<&str>,
        deadline: &Deadline,
        commit: Commit<'_>,
    ) -> Result<()> {
        let info = self.head(key)?;
        let require = match if_match {
            Some(etag) => match_etag(&info, etag)?,
            None => Require::Present,
        };
        deadline.check()?;
        let change = Change::new().delete(key.row()).require(key.row(), require);
        let done = commit(change, Happening::ObjectDeleted(key), deadline);
        done.map(drop).map_err(|error| match (error.is(&codes::OBJECT_CONFLICT), if_match) {
            (true, None) => self.not_found(key),
            (true, Some(_)) => conflict(key, "it changed in this moment"),
            _ => error,
        })
    }

    /// What is known of an object, if it is there.
    pub(crate) fn find(&self, key: &Key) -> Result<Option<ObjectInfo>> {
        let row = self.meta.get(&key.row())?;
        row.map(|row| ObjectInfo::decode(key.clone(), row.version, &row.body)).transpose()
    }

    /// The error that says which of the two is not there.
    pub(crate) fn not_found(&self, key: &Key) -> Error {
        if let Err(error) = self.require_container(key.container()) {
            return error;
        }
        Error::new(&codes::OBJECT_NOT_FOUND, format!("no object {key}")).with("key", key)
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Catalog")
    }
}

/// What a commit must require so that `etag` is still that of the object.
pub(crate) fn match_etag(info: &ObjectInfo, etag: &str) -> Result<Require> {
    if info.etag() == etag {
        return Ok(Require::Version(info.version));
    }
    Err(conflict(&info.key, "its etag is another").with("etag", info.etag()))
}

pub(crate) fn conflict(key: &Key, why: &str) -> Error {
    Error::new(&codes::OBJECT_CONFLICT, format!("object {key}: {why}")).with("key", key)
}
