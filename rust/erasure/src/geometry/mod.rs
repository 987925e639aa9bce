//! The tree that says every RAID level: code, layout, placement, spare, policy, children.
//!
//! A geometry is parsed from and printed as a string (`"4+2"`, `"raid6:8"`, `"raid50:2x(4+1)"`); what it
//! tolerates follows from which drives the shards of one stripe can lie on.

mod level;
mod text;

use dwk_base::{Error, Result, codes};

use crate::spec::CodeSpec;
use level::{Figures, Level};

/// What one shard is cut into before it goes around the drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Bits (level 2).
    Bit,
    /// Bytes (level 3).
    Byte,
    /// Chunks of many bytes.
    Chunk,
}

/// Whether parity stays on its drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rotation {
    /// On the same drives in every stripe.
    Fixed,
    /// On other drives in every stripe.
    Rotating,
}

/// Where the copies of a chunk lie, as Linux md's level 10 calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arrangement {
    /// On the next drives at the same offset.
    Near,
    /// On the next drives, in another part of them.
    Far,
    /// On the next drives, in the next row.
    Offset,
}

/// Whether every stripe is equally wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Width {
    /// Every stripe has the same number of shards.
    Fixed,
    /// A small stripe has fewer data shards.
    Variable,
}

/// How a stripe uses its drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// What is interleaved.
    pub unit: Unit,
    /// Whether parity moves.
    pub rotation: Rotation,
    /// Where copies lie.
    pub arrangement: Arrangement,
    /// Whether stripes are equally wide.
    pub width: Width,
}

/// Which drives a stripe goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Placement {
    /// Each drive is a volume of its own.
    Separate,
    /// One drive after the other is filled.
    Concat,
    /// All drives in turn.
    RoundRobin,
    /// Any drives, spread evenly (declustered).
    Permuted,
    /// A file lies whole on one drive.
    PerFile,
    /// Slices of the drives have codes of their own.
    Slice,
}

/// Room kept for rebuilding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Spare {
    /// None.
    None,
    /// A whole drive that waits.
    Dedicated,
    /// One drive's worth at the end of every drive.
    AtEnd,
    /// One drive's worth, moving from stripe to stripe.
    Rotating,
    /// Some room on every drive, as the pool decides.
    Reserved,
}

/// What else a level does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Nothing.
    None,
    /// A write cache.
    Cache,
    /// Idle drives are spun down.
    Power,
    /// Bytes are transformed below the code.
    Transform,
    /// The code follows the drives or the data.
    Adapt,
    /// A bitmap of writes makes rebuilding a returning drive short.
    Bitmap,
}

/// What is encoded with what, and where its shards lie.
///
/// ```
/// use dwk_erasure::Geometry;
/// let geometry: Geometry = "raid50:2x(4+1)".parse()?;
/// assert_eq!((geometry.drives(), geometry.tolerance()), (10, 1));
/// assert!(geometry.tolerates(&[0, 5]) && !geometry.tolerates(&[0, 1]));
/// assert_eq!("RAID-6: 6+2".parse::<Geometry>()?.to_string(), "raid6:8");
/// # Ok::<(), dwk_base::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Geometry {
    level: &'static Level,
    code: CodeSpec,
    /// Of a leaf: its drives, at least as many as a stripe is wide.
    own_drives: usize,
    children: Vec<Geometry>,
}

impl PartialEq for Geometry {
    fn eq(&self, other: &Self) -> bool {
        let key = |geometry: &Self| (geometry.level.name, geometry.code, geometry.own_drives);
        key(self) == key(other) && self.children == other.children
    }
}

impl Eq for Geometry {}

