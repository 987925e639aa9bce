//! Rows of streams that are gone. A deletion takes several commits; what a cut left of it is removed here.

use std::collections::BTreeSet;
use std::ops::Bound;

use dwk_base::{Deadline, Result};
use dwk_meta::{Change, Meta};

use crate::keys::{ROWS_OF_STREAMS, id_of};

/// How many rows one commit removes.
const REMOVE_MAX: usize = 128;

/// Removes the messages of a stream that is gone, due or not.
///
/// # Errors
/// Those of a commit; `context.deadline`
pub(crate) fn remove_rows(meta: &Meta, id: u64, deadline: &Deadline) -> Result<()> {
    for (from, to) in ROWS_OF_STREAMS {
        let (low, high) = (prefix(from, id), id.checked_add(1).map(|next| prefix(from, next)));
        let high = high.unwrap_or_else(|| to.to_vec());
        loop {
            let rows = meta.range(Bound::Included(&low), Bound::Excluded(&high), REMOVE_MAX)?;
            if rows.is_empty() {
                break;
            }
            let delete = |change: Change, (key, _): (Vec<u8>, _)| change.delete(key);
            meta.commit_until(rows.into_iter().fold(Change::new(), delete), deadline)?;
        }
    }
    Ok(())
}

/// Removes the rows of all streams that are not `known`.
///
/// # Errors
/// As [`remove_rows`].
pub(crate) fn sweep(meta: &Meta, known: &BTreeSet<u64>) -> Result<()> {
    for (from, to) in ROWS_OF_STREAMS {
        let mut at = from.to_vec();
        loop {
            let rows = meta.range(Bound::Included(&at), Bound::Excluded(to), 1)?;
            let Some((key, _)) = rows.first() else { break };
            let id = id_of(key)?;
            if !known.contains(&id) {
                remove_rows(meta, id, &Deadline::never())?;
            }
            let Some(next) = id.checked_add(1) else { break };
            at = prefix(from, next);
        }
    }
    Ok(())
}

fn prefix(kind: &[u8], id: u64) -> Vec<u8> {
    [kind, &id.to_be_bytes()].concat()
}
