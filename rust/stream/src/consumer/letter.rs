//! What became of deliveries, and messages that are given up.

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Error, Result, codes};

const VERSION: u8 = 0;

/// How many of a message's deliveries are remembered: the last ones.
pub const HISTORY_MAX: usize = 4;
/// The longest reason for giving a message up, in bytes; a longer one is cut.
pub const REASON_BYTES_MAX: usize = 256;

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nobody acknowledged it in time.
    Expired,
    /// Who had it gave it back.
    Returned,
    /// It was out when the consumer was opened again.
    Restarted,
    /// Who had it gave the message up.
    Terminated,
    /// It never left the store: it could not be saved or read.
    Withdrawn,
}

impl Ending {
    /// In one word, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Returned => "returned",
            Self::Restarted => "restarted",
            Self::Terminated => "terminated",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// When and how a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// How.
    pub ending: Ending,
}

/// Why a message was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was delivered as often as the consumer allows.
    Exhausted,
    /// Who had it said so, in at most 256 bytes.
    Terminated(String),
}

/// A message that is not delivered any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number in the stream.
    pub sequence: u64,
    /// Why.
    pub reason: Reason,
    /// How often it was ever delivered, also before it was [redriven](super::Engine::redrive).
    pub deliveries: u32,
    /// How its last deliveries ended, at most four, the last one last.
    pub history: Vec<Event>,
}

impl DeadLetter {
    /// The letter as bytes, which [`decode`](Self::decode) takes; without the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).varint(self.sequence).varint(self.deliveries.into());
        match &self.reason {
            Reason::Exhausted => writer.u8(0),
            Reason::Terminated(text) => writer.u8(1).str(text),
        };
        encode_history(&mut writer, 0, &self.history);
        writer.finish()
    }

    /// The letter that `bytes` are.
    ///
    /// # Errors
    /// `format.damaged`; `format.newer` for another version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "a dead letter");
        if reader.u8()? != VERSION {
            return Err(Error::new(&codes::FORMAT_NEWER, "a dead letter is of another version"));
        }
        let (sequence, deliveries) = (reader.varint()?, small(&mut reader)?);
        let reason = match reader.u8()? {
            0 => Reason::Exhausted,
            1 => Reason::Terminated(text(&mut reader)?),
            _ => return Err(reader.damaged("no such reason")),
        };
        let history = decode_history(&mut reader, 0)?;
        reader.end()?;
        if sequence == 0 || sequence == u64::MAX {
            return Err(reader.damaged("a number is out of its range"));
        }
        Ok(Self { sequence, reason, deliveries, history })
    }
}

/// Remembers how a delivery ended; the oldest is forgotten when there are too many.
pub(super) fn remember(history: &mut Vec<Event>, event: Event) {
    if history.len() >= HISTORY_MAX {
        history.remove(0);
    }
    history.push(event);
}

/// Times are written as differences, which are small; they may be negative, because a clock can be set back
/// between two openings.
pub(super) fn encode_history(writer: &mut Writer, base_ms: u64, history: &[Event]) {
    writer.u8(history.len() as u8);
    let mut before = base_ms;
    for event in history {
        signed(writer, event.unix_ms.wrapping_sub(before).cast_signed());
        writer.u8(match event.ending {
            Ending::Expired => 0,
            Ending::Returned => 1,
            Ending::Restarted => 2,
            Ending::Terminated => 3,
            Ending::Withdrawn => 4,
        });
        before = event.unix_ms;
    }
}

/// # Errors
/// `format.damaged`
pub(super) fn decode_history(reader: &mut Reader<'_>, base_ms: u64) -> Result<Vec<Event>> {
    let count = reader.u8()? as usize;
    if count > HISTORY_MAX {
        return Err(reader.damaged("a history is too long"));
    }
    let mut before = base_ms;
    let events = (0..count).map(|_| {
        before = before.wrapping_add(read_signed(reader)?.cast_unsigned());
        let ending = match reader.u8()? {
            0 => Ending::Expired,
            1 => Ending::Returned,
            2 => Ending::Restarted,
            3 => Ending::Terminated,
            4 => Ending::Withdrawn,
            _ => return Err(reader.damaged("no such ending")),
        };
        Ok(Event { unix_ms: before, ending })
    });
    events.collect()
}

/// # Errors
/// `format.damaged`
pub(super) fn text(reader: &mut Reader<'_>) -> Result<String> {
    let text = reader.str()?;
    if text.len() > REASON_BYTES_MAX {
        return Err(reader.damaged("a reason is too long"));
    }
    Ok(text.to_owned())
}

/// # Errors
/// `format.damaged`
pub(super) fn small(reader: &mut Reader<'_>) -> Result<u32> {
    u32::try_from(reader.varint()?).map_err(|_| reader.damaged("a number is too large"))
}

/// A signed number: 1 byte from -64 to 63, 2 from -8192 to 8191, and so on.
pub(super) fn signed(writer: &mut Writer, value: i64) {
    writer.varint(((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// # Errors
/// `format.damaged`
pub(super) fn read_signed(reader: &mut Reader<'_>) -> Result<i64> {
    let value = reader.varint()?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let ending = prop::sample::select(vec![
            Ending::Expired,
            Ending::Returned,
            Ending::Restarted,
            Ending::Terminated,
            Ending::Withdrawn,
        ]);
        let event = (any::<u64>(), ending).prop_map(|(unix_ms, ending)| Event { unix_ms, ending });
        prop::collection::vec(event, 0..=HISTORY_MAX)
    }

    proptest! {
        #[test]
        fn a_dead_letter_is_read_as_it_was_written_and_a_piece_of_one_is_damaged(
            (sequence, deliveries, history) in (1..u64::MAX, any::<u32>(), events()),
            reason in prop::option::of(".{0,60}"),
            cut: prop::sample::Index,
        ) {
            let reason = reason.map_or(Reason::Exhausted, Reason::Terminated);
            let letter = DeadLetter { sequence, reason, deliveries, history };
            let bytes = letter.encode();
            prop_assert_eq!(DeadLetter::decode(&bytes).unwrap(), letter);
            let error = DeadLetter::decode(&bytes[..cut.index(bytes.len())]).unwrap_err();
            prop_assert!(error.is(&codes::FORMAT_DAMAGED));
        }

        #[test]
        fn any_bytes_are_a_letter_or_an_error(bytes: Vec<u8>) {
            if let Err(error) = DeadLetter::decode(&[&[0], &bytes[..]].concat()) {
                prop_assert!(error.is(&codes::FORMAT_DAMAGED));
            }
        }
    }

    #[test]
    fn a_history_keeps_the_last_endings() {
        let mut history = Vec::new();
        for unix_ms in 0..10 {
            remember(&mut history, Event { unix_ms, ending: Ending::Expired });
        }
        let times: Vec<_> = history.iter().map(|event| event.unix_ms).collect();
        assert_eq!(times, [6, 7, 8, 9]);
    }
}
