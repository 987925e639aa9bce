//! Which shards lie on which drives, as the drives list them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Result, StripeId};
use dwk_drive::{BlobInfo, BlobName};

use super::header::{FOLDER, name, parse_name};
use super::write::late;
use crate::roster::Seat;

/// Names asked for at once, and strangers that a drive contributes at a time.
const PAGE: usize = 1024;

/// Files of shards by (seat, stripe, index), with their length.
pub(crate) type Present = BTreeMap<(u16, StripeId, usize), u64>;

/// Walks along the shards of some drives, in the order of stripes.
pub(crate) struct Presence {
    walks: Vec<Walk>,
    /// How long a drive may take for a page of names.
    patience: Duration,
}

struct Walk {
    seat: Arc<Seat>,
    after: Option<BlobName>,
    read: VecDeque<BlobInfo>,
    ended: bool,
    failed: bool,
}

/// Up to where names are taken.
#[derive(Clone, Copy)]
struct Stretch<'a> {
    last: Option<StripeId>,
    /// The stripes of it.
    page: &'a BTreeSet<StripeId>,
}

/// What lies on the drives between two stripes.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Of the stripes that were asked about.
    pub(crate) shards: Present,
    /// Of others. There may be any number of them, so that they come in portions.
    pub(crate) strangers: Present,
    /// Files that are no shards.
    pub(crate) foreign: u64,
    /// Drives that did not say all that lies on them.
    pub(crate) unlisted: BTreeSet<u16>,
}

impl Presence {
    /// Along `seats`, after the stripe `after`.
    pub(crate) fn new(
        seats: Vec<Arc<Seat>>,
        after: Option<StripeId>,
        patience: Duration,
    ) -> Result<Self> {
        let start = after.map(|after| name(after, usize::from(u8::MAX))).transpose()?;
        let walk = |seat| Walk {
            seat,
            after: start.clone(),
            read: VecDeque::new(),
            ended: false,
            failed: false,
        };
        Ok(Self { walks: seats.into_iter().map(walk).collect(), patience })
    }

    /// Adds what lies up to and including the stripe `last` (everything that is left if there is none) to
    /// `found`: all shards of the stripes `page`, and a portion of the strangers. True if there are more.
    pub(crate) fn up_to(
        &mut self,
        last: Option<StripeId>,
        page: &BTreeSet<StripeId>,
        found: &mut Found,
    ) -> bool {
        let (stretch, mut more) = (Stretch { last, page }, false);
        for walk in &mut self.walks {
            match walk.up_to(stretch, self.patience, found) {
                Ok(left) => more |= left,
                Err(_) => walk.failed = true,
            }
            if walk.failed {
                found.unlisted.insert(walk.seat.index);
            }
        }
        more
    }
}

impl Stretch<'_> {
    fn ends_before(&self, info: &BlobInfo, shard: Option<(StripeId, usize)>) -> bool {
        match (self.last, shard) {
            (Some(last), Some((stripe, _))) => stripe > last,
            // By name, as the drive sorts them.
            (Some(last), None) => info.name.leaf() > last.to_string().as_str(),
            (None, _) => false,
        }
    }
}

impl Walk {
    /// True if it stopped before the end of the stretch.
    fn up_to(
        &mut self,
        stretch: Stretch<'_>,
        patience: Duration,
        found: &mut Found,
    ) -> Result<bool> {
        let mut strangers = 0;
        loop {
            if self.read.is_empty() && !self.ended {
                self.fill(patience)?;
            }
            let Some(info) = self.read.front() else { return Ok(false) };
            let shard = parse_name(&info.name);
            if stretch.ends_before(info, shard) {
                return Ok(false);
            }
            match shard {
                Some((stripe, index)) if stretch.page.contains(&stripe) => {
                    found.shards.insert((self.seat.index, stripe, index), info.bytes);
                }
                _ if strangers == PAGE => return Ok(true),
                Some((stripe, index)) => {
                    found.strangers.insert((self.seat.index, stripe, index), info.bytes);
                    strangers += 1;
                }
                None => {
                    found.foreign += 1;
                    strangers += 1;
                }
            }
            self.read.pop_front();
        }
    }

    fn fill(&mut self, patience: Duration) -> Result<()> {
        let Some(drive) = &self.seat.drive else {
            self.ended = true;
            return Ok(());
        };
        let after = self.after.clone();
        let list =
            move |drive: &dyn dwk_drive::Drive| drive.list(Some(FOLDER), after.as_ref(), PAGE);
        // Whatever comes of it: of a drive that fails or is late it is not known what else lies there.
        self.ended = true;
        let page = drive.submit(list).wait_for(patience).unwrap_or_else(|| Err(late()))?;
        self.ended = page.len() < PAGE;
        self.after = page.last().map(|info| info.name.clone()).or(self.after.take());
        self.read.extend(page);
        Ok(())
    }
}
