//! Overflow in a temporary file that has no name, so that nothing is left of it, however the process ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dwk_base::{Code, Error, Random, Result, codes};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::SpillFile;

/// So many bytes are given up together: a file system has work with each hole.
const TRIM_BYTES: u64 = 1 << 20;

/// A spill file in a directory, made when the first byte comes.
pub struct LocalSpill {
    directory: PathBuf,
    random: Arc<dyn Random>,
    file: Option<File>,
    /// Where the file's first byte would be, counted from the first byte that was ever appended.
    base: u64,
    /// The end, counted like that.
    end: u64,
    /// Up to where room was given back, counted like that.
    trimmed: u64,
}

impl LocalSpill {
    /// A file in `directory`, which is not touched yet.
    pub fn new(directory: impl Into<PathBuf>, random: Arc<dyn Random>) -> Self {
        let directory = directory.into();
        Self { directory, random, file: None, base: 0, end: 0, trimmed: 0 }
    }

    /// How much of the file system it takes.
    #[cfg(test)]
    pub(super) fn taken_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
        metadata.map_or(0, |metadata| metadata.blocks() * 512)
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        let code = code_of(&error);
        let text = format!("the spill file in {}: {what} failed", self.directory.display());
        Error::new(code, text).with("path", self.directory.display()).caused_by(error)
    }

    fn file(&mut self) -> Result<&File> {
        if self.file.is_none() {
            let made = create(&self.directory, &*self.random);
            self.file = Some(made.map_err(|error| self.failed("making it", error))?);
        }
        match &self.file {
            Some(file) => Ok(file),
            None => unreachable!("it was just made"),
        }
    }
}

impl SpillFile for LocalSpill {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let at = self.end - self.base;
        let end = at.saturating_add(bytes.len() as u64);
        if is_past_limit(end) {
            let place = self.directory.display();
            let text = format!("the spill file in {place} would grow to {end} bytes");
            return Err(Error::new(&codes::PROCESS_FILE_SIZE, text).with("path", place));
        }
        // What a failed write left is overwritten by the next one.
        let written = self.file()?.write_all_at(bytes, at);
        written.map_err(|error| self.failed("writing", error))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        let there = offset >= self.trimmed && offset + into.len() as u64 <= self.end;
        let at = offset.saturating_sub(self.base);
        let read = if there {
            self.file()?.read_exact_at(into, at)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        };
        read.map_err(|error| self.failed("reading", error))
    }

    fn trim(&mut self, offset: u64) {
        let Some(file) = &self.file else { return };
        let offset = offset.min(self.end);
        // To give room back is a favour: if it fails the file is only larger than it need be.
        if offset == self.end {
            if file.set_len(0).is_ok() {
                (self.base, self.trimmed) = (self.end, self.end);
            }
        } else if offset >= self.trimmed + TRIM_BYTES {
            punch(file, self.trimmed - self.base, offset - self.trimmed);
            self.trimmed = offset;
        }
    }
}

/// A new file that nobody else can open, already without its name.
fn create(directory: &Path, random: &dyn Random) -> io::Result<File> {
    let path = directory.join(format!("dwk-spill-{:016x}", random.next_u64()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Makes a hole of what was read, where the file system can.
#[cfg(target_os = "linux")]
fn punch(file: &File, at: u64, bytes: u64) {
    use rustix::fs::{FallocateFlags, fallocate};
    let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, bytes);
}

/// Elsewhere the room comes back when everything was read.
#[cfg(not(target_os = "linux"))]
fn punch(_file: &File, _at: u64, _bytes: u64) {}

/// True if the process may not write a file up to `end`: the system would kill a process that does not ignore
/// `SIGXFSZ`.
fn is_past_limit(end: u64) -> bool {
    getrlimit(Resource::Fsize).current.is_some_and(|limit| end > limit)
}

fn code_of(error: &io::Error) -> &'static Code {
    if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)) {
        return &codes::PROCESS_EXHAUSTED;
    }
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            &codes::DRIVE_FULL
        }
        _ => &codes::DRIVE_IO,
    }
}
