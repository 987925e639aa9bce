//! What lies in a drive's directory and is none of the drive's.

use dwk_base::Result;

use super::files::Kind;
use super::layout;
use super::root::Root;
use crate::Slot;

/// Up to `limit` paths, relative to the drive's directory, that are no part of the drive.
pub(super) fn unknown(root: &Root, limit: usize) -> Result<Vec<String>> {
    root.alive()?;
    let mut search = Search { root, limit, found: Vec::new() };
    search.top()?;
    Ok(search.found)
}

/// What else may lie at the top: our own files, and what a file system puts into its root.
fn is_ours(name: &str, kind: Kind) -> bool {
    match kind {
        Kind::File => name == layout::LOCK || Slot::BOTH.map(layout::slot).contains(&name),
        Kind::Directory => name == layout::TEMPORARY || name == "lost+found",
        Kind::Other => false,
    }
}

struct Search<'a> {
    root: &'a Root,
    limit: usize,
    found: Vec<String>,
}

impl Search<'_> {
    fn note(&mut self, directory: &str, name: &str) {
        if self.found.len() < self.limit {
            let slash = if directory.is_empty() { "" } else { "/" };
            self.found.push(format!("{directory}{slash}{name}"));
        }
    }

    /// The entries of a directory, in order; none once enough was found.
    fn entries(&self, directory: &str) -> Result<Vec<(String, Kind)>> {
        if self.found.len() >= self.limit {
            return Ok(Vec::new());
        }
        let mut entries = self.root.list(directory)?;
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    fn top(&mut self) -> Result<()> {
        for (name, kind) in self.entries("")? {
            match (name.as_str(), kind) {
                (layout::BLOBS, Kind::Directory) => self.blobs()?,
                (layout::LOGS, Kind::Directory) => self.logs()?,
                _ if is_ours(&name, kind) => {}
                _ => self.note("", &name),
            }
        }
        Ok(())
    }

    fn logs(&mut self) -> Result<()> {
        for (name, kind) in self.entries(layout::LOGS)? {
            if kind != Kind::File || layout::log_name(&name).is_none() {
                self.note(layout::LOGS, &name);
            }
        }
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        for (name, kind) in self.entries(layout::BLOBS)? {
            if kind != Kind::Directory || !layout::is_folder(&name) {
                self.note(layout::BLOBS, &name);
            } else if name == layout::PLAIN {
                self.folder(None)?;
            } else {
                self.folder(Some(&name))?;
            }
        }
        Ok(())
    }

    fn folder(&mut self, folder: Option<&str>) -> Result<()> {
        let base = layout::folder(folder);
        for entry in self.entries(&base)? {
            if layout::is_plain(&entry) || layout::is_fan(&entry) {
                self.leaves(folder, &base, &entry.0)?;
            } else {
                self.note(&base, &entry.0);
            }
        }
        Ok(())
    }

    fn leaves(&mut self, folder: Option<&str>, base: &str, fan_out: &str) -> Result<()> {
        let directory = format!("{base}/{fan_out}");
        for (name, kind) in self.entries(&directory)? {
            if kind != Kind::File || layout::blob_name(folder, fan_out, &name).is_none() {
                self.note(&directory, &name);
            }
        }
        Ok(())
    }
}
