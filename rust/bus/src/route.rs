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
            held.extend(Held::give(core, envelope.clone(), receipt, tally));
        }
        for group in &self.groups {
            held.extend(group.send(slice::from_ref(&envelope), receipt, tally));
        }
        if let Some(core) = last.filter(|core| core.accepts(&envelope)) {
            held.extend(Held::give(core, envelope, receipt, tally));
        }
        wait_for(held, deadline, tally);
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
        wait_for(held, deadline, tally);
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
