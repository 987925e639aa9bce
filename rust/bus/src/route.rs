//! One subject's subscribers, and how a message gets to them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dwk_base::{Deadline, Error, Result, codes};

use crate::Envelope;
use crate::core::Core;
use crate::mailbox::{Item, Offer, key_hash};
use crate::receipt::Receipt;

/// What became of what was published. A group counts as one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Subscriptions whose pattern and filter a message matched, added up over all messages.
    pub matched: usize,
    /// How often a message was taken in.
    pub queued: usize,
    /// Messages that slow-consumer policies dropped meanwhile, these or older ones.
    pub dropped: usize,
}

impl Published {
    pub(crate) fn add(&mut self, other: Self) {
        self.matched += other.matched;
        self.queued += other.queued;
        self.dropped += other.dropped;
    }
}

/// Who gets a subject.
pub(crate) struct Route {
    singles: Box<[Arc<Core>]>,
    groups: Box<[Group]>,
}

/// Of these, one gets each message.
struct Group {
    name: Arc<str>,
    members: Vec<Arc<Core>>,
    turn: AtomicUsize,
}

/// Counts, and who did not take something.
#[derive(Default)]
pub(crate) struct Tally {
    pub published: Published,
    missed: Vec<(Arc<str>, Option<Error>)>,
}

/// Messages that found no room and may wait for some.
struct Held<'a> {
    core: &'a Core,
    items: VecDeque<Item>,
}

impl Route {
    pub(crate) fn new(members: Vec<Arc<Core>>) -> Self {
        let mut singles = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for core in members {
            let Some(name) = core.group.clone() else {
                singles.push(core);
                continue;
            };
            match groups.iter_mut().find(|group| group.name == name) {
                Some(group) => group.members.push(core),
                None => groups.push(Group { name, members: vec![core], turn: AtomicUsize::new(0) }),
            }
        }
        // In the order in which they came, so that a key keeps its member whatever way the trie is walked.
        for group in &mut groups {
            group.members.sort_by_key(|core| core.id);
        }
        Self { singles: singles.into(), groups: groups.into() }
    }

    /// Gives a message to everyone, first to those who have room; then waits for the others.
    pub(crate) fn send(
        &self,
        envelope: Envelope,
        receipt: Option<&Arc<Receipt>>,
        deadline: &Deadline,
        tally: &mut Tally,
    ) {
        let mut held = Vec::new();
        let (last, others) = self.last_and_others();
        for core in others.iter().filter(|core| core.accepts(&envelope)) {
            held.extend(give(core, envelope.clone(), receipt, tally));
        }
        for group in &self.groups {
            held.extend(group.send(&envelope, receipt, tally));
        }
        if let Some(core) = last.filter(|core| core.accepts(&envelope)) {
            held.extend(give(core, envelope, receipt, tally));
        }
        tally.wait_for(held, deadline);
    }

    /// As [`send`](Self::send), for many messages of one subject: each subscriber gets them in their order.
    pub(crate) fn send_many(
        &self,
        envelopes: Vec<Envelope>,
        deadline: &Deadline,
        tally: &mut Tally,
    ) {
        let mut held = Vec::new();
        let (last, others) = self.last_and_others();
        for core in others {
            let accepted = envelopes.iter().filter(|envelope| core.accepts(envelope));
            let items = accepted.map(|envelope| core.mailbox.item(envelope.clone(), None));
            held.extend(give_many(core, items.collect(), tally));
        }
        for group in &self.groups {
            for envelope in &envelopes {
                let held = group.send(envelope, None, tally);
                tally.wait_for(held.into_iter().collect(), deadline);
            }
        }
        if let Some(core) = last {
            let accepted = envelopes.into_iter().filter(|envelope| core.accepts(envelope));
            let items = accepted.map(|envelope| core.mailbox.item(envelope, None));
            held.extend(give_many(core, items.collect(), tally));
        }
        tally.wait_for(held, deadline);
    }

    /// Who may have the envelope itself, if nobody needs it after that: no clone is counted, on a cache line
    /// that the consumer wants.
    fn last_and_others(&self) -> (Option<&Arc<Core>>, &[Arc<Core>]) {
        match self.singles.split_last() {
            Some((last, others)) if self.groups.is_empty() => (Some(last), others),
            _ => (None, &self.singles),
        }
    }
}

/// Gives a message to a subscriber that accepts it; returns it if it may wait for room.
fn give<'a>(
    core: &'a Core,
    envelope: Envelope,
    receipt: Option<&Arc<Receipt>>,
    tally: &mut Tally,
) -> Option<Held<'a>> {
    let ticket = receipt.map(|receipt| receipt.ticket(&core.name));
    let item = core.mailbox.item(envelope, ticket);
    let item = tally.note(core, core.mailbox.offer(item))?;
    Some(Held { core, items: VecDeque::from([item]) })
}

