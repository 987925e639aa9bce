//! Limits on what gets in: how often, how many at once, how large. They change while the store is open, all of
//! them in one step.
//!
//! An operation goes by one [`Snapshot`]. Who waits at a limit while settings change waits on by the new ones, and
//! goes by those from there on. Limits are for work with containers, objects and messages: what looks after the
//! store is not held back, so that a limit can always be raised, and neither is who waits for messages.

mod gate;
mod rate;
mod settings;

use std::sync::Arc;

use dwk_base::{Clock, Error, Result, codes};

pub use settings::{Live, Settings, Snapshot};

use self::gate::Gate;
use self::rate::Rate;
use crate::door::{Pass, Place, Request, Resource, Stage};

/// The limits of a store.
pub(crate) struct Limits {
    clock: Arc<dyn Clock>,
    live: Arc<Live>,
    rate: Rate,
    gate: Gate,
}

impl Limits {
    pub(crate) fn new(clock: &Arc<dyn Clock>) -> Arc<Self> {
        let (live, rate, gate) = (Arc::default(), Rate::default(), Gate::default());
        Arc::new(Self { clock: Arc::clone(clock), live, rate, gate })
    }

    /// Their stages of the door.
    pub(crate) fn stages(self: &Arc<Self>) -> Vec<Box<dyn Stage>> {
        vec![Box::new(ByRate(Arc::clone(self))), Box::new(ByCount(Arc::clone(self)))]
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// From now on `settings` count; returns their version.
    ///
    /// # Errors
    /// As [`Settings::check`]
    pub(crate) fn set(&self, settings: Settings) -> Result<u64> {
        let version = self.live.set(settings)?;
        self.tell();
        Ok(version)
    }

    /// Nobody is to wait any more: the store is closed.
    pub(crate) fn end(&self) {
        self.live.end();
        self.tell();
    }

    fn tell(&self) {
        self.rate.change(&*self.clock, &self.live.now());
        self.gate.change();
    }
}

/// True if limits are for it.
fn is_work(request: &Request) -> bool {
    match request.resource {
        Resource::Pool | Resource::Records(_) => false,
        _ => request.operation != "consumer.fetch",
    }
}

/// Holds back what comes too often.
struct ByRate(Arc<Limits>);

impl Stage for ByRate {
    fn place(&self) -> Place {
        Place::Limits
    }

    fn enter(&self, pass: &Pass<'_>) -> Result<()> {
        let Limits { clock, live, rate, .. } = &*self.0;
        let deadline = pass.context().deadline();
        while is_work(pass.request()) && !rate.enter(&**clock, live, &pass.snapshot(), deadline)? {
            pass.renew();
        }
        Ok(())
    }

    fn leave(&self, _: &Pass<'_>, _: Result<(), &Error>) {}
}

/// Holds back what would be too many at once.
struct ByCount(Arc<Limits>);

impl Stage for ByCount {
    fn place(&self) -> Place {
        Place::Admission
    }

    fn enter(&self, pass: &Pass<'_>) -> Result<()> {
        let Limits { live, gate, .. } = &*self.0;
        let deadline = pass.context().deadline();
        while is_work(pass.request()) && !gate.enter(live, &pass.snapshot(), deadline)? {
            pass.renew();
        }
        Ok(())
    }

    fn leave(&self, pass: &Pass<'_>, _: Result<(), &Error>) {
        if is_work(pass.request()) {
            self.0.gate.leave();
        }
    }
}

/// Fails if an object of `bytes` is longer than it may be.
///
/// # Errors
/// `limit.object_size` (details `limit`, `settings`: their version)
pub(crate) fn check_object_bytes(snapshot: &Snapshot, bytes: u64) -> Result<()> {
    match snapshot.settings.object_bytes_max {
        Some(limit) if bytes > limit => {
            let text = format!("the object is longer than {limit} bytes");
            let error = Error::new(&codes::LIMIT_OBJECT_SIZE, text).with("limit", limit);
            Err(error.with("settings", snapshot.version))
        }
        _ => Ok(()),
    }
}
