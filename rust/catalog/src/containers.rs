//! Containers: namespaces with options.

use std::ops::Bound;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Deadline, Error, Result, codes};
use dwk_meta::{Change, Require, Row};

use crate::key::{CONTAINER_ROW, object_row, text_of};
use crate::{Catalog, Commit, ContainerName, Happening};

/// The version of the body of a container's row.
const BODY: u8 = 0;
/// The most bytes of options that a container keeps.
const OPTIONS_BYTES_MAX: usize = 16 * 1024;

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Its name.
    pub name: ContainerName,
    /// When it was made, in nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// Its options as they were given: the floor above knows what they mean.
    pub options: Vec<u8>,
}

impl ContainerInfo {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(BODY).u64(self.created_unix_ns).bytes(&self.options);
        writer.finish()
    }

    fn decode(name: &str, row: &Row) -> Result<Self> {
        let mut reader = Reader::new(&row.body, "a container's row");
        if reader.u8()? != BODY {
            let text = "a container's row is of another version";
            return Err(Error::new(&codes::FORMAT_NEWER, text).with("container", name));
        }
        let (created_unix_ns, options) = (reader.u64()?, reader.bytes()?.to_vec());
        reader.end()?;
        Ok(Self { name: ContainerName::new(name)?, created_unix_ns, options })
    }
}

impl Catalog {
    /// Makes a container. `options` are kept as they are.
    ///
    /// # Errors
    /// `container.exists`, `object.metadata` (options too long), `context.deadline`, and those of a commit
    pub fn create_container(
        &self,
        name: &ContainerName,
        options: &[u8],
        deadline: &Deadline,
    ) -> Result<ContainerInfo> {
        self.create_container_with(name, options, deadline, self.alone())
    }

    /// [`create_container`](Self::create_container), and `commit` makes the change durable: perhaps with more in
    /// it.
    ///
    /// # Errors
    /// As `create_container`, and what `commit` fails with.
    pub fn create_container_with(
        &self,
        name: &ContainerName,
        options: &[u8],
        deadline: &Deadline,
        commit: Commit<'_>,
    ) -> Result<ContainerInfo> {
        if options.len() > OPTIONS_BYTES_MAX {
            let text =
                format!("{} bytes of options, of at most {OPTIONS_BYTES_MAX}", options.len());
            return Err(Error::new(&codes::OBJECT_METADATA, text).with("container", name));
        }
        let info = ContainerInfo {
            name: name.clone(),
            created_unix_ns: self.seams.clock.unix_ns(),
            options: options.to_vec(),
        };
        let change =
            Change::new().put(name.row(), info.encode(), None).require(name.row(), Require::Absent);
        let exists = || {
            let text = format!("container {name} is there already");
            Error::new(&codes::CONTAINER_EXISTS, text).with("container", name)
        };
        let done = commit(change, Happening::ContainerCreated(&info), deadline);
        done.map(|_| info).map_err(
            |error| {
                if error.is(&codes::OBJECT_CONFLICT) { exists() } else { error }
            },
        )
    }

    /// What is known of a container.
    ///
    /// # Errors
    /// `container.not_found`, and those of reading the map
    pub fn container(&self, name: &ContainerName) -> Result<ContainerInfo> {
        let row = self.meta.get(&name.row())?.ok_or_else(|| {
            let text = format!("no container {name}");
            Error::new(&codes::CONTAINER_NOT_FOUND, text).with("container", name)
        })?;
        ContainerInfo::decode(name.as_str(), &row)
    }

    /// Up to `limit` containers after the name `after`, in the order of UTF-8 bytes.
    ///
    /// # Errors
    /// Those of reading the map
    pub fn containers(
        &self,
        after: Option<&ContainerName>,
        limit: usize,
    ) -> Result<Vec<ContainerInfo>> {
        let (first, end) = ([CONTAINER_ROW], [CONTAINER_ROW + 1]);
        let after = after.map(ContainerName::row);
        let from = after.as_deref().map_or(Bound::Included(&first[..]), Bound::Excluded);
        let rows = self.meta.range(from, Bound::Excluded(&end), limit)?;
        rows.iter().map(|(key, row)| ContainerInfo::decode(text_of(key)?, row)).collect()
    }

    /// Deletes a container that holds no object.
    ///
    /// # Errors
    /// `container.not_found`, `container.not_empty`, `context.deadline`, and those of a commit
    pub fn delete_container(&self, name: &ContainerName, deadline: &Deadline) -> Result<()> {
        self.delete_container_with(name, deadline, self.alone())
    }

    /// [`delete_container`](Self::delete_container), and `commit` makes the change durable: perhaps with more in
    /// it.
    ///
    /// # Errors
    /// As `delete_container`, and what `commit` fails with.
    pub fn delete_container_with(
        &self,
        name: &ContainerName,
        deadline: &Deadline,
        commit: Commit<'_>,
    ) -> Result<()> {
        self.container(name)?;
        let _closed = self.gate.close(deadline)?;
        // A put whose caller's time was over may still arrive.
        self.meta.await_left(deadline)?;
        let (first, end) = (object_row(&format!("{name}/")), object_row(&format!("{name}0")));
        let range = (Bound::Included(&first[..]), Bound::Excluded(&end[..]));
        if let Some((row, _)) = self.meta.range(range.0, range.1, 1)?.first() {
            let text = format!("container {name} still holds {}", text_of(row)?);
            return Err(Error::new(&codes::CONTAINER_NOT_EMPTY, text).with("container", name));
        }
        let change = Change::new().delete(name.row()).require(name.row(), Require::Present);
        let done = commit(change, Happening::ContainerDeleted(name), deadline);
        done.map(drop).map_err(|error| {
            let gone = || self.require_container(name).err();
            if error.is(&codes::OBJECT_CONFLICT) { gone().unwrap_or(error) } else { error }
        })
    }

    /// Fails unless the container is there.
    pub(crate) fn require_container(&self, name: &ContainerName) -> Result<()> {
        self.container(name).map(drop)
    }
}
