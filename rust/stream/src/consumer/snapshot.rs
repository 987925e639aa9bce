//! A consumer's state as bytes.
//!
//! Version 0, not frozen. Integers are little-endian, `varint` is unsigned LEB128, `signed` is a varint of the
//! zigzag of a difference.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | version | u8 | 0 |
//! | flags | u8 | bit 0 paused; the others are 0 |
//! | now | u64 | when it was written, nanoseconds since 1970 |
//! | floor | varint | everything up to here is done |
//! | top | varint | the highest number that was handed out |
//! | counters | varint count, varints | in the order of `ConsumerCounters`; those that are missing are 0 |
//! | open | varint count, entries | every message up to `top` that is not done, in order |
//!
//! | field of an entry | type | meaning |
//! |---|---|---|
//! | step | varint | from the number before, the first one from 0; at least 1 |
//! | kind | u8 | 0 waits, 1 out, 2 due after its time was over, 3 due because it was given back, 4 dead after too many deliveries, 5 dead because it was given up |
//! | total | varint | kinds 1 to 5: deliveries ever |
//! | before | varint | kinds 1 to 3: those before it was redriven |
//! | first | signed | kinds 1 to 3: when it was first handed out, in milliseconds from `now` |
//! | due | signed | kinds 2 and 3: when it is due, in nanoseconds from `now` |
//! | reason | string | kind 5 |
//! | history | u8 count, pairs of signed and u8 | kinds 1 to 5: when and how deliveries ended, in milliseconds from `first` (of the dead: from `now`), then from one another |

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Error, Result, codes};

use super::config::{ACK_PENDING_MAX, ConsumerConfig, PRIORITY_WINDOW_MAX};
use super::engine::{Engine, milliseconds};
use super::letter::{
    DeadLetter, Ending, Reason, decode_history, encode_history, read_signed, signed, small, text,
};
use super::outstanding::{Held, State};

const VERSION: u8 = 0;
const PAUSED: u8 = 1;
/// The most messages that are not done up to the highest that was handed out.
const OPEN_MAX: usize = (ACK_PENDING_MAX + PRIORITY_WINDOW_MAX) as usize;

/// No counter gets so far by counting, and from here on none overflows.
const COUNTER_END: u64 = 1 << 62;

/// A state to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number, for [`Engine::saved`].
    pub version: u64,
    /// What [`Engine::restore`] takes.
    pub bytes: Vec<u8>,
}

