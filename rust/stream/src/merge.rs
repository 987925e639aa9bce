//! Merging: what was committed a little at a time becomes blocks, so that rows stay few.
//!
//! One commit puts the block and deletes the frames: a reader finds each message in one or the other.

use dwk_base::{Deadline, Error, Result, codes};
use dwk_meta::{Change, Require};

use crate::core::Core;
use crate::entry::{Entry, Place};
use crate::frame::{FrameWriter, Header};
use crate::frames::Known;
use crate::keys::frame_row;
use crate::read::{is_unreadable, read_all};
use crate::upkeep::Upkeep;

/// Content waits in memory until there is so much of it.
const PIECE_BYTES: usize = 256 << 10;
/// A block that is shorter rides in the journal.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// What a frame that goes takes in a record, and more.
const DELETE_BYTES: u64 = 64;

/// Which frames are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eager {
    /// Those that make a full block.
    No,
    /// Any two of them, and small blocks.
    Yes,
}

/// Frames that follow each other.
#[derive(Debug, Default)]
struct Run {
    frames: Vec<Known>,
    bytes: u64,
}

impl Core {
    /// Merges what is worth it. What is damaged stays as it is.
    ///
    /// # Errors
    /// Those of reading frames, of uploads and of commits; what was merged before stays so.
    pub(crate) fn merge(&self, upkeep: &mut Upkeep, eager: Eager) -> Result<()> {
        while let Some(run) = self.next_run(upkeep, eager)? {
            match self.merge_frames(&run.frames, &mut |_| Ok(true)) {
                Ok(()) => upkeep.has_merged = true,
                Err((first, error)) if is_unreadable(&error) => {
                    upkeep.damaged.insert(first);
                }
                Err((_, error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next frames that are to be merged.
    fn next_run(&self, upkeep: &mut Upkeep, eager: Eager) -> Result<Option<Run>> {
        let options = &self.shared.options;
        let record_bytes_max = self.shared.meta.pool().journal().options().record_bytes_max;
        let frames_max =
            options.merge_frames.min(u64::from(record_bytes_max) / DELETE_BYTES).max(2);
        let from = if eager == Eager::Yes { 0 } else { upkeep.merged_to };
        let from = self.frames.first_of(from.max(self.first()))?.unwrap_or(u64::MAX);
        // Where messages go out of their middle blocks become small.
        let takes_blocks = eager == Eager::Yes || self.config().keep_last_per_key;
        let next = self.ledger().next;
        let (mut run, mut found) = (Run::default(), None);
        self.frames.visit(from, &mut |known| {
            let header = &known.header;
            // What is there, but was not told yet, waits until it was.
            if header.last >= next {
                return Ok(false);
            }
            let is_small = header.bytes < options.merge_bytes / 2;
            let takes = (!header.is_block || (takes_blocks && is_small))
                && !upkeep.damaged.contains(&header.first);
            let follows = run.frames.last().is_none_or(|last| last.header.last + 1 == header.first);
            if !takes || !follows {
                let ended = std::mem::take(&mut run);
                if eager == Eager::Yes && ended.frames.len() > 1 {
                    found = Some(ended);
                    return Ok(false);
                }
            }
            if takes {
                run.bytes += header.bytes;
                run.frames.push(known);
            }
            let is_full = run.bytes >= options.merge_bytes || run.frames.len() as u64 >= frames_max;
            if is_full && run.frames.len() > 1 {
                found = Some(std::mem::take(&mut run));
            }
            Ok(found.is_none())
        })?;
        if found.is_none() && eager == Eager::Yes && run.frames.len() > 1 {
            return Ok(Some(run));
        }
        if let (None, Some(first)) = (&found, run.frames.first()) {
            upkeep.merged_to = first.header.first;
        }
        Ok(found)
    }

    /// Merges frames that follow each other, and of their messages those that `keeps` says.
    ///
    /// # Errors
    /// With the first number of the frame that cannot be read, if it is that.
    pub(crate) fn merge_frames(
        &self,
        frames: &[Known],
        keeps: &mut dyn FnMut(&Entry<'_>) -> Result<bool>,
    ) -> Result<(), (u64, Error)> {
        let headers: Vec<Header> = frames.iter().map(|known| known.header.clone()).collect();
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else { return Ok(()) };
        let whole = |error| (first.first, error);
        let mut writer = FrameWriter::new(first.first, true);
        let inline_max = self.shared.options.inline_bytes_max.min(INLINE_BYTES_MAX);
        let mut upload = self.shared.meta.upload().with_inline_max(inline_max);
        let mut place = Place { sequence: first.first, unix_ns: 0 };
        for header in &headers {
            let read = read_all(&self.frames, header.first, &Deadline::never(), &mut |entry| {
                place = follow(place, &entry)?;
                if keeps(&entry)? {
                    let at = Place { sequence: entry.sequence, unix_ns: entry.unix_ns };
                    writer.push(at, entry.body, entry.message_id.is_some());
                }
                Ok(())
            });
            read.map_err(|error| (header.first, error))?;
            if writer.waiting_bytes() >= PIECE_BYTES {
                upload.append(&writer.take()).map_err(whole)?;
            }
        }
        upload.append(&writer.take()).map_err(whole)?;
        let staged = upload.finish().map_err(whole)?;
        let mut block = writer.finish(last.last);
        if block.count == 0 {
            (block.first_unix_ns, block.last_unix_ns) = (first.first_unix_ns, last.last_unix_ns);
        }
        let row = |header: &Header| frame_row(self.id, header.first);
        let mut change = Change::new().put(row(first), block.encode(), Some(staged));
        for header in &headers[1..] {
            change = change.delete(row(header));
        }
        for known in frames {
            change = change.require(row(&known.header), Require::Version(known.version));
        }
        self.shared.meta.commit(change).map_err(whole)?;
        self.ledger().replaced(&self.frames, &headers, Some(&block)).map_err(whole)
    }
}

/// Fails if a message is before the one before it: what is written must hold together.
fn follow(place: Place, entry: &Entry<'_>) -> Result<Place> {
    if entry.sequence >= place.sequence && entry.unix_ns >= place.unix_ns {
        return Ok(Place { sequence: entry.sequence + 1, unix_ns: entry.unix_ns });
    }
    let text = format!("message {} is not behind the one before it", entry.sequence);
    Err(Error::new(&codes::FORMAT_DAMAGED, text))
}
