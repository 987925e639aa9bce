//! A member at work: its drive, its shelf, and the limit to its patience.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dwk_base::{Deadline, DriveId, Error, Result, codes};
use dwk_drive::{Answer, Attached, Drive, Ticket};

use crate::format::Aligned;
use crate::shelf::{BlobShelf, Shelf, SlotShelf};
use crate::sync::guard;
use crate::{Member, Options};

/// How many reads may wait on a member that is late: each holds a thread's patience and memory.
const LATE_READS_MAX: usize = 8;

/// A stretch of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub segment: u64,
    /// Where the batch begins.
    pub batch: u32,
    /// Where in the segment the stretch begins.
    pub offset: u32,
    pub bytes: usize,
}

/// How a member answers reads.
#[derive(Debug, Default)]
struct Answers {
    waiting: AtomicUsize,
    late: AtomicBool,
}

/// A member's copy of the log.
pub(crate) struct Replica {
    pub id: DriveId,
    drive: Arc<Attached>,
    /// The same drive with a lane for reads alone: they wait neither for shards nor for syncs.
    reads: Arc<Attached>,
    answers: Arc<Answers>,
    shelf: Arc<dyn Shelf>,
    pub timeout: Duration,
    /// A read that takes longer is tried on the next member.
    pub late_read: Duration,
    /// Free segments that are being made.
    spare: Mutex<Option<Ticket<()>>>,
    /// True once nobody writes to it any more: what a drive that hangs comes to later is not done, because the
    /// drive may be a member anew by then.
    dismissed: Arc<AtomicBool>,
}

impl Replica {
    pub(crate) fn new(member: Member, options: &Options) -> Self {
        let shelf: Arc<dyn Shelf> = if member.drive.drive().log().is_some() {
            Arc::new(SlotShelf::new(options.segment_bytes, options.free_segments()))
        } else {
            Arc::new(BlobShelf::default())
        };
        Self {
            id: member.id,
            reads: Attached::new(member.drive.share()),
            answers: Arc::default(),
            drive: member.drive,
            shelf,
            timeout: options.member_timeout,
            late_read: options.late_read,
            spare: Mutex::default(),
            dismissed: Arc::default(),
        }
    }

