//! What can be set while the store is open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dwk_base::{Error, Result, codes};

/// Operations a second at most, where there is a limit: beyond, it is none.
const RATE_MAX: f64 = 1e9;

/// What can be set while the store is open. By default nothing is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Settings {
    /// Operations that are under way at once, 1 and more.
    pub operations: Option<u32>,
    /// Operations a second, above 0.
    pub rate: Option<f64>,
    /// How many operations may come at once before `rate` holds them back, 1 and more; by default what comes
    /// within a second.
    pub burst: Option<u32>,
    /// The longest object, in bytes.
    pub object_bytes_max: Option<u64>,
}

impl Settings {
    /// Fails if something is out of its range.
    ///
    /// # Errors
    /// `config.value` (detail `field`)
    pub fn check(&self) -> Result<()> {
        let wrong = |field: &str, text: &str| {
            Err(Error::new(&codes::CONFIG_VALUE, format!("{field}: {text}")).with("field", field))
        };
        if self.operations == Some(0) {
            return wrong("limits.operations", "0 would let nothing in: 1 or more, or no limit");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= RATE_MAX)) {
            return wrong("limits.rate", "above 0 and up to 1e9 operations a second, or no limit");
        }
        if self.burst == Some(0) {
            return wrong("limits.burst", "1 or more");
        }
        Ok(())
    }

    /// How many operations may come at once.
    pub(crate) fn burst(&self) -> f64 {
        let of_rate = self.rate.map_or(1.0, |rate| rate.ceil().max(1.0));
        self.burst.map_or(of_rate, f64::from)
    }
}

/// Settings at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Counts changes; 0 is what a store is opened with.
    pub version: u64,
    /// What is set.
    pub settings: Settings,
}

/// The settings that count now.
#[derive(Debug, Default)]
pub struct Live {
    current: RwLock<Arc<Snapshot>>,
    ended: AtomicBool,
}

impl Live {
    /// What counts now.
    pub fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// True if a newer one than `snapshot` counts.
    ///
    /// # Errors
    /// `store.closed`: there will be none, and nobody is to wait
    pub(crate) fn is_past(&self, snapshot: &Snapshot) -> Result<bool> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Error::new(&codes::STORE_CLOSED, "the store is closed"));
        }
        Ok(self.now().version != snapshot.version)
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// From now on `settings` count; returns their version.
    ///
    /// # Errors
    /// As [`Settings::check`]; nothing changed then.
    pub fn set(&self, settings: Settings) -> Result<u64> {
        settings.check()?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let version = current.version + 1;
        *current = Arc::new(Snapshot { version, settings });
        Ok(version)
    }
}
