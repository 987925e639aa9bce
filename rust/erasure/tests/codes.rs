//! What the codes promise, through the public interface and with whatever kernel is in use.

#![allow(clippy::unwrap_used)]

use dwk_base::codes;
use dwk_erasure::{Code, CodeSpec, Shard, matrix_id};
use proptest::prelude::*;

/// Bytes without a pattern.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |x: &mut u64| {
        *x ^= *x << 13;
        *x ^= *x >> 7;
        *x ^= *x << 17;
        (*x >> 32) as u8
    };
    (0..length).map(|_| step(&mut x)).collect()
}

/// A whole stripe: data and its parity.
fn stripe(code: &Code, length: usize, seed: u64) -> Vec<Vec<u8>> {
    let data: Vec<Vec<u8>> = (0..code.k()).map(|j| noise(seed + j as u64, length)).collect();
    let mut parity = vec![noise(seed + 999, length); code.m()];
    let sources: Vec<&[u8]> = data.iter().map(|d| &d[..]).collect();
    let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(|p| &mut p[..]).collect();
    code.encode(&sources, &mut targets).unwrap();
    data.into_iter().chain(parity).collect()
}

/// Reconstructs `lost` and says whether everything is what it was; `None` if it was refused.
fn recovers(code: &Code, whole: &[Vec<u8>], lost: &[usize]) -> Option<bool> {
    let mut space: Vec<Vec<u8>> = whole.to_vec();
    for &index in lost {
        space[index].fill(0xEE);
    }
    let mut shards: Vec<Shard<'_>> = space
        .iter_mut()
        .enumerate()
        .map(|(i, s)| if lost.contains(&i) { Shard::Lost(s) } else { Shard::Present(s) })
        .collect();
    let result = code.reconstruct(&mut shards, lost);
    if let Err(error) = result {
        assert!(error.is(&codes::ERASURE_TOO_MANY_LOST), "{error}");
        return None;
    }
    Some(space == whole)
}

fn subsets(n: usize, size: usize, f: &mut impl FnMut(&[usize])) {
    fn go(from: usize, n: usize, left: usize, set: &mut Vec<usize>, f: &mut impl FnMut(&[usize])) {
        if left == 0 {
            return f(set);
        }
        for x in from..n {
            set.push(x);
            go(x + 1, n, left - 1, set, f);
            set.pop();
        }
    }
    go(0, n, size, &mut Vec::new(), f);
}

fn rs(k: usize, m: usize) -> CodeSpec {
    CodeSpec::ReedSolomon { k, m }
}

#[test]
fn every_loss_is_rebuilt_or_refused_up_to_twelve_shards() {
    let mut specs = vec![
        CodeSpec::None { k: 3 },
        CodeSpec::Copies { n: 4 },
        CodeSpec::Xor { k: 5 },
        CodeSpec::PQ { k: 6 },
        CodeSpec::Lrc { k: 6, l: 2, g: 2 },
        CodeSpec::Lrc { k: 4, l: 4, g: 1 },
        CodeSpec::Lrc { k: 7, l: 3, g: 2 },
        CodeSpec::Hamming { k: 4 },
    ];
    specs.extend((1..=6).map(|m| rs(12 - m, m)));
    for spec in specs {
        let code = Code::new(&spec).unwrap();
        let whole = stripe(&code, 67, 5);
        let n = code.shards();
        assert!(code.verify(&whole.iter().map(|s| &s[..]).collect::<Vec<_>>()).unwrap());
        for size in 0..=n.min(code.m() + 1) {
            subsets(n, size, &mut |lost| {
                let result = recovers(&code, &whole, lost);
                assert_eq!(result.is_some(), code.tolerates(lost), "{spec} {lost:?}");
                assert_ne!(result, Some(false), "{spec} {lost:?}");
                assert!(size > spec.tolerance() || result.is_some(), "{spec} {lost:?}");
            });
        }
    }
}

