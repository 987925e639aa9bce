//! The bus: what is published and heard in memory.

use dwk_base::Result;
use dwk_bus::Space;

use super::sealed::Run;
use crate::kernel::Entered;
use crate::{Access, Context, Request, Resource};

/// The context's tenant's part of the bus. It ends with the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Bus;

impl Run for Bus {
    type Outcome = Space;

    fn request(&self) -> Request {
        Request { operation: "bus.open", access: Access::Write, resource: Resource::Bus }
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Space> {
        store.bus.space(context.tenant().unwrap_or_default())
    }
}
