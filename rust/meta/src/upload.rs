//! Bytes on their way in: small ones wait in memory for the record, more of them fill stripes.
//!
//! Memory is bounded by the stripes in flight, whatever the length of the stream. What an upload wrote
//! counts only once a commit names it; one that is dropped before removes its stripes.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::sync::{Arc, Weak};

use dwk_base::codec::Writer;
use dwk_base::{Deadline, Error, Result, codes};
use dwk_pool::{Filling, Pool, Stripe, Writing};

use crate::meta::{BODY_BYTES_MAX, KEY_BYTES_MAX, Meta};
use crate::row::{Content, PIECE_BYTES_MAX, Piece, Place};

/// How many stripes are written while the next one fills.
const IN_FLIGHT_MAX: usize = 2;
/// Of a record that names an object's stripes, this part is left for what else the commit says, but not more
/// than a key and a body may take.
const REST_SHARE: usize = 4;

/// Takes the bytes of one content.
#[derive(Debug)]
pub struct Upload {
    small: Vec<u8>,
    inline_bytes_max: usize,
    filling: Option<Filling>,
    in_flight: VecDeque<Flight>,
    written: Written,
    /// What the stripes that are written take in a record.
    record_bytes: usize,
    /// The kernel's own bookkeeping may fill what is reserved for it.
    reserve: bool,
    deadline: Deadline,
}

/// Stripes on the drives that no commit names yet. Dropping it removes them.
#[derive(Debug)]
struct Written {
    pool: Arc<Pool>,
    /// Where they are announced.
    meta: Weak<Meta>,
    stripes: Vec<(Stripe, u64)>,
}

#[derive(Debug)]
struct Flight {
    writing: Writing,
    check: u64,
}

/// A content that is durable or ready to ride in a record, for one commit.
#[derive(Debug)]
pub struct Staged {
    pub(crate) inline: Vec<u8>,
    bytes: u64,
    check: u64,
    written: Written,
}

impl Upload {
    pub(crate) fn new(
        pool: Arc<Pool>,
        meta: Weak<Meta>,
        inline_bytes_max: usize,
        deadline: Deadline,
    ) -> Self {
        Self {
            small: Vec::new(),
            inline_bytes_max,
            filling: None,
            in_flight: VecDeque::new(),
            written: Written { pool, meta, stripes: Vec::new() },
            record_bytes: 0,
            reserve: false,
            deadline,
        }
    }

    /// Content that goes to stripes, into reserved room if it must: packing and checkpoints make room.
    pub(crate) fn with_reserve(mut self) -> Self {
        self.reserve = true;
        self.inline_bytes_max = 0;
        self
    }

