//! What a stream takes and how long it keeps it.

use std::time::Duration;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Error, Result, codes};
use dwk_bus::{Envelope, Pattern, Subject};

const VERSION: u8 = 0;

/// How many patterns one stream may have.
pub const SUBJECTS_MAX: usize = 256;
/// The longest window in which the same message is taken once.
pub const DUPLICATE_WINDOW_MAX: Duration = Duration::from_hours(24);
/// How many identities of messages a stream may remember: some 100 bytes of memory each.
pub const DUPLICATE_IDS_MAX: u32 = 16 << 20;

/// What happens to a message for which there is no room in the stream's own limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discard {
    /// The oldest messages go.
    #[default]
    Old,
    /// The new one is refused with `stream.full`.
    New,
}

/// What else lets messages go, besides the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// Nothing.
    #[default]
    Limits,
    /// Everybody who is interested has them: consumers tell, with [`release`](crate::Stream::release).
    Interest,
    /// Somebody has done the work: consumers tell, with [`release`](crate::Stream::release).
    WorkQueue,
}

/// What a stream takes and how long it keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Subjects of the messages that it takes; 1 to 256 patterns.
    pub subjects: Vec<Pattern>,
    /// Messages go when they are older. They stay a little longer: until 64 KiB of messages with them, or
    /// what was committed with them, is as old.
    pub max_age: Option<Duration>,
    /// The oldest messages go, or new ones are refused, when the messages take more bytes. With
    /// [`Discard::Old`] they go by 64 KiB or by what was committed together; the last commit stays.
    pub max_bytes: Option<u64>,
    /// The oldest messages go, or new ones are refused, when there are more.
    pub max_messages: Option<u64>,
    /// Which of the two.
    pub discard: Discard,
    /// What else lets messages go.
    pub retention: Retention,
    /// Of the messages with the same key only the last one is kept; older ones go when the stream is
    /// compacted. Messages without a key stay.
    pub keep_last_per_key: bool,
    /// For so long a message with the same `message_id` is taken once; zero for not at all.
    pub duplicate_window: Duration,
    /// How many identities of messages are remembered; above it the window is shorter.
    pub duplicate_ids_max: u32,
}

impl StreamConfig {
    /// Takes subjects that match one of `subjects`, and keeps everything.
    pub fn new(subjects: Vec<Pattern>) -> Self {
        Self {
            subjects,
            max_age: None,
            max_bytes: None,
            max_messages: None,
            discard: Discard::Old,
            retention: Retention::Limits,
            keep_last_per_key: false,
            duplicate_window: Duration::from_mins(2),
            duplicate_ids_max: 1 << 18,
        }
    }

    /// True if it takes messages about `subject`.
    pub fn takes(&self, subject: &Subject) -> bool {
        self.subjects.iter().any(|pattern| pattern.matches(subject))
    }

    /// True if it takes what is [announced](Envelope::is_announcement) about `subject`.
    pub fn takes_announcements(&self, subject: &Subject) -> bool {
        self.subjects.iter().any(|pattern| pattern.names() && pattern.matches(subject))
    }

    /// True if it takes this message.
    pub(crate) fn takes_envelope(&self, envelope: &Envelope) -> bool {
        let subject = envelope.subject();
        if envelope.is_announcement() {
            self.takes_announcements(subject)
        } else {
            self.takes(subject)
        }
    }

