//! Sizes and thresholds that all streams of a store share.

/// Sizes and thresholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// About how many bytes of messages are committed together. One message may be longer.
    pub batch_bytes_max: usize,
    /// What is committed together rides in the journal up to so many bytes, and is written into stripes above.
    /// At most half of a record of the journal.
    pub inline_bytes_max: usize,
    /// What was committed is merged when it adds up to so many bytes of messages; at most
    /// 64 MiB.
    pub merge_bytes: u64,
    /// Or when it adds up to so many frames; one merge takes no more of them.
    pub merge_frames: u64,
    /// How many messages of a stream may wait to be due: some 300 bytes of memory each.
    pub delayed_max: u64,
    /// How many keys are remembered at a time while older messages of the same key are looked for: some 100
    /// bytes of memory each.
    pub keys_max: usize,
    /// A thread looks after all streams. Without it that is for [`upkeep`](crate::Streams::upkeep).
    pub background: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch_bytes_max: 1 << 20,
            inline_bytes_max: 2 << 20,
            merge_bytes: 4 << 20,
            merge_frames: 4096,
            delayed_max: 1_000_000,
            keys_max: 1 << 18,
            background: true,
        }
    }
}
