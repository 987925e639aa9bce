//! The end of a stream: which numbers come next, and which messages are on their way.
//!
//! Numbers are given in the order of the journal, under the tail's lock, which is not held while drives
//! sync. When a commit fails all those behind it fail too, and the journal takes nothing new until the failed
//! ones are let go: so the numbers are taken back before that, and stay dense.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use dwk_base::{Deadline, Error, Result, codes};
use dwk_meta::Submitted;

use crate::entry::Place;
use crate::frame::{FrameWriter, Header};
use crate::window::{Id, Limits, Window};

/// A message that is to be published.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) body: Vec<u8>,
    pub(crate) id: Option<Id>,
    /// So many, from the first of them on, are taken together or refused together.
    pub(crate) together: usize,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its number in the stream, from 1.
    pub sequence: u64,
    /// True if it was there already, under the same `message_id`: nothing was written.
    pub duplicate: bool,
}

/// A frame on its way.
#[derive(Debug)]
pub(crate) struct Flight {
    first: u64,
    messages: u64,
    bytes: u64,
    pub(crate) submitted: Arc<Submitted>,
}

/// What is to be committed, and what its senders are told then.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) outcomes: Vec<Result<Published>>,
    /// Nothing if all are duplicates or refused.
    pub(crate) frame: Option<(Header, Vec<u8>)>,
    /// What a duplicate waits for: the latest first one that is still on its way.
    pub(crate) waits_for: Option<Arc<Flight>>,
    next_before: u64,
}

/// How many messages and bytes may come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Room {
    /// Takes room for a message; false, and nothing taken, if there is too little.
    fn take(&mut self, item: &Item) -> bool {
        let bytes = item.body.len() as u64;
        let left = (self.messages.checked_sub(1), self.bytes.checked_sub(bytes));
        let (Some(messages), Some(bytes)) = left else { return false };
        *self = Self { messages, bytes };
        true
    }
}

/// A plan in the making.
struct Placing {
    unix_ns: u64,
    limits: Limits,
    frame: FrameWriter,
    /// The latest message that something is a duplicate of.
    waits_for: Option<u64>,
}

/// What was committed since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) frames: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// The number after the last message.
    pub(crate) next: u64,
}

/// The end of a stream.
#[derive(Debug)]
pub(crate) struct Tail {
    next: u64,
    unix_ns: u64,
    flights: VecDeque<Arc<Flight>>,
    pub(crate) window: Window,
    /// Why nothing is taken any more.
    pub(crate) ended: Option<Error>,
}

impl Tail {
    /// A tail after messages up to the number before `next`, the last of them of `unix_ns`.
    pub(crate) fn new(next: u64, unix_ns: u64, window: Window) -> Self {
        Self { next, unix_ns, flights: VecDeque::new(), window, ended: None }
    }

