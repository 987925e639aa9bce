//! Where a scrub is, in a row of the map, so that the next one goes on there after a stop or a kill.

use std::sync::{Arc, Mutex, PoisonError};

use dwk_base::{Result, StripeId};
use dwk_meta::{Change, Meta};

/// The row: no container or object has a key that begins so.
const KEY: &[u8] = b"\x03scrub";

/// The last stripe of which it is kept that everything up to it is done.
pub(crate) struct Bookmark {
    meta: Arc<Meta>,
    kept: Mutex<Option<StripeId>>,
}

impl Bookmark {
    pub(crate) fn new(meta: &Arc<Meta>) -> Self {
        Self { meta: Arc::clone(meta), kept: Mutex::default() }
    }

    /// Where an earlier scrub was; `None` if the last one ended, or if what is kept cannot be read.
    pub(crate) fn read(&self) -> Result<Option<StripeId>> {
        let row = self.meta.get(KEY)?;
        let found = row.and_then(|row| <[u8; 16]>::try_from(&row.body[..]).ok());
        let found = found.map(StripeId::from_bytes);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(found)
    }

    /// Keeps a place, or none any more. It is written once a page of stripes; a place that cannot be kept
    /// only costs the next scrub time.
    pub(crate) fn keep(&self, place: Option<StripeId>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if *kept == place {
            return;
        }
        let change = match place {
            Some(stripe) => Change::new().put(KEY.to_vec(), stripe.as_bytes().to_vec(), None),
            None => Change::new().delete(KEY.to_vec()),
        };
        if self.meta.commit(change).is_ok() {
            *kept = place;
        }
    }
}