/// A message that is not done.
enum Open<'a> {
    Waits,
    Held(&'a Held),
    Dead(&'a DeadLetter),
}

impl Engine {
    /// The state now, to be made durable as a whole in place of the one before.
    pub fn snapshot(&self) -> Snapshot {
        let mut open: Vec<(u64, Open<'_>)> = Vec::new();
        open.extend(self.held.iter().map(|(sequence, held)| (sequence, Open::Held(held))));
        open.extend(self.letters.iter().map(|letter| (letter.sequence, Open::Dead(letter))));
        open.extend(self.waiting.up_to(self.top).map(|sequence| (sequence, Open::Waits)));
        open.extend(self.unread.iter().map(|sequence| (*sequence, Open::Waits)));
        open.sort_unstable_by_key(|(sequence, _)| *sequence);

        let mut writer = Writer::with_capacity(64 + 24 * open.len());
        writer.u8(VERSION).u8(if self.is_paused { PAUSED } else { 0 }).u64(self.now_ns);
        writer.varint(self.floor).varint(self.top);
        let mut counters = self.counters;
        let counters = counters.as_array();
        writer.varint(counters.len() as u64);
        for counter in counters {
            writer.varint(*counter);
        }
        writer.varint(open.len() as u64);
        let mut before = 0;
        for (sequence, open) in open {
            writer.varint(sequence - before);
            self.encode_open(&mut writer, &open);
            before = sequence;
        }
        Snapshot { version: self.versions.now, bytes: writer.finish() }
    }

    fn encode_open(&self, writer: &mut Writer, open: &Open<'_>) {
        let now_ms = milliseconds(self.now_ns);
        match open {
            Open::Waits => {
                writer.u8(0);
            }
            Open::Held(held) => {
                let (kind, due_ns) = match held.state {
                    State::Out { .. } => (1, None),
                    State::Due { at_ns, returned: false } => (2, Some(at_ns)),
                    State::Due { at_ns, returned: true } => (3, Some(at_ns)),
                };
                writer.u8(kind).varint(held.total.into()).varint(held.before.into());
                signed(writer, held.first_ms.wrapping_sub(now_ms).cast_signed());
                if let Some(due_ns) = due_ns {
                    signed(writer, due_ns.wrapping_sub(self.now_ns).cast_signed());
                }
                encode_history(writer, held.first_ms, &held.history);
            }
            Open::Dead(letter) => {
                let kind = if letter.reason == Reason::Exhausted { 4 } else { 5 };
                writer.u8(kind).varint(letter.deliveries.into());
                if let Reason::Terminated(text) = &letter.reason {
                    writer.str(text);
                }
                encode_history(writer, now_ms, &letter.history);
            }
        }
    }

    /// The consumer that `bytes` are a [snapshot](Self::snapshot) of, opened again. What was out is due at
    /// once, with its count: who had it was most likely in the process that ended, and if not, its
    /// acknowledgement is taken until the message is handed out again. What was to be delivered later is
    /// delivered no later than it would have been, however the clock was set meanwhile. The configuration may
    /// be another one than before: what is out already stays out, and what was delivered as often as it now
    /// may be is dead.
    ///
    /// # Errors
    /// `format.damaged`; `format.newer` for another version; `stream.option`
    pub fn restore(config: ConsumerConfig, bytes: &[u8], now: u64) -> Result<Self> {
        let mut engine = Self::new(config, 1, now)?;
        let mut reader = Reader::new(bytes, "a consumer's state");
        if reader.u8()? != VERSION {
            return Err(Error::new(
                &codes::FORMAT_NEWER,
                "a consumer's state is of another version",
            ));
        }
        let was_out = engine.decode(&mut reader)?;
        engine.read_to = engine.top.max(engine.floor);
        if let Some(first) = engine.unread.first() {
            engine.read_to = first - 1;
        }
        engine.versions.now = 1;
        engine.versions.urgent = 0;
        for sequence in was_out {
            engine.counters.restarted += 1;
            engine.end(sequence, now, Ending::Restarted, Some(0));
        }
        engine.give_up_exhausted();
        engine.raise_floor();
        Ok(engine)
    }

    /// Returns the numbers of what was out.
    fn decode(&mut self, reader: &mut Reader<'_>) -> Result<Vec<u64>> {
        let flags = reader.u8()?;
        if flags & !PAUSED != 0 {
            return Err(reader.damaged("unknown flags"));
        }
        self.is_paused = flags & PAUSED != 0;
        let saved_ns = reader.u64()?;
        (self.floor, self.top) = (reader.varint()?, reader.varint()?);
        if self.floor == u64::MAX || self.top == u64::MAX {
            return Err(reader.damaged("a number is out of its range"));
        }
        self.decode_counters(reader)?;
        let count = reader.count(2)?;
        if count > OPEN_MAX {
            return Err(reader.damaged("too much is not done"));
        }
        let (mut sequence, mut was_out) = (0u64, Vec::new());
        for _ in 0..count {
            let step = reader.varint()?;
            sequence = sequence
                .checked_add(step)
                .filter(|sequence| step > 0 && *sequence <= self.top)
                .ok_or_else(|| reader.damaged("a number is out of its range"))?;
            if self.decode_open(reader, sequence, saved_ns)? {
                was_out.push(sequence);
            }
        }
        reader.end()?;
        Ok(was_out)
    }

    fn decode_counters(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let mut counters = self.counters.as_array().into_iter();
        for _ in 0..reader.count(1)? {
            let value = reader.varint()?;
            let counter = counters.next().filter(|_| value < COUNTER_END);
            *counter.ok_or_else(|| reader.damaged("no such counter"))? = value;
        }
        Ok(())
    }

    /// Returns true if the message was out.
    fn decode_open(
        &mut self,
        reader: &mut Reader<'_>,
        sequence: u64,
        saved_ns: u64,
    ) -> Result<bool> {
        let kind = reader.u8()?;
        match kind {
            0 if sequence > self.floor => {
                self.unread.insert(sequence);
            }
            1..=3 => {
                let held = self.decode_held(reader, kind, saved_ns)?;
                self.held.insert(sequence, held);
            }
            4 | 5 => {
                let deliveries = small(reader)?;
                let reason =
                    if kind == 4 { Reason::Exhausted } else { Reason::Terminated(text(reader)?) };
                let history = decode_history(reader, milliseconds(saved_ns))?;
                self.letters.insert(DeadLetter { sequence, reason, deliveries, history });
            }
            _ => return Err(reader.damaged("no such state of a message")),
        }
        Ok(kind == 1)
    }

    fn decode_held(&self, reader: &mut Reader<'_>, kind: u8, saved_ns: u64) -> Result<Held> {
        let (total, before) = (small(reader)?, small(reader)?);
        if total == 0 || before > total || (kind != 3 && before == total) {
            return Err(reader.damaged("deliveries do not add up"));
        }
        let first_ms = milliseconds(saved_ns).wrapping_add(read_signed(reader)?.cast_unsigned());
        let state = if kind == 1 {
            State::Out { until_ns: self.now_ns }
        } else {
            let due_ns = saved_ns.wrapping_add(read_signed(reader)?.cast_unsigned());
            let left_ns = due_ns.saturating_sub(saved_ns);
            let at_ns = due_ns.min(self.now_ns.saturating_add(left_ns));
            State::Due { at_ns, returned: kind == 3 }
        };
        let history = decode_history(reader, first_ms)?;
        Ok(Held { total, before, first_ms, state, history })
    }

    /// What may not be delivered again by this configuration is dead.
    fn give_up_exhausted(&mut self) {
        let exhausted = self.held.iter().filter(|(_, held)| {
            let deliveries = held.deliveries();
            deliveries > 0 && self.config.is_exhausted(deliveries) || held.total == u32::MAX
        });
        let exhausted: Vec<u64> = exhausted.map(|(sequence, _)| sequence).collect();
        for sequence in exhausted {
            self.counters.exhausted += 1;
            self.die(sequence, Reason::Exhausted);
        }
    }
}
