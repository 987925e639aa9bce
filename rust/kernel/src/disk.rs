//! The few calls by which a store's own path is written. Each sync has a tag, so that a test can leave out
//! just this one and see that it was needed.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// Makes the content of `store.json` last, before its name stands for it.
pub(crate) const SYNC_POINTERS: &str = "pointers.file";
/// Makes the name last.
pub(crate) const SYNC_NAME: &str = "pointers.name";
/// Makes the name of a new directory last.
pub(crate) const SYNC_DIRECTORY: &str = "path.parent";

/// What is asked of the file system.
pub(crate) trait Disk {
    fn exists(&self, path: &Path) -> bool;
    /// Makes a file of these bytes, in the place of what is there.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes a file's content durable, or the names in a directory.
    fn sync(&self, path: &Path, tag: &'static str) -> io::Result<()>;
}

/// The one that is there.
pub(crate) struct System;

impl Disk for System {
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // The system would kill a process that does not ignore `SIGXFSZ`.
        let limit = getrlimit(Resource::Fsize).current;
        if limit.is_some_and(|limit| bytes.len() as u64 > limit) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // Whatever lies there is not written to: it may be a link to somebody's file, or a pipe.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::File::create_new(path)?.write_all(bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync(&self, path: &Path, _tag: &'static str) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }
}

/// A file system whose power can be cut: what was not synced may be lost, the content as well as the name.
#[cfg(test)]
pub(crate) mod volatile {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::{Disk, Path, io};

    /// Names, each with the number of its file; `None` for a directory.
    type Names = BTreeMap<PathBuf, Option<usize>>;

    #[derive(Default)]
    pub(crate) struct Volatile {
        /// The files: content now, and content that is durable.
        files: RefCell<Vec<[Vec<u8>; 2]>>,
        now: RefCell<Names>,
        durable: RefCell<Names>,
        omitted: Cell<Option<&'static str>>,
        steps: Cell<usize>,
        cut_after: Cell<usize>,
    }

    impl Volatile {
        pub(crate) fn new() -> Self {
            let disk = Self { cut_after: Cell::new(usize::MAX), ..Self::default() };
            for names in [&disk.now, &disk.durable] {
                names.borrow_mut().insert(PathBuf::from("/"), None);
            }
            disk
        }

        /// Leaves out the syncs of this tag from now on.
        pub(crate) fn omit(&self, tag: &'static str) {
            self.omitted.set(Some(tag));
        }

        /// The power goes after so many steps more.
        pub(crate) fn cut_after(&self, steps: usize) {
            self.cut_after.set(self.steps.get() + steps);
        }

        fn step(&self) -> io::Result<()> {
            self.steps.set(self.steps.get() + 1);
            let on = self.steps.get() <= self.cut_after.get();
            on.then_some(()).ok_or_else(|| io::Error::other("the power is cut"))
        }

        /// What a file holds after a cut, in each way in which what is not durable may go: `None` if it is
        /// not there or no way leads to it.
        pub(crate) fn after_a_cut(&self, path: &Path) -> Vec<Option<Vec<u8>>> {
            let files = self.files.borrow();
            let found = |names: &Names| {
                let reached = path.ancestors().all(|part| names.contains_key(part));
                let file = names.get(path).copied().flatten().filter(|_| reached)?;
                Some(files[file][1].clone())
            };
            // Names may last before they are synced, and before the content that they stand for.
            vec![found(&self.durable.borrow()), found(&self.now.borrow())]
        }
    }

    impl Disk for Volatile {
        fn exists(&self, path: &Path) -> bool {
            self.now.borrow().contains_key(path)
        }

        fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            self.step()?;
            let mut files = self.files.borrow_mut();
            files.push([bytes.to_vec(), Vec::new()]);
            self.now.borrow_mut().insert(path.to_owned(), Some(files.len() - 1));
            Ok(())
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step()?;
            let mut now = self.now.borrow_mut();
            let file = now.remove(from).ok_or(io::ErrorKind::NotFound)?;
            now.insert(to.to_owned(), file);
            Ok(())
        }

        fn make_directory(&self, path: &Path) -> io::Result<()> {
            self.step()?;
            self.now.borrow_mut().insert(path.to_owned(), None);
            Ok(())
        }

        fn sync(&self, path: &Path, tag: &'static str) -> io::Result<()> {
            self.step()?;
            if self.omitted.get() == Some(tag) {
                return Ok(());
            }
            let (now, mut durable) = (self.now.borrow(), self.durable.borrow_mut());
            if let Some(file) = now.get(path).copied().flatten() {
                let [content, lasting] = &mut self.files.borrow_mut()[file];
                lasting.clone_from(content);
            } else {
                let inside = |name: &PathBuf| name.parent() == Some(path);
                durable.retain(|name, _| !inside(name));
                let names = now.iter().filter(|(name, _)| inside(name));
                durable.extend(names.map(|(name, file)| (name.clone(), *file)));
            }
            Ok(())
        }
    }
}
