//! One subject's subscribers, and how a message gets to them.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use dwk_base::Deadline;

use crate::Envelope;
use crate::core::Core;
use crate::group::Group;
use crate::held::{Held, wait_for};
use crate::receipt::Receipt;
use crate::tally::Tally;

/// Who gets a subject.
pub(crate) struct Route {
    singles: Box<[Arc<Core>]>,
    groups: Box<[Group]>,
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

    /// True if nobody gets it.
    pub(crate) fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.groups.is_empty()
    }

    /// Gives a message to everyone, first to those who have room; then waits for the others.
    pub(crate) fn send(
        &self,
        envelope: Envelope,
        receipt: Option<&Arc<Receipt>>,
        deadline: &Deadline,
        tally: &mut Tally,
    ) {
        wait_for(self.offer(envelope, receipt, tally), deadline, tally);
    }

    /// Gives a message to everyone who has room, and returns those that are to be waited for.
    pub(crate) fn offer(
        &self,
        envelope: Envelope,
        receipt: Option<&Arc<Receipt>>,
        tally: &mut Tally,
    ) -> Vec<Held<'_>> {
        let mut held = Vec::new();
        let (last, others) = self.last_and_others();
        for core in others.iter().filter(|core| core.accepts(&envelope)) {
            held.extend(Held::give(core, envelope.clone(), receipt, tally));
        }
        for group in &self.groups {
            held.extend(group.send(slice::from_ref(&envelope), receipt, tally));
        }
        if let Some(core) = last.filter(|core| core.accepts(&envelope)) {
            held.extend(Held::give(core, envelope, receipt, tally));
        }
        held
    }

    /// As [`send`](Self::send), for many messages of one subject: each subscriber gets them in their order.
    pub(crate) fn send_many(
        &self,
        envelopes: Vec<Envelope>,
        deadline: &Deadline,
        tally: &mut Tally,
    ) {
        wait_for(self.offer_many(envelopes, tally), deadline, tally);
    }

    /// As [`offer`](Self::offer), for many messages of one subject.
    pub(crate) fn offer_many(&self, envelopes: Vec<Envelope>, tally: &mut Tally) -> Vec<Held<'_>> {
        let mut held = Vec::new();
        let (last, others) = self.last_and_others();
        for core in others {
            let accepted = envelopes.iter().filter(|envelope| core.accepts(envelope));
            let items = accepted.map(|envelope| core.mailbox.item(envelope.clone(), None));
            held.extend(Held::give_many(core, items.collect(), tally));
        }
        for group in &self.groups {
            held.extend(group.send(&envelopes, None, tally));
        }
        if let Some(core) = last {
            let accepted = envelopes.into_iter().filter(|envelope| core.accepts(envelope));
            let items = accepted.map(|envelope| core.mailbox.item(envelope, None));
            held.extend(Held::give_many(core, items.collect(), tally));
        }
        held
    }

    /// Who may have the envelope itself, when nobody needs it after that: no clone is counted, on a cache line
    /// that the consumer wants.
    fn last_and_others(&self) -> (Option<&Arc<Core>>, &[Arc<Core>]) {
        match self.singles.split_last() {
            Some((last, others)) => (Some(last), others),
            None => (None, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::envelope::Stamped;
    use crate::{Message, MessageId, Options, Pattern, Subject};

    #[test]
    fn who_left_after_the_route_was_found_is_as_if_never_there() {
        let core = |group: Option<&str>| {
            let options = Options { group: group.map(Into::into), ..Options::default() };
            let core = Core::new(0, Pattern::new("a").unwrap(), options, Weak::new());
            core.close();
            Arc::new(core)
        };
        let route = Route::new(vec![core(None), core(Some("g")), core(Some("g")), core(None)]);
        let (id, message) =
            (MessageId::from_bytes([0; 16]), Message::new(Subject::new("a").unwrap(), ""));
        let envelope = Envelope::new(Stamped {
            id,
            unix_ns: 0,
            tenant: None,
            message,
            is_announcement: false,
        });
        let (receipt, mut tally) = (Arc::new(Receipt::default()), Tally::default());
        route.send(envelope, Some(&receipt), &Deadline::never(), &mut tally);
        assert_eq!(tally.published.matched, 0);
        let (handled, failures, late) = receipt.wait_for_all(&Deadline::never());
        assert_eq!((handled, failures.len(), late.len()), (0, 0, 0));
    }
}
