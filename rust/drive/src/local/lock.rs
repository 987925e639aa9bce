//! Who holds the drive: a lock on the file `lock`, and a text in it for others to read.
//!
//! The kernel ends the lock with the process, so a text can outlive its writer: it counts only while the
//! lock is held. The text is overwritten with zeroes when the drive is let go in order; one that is found by
//! the next holder says that its writer did not come to that. The file keeps its size, so that a drive can be
//! taken on a file system that others have filled.
//!
//! A directory that is named by mistake has no lock to take: nothing in it is made, emptied or removed.

use std::fmt::Write;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dwk_base::{Clock, Error, Result, codes};
use rustix::io::Errno;

use super::blobs::Blobs;
use super::files::{File, How, Kind};
use super::layout::{self, LOCK};
use super::logs::Logs;
use super::output::Output;
use super::root::Root;
use crate::{Holder, Lock, LockMode, Slot, checks};

/// The longest text that is read, and what each is padded to with zeroes.
const TEXT_BYTES_MAX: usize = 4096;
/// The longest host and program that are written.
const LINE_BYTES_MAX: usize = 1000;
/// Somebody who only asks [`holder`] has the lock for a moment: so often, and so long, it is waited for.
const ATTEMPTS: usize = 5;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(2);

/// A lock that was taken.
pub(super) struct Taken {
    file: Box<dyn File>,
    /// The holder before left without letting go.
    pub(super) was_abandoned: bool,
}

/// Takes the lock, at once or not at all.
pub(super) fn take(
    root: &Root,
    me: &Holder,
    mode: LockMode,
    clock: &dyn Clock,
) -> Result<Option<Taken>> {
    root.alive()?;
    if !is_drive(root)? {
        let message = format!("{} is not a drive", root.location());
        return Err(Error::new(&codes::DRIVE_MISSING, message).with("path", root.location()));
    }
    let file = match root.files().open(LOCK, How::Create) {
        // A drive that can only be read: nobody can hold it to write.
        Err(Errno::ROFS | Errno::ACCESS) if mode == LockMode::Shared => {
            match root.files().open(LOCK, How::Read) {
                Err(Errno::NOENT) => return Ok(None),
                result => root.done("open", LOCK, result)?,
            }
        }
        result => root.done("open", LOCK, result)?,
    };
    for attempt in 1.. {
        if root.done("flock", LOCK, file.try_lock(mode))? {
            break;
        }
        if attempt == ATTEMPTS || is_held_alone(root)? {
            return Err(refusal(read_text(root)?, &*file, me));
        }
        clock.sleep(ATTEMPT_INTERVAL);
    }
    let was_abandoned = text(root)?.is_some_and(|text| text.bytes().any(|byte| byte != 0));
    Ok(Some(Taken { file, was_abandoned }))
}

/// Why `me` cannot have the lock.
fn refusal(holder: Option<Holder>, file: &dyn File, me: &Holder) -> Error {
    match holder {
        Some(holder) if holder.host == me.host && file.has_ended(holder.pid) => {
            checks::ended(&holder)
        }
        Some(holder) => checks::locked(Some(&holder)),
        None => file
            .sharer()
            .map_or_else(|| checks::locked(None), |(pid, program)| checks::shared(pid, &program)),
    }
}

/// True for a directory that was made a drive. Without a superblock it takes all else that makes one,
/// and no file called `lock` of somebody else's.
fn is_drive(root: &Root) -> Result<bool> {
    for slot in Slot::BOTH {
        if is(root, layout::slot(slot), Kind::File)? {
            return Ok(true);
        }
    }
    let skeleton =
        is(root, layout::BLOBS, Kind::Directory)? && is(root, layout::LOGS, Kind::Directory)?;
    // A power cut may leave a text as zeroes, or less than all of it.
    let text = text(root)?.unwrap_or_default();
    let text = text.trim_matches('\0');
    Ok(skeleton && (text.is_empty() || text.starts_with("pid ")))
}

fn is(root: &Root, path: &str, kind: Kind) -> Result<bool> {
    match root.files().stat(path) {
        Err(Errno::NOENT) => Ok(false),
        node => Ok(root.done("stat", path, node)?.kind == kind),
    }
}

/// Who holds the drive to write, if anybody does.
pub(super) fn holder(root: &Root) -> Result<Option<Holder>> {
    root.alive()?;
    let holder = read_text(root)?;
    if holder.is_some() && is_held_alone(root)? { Ok(holder) } else { Ok(None) }
}

/// True if somebody holds the lock who lets no other in.
fn is_held_alone(root: &Root) -> Result<bool> {
    match root.files().open(LOCK, How::Read) {
        Err(Errno::NOENT) => Ok(false),
        file => {
            let file = root.done("open", LOCK, file)?;
            Ok(!root.done("flock", LOCK, file.try_lock(LockMode::Shared))?)
        }
    }
}

fn read_text(root: &Root) -> Result<Option<Holder>> {
    Ok(text(root)?.as_deref().and_then(parse))
}

fn text(root: &Root) -> Result<Option<String>> {
    let file = match root.files().open(LOCK, How::Read) {
        Err(Errno::NOENT) => return Ok(None),
        result => root.done("open", LOCK, result)?,
    };
    let mut text = vec![0; TEXT_BYTES_MAX];
    let count = root.read(&*file, LOCK, 0, &mut text)?;
    Ok(Some(String::from_utf8_lossy(&text[..count]).into_owned()))
}

impl Taken {
    /// Says to others who holds the drive.
    pub(super) fn announce(&self, root: &Root, holder: &Holder) -> Result<()> {
        let mut text = format_text(holder).into_bytes();
        text.resize(TEXT_BYTES_MAX, 0);
        Output { root, file: &*self.file, path: LOCK, offset: 0 }.write(&[Bytes::from(text)])
    }

    /// Holds the lock until it is dropped.
    pub(super) fn hold(self, blobs: Arc<Blobs>, logs: Arc<Logs>, mode: LockMode) -> Box<dyn Lock> {
        Box::new(Held { file: self.file, blobs, logs, mode, process: std::process::id() })
    }
}

struct Held {
    file: Box<dyn File>,
    blobs: Arc<Blobs>,
    logs: Arc<Logs>,
    mode: LockMode,
    process: u32,
}

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        // A forked child has a copy of the lock, and closing a copy does not let go: neither may it say so.
        if self.process != std::process::id() {
            return;
        }
        // While anything waits for a sync the text stays: the next holder syncs it.
        let is_synced = || self.blobs.is_synced() && self.logs.are_synced();
        if self.mode == LockMode::Exclusive && is_synced() {
            let _ = self.file.write_at(&[IoSlice::new(&[0; TEXT_BYTES_MAX])], 0);
        }
        self.file.unlock();
    }
}

fn format_text(holder: &Holder) -> String {
    let Holder { pid, host, since_unix_ns, program } = holder;
    let line = |text: &str| {
        let mut line = text.replace(['\n', '\r', '\0'], " ");
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        line
    };
    let mut text = String::new();
    let _ = writeln!(text, "pid {pid}\nhost {}\nsince_unix_ns {since_unix_ns}", line(host));
    let _ = writeln!(text, "program {}", line(program));
    text
}

fn parse(text: &str) -> Option<Holder> {
    let text = text.trim_end_matches('\0');
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
    };
    Some(Holder {
        pid: field("pid")?.parse().ok()?,
        host: field("host")?,
        since_unix_ns: field("since_unix_ns")?.parse().ok()?,
        program: field("program")?,
    })
}