/// The field's product by its definition.
fn product(a: u8, b: u8) -> u8 {
    (0..8).rev().fold(0u8, |sum, bit| {
        let twice = sum << 1 ^ if sum & 0x80 == 0 { 0 } else { 0x1d };
        twice ^ if b >> bit & 1 == 1 { a } else { 0 }
    })
}

/// Rows in echelon form, and the place of each one's leading 1.
type Echelon = Vec<(usize, Vec<u8>)>;

/// What `row` leaves when the rows of `basis` are taken off it.
fn reduced(basis: &Echelon, mut row: Vec<u8>) -> Vec<u8> {
    for (lead, base) in basis {
        let factor = row[*lead];
        row.iter_mut().zip(base).for_each(|(x, &b)| *x ^= product(factor, b));
    }
    row
}

fn extend(basis: &mut Echelon, row: Vec<u8>) {
    let row = reduced(basis, row);
    if let Some(lead) = row.iter().position(|&x| x != 0) {
        let inverse = (1..=255).find(|&x| product(x, row[lead]) == 1).unwrap();
        basis.push((lead, row.iter().map(|&x| product(x, inverse)).collect()));
    }
}

#[test]
fn exactly_what_the_present_shards_determine_can_be_had() {
    for spec in [
        CodeSpec::Copies { n: 4 },
        CodeSpec::Lrc { k: 4, l: 2, g: 2 },
        CodeSpec::Lrc { k: 5, l: 2, g: 1 },
        CodeSpec::Lrc { k: 3, l: 3, g: 2 },
        CodeSpec::Hamming { k: 4 },
        rs(5, 3),
    ] {
        let code = Code::new(&spec).unwrap();
        let (k, n) = (code.k(), code.shards());
        let row = |shard: usize| -> Vec<u8> {
            match shard.checked_sub(k) {
                None => (0..k).map(|j| u8::from(j == shard)).collect(),
                Some(parity) => (0..k).map(|j| code.coefficient(parity, j).unwrap()).collect(),
            }
        };
        for pattern in 0..1u32 << n {
            let (lost, present): (Vec<usize>, Vec<usize>) =
                (0..n).partition(|shard| pattern >> shard & 1 == 1);
            let mut basis = Echelon::new();
            for &shard in &present {
                extend(&mut basis, row(shard));
            }
            assert_eq!(code.tolerates(&lost), basis.len() == k, "{spec} {lost:?}");
            for &wanted in &lost {
                let determined = reduced(&basis, row(wanted)).iter().all(|&x| x == 0);
                let read = code.read_set(&lost, &[wanted]);
                assert_eq!(read.is_ok(), determined, "{spec} {lost:?} {wanted}");
                assert!(read.unwrap_or_default().iter().all(|shard| present.contains(shard)));
            }
        }
    }
}

#[test]
fn a_lost_check_is_rebuilt_where_its_data_cannot_be() {
    let code = Code::new(&CodeSpec::Hamming { k: 4 }).unwrap();
    let whole = stripe(&code, 90, 6);
    // Of shards 0 and 3 only the sum is known, and that is what check 5 has of them, too.
    assert!(code.read_set(&[0, 3, 5, 6, 7], &[0]).is_err());
    let mut room = vec![0; 90];
    let mut shards: Vec<Shard<'_>> = (0..8).map(|_| Shard::Absent).collect();
    for index in [1, 2, 4] {
        shards[index] = Shard::Present(&whole[index]);
    }
    shards[5] = Shard::Lost(&mut room);
    code.reconstruct(&mut shards, &[5]).unwrap();
    assert!(room == whole[5]);
}

