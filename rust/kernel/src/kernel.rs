//! An open store.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dwk_base::{Deadline, Error, PoolId, Result, Seams, codes};
use dwk_bus::Bus;
use dwk_catalog::Catalog;
use dwk_drive::Holder;
use dwk_meta::Meta;
use dwk_pool::{Pool, Seat};
use dwk_stream::Streams;

use crate::events::Herald;
use crate::flights::Flights;
use crate::limits::{Limits, Snapshot};
use crate::operations::sealed::Run;
use crate::pointers::Pointers;
use crate::policies::Desk;
use crate::{Context, Door, Guarded};

/// How long a kernel that is dropped without having been closed waits for what is under way.
const DROP_WAIT: Duration = Duration::from_secs(30);

/// Something that can be asked of a store; see [`crate::operations`].
pub trait Operation: Run {}

impl<O: Run> Operation for O {}

/// What is open.
pub struct Opened {
    pub(crate) pool: Arc<Pool>,
    pub(crate) meta: Arc<Meta>,
    pub(crate) catalog: Catalog,
    pub(crate) bus: Bus,
    pub(crate) streams: Streams,
    pub(crate) herald: Herald,
    pub(crate) pointers: Option<PathBuf>,
    pub(crate) warnings: Vec<String>,
    pub(crate) holder: Holder,
    pub(crate) limits: Arc<Limits>,
    pub(crate) desk: Arc<Desk>,
}

/// What an operation works on, and the settings that it goes by.
pub struct Entered<'a> {
    opened: &'a Opened,
    pub(crate) snapshot: &'a Snapshot,
}

impl std::ops::Deref for Entered<'_> {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        self.opened
    }
}

struct Inside {
    door: Door,
    flights: Flights,
    limits: Arc<Limits>,
    desk: Arc<Desk>,
    opened: RwLock<Option<Arc<Opened>>>,
}

/// An open store. Shared between threads; closed when it is dropped.
pub struct Kernel {
    inside: Guarded<Inside>,
    id: PoolId,
    seams: Seams,
}

impl Kernel {
    pub(crate) fn new(opened: Opened, door: Door, seams: Seams) -> Self {
        let id = opened.pool.id();
        let opened = Arc::new(opened);
        Herald::begin(&opened);
        let (limits, desk) = (Arc::clone(&opened.limits), Arc::clone(&opened.desk));
        let opened = RwLock::new(Some(opened));
        let inside =
            Guarded::new(Inside { door, flights: Flights::default(), limits, desk, opened });
        Self { inside, id, seams }
    }

    /// The pool's identity.
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// Where its drives are; none once it was closed.
    pub fn locations(&self) -> Vec<String> {
        let opened = self.inside.get().and_then(Inside::opened);
        let roster = opened.map(|opened| opened.pool.roster());
        let of = |seats: &[Arc<Seat>]| seats.iter().map(|seat| seat.location.clone()).collect();
        roster.map_or_else(|_| Vec::new(), |roster| of(&roster.seats))
    }

    /// The seams that it was opened with; deadlines are measured on their clock.
    pub fn seams(&self) -> &Seams {
        &self.seams
    }

    /// Does `operation` for whom `context` says. The one door.
    ///
    /// # Errors
    /// `store.closed`, `store.forked`, `context.deadline`, `internal.bug` (a panic, caught), and the
    /// operation's own; each with the context's correlation id
    pub fn execute<O: Operation>(&self, context: &Context, operation: O) -> Result<O::Outcome> {
        let tied = |error: Error| error.in_operation(context.correlation());
        let inside = self.inside.get().map_err(tied)?;
        let _flight = inside.flights.begin().map_err(tied)?;
        let opened = inside.opened().map_err(tied)?;
        let request = operation.request();
        inside.door.pass(context, &request, |snapshot| {
            operation.run(&Entered { opened: &opened, snapshot }, context)
        })
    }

    /// True once it was closed.
    pub fn is_closed(&self) -> bool {
        self.inside.get().map_or(true, |inside| inside.flights.is_closed())
    }

    /// Waits for what is under way, makes the rest durable and lets the drives go. Closing a closed
    /// kernel does nothing.
    ///
    /// # Errors
    /// `context.deadline` (what is under way takes longer; nothing new gets in), `store.forked`,
    /// `internal.bug`, and those of writing; each with the context's correlation id
    pub fn close(&self, context: &Context) -> Result<()> {
        self.close_looking(context, &mut || Ok(()))
    }

    /// As [`close`](Self::close); while it waits for what is under way, `look` is called several times a
    /// second and may end that: nothing new gets in, and closing again goes on.
    ///
    /// # Errors
    /// As `close`, and those of `look`
    pub fn close_looking(
        &self,
        context: &Context,
        look: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let closed = crate::door::caught(|| self.close_until(context.deadline(), look));
        closed.map_err(|error| error.in_operation(context.correlation()))
    }

    fn close_until(&self, deadline: &Deadline, look: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let inside = self.inside.get()?;
        inside.limits.end();
        inside.flights.close(deadline, look)?;
        inside.desk.end();
        let opened = inside.opened.write().unwrap_or_else(PoisonError::into_inner).take();
        opened.map_or(Ok(()), |opened| opened.close(deadline))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let deadline = Deadline::after(Arc::clone(&self.seams.clock), DROP_WAIT);
        // Everything acknowledged is durable already; what fails here costs a longer next opening.
        let _ = crate::door::caught(|| self.close_until(&deadline, &mut || Ok(())));
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kernel").field(&self.id).finish()
    }
}

impl Inside {
    fn opened(&self) -> Result<Arc<Opened>> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let closed = || Error::new(&codes::STORE_CLOSED, "the store is closed");
        opened.as_ref().map(Arc::clone).ok_or_else(closed)
    }
}

impl Opened {
    /// Writes where the drives are now, for the next opening.
    pub(crate) fn point(&self) -> Result<()> {
        let Some(path) = &self.pointers else { return Ok(()) };
        let before = Pointers::read(path)?.filter(|pointers| pointers.pool == self.pool.id());
        Pointers::of(self.pool.id(), &self.pool.roster(), before.as_ref()).write(path)
    }

    /// For an opening that nobody waits for any more: nothing is folded.
    pub(crate) fn close_now(&self) -> Result<()> {
        self.herald.close();
        self.streams.close();
        self.meta.close_now()
    }

    pub(crate) fn close(&self, deadline: &Deadline) -> Result<()> {
        self.herald.close();
        let heard = self.bus.close(deadline);
        self.streams.close();
        // A handler that hangs keeps no drive.
        self.meta.close()?;
        heard
    }
}
