//! From what people write (`6`, `"/mnt/a"`, `"file:///mnt/a"`, `"memory://a"`) to drives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dwk_base::{Error, Result, codes};
use dwk_drive::{Drive, LocalDrive, MemoryDrive};

use crate::foreign::source_of;
use crate::making::{check_new, unfinished};

/// The most drives that a number may ask for.
const COUNT_MAX: usize = 1000;

/// Which drives a store is made of, as people say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drives {
    /// As many directories under the store's path: `d1`, `d2`, …
    Count(usize),
    /// Each a path or a URL (`file://`, `memory://`, or of a scheme that was [registered](crate::register_drives)).
    At(Vec<String>),
}

/// Finds drives relative to a store's path.
#[derive(Clone, Debug)]
pub(crate) struct Locator {
    path: Option<PathBuf>,
}

/// How a drive is meant to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Find {
    /// It has to be there.
    Existing,
    /// Its directory may be made.
    Making,
}

/// One place of a drive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Directory(PathBuf),
    Memory(String),
    /// A URL that somebody else opens.
    Foreign(String),
}

impl Locator {
    /// Relative to `path`.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// The locations that `drives` means.
    ///
    /// # Errors
    /// `store.option`
    pub(crate) fn locations(&self, drives: &Drives) -> Result<Vec<String>> {
        match drives {
            Drives::At(locations) if locations.is_empty() => {
                Err(Error::new(&codes::STORE_OPTION, "drives= is an empty list"))
            }
            Drives::At(locations) => Ok(locations.clone()),
            Drives::Count(0) => Err(Error::new(&codes::STORE_OPTION, "drives=0 is no store")),
            Drives::Count(count) if *count > COUNT_MAX => {
                let text = format!("drives={count} is more than {COUNT_MAX}");
                Err(Error::new(&codes::STORE_OPTION, text))
            }
            Drives::Count(count) => {
                let path = self.path.as_ref().ok_or_else(|| {
                    let text = "a number of drives needs a path to make them under";
                    Error::new(&codes::STORE_OPTION, text)
                })?;
                Ok((1..=*count).map(|n| text_of(&path.join(format!("d{n}")))).collect())
            }
        }
    }

    /// The drives at `locations`, in that order; one that is not there is its error.
    ///
    /// # Errors
    /// `drive.url`, `drive.duplicate`
    pub(crate) fn drives(locations: &[String]) -> Result<Vec<Result<Arc<dyn Drive>>>> {
        let places = Self::places(locations)?;
        Ok(places.iter().map(|place| place.drive(Find::Existing)).collect())
    }

    /// The places that `locations` mean, in that order, each once.
    ///
    /// # Errors
    /// `drive.url`, `drive.duplicate`
    pub(crate) fn places(locations: &[String]) -> Result<Vec<Place>> {
        let mut seen = BTreeMap::new();
        let mut places = Vec::new();
        for location in locations {
            let place = place(location)?;
            if let Some(first) = seen.insert(place.real(), location) {
                let text = format!("{location} and {first} are one drive");
                return Err(Error::new(&codes::DRIVE_DUPLICATE, text).with("drive", location));
            }
            places.push(place);
        }
        Ok(places)
    }

    /// A new drive in a place that is free.
    ///
    /// # Errors
    /// `drive.url`, `drive.not_empty`, `drive.missing`, `drive.io`, …
    pub(crate) fn new_drive(location: &str) -> Result<Arc<dyn Drive>> {
        let place = place(location)?;
        check_new(&place)?;
        place.drive(Find::Making)
    }

    /// True if both mean one drive.
    ///
    /// # Errors
    /// `drive.url`
    pub(crate) fn same(one: &str, other: &str) -> Result<bool> {
        Ok(place(one)?.real() == place(other)?.real())
    }
}

fn place(location: &str) -> Result<Place> {
    let bad = |why: &str| {
        let text = format!("not a drive: {location:?}: {why}");
        Error::new(&codes::DRIVE_URL, text).with("drive", location)
    };
    let path = match location.split_once("://") {
        Some(("memory", "")) => return Err(bad("a drive in memory needs a name")),
        Some(("memory", name)) => return Ok(Place::Memory(name.to_owned())),
        Some(("file", path)) if path.starts_with('/') => {
            unescaped(path).ok_or_else(|| bad("bad % escape"))?
        }
        Some(("file", _)) => return Err(bad("write file:///absolute/path")),
        Some((scheme, _)) if source_of(scheme).is_some() => {
            return Ok(Place::Foreign(location.to_owned()));
        }
        Some((scheme, _)) => {
            return Err(bad(&format!(
                "{scheme}:// drives are not built in, and no plugin opens them"
            )));
        }
        None if location.is_empty() => return Err(bad("it is empty")),
        None => location.to_owned(),
    };
    if path.contains('\0') {
        return Err(bad("it holds a NUL"));
    }
    Ok(Place::Directory(PathBuf::from(path)))
}

impl Place {
    /// The same for every spelling of one place.
    pub(crate) fn real(&self) -> Self {
        match self {
            Self::Directory(path) => Self::Directory(real(path)),
            other => other.clone(),
        }
    }

