//! Operations on containers.

use dwk_base::Result;
use dwk_catalog::{ContainerInfo, ContainerName};

use super::sealed::Run;
use crate::events;
use crate::kernel::Entered;
use crate::{Access, Context, Request, Resource};

/// Makes a container: `container.exists`.
#[derive(Clone, Copy, Debug)]
pub struct CreateContainer<'a> {
    /// Its name.
    pub name: &'a ContainerName,
    /// Kept as they are.
    pub options: &'a [u8],
}

impl Run for CreateContainer<'_> {
    type Outcome = ContainerInfo;

    fn request(&self) -> Request {
        let resource = Resource::Container(self.name.to_string());
        Request { operation: "container.create", access: Access::Write, resource }
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<ContainerInfo> {
        let commit = events::commit(store, context, store.streams.outbox());
        store.catalog.create_container_with(self.name, self.options, context.deadline(), commit)
    }
}

/// What is known of a container: `container.not_found`.
#[derive(Clone, Copy, Debug)]
pub struct GetContainer<'a> {
    /// Its name.
    pub name: &'a ContainerName,
}

impl Run for GetContainer<'_> {
    type Outcome = ContainerInfo;

    fn request(&self) -> Request {
        let resource = Resource::Container(self.name.to_string());
        Request { operation: "container.get", access: Access::Read, resource }
    }

    fn run(self, store: &Entered<'_>, _: &Context) -> Result<ContainerInfo> {
        store.catalog.container(self.name)
    }
}

/// A page of containers, in the order of UTF-8 bytes.
#[derive(Clone, Copy, Debug)]
pub struct ListContainers<'a> {
    /// Only those after this one.
    pub after: Option<&'a ContainerName>,
    /// At most this many.
    pub limit: usize,
}

impl Run for ListContainers<'_> {
    type Outcome = Vec<ContainerInfo>;

    fn request(&self) -> Request {
        let resource = Resource::Containers;
        Request { operation: "container.list", access: Access::Read, resource }
    }

    fn run(self, store: &Entered<'_>, _: &Context) -> Result<Vec<ContainerInfo>> {
        store.catalog.containers(self.after, self.limit.min(dwk_catalog::PAGE_ENTRIES_MAX))
    }
}

/// Deletes an empty container: `container.not_found`, `container.not_empty`.
#[derive(Clone, Copy, Debug)]
pub struct DeleteContainer<'a> {
    /// Its name.
    pub name: &'a ContainerName,
}

impl Run for DeleteContainer<'_> {
    type Outcome = ();

    fn request(&self) -> Request {
        let resource = Resource::Container(self.name.to_string());
        Request { operation: "container.delete", access: Access::Write, resource }
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<()> {
        let commit = events::commit(store, context, store.streams.outbox());
        store.catalog.delete_container_with(self.name, context.deadline(), commit)
    }
}
