//! The ring's arithmetic, without a byte of shared memory: where records lie and what is in between.
//!
//! A record is one unit of 8 bytes that says its length and number, then the message, padded to whole
//! units. Both ends of the queue are one word each, so that a process that dies between two steps
//! cannot leave a position without its count: what the word says is always all true or all not yet.
//!
//! | bits of a [`Cursor`] | what |
//! |---|---|
//! | 0 | the queue is closed; at the tail only |
//! | 1 to 31 | how many records went past, modulo 2³¹ |
//! | 32 to 63 | position in units, from 0 up to twice the ring, so that full and empty differ |

/// Records begin at multiples of this many bytes, and so much does each take beside its message.
pub(super) const UNIT_BYTES: usize = 8;
/// The smallest ring.
pub(super) const CAPACITY_BYTES_MIN: u64 = 64;
/// The largest ring: its units, and as many records, fit into a cursor twice.
pub(super) const CAPACITY_BYTES_MAX: u64 = 8 << 30;

const COUNT_MASK: u32 = (1 << 31) - 1;
const CLOSED: u64 = 1;
/// Makes memory that was never written, or written with zeroes, no record.
const TAG: u32 = 0x9e37_79b9;

/// How far one end of the queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor(u64);

impl Cursor {
    const fn new(position: u32, count: u32, closed: bool) -> Self {
        Self((position as u64) << 32 | ((count & COUNT_MASK) as u64) << 1 | closed as u64)
    }

    /// The cursor that was stored as `word`.
    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As it is stored.
    pub(super) const fn word(self) -> u64 {
        self.0
    }

    /// True if nothing more may come behind it.
    pub(super) const fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// The same, closed.
    pub(super) const fn closed(self) -> Self {
        Self(self.0 | CLOSED)
    }

    /// True if both are at the same place.
    pub(super) const fn meets(self, other: Self) -> bool {
        (self.0 ^ other.0) & !CLOSED == 0
    }

    const fn position(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn count(self) -> u32 {
        (self.0 >> 1) as u32 & COUNT_MASK
    }
}

/// What lies between two cursors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub units: u32,
    pub items: u32,
}

/// A ring of a certain size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    units: u32,
}

impl Ring {
    /// A ring of at least `capacity_bytes`, in whole units; `None` if that is not within the limits.
    pub(super) fn new(capacity_bytes: u64) -> Option<Self> {
        let is_within = (CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX).contains(&capacity_bytes);
        // Room for a header before it, also where addresses are short.
        if !is_within || capacity_bytes > isize::MAX as u64 / 2 {
            return None;
        }
        Some(Self { units: capacity_bytes.div_ceil(UNIT_BYTES as u64) as u32 })
    }

    /// Its size.
    pub(super) const fn bytes(self) -> usize {
        self.units as usize * UNIT_BYTES
    }

    /// The longest message that it can hold when it is empty.
    pub(super) const fn message_bytes_max(self) -> usize {
        let room = self.bytes() - UNIT_BYTES;
        if room < u32::MAX as usize { room } else { u32::MAX as usize }
    }

    /// Units that a message takes, which is not longer than the longest.
    pub(super) const fn units_of(message_bytes: usize) -> u32 {
        (1 + message_bytes.div_ceil(UNIT_BYTES)) as u32
    }

    /// What lies from `head` to `tail`; `None` if two such cursors cannot be.
    pub(super) const fn between(self, head: Cursor, tail: Cursor) -> Option<Depth> {
        let around = 2 * self.units;
        if head.position() >= around || tail.position() >= around {
            return None;
        }
        let ahead = tail.position() + if tail.position() < head.position() { around } else { 0 };
        let units = ahead - head.position();
        let items = tail.count().wrapping_sub(head.count()) & COUNT_MASK;
        // Each record takes at least one unit, and units belong to records.
        if units > self.units || items > units || (items == 0) != (units == 0) {
            return None;
        }
        Some(Depth { units, items })
    }

    /// True if a record of `units` fits beside what is there.
    pub(super) const fn has_room(self, depth: Depth, units: u32) -> bool {
        units <= self.units - depth.units
    }

    /// Behind a record of `units` that begins at `cursor`.
    pub(super) const fn after(self, cursor: Cursor, units: u32) -> Cursor {
        let position = cursor.position() + units;
        let around = 2 * self.units;
        let position = if position >= around { position - around } else { position };
        Cursor::new(position, cursor.count().wrapping_add(1), cursor.is_closed())
    }

    /// Where in the ring a record at `cursor` begins, in bytes.
    pub(super) const fn offset(self, cursor: Cursor) -> usize {
        let position = cursor.position();
        let unit = if position >= self.units { position - self.units } else { position };
        unit as usize * UNIT_BYTES
    }

    /// `bytes` behind `offset`, around the end; both are at most the ring.
    pub(super) const fn step(self, offset: usize, bytes: usize) -> usize {
        let at = offset + bytes;
        if at >= self.bytes() { at - self.bytes() } else { at }
    }

    /// How many of `bytes` from `offset` on lie before the ring's end; the others are at its beginning.
    pub(super) const fn before_end(self, offset: usize, bytes: usize) -> usize {
        let room = self.bytes() - offset;
        if bytes < room { bytes } else { room }
    }

    /// The first unit of a record at `cursor`.
    pub(super) const fn head_word(cursor: Cursor, message_bytes: usize) -> u64 {
        ((cursor.count() ^ TAG) as u64) << 32 | message_bytes as u64
    }

    /// The length of the message whose record at `cursor` begins with `word`; `None` if that is no
    /// record of this place and number, or reaches beyond `depth`.
    pub(super) const fn message_bytes(cursor: Cursor, word: u64, depth: Depth) -> Option<usize> {
        let bytes = word as u32 as usize;
        let is_here = (word >> 32) as u32 == cursor.count() ^ TAG;
        let units = 1 + bytes.div_ceil(UNIT_BYTES);
        if is_here && units <= depth.units as usize { Some(bytes) } else { None }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
