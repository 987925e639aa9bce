//! Hashing and checksums: BLAKE3, CRC-64/NVME.
