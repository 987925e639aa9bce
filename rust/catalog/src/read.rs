//! Reading an object.

use dwk_base::{Deadline, Error, Pour, Result, codes};
use dwk_chunk::Crc64;
use dwk_meta::ContentReader;

use crate::{Catalog, Key, ObjectInfo};

/// Reads one version of an object, which stays readable while it is held, also when it is deleted or
/// replaced meanwhile.
pub struct ObjectReader {
    info: ObjectInfo,
    content: ContentReader,
    /// Checksum of everything up to its own end, while all reads came in order from the start.
    running: Option<(Crc64, u64)>,
}

impl Catalog {
    /// Opens an object for reading.
    ///
    /// # Errors
    /// `object.not_found`, `container.not_found`, `context.deadline`, and those of reading the map
    pub fn get(&self, key: &Key, deadline: &Deadline) -> Result<ObjectReader> {
        let found = self.meta.read_until(&key.row(), deadline)?;
        let (row, content) = found.ok_or_else(|| self.not_found(key))?;
        let info = ObjectInfo::decode(key.clone(), row.version, &row.body)?;
        if content.bytes() != info.size_bytes {
            let (said, there) = (info.size_bytes, content.bytes());
            let text = format!("object {key} should hold {said} bytes and its row lists {there}");
            return Err(Error::new(&codes::FORMAT_DAMAGED, text).with("key", key));
        }
        Ok(ObjectReader { info, content, running: Some((Crc64::new(), 0)) })
    }
}

impl ObjectReader {
    /// From now on reads take no longer than to then, and fail with `context.deadline`.
    pub fn set_deadline(&mut self, deadline: &Deadline) {
        self.content.set_deadline(deadline);
    }

    /// What is known of the object.
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// Shows `bytes` from `offset`, in order, in slices; returns how many there were: fewer than asked only
    /// at the end.
    ///
    /// Every block is verified before it is shown. Who reads in order from start to end has the whole
    /// verified once more, against the checksum that was taken when it was written.
    ///
    /// # Errors
    /// `data.corrupt`, `drive.io`, `context.deadline`, …: what was shown by this call is not to be used then.
    pub fn show(
        &mut self,
        offset: u64,
        bytes: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<usize> {
        let left = self.info.size_bytes.saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(bytes);
        let mut running = self.running.take().filter(|(_, at)| *at == offset);
        let mut shown = |bytes: &[u8]| {
            if let Some((crc, at)) = &mut running {
                crc.update(bytes);
                *at += bytes.len() as u64;
            }
            take(bytes);
        };
        let mut filled = 0;
        while filled < wanted {
            let from = offset + filled as u64;
            match self.content.show(from, wanted - filled, &mut shown)? {
                0 => return Err(self.corrupt("its content ends early")),
                more => filled += more,
            }
        }
        match running {
            Some((crc, at)) if at == self.info.size_bytes => {
                if crc.value() != self.info.checksum {
                    return Err(self.corrupt("its checksum is wrong"));
                }
            }
            on => self.running = on,
        }
        Ok(filled)
    }

    /// Fills `into` from `offset`; returns how many bytes were there: fewer only at the end.
    ///
    /// # Errors
    /// As [`show`](Self::show).
    pub fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let (bytes, mut pour) = (into.len(), Pour::new(into));
        self.show(offset, bytes, &mut |piece| pour.take(piece))
    }

    fn corrupt(&self, why: &str) -> Error {
        let key = &self.info.key;
        Error::new(&codes::DATA_CORRUPT, format!("object {key}: {why}")).with("key", key)
    }
}

impl std::fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ObjectReader").field(&self.info.key.as_str()).finish()
    }
}
