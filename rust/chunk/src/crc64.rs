//! CRC-64/NVME (NVM Express specification 1.0c, 64b CRC; the same that S3 calls CRC64NVME).
//!
//! Polynomial 0xad93d23594c93659, reflected, initial value and final XOR all ones.

use crc_fast::{CrcAlgorithm, Digest};

/// The CRC-64/NVME of `bytes`.
///
/// ```
/// assert_eq!(dwk_chunk::crc64nvme(b"123456789"), 0xae8b_1486_0a79_9888);
/// ```
pub fn crc64nvme(bytes: &[u8]) -> u64 {
    crc_fast::crc64_nvme(bytes)
}

/// A CRC-64/NVME of bytes that come piece by piece.
#[derive(Clone)]
pub struct Crc64(Digest);

impl Crc64 {
    /// The CRC of nothing so far.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    /// Goes on with `bytes`.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// The CRC of everything so far; more may follow.
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Crc64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crc64({:016x})", self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as the definition says.
    fn reference(bytes: &[u8]) -> u64 {
        const POLYNOMIAL: u64 = 0xad93_d235_94c9_3659u64.reverse_bits();
        !bytes.iter().fold(!0u64, |crc, &byte| {
            (0..8).fold(crc ^ u64::from(byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL * (crc & 1)))
        })
    }

    #[test]
    fn published_check_values_hold() {
        assert_eq!(crc64nvme(b"123456789"), 0xae8b_1486_0a79_9888);
        // NVM Command Set specification, "64b CRC test cases": 4 KiB of zeroes, of ones, counting up.
        assert_eq!(crc64nvme(&[0; 4096]), 0x6482_d367_eb22_b64e);
        assert_eq!(crc64nvme(&[0xff; 4096]), 0xc0dd_ba73_02ec_a3ac);
        let counting: Vec<u8> = (0..4096).map(|i| i as u8).collect();
        assert_eq!(crc64nvme(&counting), 0x3e72_9f5f_6750_449c);
        assert_eq!(crc64nvme(b""), 0);
    }

    #[test]
    fn every_short_length_and_alignment_equals_the_reference() {
        let bytes: Vec<u8> =
            (0..1100u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for start in [0, 1, 7, 15, 33] {
            for length in (0..300).chain([511, 512, 513, 1023, 1024, 1025]) {
                let piece = &bytes[start..start + length];
                assert_eq!(crc64nvme(piece), reference(piece), "{start}+{length}");
            }
        }
    }
}
