//! What one stripe is encoded with, and the ids of the matrices that do it.

use std::fmt;

use dwk_base::{Error, Result, codes};

use crate::matrix::{self, Matrix};

/// The most shards that a stripe can have.
pub const SHARDS_MAX: usize = 255;

/// Ids of parity matrices, as stored with every stripe. `docs/format/matrices.md` defines each.
pub mod matrix_id {
    /// No parity.
    pub const NONE: u32 = 0;
    /// Every parity is the one data shard.
    pub const COPIES: u32 = 1;
    /// One parity, the sum of the data.
    pub const XOR: u32 = 2;
    /// P and Q as Linux md computes them.
    pub const PQ_LINUX_MD: u32 = 3;
    /// Up to four rows of the scaled Cauchy matrix that the four-point transform computes.
    pub const FOUR_POINT: u32 = 4;
    /// The Cauchy matrix with a first row and a first column of ones.
    pub const CAUCHY: u32 = 5;
    /// The Cauchy matrix whose first row is cut into local groups.
    pub const PYRAMID: u32 = 6;
    /// Hamming's checks with an overall parity.
    pub const HAMMING: u32 = 7;
}

/// The code of one stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CodeSpec {
    /// `k` data shards, nothing else.
    None {
        /// Data shards.
        k: usize,
    },
    /// `n` equal shards.
    Copies {
        /// Shards in all.
        n: usize,
    },
    /// `k` data shards and their sum.
    Xor {
        /// Data shards.
        k: usize,
    },
    /// `k` data shards, P and Q of Linux md.
    PQ {
        /// Data shards.
        k: usize,
    },
    /// `k` data shards and `m` parities of which any `k` of all give everything.
    ReedSolomon {
        /// Data shards.
        k: usize,
        /// Parity shards.
        m: usize,
    },
    /// `k` data shards in `l` groups with a local parity each, and `g` global parities.
    Lrc {
        /// Data shards.
        k: usize,
        /// Local groups.
        l: usize,
        /// Global parities.
        g: usize,
    },
    /// `k` data shards with Hamming's checks and an overall parity (level 2).
    Hamming {
        /// Data shards.
        k: usize,
    },
}

impl CodeSpec {
    /// Data shards.
    pub fn k(&self) -> usize {
        match *self {
            Self::Copies { .. } => 1,
            Self::None { k }
            | Self::Xor { k }
            | Self::PQ { k }
            | Self::ReedSolomon { k, .. }
            | Self::Lrc { k, .. }
            | Self::Hamming { k } => k,
        }
    }

    /// Parity shards.
    pub fn m(&self) -> usize {
        match *self {
            Self::None { .. } => 0,
            Self::Copies { n } => n.saturating_sub(1),
            Self::Xor { .. } => 1,
            Self::PQ { .. } => 2,
            Self::ReedSolomon { m, .. } => m,
            Self::Lrc { l, g, .. } => l.saturating_add(g),
            Self::Hamming { k } => matrix::hamming_checks(k.min(SHARDS_MAX)),
        }
    }

    /// Arbitrary shards whose loss every stripe survives.
    pub fn tolerance(&self) -> usize {
        match *self {
            // A pyramid code: docs/format/matrices.md shows that it is g+1 and no more.
            Self::Lrc { g, .. } => g + 1,
            // Two data shards differ in two checks at least, so that the distance is four.
            Self::Hamming { .. } => 3,
            _ => self.m(),
        }
    }

    /// The same code with `k` data shards instead, as a narrower stripe uses it.
    pub fn with_k(self, k: usize) -> Self {
        match self {
            Self::None { .. } => Self::None { k },
            Self::Copies { n } => Self::Copies { n },
            Self::Xor { .. } => Self::Xor { k },
            Self::PQ { .. } => Self::PQ { k },
            Self::ReedSolomon { m, .. } => Self::ReedSolomon { k, m },
            Self::Lrc { l, g, .. } => Self::Lrc { k, l: l.min(k), g },
            Self::Hamming { .. } => Self::Hamming { k },
        }
    }

