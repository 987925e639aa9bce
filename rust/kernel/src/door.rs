//! The door: what stands between a caller and the store, in which order.
//!
//! An operation passes the stages in the order of [`Place`], and leaves through those that let it in,
//! last one first. Inside it is watched: a panic becomes `internal.bug` instead of the end of the host
//! process, and every error carries the operation's correlation id.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dwk_base::{Error, Result, codes};

use crate::Context;
use crate::limits::{Live, Snapshot};
use crate::policies::Visit;

/// What an operation does to what it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Looks.
    Read,
    /// Changes content.
    Write,
    /// Changes how the store is built.
    Administer,
}

/// What an operation touches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The pool of drives.
    Pool,
    /// The tenant's bus.
    Bus,
    /// One stream of it.
    Stream(String),
    /// A space of what the control plane keeps.
    Records(String),
    /// All containers.
    Containers,
    /// One container.
    Container(String),
    /// One object, by its whole key, or all whose keys begin so.
    Object(String),
}

/// What stages see of an operation.
#[derive(Clone, Debug)]
pub struct Request {
    /// Stable name, such as `object.put`.
    pub operation: &'static str,
    /// What it does.
    pub access: Access,
    /// What it touches.
    pub resource: Resource,
}

/// An operation on its way through the door.
pub struct Pass<'a> {
    context: &'a Context,
    request: &'a Request,
    live: &'a Live,
    snapshot: RefCell<Arc<Snapshot>>,
    visit: RefCell<Option<Visit>>,
}

impl<'a> Pass<'a> {
    fn new(context: &'a Context, request: &'a Request, live: &'a Live) -> Self {
        let (snapshot, visit) = (RefCell::new(live.now()), RefCell::default());
        Self { context, request, live, snapshot, visit }
    }

    /// Who asks, and until when.
    pub fn context(&self) -> &Context {
        self.context
    }

    /// For what.
    pub fn request(&self) -> &Request {
        self.request
    }

    /// The settings that it goes by.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// What policies were asked about it, for when it leaves.
    pub(crate) fn remember(&self, visit: Visit) {
        *self.visit.borrow_mut() = Some(visit);
    }

    pub(crate) fn recall(&self) -> Option<Visit> {
        self.visit.borrow_mut().take()
    }

    /// From here on it goes by the settings that count now: for one that waited while they changed.
    pub(crate) fn renew(&self) {
        *self.snapshot.borrow_mut() = self.live.now();
    }
}

/// Where in the door a stage stands. The order of the variants is the order in which an operation meets
/// them; the deadline comes before all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// May this principal do that? First, so that nobody learns anything else before.
    Authorisation,
    /// Does any rule of the owner's own speak against it?
    Policy,
    /// Not too often?
    Limits,
    /// Not too much?
    Quota,
    /// Is there memory for it?
    Admission,
    /// Is what it needs in a state to be asked?
    Breaking,
    /// Who did what, and how it ended.
    Audit,
    /// How many and how long; last, so that it times the work and not the waiting before it.
    Metrics,
}

/// One thing that every operation passes.
pub trait Stage: Send + Sync {
    /// Where it stands.
    fn place(&self) -> Place;

