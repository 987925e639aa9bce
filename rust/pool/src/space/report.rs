//! What a scrub or rebuild found and did.

use dwk_base::StripeId;

/// Names of lost stripes that a report holds; their number is always right.
pub(crate) const NAMED_MAX: usize = 1000;

/// What a scrub found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Stripes that were read whole.
    pub stripes: u64,
    /// Shards that were read and found right.
    pub good_shards: u64,
    /// Shards that were damaged or missing on drives that are here.
    pub damaged_shards: u64,
    /// Shards of drives that are not here: a rebuild restores them.
    pub absent_shards: u64,
    /// Shards of drives that are here and did not answer in time: nothing is known of them.
    pub unread_shards: u64,
    /// Shards that were written anew.
    pub restored_shards: u64,
    /// Damaged shards that could not be written anew.
    pub unrestored_shards: u64,
    /// Stripes that cannot be read any more.
    pub lost_stripes: u64,
    /// Some of them.
    pub lost: Vec<StripeId>,
    /// Stripes whose parity is not that of their data although every check is right.
    pub inconsistent_stripes: u64,
    /// Shards that no stripe names, left by crashes: in quarantine, or too young for it.
    pub orphans: u64,
    /// Orphans that were removed after quarantine.
    pub removed_orphans: u64,
    /// Files among the shards that are none of this pool's. They are left alone.
    pub foreign_files: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Copies of the journal that were written anew.
    pub journal_repairs: u64,
    /// Batches of the journal of which no copy is right any more.
    pub lost_batches: u64,
    /// Copies of batches of the journal that could not be written anew because their drive is full.
    pub unrepaired_batches: u64,
    /// False if it was ended early.
    pub finished: bool,
    /// Everything up to this stripe is done: [`Control::starting_after`](crate::Control::starting_after) goes
    /// on there.
    pub after: Option<StripeId>,
}

impl ScrubReport {
    /// True if everything was looked at (where it went on after another run: the rest) and nothing wrong is left.
    pub const fn is_clean(&self) -> bool {
        self.finished && self.left_nothing()
    }

    /// With what another run did before, part of which this one looked at again: what it found and mended is added,
    /// what was well then is not.
    #[must_use]
    pub const fn and_before(mut self, before: &Self) -> Self {
        self.damaged_shards += before.damaged_shards;
        self.restored_shards += before.restored_shards;
        self.removed_orphans += before.removed_orphans;
        self.journal_repairs += before.journal_repairs;
        self.read_bytes += before.read_bytes;
        self.written_bytes += before.written_bytes;
        self
    }

    /// True if nothing wrong is left in what was looked at.
    pub(crate) const fn left_nothing(&self) -> bool {
        self.unread_shards == 0
            && self.unrestored_shards == 0
            && self.lost_stripes == 0
            && self.inconsistent_stripes == 0
            && self.lost_batches == 0
            && self.unrepaired_batches == 0
    }
}

/// What a rebuild did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Stripes looked at.
    pub stripes: u64,
    /// Shards that were missing, or that reads had found damaged.
    pub missing_shards: u64,
    /// Shards that were written anew.
    pub restored_shards: u64,
    /// Shards that could not be: no drive has room, or too much is lost.
    pub unrestored_shards: u64,
    /// Stripes that cannot be read any more.
    pub lost_stripes: u64,
    /// Some of them.
    pub lost: Vec<StripeId>,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Files that should not be there and were removed (from a drive that was away).
    pub removed_files: u64,
    /// Stripes that were written while too few drives were here, and whose content was written anew.
    pub widened_stripes: u64,
    /// Stripes of that kind that are left: there are still too few drives, or too little room.
    pub weak_stripes: u64,
    /// Drives that did not say, or not in time, what lies on them: of those it is not known what is missing.
    pub unlisted_drives: u64,
    /// False if it was ended early.
    pub finished: bool,
    /// Everything up to this stripe is done: [`Control::starting_after`](crate::Control::starting_after) goes
    /// on there.
    pub after: Option<StripeId>,
}

impl RebuildReport {
    /// True if everything was looked at, nothing is missing any more, and everything is as safe as the
    /// geometry promises.
    pub const fn is_complete(&self) -> bool {
        self.finished
            && self.unrestored_shards == 0
            && self.lost_stripes == 0
            && self.weak_stripes == 0
            && self.unlisted_drives == 0
    }
}
