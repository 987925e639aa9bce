//! Files that have no name yet: written aside, then given their name in one step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dwk_base::{Error, Result, codes};
use rustix::io::Errno;

use super::files::{File, How, Kind};
use super::layout::TEMPORARY;
use super::root::Root;

/// Makes files in the temporary directory.
pub(super) struct Temporaries {
    root: Arc<Root>,
    next: AtomicU64,
}

impl Temporaries {
    pub(super) fn new(root: Arc<Root>) -> Self {
        Self { root, next: AtomicU64::new(0) }
    }

    /// Makes a new file; `drive.missing` if the directory was never made a drive.
    pub(super) fn create(&self) -> Result<(String, Box<dyn File>)> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = format!("{TEMPORARY}/{number}");
            match self.root.files().open(&path, How::CreateNew) {
                Ok(file) => return Ok((path, file)),
                // Left by another opening, which cannot have so many that this does not end.
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => {
                    self.root.alive()?;
                    let message = format!("{} is not a drive", self.root.location());
                    return Err(Error::new(&codes::DRIVE_MISSING, message).with("path", path));
                }
                Err(errno) => return Err(self.root.error("open", &path, errno)),
            }
        }
    }

    /// Removes a file that will not get a name. If that fails the next [`clean`](Self::clean) does it.
    pub(super) fn discard(&self, path: &str) {
        let _ = self.root.files().remove(path);
    }

    /// Removes what an earlier process left, by the names that [`create`](Self::create) gives: nothing
    /// else is ours. Only for who holds the drive alone.
    pub(super) fn clean(&self) -> Result<()> {
        for (name, kind) in self.root.list(TEMPORARY)? {
            if kind == Kind::File && name.bytes().all(|byte| byte.is_ascii_digit()) {
                self.discard(&format!("{TEMPORARY}/{name}"));
            }
        }
        Ok(())
    }
}