    /// The matrix that new stripes are encoded with.
    pub fn matrix_id(&self) -> u32 {
        match *self {
            Self::None { .. } => matrix_id::NONE,
            Self::Copies { .. } => matrix_id::COPIES,
            Self::Xor { .. } | Self::ReedSolomon { m: 1, .. } => matrix_id::XOR,
            Self::PQ { .. } | Self::ReedSolomon { m: 2, .. } => matrix_id::PQ_LINUX_MD,
            Self::ReedSolomon { m: 3 | 4, .. } => matrix_id::FOUR_POINT,
            Self::ReedSolomon { .. } => matrix_id::CAUCHY,
            Self::Lrc { .. } => matrix_id::PYRAMID,
            Self::Hamming { .. } => matrix_id::HAMMING,
        }
    }

    /// Fails with `geometry.invalid` and a sentence if there is no such code.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |why: String| Err(Error::new(&codes::GEOMETRY_INVALID, why));
        if self.k() == 0 {
            return invalid(format!("{self} has no data shard: k is at least 1"));
        }
        if self.k().saturating_add(self.m()) > SHARDS_MAX {
            return invalid(format!("{self} has more than {SHARDS_MAX} shards in a stripe"));
        }
        match *self {
            Self::Copies { n } if n < 2 => {
                invalid(format!("{self}: one copy is no copy, write mirror:2 or more"))
            }
            Self::ReedSolomon { k, m: 0 } => {
                invalid(format!("{self} has no parity: write raid0:{k} if that is meant"))
            }
            Self::Lrc { k, l, .. } if l == 0 || l > k => {
                invalid(format!("{self} needs between 1 and {k} local groups"))
            }
            _ => Ok(()),
        }
    }

    /// The parity matrix with this id, or `None` if this code has no such matrix.
    pub(crate) fn parity_matrix(&self, id: u32) -> Option<Matrix> {
        let (k, m) = (self.k(), self.m());
        let plain = matches!(self, Self::ReedSolomon { .. });
        match (id, *self) {
            (matrix_id::NONE, Self::None { .. }) => Some(Matrix::zero(0, k)),
            (matrix_id::COPIES, Self::Copies { .. }) => Some(matrix::ones(m, 1)),
            (matrix_id::XOR, Self::Xor { .. }) => Some(matrix::ones(1, k)),
            (matrix_id::XOR, _) if plain && m == 1 => Some(matrix::ones(1, k)),
            (matrix_id::PQ_LINUX_MD, Self::PQ { .. }) => Some(matrix::linux_md(k)),
            (matrix_id::PQ_LINUX_MD, _) if plain && m == 2 => Some(matrix::linux_md(k)),
            (matrix_id::FOUR_POINT, _) if plain && m <= 4 && k <= matrix::FOUR_POINT_MAX => {
                Some(matrix::four_point(m, k))
            }
            (matrix_id::CAUCHY, _) if plain => Some(matrix::cauchy(m, k)),
            (matrix_id::PYRAMID, Self::Lrc { l, g, .. }) => Some(matrix::pyramid(k, l, g)),
            (matrix_id::HAMMING, Self::Hamming { .. }) => Some(matrix::hamming(k)),
            _ => None,
        }
    }
}

impl fmt::Display for CodeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::None { k } => write!(f, "none:{k}"),
            Self::Copies { n } => write!(f, "mirror:{n}"),
            Self::Xor { k } => write!(f, "xor:{k}+1"),
            Self::PQ { k } => write!(f, "pq:{k}+2"),
            Self::ReedSolomon { k, m } => write!(f, "{k}+{m}"),
            Self::Lrc { k, l, g } => write!(f, "lrc:{k}+{l}+{g}"),
            Self::Hamming { k } => write!(f, "hamming:{k}"),
        }
    }
}
