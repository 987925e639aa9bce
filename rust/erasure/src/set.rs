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
        let below = |word: usize| match count.saturating_sub(64 * word) {
            0 => 0,
            some @ 1..64 => (1 << some) - 1,
            _ => u64::MAX,
        };
        Self(std::array::from_fn(|word| !self.0[word] & below(word)))
    }

    /// Adds those of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, more)| *word |= more);
    }

    /// Those that are not in `other`.
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        self.0.into_iter().enumerate().flat_map(|(word, mut bits)| {
            std::iter::from_fn(move || {
                let lowest = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (lowest < 64).then_some(64 * word + lowest)
            })
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_its_rest_has_what_was_not() {
        for step in [1, 3, 63, 64, 65, 300] {
            for count in [0, 1, 63, 64, 65, 127, 128, 200, 255, 256] {
                let expected: Vec<usize> = (0..256).step_by(step).collect();
                let set: Set = expected.iter().copied().collect();
                assert!(set.iter().eq(expected.iter().copied()), "{step}");
                assert_eq!(set.len(), expected.len());
                let rest: Vec<usize> = (0..count).filter(|i| i % step != 0).collect();
                assert!(set.rest(count).iter().eq(rest.iter().copied()), "{count} {step}");
                let both: Vec<usize> = expected.into_iter().filter(|&i| i >= count).collect();
                let below: Set = (0..count).collect();
                assert!(set.without(&below).iter().eq(both), "{count} {step}");
                assert!((0..256).all(|i| set.has(i) == (i % step == 0)));
            }
        }
    }
}
