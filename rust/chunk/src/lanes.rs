//! Many short inputs through BLAKE3's SIMD lanes at once.
//!
//! BLAKE3 cuts an input into chunks of 1 KiB and joins their chaining values in a binary tree. The
//! kernels compress up to 16 chunks side by side, if all have the same counter or consecutive ones; an
//! input of 4 KiB alone fills 4 lanes, then 2, then 1. Here the lanes are filled across inputs: chunk 0
//! of all, chunk 1 of all, …, then each level of all trees.
//!
//! `blake3::platform` is not documented and not stable: its version is pinned exactly, and the tests
//! compare every length with `blake3::hash`.

use blake3::platform::Platform;
use blake3::{CHUNK_LEN, IncrementCounter};

/// Above this an input fills the lanes by itself.
const INPUT_BYTES_MAX: usize = 16 * CHUNK_LEN;
/// Fewer inputs than this are hashed one after the other.
const GROUP_MIN: usize = 3;
/// Inputs that go side by side: the widest kernel's lanes.
const GROUP_MAX: usize = 16;
const HASH_BYTES: usize = 32;
const BLOCK_BYTES: usize = 64;

// Section 2.2 and table 3 of the BLAKE3 paper.
const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;
const KEYED_HASH: u8 = 16;

/// The hash of each input, in their order.
pub(crate) fn hash_many(key: Option<&[u8; 32]>, inputs: &[&[u8]]) -> Vec<[u8; 32]> {
    let alone = |input: &[u8]| match key {
        None => crate::blake3(input),
        Some(key) => crate::blake3_keyed(key, input),
    };
    let mut hashes = vec![[0; HASH_BYTES]; inputs.len()];
    let mut short: Vec<usize> = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.iter().enumerate() {
        if (CHUNK_LEN..=INPUT_BYTES_MAX).contains(&input.len()) {
            short.push(index);
        } else {
            hashes[index] = alone(input);
        }
    }
    // Neighbours of similar length keep the lanes full.
    if short.iter().any(|&index| inputs[index].len() != inputs[short[0]].len()) {
        short.sort_by_key(|&index| inputs[index].len());
    }
    let mut lanes = Lanes::new(key);
    for group in short.chunks(GROUP_MAX) {
        if group.len() < GROUP_MIN {
            for &index in group {
                hashes[index] = alone(inputs[index]);
            }
        } else {
            lanes.hash_group(inputs, group, &mut hashes);
        }
    }
    hashes
}

/// One input's chaining values of the tree's current level.
#[derive(Clone)]
struct Tree {
    values: [u8; INPUT_BYTES_MAX / CHUNK_LEN * HASH_BYTES],
    count: usize,
}

/// The kernel, the key and room for one group.
struct Lanes {
    platform: Platform,
    key_words: [u32; 8],
    flags: u8,
    trees: Vec<Tree>,
}

impl Lanes {
    fn new(key: Option<&[u8; 32]>) -> Self {
        let key_words = key.map_or(IV, |key| {
            std::array::from_fn(|word| {
                u32::from_le_bytes(std::array::from_fn(|byte| key[4 * word + byte]))
            })
        });
        let flags = if key.is_some() { KEYED_HASH } else { 0 };
        Self { platform: Platform::detect(), key_words, flags, trees: Vec::new() }
    }

    fn hash_group(&mut self, inputs: &[&[u8]], group: &[usize], hashes: &mut [[u8; 32]]) {
        let empty = Tree { values: [0; INPUT_BYTES_MAX / CHUNK_LEN * HASH_BYTES], count: 0 };
        self.trees.resize(group.len(), empty);
        let most = group.iter().map(|&index| inputs[index].len().div_ceil(CHUNK_LEN)).max();
        for chunk in 0..most.unwrap_or(0) {
            self.chunks_at(chunk, inputs, group);
        }
        while self.trees.iter().any(|tree| tree.count > 1) {
            self.join_pairs();
        }
        for (tree, &index) in self.trees.iter().zip(group) {
            hashes[index].copy_from_slice(&tree.values[..HASH_BYTES]);
        }
    }

    /// Compresses each input's chunk number `chunk`, whole ones side by side.
    fn chunks_at(&mut self, chunk: usize, inputs: &[&[u8]], group: &[usize]) {
        let mut whole: [&[u8; CHUNK_LEN]; GROUP_MAX] = [&[0; CHUNK_LEN]; GROUP_MAX];
        let mut owners = [0; GROUP_MAX];
        let mut lanes = 0;
        for (owner, &index) in group.iter().enumerate() {
            let rest = inputs[index].get(chunk * CHUNK_LEN..).unwrap_or_default();
            if let Some(bytes) = rest.first_chunk() {
                (whole[lanes], owners[lanes]) = (bytes, owner);
                lanes += 1;
            } else if !rest.is_empty() {
                let value = self.short_chunk(rest, chunk as u64);
                self.set(owner, chunk, &value);
            }
        }
        // The sole chunk of an input is its root. Such inputs are the shortest, so they come first.
        let sole = |owner: usize| inputs[group[owner]].len() == CHUNK_LEN;
        let split = (0..lanes).take_while(|&lane| sole(owners[lane])).count();
        for (range, root) in [(0..split, ROOT), (split..lanes, 0)] {
            let mut out = [0; GROUP_MAX * HASH_BYTES];
            let out = &mut out[..range.len() * HASH_BYTES];
            self.platform.hash_many(
                &whole[range.clone()],
                &self.key_words,
                chunk as u64,
                IncrementCounter::No,
                self.flags,
                CHUNK_START,
                CHUNK_END | root,
                out,
            );
            for (owner, value) in owners[range].iter().zip(out.chunks_exact(HASH_BYTES)) {
                self.set(*owner, chunk, value);
            }
        }
    }