    /// # Errors
    /// `stream.option`
    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=SUBJECTS_MAX).contains(&self.subjects.len()) {
            return Err(invalid("subjects", "give 1 to 256 patterns"));
        }
        if self.max_age.is_some_and(|age| age.is_zero()) {
            return Err(invalid("max_age", "it is zero: nothing would stay"));
        }
        if self.max_bytes == Some(0) || self.max_messages == Some(0) {
            return Err(invalid("max_bytes, max_messages", "nothing would stay"));
        }
        if self.duplicate_window > DUPLICATE_WINDOW_MAX {
            return Err(invalid("duplicate_window", "it is longer than 24 hours"));
        }
        if self.duplicate_ids_max > DUPLICATE_IDS_MAX {
            return Err(invalid("duplicate_ids_max", "more than 16,777,216"));
        }
        Ok(())
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u8(VERSION).varint(self.subjects.len() as u64);
        for pattern in &self.subjects {
            writer.str(pattern.as_str());
        }
        let age = self.max_age.map(|age| nanoseconds(age).max(1));
        for limit in [age, self.max_bytes, self.max_messages] {
            writer.varint(limit.unwrap_or(0));
        }
        writer.u8(match self.discard {
            Discard::Old => 0,
            Discard::New => 1,
        });
        writer.u8(match self.retention {
            Retention::Limits => 0,
            Retention::Interest => 1,
            Retention::WorkQueue => 2,
        });
        writer.u8(self.keep_last_per_key.into());
        writer.varint(nanoseconds(self.duplicate_window)).varint(self.duplicate_ids_max.into());
    }

    /// # Errors
    /// `format.damaged`; `format.newer` for another version.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        if reader.u8()? != VERSION {
            let text = "a stream's configuration is of another version";
            return Err(Error::new(&codes::FORMAT_NEWER, text));
        }
        let damaged = |reader: &Reader<'_>| reader.damaged("a value that no option has");
        let subjects = (0..reader.count(2)?).map(|_| {
            let pattern = Pattern::new(reader.str()?);
            pattern.map_err(|error| reader.damaged("a pattern is none").caused_by(error))
        });
        let subjects = subjects.collect::<Result<_>>()?;
        let mut limit = || Ok::<_, Error>(Some(reader.varint()?).filter(|limit| *limit > 0));
        let (max_age, max_bytes, max_messages) = (limit()?, limit()?, limit()?);
        let discard = match reader.u8()? {
            0 => Discard::Old,
            1 => Discard::New,
            _ => return Err(damaged(reader)),
        };
        let retention = match reader.u8()? {
            0 => Retention::Limits,
            1 => Retention::Interest,
            2 => Retention::WorkQueue,
            _ => return Err(damaged(reader)),
        };
        let keep_last_per_key = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(damaged(reader)),
        };
        let duplicate_window = Duration::from_nanos(reader.varint()?);
        let ids = u32::try_from(reader.varint()?);
        let config = Self {
            subjects,
            max_age: max_age.map(Duration::from_nanos),
            max_bytes,
            max_messages,
            discard,
            retention,
            keep_last_per_key,
            duplicate_window,
            duplicate_ids_max: ids.map_err(|_| damaged(reader))?,
        };
        config.check().map_err(|error| damaged(reader).caused_by(error))?;
        Ok(config)
    }
}

/// 584 years at most, which is as long as the clock goes.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn invalid(option: &'static str, why: &str) -> Error {
    Error::new(&codes::STREAM_OPTION, format!("{option}: {why}")).with("option", option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option::of;
    use proptest::prelude::*;

    prop_compose! {
        fn configs()(
            subjects in prop::collection::vec("[a-z]{1,4}(\\.[a-z]{1,4}){0,2}(\\.>)?", 1..4),
            (age_ns, max_bytes, max_messages) in (of(1..u64::MAX), of(1..u64::MAX), of(1..u64::MAX)),
            (discard, retention) in (0usize..2, 0usize..3),
            keep_last_per_key: bool,
            window_s in 0u64..86_400,
            duplicate_ids_max in 0..DUPLICATE_IDS_MAX,
        ) -> StreamConfig {
            StreamConfig {
                subjects: subjects.into_iter().map(|text| Pattern::new(text).unwrap()).collect(),
                max_age: age_ns.map(Duration::from_nanos),
                max_bytes,
                max_messages,
                discard: [Discard::Old, Discard::New][discard],
                retention: [Retention::Limits, Retention::Interest, Retention::WorkQueue][retention],
                keep_last_per_key,
                duplicate_window: Duration::from_secs(window_s),
                duplicate_ids_max,
            }
        }
    }

    proptest! {
        #[test]
        fn a_configuration_is_read_as_it_was_written_and_a_piece_of_one_is_damaged(
            config in configs(), cut: prop::sample::Index,
        ) {
            let mut writer = Writer::new();
            config.encode(&mut writer);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes, "a test");
            prop_assert_eq!(StreamConfig::decode(&mut reader).unwrap(), config);
            prop_assert!(reader.is_empty());
            let piece = &bytes[..cut.index(bytes.len())];
            let error = StreamConfig::decode(&mut Reader::new(piece, "a test")).unwrap_err();
            prop_assert!(error.is(&codes::FORMAT_DAMAGED));
        }
    }

    #[test]
    fn options_that_would_keep_nothing_or_everything_in_memory_are_refused() {
        let good = StreamConfig::new(vec![Pattern::new("a.>").unwrap()]);
        assert!(good.check().is_ok());
        let bad = [
            StreamConfig { subjects: vec![], ..good.clone() },
            StreamConfig { max_age: Some(Duration::ZERO), ..good.clone() },
            StreamConfig { max_bytes: Some(0), ..good.clone() },
            StreamConfig { max_messages: Some(0), ..good.clone() },
            StreamConfig { duplicate_window: Duration::from_hours(25), ..good.clone() },
            StreamConfig { duplicate_ids_max: u32::MAX, ..good },
        ];
        for config in bad {
            assert!(config.check().unwrap_err().is(&codes::STREAM_OPTION), "{config:?}");
        }
    }
}
