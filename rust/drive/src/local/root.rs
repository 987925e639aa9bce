//! The drive's directory: its calls with their errors translated, and whether it is to be trusted.

use std::sync::atomic::{AtomicBool, Ordering};

use dwk_base::{Code, Error, Result, codes};
use rustix::io::Errno;

use super::files::{File, Files, How, Io, Kind, Node};

/// What every part of a local drive works on.
pub(super) struct Root {
    files: Box<dyn Files>,
    location: String,
    /// A sync failed: what was written may be gone although it can still be read.
    failed: AtomicBool,
}

impl Root {
    pub(super) fn new(files: Box<dyn Files>, location: String) -> Self {
        Self { files, location, failed: AtomicBool::new(false) }
    }

    pub(super) fn files(&self) -> &dyn Files {
        &*self.files
    }

    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Fails if the directory was removed while it was open: open files would go on as if it were not.
    pub(super) fn alive(&self) -> Result<()> {
        match self.files.stat("") {
            Ok(Node { links: 1.., .. }) => Ok(()),
            Ok(_) => Err(self.gone()),
            Err(errno) => Err(self.error("fstat", "", errno)),
        }
    }

    /// Fails if a sync has failed before: nothing is tried again on such a drive.
    pub(super) fn trusted(&self) -> Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            let message = format!("an earlier sync of {} failed", self.location);
            return Err(Error::new(&codes::DRIVE_FAILED, message));
        }
        Ok(())
    }

    /// Translates a result.
    pub(super) fn done<T>(&self, call: &'static str, path: &str, result: Io<T>) -> Result<T> {
        result.map_err(|errno| self.error(call, path, errno))
    }

    /// Translates the result of a sync; after a failure the drive is not trusted any more, unless nothing was
    /// synced because the process could not even open what was to be.
    pub(super) fn synced(&self, call: &'static str, path: &str, result: Io<()>) -> Result<()> {
        result.map_err(|errno| {
            self.failed.fetch_or(!is_exhaustion(errno), Ordering::SeqCst);
            self.error(call, path, errno)
        })
    }

    /// As [`synced`](Self::synced), of a new file that has no name yet: if there is no room for it, nothing else
    /// is lost with it.
    pub(super) fn synced_new(&self, call: &'static str, path: &str, result: Io<()>) -> Result<()> {
        match result {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(self.error(call, path, errno)),
            result => self.synced(call, path, result),
        }
    }

    pub(super) fn open(&self, path: &str, how: How) -> Result<Box<dyn File>> {
        self.done("open", path, self.files.open(path, how))
    }

    /// Reads until `into` is full or the file ends.
    pub(super) fn read(
        &self,
        file: &dyn File,
        path: &str,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize> {
        let mut filled = 0;
        if !is_offset(offset, into.len()) {
            return Ok(0);
        }
        while filled < into.len() {
            let at = offset + filled as u64;
            match self.done("pread", path, file.read_at(&mut into[filled..], at))? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    /// Names in a directory; none if it is not there.
    pub(super) fn list(&self, path: &str) -> Result<Vec<(String, Kind)>> {
        match self.files.list(path) {
            // Something else may lie where a directory should.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.alive().map(|()| Vec::new()),
            result => self.done("readdir", path, result),
        }
    }

    /// The drive's words for what the operating system says.
    pub(super) fn error(&self, call: &'static str, path: &str, errno: Errno) -> Error {
        if matches!(errno, Errno::NOENT | Errno::STALE) && self.is_gone() {
            return self.gone();
        }
        let (location, why) = (&self.location, remark(errno));
        Error::new(code(errno), format!("{call} of {location}/{path} failed{why}"))
            .with("errno", told(errno).raw_os_error())
            .with("path", format!("{location}/{path}"))
            .with("call", call)
            .caused_by(std::io::Error::from(told(errno)))
    }

    /// Gets what is no plain file, and lies where a blob is to be, out of the way. It keeps its name, with an end
    /// that no blob's name has, so that it is found beside the blob.
    pub(super) fn move_aside(&self, path: &str) -> Result<()> {
        let free = |number: &u32| match self.files.rename_new(path, &aside(path, *number)) {
            Err(Errno::EXIST) => None,
            result => Some(result),
        };
        let errno = match (0..ASIDE_MAX).find_map(|number| free(&number)) {
            Some(Ok(()) | Err(Errno::NOENT)) => return Ok(()),
            Some(Err(errno @ Errno::ROFS)) => return Err(self.error("rename", path, errno)),
            Some(Err(errno)) => errno,
            None => Errno::EXIST,
        };
        let location = &self.location;
        let text = format!("{location}/{path} is no plain file and cannot be moved out of the way");
        let error =
            Error::new(&codes::BLOB_EXISTS, text).with("path", format!("{location}/{path}"));
        Err(error.with("errno", errno.raw_os_error()).caused_by(std::io::Error::from(errno)))
    }

    fn is_gone(&self) -> bool {
        !matches!(self.files.stat(""), Ok(Node { links: 1.., .. }))
    }

    fn gone(&self) -> Error {
        let message = format!("the directory {} was removed", self.location);
        Error::new(&codes::DRIVE_MISSING, message).with("path", &self.location)
    }
}

/// What is opened where a file should be, and is none: a pipe, a device, a directory.
pub(super) const NO_FILE: Errno = Errno::NXIO;

/// What everything fails with once the drive was closed.
pub(super) const CLOSED: Errno = Errno::BADF;

/// A file would become longer than the process may have it. The call is not made: the system would kill a process
/// that does not ignore `SIGXFSZ`.
pub(super) const PAST_LIMIT: Errno = Errno::OVERFLOW;

/// So many things may be moved out of the way of one blob.
const ASIDE_MAX: u32 = 100;

fn aside(path: &str, number: u32) -> String {
    format!("{path}+{number}")
}

/// What the operating system would have said.
pub(super) const fn told(errno: Errno) -> Errno {
    if matches!(errno, PAST_LIMIT) { Errno::FBIG } else { errno }
}

/// Whose fault it is, and what can be done about it.
pub(super) fn code(errno: Errno) -> &'static Code {
    match errno {
        // A file system without room, a quota, too few inodes, a maximum for each file: less would fit.
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => &codes::DRIVE_FULL,
        Errno::ROFS | Errno::ACCESS | Errno::PERM => &codes::DRIVE_READ_ONLY,
        PAST_LIMIT => &codes::PROCESS_FILE_SIZE,
        CLOSED => &codes::STORE_CLOSED,
        Errno::NOMEM => &codes::PROCESS_EXHAUSTED,
        _ if is_exhaustion(errno) => &codes::PROCESS_EXHAUSTED,
        _ => &codes::DRIVE_IO,
    }
}

/// What to add where the code does not say it all.
pub(super) const fn remark(errno: Errno) -> &'static str {
    match errno {
        Errno::ACCESS | Errno::PERM => ": this user has no right to it",
        CLOSED => ": the drive is closed",
        NO_FILE | Errno::ISDIR | Errno::LOOP => ": it is no plain file",
        Errno::DQUOT => ": the quota is used up",
        Errno::FBIG => {
            ": its file system takes no files as long as this, use another one for the drive"
        }
        _ => "",
    }
}

/// True for what no sync returns, only an `open`: the process, or the machine, has too many files open.
pub(super) const fn is_exhaustion(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE)
}

/// False for what no file is long enough for: the operating system's offsets are signed.
pub(super) const fn is_offset(offset: u64, bytes: usize) -> bool {
    offset <= i64::MAX as u64 - bytes as u64
}
