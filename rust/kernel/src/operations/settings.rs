//! What can be set while the store is open.

use std::sync::Arc;

use dwk_base::Result;

use super::sealed::Run;
use crate::kernel::Entered;
use crate::{Access, Context, Request, Resource, Settings, Snapshot};

fn request(operation: &'static str, access: Access) -> Request {
    Request { operation, access, resource: Resource::Pool }
}

/// Sets everything that can be set, in one step; the version of the settings: `config.value`.
#[derive(Clone, Copy, Debug)]
pub struct Configure {
    /// From now on.
    pub settings: Settings,
}

impl Run for Configure {
    type Outcome = u64;

    fn request(&self) -> Request {
        request("store.configure", Access::Administer)
    }

    fn run(self, store: &Entered<'_>, _: &Context) -> Result<u64> {
        store.limits.set(self.settings)
    }
}

/// The settings that count now.
#[derive(Clone, Copy, Debug)]
pub struct GetSettings;

impl Run for GetSettings {
    type Outcome = Arc<Snapshot>;

    fn request(&self) -> Request {
        request("store.settings", Access::Administer)
    }

    fn run(self, store: &Entered<'_>, _: &Context) -> Result<Arc<Snapshot>> {
        Ok(store.limits.live().now())
    }
}
