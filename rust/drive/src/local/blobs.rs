//! Blobs: written aside, synced, then named; names are synced together.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dwk_base::{Error, Result, codes};
use rustix::io::Errno;

use super::files::{File, How, Kind, Node};
use super::handles::{self, Handles, Keeper, Since};
use super::layout;
use super::output::{Buffers, Output};
use super::root::{Root, is_offset};
use super::temporary::Temporaries;
use crate::checks::{self, guard};
use crate::{BlobInfo, BlobName};

pub(super) struct Blobs {
    root: Arc<Root>,
    temporaries: Arc<Temporaries>,
    buffers: Arc<Buffers>,
    handles: Arc<Handles>,
    direct_bytes_min: u64,
    /// Directories in which names changed since the last sync, and the tag of the sync that they need.
    dirty: Mutex<BTreeMap<String, &'static str>>,
    /// One sync at a time: who finds nothing dirty must not overtake the one that is still at it.
    syncing: Mutex<()>,
}

impl Blobs {
    pub(super) fn new(
        root: Arc<Root>,
        temporaries: Arc<Temporaries>,
        buffers: Arc<Buffers>,
        options: &super::LocalOptions,
    ) -> Self {
        let handles = Arc::new(Handles::new(options.open_files_max));
        let keeper: Arc<dyn Keeper> = Arc::clone(&handles) as _;
        handles::enrol(Arc::downgrade(&keeper));
        Self {
            root,
            temporaries,
            buffers,
            handles,
            direct_bytes_min: options.direct_bytes_min,
            dirty: Mutex::default(),
            syncing: Mutex::default(),
        }
    }

    pub(super) fn put(&self, name: &BlobName, parts: &[Bytes]) -> Result<()> {
        self.root.trusted()?;
        let path = layout::blob(name);
        match self.root.files().stat(&path) {
            Ok(node) if node.kind == Kind::File => return Err(checks::exists(name)),
            Ok(_) => self.root.move_aside(&path)?,
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(self.root.error("stat", &path, errno)),
        }
        let (temporary, file) = self.temporaries.create()?;
        self.fill(&*file, &temporary, parts)
            .and_then(|()| self.give_name(&temporary, name, &path))
            .inspect_err(|_| self.temporaries.discard(&temporary))
    }

    /// Writes the content and makes it durable, so that a name never stands for less than all of it.
    fn fill(&self, file: &dyn File, path: &str, parts: &[Bytes]) -> Result<()> {
        let bytes = checks::total_bytes(parts);
        let mut output = Output { root: &self.root, file, path, offset: 0 };
        if bytes >= self.direct_bytes_min {
            output.write_direct(parts, &self.buffers)?;
            if output.offset != bytes {
                self.root.done("ftruncate", path, file.set_bytes(bytes))?;
            }
        } else {
            output.write(parts)?;
        }
        self.root.synced_new("fsync", path, file.sync("put.file"))
    }

    fn give_name(&self, temporary: &str, name: &BlobName, path: &str) -> Result<()> {
        let mut renamed = self.root.files().rename_new(temporary, path);
        if matches!(renamed, Err(Errno::NOENT | Errno::NOTDIR)) {
            self.clear_way(name)?;
            self.make_directories(name)?;
            renamed = self.root.files().rename_new(temporary, path);
        }
        if renamed == Err(Errno::EXIST) {
            return Err(checks::exists(name));
        }
        self.root.done("rename", path, renamed)?;
        guard(&self.dirty).insert(layout::directory(name), "sync.leaf");
        Ok(())
    }

