//! `store.json`: where the drives of a store were when it was last open.
//!
//! It is a convenience and never the truth: the drives know what they are. A pointer file that is lost
//! or damaged is made again from the drives; one that points to another pool's drive is found out when
//! the drive is opened.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dwk_base::{DriveId, Error, PoolId, Result, codes};
use dwk_pool::{Roster, Seat};
use serde_json::{Value, json};

use crate::disk::{Disk, SYNC_NAME, SYNC_POINTERS, System};
use crate::locate::text_of;
use crate::making::{code_of, make_directory};

/// The file's name under the store's path.
const FILE: &str = "store.json";
/// The longest that is read: a thousand drives with long names are a tenth of it.
const BYTES_MAX: u64 = 16 << 20;
/// The version of its content.
const VERSION: u64 = 0;

/// What `store.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointers {
    pub(crate) pool: PoolId,
    /// In the order in which status shows them.
    pub(crate) drives: Vec<Pointer>,
}

/// Where one drive was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) id: DriveId,
    pub(crate) location: String,
}

impl Pointers {
    /// Where the seats of `roster` are. A drive that is not here stays where `before` had it: what its
    /// seat remembers may be from before the whole store was moved or copied.
    pub(crate) fn of(pool: PoolId, roster: &Roster, before: Option<&Self>) -> Self {
        let known = |id: DriveId| before.and_then(|before| before.location(id));
        let point = |seat: &Arc<Seat>| {
            let location = if seat.drive.is_some() { None } else { known(seat.id) };
            let location = location.unwrap_or(&seat.location).to_owned();
            Pointer { id: seat.id, location }
        };
        Self { pool, drives: roster.seats.iter().map(point).collect() }
    }

    fn location(&self, id: DriveId) -> Option<&str> {
        let found = self.drives.iter().find(|drive| drive.id == id);
        found.map(|drive| drive.location.as_str())
    }

    /// All locations.
    pub(crate) fn locations(&self) -> Vec<String> {
        self.drives.iter().map(|drive| drive.location.clone()).collect()
    }

    /// Reads `path`/store.json; `None` if it is not there or cannot be understood.
    ///
    /// # Errors
    /// `format.newer`
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = read_text(&path.join(FILE)) else { return Ok(None) };
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        match value["version"].as_u64() {
            Some(VERSION) => Ok(Self::from_value(path, &value)),
            Some(version) => {
                let text = format!("{} is of version {version}", text_of(&path.join(FILE)));
                Err(Error::new(&codes::FORMAT_NEWER, text).with("version", version))
            }
            None => Ok(None),
        }
    }

    fn from_value(path: &Path, value: &Value) -> Option<Self> {
        let pool = value["pool"].as_str()?.parse().ok()?;
        // As drives say where they are: a relative place would grow with each writing.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let pointer = |drive: &Value| {
            let (id, location) = (drive["id"].as_str()?.parse().ok()?, drive["location"].as_str()?);
            let relative = !location.contains("://") && Path::new(location).is_relative();
            let location =
                if relative { text_of(&path.join(location)) } else { location.to_owned() };
            Some(Pointer { id, location })
        };
        let drives = value["drives"].as_array()?.iter().map(pointer).collect::<Option<_>>()?;
        Some(Self { pool, drives })
    }

    fn to_value(&self, path: &Path) -> Value {
        // A drive under the store's path moves with it.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let relative = |location: &String| match Path::new(location).strip_prefix(&absolute) {
            Ok(inside) if !inside.as_os_str().is_empty() => text_of(inside),
            _ => location.clone(),
        };
        let value = |drive: &Pointer| json!({ "id": drive.id.to_string(), "location": relative(&drive.location) });
        let drives: Vec<Value> = self.drives.iter().map(value).collect();
        json!({ "version": VERSION, "pool": self.pool.to_string(), "drives": drives })
    }

    /// Writes `path`/store.json: a reader sees the old content or the new, also after a power cut.
    ///
    /// # Errors
    /// `drive.full`, `drive.read_only`, `drive.io`, `process.exhausted`, `process.file_size`
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = format!("{:#}\n", self.to_value(path));
        if read_text(&path.join(FILE)).is_some_and(|there| there == text) {
            return Ok(());
        }
        make_directory(&System, path, &mut Vec::new())?;
        replace(&System, path, text.as_bytes()).map_err(|error| {
            let text = format!("cannot write {}: {error}", text_of(&path.join(FILE)));
            Error::new(code_of(&error), text).caused_by(error)
        })
    }
}

/// What a file holds; `None` unless it is a plain one: a pipe would be waited for.
fn read_text(path: &Path) -> Option<String> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (target, temporary) = (path.join(FILE), path.join(format!(".{FILE}.new")));
    disk.write(&temporary, bytes)?;
    disk.sync(&temporary, SYNC_POINTERS)?;
    disk.rename(&temporary, &target)?;
    disk.sync(path, SYNC_NAME)
}

