//! What a stream remembers beside its messages: from where on it shows them, also when there are none left.

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Error, Result, codes};
use dwk_meta::Meta;

use crate::keys::mark_row;

const VERSION: u8 = 0;

/// The body of a stream's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The first message that is shown; no number before it is given again.
    pub(crate) first: u64,
    /// No message is of an earlier time than this from now on.
    pub(crate) unix_ns: u64,
}

impl Mark {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).varint(self.first).u64(self.unix_ns);
        writer.finish()
    }

    fn decode(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body, "a stream's mark");
        if reader.u8()? != VERSION {
            let text = "a stream's mark is of another version";
            return Err(Error::new(&codes::FORMAT_NEWER, text));
        }
        let mark = Self { first: reader.varint()?, unix_ns: reader.u64()? };
        reader.end()?;
        if mark.first == 0 || mark.first == u64::MAX {
            return Err(reader.damaged("a number is out of its range"));
        }
        Ok(mark)
    }

    /// The mark of a stream; that of an empty one if there is none.
    ///
    /// # Errors
    /// `format.damaged`, `format.newer`
    pub(crate) fn load(meta: &Meta, id: u64) -> Result<Self> {
        let row = meta.get(&mark_row(id))?;
        row.map_or(Ok(Self { first: 1, unix_ns: 0 }), |row| Self::decode(&row.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_a_piece_of_one_is_damaged() {
        let mark = Mark { first: 0x1234, unix_ns: 77 };
        let body = mark.encode();
        assert_eq!(Mark::decode(&body).unwrap(), mark);
        for cut in 0..body.len() {
            assert!(Mark::decode(&body[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Mark::decode(&Mark { first: 0, unix_ns: 0 }.encode()).is_err());
        assert!(Mark::decode(&[&[1], &body[1..]].concat()).unwrap_err().is(&codes::FORMAT_NEWER));
    }
}
