//! The levels by name: what each one is, drawn from its published layout.

use super::{Arrangement, Layout, Placement, Policy, Rotation, Spare, Unit, Width};

/// How a level's figures are written, and which code they give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figures {
    /// `N` drives without redundancy; a stripe is as wide, or one drive if `Separate` or `Concat`.
    None,
    /// `N` equal drives.
    Copies,
    /// `N` drives, two copies of each chunk, arranged.
    TwoCopies,
    /// One drive, two copies on it.
    Dup,
    /// `N` drives, bits, Hamming's checks.
    Hamming,
    /// `N` drives, this many of them parity.
    Parity(usize),
    /// `K+M`.
    Any,
    /// `K+L+G`.
    Local,
    /// `COUNTx(inner)` of the level with this name, and whether the legs are copies of each other.
    Tree { inner: &'static str, copies: bool },
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Level {
    /// The canonical name.
    pub(super) name: &'static str,
    pub(super) aliases: &'static [&'static str],
    pub(super) figures: Figures,
    pub(super) layout: Layout,
    pub(super) placement: Placement,
    pub(super) spare: Spare,
    pub(super) policy: Policy,
    /// The smallest one: what the bare name means.
    pub(super) smallest: &'static str,
    /// Why it cannot be stored yet.
    pub(super) missing: Option<&'static str>,
}

const CHUNKS: Layout = Layout {
    unit: Unit::Chunk,
    rotation: Rotation::Rotating,
    arrangement: Arrangement::Near,
    width: Width::Fixed,
};
const FIXED: Layout = Layout { rotation: Rotation::Fixed, ..CHUNKS };
const BYTES: Layout = Layout { unit: Unit::Byte, ..FIXED };
const BITS: Layout = Layout { unit: Unit::Bit, ..FIXED };
const VARIABLE: Layout = Layout { width: Width::Variable, ..CHUNKS };
const OFFSET: Layout = Layout { arrangement: Arrangement::Offset, ..CHUNKS };

const fn level(
    name: &'static str,
    aliases: &'static [&'static str],
    figures: Figures,
    smallest: &'static str,
) -> Level {
    Level {
        name,
        aliases,
        figures,
        layout: CHUNKS,
        placement: Placement::RoundRobin,
        spare: Spare::None,
        policy: Policy::None,
        smallest,
        missing: None,
    }
}

