//! What a consumer wants, and how long it may take for it.

use std::time::Duration;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Error, Result, codes};
use dwk_bus::{Envelope, Filter, Pattern};

use super::Brief;
use crate::config::SUBJECTS_MAX;
use crate::keys::check_name;
use crate::read::From;

const VERSION: u8 = 0;

/// The most messages that a consumer may have out at a time.
pub const ACK_PENDING_MAX: u32 = 65_536;
/// The most messages among which the most urgent one is chosen.
pub const PRIORITY_WINDOW_MAX: u32 = 256;
/// How many delays a backoff may have.
pub const BACKOFF_MAX: usize = 64;
/// The longest time to wait for an acknowledgement, and the longest delay of a redelivery: 30 days.
pub const DELAY_MAX: Duration = Duration::from_hours(24 * 30);

/// What counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// Each message that was acknowledged.
    #[default]
    Explicit,
    /// Each message that was handed out; nothing is delivered again.
    None,
    /// A message that was acknowledged, and every one before it that was handed out since the consumer was
    /// opened.
    All,
}

/// What a consumer wants, and how long it may take for it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerConfig {
    /// Its name in its stream: 1 to 128 characters from a-z, A-Z, 0-9, `-` and `_`.
    pub name: String,
    /// What counts as done.
    pub ack: Ack,
    /// After so long without an acknowledgement a message is delivered again; 1 ms to 30 days.
    pub ack_wait: Duration,
    /// How often a message is delivered at most, at least once; `None` for as often as it takes.
    pub max_deliver: Option<u32>,
    /// How long the n-th redelivery waits after a failure that named no delay, or after `ack_wait`; the last
    /// one counts for all further ones, none means at once. At most 64 of at most 30 days.
    pub backoff: Vec<Duration>,
    /// So many messages may be handed out and not done at a time, dead ones that are not buried among them;
    /// 1 to 65,536.
    pub max_ack_pending: u32,
    /// Only messages for which this holds are wanted.
    pub filter: Option<Filter>,
    /// Only messages about one of these are wanted, at most 256; about anything if there are none.
    pub subjects: Vec<Pattern>,
    /// Where it begins when it is made.
    pub start: From,
    /// With 0 messages go in their order. With n the most urgent goes first of the oldest that waits and the
    /// n - 1 behind it, whether those still wait or not: so none is overtaken by more than n - 1 others. In
    /// order within one priority. At most 256.
    pub priority_window: u32,
    /// A consumer from which nobody fetched, and for which nobody answered, for so long is removed, with its
    /// dead letters; not while somebody has a message of it. An opening counts as use.
    pub inactive_after: Option<Duration>,
    /// What was delivered `max_deliver` times or was given up becomes a dead letter; else it is dropped.
    pub dead_letter: bool,
}

