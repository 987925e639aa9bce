//! What can be put.

/// Bytes, whole or in pieces.
pub trait Message {
    /// Length in bytes.
    fn bytes(&self) -> usize;

    /// Hands out the bytes in order, exactly [`Self::bytes`] of them. Called while other producers wait.
    fn for_each_piece(&self, each: impl FnMut(&[u8]));
}

impl Message for [u8] {
    #[inline]
    fn bytes(&self) -> usize {
        self.len()
    }

    #[inline]
    fn for_each_piece(&self, mut each: impl FnMut(&[u8])) {
        each(self);
    }
}

impl<M: Message + ?Sized> Message for &M {
    #[inline]
    fn bytes(&self) -> usize {
        (**self).bytes()
    }

    #[inline]
    fn for_each_piece(&self, each: impl FnMut(&[u8])) {
        (**self).for_each_piece(each);
    }
}