impl Level {
    const fn laid(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    const fn placed(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    const fn spare(mut self, spare: Spare) -> Self {
        self.spare = spare;
        self
    }

    const fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    const fn missing(mut self, why: &'static str) -> Self {
        self.missing = Some(why);
        self
    }

    const fn pooled(self) -> Self {
        self.laid(VARIABLE).placed(Placement::Permuted).spare(Spare::Reserved)
    }
}

const fn tree(inner: &'static str) -> Figures {
    Figures::Tree { inner, copies: false }
}

use Figures::{Any, Copies, Dup, Hamming, Local, Parity, TwoCopies};

/// Every level. Names and aliases are lower case, without hyphens, spaces and underscores.
pub(super) static LEVELS: &[Level] = &[
    level("rs", &["n+m", "reedsolomon", "ec", "erasure"], Any, "2+1").pooled(),
    level("lrc", &[], Local, "4+2+1").pooled(),
    level("jbod", &[], Figures::None, "1").placed(Placement::Separate).laid(FIXED),
    level("linear", &["span", "big", "concat", "spanned"], Figures::None, "1")
        .placed(Placement::Concat)
        .laid(FIXED),
    level("raid0", &["stripe", "striped", "none"], Figures::None, "1"),
    level("mirror", &["raid1", "copies"], Copies, "2").laid(FIXED),
    level("dup", &[], Dup, "1")
        .laid(FIXED)
        .missing("two shards of one stripe on one drive are not stored yet: choose mirror:2"),
    level("raid2", &["hamming"], Hamming, "4").laid(BITS),
    level("raid3", &[], Parity(1), "3").laid(BYTES),
    level("raid4", &[], Parity(1), "3").laid(FIXED),
    level("raid5", &["xor"], Parity(1), "3"),
    level("raids", &["raid5s"], Parity(1), "3"),
    level("raid7.1", &[], Parity(1), "3"),
    level("raid6", &["pq"], Parity(2), "4"),
    level("raid7.2", &[], Parity(2), "4"),
    level("raiddp", &["dp"], Parity(2), "4").laid(FIXED),
    level("raid7.m", &["raidn+m", "raidnm"], Any, "2+3"),
    level("raidz1", &["z1", "raidz"], Parity(1), "2").laid(VARIABLE),
    level("raidz2", &["z2"], Parity(2), "3").laid(VARIABLE),
    level("raidz3", &["z3"], Parity(3), "4").laid(VARIABLE),
    level("raid01", &["raid0+1"], Figures::Tree { inner: "raid0", copies: true }, "2x(2)"),
    level("raid10", &["raid1+0"], tree("mirror"), "2x(2)"),
    level("raid1e", &[], TwoCopies, "3"),
    level("md10", &["raidmd10", "mdraid10", "linuxraid10"], TwoCopies, "2"),
    level("md10far", &["md10f2"], TwoCopies, "2")
        .laid(Layout { arrangement: Arrangement::Far, ..CHUNKS }),
    level("md10offset", &["md10o2"], TwoCopies, "2").laid(OFFSET),
    level("raid03", &["raid30", "raid0+3"], tree("raid3"), "2x(2+1)"),
    level("raid50", &["raid5+0"], tree("raid5"), "2x(2+1)"),
    level("raid60", &["raid6+0"], tree("raid6"), "2x(2+2)"),
    level("raid100", &["raid10+0"], tree("raid10"), "2x(2x(2))"),
    level("raid5e", &[], Parity(1), "4").spare(Spare::AtEnd),
    level("raid5ee", &[], Parity(1), "4").spare(Spare::Rotating),
    level("raid6e", &[], Parity(2), "5").spare(Spare::AtEnd),
    level("raidfr", &["fr"], Parity(1), "3").policy(Policy::Bitmap),
    level("unraid", &[], Parity(1), "3")
        .laid(FIXED)
        .placed(Placement::PerFile)
        .missing("whole files on single drives need per-file placement, which is not built yet"),
    level("declustered", &["draid", "decluster"], Any, "2+1").pooled(),
    level("ddp", &["dynamicdiskpool"], Any, "8+2").pooled(),
    level("matrix", &["matrixraid"], Any, "2+1")
        .placed(Placement::Slice)
        .missing("one code per slice of the drives is not built yet"),
    level("beyondraid", &["drobo"], Any, "2+1")
        .placed(Placement::Slice)
        .policy(Policy::Adapt)
        .missing("slices that adapt to the drives are not built yet"),
    level("adaptive", &[], Any, "2+1")
        .placed(Placement::Slice)
        .policy(Policy::Adapt)
        .missing("recoding between hot and cold slices is not built yet"),
    level("raid7", &[], Parity(1), "3")
        .laid(FIXED)
        .policy(Policy::Cache)
        .missing("its write cache is not built yet"),
    level("maid", &[], Parity(1), "3")
        .policy(Policy::Power)
        .missing("spinning idle drives down needs a power policy, which is not built yet"),
    level("crypto", &["raidcrypto", "cryptoraid"], Parity(1), "3")
        .policy(Policy::Transform)
        .missing("sealing below the code needs a transform, which is not built yet"),
];

/// The level that people mean by `name`.
pub(super) fn find(name: &str) -> Option<&'static Level> {
    let plain: String =
        name.trim().to_lowercase().chars().filter(|c| !matches!(c, ' ' | '-' | '_')).collect();
    let is = |level: &&Level, name: &str| level.name == name || level.aliases.contains(&name);
    let by = |name: &str| LEVELS.iter().find(|level| is(level, name));
    // "raid" may be left out of "raid5" and put before "jbod".
    by(&plain).or_else(|| by(&format!("raid{plain}"))).or_else(|| by(plain.strip_prefix("raid")?))
}

/// Every name that [`find`] is meant to be asked for.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    LEVELS.iter().flat_map(|level| std::iter::once(level.name).chain(level.aliases.iter().copied()))
}
