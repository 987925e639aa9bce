//! On which drives a stripe's shards go: pure, by the numbers it is given and the chance it is handed.
//!
//! Drives are dealt into groups of at most `scatter_width + 1`, each as mixed in failure domains as they
//! can be; a stripe lies within one group, so that a drive shares stripes with few others (copysets:
//! Cidon et al., USENIX ATC 2013). Within the group drives are drawn by free space, from the domains that
//! have the fewest shards of this stripe so far.

use std::collections::BTreeMap;

use dwk_base::Random;

/// A drive that could take a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) seat: u16,
    /// Room above what is reserved, in bytes; 0 if it cannot take a shard now.
    pub(crate) free_bytes: u64,
    /// A shard that lies on it counts: it is not one that needs another place.
    pub(crate) counts: bool,
    pub(crate) domain: String,
}

/// Different drives for `shards` shards, in the order of the shards' index; `None` if there are too few
/// with room.
pub(crate) fn choose(
    drives: &[Candidate],
    shards: usize,
    scatter_width: usize,
    random: &dyn Random,
) -> Option<Vec<u16>> {
    let mut groups = groups(drives, shards, scatter_width);
    while !groups.is_empty() {
        let free = |group: &Vec<&Candidate>| group.iter().map(|d| u128::from(d.free_bytes)).sum();
        let weights: Vec<u128> = groups.iter().map(free).collect();
        let Some(index) = weighted(&weights, random) else { break };
        let group = groups.swap_remove(index);
        if let Some(seats) = draw(&group, shards, &[], random) {
            return Some(seats);
        }
    }
    // Rather more scatter than none at all.
    let all: Vec<&Candidate> = drives.iter().collect();
    draw(&all, shards, &[], random)
}

/// One more drive for a stripe that has shards on `taken` already, in whose group it is if that can be.
pub(crate) fn choose_another(
    drives: &[Candidate],
    taken: &[u16],
    shards: usize,
    scatter_width: usize,
    random: &dyn Random,
) -> Option<u16> {
    let groups = groups(drives, shards, scatter_width);
    let here =
        |group: &Vec<&Candidate>| group.iter().filter(|drive| taken.contains(&drive.seat)).count();
    let home = groups.iter().max_by_key(|group| here(group));
    let all: Vec<&Candidate> = drives.iter().collect();
    let mut tries = home.into_iter().chain([&all]);
    tries.find_map(|group| draw(group, 1, taken, random)?.first().copied())
}

/// Deals the drives into groups, the same ones for the same drives whatever their room.
fn groups(drives: &[Candidate], shards: usize, scatter_width: usize) -> Vec<Vec<&Candidate>> {
    let mut sorted: Vec<&Candidate> = drives.iter().collect();
    sorted.sort_by(|a, b| (&a.domain, a.seat).cmp(&(&b.domain, b.seat)));
    let size = scatter_width.max(2 * shards) + 1;
    let count = sorted.len().div_ceil(size).max(1);
    let mut groups = vec![Vec::new(); count];
    for (index, drive) in sorted.into_iter().enumerate() {
        groups[index % count].push(drive);
    }
    groups
}

/// Draws `count` drives that are not in `taken`.
fn draw(
    group: &[&Candidate],
    count: usize,
    taken: &[u16],
    random: &dyn Random,
) -> Option<Vec<u16>> {
    let mut in_domain: BTreeMap<&str, usize> = BTreeMap::new();
    for drive in group.iter().filter(|drive| drive.counts && taken.contains(&drive.seat)) {
        *in_domain.entry(&drive.domain).or_default() += 1;
    }
    let mut left: Vec<&Candidate> = group
        .iter()
        .filter(|drive| drive.free_bytes > 0 && !taken.contains(&drive.seat))
        .copied()
        .collect();
    let mut seats = Vec::with_capacity(count);
    while seats.len() < count {
        let shards_in =
            |drive: &&Candidate| in_domain.get(drive.domain.as_str()).copied().unwrap_or_default();
        let fewest = left.iter().map(shards_in).min()?;
        let weight = |drive: &&Candidate| {
            if shards_in(drive) == fewest { drive.free_bytes.into() } else { 0 }
        };
        let weights: Vec<u128> = left.iter().map(weight).collect();
        let drive = left.swap_remove(weighted(&weights, random)?);
        *in_domain.entry(&drive.domain).or_default() += 1;
        seats.push(drive.seat);
    }
    Some(seats)
}