    /// Lets up to `bytes_max` ride in the journal, whatever [`Options::inline_bytes_max`](crate::Options) says:
    /// for content that soon goes again. Say it before the first byte; a record has a maximum size.
    #[must_use]
    pub fn with_inline_max(mut self, bytes_max: usize) -> Self {
        self.inline_bytes_max = bytes_max;
        self
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    /// `pool.full`, `journal.record_size` (it takes more stripes than one commit can name), `drive.*`,
    /// `context.deadline`: the upload is over then.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.filling.is_none() && self.written.stripes.is_empty() && self.in_flight.is_empty() {
            if self.small.len() + bytes.len() <= self.inline_bytes_max {
                self.small.extend_from_slice(bytes);
                return Ok(());
            }
            let small = std::mem::take(&mut self.small);
            self.append_large(&small)?;
        }
        while !bytes.is_empty() {
            let taken = self.append_some(bytes)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Takes up to `limit` bytes from `source`, straight into the stripe that fills; 0 at its end.
    ///
    /// # Errors
    /// `source.failed`, and those of [`append`](Self::append).
    pub fn append_from(&mut self, source: &mut dyn Read, limit: usize) -> Result<usize> {
        if self.filling.is_none() && self.in_flight.is_empty() && self.written.stripes.is_empty() {
            return self.append_first(source, limit);
        }
        let filling = self.filling()?;
        let room = filling.spare();
        let room_bytes = room.len().min(limit);
        let got = read(source, &mut room[..room_bytes])?;
        filling.advance(got);
        self.flush_if_full()?;
        Ok(got)
    }

    /// While nothing is in a stripe: a first piece that may stay small.
    fn append_first(&mut self, source: &mut dyn Read, limit: usize) -> Result<usize> {
        let old = self.small.len();
        let room = (self.inline_bytes_max + 1 - old).min(limit);
        self.small.resize(old + room, 0);
        let got = read(source, &mut self.small[old..]);
        self.small.truncate(old + *got.as_ref().unwrap_or(&0));
        let got = got?;
        if self.small.len() > self.inline_bytes_max {
            let small = std::mem::take(&mut self.small);
            self.append_large(&small)?;
        }
        Ok(got)
    }

    fn append_large(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let taken = self.append_some(bytes)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    fn append_some(&mut self, bytes: &[u8]) -> Result<usize> {
        let taken = self.filling()?.append(bytes);
        self.flush_if_full()?;
        Ok(taken)
    }

    fn filling(&mut self) -> Result<&mut Filling> {
        if self.filling.is_none() {
            self.check_length()?;
            // A pool that is only read is not written to, not even with what no commit will name.
            self.written.pool.check_writable()?;
            let space = self.written.pool.space();
            let filling = space.fill(space.payload_bytes_max(), &self.deadline)?;
            self.filling = Some(if self.reserve { filling.with_reserve() } else { filling });
        }
        self.filling.as_mut().ok_or_else(|| Error::new(&codes::INTERNAL_BUG, "no stripe fills"))
    }

    /// Fails if one stripe more could make a record that no journal takes. The last stripe and those on their
    /// way count as much as the average one.
    fn check_length(&self) -> Result<()> {
        let record_bytes_max = self.written.pool.journal().options().record_bytes_max as usize;
        let rest = (KEY_BYTES_MAX + BODY_BYTES_MAX).min(record_bytes_max / REST_SHARE);
        let written = self.written.stripes.len();
        let all = written + self.in_flight.len() + 1;
        if self.record_bytes * all <= (record_bytes_max - rest) * written.max(1) {
            return Ok(());
        }
        let text = format!("an object of more than {} stripes cannot be addressed", all - 1);
        Err(Error::new(&codes::JOURNAL_RECORD_SIZE, text))
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.filling.as_ref().is_some_and(Filling::is_full) { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let Some(filling) = self.filling.take() else { return Ok(()) };
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.land()?;
        }
        if let (false, Some(meta)) = (self.reserve, self.written.meta.upgrade()) {
            meta.make_room(filling.len() as u64, &self.deadline)?;
        }
        let writing = self.written.pool.space().write(filling)?;
        let check = writing.check();
        self.in_flight.push_back(Flight { writing, check });
        Ok(())
    }

    fn land(&mut self) -> Result<()> {
        if let Some(flight) = self.in_flight.pop_front() {
            let meta = self.written.meta.upgrade();
            let announce = |stripe: &Stripe| {
                if let Some(meta) = meta {
                    meta.state_mut().announce(stripe);
                }
            };
            let stripe = flight.writing.wait_and(&self.deadline, announce)?;
            let mut row = Writer::new();
            stripe.encode(&mut row);
            self.record_bytes += 1 + row.len() + PIECE_BYTES_MAX;
            self.written.stripes.push((stripe, flight.check));
        }
        Ok(())
    }

    /// Waits until everything is durable (small content: until its commit).
    ///
    /// # Errors
    /// Those of [`append`](Self::append); then nothing of it stays.
    pub fn finish(mut self) -> Result<Staged> {
        if self.filling.as_ref().is_some_and(|filling| !filling.is_empty()) {
            self.flush()?;
        }
        while !self.in_flight.is_empty() {
            self.land()?;
        }
        let small = std::mem::take(&mut self.small);
        let Written { pool, meta, .. } = &self.written;
        let rest = Written { pool: Arc::clone(pool), meta: Weak::clone(meta), stripes: Vec::new() };
        Ok(Staged::new(small, std::mem::replace(&mut self.written, rest)))
    }
}

impl Staged {
    fn new(inline: Vec<u8>, written: Written) -> Self {
        let bytes = written.stripes.iter().map(|(stripe, _)| u64::from(stripe.payload_bytes));
        let bytes = inline.len() as u64 + bytes.sum::<u64>();
        let mut check = dwk_chunk::crc64nvme(&inline);
        for (stripe, piece) in &written.stripes {
            check = dwk_chunk::crc64_join(check, *piece, stripe.payload_bytes.into());
        }
        Self { inline, bytes, check, written }
    }

    /// Its length.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// CRC-64/NVME of the whole.
    pub const fn check(&self) -> u64 {
        self.check
    }

    pub(crate) fn stripes(&self) -> impl Iterator<Item = &Stripe> {
        self.written.stripes.iter().map(|(stripe, _)| stripe)
    }

    pub(crate) fn content(&self) -> Content {
        let piece = |(stripe, check): &(Stripe, u64)| Piece {
            place: Place::Stripe { id: stripe.id, offset: 0 },
            bytes: stripe.payload_bytes,
            check: *check,
        };
        Content { pieces: self.written.stripes.iter().map(piece).collect() }
    }

    /// A commit names the stripes, or may do so: they are its own now.
    pub(crate) fn keep(mut self) {
        self.written.stripes.clear();
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for (stripe, _) in self.stripes.drain(..) {
            self.pool.space().discard(&stripe);
            if let Some(meta) = self.meta.upgrade() {
                meta.state_mut().forget(stripe.id);
            }
        }
    }
}

fn read(source: &mut dyn Read, into: &mut [u8]) -> Result<usize> {
    loop {
        match source.read(into) {
            Ok(got) => return Ok(got),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let text = "the source of the data failed";
                return Err(Error::new(&codes::SOURCE_FAILED, text).caused_by(error));
            }
        }
    }
}