#[test]
fn promised_tolerance_is_not_exceeded_by_any_code() {
    for spec in [CodeSpec::Lrc { k: 12, l: 2, g: 2 }, CodeSpec::Hamming { k: 4 }, rs(5, 3)] {
        let code = Code::new(&spec).unwrap();
        let mut fatal = false;
        subsets(code.shards(), spec.tolerance() + 1, &mut |lost| fatal |= !code.tolerates(lost));
        assert!(fatal, "{spec}");
    }
}

/// Linux md's P and Q, written down from its definition: Q by Horner, one bit at a time.
fn md(data: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let length = data[0].len();
    let (mut p, mut q) = (vec![0u8; length], vec![0u8; length]);
    for shard in data.iter().rev() {
        for i in 0..length {
            p[i] ^= shard[i];
            let mut bits = u16::from(q[i]) << 1;
            if bits & 0x100 != 0 {
                bits ^= 0x11d;
            }
            q[i] = bits as u8 ^ shard[i];
        }
    }
    (p, q)
}

#[test]
fn p_and_q_equal_linux_md() {
    for k in [1, 2, 3, 4, 8, 15, 16, 17, 33, 253] {
        for spec in [CodeSpec::PQ { k }, rs(k, 2)] {
            let code = Code::new(&spec).unwrap();
            assert_eq!(code.matrix_id(), matrix_id::PQ_LINUX_MD);
            for length in [1, 63, 64, 65, 1000] {
                let whole = stripe(&code, length, 3);
                let (p, q) = md(&whole[..k]);
                assert!(whole[k] == p && whole[k + 1] == q, "{spec} {length}");
            }
        }
    }
}

#[test]
fn one_lost_shard_of_an_lrc_is_read_from_its_group() {
    let code = Code::new(&CodeSpec::Lrc { k: 12, l: 2, g: 2 }).unwrap();
    assert_eq!(code.read_set(&[3], &[3]).unwrap(), [0, 1, 2, 4, 5, 12]);
    assert_eq!(code.read_set(&[12], &[12]).unwrap(), [0, 1, 2, 3, 4, 5]);
    // One in each group: still local, whatever else is lost.
    assert_eq!(code.read_set(&[3, 7, 14], &[7]).unwrap().len(), 6);
    assert_eq!(code.read_set(&[0, 1], &[0]).unwrap().len(), 12);
    assert_eq!(Code::new(&rs(12, 4)).unwrap().read_set(&[3], &[3]).unwrap().len(), 12);
    assert_eq!(Code::new(&rs(12, 4)).unwrap().read_set(&[3], &[5]).unwrap(), [5]);
}

#[test]
fn a_single_lost_data_shard_of_lrc_12_2_2_is_rebuilt_from_six() {
    let code = Code::new(&CodeSpec::Lrc { k: 12, l: 2, g: 2 }).unwrap();
    let whole = stripe(&code, 300, 8);
    for lost in 0..14 {
        let read = code.read_set(&[lost], &[lost]).unwrap();
        assert_eq!(read.len(), 6);
        let mut room = vec![0; 300];
        let mut shards: Vec<Shard<'_>> = whole
            .iter()
            .enumerate()
            .map(|(i, s)| if read.contains(&i) { Shard::Present(s) } else { Shard::Absent })
            .collect();
        shards[lost] = Shard::Lost(&mut room);
        code.reconstruct(&mut shards, &[lost]).unwrap();
        assert!(room == whole[lost]);
    }
}

#[test]
fn only_what_is_wanted_is_written() {
    let code = Code::new(&rs(4, 3)).unwrap();
    let mut space = stripe(&code, 100, 1);
    let whole = space.clone();
    space[1].fill(1);
    space[2].fill(2);
    let mut shards: Vec<Shard<'_>> = space
        .iter_mut()
        .enumerate()
        .map(|(i, s)| if i == 1 || i == 2 { Shard::Lost(s) } else { Shard::Present(s) })
        .collect();
    code.reconstruct(&mut shards, &[1]).unwrap();
    assert!(space[1] == whole[1] && space[2] == [2; 100]);
}