impl ConsumerConfig {
    /// A consumer of everything from the first message on, in order, that acknowledges each.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ack: Ack::Explicit,
            ack_wait: Duration::from_secs(30),
            max_deliver: None,
            backoff: Vec::new(),
            max_ack_pending: 1_000,
            filter: None,
            subjects: Vec::new(),
            start: From::First,
            priority_window: 0,
            inactive_after: None,
            dead_letter: true,
        }
    }

    /// True if the consumer wants `envelope`.
    pub fn wants(&self, envelope: &Envelope) -> bool {
        let about = |pattern: &Pattern| pattern.matches(envelope.subject());
        (self.subjects.is_empty() || self.subjects.iter().any(about))
            && self.filter.as_ref().is_none_or(|filter| filter.accepts(envelope))
    }

    /// What the engine has to know of a message.
    pub fn brief(&self, sequence: u64, envelope: &Envelope) -> Brief {
        let priority = envelope.message().priority;
        Brief { sequence, priority, matches: self.wants(envelope) }
    }

    /// Fails unless every value is within its limits.
    ///
    /// # Errors
    /// `stream.option`, with the detail `option`
    pub fn check(&self) -> Result<()> {
        check_name(&self.name).map_err(|error| {
            invalid("name", "use 1 to 128 characters from a-z, A-Z, 0-9, '-' and '_'")
                .caused_by(error)
        })?;
        let faults = [
            (
                !(Duration::from_millis(1)..=DELAY_MAX).contains(&self.ack_wait),
                "ack_wait",
                "give 1 ms to 30 days",
            ),
            (self.max_deliver == Some(0), "max_deliver", "nothing would be delivered"),
            (
                self.backoff.len() > BACKOFF_MAX || self.backoff.iter().any(|d| *d > DELAY_MAX),
                "backoff",
                "give at most 64 delays of at most 30 days",
            ),
            (
                !(1..=ACK_PENDING_MAX).contains(&self.max_ack_pending),
                "max_ack_pending",
                "give 1 to 65,536",
            ),
            (self.subjects.len() > SUBJECTS_MAX, "subjects", "give at most 256 patterns"),
            (self.priority_window > PRIORITY_WINDOW_MAX, "priority_window", "give 0 to 256"),
            (
                self.ack == Ack::All && self.priority_window > 1,
                "priority_window",
                "who acknowledges all before a message takes messages in order",
            ),
            (
                self.inactive_after.is_some_and(|after| after.is_zero()),
                "inactive_after",
                "it is zero: the consumer would be removed at once",
            ),
        ];
        match faults.into_iter().find(|(wrong, ..)| *wrong) {
            Some((_, option, why)) => Err(invalid(option, why)),
            None => Ok(()),
        }
    }

    /// How long the redelivery after `deliveries` deliveries waits, in nanoseconds.
    pub(super) fn backoff_ns(&self, deliveries: u32) -> u64 {
        let last = self.backoff.len().saturating_sub(1);
        let index = (deliveries.saturating_sub(1) as usize).min(last);
        self.backoff.get(index).map_or(0, |delay| nanoseconds(*delay))
    }

    pub(super) fn ack_wait_ns(&self) -> u64 {
        nanoseconds(self.ack_wait)
    }

    /// True if a message that was delivered so often is not delivered again.
    pub(super) fn is_exhausted(&self, deliveries: u32) -> bool {
        self.max_deliver.is_some_and(|max| deliveries >= max)
    }

    /// The configuration as bytes, which [`decode`](Self::decode) takes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).str(&self.name);
        writer.u8(match self.ack {
            Ack::Explicit => 0,
            Ack::None => 1,
            Ack::All => 2,
        });
        writer.varint(nanoseconds(self.ack_wait)).varint(self.max_deliver.unwrap_or(0).into());
        writer.varint(self.backoff.len() as u64);
        for delay in &self.backoff {
            writer.varint(nanoseconds(*delay));
        }
        writer.varint(self.max_ack_pending.into());
        writer.str(&self.filter.as_ref().map(ToString::to_string).unwrap_or_default());
        writer.varint(self.subjects.len() as u64);
        for pattern in &self.subjects {
            writer.str(pattern.as_str());
        }
        let (kind, number) = match self.start {
            From::First => (0, 0),
            From::Last => (1, 0),
            From::Next => (2, 0),
            From::Sequence(sequence) => (3, sequence),
            From::Time(unix_ns) => (4, unix_ns),
        };
        writer.u8(kind).varint(number).varint(self.priority_window.into());
        writer.varint(self.inactive_after.map_or(0, |after| nanoseconds(after).max(1)));
        writer.u8(self.dead_letter.into());
        writer.finish()
    }

    /// The configuration that `bytes` are.
    ///
    /// # Errors
    /// `format.damaged`; `format.newer` for another version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "a consumer's configuration");
        if reader.u8()? != VERSION {
            let text = "a consumer's configuration is of another version";
            return Err(Error::new(&codes::FORMAT_NEWER, text));
        }
        let reader = &mut reader;
        let config = Self {
            name: reader.str()?.to_owned(),
            ack: match reader.u8()? {
                0 => Ack::Explicit,
                1 => Ack::None,
                2 => Ack::All,
                _ => return Err(reader.damaged("no such acknowledgement")),
            },
            ack_wait: Duration::from_nanos(reader.varint()?),
            max_deliver: Some(number(reader)?).filter(|max| *max > 0),
            backoff: (0..reader.count(1)?)
                .map(|_| reader.varint().map(Duration::from_nanos))
                .collect::<Result<_>>()?,
            max_ack_pending: number(reader)?,
            filter: match reader.str()? {
                "" => None,
                text => Some(Filter::new(text).map_err(|error| none(reader, error))?),
            },
            subjects: (0..reader.count(2)?)
                .map(|_| Pattern::new(reader.str()?).map_err(|error| none(reader, error)))
                .collect::<Result<_>>()?,
            start: match (reader.u8()?, reader.varint()?) {
                (0, 0) => From::First,
                (1, 0) => From::Last,
                (2, 0) => From::Next,
                (3, sequence) => From::Sequence(sequence),
                (4, unix_ns) => From::Time(unix_ns),
                _ => return Err(reader.damaged("no such start")),
            },
            priority_window: number(reader)?,
            inactive_after: Some(reader.varint()?).filter(|ns| *ns > 0).map(Duration::from_nanos),
            dead_letter: match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(reader.damaged("neither true nor false")),
            },
        };
        reader.end()?;
        config.check().map_err(|error| none(reader, error))?;
        Ok(config)
    }
}

fn number(reader: &mut Reader<'_>) -> Result<u32> {
    u32::try_from(reader.varint()?).map_err(|_| reader.damaged("a number is too large"))
}

fn none(reader: &Reader<'_>, error: Error) -> Error {
    reader.damaged("a value that no option has").caused_by(error)
}

/// 584 years at most, which is as long as the clock goes.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn invalid(option: &'static str, why: &str) -> Error {
    Error::new(&codes::STREAM_OPTION, format!("{option}: {why}")).with("option", option)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