    /// An input's last chunk, if it is not whole: block after block, as the lanes cannot help.
    fn short_chunk(&self, bytes: &[u8], counter: u64) -> [u8; HASH_BYTES] {
        let mut words = self.key_words;
        let blocks = bytes.len().div_ceil(BLOCK_BYTES);
        for (number, piece) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let mut block = [0; BLOCK_BYTES];
            block[..piece.len()].copy_from_slice(piece);
            let start = if number == 0 { CHUNK_START } else { 0 };
            let end = if number + 1 == blocks { CHUNK_END } else { 0 };
            let flags = self.flags | start | end;
            self.platform.compress_in_place(&mut words, &block, piece.len() as u8, counter, flags);
        }
        let mut value = [0; HASH_BYTES];
        for (bytes, word) in value.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        value
    }

    /// One level up in every tree that is not at its root; an odd last value goes up as it is.
    fn join_pairs(&mut self) {
        for root in [0, ROOT] {
            let level = |tree: &Tree| tree.count > 1 && (tree.count == 2) == (root == ROOT);
            let mut joined = [0; GROUP_MAX * GROUP_MAX / 2 * HASH_BYTES];
            let mut pairs: [&[u8; BLOCK_BYTES]; GROUP_MAX * GROUP_MAX / 2] =
                [&[0; BLOCK_BYTES]; GROUP_MAX * GROUP_MAX / 2];
            let mut count = 0;
            for tree in self.trees.iter().filter(|tree| level(tree)) {
                let values = &tree.values[..tree.count * HASH_BYTES];
                for pair in values.as_chunks().0 {
                    pairs[count] = pair;
                    count += 1;
                }
            }
            let joined = &mut joined[..count * HASH_BYTES];
            self.platform.hash_many(
                &pairs[..count],
                &self.key_words,
                0,
                IncrementCounter::No,
                self.flags | PARENT | root,
                0,
                0,
                joined,
            );
            let mut rest = &joined[..];
            for tree in self.trees.iter_mut().filter(|tree| level(tree)) {
                let (mine, others) = rest.split_at(tree.count / 2 * HASH_BYTES);
                tree.go_up(mine);
                rest = others;
            }
        }
    }

    fn set(&mut self, owner: usize, chunk: usize, value: &[u8]) {
        let tree = &mut self.trees[owner];
        tree.values[chunk * HASH_BYTES..][..HASH_BYTES].copy_from_slice(value);
        tree.count = chunk + 1;
    }
}

impl Tree {
    fn go_up(&mut self, joined: &[u8]) {
        let odd = self.count % 2;
        let last = (self.count - odd) * HASH_BYTES;
        self.values[..joined.len()].copy_from_slice(joined);
        if odd == 1 {
            self.values.copy_within(last..last + HASH_BYTES, joined.len());
        }
        self.count = self.count / 2 + odd;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{blake3, blake3_keyed, blake3_many, blake3_many_keyed};

    const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

    fn noise(bytes: usize) -> Vec<u8> {
        (0..bytes as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    fn check(inputs: &[&[u8]]) {
        let lengths = || inputs.iter().map(|input| input.len()).collect::<Vec<_>>();
        let plain: Vec<_> = inputs.iter().map(|input| blake3(input)).collect();
        assert!(blake3_many(inputs) == plain, "lengths {:?}", lengths());
        let keyed: Vec<_> = inputs.iter().map(|input| blake3_keyed(&KEY, input)).collect();
        assert!(blake3_many_keyed(&KEY, inputs) == keyed, "keyed, lengths {:?}", lengths());
    }

    #[test]
    fn every_length_up_to_17_kib_equals_one_by_one() {
        let bytes = noise(20 << 10);
        let step = if std::env::var_os("DWK_LONG").is_some() { 1 } else { 7 };
        for length in (0..=17 << 10).step_by(step) {
            let inputs: [&[u8]; 5] = std::array::from_fn(|offset| &bytes[offset..offset + length]);
            check(&inputs);
        }
    }

    #[test]
    fn lengths_around_chunk_and_block_ends_equal_one_by_one() {
        let bytes = noise(72 << 10);
        for chunks in 0..=70 {
            let edges = [0, 1, 2, 63, 64, 65, 511, 960, 1022, 1023];
            let inputs: Vec<&[u8]> =
                edges.iter().map(|edge| &bytes[*edge..][..(chunks << 10) + edge]).collect();
            check(&inputs);
        }
    }

    #[test]
    fn every_count_of_inputs_keeps_their_order() {
        let bytes = noise(8 << 10);
        for count in 0..70 {
            let inputs: Vec<&[u8]> = (0..count).map(|i| &bytes[i..i + 4096]).collect();
            check(&inputs);
        }
    }

    #[test]
    fn sole_chunks_mix_with_longer_inputs() {
        let bytes = noise(8 << 10);
        let lengths = [1024, 2048, 1024, 1025, 1023, 1024, 4096, 1024, 0, 1024];
        check(&lengths.map(|length| &bytes[..length]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn any_mixture_equals_one_by_one(lengths in proptest::collection::vec(prop_oneof![0usize..1100, 1000usize..18_000, 0usize..70_000], 0..50), offset in 0usize..64) {
            let bytes = noise((70 << 10) + 64);
            let inputs: Vec<&[u8]> = lengths.iter().map(|length| &bytes[offset..offset + length]).collect();
            check(&inputs);
        }
    }
}