    /// Fails if nothing is taken any more.
    pub(crate) fn check(&self) -> Result<()> {
        self.ended.as_ref().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// The time of the last message.
    pub(crate) fn unix_ns(&self) -> u64 {
        self.unix_ns
    }

    /// Messages and bytes that are on their way.
    pub(crate) fn under_way(&self) -> (u64, u64) {
        let add =
            |sum: (u64, u64), flight: &Arc<Flight>| (sum.0 + flight.messages, sum.1 + flight.bytes);
        self.flights.iter().fold((0, 0), add)
    }

    /// Gives numbers to `items`, except where nothing is left of one. The time of a message is never before that of the one before it.
    pub(crate) fn plan(
        &mut self,
        items: &[Option<Item>],
        now_unix_ns: u64,
        limits: Limits,
        mut room: Room,
    ) -> Plan {
        self.unix_ns = self.unix_ns.max(now_unix_ns);
        self.window.trim(limits, self.unix_ns);
        let (first, unix_ns) = (self.next, self.unix_ns);
        let frame = FrameWriter::new(first, false);
        let mut placing = Placing { unix_ns, limits, frame, waits_for: None };
        let mut outcomes = Vec::with_capacity(items.len());
        let mut rest = items;
        while let Some(next) = rest.first() {
            let count = next.as_ref().map_or(1, |item| item.together).clamp(1, rest.len());
            let (group, others) = rest.split_at(count);
            rest = others;
            let mut none = Room::default();
            let room = if self.fits(group, room, limits) { &mut room } else { &mut none };
            outcomes.extend(group.iter().map(|item| self.place(item.as_ref(), room, &mut placing)));
        }
        let Placing { mut frame, waits_for, .. } = placing;
        let waits_for = waits_for.and_then(|sequence| self.flight_of(sequence));
        let frame = (self.next > first).then(|| {
            let content = frame.take();
            (frame.finish(self.next - 1), content)
        });
        Plan { outcomes, frame, waits_for, next_before: first }
    }

    /// True if there is room for all of a group but its duplicates.
    fn fits(&self, group: &[Option<Item>], mut room: Room, limits: Limits) -> bool {
        if group.len() <= 1 || (room.messages, room.bytes) == (u64::MAX, u64::MAX) {
            return true;
        }
        let mut seen = HashSet::new();
        group.iter().flatten().all(|item| {
            let id = item.id.filter(|_| !limits.window.is_zero());
            let is_known = id.is_some_and(|id| self.window.find(&id).is_some() || !seen.insert(id));
            is_known || room.take(item)
        })
    }

    fn place(
        &mut self,
        item: Option<&Item>,
        room: &mut Room,
        placing: &mut Placing,
    ) -> Result<Published> {
        let Some(item) = item else { return Err(gone()) };
        if let Some(sequence) = item.id.as_ref().and_then(|id| self.window.find(id)) {
            placing.waits_for = placing.waits_for.max(Some(sequence));
            return Ok(Published { sequence, duplicate: true });
        }
        if !room.take(item) {
            return Err(full());
        }
        let (sequence, unix_ns) = (self.next, placing.unix_ns);
        self.next += 1;
        if let (Some(id), false) = (item.id, placing.limits.window.is_zero()) {
            self.window.add(id, sequence, unix_ns);
        }
        placing.frame.push(Place { sequence, unix_ns }, &item.body, item.id.is_some());
        Ok(Published { sequence, duplicate: false })
    }

    fn flight_of(&self, sequence: u64) -> Option<Arc<Flight>> {
        let holds = |flight: &&Arc<Flight>| {
            (flight.first..flight.first + flight.messages).contains(&sequence)
        };
        self.flights.iter().find(holds).map(Arc::clone)
    }

    /// The numbers of a plan that was not submitted are free again.
    pub(crate) fn undo(&mut self, plan: &Plan) {
        self.take_back(plan.next_before);
    }

    fn take_back(&mut self, next: u64) {
        self.next = self.next.min(next);
        self.window.take_back(self.next);
    }

    /// A plan was submitted. Returns what its senders wait for, if they do.
    pub(crate) fn submitted(
        &mut self,
        plan: &Plan,
        submitted: Arc<Submitted>,
    ) -> Option<Arc<Flight>> {
        let Some((header, _)) = &plan.frame else { return plan.waits_for.clone() };
        let (first, messages, bytes) = (header.first, header.count, header.bytes);
        let flight = Arc::new(Flight { first, messages, bytes, submitted });
        self.flights.push_back(Arc::clone(&flight));
        Some(flight)
    }

    /// Looks what arrived and takes back the numbers of what failed.
    pub(crate) fn settle(&mut self) -> Arrived {
        let arrived = |flight: &Arc<Flight>| matches!(flight.submitted.outcome(), Some(Ok(_)));
        let failed = |flight: &Arc<Flight>| matches!(flight.submitted.outcome(), Some(Err(_)));
        // The journal keeps the order: what is before something that arrived has arrived.
        let count = self.flights.iter().rposition(arrived).map_or(0, |last| last + 1);
        let mut sum = Arrived::default();
        for flight in self.flights.drain(..count) {
            sum.frames += 1;
            sum.messages += flight.messages;
            sum.bytes += flight.bytes;
            sum.next = flight.first + flight.messages;
        }
        while let Some(flight) = self.flights.pop_front_if(|flight| failed(flight)) {
            self.take_back(flight.first);
        }
        sum
    }
}

/// Nobody waits for it any more.
fn gone() -> Error {
    Deadline::passed("the time was over before the message was sent")
}

fn full() -> Error {
    let text = "the stream is at its limit, and discards what is new";
    Error::new(&codes::STREAM_FULL, text)
}
