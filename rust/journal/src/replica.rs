//! A member at work: its drive, its shelf, and the limit to its patience.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwk_base::{DriveId, Error, Result, codes};
use dwk_drive::{Attached, Drive, Ticket};

use crate::shelf::{BlobShelf, Shelf, SlotShelf};
use crate::sync::guard;
use crate::{Member, Options};

/// A member's copy of the log.
pub(crate) struct Replica {
    pub id: DriveId,
    drive: Arc<Attached>,
    shelf: Arc<dyn Shelf>,
    timeout: Duration,
    /// Free segments that are being made.
    spare: Mutex<Option<Ticket<()>>>,
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
            drive: member.drive,
            shelf,
            timeout: options.member_timeout,
            spare: Mutex::default(),
        }
    }

    pub(crate) fn shelf(&self) -> &dyn Shelf {
        &*self.shelf
    }

    /// The drive, for reads on the caller's own thread.
    pub(crate) fn drive(&self) -> &dyn Drive {
        self.drive.drive()
    }

    /// Starts `job` on the drive's own thread, after the jobs before it.
    pub(crate) fn start<T, F>(&self, job: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Shelf, &dyn Drive) -> Result<T> + Send + 'static,
    {
        let shelf = Arc::clone(&self.shelf);
        self.drive.submit_log(move |drive| job(&*shelf, drive))
    }

    /// Waits for a job that was started.
    ///
    /// # Errors
    /// The job's; `drive.timeout`
    pub(crate) fn finish<T>(&self, ticket: &Ticket<T>) -> Result<T> {
        ticket.wait_for(self.timeout).unwrap_or_else(|| Err(self.late()))
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
            let shelf = Arc::clone(&self.shelf);
            // Whether it worked is seen when a segment is needed.
            let make = move |drive: &dyn Drive| shelf.prepare_spares(drive, count);
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

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replica").field(&self.id).finish()
    }
}
