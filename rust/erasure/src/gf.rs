//! The field GF(2⁸) with the polynomial x⁸+x⁴+x³+x²+1 (0x11d) and the generator 2: Linux md's.

use std::sync::LazyLock;

/// `x · 2`.
const fn double(x: u8) -> u8 {
    (x << 1) ^ if x & 0x80 == 0 { 0 } else { 0x1d }
}

/// `a · b`, bit by bit: slow, readable, and what the tables are made from.
pub(crate) const fn mul(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

/// `x⁻¹` = x²⁵⁴; 0 gives 0.
pub(crate) const fn inverse(x: u8) -> u8 {
    let (mut power, mut result, mut left) = (x, 1, 254u8);
    while left > 0 {
        if left & 1 != 0 {
            result = mul(result, power);
        }
        power = mul(power, power);
        left >>= 1;
    }
    result
}

/// `2^exponent`.
pub(crate) fn power_of_two(exponent: usize) -> u8 {
    (0..exponent % 255).fold(1, |x, _| double(x))
}

/// The full multiplication table: `table()[c][x] = c · x`.
pub(crate) fn table() -> &'static [[u8; 256]; 256] {
    static TABLE: LazyLock<Box<[[u8; 256]; 256]>> = LazyLock::new(|| {
        let mut table = Box::new([[0u8; 256]; 256]);
        for (c, row) in table.iter_mut().enumerate() {
            for bit in 0..8 {
                let product = mul(c as u8, 1 << bit);
                for low in 0..1usize << bit {
                    row[low | 1 << bit] = row[low] ^ product;
                }
            }
        }
        table
    });
    &TABLE
}

/// The 8×8 bit matrix of `x ↦ c·x` as `gf2p8affineqb` wants it: byte 7−i holds the row of bit i.
pub(crate) fn affine(c: u8) -> u64 {
    static TABLE: LazyLock<[u64; 256]> =
        LazyLock::new(|| std::array::from_fn(|c| affine_of(c as u8)));
    TABLE[c as usize]
}

fn affine_of(c: u8) -> u64 {
    let columns: [u8; 8] = std::array::from_fn(|bit| mul(c, 1 << bit));
    (0..8).fold(0, |matrix, bit| {
        let row = (0..8).fold(0u8, |row, j| row | ((columns[j] >> bit) & 1) << j);
        matrix | u64::from(row) << (8 * (7 - bit))
    })
}

/// `c·x` for the 16 low nibbles, then for the 16 high nibbles, as byte shuffles want it.
pub(crate) fn nibbles(c: u8) -> [u8; 32] {
    let times = &table()[c as usize];
    std::array::from_fn(|x| if x < 16 { times[x] } else { times[(x - 16) << 4] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nonzero_element_has_an_inverse() {
        assert!((1..=255).all(|x| mul(x, inverse(x)) == 1));
    }

    #[test]
    fn powers_of_two_are_all_nonzero_elements() {
        let mut seen = [false; 256];
        for exponent in 0..255 {
            seen[power_of_two(exponent) as usize] = true;
        }
        assert!(seen[1..].iter().all(|&x| x) && !seen[0]);
        assert_eq!(power_of_two(255), 1);
    }

    #[test]
    fn tables_say_what_the_definition_says() {
        for c in 0..=255u8 {
            let (bits, halves) = (affine(c), nibbles(c));
            for x in 0..=255u8 {
                let want = mul(c, x);
                assert_eq!(table()[c as usize][x as usize], want);
                assert_eq!(halves[(x & 15) as usize] ^ halves[16 + (x >> 4) as usize], want);
                let by_bits = (0..8).fold(0u8, |y, i| {
                    let row = (bits >> (8 * (7 - i))) as u8;
                    y | (((row & x).count_ones() & 1) as u8) << i
                });
                assert_eq!(by_bits, want);
            }
        }
    }
}
