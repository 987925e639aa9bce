//! The bus: one namespace for each tenant, and an end for all of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};

use dwk_base::{Clock, Deadline, Error, Random, Result, codes};

use crate::policy::NAME_BYTES_MAX;
use crate::space::{Inner, Shared};
use crate::sync::{exclusive, shared};
use crate::{Limits, Space};

/// Topics in memory. Cheap to clone; it ends with its last clone and the last of its spaces.
#[derive(Clone)]
pub struct Bus {
    shared: Arc<Shared>,
    spaces: Arc<RwLock<HashMap<Arc<str>, Arc<Inner>>>>,
}

impl Bus {
    /// A bus without subscribers.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, limits: Limits) -> Self {
        let shared = Arc::new(Shared::new(clock, random, limits));
        Self { shared, spaces: Arc::default() }
    }

    /// The namespace of a tenant, whose name has at most 255 bytes and no control characters; an empty name
    /// is that of nobody in particular. One that nobody uses is forgotten when room for another is needed.
    ///
    /// # Errors
    /// `context.invalid`; `queue.capacity` if there are too many tenants
    pub fn space(&self, tenant: &str) -> Result<Space> {
        if let Some(inner) = shared(&self.spaces).get(tenant) {
            return Ok(Space(Arc::clone(inner)));
        }
        if tenant.len() > NAME_BYTES_MAX || tenant.contains(char::is_control) {
            return Err(Error::new(&codes::CONTEXT_INVALID, format!("not a tenant: {tenant:?}")));
        }
        let mut spaces = exclusive(&self.spaces);
        let max = self.shared.limits.tenants_max;
        if spaces.len() >= max && !spaces.contains_key(tenant) {
            spaces.retain(|_, inner| Arc::strong_count(inner) > 1 || !inner.is_empty());
        }
        if spaces.len() >= max && !spaces.contains_key(tenant) {
            let text = format!("{max} tenants use the bus, and no more may");
            return Err(Error::new(&codes::QUEUE_CAPACITY, text));
        }
        let name: Arc<str> = tenant.into();
        let make = || {
            let tenant = Some(Arc::clone(&name)).filter(|name| !name.is_empty());
            Arc::new(Inner::new(tenant, Arc::clone(&self.shared)))
        };
        let inner = spaces.entry(Arc::clone(&name)).or_insert_with(make);
        Ok(Space(Arc::clone(inner)))
    }

    /// The namespace of a tenant, if anybody used it.
    pub fn find(&self, tenant: &str) -> Option<Space> {
        shared(&self.spaces).get(tenant).map(|inner| Space(Arc::clone(inner)))
    }

    /// Publishes and subscribes nothing more, and waits until the handlers that are served have drained their
    /// queues. What consumers have not pulled can still be pulled. Requests that are open then end.
    ///
    /// # Errors
    /// `bus.timeout` if handlers still run at the deadline: the detail `subscribers` names their
    /// subscriptions, and the bus is closed all the same
    pub fn close(&self, deadline: &Deadline) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        let spaces: Vec<Arc<Inner>> = shared(&self.spaces).values().cloned().collect();
        spaces.iter().flat_map(|space| space.cores()).for_each(|core| core.close());
        let late = self.shared.wait_for_served(deadline);
        for space in &spaces {
            space.inboxes.close();
        }
        if late.is_empty() {
            return Ok(());
        }
        let text = format!("handlers of {} subscriptions still run", late.len());
        let names: Vec<&str> = late.iter().map(|core| &*core.name).collect();
        Err(Error::new(&codes::BUS_TIMEOUT, text).with("subscribers", names.join(",")))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}
