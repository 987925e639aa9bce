//! What the store says of itself: messages of its bus, and of the streams that take them.
//!
//! | subject | when | key, header | data |
//! |---|---|---|---|
//! | `object.created` | an object is written, anew or over another one | the object's, `container` | `key`, `size`, `checksum`, `content_type` |
//! | `object.deleted` | | the object's, `container` | `key` |
//! | `container.created`, `container.deleted` | | the container's, `container` | `container` |
//! | `drive.failed`, `.missing`, `.suspect`, `.stale`, `.draining`, `.foreign`, `.recovered`, `.added`, `.removed` | a drive's state is another one than was said last | its name, `drive` | `drive`, `id`, `location`, `state`, `was` |
//! | `rebuild.finished`, `rebuild.stopped`, `scrub.finished`, `scrub.stopped` | such work ends | | what its report says |
//!
//! The data is JSON, its schema `dwkernel.event.v1`. Events of objects and containers are in the change's own
//! commit: there is none without its change and no change without it, so a stream that refuses the event (full,
//! and told to discard what is new) refuses the change. They belong to the tenant of the operation. Those of
//! drives are in one commit with a row that says what was said last: a crash between a failure and its event
//! only delays it. They belong to whom no tenant is named. An event goes to patterns that name what it is about
//! (`object.>`, not `>` or `*.created`), so that a program's own messages stay alone. Subscribers in memory get an event after its
//! commit, as far as they have room: the store waits for nobody.

mod event;
mod herald;
mod known;

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Result};
use dwk_bus::Envelope;
use dwk_catalog::{Commit, Happening};
use dwk_meta::Change;
use dwk_stream::Outbox;

pub(crate) use event::Event;
pub(crate) use herald::Herald;

use crate::Context;
use crate::kernel::Opened;

/// A commit that says what it did, in streams and in memory, with the messages of `outbox`.
pub(crate) fn commit<'a>(store: &'a Opened, context: &'a Context, outbox: Outbox) -> Commit<'a> {
    Box::new(|change, what, deadline| commit_now(store, context, outbox, (change, what), deadline))
}

fn commit_now(
    store: &Opened,
    context: &Context,
    mut outbox: Outbox,
    (change, what): (Change, Happening<'_>),
    deadline: &Deadline,
) -> Result<u64> {
    let told = Audience::of(store, context.tenant().unwrap_or_default(), Event::subject_of(what))
        .map(|audience| audience.add(&mut outbox, Event::of(what), Some(context)))
        .transpose()?;
    let version = if outbox.is_empty() {
        store.meta.commit_until(change, deadline)?
    } else {
        outbox.commit_versioned(change, deadline)?.0
    };
    if let Some((audience, envelope)) = told {
        audience.hear(envelope);
    }
    Ok(version)
}

/// Who wants to know of an event, if there is anybody.
struct Audience<'a> {
    store: &'a Opened,
    tenant: &'a str,
    is_taken: bool,
    is_heard: bool,
}

impl<'a> Audience<'a> {
    fn of(store: &'a Opened, tenant: &'a str, subject: &str) -> Option<Self> {
        let subject = subject.parse().ok()?;
        let is_taken = store.streams.is_taken(tenant, &subject);
        let is_heard = store.bus.find(tenant).is_some_and(|space| space.is_heard(&subject));
        (is_taken || is_heard).then_some(Self { store, tenant, is_taken, is_heard })
    }

    /// Adds the event for the streams that take it.
    fn add(
        self,
        outbox: &mut Outbox,
        event: Event,
        context: Option<&Context>,
    ) -> Result<(Self, Envelope)> {
        let space = self.store.bus.space(self.tenant)?;
        let envelope = space.stamp_announcement(event.message(context)?)?;
        if self.is_taken {
            // One that was deleted in this moment takes it no more, and hinders nothing.
            outbox.offer(&envelope, None)?;
        }
        Ok((self, envelope))
    }

    /// Gives it to who listens in memory and has room; the others have missed it.
    fn hear(&self, envelope: Envelope) {
        if !self.is_heard {
            return;
        }
        if let Some(space) = self.store.bus.find(self.tenant) {
            let clock = Arc::clone(&self.store.pool.seams().clock);
            let now = Deadline::after(clock, Duration::ZERO);
            let _ = space.deliver(envelope, &now);
        }
    }
}