/// An index, drawn by weight.
fn weighted(weights: &[u128], random: &dyn Random) -> Option<usize> {
    let total: u128 = weights.iter().sum();
    // Drives that say they have no end are drawn by the upper bits of what they say.
    let shift = (u128::BITS - total.leading_zeros()).saturating_sub(u64::BITS);
    let weight = |weight: &u128| (*weight >> shift) as u64;
    let total: u64 = weights.iter().map(weight).sum();
    if total == 0 {
        return None;
    }
    let mut point = random.below(total);
    weights.iter().map(weight).position(|weight| {
        let here = point < weight;
        point = point.wrapping_sub(if here { 0 } else { weight });
        here
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dwk_base::SeededRandom;
    use proptest::prelude::*;

    use super::*;

    fn drive(seat: u16, free_bytes: u64, domain: &str) -> Candidate {
        Candidate { seat, free_bytes, counts: true, domain: domain.to_owned() }
    }

    fn pool(count: u16, domains: u16) -> Vec<Candidate> {
        (0..count).map(|seat| drive(seat, 1 << 30, &format!("host{}", seat % domains))).collect()
    }

    #[test]
    fn shards_go_where_the_room_is() {
        let mut drives = pool(12, 12);
        drives[5].free_bytes *= 3;
        let random = SeededRandom::new(1);
        let mut count = [0u32; 12];
        for _ in 0..4000 {
            for seat in choose(&drives, 3, 32, &random).unwrap() {
                count[usize::from(seat)] += 1;
            }
        }
        let others = count.iter().sum::<u32>() - count[5];
        let mean = f64::from(others) / 11.0;
        let near = |seat: usize| (f64::from(count[seat]) / mean - 1.0).abs() < 0.1;
        assert!((0..12).filter(|seat| *seat != 5).all(near), "{count:?}");
        assert!(f64::from(count[5]) / mean > 2.0, "{count:?}");
    }

    #[test]
    fn used_space_evens_out_as_drives_fill() {
        let capacity = |seat: u16| if seat < 4 { 4000 } else { 8000u64 };
        let mut drives: Vec<_> = (0..8).map(|seat| drive(seat, capacity(seat), "")).collect();
        let random = SeededRandom::new(2);
        for _ in 0..6000 {
            for seat in choose(&drives, 6, 32, &random).unwrap() {
                drives[usize::from(seat)].free_bytes -= 1;
            }
        }
        let used = |drive: &Candidate| 1.0 - drive.free_bytes as f64 / capacity(drive.seat) as f64;
        let used: Vec<f64> = drives.iter().map(used).collect();
        let (low, high) = used.iter().fold((1.0f64, 0.0f64), |(l, h), u| (l.min(*u), h.max(*u)));
        assert!(high - low < 0.25, "{used:?}");
    }

    #[test]
    fn a_drive_shares_stripes_with_few_others() {
        let drives = pool(100, 10);
        let random = SeededRandom::new(3);
        let mut partners = vec![BTreeSet::<u16>::new(); 100];
        for _ in 0..20_000 {
            let seats = choose(&drives, 6, 14, &random).unwrap();
            for seat in &seats {
                partners[usize::from(*seat)].extend(seats.iter().filter(|other| *other != seat));
            }
        }
        let most = partners.iter().map(BTreeSet::len).max();
        assert!(most <= Some(14), "{most:?}");
        assert!(partners.iter().all(|partners| partners.len() >= 6));
    }

    #[test]
    fn another_drive_is_not_one_that_is_taken() {
        let drives = pool(7, 7);
        let random = SeededRandom::new(4);
        assert_eq!(choose_another(&drives, &[0, 1, 2, 3, 4, 6], 6, 32, &random), Some(5));
        assert_eq!(choose_another(&drives, &[0, 1, 2, 3, 4, 5, 6], 6, 32, &random), None);
    }

    #[test]
    fn a_group_without_any_room_does_not_end_the_search() {
        // Three groups: two with four drives that have room each, one that is full.
        let mut drives = pool(39, 1);
        for (n, drive) in drives.iter_mut().enumerate() {
            drive.free_bytes = if n % 3 < 2 && n < 12 { 1 << 20 } else { 0 };
        }
        let random = SeededRandom::new(7);
        assert_eq!(choose(&drives, 6, 0, &random).unwrap().len(), 6);
        assert_eq!(choose(&drives, 9, 0, &random), None);
    }

    #[test]
    fn drives_without_end_are_drawn_like_others() {
        let mut drives = pool(64, 64);
        drives.iter_mut().skip(1).for_each(|drive| drive.free_bytes = u64::MAX);
        let random = SeededRandom::new(5);
        for shards in [1, 6, 63] {
            assert_eq!(choose(&drives, shards, 32, &random).unwrap().len(), shards);
        }
        assert!(choose_another(&drives, &[1, 2, 3], 6, 32, &random).is_some());
    }

    #[test]
    fn a_shard_that_needs_another_place_leaves_room_in_its_domain() {
        // Three hosts of three drives, two shards on each; one of the first host's is gone.
        let mut drives = pool(9, 3);
        (drives[0].free_bytes, drives[0].counts) = (0, false);
        // What lies on a drive that takes nothing now counts.
        drives[1].free_bytes = 0;
        let random = SeededRandom::new(6);
        for _ in 0..100 {
            let seat = choose_another(&drives, &[0, 3, 1, 4, 2, 5], 6, 32, &random).unwrap();
            assert_eq!(seat, 6, "the first host's third drive");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_two_shards_on_one_drive_and_domains_as_even_as_can_be(
            frees in proptest::collection::vec((0u64..1000, 0u8..6), 1..40),
            shards in 1usize..12,
            scatter_width in 0usize..40,
            seed: u64,
        ) {
            let drives: Vec<_> = frees.iter().enumerate().map(|(seat, (free, domain))| {
                drive(seat as u16, *free, &format!("h{domain}"))
            }).collect();
            let random = SeededRandom::new(seed);
            let with_room = drives.iter().filter(|drive| drive.free_bytes > 0).count();
            match choose(&drives, shards, scatter_width, &random) {
                None => prop_assert!(with_room < shards),
                Some(seats) => {
                    prop_assert_eq!(seats.len(), shards);
                    prop_assert_eq!(seats.iter().collect::<BTreeSet<_>>().len(), shards);
                    prop_assert!(seats.iter().all(|seat| drives[usize::from(*seat)].free_bytes > 0));
                    if drives.len() <= scatter_width.max(2 * shards) + 1 {
                        as_even_as_can_be(&drives, &seats)?;
                    }
                }
            }
        }
    }

    /// A domain with two shards more than another one has no drive left that the other could have lent.
    fn as_even_as_can_be(drives: &[Candidate], seats: &[u16]) -> Result<(), TestCaseError> {
        let domains: BTreeSet<&str> = drives.iter().map(|drive| drive.domain.as_str()).collect();
        let count = |domain: &str, only: &dyn Fn(&Candidate) -> bool| {
            drives.iter().filter(|drive| drive.domain == domain && only(drive)).count()
        };
        let used = |drive: &Candidate| seats.contains(&drive.seat);
        for a in &domains {
            for b in &domains {
                let spare = count(b, &|drive| drive.free_bytes > 0 && !used(drive));
                prop_assert!(count(a, &used) <= count(b, &used) + 1 || spare == 0);
            }
        }
        Ok(())
    }
}
