//! The CRC of a whole from those of its pieces, without reading them again.
//!
//! The CRC of A ++ B is that of A times x^(8·|B|), plus that of B, modulo the polynomial (as zlib's `crc32_combine`
//! computes it since 1.2.12; CRCs whose initial value and final XOR are equal, as here, need no more). The powers of x
//! for lengths of 2^n bytes are constants, so that a length costs one multiplication for each of its bits that is 1.

/// The polynomial, reflected: bit 63 stands for x^0.
const POLYNOMIAL: u64 = 0xad93_d235_94c9_3659u64.reverse_bits();
const ONE: u64 = 1 << 63;

/// x^(8·2^n), for each n.
const POWERS: [u64; 64] = {
    let mut powers = [ONE >> 8; 64];
    let mut n = 1;
    while n < powers.len() {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

/// The CRC of `A ++ B`, from the CRC `a` of A, the CRC `b` of B and B's length in bytes.
///
/// Costs a multiplication for each bit of the length that is 1, and one more: 0.1 µs for most.
pub fn crc64_join(a: u64, b: u64, b_bytes: u64) -> u64 {
    multiply(power(b_bytes), a) ^ b
}

/// The CRC of `bytes` bytes in blocks of `block_bytes`, of which these are the CRCs, in order. The last one may be
/// shorter.
pub fn crc64_join_blocks(blocks: &[u64], bytes: u64, block_bytes: u64) -> u64 {
    let Some((last, whole)) = blocks.split_last() else { return 0 };
    let factor = power(block_bytes);
    let joined = whole.iter().fold(0, |joined, block| multiply(factor, joined) ^ block);
    let rest = bytes.saturating_sub(block_bytes.saturating_mul(whole.len() as u64));
    crc64_join(joined, *last, rest)
}

/// x^(8·bytes).
fn power(mut bytes: u64) -> u64 {
    let mut product = ONE;
    while bytes > 0 {
        product = multiply(product, POWERS[bytes.trailing_zeros() as usize]);
        bytes &= bytes - 1;
    }
    product
}

const fn multiply(a: u64, mut b: u64) -> u64 {
    let (mut product, mut bit) = (0, 64);
    while bit > 0 {
        bit -= 1;
        product ^= b & (a >> bit & 1).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Crc64, crc64nvme};

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_join_to_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..5000), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut joined = crc64nvme(b"");
            let mut stream = Crc64::new();
            let mut start = 0;
            for end in cuts.into_iter().chain([bytes.len()]) {
                let piece = &bytes[start..end];
                joined = crc64_join(joined, crc64nvme(piece), piece.len() as u64);
                stream.update(piece);
                start = end;
            }
            prop_assert_eq!(joined, crc64nvme(&bytes));
            prop_assert_eq!(stream.value(), joined);
        }

        #[test]
        fn blocks_join_to_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            block_bytes in 1usize..2000,
        ) {
            let blocks: Vec<u64> = bytes.chunks(block_bytes).map(crc64nvme).collect();
            let joined = crc64_join_blocks(&blocks, bytes.len() as u64, block_bytes as u64);
            prop_assert_eq!(joined, crc64nvme(&bytes));
        }

        #[test]
        fn any_length_joins_as_another_implementation_joins_it(a in any::<u64>(), b in any::<u64>(), bytes in any::<u64>(), shift in 0..64) {
            let bytes = bytes >> shift;
            let theirs = crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc64Nvme, a, b, bytes);
            prop_assert_eq!(crc64_join(a, b, bytes), theirs);
        }
    }

    #[test]
    fn a_length_beyond_memory_joins() {
        // Joining 2^40 zeroes in one step equals doubling them forty times.
        let mut crc = crc64nvme(&[0]);
        for doubling in 0..40 {
            crc = crc64_join(crc, crc, 1 << doubling);
        }
        let half = (0..39).fold(crc64nvme(&[0]), |crc, d| crc64_join(crc, crc, 1 << d));
        assert_eq!(crc64_join(half, half, 1 << 39), crc);
        assert_eq!(crc64_join(crc64nvme(b""), crc, 1 << 40), crc);
    }
}
