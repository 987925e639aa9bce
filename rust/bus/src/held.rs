//! Messages that found no room, and wait for some.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Error, codes};

use crate::Envelope;
use crate::core::Core;
use crate::group::Waiting;
use crate::mailbox::{Item, Offer};
use crate::receipt::{Receipt, Ticket};
use crate::tally::Tally;

/// While several are waited for, one is waited for so long before the others are looked at again.
const SLICE: Duration = Duration::from_millis(2);

/// What one subscription, or one of a group, has yet to take.
pub(crate) enum Held<'a> {
    Single { core: &'a Core, items: VecDeque<Item> },
    Group(Waiting<'a>),
}

impl<'a> Held<'a> {
    /// Gives a message to a subscriber that accepts it; returns what has to wait.
    pub(crate) fn give(
        core: &'a Core,
        envelope: Envelope,
        receipt: Option<&Arc<Receipt>>,
        tally: &mut Tally,
    ) -> Option<Self> {
        let ticket = receipt.map(|receipt| receipt.ticket(&core.name));
        match core.mailbox.offer(core.mailbox.item(envelope, ticket)) {
            // It left after the route was found: as if it had never been there.
            Offer::Closed(item) => item.ticket.inspect(Ticket::waive).and(None),
            Offer::Full(item) => {
                tally.published.matched += 1;
                Some(Self::Single { core, items: VecDeque::from([item]) })
            }
            offer => {
                tally.published.matched += 1;
                tally.count(&core.name, offer);
                None
            }
        }
    }

    /// As [`give`](Self::give), for many.
    pub(crate) fn give_many(
        core: &'a Core,
        mut items: VecDeque<Item>,
        tally: &mut Tally,
    ) -> Option<Self> {
        tally.published.matched += items.len();
        while tally.count_run(&core.name, core.mailbox.offer_many(&mut items)) {}
        (!items.is_empty()).then_some(Self::Single { core, items })
    }

    /// Gives what there is room for, and waits for that once if there is a `slice`; true when all is dealt
    /// with.
    fn advance(&mut self, deadline: &Deadline, slice: Option<Duration>, tally: &mut Tally) -> bool {
        let (core, items) = match self {
            Self::Group(waiting) => return waiting.advance(deadline, slice, tally),
            Self::Single { core, items } => (core, items),
        };
        if let Some(slice) = slice
            && let Some(item) = items.pop_front()
        {
            match core.mailbox.offer_within(item, deadline, slice) {
                Offer::Full(item) => {
                    items.push_front(item);
                    return false;
                }
                Offer::Closed(_) => items.clear(),
                offer => tally.count(&core.name, offer),
            }
        }
        while tally.count_run(&core.name, core.mailbox.offer_many(items)) {}
        items.is_empty()
    }

    fn give_up(self, tally: &mut Tally) {
        match self {
            Self::Group(waiting) => waiting.give_up(tally),
            Self::Single { core, items } => {
                for item in items {
                    tally.miss(&core.name);
                    item.ticket.inspect(|ticket| no_room(&core.name, ticket));
                }
            }
        }
    }
}

/// Waits for room for everything that is held, until the deadline. Who gets room first is served first.
pub(crate) fn wait_for(mut held: Vec<Held<'_>>, deadline: &Deadline, tally: &mut Tally) {
    while !held.is_empty() {
        let slice = match &held[..] {
            [Held::Single { .. }] => Duration::MAX,
            _ => SLICE,
        };
        let waited = held[0].advance(deadline, Some(slice), tally);
        if waited {
            held.remove(0);
        } else {
            held.rotate_left(1);
        }
        held.retain_mut(|one| !one.advance(deadline, None, tally));
        if deadline.has_passed() {
            return held.into_iter().for_each(|one| one.give_up(tally));
        }
    }
}

/// Says to whoever waits for the message that it was not taken in.
pub(crate) fn no_room(name: &str, ticket: &Ticket) {
    let text = format!("{name} had no room for the message");
    ticket.settle(Err(Error::new(&codes::BUS_FULL, text)));
}
