//! A set of shard indexes below 256.

/// 256 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set([u64; 4]);

impl Set {
    pub(crate) fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    pub(crate) fn has(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    /// `0..count` without `self`.
    pub(crate) fn rest(&self, count: usize) -> Self {
        (0..count).filter(|&index| !self.has(index)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..256).filter(|&index| self.has(index))
    }

    /// The indexes, or `None` if one is not below `count`.
    pub(crate) fn checked(indexes: &[usize], count: usize) -> Option<Self> {
        indexes.iter().all(|&index| index < count).then(|| indexes.iter().copied().collect())
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(indexes: I) -> Self {
        let mut set = Self::default();
        indexes.into_iter().for_each(|index| set.insert(index));
        set
    }
}