    /// Nothing is begun on it any more but reads.
    pub(crate) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
    }

    pub(crate) fn shelf(&self) -> &dyn Shelf {
        &*self.shelf
    }

    /// The drive, for reads on the caller's own thread.
    pub(crate) fn drive(&self) -> &dyn Drive {
        self.drive.drive()
    }

    /// Fills `into` on the caller's own thread, if that need not wait for a device; false if it would.
    pub(crate) fn read_now(&self, stretch: Stretch, into: &mut [u8]) -> bool {
        self.shelf.read_now(self.drive(), stretch, into).unwrap_or(false)
    }

    /// Starts to read, unless the drive is late and enough reads wait for it already.
    pub(crate) fn try_read(&self, stretch: Stretch) -> Option<Ticket<Bytes>> {
        let enough = self.answers.waiting.load(Ordering::Relaxed) >= LATE_READS_MAX;
        (!enough || !self.is_late()).then(|| self.start_read(stretch))
    }

    /// Starts to read, on a thread that may wait for the drive.
    pub(crate) fn start_read(&self, stretch: Stretch) -> Ticket<Bytes> {
        self.answers.waiting.fetch_add(1, Ordering::Relaxed);
        let (shelf, answers) = (Arc::clone(&self.shelf), Arc::clone(&self.answers));
        self.reads.submit(move |drive| {
            let mut buffer = Aligned::zeroed(stretch.bytes);
            let read = shelf.read(drive, stretch, buffer.as_mut());
            answers.waiting.fetch_sub(1, Ordering::Relaxed);
            answers.late.store(false, Ordering::Relaxed);
            read.map(|()| buffer.finish())
        })
    }

    /// Waits for a read at most `patience`; a member that takes longer is late until it answers.
    ///
    /// # Errors
    /// `context.deadline`
    pub(crate) fn land(
        &self,
        ticket: &Ticket<Bytes>,
        patience: Duration,
        deadline: &Deadline,
    ) -> Result<Option<Result<Bytes>>> {
        match ticket.wait_until(patience, deadline) {
            Answer::Came(bytes) => Ok(Some(bytes)),
            Answer::TimeOver => Err(Deadline::passed("a drive that holds the journal takes long")),
            Answer::Late => {
                self.answers.late.store(true, Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    /// True if a read was given up and the drive has not answered since.
    pub(crate) fn is_late(&self) -> bool {
        self.answers.late.load(Ordering::Relaxed)
    }

    /// Starts `job` on the drive's own thread, after the jobs before it.
    pub(crate) fn start<T, F>(&self, job: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Shelf, &dyn Drive) -> Result<T> + Send + 'static,
    {
        let (shelf, dismissed) = (Arc::clone(&self.shelf), Arc::clone(&self.dismissed));
        self.drive.submit_log(move |drive| {
            begin(&dismissed)?;
            job(&*shelf, drive)
        })
    }

    /// Waits for a job that was started.
    ///
    /// # Errors
    /// The job's; `drive.timeout`
    pub(crate) fn finish<T>(&self, ticket: &Ticket<T>) -> Result<T> {
        self.finish_until(ticket, &Deadline::never())
    }

    /// As [`finish`](Self::finish), and no longer than to the deadline.
    ///
    /// # Errors
    /// As there, and `context.deadline`
    pub(crate) fn finish_until<T>(&self, ticket: &Ticket<T>, until: &Deadline) -> Result<T> {
        match ticket.wait_until(self.timeout, until) {
            Answer::Came(result) => result,
            Answer::TimeOver => Err(Deadline::passed("a drive that holds the journal takes long")),
            Answer::Late => Err(self.late()),
        }
    }

    /// Runs `job`, which only looks, beside the log's own work and waits for it, but not for ever.
    pub(crate) fn ask<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Shelf, &dyn Drive) -> Result<T> + Send + 'static,
    {
        let shelf = Arc::clone(&self.shelf);
        self.finish(&self.reads.submit(move |drive| job(&*shelf, drive)))
    }

    /// Runs `job` on the drive's own thread and waits for it, but not for ever.
    pub(crate) fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Shelf, &dyn Drive) -> Result<T> + Send + 'static,
    {
        self.finish(&self.start(job))
    }

    /// Has free segments made ahead of time, beside the log's own work, if there are fewer than `count`.
    pub(crate) fn prepare_spares(&self, count: usize) {
        if self.shelf.wants_spares(count) {
            let (shelf, dismissed) = (Arc::clone(&self.shelf), Arc::clone(&self.dismissed));
            // Whether it worked is seen when a segment is needed.
            let make = move |drive: &dyn Drive| {
                begin(&dismissed)?;
                shelf.prepare_spares(drive, count)
            };
            *guard(&self.spare) = Some(self.drive.submit(make));
        }
    }

    /// Waits until nothing is under way on the drive, but not for ever.
    pub(crate) fn drain(&self) {
        let _ = self.run(|_, _| Ok(()));
        if let Some(spare) = guard(&self.spare).take() {
            let _ = self.finish(&spare);
        }
    }

    pub(crate) fn late(&self) -> Error {
        let message = format!("drive {} did not answer the journal in time", self.id);
        Error::new(&codes::DRIVE_TIMEOUT, message).with("drive", self.id)
    }
}

/// Fails if nobody wants the job any more that is to begin.
fn begin(dismissed: &AtomicBool) -> Result<()> {
    if dismissed.load(Ordering::Acquire) {
        return Err(Error::new(
            &codes::STORE_CLOSED,
            "the drive does not hold this journal any more",
        ));
    }
    Ok(())
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.dismiss();
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replica").field(&self.id).finish()
    }
}
