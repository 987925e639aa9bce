//! Consumers that nobody uses any more.

use std::ops::Bound;
use std::sync::Arc;

use dwk_base::{Deadline, Result, codes};

use super::{Consumer, Registry};
use crate::consumer::ConsumerConfig;
use crate::core::Core;
use crate::keys::{CONSUMER_ROW, rows_of};
use crate::stream::Stream;

impl Registry {
    /// Rings for the next consumer of a stream that nobody uses. What cannot be read is told to who wants it.
    pub(crate) fn watch_over(self: &Arc<Self>, core: &Arc<Core>) {
        let times = self.may_retire(core).unwrap_or_default();
        if let Some(at) = times.iter().map(|consumer| consumer.0.look_at()).min() {
            core.shared.bell.ring_at(core.id, at);
        }
    }

    /// Removes the consumers of a stream that nobody uses.
    ///
    /// # Errors
    /// Those of reading consumers, and of a commit: the consumer goes on then.
    pub(crate) fn retire(self: &Arc<Self>, core: &Arc<Core>) -> Result<()> {
        let stream = Stream(Arc::clone(core));
        for consumer in self.may_retire(core)? {
            if !consumer.0.end_if_inactive() {
                continue;
            }
            match self.delete(&stream, consumer.name(), &Deadline::never()) {
                Err(error) if error.is(&codes::STREAM_CONSUMER_NOT_FOUND) => {}
                Err(error) => {
                    // Without its row only its letters were left to be removed.
                    if self.get(&stream, consumer.name(), &Deadline::never()).is_ok() {
                        consumer.0.go_on();
                    }
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        self.watch_over(core);
        Ok(())
    }

    /// Those that may be removed some time. As long as there is none, none is loaded for it.
    fn may_retire(self: &Arc<Self>, core: &Arc<Core>) -> Result<Vec<Consumer>> {
        let (low, high) = rows_of(CONSUMER_ROW, core.id);
        let (low, high) = (Bound::Included(&*low), Bound::Excluded(&*high));
        let rows = core.shared.meta.range(low, high, usize::MAX)?;
        let may = |config: &ConsumerConfig| config.inactive_after.is_some();
        if !rows.iter().any(|(_, row)| ConsumerConfig::decode(&row.body).is_ok_and(|c| may(&c))) {
            return Ok(Vec::new());
        }
        let mut all = self.all(&Stream(Arc::clone(core)), &Deadline::never())?;
        all.retain(|consumer| may(consumer.config()));
        Ok(all)
    }
}
