//! Envelopes in a spill file, first in, first out.

use std::collections::VecDeque;

use bytes::Bytes;
use dwk_base::{Error, Result, codes};
use dwk_chunk::crc64nvme;

use super::Spill;
use crate::Envelope;
use crate::receipt::Ticket;

/// What is in memory of an envelope that is in the file.
struct Entry {
    bytes: usize,
    checksum: u64,
    ticket: Option<Ticket>,
}

/// A queue of envelopes in a file.
pub(crate) struct Log {
    spill: Spill,
    entries: VecDeque<Entry>,
    /// Where the first entry's bytes begin.
    start: u64,
    /// Where the last entry's bytes end.
    end: u64,
}

/// What comes out of the file.
pub(crate) struct Next {
    /// The envelope; an error if its bytes are not what was written.
    pub envelope: Result<Envelope>,
    pub ticket: Option<Ticket>,
}

impl Log {
    pub(crate) fn new(spill: Spill) -> Self {
        Self { spill, entries: VecDeque::new(), start: 0, end: 0 }
    }

    /// How many envelopes are in it.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes they take.
    pub(crate) fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Adds an envelope at the end.
    ///
    /// # Errors
    /// `bus.full` at the limit, and those of the file; the ticket comes back.
    pub(crate) fn append(
        &mut self,
        envelope: &Envelope,
        ticket: Option<Ticket>,
    ) -> Result<(), (Error, Option<Ticket>)> {
        let bytes = envelope.encode();
        if self.bytes() + bytes.len() as u64 > self.spill.bytes_max {
            let text = format!("more than {} bytes would be spilled", self.spill.bytes_max);
            return Err((Error::new(&codes::BUS_FULL, text), ticket));
        }
        if let Err(error) = self.spill.file.append(&bytes) {
            return Err((error, ticket));
        }
        let checksum = crc64nvme(&bytes);
        self.entries.push_back(Entry { bytes: bytes.len(), checksum, ticket });
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Gives everything up. Who holds a ticket is told when the result is dropped.
    pub(crate) fn clear(&mut self) -> impl Sized + use<> {
        self.start = self.end;
        self.spill.file.trim(self.end);
        std::mem::take(&mut self.entries)
    }

    /// How many bytes the next envelope takes, if there is one.
    pub(crate) fn peek_bytes(&self) -> Option<usize> {
        self.entries.front().map(|entry| entry.bytes)
    }

    /// Takes the next envelope out. One that cannot be read is gone.
    pub(crate) fn pop(&mut self) -> Option<Next> {
        let Entry { bytes, checksum, ticket } = self.entries.pop_front()?;
        let mut buffer = vec![0; bytes];
        let read = self.spill.file.read_at(self.start, &mut buffer);
        self.start += bytes as u64;
        self.spill.file.trim(self.start);
        let envelope = read.and_then(|()| {
            if crc64nvme(&buffer) != checksum {
                let text = "a spilled message is damaged";
                return Err(Error::new(&codes::FORMAT_DAMAGED, text));
            }
            Envelope::decode(&Bytes::from(buffer))
        });
        Some(Next { envelope, ticket })
    }
}
