//! Content leaves stripes that are to go, whoever refers to them: rows or runs.
//!
//! Each step is one that packing, checkpoints and collection take as well, so that a cut in between leaves
//! the content where it was or where it went: rows are relocated by records, runs leave by a new root, and
//! only what nobody refers to any more is dropped.

use std::collections::BTreeSet;

use dwk_base::{Result, StripeId};

use crate::meta::Meta;
use crate::{checkpoint, keeper, pack};

/// Moves everything out of `stripes` and drops what nobody reads any more. Returns how many are empty then.
pub(crate) fn rewrite(meta: &Meta, stripes: &BTreeSet<StripeId>) -> Result<u64> {
    let _alone = meta.keeper.alone();
    pack::stripes(meta, stripes)?;
    checkpoint::leave(meta, stripes)?;
    keeper::collect_dead(meta)?;
    let state = meta.state();
    let empty = |id: &&StripeId| state.stripe(**id).is_none_or(|kept| kept.live_bytes == 0);
    Ok(stripes.iter().filter(empty).count() as u64)
}
