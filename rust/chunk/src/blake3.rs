//! BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2020) of one input.

use crate::lanes;

/// The BLAKE3 of `bytes`.
///
/// ```
/// let hash = dwk_chunk::blake3(b"abc");
/// assert_eq!(hash[..4], [0x64, 0x37, 0xb3, 0xac]);
/// ```
pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *::blake3::hash(bytes).as_bytes()
}

/// The BLAKE3 of `bytes` under `key`: who does not have the key can neither make nor check it.
pub fn blake3_keyed(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    *::blake3::keyed_hash(key, bytes).as_bytes()
}

/// The BLAKE3 of each input, in their order; each equals [`blake3`] of that input.
///
/// Inputs of 1 KiB to 16 KiB go through the SIMD lanes side by side, which is several times faster than
/// one after the other: a single short input cannot fill the lanes.
pub fn blake3_many(inputs: &[&[u8]]) -> Vec<[u8; 32]> {
    lanes::hash_many(None, inputs)
}

/// The BLAKE3 of each input under `key`; each equals [`blake3_keyed`] of that input.
pub fn blake3_many_keyed(key: &[u8; 32], inputs: &[&[u8]]) -> Vec<[u8; 32]> {
    lanes::hash_many(Some(key), inputs)
}

/// A BLAKE3 of bytes that come piece by piece.
///
/// Pieces of at least 64 KiB go at full speed; many tiny ones cost a copy each.
#[derive(Clone, Debug)]
pub struct Blake3(::blake3::Hasher);

impl Blake3 {
    /// Without a key.
    pub fn new() -> Self {
        Self(::blake3::Hasher::new())
    }

    /// Under `key`.
    pub fn keyed(key: &[u8; 32]) -> Self {
        Self(::blake3::Hasher::new_keyed(key))
    }

    /// Goes on with `bytes`.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// The hash of everything so far; more may follow.
    pub fn value(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

impl Default for Blake3 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(hash: &[u8; 32]) -> String {
        ::blake3::Hash::from_bytes(*hash).to_hex().to_string()
    }

    #[test]
    fn published_vectors_hold() {
        // From BLAKE3's test_vectors.json: the input counts 0..=250 over and over.
        let input: Vec<u8> = (0..102_400u32).map(|i| (i % 251) as u8).collect();
        let key = b"whats the Elvish word for friend";
        let cases = [
            (
                0,
                "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
                "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
            ),
            (
                1,
                "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
                "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b",
            ),
            (
                1024,
                "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
                "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4",
            ),
        ];
        for (length, plain, keyed) in cases {
            assert_eq!(hex(&blake3(&input[..length])), plain, "{length}");
            assert_eq!(hex(&blake3_keyed(key, &input[..length])), keyed, "{length}");
        }
    }

    #[test]
    fn pieces_hash_to_the_whole() {
        let bytes: Vec<u8> = (0..70_000u32).map(|i| (i * 7) as u8).collect();
        for piece_bytes in [1, 63, 1024, 4097, 70_000] {
            let (mut plain, mut keyed) = (Blake3::new(), Blake3::keyed(&[9; 32]));
            for piece in bytes.chunks(piece_bytes) {
                plain.update(piece);
                keyed.update(piece);
            }
            assert_eq!(plain.value(), blake3(&bytes), "{piece_bytes}");
            assert_eq!(keyed.value(), blake3_keyed(&[9; 32], &bytes), "{piece_bytes}");
        }
    }
}