/// As [`give`], for many; returns those that may wait for room.
fn give_many<'a>(core: &'a Core, mut items: VecDeque<Item>, tally: &mut Tally) -> Option<Held<'a>> {
    tally.published.matched += items.len();
    tally.offer(core, &mut items);
    (!items.is_empty()).then_some(Held { core, items })
}

impl Group {
    /// Gives the message to one member: the next in turn that has room, or the next in turn if none has. A
    /// key has its member, for as long as nobody comes or goes.
    fn send<'a>(
        &'a self,
        envelope: &Envelope,
        receipt: Option<&Arc<Receipt>>,
        tally: &mut Tally,
    ) -> Option<Held<'a>> {
        let keyed = envelope.key().map(|key| key_hash(key) as usize);
        let start = keyed.unwrap_or_else(|| self.turn.fetch_add(1, Ordering::Relaxed));
        let mut ticket = receipt.map(|receipt| receipt.ticket(&self.name));
        let count = self.members.len();
        let mut first = None;
        for offset in 0..count {
            let core = &self.members[start.wrapping_add(offset) % count];
            if !core.accepts(envelope) {
                continue;
            }
            let item = core.mailbox.item(envelope.clone(), ticket.take());
            match core.mailbox.offer_room(item) {
                Offer::Full(item) => {
                    ticket = item.ticket;
                    first.get_or_insert(core);
                    if keyed.is_some() {
                        break;
                    }
                }
                Offer::Closed(item) => ticket = item.ticket,
                offer => {
                    tally.note(core, offer);
                    return None;
                }
            }
        }
        let Some(core) = first else {
            // Nobody is there, so nobody's word is missing.
            ticket.inspect(crate::receipt::Ticket::waive);
            return None;
        };
        let item = core.mailbox.item(envelope.clone(), ticket);
        let item = tally.note(core, core.mailbox.offer(item))?;
        Some(Held { core, items: VecDeque::from([item]) })
    }
}

impl Tally {
    /// Counts what became of a message; returns it if it may wait for room.
    fn note(&mut self, core: &Core, offer: Offer) -> Option<Item> {
        match offer {
            Offer::Closed(item) => {
                // It left after the route was found: as if it had never been there.
                item.ticket.inspect(crate::receipt::Ticket::waive);
                return None;
            }
            Offer::Full(item) => {
                self.published.matched += 1;
                return Some(item);
            }
            Offer::Queued(victims) => {
                self.published.queued += 1;
                self.published.dropped += victims;
            }
            Offer::Dropped => self.published.dropped += 1,
            Offer::Refused(error) => self.missed.push((Arc::clone(&core.name), Some(error))),
        }
        self.published.matched += 1;
        None
    }

    /// Offers messages that are counted as matched, until none is left or there is no room.
    fn offer(&mut self, core: &Core, items: &mut VecDeque<Item>) {
        loop {
            let run = core.mailbox.offer_many(items);
            self.published.queued += run.queued;
            self.published.dropped += run.dropped;
            let Some(error) = run.refused else { return };
            self.missed.push((Arc::clone(&core.name), Some(error)));
        }
    }

    /// Waits for room for what was held back.
    fn wait_for(&mut self, held: Vec<Held<'_>>, deadline: &Deadline) {
        for Held { core, mut items } in held {
            while let Some(item) = items.pop_front() {
                match core.mailbox.offer_until(item, deadline) {
                    Offer::Queued(victims) => {
                        self.published.queued += 1;
                        self.published.dropped += victims;
                    }
                    Offer::Dropped => self.published.dropped += 1,
                    Offer::Closed(_) => items.clear(),
                    Offer::Refused(error) => {
                        self.missed.push((Arc::clone(&core.name), Some(error)));
                    }
                    Offer::Full(item) => {
                        self.give_up(core, item);
                        items.drain(..).for_each(|item| self.give_up(core, item));
                    }
                }
                self.offer(core, &mut items);
            }
        }
    }

    fn give_up(&mut self, core: &Core, item: Item) {
        self.missed.push((Arc::clone(&core.name), None));
        if let Some(ticket) = item.ticket {
            let text = format!("the subscription {} had no room for the message", core.name);
            ticket.settle(Err(Error::new(&codes::BUS_FULL, text)));
        }
    }

    /// What the publisher is told.
    ///
    /// # Errors
    /// `bus.full` if somebody did not take something
    pub(crate) fn outcome(self) -> Result<Published> {
        if self.missed.is_empty() {
            return Ok(self.published);
        }
        let missed = self.missed.len();
        let mut names: Vec<&str> = self.missed.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.dedup();
        let text = format!("no room in {}; everybody else has the message", names.join(", "));
        let error = Error::new(&codes::BUS_FULL, text)
            .with("subscribers", names.join(","))
            .with("missed", missed)
            .with("matched", self.published.matched)
            .with("queued", self.published.queued)
            .with("dropped", self.published.dropped);
        Err(match self.missed.into_iter().find_map(|(_, source)| source) {
            Some(source) => error.caused_by(source),
            None => error,
        })
    }
}
