//! Damage that was met and not mended is kept in the journal, so that it is known after the next opening too.
//!
//! What a space has noted is kept as a whole: a record replaces what earlier ones said. One is written when the
//! first damage is met and each time that it has doubled, after repairs, with each checkpoint (which lets go of
//! earlier records) and at the end. One that is lost with the power costs a hint, and one that is too old names
//! what is well by now: whoever repairs looks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use dwk_base::Result;

use crate::meta::Meta;
use crate::record::{Operation, RecordWriter};

/// Held by whoever keeps damage: an older look must not come after a newer one.
#[derive(Debug, Default)]
pub(crate) struct Keeping(Mutex<()>);

impl Keeping {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meta {
    /// Keeps what is known now, if that is something else than what is kept.
    ///
    /// # Errors
    /// Those of a commit.
    pub(crate) fn note_damage(&self) -> Result<()> {
        self.keep_damage_if(false)
    }

    /// Keeps what is known now in a record of its own, which no checkpoint holds that was begun before.
    ///
    /// # Errors
    /// Those of a commit.
    pub(crate) fn note_damage_again(&self) -> Result<()> {
        self.keep_damage_if(true)
    }

    fn keep_damage_if(&self, again: bool) -> Result<()> {
        let _alone = self.keeping.lock();
        let damage = self.pool().space().damage(self)?;
        let is_kept = *self.state().damage() == damage;
        if is_kept && (damage.is_empty() || !again) {
            return Ok(());
        }
        let mut record = RecordWriter::new();
        record.push(&Operation::Damage(damage));
        self.commit_record(record).map(drop)
    }

    /// Tells the space what is kept, and has it say when there is much more.
    ///
    /// # Errors
    /// None in this version: the map is in memory.
    pub(crate) fn recall_damage(&self) -> Result<()> {
        let space = self.pool().space();
        let kept = self.state().damage().clone();
        space.recall(self, &kept)?;
        if self.check_writable().is_ok() {
            let me = self.downgrade();
            space.on_damage(move || {
                if let Some(meta) = me.upgrade() {
                    meta.keeper.wake_for_notes(&meta);
                }
            });
        }
        Ok(())
    }
}
