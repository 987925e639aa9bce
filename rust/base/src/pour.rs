//! Bytes that come in pieces, into one slice.

/// Fills a slice from its start on.
#[derive(Debug)]
pub struct Pour<'a> {
    rest: &'a mut [u8],
}

impl<'a> Pour<'a> {
    /// Nothing is filled yet.
    pub const fn new(into: &'a mut [u8]) -> Self {
        Self { rest: into }
    }

    /// Takes the next piece.
    ///
    /// # Panics
    /// If it is longer than what is left to fill.
    pub fn take(&mut self, piece: &[u8]) {
        let (to, rest) = std::mem::take(&mut self.rest).split_at_mut(piece.len());
        to.copy_from_slice(piece);
        self.rest = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stand_one_after_the_other() {
        let mut bytes = [9; 5];
        let mut pour = Pour::new(&mut bytes);
        for piece in [&b"ab"[..], b"", b"c"] {
            pour.take(piece);
        }
        assert_eq!(&bytes, b"abc\x09\x09");
    }
}
