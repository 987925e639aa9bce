//! Drives that are not built in: who opens them, by the scheme of their URLs. One list for the process, because a
//! store's drives are opened before the store is.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use dwk_base::{Error, Result, codes};
use dwk_drive::Drive;

/// Schemes that are built in.
const BUILT_IN: [&str; 2] = ["file", "memory"];

/// Opens drives.
pub trait DriveSource: Send + Sync {
    /// The drive at a URL of its scheme; with `make` it may be new.
    ///
    /// # Errors
    /// `drive.missing`, `drive.url`, `drive.io`, …
    fn open(&self, location: &str, make: bool) -> Result<Arc<dyn Drive>>;
}

static SOURCES: RwLock<BTreeMap<String, Arc<dyn DriveSource>>> = RwLock::new(BTreeMap::new());

/// From now on `source` opens drives with URLs of `scheme`, in place of who did before. Drives that are open stay
/// what they are.
///
/// # Errors
/// `drive.url` if it is no scheme (RFC 3986, in lower case), or built in
pub fn register_drives(scheme: &str, source: Arc<dyn DriveSource>) -> Result<()> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.');
    let begins = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !begins || !scheme.bytes().all(plain) || BUILT_IN.contains(&scheme) {
        let text = format!("{scheme:?} is no scheme of URLs that can be given away");
        return Err(Error::new(&codes::DRIVE_URL, text));
    }
    SOURCES.write().unwrap_or_else(PoisonError::into_inner).insert(scheme.to_owned(), source);
    Ok(())
}

/// Nobody opens drives of `scheme` any more; true if somebody did.
pub fn unregister_drives(scheme: &str) -> bool {
    SOURCES.write().unwrap_or_else(PoisonError::into_inner).remove(scheme).is_some()
}

/// Who opens drives of `scheme`.
pub(crate) fn source_of(scheme: &str) -> Option<Arc<dyn DriveSource>> {
    SOURCES.read().unwrap_or_else(PoisonError::into_inner).get(scheme).map(Arc::clone)
}