#[test]
fn wrong_buffers_are_refused() {
    let code = Code::new(&rs(2, 2)).unwrap();
    let (a, b) = (vec![1u8; 10], vec![2u8; 11]);
    let (mut p, mut q) = (vec![0u8; 10], vec![0u8; 10]);
    let length = |result: dwk_base::Result<()>| result.unwrap_err().is(&codes::BUFFER_LENGTH);
    assert!(length(code.encode(&[&a, &b], &mut [&mut p, &mut q])));
    assert!(length(code.encode(&[&a], &mut [&mut p, &mut q])));
    assert!(length(code.encode(&[&a, &a], &mut [&mut p])));
    assert!(length(code.update(2, &a, &a, &mut [&mut p, &mut q])));
    assert!(length(code.update(0, &a, &b, &mut [&mut p, &mut q])));
    assert!(length(code.reconstruct(&mut [Shard::Absent], &[0])));
    let mut shards = [Shard::Absent, Shard::Present(&a), Shard::Present(&a), Shard::Present(&b)];
    assert!(length(code.reconstruct(&mut shards, &[0])));
    let mut shards = [Shard::Absent, Shard::Present(&a), Shard::Present(&a), Shard::Present(&a)];
    assert!(length(code.reconstruct(&mut shards, &[0])));
    assert!(code.read_set(&[9], &[0]).unwrap_err().is(&codes::BUFFER_LENGTH));
    assert!(!code.tolerates(&[4]));
}

#[test]
fn impossible_codes_are_refused() {
    for spec in [
        rs(0, 2),
        rs(4, 0),
        rs(200, 56),
        rs(usize::MAX, 1),
        CodeSpec::Copies { n: 1 },
        CodeSpec::Copies { n: 0 },
        CodeSpec::Copies { n: 300 },
        CodeSpec::Lrc { k: 4, l: 0, g: 1 },
        CodeSpec::Lrc { k: 4, l: 5, g: 1 },
        CodeSpec::None { k: 0 },
        CodeSpec::PQ { k: 254 },
        CodeSpec::Hamming { k: 255 },
    ] {
        assert!(Code::new(&spec).unwrap_err().is(&codes::GEOMETRY_INVALID), "{spec}");
    }
    assert!(Code::from_matrix_id(&rs(4, 2), 99).unwrap_err().is(&codes::FORMAT_NEWER));
    assert!(Code::from_matrix_id(&rs(4, 2), matrix_id::XOR).unwrap_err().is(&codes::FORMAT_NEWER));
    assert!(Code::from_matrix_id(&rs(4, 2), matrix_id::CAUCHY).is_ok());
}

#[test]
fn every_number_of_parities_up_to_255_shards_has_a_code() {
    for m in 1..=254 {
        let k = 255 - m;
        // Large matrices cost time, and have nothing that their neighbours do not have.
        if m > 20 && m < 250 && m % 50 != 0 {
            continue;
        }
        let code = Code::new(&rs(k, m)).unwrap_or_else(|error| panic!("{k}+{m}: {error}"));
        let whole = stripe(&code, 70, 4);
        let lost: Vec<usize> = (0..255).rev().step_by(255 / m).take(m).collect();
        assert_eq!(recovers(&code, &whole, &lost), Some(true), "{k}+{m}");
        assert!(Code::new(&rs(k + 1, m)).unwrap_err().is(&codes::GEOMETRY_INVALID));
    }
}

/// Bytes that stripes on drives depend on: they never change.
#[test]
fn golden_parity() {
    let hex = |bytes: &[u8; 4]| format!("{:08x}", u32::from_be_bytes(*bytes));
    for (spec, wanted) in GOLDEN {
        let code = Code::new(&spec).unwrap();
        let data: Vec<[u8; 4]> =
            (0..code.k()).map(|j| [1, j as u8, 0x80 ^ (7 * j) as u8, (31 * j + 5) as u8]).collect();
        let mut parity = vec![[0u8; 4]; code.m()];
        let sources: Vec<&[u8]> = data.iter().map(|d| &d[..]).collect();
        let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(|p| &mut p[..]).collect();
        code.encode(&sources, &mut targets).unwrap();
        let text: Vec<String> = parity.iter().map(hex).collect();
        assert_eq!(text.join(" "), wanted, "{spec}");
    }
}