    /// Lets the operation in, perhaps after a wait that ends with the context's deadline.
    ///
    /// # Errors
    /// Whatever keeps it out.
    fn enter(&self, pass: &Pass<'_>) -> Result<()>;

    /// Told how an operation ended that it let in.
    fn leave(&self, pass: &Pass<'_>, outcome: Result<(), &Error>);
}

/// The stages of a kernel.
#[derive(Default)]
pub struct Door {
    stages: Vec<Box<dyn Stage>>,
    live: Arc<Live>,
}

impl Door {
    /// A door with these stages, set in the order of their places, for operations that go by `live`.
    pub fn new(mut stages: Vec<Box<dyn Stage>>, live: Arc<Live>) -> Self {
        stages.sort_by_key(|stage| stage.place());
        Self { stages, live }
    }

    /// Takes an operation through. `work` is shown the settings that it goes by.
    ///
    /// # Errors
    /// `context.deadline`, a stage's refusal, what `work` returns; `internal.bug` if it panics
    pub fn pass<T>(
        &self,
        context: &Context,
        request: &Request,
        work: impl FnOnce(&Snapshot) -> Result<T>,
    ) -> Result<T> {
        let pass = Pass::new(context, request, &self.live);
        let outcome = context.deadline().check().and_then(|()| self.staged(&pass, work));
        outcome.map_err(|error| error.in_operation(context.correlation()))
    }

    fn staged<T>(&self, pass: &Pass<'_>, work: impl FnOnce(&Snapshot) -> Result<T>) -> Result<T> {
        let mut inside = 0;
        let mut enter = || {
            for stage in &self.stages {
                caught(|| stage.enter(pass))?;
                inside += 1;
            }
            Ok(())
        };
        let outcome = enter().and_then(|()| caught(|| work(&pass.snapshot())));
        for stage in self.stages[..inside].iter().rev() {
            let told = outcome.as_ref().map(|_| ());
            // What a stage makes of it afterwards does not change what happened.
            let _ = caught(|| {
                stage.leave(pass, told);
                Ok(())
            });
        }
        outcome
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places: Vec<_> = self.stages.iter().map(|stage| stage.place()).collect();
        f.debug_tuple("Door").field(&places).finish()
    }
}

/// Runs `work`; a panic in it is an error.
// What a panic left half-done is either gone with it or guarded: a commit happens in one place.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(bug(panic.as_ref())))
}

fn bug(panic: &(dyn Any + Send)) -> Error {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Error::new(&codes::INTERNAL_BUG, format!("an assertion failed: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use dwk_base::{Deadline, ManualClock, SeededRandom};

    use crate::Principal;

    type Log = Arc<Mutex<Vec<String>>>;

    struct Noted(Place, Log, bool);

    impl Stage for Noted {
        fn place(&self) -> Place {
            self.0
        }

        fn enter(&self, _: &Pass<'_>) -> Result<()> {
            self.1.lock().unwrap().push(format!("enter {:?}", self.0));
            if self.2 { Ok(()) } else { Err(Error::new(&codes::POOL_FULL, "refused")) }
        }

        fn leave(&self, pass: &Pass<'_>, outcome: Result<(), &Error>) {
            let request = pass.request();
            let how = outcome.map_or_else(|error| error.code().name, |()| "ok");
            self.1.lock().unwrap().push(format!("leave {:?} {} {how}", self.0, request.operation));
        }
    }

    fn context(clock: &Arc<ManualClock>) -> Context {
        let deadline = Deadline::after(clock.clone(), Duration::from_secs(1));
        Context::new(Principal::new("test").unwrap(), deadline, &SeededRandom::new(1))
    }

    const REQUEST: Request =
        Request { operation: "object.get", access: Access::Read, resource: Resource::Pool };

    #[test]
    fn stages_are_passed_in_order_and_left_backwards() {
        let log = Log::default();
        let stage = |place, lets| Box::new(Noted(place, log.clone(), lets)) as Box<dyn Stage>;
        let door = Door::new(
            vec![stage(Place::Audit, true), stage(Place::Authorisation, true)],
            Arc::default(),
        );
        let clock = Arc::new(ManualClock::default());
        assert_eq!(door.pass(&context(&clock), &REQUEST, |_| Ok(7)).ok(), Some(7));
        let expected = [
            "enter Authorisation",
            "enter Audit",
            "leave Audit object.get ok",
            "leave Authorisation object.get ok",
        ];
        assert_eq!(*log.lock().unwrap(), expected);

        log.lock().unwrap().clear();
        let door = Door::new(
            vec![
                stage(Place::Metrics, true),
                stage(Place::Quota, false),
                stage(Place::Authorisation, true),
            ],
            Arc::default(),
        );
        assert!(door.pass(&context(&clock), &REQUEST, |_| Ok(7)).is_err());
        let expected =
            ["enter Authorisation", "enter Quota", "leave Authorisation object.get pool.full"];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[test]
    fn an_error_carries_the_operation_and_a_panic_is_one() {
        let clock = Arc::new(ManualClock::default());
        let context = context(&clock);
        let error = Door::default()
            .pass::<()>(&context, &REQUEST, |_| panic!("on purpose, in a test"))
            .unwrap_err();
        assert!(error.is(&codes::INTERNAL_BUG) && error.message().contains("on purpose"));
        assert_eq!(error.correlation(), Some(context.correlation()));
    }

    #[test]
    fn nothing_begins_after_its_deadline() {
        let clock = Arc::new(ManualClock::default());
        let context = context(&clock);
        clock.advance(Duration::from_secs(1));
        let refused = Door::default().pass::<()>(&context, &REQUEST, |_| unreachable!());
        assert!(refused.is_err_and(|error| error.is(&codes::CONTEXT_DEADLINE)));
    }
}
