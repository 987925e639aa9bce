//! One message as it lies in a frame.
//!
//! ```text
//! entry := gap:varint later_ns:varint body
//! body  := flags:u8 [message_id:bytes] envelope:bytes        (docs/format/stream.md)
//! ```
//!
//! The body never changes when frames are merged. The gap counts the sequence numbers that are left out
//! before this one; the time is told from the message before.

use bytes::Bytes;
use dwk_base::codec::{Reader, Writer};
use dwk_base::{Error, Result, codes};
use dwk_bus::Envelope;

/// The longest `message_id`, in bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 255;

const HAS_ID: u8 = 1;

/// What the next entry's numbers are told from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The sequence number of an entry without a gap.
    pub(crate) sequence: u64,
    pub(crate) unix_ns: u64,
}

/// A message in a frame, its parts where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) sequence: u64,
    pub(crate) unix_ns: u64,
    pub(crate) message_id: Option<&'a [u8]>,
    pub(crate) envelope: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// A message as bytes.
///
/// # Errors
/// `stream.option` for a `message_id` that is empty or longer than 255 bytes.
pub(crate) fn body(envelope: &Envelope, message_id: Option<&str>) -> Result<Vec<u8>> {
    let envelope = envelope.encode();
    let mut writer = Writer::with_capacity(envelope.len() + message_id.map_or(0, str::len) + 8);
    match message_id {
        None => writer.u8(0),
        Some(id) if (1..=MESSAGE_ID_BYTES_MAX).contains(&id.len()) => writer.u8(HAS_ID).str(id),
        Some(id) => {
            let text = format!("message_id: {} bytes, not 1 to {MESSAGE_ID_BYTES_MAX}", id.len());
            return Err(Error::new(&codes::STREAM_OPTION, text).with("option", "message_id"));
        }
    };
    writer.bytes(&envelope);
    Ok(writer.finish())
}

/// Writes an entry, and moves `place` behind it.
pub(crate) fn put(writer: &mut Writer, place: &mut Place, at: Place, body: &[u8]) {
    let (gap, later_ns) = (at.sequence - place.sequence, at.unix_ns - place.unix_ns);
    writer.varint(gap).varint(later_ns).raw(body);
    *place = Place { sequence: at.sequence + 1, unix_ns: at.unix_ns };
}

/// Reads entries, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Entries<'a> {
    reader: Reader<'a>,
    place: Place,
    /// The greatest sequence number that may be in it.
    last: u64,
}

impl<'a> Entries<'a> {
    pub(crate) const fn new(bytes: &'a [u8], place: Place, last: u64) -> Self {
        Self { reader: Reader::new(bytes, "a frame of messages"), place, last }
    }

    /// What the next entry is told from.
    pub(crate) const fn place(&self) -> Place {
        self.place
    }

    /// Bytes that were not read yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// `format.damaged`
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'a>>> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let reader = &mut self.reader;
        let (gap, later_ns) = (reader.varint()?, reader.varint()?);
        let sequence = self.place.sequence.checked_add(gap);
        let sequence = sequence.filter(|sequence| *sequence <= self.last);
        let unix_ns = self.place.unix_ns.checked_add(later_ns);
        let (Some(sequence), Some(unix_ns)) = (sequence, unix_ns) else {
            return Err(reader.damaged("a number is out of its range"));
        };
        let whole = reader.rest();
        let (message_id, envelope) = parts(reader)?;
        let body = &whole[..whole.len() - reader.rest().len()];
        self.place = Place { sequence: sequence.saturating_add(1), unix_ns };
        Ok(Some(Entry { sequence, unix_ns, message_id, envelope, body }))
    }
}

fn parts<'a>(reader: &mut Reader<'a>) -> Result<(Option<&'a [u8]>, &'a [u8])> {
    let message_id = match reader.u8()? {
        0 => None,
        HAS_ID => Some(reader.bytes()?),
        _ => return Err(reader.damaged("unknown flags")),
    };
    Ok((message_id, reader.bytes()?))
}

/// A message that was kept alone: its `message_id` and its envelope, which shares the memory of `body`.
///
/// # Errors
/// `format.damaged`, `format.newer`
pub(crate) fn open(body: &Bytes) -> Result<(Option<Bytes>, Envelope)> {
    let mut reader = Reader::new(body, "a message");
    let (message_id, envelope) = parts(&mut reader)?;
    reader.end()?;
    let envelope = Envelope::decode(&body.slice_ref(envelope))?;
    Ok((message_id.map(|id| body.slice_ref(id)), envelope))
}
