//! Records: what the control plane keeps in the store.

use dwk_base::Result;
use dwk_catalog::{Record, RecordChange, Records};

use super::sealed::Run;
use crate::kernel::Entered;
use crate::{Access, Context, Request, Resource};

fn request(operation: &'static str, access: Access, space: &str) -> Request {
    Request { operation, access, resource: Resource::Records(space.to_owned()) }
}

/// Changes records of a space, all or none; their version: `record.conflict`, `record.key`.
#[derive(Clone, Copy, Debug)]
pub struct CommitRecords<'a> {
    /// The space.
    pub space: &'a str,
    /// What changes.
    pub changes: &'a [RecordChange],
}

impl Run for CommitRecords<'_> {
    type Outcome = u64;

    fn request(&self) -> Request {
        request("records.commit", Access::Write, self.space)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<u64> {
        Records::new(&store.meta).commit(self.space, self.changes, context.deadline())
    }
}

/// A record, if it is there: `record.key`.
#[derive(Clone, Copy, Debug)]
pub struct GetRecord<'a> {
    /// The space.
    pub space: &'a str,
    /// The key.
    pub key: &'a str,
}

impl Run for GetRecord<'_> {
    type Outcome = Option<Record>;

    fn request(&self) -> Request {
        request("records.get", Access::Read, self.space)
    }

    fn run(self, store: &Entered<'_>, _: &Context) -> Result<Option<Record>> {
        Records::new(&store.meta).get(self.space, self.key)
    }
}

/// A page of a space's records, in the order of keys: `record.key`.
#[derive(Clone, Copy, Debug)]
pub struct ListRecords<'a> {
    /// The space.
    pub space: &'a str,
    /// Only those after this key.
    pub after: &'a str,
    /// At most so many, and 1,000.
    pub limit: usize,
}

impl Run for ListRecords<'_> {
    type Outcome = Vec<Record>;

    fn request(&self) -> Request {
        request("records.list", Access::Read, self.space)
    }

    fn run(self, store: &Entered<'_>, _: &Context) -> Result<Vec<Record>> {
        Records::new(&store.meta).list(self.space, self.after, self.limit)
    }
}