const GOLDEN: [(CodeSpec, &str); 10] = [
    (CodeSpec::Copies { n: 3 }, "01008005 01008005"),
    (CodeSpec::Xor { k: 5 }, "01048081"),
    (CodeSpec::PQ { k: 4 }, "00001c00 0f124d6b"),
    (CodeSpec::ReedSolomon { k: 10, m: 2 }, "00013fa1 d8d7f5a5"),
    (CodeSpec::ReedSolomon { k: 8, m: 3 }, "0008beb0 000819e3 0008e854"),
    (CodeSpec::ReedSolomon { k: 8, m: 4 }, "0008beb0 000819e3 0008e854 00087747"),
    (CodeSpec::ReedSolomon { k: 17, m: 3 }, "3de7c876 42441dd3 d4d163d7"),
    (CodeSpec::ReedSolomon { k: 6, m: 6 }, "00012321 05dd3cb5 df31f4a9 7067f67b c6868a0f 8a9decd0"),
    (CodeSpec::Lrc { k: 12, l: 2, g: 2 }, "00012321 000117e1 0521159f 77c515a1"),
    (CodeSpec::Hamming { k: 4 }, "01029243 01019b24 01009c05 01038962"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sampled_losses_of_large_codes_are_rebuilt(
        k in 1usize..60, m in 1usize..12, length in 1usize..700, seed in any::<u32>()
    ) {
        let code = Code::new(&rs(k, m)).unwrap();
        let whole = stripe(&code, length, u64::from(seed));
        let mut order: Vec<usize> = (0..k + m).collect();
        order.sort_by_key(|&i| noise(u64::from(seed) ^ i as u64, 8));
        let mut lost = order[..m].to_vec();
        lost.sort_unstable();
        prop_assert_eq!(recovers(&code, &whole, &lost), Some(true));
        prop_assert!(code.tolerates(&lost));
        prop_assert!(!code.tolerates(&order[..=m]));
    }

    #[test]
    fn update_equals_encoding_again(
        k in 1usize..30, m in 1usize..9, length in 0usize..500, seed in any::<u32>(), lrc in any::<bool>()
    ) {
        let spec = if lrc { CodeSpec::Lrc { k, l: 1 + m % k, g: 1 + m % 3 } } else { rs(k, m) };
        let code = Code::new(&spec).unwrap();
        let mut whole = stripe(&code, length, u64::from(seed));
        let row = seed as usize % k;
        let new = noise(u64::from(seed) + 77, length);
        let old = std::mem::replace(&mut whole[row], new);
        let (data, parity) = whole.split_at_mut(k);
        let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(|p| &mut p[..]).collect();
        code.update(row, &old, &data[row], &mut targets).unwrap();
        let all: Vec<&[u8]> = whole.iter().map(|s| &s[..]).collect();
        prop_assert!(code.verify(&all).unwrap());
    }

    #[test]
    fn a_single_flipped_bit_does_not_verify(
        k in 1usize..20, m in 1usize..6, length in 1usize..20_000, at in any::<prop::sample::Index>(),
        shard in any::<prop::sample::Index>()
    ) {
        let code = Code::new(&rs(k, m)).unwrap();
        let mut whole = stripe(&code, length, 9);
        let shard = shard.index(k + m);
        whole[shard][at.index(length)] ^= 4;
        let all: Vec<&[u8]> = whole.iter().map(|s| &s[..]).collect();
        prop_assert!(!code.verify(&all).unwrap());
    }
}
