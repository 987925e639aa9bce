"""Names and checksums of bytes: BLAKE3 and CRC-64/NVME.

Every function takes any C-contiguous buffer: bytes, bytearray, memoryview, mmap, NumPy array. Exact
`bytes` are read where they lie; other buffers, which another thread could change, go through a
small copy.

>>> from dwkernel import hashing
>>> hashing.blake3_many([b"abc", b""])[0] == hashing.blake3(b"abc")
True
>>> hex(hashing.crc64nvme(b"123456789"))
'0xae8b14860a799888'
>>> head, tail = hashing.crc64nvme(b"12345"), hashing.crc64nvme(b"6789")
>>> hashing.crc64_join(head, tail, 4) == hashing.crc64nvme(b"123456789")
True
"""

from dwkernel._native import blake3, blake3_many, crc64_join, crc64nvme

__all__ = ["blake3", "blake3_many", "crc64_join", "crc64nvme"]
