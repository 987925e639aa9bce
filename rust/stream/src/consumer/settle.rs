//! What becomes of what was handed out: acknowledgements, and the dead.

use std::time::Duration;

use dwk_base::{Error, Result, codes};

use super::config::{Ack, DELAY_MAX, invalid, nanoseconds};
use super::engine::{Engine, Token, milliseconds};
use super::letter::{DeadLetter, Ending, Event, Reason, remember};
use super::outstanding::{Held, State};

impl Engine {
    /// The message is done; with [`Ack::All`] every message before it that was handed out, too, but none that
    /// was out at a restart or [withdrawn](Self::withdraw), and not handed out since: nobody may ever have seen
    /// it. Returns how many. Taken also when the time for it is over, while the message was not handed out again.
    ///
    /// # Errors
    /// `stream.ack`: the delivery was acknowledged, given back or given up, or the message was delivered
    /// again, is dead or gone. Nothing changed.
    pub fn ack(&mut self, token: Token, now: u64) -> Result<usize> {
        self.used(now);
        self.live(token)?;
        let sequence = token.sequence;
        let done: Vec<u64> = match self.config.ack {
            Ack::All => self.handed_out_to(sequence).collect(),
            Ack::Explicit | Ack::None => vec![sequence],
        };
        for sequence in &done {
            self.held.remove(*sequence);
            self.done(*sequence);
        }
        self.counters.acknowledged += done.len() as u64;
        Ok(done.len())
    }

    /// What a redriven message went through before does not count.
    fn handed_out_to(&self, last: u64) -> impl Iterator<Item = u64> {
        let is_handed_out = move |sequence: &u64| {
            let held = self.held.get(*sequence);
            let is_seen = |held: &Held| held.deliveries() > 0 && !held.is_left_over();
            *sequence == last || held.is_some_and(is_seen)
        };
        self.held.within(..=last).filter(is_handed_out)
    }

    /// Gives the message back: it is due again after `delay` of at most 30 days, or after the backoff's; dead
    /// if this was the last delivery that it may have.
    ///
    /// # Errors
    /// `stream.ack` as for [`ack`](Self::ack); `stream.option` for a longer delay
    pub fn nak(&mut self, token: Token, delay: Option<Duration>, now: u64) -> Result<()> {
        let now = self.used(now);
        if delay.is_some_and(|delay| delay > DELAY_MAX) {
            return Err(invalid("delay", "give at most 30 days"));
        }
        self.live(token)?;
        self.counters.returned += 1;
        self.end(token.sequence, now, Ending::Returned, delay.map(nanoseconds));
        Ok(())
    }

    /// The delivery did not leave, and will not, because it could not be saved or read: the message is due at
    /// once, and the delivery counts. Nobody has seen it: with [`Ack::All`] no later one stands for it.
    ///
    /// # Errors
    /// `stream.ack` as for [`ack`](Self::ack); also with [`Ack::None`], where it is done.
    pub fn withdraw(&mut self, token: Token, now: u64) -> Result<()> {
        let now = self.used(now);
        self.live(token)?;
        self.counters.withdrawn += 1;
        self.end(token.sequence, now, Ending::Withdrawn, Some(0));
        Ok(())
    }

    /// Gives the message up, for `reason`, of which 256 bytes are kept.
    ///
    /// # Errors
    /// `stream.ack` as for [`ack`](Self::ack)
    pub fn term(&mut self, token: Token, reason: &str, now: u64) -> Result<()> {
        let now = self.used(now);
        self.live(token)?;
        self.counters.terminated += 1;
        let event = Event { unix_ms: milliseconds(now), ending: Ending::Terminated };
        self.held.change(token.sequence, |held| remember(&mut held.history, event));
        self.die(token.sequence, Reason::Terminated(reason.to_owned()));
        Ok(())
    }

    /// The time for the acknowledgement starts anew; also when it is over, while the message was not handed
    /// out again.
    ///
    /// # Errors
    /// `stream.ack` as for [`ack`](Self::ack)
    pub fn in_progress(&mut self, token: Token, now: u64) -> Result<()> {
        let now = self.used(now);
        self.live(token)?;
        let until_ns = now.saturating_add(self.config.ack_wait_ns());
        self.held.change(token.sequence, |held| held.state = State::Out { until_ns });
        self.changed();
        Ok(())
    }

    /// Fails unless who has `token` still has a say.
    fn live(&self, token: Token) -> Result<()> {
        let speaks = |held: &Held| {
            held.total == token.delivery && !matches!(held.state, State::Due { returned: true, .. })
        };
        if self.held.get(token.sequence).is_some_and(speaks) {
            return Ok(());
        }
        let Token { sequence, delivery } = token;
        let text = format!("message {sequence}, delivery {delivery}, is not out");
        Err(Error::new(&codes::STREAM_ACK, text)
            .with("sequence", sequence)
            .with("delivery", delivery))
    }

    /// Dead letters that are not buried, the oldest messages first; again and again, until they are
    /// [buried](Self::buried). None may leave before it is [saved](Self::must_save).
    pub fn dead(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.iter()
    }

    /// The dead letter is durable elsewhere: its message is done. False if there is none.
    pub fn buried(&mut self, sequence: u64) -> bool {
        let is_there = self.lay(sequence);
        self.counters.buried += u64::from(is_there);
        is_there
    }

    /// Drops a dead letter that is not buried: its message is done. False if there is none.
    pub fn skip(&mut self, sequence: u64) -> bool {
        let is_there = self.lay(sequence);
        self.counters.dropped += u64::from(is_there);
        is_there
    }

    fn lay(&mut self, sequence: u64) -> bool {
        let is_there = self.letters.remove(sequence).is_some();
        if is_there {
            self.done(sequence);
        }
        is_there
    }

    /// Puts a message back from the dead, buried or not: it is due now, its deliveries count from 1 again, and
    /// its history stays. The floor stays where it is, also if the message lies below. Returns false, and
    /// changes nothing, if the message is under way.
    ///
    /// A letter that is elsewhere may go when this is saved. Who does it again then delivers the message again.
    ///
    /// # Errors
    /// `stream.full` if as many messages are out as may be; `stream.option` if the letter is of a message that
    /// was never handed out here, or if nothing is to be acknowledged.
    pub fn redrive(&mut self, letter: &DeadLetter, now: u64) -> Result<bool> {
        let now = self.used(now);
        let sequence = letter.sequence;
        let is_whole = sequence > 0 && (1..u32::MAX).contains(&letter.deliveries);
        if self.config.ack == Ack::None || !is_whole || sequence > self.top {
            return Err(invalid("letter", "this consumer never gave such a message up"));
        }
        if self.held.get(sequence).is_some()
            || self.unread.contains(&sequence)
            || self.waits(sequence)
        {
            return Ok(false);
        }
        // A letter that lies here makes room itself.
        if !self.letters.contains(sequence) && !self.has_room() {
            let text = format!("{} messages are out", self.config.max_ack_pending);
            return Err(Error::new(&codes::STREAM_FULL, text));
        }
        let known = self.letters.remove(sequence);
        let DeadLetter { deliveries: total, history, .. } = known.as_ref().unwrap_or(letter);
        self.held.insert(
            sequence,
            Held {
                total: *total,
                before: *total,
                first_ms: milliseconds(now),
                state: State::Due { at_ns: now, returned: true },
                history: history.clone(),
            },
        );
        self.counters.redriven += 1;
        self.changed();
        Ok(true)
    }

    fn waits(&self, sequence: u64) -> bool {
        self.waiting.up_to(sequence).last() == Some(sequence)
    }
}