/// Directories under `path` that are called as drives that a number asked for, in their order.
pub(crate) fn numbered(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let number: u32 = name.to_str()?.strip_prefix('d')?.parse().ok()?;
        Some((number, entry.path()))
    };
    let mut found: Vec<_> = entries.filter_map(number).filter(|(_, at)| at.is_dir()).collect();
    found.sort();
    found.into_iter().map(|(_, at)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SYNC_DIRECTORY;
    use crate::disk::volatile::Volatile;

    #[test]
    fn pointers_are_read_as_written_and_move_with_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        let at = |path: &Path| Pointers {
            pool: PoolId::from_u128(7),
            drives: [text_of(&path.join("d1")), "/mnt/x".into(), "memory://m".into()]
                .into_iter()
                .enumerate()
                .map(|(n, location)| Pointer { id: DriveId::from_u128(n as u128), location })
                .collect(),
        };
        at(&old).write(&old).unwrap();
        assert_eq!(Pointers::read(&old).unwrap(), Some(at(&old)));
        fs::rename(&old, &new).unwrap();
        assert_eq!(Pointers::read(&new).unwrap(), Some(at(&new)));
    }

    #[test]
    fn pointers_of_a_relative_path_are_absolute_and_do_not_grow() {
        let drive = Pointer {
            id: DriveId::from_u128(1),
            location: text_of(&std::path::absolute("rel/d1").unwrap()),
        };
        let pointers = Pointers { pool: PoolId::from_u128(7), drives: vec![drive] };
        let value = pointers.to_value(Path::new("rel"));
        assert_eq!(value["drives"][0]["location"], "d1");
        assert_eq!(Pointers::from_value(Path::new("rel"), &value), Some(pointers));
    }

    #[test]
    fn what_cannot_be_understood_is_as_if_it_were_not_there() {
        let directory = tempfile::tempdir().unwrap();
        for text in
            ["", "{", "[]", "{\"version\":0}", "{\"version\":0,\"pool\":\"x\",\"drives\":[]}"]
        {
            fs::write(directory.path().join(FILE), text).unwrap();
            assert_eq!(Pointers::read(directory.path()).unwrap(), None, "{text}");
        }
        fs::write(directory.path().join(FILE), "{\"version\":9}").unwrap();
        assert!(
            Pointers::read(directory.path()).is_err_and(|error| error.is(&codes::FORMAT_NEWER))
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_or_a_link_in_their_place_is_not_waited_for_nor_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let other = path.join("other");
        fs::write(&other, "years of work").unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        for (number, name) in [FILE.to_owned(), format!(".{FILE}.new")].into_iter().enumerate() {
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path.join(&name), fifo, mode, 0).unwrap();
            assert_eq!(Pointers::read(path).unwrap().is_none(), name == FILE);
            let pool = PoolId::from_u128(number as u128);
            let pointers = Pointers { pool, drives: Vec::new() };
            pointers.write(path).unwrap();
            assert_eq!(Pointers::read(path).unwrap(), Some(pointers));
        }
        std::os::unix::fs::symlink(&other, path.join(format!(".{FILE}.new"))).unwrap();
        let pointers = Pointers { pool: PoolId::from_u128(8), drives: Vec::new() };
        pointers.write(path).unwrap();
        assert_eq!(Pointers::read(path).unwrap(), Some(pointers));
        assert_eq!(fs::read(&other).unwrap(), b"years of work");
    }

    /// Writes pointers twice, under a path that is not there before, with a cut after so many steps of the
    /// second time and without one sync; the first promise that is broken.
    fn written_and_cut(steps: usize, omitted: Option<&'static str>) -> Result<bool, String> {
        let (disk, path) = (Volatile::new(), Path::new("/a/b"));
        if let Some(tag) = omitted {
            disk.omit(tag);
        }
        make_directory(&disk, path, &mut Vec::new()).unwrap();
        replace(&disk, path, b"old").unwrap();
        let may_be = |allowed: &[&[u8]]| {
            let found = disk.after_a_cut(&path.join(FILE));
            let wrong = found.iter().find(|one| {
                one.as_ref().is_none_or(|content| !allowed.contains(&content.as_slice()))
            });
            wrong.map_or(Ok(()), |wrong| Err(format!("{wrong:?} after {steps} steps")))
        };
        may_be(&[b"old"])?;
        disk.cut_after(steps);
        let done = replace(&disk, path, b"new").is_ok();
        may_be(if done { &[b"new"] } else { &[b"old", b"new"] })?;
        Ok(done)
    }

    #[test]
    fn pointers_survive_a_cut_at_every_step_and_miss_each_sync() {
        let finished = (0..10).map(|steps| written_and_cut(steps, None).unwrap());
        assert!(finished.filter(|done| *done).count() > 1);
        for tag in [SYNC_POINTERS, SYNC_NAME, SYNC_DIRECTORY] {
            let missed = (0..10).any(|steps| written_and_cut(steps, Some(tag)).is_err());
            assert!(missed, "nobody misses {tag}");
        }
    }
}