    pub(crate) fn drive(&self, find: Find) -> Result<Arc<dyn Drive>> {
        match self {
            Self::Memory(name) => memory(name, find),
            Self::Foreign(location) => foreign(location, find),
            Self::Directory(path) => local(path, find),
        }
    }
}

/// Without links, as far as the path is there.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = absolute.ancestors().find_map(|part| {
        let rest = absolute.strip_prefix(part).ok()?;
        part.canonicalize().ok().map(|real| real.join(rest))
    });
    // Joined with nothing a path gets a slash at its end; components have none.
    there.unwrap_or(absolute).components().collect()
}

fn local(path: &Path, find: Find) -> Result<Arc<dyn Drive>> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let drive = match find {
        Find::Existing => LocalDrive::open(&path)?,
        Find::Making => {
            LocalDrive::create(&path).or_else(|error| unfinished(&path)?.ok_or(error))?
        }
    };
    Ok(Arc::new(drive))
}

/// Drives in memory, by name. They live as long as the process, so that a store on them can be opened again.
static DRIVES: Mutex<BTreeMap<String, MemoryDrive>> = Mutex::new(BTreeMap::new());

/// Lets go of all drives in memory, with what is on them; one that is in use ends with its use. Returns how many
/// they were.
pub fn forget_memory_drives() -> usize {
    std::mem::take(&mut *DRIVES.lock().unwrap_or_else(PoisonError::into_inner)).len()
}

fn memory(name: &str, find: Find) -> Result<Arc<dyn Drive>> {
    let mut drives = DRIVES.lock().unwrap_or_else(PoisonError::into_inner);
    let location = format!("memory://{name}");
    if find == Find::Existing && !drives.contains_key(name) {
        let text = format!("no drive {location} in this process");
        return Err(Error::new(&codes::DRIVE_MISSING, text).with("drive", location));
    }
    let drive = drives.entry(name.to_owned()).or_insert_with(|| MemoryDrive::new(name));
    Ok(Arc::new(drive.clone()))
}

fn foreign(location: &str, find: Find) -> Result<Arc<dyn Drive>> {
    let scheme = location.split_once("://").map_or("", |(scheme, _)| scheme);
    let source = source_of(scheme).ok_or_else(|| {
        let text = format!("nobody opens {scheme}:// drives any more");
        Error::new(&codes::DRIVE_MISSING, text).with("drive", location)
    })?;
    source.open(location, find == Find::Making)
}

/// A store's path as it is kept: absolute, so that it stays the same place wherever the process goes.
///
/// # Errors
/// `store.option` for what can be no directory whose name can be written down
pub(crate) fn store_path(path: &Path) -> Result<PathBuf> {
    let bad = |why: &str| {
        let text = format!("{:?} is no path of a store: {why}", text_of(path));
        Error::new(&codes::STORE_OPTION, text).with("path", text_of(path))
    };
    match path.to_str() {
        None => return Err(bad("it is not UTF-8")),
        Some("") => return Err(bad("it is empty")),
        Some(text) if text.contains('\0') => return Err(bad("it holds a NUL")),
        Some(text) if text.contains("://") => return Err(bad("name URLs in drives=")),
        Some(_) => {}
    }
    let absolute = std::path::absolute(path).map_err(|error| bad(&error.to_string()))?;
    if absolute.to_str().is_none() {
        return Err(bad("the directory that it is relative to is not UTF-8"));
    }
    // The nearest thing that is there: a directory, or nothing can be made under it.
    let there = absolute.ancestors().find(|part| part.symlink_metadata().is_ok());
    match there {
        Some(part) if !part.is_dir() => Err(bad(&format!("{} is no directory", text_of(part)))),
        _ => Ok(absolute),
    }
}

pub(crate) fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn unescaped(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_paths_and_urls() {
        let locator = Locator::new(Some(PathBuf::from("/s")));
        assert_eq!(place("a/b").ok(), Some(Place::Directory("a/b".into())));
        assert_eq!(place("file:///a%20b").ok(), Some(Place::Directory("/a b".into())));
        assert_eq!(place("memory://x").ok(), Some(Place::Memory("x".into())));
        for text in
            ["", "memory://", "file://host/a", "s3://bucket", "file:///%zz", "file:///%+1", "a\0"]
        {
            assert!(place(text).is_err_and(|error| error.is(&codes::DRIVE_URL)), "{text:?}");
        }
        assert_eq!(
            locator.locations(&Drives::Count(2)).ok(),
            Some(vec!["/s/d1".into(), "/s/d2".into()])
        );
        for drives in [Drives::Count(0), Drives::Count(COUNT_MAX + 1), Drives::At(vec![])] {
            assert!(locator.locations(&drives).is_err_and(|error| error.is(&codes::STORE_OPTION)));
        }
    }

    #[test]
    fn one_drive_under_two_spellings_is_refused() {
        for (a, b) in
            [("memory://twin", "memory://twin"), ("/tmp/.", "/tmp"), ("/tmp", "file:///tmp")]
        {
            let twice = Locator::drives(&[a.into(), b.into()]);
            assert!(twice.is_err_and(|error| error.is(&codes::DRIVE_DUPLICATE)), "{a} {b}");
        }
    }
}
