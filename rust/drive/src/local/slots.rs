//! Superblock slots: two files of fixed size, written in place.

use bytes::Bytes;
use dwk_base::Result;
use rustix::io::Errno;

use super::files::How;
use super::layout;
use super::output::Output;
use super::root::Root;
use crate::{SUPERBLOCK_BYTES_MAX, Slot, checks};

/// What a slot holds, with the padding; `None` if there is no file or nothing in it.
pub(super) fn read(root: &Root, slot: Slot) -> Result<Option<Vec<u8>>> {
    root.alive()?;
    let path = layout::slot(slot);
    let file = match root.files().open(path, How::Read) {
        Err(Errno::NOENT) => return Ok(None),
        result => root.done("open", path, result)?,
    };
    let mut bytes = vec![0; SUPERBLOCK_BYTES_MAX];
    let count = root.read(&*file, path, 0, &mut bytes)?;
    bytes.truncate(count);
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

/// Writes a slot, zeroes after it, and makes both durable.
pub(super) fn write(root: &Root, slot: Slot, bytes: &[u8]) -> Result<()> {
    root.trusted()?;
    root.alive()?;
    checks::superblock_size(bytes)?;
    let path = layout::slot(slot);
    let (file, is_new) = match root.files().open(path, How::Write) {
        Err(Errno::NOENT) => (root.open(path, How::CreateNew)?, true),
        result => (root.done("open", path, result)?, false),
    };
    let mut padded = bytes.to_vec();
    padded.resize(SUPERBLOCK_BYTES_MAX, 0);
    let mut output = Output { root, file: &*file, path, offset: 0 };
    output.write(&[Bytes::from(padded)])?;
    root.synced("fsync", path, file.sync("superblock.file"))?;
    drop(file); // one descriptor at a time
    if is_new {
        let named = root.files().sync_directory("", "superblock.name");
        // The next try must not take the name for durable.
        root.synced("fsync", "", named).inspect_err(|_| {
            let _ = root.files().remove(path);
        })?;
    }
    Ok(())
}
