//! Identities of messages: unique, and in the order of time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use dwk_base::Random;

/// Bits of the counter: 12 of `rand_a`, 30 of `rand_b`.
const COUNTER_BITS: u32 = 42;

/// A message's identity, laid out as UUID version 7 (RFC 9562, section 5.7): it sorts by time, to the
/// millisecond, and within one bus by the order in which messages were stamped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId([u8; 16]);

impl MessageId {
    /// From its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// When it was made, in milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        (u128::from_be_bytes(self.0) >> 80) as u64
    }
}

impl fmt::Display for MessageId {
    /// As UUIDs are written: 8-4-4-4-12 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// Makes identities.
///
/// RFC 9562, section 6.2, method 1: a counter takes the high bits of what would be random. It starts at a
/// random place and never goes back, also not with the clock; 32 random bits tell processes apart.
#[derive(Debug)]
pub(crate) struct IdSource {
    counter: AtomicU64,
    latest_ms: AtomicU64,
    node: u32,
}

impl IdSource {
    pub(crate) fn new(random: &dyn Random) -> Self {
        // The top bit is free, so that the order breaks after 2^41 messages at the earliest, and then only
        // for those of one millisecond.
        let start = random.next_u64() >> (64 - COUNTER_BITS + 1);
        Self {
            counter: AtomicU64::new(start),
            latest_ms: AtomicU64::new(0),
            node: random.next_u64() as u32,
        }
    }

    /// The next identity, at `unix_ns`.
    pub(crate) fn next(&self, unix_ns: u64) -> MessageId {
        let ms = self.not_before(unix_ns / 1_000_000);
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let (high, low) = ((counter >> 30) & 0xfff, counter & ((1 << 30) - 1));
        let top = (ms << 16) | 0x7000 | high;
        let bottom = (0b10 << 62) | (low << 32) | u64::from(self.node);
        MessageId(((u128::from(top) << 64) | u128::from(bottom)).to_be_bytes())
    }

    /// `ms`, or the latest time that was seen if the clock went back.
    fn not_before(&self, ms: u64) -> u64 {
        let latest = self.latest_ms.load(Ordering::Relaxed);
        if ms > latest { self.latest_ms.fetch_max(ms, Ordering::Relaxed).max(ms) } else { latest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dwk_base::SeededRandom;
    use std::collections::HashSet;

    #[test]
    fn an_identity_is_a_uuid_of_version_7() {
        let id = IdSource::new(&SeededRandom::new(1)).next(0x0123_4567_89ab * 1_000_000 + 5);
        let text = id.to_string();
        assert!(text.starts_with("01234567-89ab-7"), "{text}");
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
        assert_eq!((text.len(), id.unix_ms()), (36, 0x0123_4567_89ab));
    }

    #[test]
    fn identities_rise_also_when_the_clock_goes_back() {
        let ids = IdSource::new(&SeededRandom::new(2));
        let times = [5, 5, 7, 6, 1, 7, 9, 9, 2];
        let made: Vec<_> = times.iter().map(|ms| ids.next(ms * 1_000_000)).collect();
        assert!(made.is_sorted_by(|a, b| a < b), "{made:?}");
    }

    #[test]
    fn identities_of_many_threads_are_unique_and_rise_in_each() {
        let ids = IdSource::new(&SeededRandom::new(3));
        let draw = || (0..10_000).map(|n| ids.next(n * 1000)).collect::<Vec<_>>();
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|made| made.is_sorted_by(|a, b| a < b)));
        assert_eq!(all.iter().flatten().collect::<HashSet<_>>().len(), 40_000);
    }

    #[test]
    fn two_buses_make_different_identities_in_the_same_moment() {
        let (a, b) = (IdSource::new(&SeededRandom::new(4)), IdSource::new(&SeededRandom::new(5)));
        assert_ne!(a.next(0), b.next(0));
    }
}
