//! New drives for a new store: all are looked at before anything is made, and what was made is taken
//! away again if no store comes of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use dwk_base::{Code, Error, Result, codes};
use dwk_drive::{Drive, Holder, LocalDrive};
use rustix::io::Errno;

use crate::disk::{Disk, SYNC_DIRECTORY, System};
use crate::locate::{Find, Locator, Place, text_of};

/// Drives that were made.
pub(crate) struct Made {
    pub(crate) drives: Vec<Arc<dyn Drive>>,
    places: Vec<PathBuf>,
    /// Those that were not there, in the order in which they were made.
    directories: Vec<PathBuf>,
    holder: Holder,
}

impl Made {
    /// Makes drives at `locations`, and the directory `under` which they lie.
    ///
    /// # Errors
    /// `drive.url`, `drive.duplicate`, `drive.not_empty`, `drive.missing`, `drive.read_only`, `drive.full`,
    /// `drive.io`; nothing is left behind
    pub(crate) fn new(locations: &[String], under: Option<&Path>, holder: Holder) -> Result<Self> {
        let places = Locator::places(locations)?;
        check_apart(&places)?;
        places.iter().try_for_each(check_new)?;
        let mut made =
            Self { drives: Vec::new(), places: Vec::new(), directories: Vec::new(), holder };
        match made.fill(&places, under) {
            Ok(()) => Ok(made),
            Err(error) => {
                made.undo();
                Err(error)
            }
        }
    }

    fn fill(&mut self, places: &[Place], under: Option<&Path>) -> Result<()> {
        if let Some(path) = under {
            make_directory(&System, path, &mut self.directories)?;
        }
        for place in places {
            if let Place::Directory(path) = place {
                if path.symlink_metadata().is_err() {
                    self.directories.push(path.clone());
                }
                // What was there before is not taken away: somebody else may be making it a store.
                if unfinished(path)?.is_none() {
                    self.places.push(path.clone());
                }
            }
            self.drives.push(place.drive(Find::Making)?);
        }
        Ok(())
    }

    /// Takes everything away again, as far as it is still as it was made.
    pub(crate) fn undo(&self) {
        for path in &self.places {
            let _ = LocalDrive::unmake(path, &self.holder);
        }
        for directory in self.directories.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Fails if a new drive cannot be made there, and makes nothing. One on which making a pool was cut off will
/// do.
///
/// # Errors
/// `drive.not_empty`, `drive.missing`, `drive.io`
pub(crate) fn check_new(place: &Place) -> Result<()> {
    let Place::Directory(path) = place.real() else { return Ok(()) };
    let drive = path.ancestors().skip(1).find(|above| {
        ["superblock.a", "superblock.b"].iter().any(|slot| above.join(slot).is_file())
    });
    if let Some(drive) = drive {
        let text = format!("{} lies inside the drive {}", text_of(&path), text_of(drive));
        return Err(Error::new(&codes::DRIVE_NOT_EMPTY, text).with("drive", text_of(&path)));
    }
    LocalDrive::check_new(&path).or_else(|error| unfinished(&path)?.map(drop).ok_or(error))
}

/// The drive there, if making a pool on it was cut off.
///
/// # Errors
/// Those of the process.
pub(crate) fn unfinished(path: &Path) -> Result<Option<LocalDrive>> {
    match LocalDrive::open(path) {
        Ok(drive) if dwk_pool::is_unfinished(&drive)? => Ok(Some(drive)),
        Err(error) if error.is_of_process() => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Drives inside one another would be lost together, and be each other's foreign files.
fn check_apart(places: &[Place]) -> Result<()> {
    let mut paths: Vec<_> = places
        .iter()
        .filter_map(|place| match place.real() {
            Place::Directory(path) => Some(path),
            Place::Memory(_) | Place::Foreign(_) => None,
        })
        .collect();
    // What lies inside another one comes after it, with nothing but its like between.
    paths.sort();
    for pair in paths.windows(2) {
        if pair[1].starts_with(&pair[0]) {
            let (inner, outer) = (text_of(&pair[1]), text_of(&pair[0]));
            let text = format!("{inner} lies inside {outer}, which is a drive too");
            return Err(Error::new(&codes::DRIVE_DUPLICATE, text).with("drive", inner));
        }
    }
    Ok(())
}

/// The code for what a file system says.
pub(crate) fn code_of(error: &io::Error) -> &'static Code {
    if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)) {
        return &codes::PROCESS_EXHAUSTED;
    }
    match error.kind() {
        // What is written here is shorter than any file system's longest file.
        io::ErrorKind::FileTooLarge => &codes::PROCESS_FILE_SIZE,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            &codes::DRIVE_READ_ONLY
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => &codes::DRIVE_FULL,
        _ => &codes::DRIVE_IO,
    }
}

/// Makes a directory with its parents, each durable before the next, and notes in `made` what was not
/// there.
pub(crate) fn make_directory(disk: &dyn Disk, path: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let missing: Vec<_> = absolute.ancestors().take_while(|part| !disk.exists(part)).collect();
    for part in missing.into_iter().rev() {
        let created = disk.make_directory(part).map(|()| made.push(part.to_owned()));
        let created = created.or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        });
        let parent = part.parent().unwrap_or(part);
        created.and_then(|()| disk.sync(parent, SYNC_DIRECTORY)).map_err(|error| {
            let text = format!("cannot make the directory {}: {error}", text_of(part));
            Error::new(code_of(&error), text).caused_by(error)
        })?;
    }
    Ok(())
}
