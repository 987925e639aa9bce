//! Writing an object.

use std::collections::BTreeMap;
use std::io::{self, Read};

use dwk_base::{Deadline, Error, Result, codes};
use dwk_chunk::Crc64;
use dwk_meta::{Change, Require, Staged, Upload};

use crate::catalog::{conflict, match_etag};
use crate::{Catalog, Commit, Happening, Key, ObjectInfo};

/// How much is taken between two looks at the deadline, in bytes.
const PIECE_BYTES: usize = 4 << 20;

/// Where the bytes of a put come from.
pub enum Source<'a> {
    /// From memory.
    Bytes(&'a [u8]),
    /// From a stream, to its end, in bounded memory.
    Stream(&'a mut dyn Read),
}

/// What a put may ask for beyond its bytes.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Only if there is no such object.
    pub if_absent: bool,
    /// Only if the object has this etag.
    pub if_match: Option<String>,
    /// What it is, such as `text/plain`.
    pub content_type: Option<String>,
    /// Kept with it.
    pub metadata: BTreeMap<String, String>,
    /// Labels to find it by.
    pub tags: BTreeMap<String, String>,
}

/// Told the bytes taken so far; an error ends the put and leaves nothing.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

impl Catalog {
    /// Writes an object, whole or not at all; durable on return.
    ///
    /// # Errors
    /// `container.not_found`, `object.conflict`, `object.metadata`, `source.failed`, `context.deadline`,
    /// whatever `progress` returns, and those of writing stripes and of a commit
    pub fn put(
        &self,
        key: &Key,
        source: Source<'_>,
        options: &PutOptions,
        deadline: &Deadline,
        progress: Progress<'_>,
    ) -> Result<ObjectInfo> {
        self.put_with(key, source, options, deadline, (progress, self.alone()))
    }

    /// [`put`](Self::put), and `commit` makes the change durable: perhaps with more than an object in it.
    ///
    /// # Errors
    /// As `put`, and what `commit` fails with.
    pub fn put_with(
        &self,
        key: &Key,
        source: Source<'_>,
        options: &PutOptions,
        deadline: &Deadline,
        (progress, commit): (Progress<'_>, Commit<'_>),
    ) -> Result<ObjectInfo> {
        let mut info = ObjectInfo::new(key.clone(), options)?;
        // Looked at before the bytes are taken, so that a put in vain costs nothing; what holds is the
        // commit's own look.
        self.require_container(key.container())?;
        let require = self.condition(key, options)?;
        let mut intake = Intake {
            upload: self.meta.upload_until(deadline),
            crc: Crc64::new(),
            taken: 0,
            deadline,
        };
        match source {
            Source::Bytes(bytes) => intake.bytes(bytes, progress)?,
            Source::Stream(stream) => intake.stream(stream, progress)?,
        }
        info.size_bytes = intake.taken;
        info.checksum = intake.crc.value();
        let staged = intake.upload.finish()?;
        self.commit_put(info, (staged, require), commit, deadline)
    }

    fn condition(&self, key: &Key, options: &PutOptions) -> Result<Option<Require>> {
        if !options.if_absent && options.if_match.is_none() {
            return Ok(None);
        }
        match (self.find(key)?, &options.if_match) {
            (Some(_), _) if options.if_absent => Err(conflict(key, "it is there already")),
            (Some(info), Some(etag)) => match_etag(&info, etag).map(Some),
            (None, Some(_)) => Err(conflict(key, "it is not there")),
            (_, None) => Ok(Some(Require::Absent)),
        }
    }

    fn commit_put(
        &self,
        mut info: ObjectInfo,
        (staged, require): (Staged, Option<Require>),
        commit: Commit<'_>,
        deadline: &Deadline,
    ) -> Result<ObjectInfo> {
        let (row, container) = (info.key.row(), info.key.container().row());
        info.created_unix_ns = self.seams.clock.unix_ns();
        let mut change = Change::new()
            .put(row.clone(), info.encode(), Some(staged))
            .require(container, Require::Present);
        if let Some(require) = require {
            change = change.require(row, require);
        }
        let shared = self.gate.share(deadline)?;
        deadline.check()?;
        let done = commit(change, Happening::ObjectCreated(&info), deadline);
        drop(shared);
        info.version = done.map_err(|error| {
            if !error.is(&codes::OBJECT_CONFLICT) {
                return error;
            }
            let gone = self.require_container(info.key.container()).err();
            gone.unwrap_or_else(|| conflict(&info.key, "it changed in this moment"))
        })?;
        Ok(info)
    }
}

/// Takes bytes into an upload, piece by piece.
struct Intake<'a> {
    upload: Upload,
    crc: Crc64,
    taken: u64,
    deadline: &'a Deadline,
}

impl Intake<'_> {
    fn bytes(&mut self, bytes: &[u8], progress: Progress<'_>) -> Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.deadline.check()?;
            self.crc.update(piece);
            self.upload.append(piece)?;
            self.taken += piece.len() as u64;
            progress(self.taken)?;
        }
        Ok(())
    }

    fn stream(&mut self, stream: &mut dyn Read, progress: Progress<'_>) -> Result<()> {
        loop {
            self.deadline.check()?;
            let (crc, deadline) = (&mut self.crc, self.deadline);
            let mut tap = Tap { stream: &mut *stream, crc, deadline, failed: None };
            let taken = self.upload.append_from(&mut tap, PIECE_BYTES);
            if let Some(failed) = tap.failed.take() {
                if failed.kind() == io::ErrorKind::TimedOut {
                    self.deadline.check()?;
                }
                return Err(source_failed(failed, self.taken));
            }
            match taken? {
                0 => return Ok(()),
                taken => self.taken += taken as u64,
            }
            progress(self.taken)?;
        }
    }
}

/// Checksums what passes, and remembers that it was the source that failed and not the store.
struct Tap<'a> {
    stream: &'a mut dyn Read,
    crc: &'a mut Crc64,
    deadline: &'a Deadline,
    failed: Option<io::Error>,
}

impl Read for Tap<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(into) {
            Ok(taken) if taken <= into.len() => {
                self.crc.update(&into[..taken]);
                Ok(taken)
            }
            Ok(_) => {
                Err(self.fail(io::Error::other("the source says it gave more than was asked for")))
            }
            // Nothing came, for the moment: it is asked again, as long as there is time.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                let over = self.deadline.check().map_err(|_| io::ErrorKind::TimedOut.into());
                over.map_err(|over| self.fail(over)).and(Err(error))
            }
            Err(error) => Err(self.fail(error)),
        }
    }
}

impl Tap<'_> {
    fn fail(&mut self, error: io::Error) -> io::Error {
        self.failed = Some(error);
        io::Error::other("the source failed")
    }
}

fn source_failed(error: io::Error, taken: u64) -> Error {
    let text = format!("the source failed after {taken} bytes: {error}");
    Error::new(&codes::SOURCE_FAILED, text).with("taken_bytes", taken).caused_by(error)
}
