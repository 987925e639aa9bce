//! Many records, read in the order of the log.

use bytes::Bytes;
use dwk_base::{Deadline, Result};

use crate::view::part;
use crate::{Journal, Position};

/// Reads records one after the other, and a drive for a whole batch of them at once.
#[derive(Debug)]
pub struct Reader<'a> {
    journal: &'a Journal,
    /// The batch that was read last, verified: its segment, where it begins, its bytes.
    kept: Option<(u64, u32, Bytes)>,
}

impl Journal {
    /// For records that lie near each other.
    pub const fn reader(&self) -> Reader<'_> {
        Reader { journal: self, kept: None }
    }
}

impl Reader<'_> {
    /// As [`Journal::read`], however long it takes.
    ///
    /// # Errors
    /// As there.
    pub fn read(
        &mut self,
        position: Position,
        offset: u32,
        into: &mut [u8],
        check: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        if self.read_kept(position, offset, into)? && check(into) {
            return Ok(());
        }
        // A batch that cannot be read as a whole may still have this record.
        self.journal.read(position, offset, into, check, &Deadline::never())
    }

    /// Fills `into` from the batch that is kept, if there is one for it and it is worth one.
    fn read_kept(&mut self, position: Position, offset: u32, into: &mut [u8]) -> Result<bool> {
        let view = self.journal.view();
        let (segment, mark) = view.place(position)?;
        let from = part(position, offset, into.len(), &mark)? - mark.offset;
        if mark.count < 2 {
            return Ok(false);
        }
        let here = (segment.number, mark.offset);
        if self.kept.as_ref().is_none_or(|kept| (kept.0, kept.1) != here) {
            self.kept = view.batch(&segment, &mark).ok().map(|batch| (here.0, here.1, batch));
        }
        let Some((_, _, batch)) = &self.kept else { return Ok(false) };
        let from = from as usize;
        into.copy_from_slice(&batch[from..from + into.len()]);
        Ok(true)
    }
}
