//! The byte codec of every on-disk record: little-endian integers, LEB128 lengths, no alignment.
//!
//! A [`Reader`] never panics and never allocates more than its input holds: whatever lies on a drive
//! may have been written by an enemy.

use crate::{Error, Result, codes};

/// Appends fields to a byte vector.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty writer with room.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// An unsigned LEB128 number: 1 to 10 bytes.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8)
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A varint length, then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }

    /// A string, as bytes.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Zeroes until the length is `length`.
    ///
    /// # Panics
    /// If more than `length` bytes are there.
    pub fn pad_to(&mut self, length: usize) -> &mut Self {
        assert!(self.bytes.len() <= length, "{} bytes do not fit {length}", self.bytes.len());
        self.bytes.resize(length, 0);
        self
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes fields from bytes; every call fails with `format.damaged` when they are not there.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names the record in errors.
    pub const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// An error that names the record.
    pub fn damaged(&self, why: &str) -> Error {
        Error::new(&codes::FORMAT_DAMAGED, format!("{} is damaged: {why}", self.what))
    }

    /// The next `length` bytes as they are.
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8]> {
        if length > self.rest.len() {
            return Err(self.damaged("it ends early"));
        }
        let (head, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An unsigned LEB128 number.
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number is too long"))
    }

    /// A count of things that take at least `bytes_each` bytes each in what is left.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize> {
        let count = self.varint()?;
        if count > (self.rest.len() / bytes_each.max(1)) as u64 {
            return Err(self.damaged("a count is larger than the record"));
        }
        Ok(count as usize)
    }

    /// A varint length, then the bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.count(1)?;
        self.raw(length)
    }

    /// A string.
    pub fn str(&mut self) -> Result<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged("text is not UTF-8"))
    }

    /// What is left.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True if nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails unless everything was read.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("bytes are left over")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new();
        writer.u8(1).u16(2).u32(3).u64(4).varint(300).varint(u64::MAX).str("ä").bytes(b"xyz");
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes, "a test");
        let read = (|| {
            let ints = (reader.u8()?, reader.u16()?, reader.u32()?, reader.u64()?);
            let rest = (reader.varint()?, reader.varint()?, reader.str()?, reader.bytes()?);
            reader.end()?;
            Ok::<_, Error>((ints, rest))
        })();
        assert_eq!(read.ok(), Some(((1, 2, 3, 4), (300, u64::MAX, "ä", b"xyz".as_slice()))));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        for bytes in [&[0xff; 12][..], &[0x80], &[], &[5, 1, 2]] {
            assert!(Reader::new(bytes, "x").bytes().is_err());
        }
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0x7f], "x").count(1).is_err());
    }

    #[test]
    fn a_number_has_64_bits_and_no_more() {
        let number = |last: u8| [&[0xff; 9][..], &[last]].concat();
        assert_eq!(Reader::new(&number(1), "x").varint().ok(), Some(u64::MAX));
        for last in [2, 3, 0x7f, 0x80, 0x81] {
            assert!(Reader::new(&number(last), "x").varint().is_err(), "{last}");
        }
    }

    #[test]
    fn a_count_is_of_what_has_room_in_the_rest() {
        for (left, each, most) in [(6, 2, 3), (7, 2, 3), (5, 1, 5), (1, 2, 0), (0, 0, 0), (4, 0, 4)]
        {
            for count in 0..9 {
                let bytes = [vec![count], vec![0; left]].concat();
                let mut reader = Reader::new(&bytes, "x");
                assert_eq!(reader.count(each).is_ok(), count <= most, "{count} of {left}/{each}");
            }
        }
    }

    #[test]
    fn what_is_left_over_is_damage() {
        let mut reader = Reader::new(&[1, 2], "a test");
        assert!(!reader.is_empty() && reader.rest() == [1, 2]);
        assert_eq!(reader.u8().ok(), Some(1));
        assert!(reader.end().is_err_and(|error| error.message().contains("a test")));
        assert_eq!(reader.u8().ok(), Some(2));
        assert!(reader.is_empty() && reader.end().is_ok());
    }

    #[test]
    fn a_writer_knows_what_it_has() {
        let mut writer = Writer::new();
        assert!(writer.is_empty() && writer.as_slice().is_empty());
        writer.u8(9).pad_to(3);
        assert!(!writer.is_empty() && writer.len() == 3 && writer.as_slice() == [9, 0, 0]);
        assert_eq!(writer.finish(), [9, 0, 0]);
    }
}
