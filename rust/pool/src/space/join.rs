//! The check of a whole from the checks of its blocks, all of one length but for the last.
//!
//! The CRC of A ++ B is that of A times x^(8·|B|), plus that of B, modulo the polynomial. The factor of a
//! length is computed once for all blocks; then each costs one multiplication (zlib's `crc32_combine` does
//! the same).

/// CRC-64/NVME's polynomial, reflected: bit 63 stands for x^0.
const POLYNOMIAL: u64 = 0xad93_d235_94c9_3659u64.reverse_bits();
const ONE: u64 = 1 << 63;

/// The check of `bytes` bytes in blocks of `block_bytes`, of which these are the checks, in order.
pub(crate) fn join_blocks(checks: &[u64], bytes: u32, block_bytes: u32) -> u64 {
    let Some((last, whole)) = checks.split_last() else { return 0 };
    let factor = power(block_bytes);
    let Some((first, middle)) = whole.split_first() else { return *last };
    let joined = middle.iter().fold(*first, |joined, check| multiply(factor, joined) ^ check);
    let rest = bytes.saturating_sub(block_bytes.saturating_mul(whole.len() as u32));
    multiply(power(rest), joined) ^ last
}

/// x^(8·bytes).
fn power(bytes: u32) -> u64 {
    let (mut result, mut square, mut left) = (ONE, ONE >> 8, bytes);
    while left > 0 {
        if left & 1 == 1 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        left >>= 1;
    }
    result
}

fn multiply(a: u64, mut b: u64) -> u64 {
    let mut product = 0;
    for bit in (0..64).rev() {
        product ^= b & (a >> bit & 1).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    product
}

#[cfg(test)]
mod tests {
    use dwk_chunk::crc64nvme;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn joined_blocks_have_the_check_of_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            block_bytes in 1u32..2000,
        ) {
            let blocks = bytes.chunks(block_bytes as usize);
            let checks: Vec<u64> = blocks.map(crc64nvme).collect();
            let joined = join_blocks(&checks, bytes.len() as u32, block_bytes);
            prop_assert_eq!(joined, crc64nvme(&bytes));
        }
    }
}
