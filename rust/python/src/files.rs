//! Files that a put reads without Python.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::detach::attach;

/// So often who waits for a pipe or a device hears Ctrl-C, and that its time is over.
const WAIT: Duration = Duration::from_millis(50);

/// Reads a file by its path. One that may keep its reader waiting, such as a pipe, is asked in short steps.
pub(crate) struct FileSource {
    path: PathBuf,
    open: Option<Open>,
    failed: Option<PyErr>,
}

struct Open {
    file: File,
    /// Its bytes are there, as far as a disk's are.
    is_regular: bool,
}

impl FileSource {
    /// Opened when it is read.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, open: None, failed: None }
    }

    /// What it failed with, once.
    pub(crate) fn failed(&mut self) -> Option<PyErr> {
        self.failed.take()
    }

    fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Open::new(&self.path)?),
        };
        if !open.is_regular && !open.is_ready()? {
            let interrupt = attach(|py| py.check_signals().err()).flatten();
            return Err(interrupt.map_or_else(|| ErrorKind::Interrupted.into(), io::Error::from));
        }
        open.file.read(into)
    }
}

impl Open {
    fn new(path: &PathBuf) -> io::Result<Self> {
        // Opening a pipe does not wait for its writer; reading does.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let is_regular = file.metadata()?.is_file();
        Ok(Self { file, is_regular })
    }

    /// Waits a little; whether there is something to read, or its end.
    fn is_ready(&self) -> io::Result<bool> {
        let wait = Timespec::try_from(WAIT).map_err(io::Error::other)?;
        let ready = poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&wait))?;
        Ok(ready > 0)
    }
}

impl Read for FileSource {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.read_some(into).map_err(|error| match error.kind() {
            ErrorKind::Interrupted | ErrorKind::WouldBlock => ErrorKind::Interrupted.into(),
            kind => {
                let text = format!("{}: {error}", self.path.display());
                self.failed = Some(PyErr::from(error));
                io::Error::new(kind, text)
            }
        })
    }
}