impl Geometry {
    /// Reads a geometry: `k+m`, `level:N` (N counts all drives), `level:k+m`, `level:COUNTx(inner)`, or a
    /// level's bare name, which means its smallest one. Case, spaces, `-` and `_` do not matter.
    ///
    /// # Errors
    /// `geometry.invalid` with a sentence that says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self> {
        text::parse(text)
    }

    /// The canonical name of its level; `rs` for plain `k+m`.
    pub fn level(&self) -> &'static str {
        self.level.name
    }

    /// The code of this node: over drives in a leaf, over children otherwise.
    pub fn code(&self) -> CodeSpec {
        self.code
    }

    /// How a stripe uses its drives.
    pub fn layout(&self) -> Layout {
        self.level.layout
    }

    /// Which drives a stripe goes to.
    pub fn placement(&self) -> Placement {
        self.level.placement
    }

    /// Room kept for rebuilding.
    pub fn spare(&self) -> Spare {
        self.level.spare
    }

    /// What else it does.
    pub fn policy(&self) -> Policy {
        self.level.policy
    }

    /// The geometries that this one's code combines; none in a leaf.
    pub fn children(&self) -> &[Self] {
        &self.children
    }

    /// Drives in all: the least, where stripes are placed on any drives (`Placement::Permuted`).
    pub fn drives(&self) -> usize {
        if self.children.is_empty() {
            self.own_drives
        } else {
            self.children.iter().map(Self::drives).sum()
        }
    }

    /// The part of the drives' room that holds data, spare room that a level names taken off.
    pub fn data_fraction(&self) -> f64 {
        let code = self.code.k() as f64 / (self.code.k() + self.code.m()) as f64;
        if self.children.is_empty() {
            let used = self.own_drives - self.spare_drives();
            return code * used as f64 / self.own_drives as f64;
        }
        let inner: f64 = self.children.iter().map(Self::data_fraction).sum();
        code * inner / self.children.len() as f64
    }

    /// Drives' worth of room that the level itself keeps free.
    fn spare_drives(&self) -> usize {
        usize::from(matches!(self.level.spare, Spare::AtEnd | Spare::Rotating | Spare::Dedicated))
    }

    /// True if everything is still there when the drives with these indexes are lost.
    ///
    /// Computed from which drives a stripe's shards lie on. A level that keeps legs apart (01) loses a
    /// leg with any drive of it, as those who built it say.
    pub fn tolerates(&self, lost: &[usize]) -> bool {
        let mut lost = lost.to_vec();
        lost.sort_unstable();
        lost.dedup();
        // Stripes that go to any drives do not mind which those are: a pool can have more.
        let free = self.children.is_empty() && self.level.placement == Placement::Permuted;
        (free || lost.iter().all(|&drive| drive < self.drives())) && self.survives(&lost)
    }

    fn survives(&self, lost: &[usize]) -> bool {
        if !self.children.is_empty() {
            let mut start = 0;
            let mut legs_lost = 0;
            for child in &self.children {
                let end = start + child.drives();
                let of_child = lost.iter().filter(|&&drive| (start..end).contains(&drive));
                let of_child: Vec<usize> = of_child.map(|drive| drive - start).collect();
                legs_lost += usize::from(!child.survives(&of_child));
                start = end;
            }
            return legs_lost <= self.code.tolerance();
        }
        match self.level.figures {
            Figures::Dup => lost.is_empty(),
            Figures::TwoCopies => {
                self.leaf_groups().iter().all(|pair| pair.iter().any(|drive| !lost.contains(drive)))
            }
            // A drive per shard, always the same one: the code itself knows.
            Figures::Hamming => crate::Code::new(&self.code).is_ok_and(|code| code.tolerates(lost)),
            _ => lost.len() <= self.code.tolerance(),
        }
    }

    /// t: how many *arbitrary* drives can be lost.
    pub fn tolerance(&self) -> usize {
        if self.children.is_empty() {
            return if self.level.figures == Figures::Dup { 0 } else { self.code.tolerance() };
        }
        let mut to_kill: Vec<usize> =
            self.children.iter().map(|child| child.tolerance() + 1).collect();
        to_kill.sort_unstable();
        to_kill.iter().take(self.code.tolerance() + 1).sum::<usize>() - 1
    }

    /// What one stripe is encoded with.
    ///
    /// Of a tree without a code of its own (10, 50, 60, 100), its legs'; of copies of legs without a code
    /// (01), copies; otherwise the outer code.
    pub fn stripe_code(&self) -> CodeSpec {
        match (self.children.first(), self.code) {
            (Some(child), CodeSpec::None { .. }) => child.stripe_code(),
            _ => self.code,
        }
    }

    /// Sets of drives: each stripe picks one set and puts its shards on different drives of it.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        if self.children.is_empty() {
            return self.leaf_groups();
        }
        let mut start = 0;
        let mut by_leg = Vec::new();
        for child in &self.children {
            let shifted =
                |group: Vec<usize>| group.into_iter().map(|drive| drive + start).collect();
            by_leg.push(child.groups().into_iter().map(shifted).collect::<Vec<Vec<usize>>>());
            start += child.drives();
        }
        if matches!(self.code, CodeSpec::None { .. }) {
            return by_leg.concat();
        }
        // The same place of every leg holds the same bytes.
        let places = |leg: &Vec<Vec<usize>>| leg.concat();
        let legs: Vec<Vec<usize>> = by_leg.iter().map(places).collect();
        let common = legs.iter().map(Vec::len).min().unwrap_or(0);
        (0..common).map(|place| legs.iter().map(|leg| leg[place]).collect()).collect()
    }

    fn leaf_groups(&self) -> Vec<Vec<usize>> {
        let n = self.own_drives;
        if self.level.figures != Figures::TwoCopies {
            return vec![(0..n).collect()];
        }
        let near = self.level.layout.arrangement == Arrangement::Near;
        // Near copies of chunk c begin at drive 2c; the others at drive c: one period of each.
        let step = if near { 2 } else { 1 };
        let period = if near && n.is_multiple_of(2) { n / 2 } else { n };
        let mut groups: Vec<Vec<usize>> =
            (0..period).map(|c| vec![step * c % n, (step * c + 1) % n]).collect();
        for pair in &mut groups {
            pair.sort_unstable();
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// True if a pool can keep stripes this way.
    pub fn storable(&self) -> bool {
        self.not_storable_reason().is_none()
    }

    /// What is missing for it to be stored, as a sentence.
    pub fn not_storable_reason(&self) -> Option<&str> {
        let flat = |child: &Self| matches!(child.stripe_code(), CodeSpec::None { .. });
        if let Some(reason) = self.level.missing {
            return Some(reason);
        }
        if let Some(reason) = self.children.iter().find_map(Self::not_storable_reason) {
            return Some(reason);
        }
        match self.code {
            CodeSpec::None { .. }
                if !self.children.windows(2).all(|w| w[0].stripe_code() == w[1].stripe_code()) =>
            {
                Some("legs with different codes are not stored yet")
            }
            CodeSpec::None { .. } => None,
            CodeSpec::Copies { .. } if self.children.iter().all(flat) => None,
            _ if self.children.is_empty() => None,
            _ => Some("a code over legs that have a code of their own is not stored yet"),
        }
    }

    /// Fails with `geometry.not_storable` and the reason if [`Geometry::storable`] is false.
    pub fn require_storable(&self) -> Result<()> {
        match self.not_storable_reason() {
            None => Ok(()),
            Some(why) => Err(Error::new(&codes::GEOMETRY_NOT_STORABLE, format!("{self}: {why}"))),
        }
    }
}

/// Every name of a level, aliases too, as [`Geometry::parse`] takes it.
pub fn levels() -> Vec<&'static str> {
    level::names().collect()
}

#[cfg(test)]
mod tests;
