//! Names and checksums of bytes: BLAKE3 (one-shot, keyed, streaming, many at once) and CRC-64/NVME.
//!
//! # How to use
//! ```
//! let name = dwk_chunk::blake3(b"some content");
//! let names = dwk_chunk::blake3_many(&[b"some content", b"other content"]);
//! assert_eq!(name, names[0]);
//!
//! let (head, tail) = (dwk_chunk::crc64nvme(b"12345"), dwk_chunk::crc64nvme(b"6789"));
//! assert_eq!(dwk_chunk::crc64_join(head, tail, 4), dwk_chunk::crc64nvme(b"123456789"));
//! ```
//!
//! # Which one
//! BLAKE3 names content and finds wrong bytes that somebody made; CRC-64/NVME finds wrong bytes that
//! hardware made, several times faster, and joins without reading the bytes again.
//!
//! Everything here is pure: no I/O, no threads, no allocation but the results.

mod blake3;
mod crc64;
mod join;
mod lanes;

pub use blake3::{Blake3, blake3, blake3_keyed, blake3_many, blake3_many_keyed};
pub use crc64::{Crc64, crc64nvme};
pub use join::{crc64_join, crc64_join_blocks};
