//! Groups: of several subscriptions, one gets each message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dwk_base::Deadline;

use crate::Envelope;
use crate::core::Core;
use crate::held::{Held, no_room};
use crate::mailbox::{Item, Mailbox, Offer, key_hash};
use crate::receipt::{Receipt, Ticket};
use crate::tally::Tally;

/// The members of a group that match a subject, in the order in which they came.
pub(crate) struct Group {
    pub name: Arc<str>,
    pub members: Vec<Arc<Core>>,
    pub turn: AtomicUsize,
}

/// Messages on their way to one of them each, in order.
pub(crate) struct Waiting<'a> {
    group: &'a Group,
    turns: VecDeque<Turn>,
}

/// One message on its way.
struct Turn {
    /// Who is asked first.
    start: usize,
    envelope: Envelope,
    ticket: Option<Ticket>,
}

/// What asking the members came to.
#[derive(PartialEq)]
enum Asked {
    /// One dealt with it.
    Done,
    /// Those that are there have no room.
    Full,
    /// Nobody is there.
    Nobody,
}

impl Group {
    /// Gives each message to one member: the next in turn that has room, or the next in turn whose policy
    /// takes it without. A key has its member, for as long as nobody comes or goes. Returns what has to wait:
    /// a message that finds no room, and all behind it.
    pub(crate) fn send<'a>(
        &'a self,
        envelopes: &[Envelope],
        receipt: Option<&Arc<Receipt>>,
        tally: &mut Tally,
    ) -> Option<Held<'a>> {
        let turn = |envelope: &Envelope| {
            let keyed = envelope.key().map(|key| key_hash(key) as usize);
            let start = keyed.unwrap_or_else(|| self.turn.fetch_add(1, Ordering::Relaxed));
            let ticket = receipt.map(|receipt| receipt.ticket(&self.name));
            Turn { start, envelope: envelope.clone(), ticket }
        };
        let wanted = |envelope: &&Envelope| {
            // Each is asked, so that each counts what it keeps out.
            let wanting = self.members.iter().filter(|core| core.accepts(envelope)).count();
            wanting > 0
        };
        let turns: VecDeque<Turn> = envelopes.iter().filter(wanted).map(turn).collect();
        tally.published.matched += turns.len();
        let mut waiting = Waiting { group: self, turns };
        let done = waiting.advance(&Deadline::never(), None, tally);
        (!done).then_some(Held::Group(waiting))
    }
}

impl Waiting<'_> {
    /// Gives what there is room for, and waits for that once for each member if there is a `slice`; true when
    /// all is dealt with.
    pub(crate) fn advance(
        &mut self,
        deadline: &Deadline,
        slice: Option<Duration>,
        tally: &mut Tally,
    ) -> bool {
        let members = &self.group.members;
        while let Some(turn) = self.turns.front_mut() {
            let mut asked = turn.ask(members, Mailbox::offer_room, tally);
            if asked == Asked::Full {
                asked = turn.ask(members, Mailbox::offer, tally);
            }
            if let (Asked::Full, Some(slice)) = (&asked, slice) {
                let offer = |mailbox: &Mailbox, item| mailbox.offer_within(item, deadline, slice);
                asked = turn.ask(members, offer, tally);
            }
            if asked == Asked::Full {
                return false;
            }
            if asked == Asked::Nobody {
                // All left: as if they had never been there.
                tally.published.matched -= 1;
                turn.ticket.take().inspect(Ticket::waive);
            }
            self.turns.pop_front();
        }
        true
    }

    pub(crate) fn give_up(self, tally: &mut Tally) {
        for turn in self.turns {
            tally.miss(&self.group.name);
            turn.ticket.inspect(|ticket| no_room(&self.group.name, ticket));
        }
    }
}

impl Turn {
    /// Offers the message to one member after the other, until one deals with it.
    fn ask(
        &mut self,
        members: &[Arc<Core>],
        offer: impl Fn(&Mailbox, Item) -> Offer,
        tally: &mut Tally,
    ) -> Asked {
        let mut asked = Asked::Nobody;
        for offset in 0..members.len() {
            let core = &members[self.start.wrapping_add(offset) % members.len()];
            if !core.wants(&self.envelope) {
                continue;
            }
            let item = core.mailbox.item(self.envelope.clone(), self.ticket.take());
            match offer(&core.mailbox, item) {
                Offer::Closed(item) => self.ticket = item.ticket,
                Offer::Full(item) => {
                    self.ticket = item.ticket;
                    asked = Asked::Full;
                    if self.envelope.key().is_some() {
                        break;
                    }
                }
                offer => {
                    tally.count(&core.name, offer);
                    return Asked::Done;
                }
            }
        }
        asked
    }
}
