//! Which shards lie on which drives, as the drives list them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use dwk_base::{Result, StripeId};
use dwk_drive::{BlobInfo, BlobName};

use super::header::{FOLDER, name, parse_name};
use crate::roster::Seat;

/// Names asked for at once.
const PAGE: usize = 1024;

/// Files of shards by (seat, stripe, index), with their length.
pub(crate) type Present = BTreeMap<(u16, StripeId, usize), u64>;

/// Walks along the shards of some drives, in the order of stripes.
pub(crate) struct Presence {
    walks: Vec<Walk>,
}

struct Walk {
    seat: Arc<Seat>,
    after: Option<BlobName>,
    read: VecDeque<BlobInfo>,
    ended: bool,
    failed: bool,
}

/// What lies on the drives between two stripes.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) shards: Present,
    /// Files that are no shards.
    pub(crate) foreign: u64,
    /// Drives that did not say all that lies on them.
    pub(crate) unlisted: BTreeSet<u16>,
}

impl Presence {
    /// Along `seats`, after the stripe `after`.
    pub(crate) fn new(seats: Vec<Arc<Seat>>, after: Option<StripeId>) -> Result<Self> {
        let start = after.map(|after| name(after, usize::from(u8::MAX))).transpose()?;
        let walk = |seat| Walk {
            seat,
            after: start.clone(),
            read: VecDeque::new(),
            ended: false,
            failed: false,
        };
        Ok(Self { walks: seats.into_iter().map(walk).collect() })
    }

    /// Everything up to and including the stripe `last`, or a page of all that is left.
    pub(crate) fn up_to(&mut self, last: Option<StripeId>) -> Found {
        let mut found = Found::default();
        for walk in &mut self.walks {
            if walk.up_to(last, &mut found).is_err() || walk.failed {
                walk.failed = true;
                found.unlisted.insert(walk.seat.index);
            }
        }
        found
    }
}

impl Walk {
    fn up_to(&mut self, last: Option<StripeId>, found: &mut Found) -> Result<()> {
        let mut taken = 0;
        loop {
            if self.read.is_empty() && !self.ended {
                self.fill()?;
            }
            let Some(info) = self.read.front() else { return Ok(()) };
            let shard = parse_name(&info.name);
            let beyond = match (last, shard) {
                (Some(last), Some((stripe, _))) => stripe > last,
                // By name, as the drive sorts them.
                (Some(last), None) => info.name.leaf() > last.to_string().as_str(),
                (None, _) => taken >= PAGE,
            };
            if beyond {
                return Ok(());
            }
            match shard {
                Some((stripe, index)) => {
                    found.shards.insert((self.seat.index, stripe, index), info.bytes);
                }
                None => found.foreign += 1,
            }
            taken += 1;
            self.read.pop_front();
        }
    }

    fn fill(&mut self) -> Result<()> {
        let Some(drive) = &self.seat.drive else {
            self.ended = true;
            return Ok(());
        };
        let after = self.after.clone();
        let list =
            move |drive: &dyn dwk_drive::Drive| drive.list(Some(FOLDER), after.as_ref(), PAGE);
        let page = drive.submit(list).wait().inspect_err(|_| self.ended = true)?;
        self.ended = page.len() < PAGE;
        self.after = page.last().map(|info| info.name.clone()).or(self.after.take());
        self.read.extend(page);
        Ok(())
    }
}