    /// Gets something else out of the way that lies where a directory above a blob should.
    fn clear_way(&self, name: &BlobName) -> Result<()> {
        for path in [layout::directory(name), layout::folder(name.folder())] {
            match self.root.files().stat(&path) {
                Ok(node) if node.kind != Kind::Directory => return self.root.move_aside(&path),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the directories above a blob, and with them all others of its folder: one sync for all of
    /// them, and none for each of the blobs to come.
    fn make_directories(&self, name: &BlobName) -> Result<()> {
        let folder = layout::folder(name.folder());
        // Held over both, so that nobody can use a directory and sync before its parent counts as dirty.
        let mut dirty = guard(&self.dirty);
        self.make_directory(&folder)?;
        dirty.insert(layout::BLOBS.to_owned(), "sync.parent");
        for sibling in layout::siblings(name.leaf()) {
            self.make_directory(&format!("{folder}/{sibling}"))?;
        }
        dirty.insert(folder, "sync.parent");
        Ok(())
    }

    fn make_directory(&self, path: &str) -> Result<()> {
        match self.root.files().make_directory(path) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.root.error("mkdir", path, errno)),
        }
    }

    /// Closes what was kept for reading.
    pub(super) fn close(&self) {
        self.handles.close();
    }

    pub(super) fn delete(&self, name: &BlobName) -> Result<()> {
        self.root.trusted()?;
        let path = layout::blob(name);
        let removed = match self.root.files().stat(&path) {
            // Something else that lies there is none of ours.
            Ok(node) if node.kind != Kind::File => Err(Errno::NOENT),
            _ => self.root.files().remove(&path),
        };
        self.handles.forget(name);
        match removed {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(self.not_found(name)),
            result => self.root.done("unlink", &path, result)?,
        }
        guard(&self.dirty).insert(layout::directory(name), "sync.leaf");
        Ok(())
    }

    /// Makes the names durable; the contents are since their put.
    pub(super) fn sync(&self) -> Result<()> {
        let _turn = guard(&self.syncing);
        self.root.trusted()?;
        self.root.alive()?;
        let mut dirty = mem::take(&mut *guard(&self.dirty));
        while let Some((directory, tag)) = dirty.pop_first() {
            let synced = self.root.files().sync_directory(&directory, tag);
            if let Err(error) = self.root.synced("fsync", &directory, synced) {
                // Where nothing was tried the next sync has it all to do.
                dirty.insert(directory, tag);
                guard(&self.dirty).append(&mut dirty);
                return Err(error);
            }
        }
        Ok(())
    }

    /// True if nothing waits for a sync.
    pub(super) fn is_synced(&self) -> bool {
        let _turn = guard(&self.syncing);
        self.root.trusted().is_ok() && guard(&self.dirty).is_empty()
    }

    /// The open file of a blob, unless the file was removed: by us, behind our back, or with the drive.
    fn kept(&self, name: &BlobName) -> Result<Arc<dyn File>, Since> {
        let file = self.handles.get(name)?;
        if matches!(file.node(), Ok(Node { links: 1.., .. })) {
            return Ok(file);
        }
        self.handles.forget(name);
        self.handles.get(name)
    }

    pub(super) fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize> {
        let file = match self.kept(name) {
            Ok(file) => file,
            Err(since) => {
                let path = layout::blob(name);
                let file: Arc<dyn File> = match self.root.files().open(&path, How::Read) {
                    Err(Errno::NOENT | Errno::NOTDIR) => return Err(self.not_found(name)),
                    result => self.root.done("open", &path, result)?.into(),
                };
                self.handles.keep(name, &file, since);
                file
            }
        };
        self.root.read(&*file, name.as_str(), offset, into)
    }

    pub(super) fn read_now(
        &self,
        name: &BlobName,
        offset: u64,
        into: &mut [u8],
    ) -> Result<Option<usize>> {
        let file = match self.kept(name) {
            Ok(file) => file,
            Err(since) => match self.root.files().open(&layout::blob(name), How::ReadNow) {
                Ok(file) => {
                    let file: Arc<dyn File> = file.into();
                    self.handles.keep(name, &file, since);
                    file
                }
                Err(Errno::NOENT | Errno::NOTDIR) => return Err(self.not_found(name)),
                // Whatever else is wrong, the waiting read will say it.
                Err(_) => return self.root.alive().map(|()| None),
            },
        };
        if !is_offset(offset, into.len()) {
            return Ok(Some(0)); // -1 would mean the file's own position
        }
        let mut filled = 0;
        while filled < into.len() {
            let at = offset + filled as u64;
            match file.read_at_now(&mut into[filled..], at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(filled))
    }

    pub(super) fn stat(&self, name: &BlobName) -> Result<BlobInfo> {
        let path = layout::blob(name);
        match self.root.files().stat(&path) {
            Ok(node) if node.kind == Kind::File => {
                self.root.alive()?;
                Ok(BlobInfo { name: name.clone(), bytes: node.bytes })
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Err(self.not_found(name)),
            Err(errno) => Err(self.root.error("stat", &path, errno)),
        }
    }

    fn not_found(&self, name: &BlobName) -> Error {
        self.root.alive().err().unwrap_or_else(|| checks::not_found(name))
    }

    pub(super) fn list(
        &self,
        folder: Option<&str>,
        after: Option<&BlobName>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        self.root.alive()?;
        let base = layout::folder(folder);
        let mut listing = Listing { blobs: self, folder, base: &base, after, limit };
        let entries = self.root.list(&base)?;
        let mut page = listing.tree(&entries)?;
        if entries.iter().any(layout::is_plain) {
            page.extend(listing.leaves(layout::PLAIN, limit)?);
            page.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            page.truncate(limit);
        }
        Ok(page)
    }
}

/// One page of a listing.
struct Listing<'a> {
    blobs: &'a Blobs,
    folder: Option<&'a str>,
    base: &'a str,
    after: Option<&'a BlobName>,
    limit: usize,
}

impl Listing<'_> {
    /// The blobs of the directories of hex digits: their order is that of the names.
    fn tree(&mut self, entries: &[(String, Kind)]) -> Result<Vec<BlobInfo>> {
        let fans = entries.iter().filter(|entry| layout::is_fan(entry));
        let mut fans = fans.map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        fans.sort_unstable();
        let mut page = Vec::new();
        for fan in fans {
            if page.len() >= self.limit {
                break;
            }
            if !self.is_before(fan) {
                page.extend(self.leaves(fan, self.limit - page.len())?);
            }
        }
        Ok(page)
    }

    /// True if every leaf that begins like this comes before the page.
    fn is_before(&self, prefix: &str) -> bool {
        self.after.is_some_and(|after| {
            let leaf = after.leaf();
            after.folder() == self.folder && prefix < &leaf[..prefix.len().min(leaf.len())]
        })
    }

    /// At most `limit` blobs of one directory.
    fn leaves(&mut self, fan_out: &str, limit: usize) -> Result<Vec<BlobInfo>> {
        let files = self.blobs.root.list(&format!("{}/{fan_out}", self.base))?;
        let names = files.iter().filter(|(_, kind)| *kind == Kind::File);
        let names = names.filter_map(|(file, _)| layout::blob_name(self.folder, fan_out, file));
        let mut names =
            names.filter(|name| self.after.is_none_or(|after| name > after)).collect::<Vec<_>>();
        names.sort_unstable();
        let mut page = Vec::new();
        for name in names {
            if page.len() >= limit {
                break;
            }
            match self.blobs.stat(&name) {
                Ok(info) => page.push(info),
                // Deleted since its directory was read.
                Err(error) if error.is(&codes::BLOB_NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }
}
