//! Who answers for policies.

use std::sync::Arc;

use dwk_base::Result;

use super::sealed::Run;
use crate::kernel::Entered;
use crate::policies::Desk;
use crate::{Access, Context, Request, Resource};

/// The desk on which questions lie.
#[derive(Clone, Copy, Debug)]
pub struct GetDesk;

impl Run for GetDesk {
    type Outcome = Arc<Desk>;

    fn request(&self) -> Request {
        let (operation, access) = ("store.policies", Access::Administer);
        Request { operation, access, resource: Resource::Pool }
    }

    fn run(self, store: &Entered<'_>, _: &Context) -> Result<Arc<Desk>> {
        Ok(Arc::clone(&store.desk))
    }
}
