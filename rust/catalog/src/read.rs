//! Reading an object.

use dwk_base::{Error, Result, codes};
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
    /// `object.not_found`, `container.not_found`, and those of reading the map
    pub fn get(&self, key: &Key) -> Result<ObjectReader> {
        let found = self.meta.read(&key.row())?;
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
    /// What is known of the object.
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// Reads at `offset`; returns how many bytes were there: fewer than asked only at the end.
    ///
    /// Every block is verified. Who reads in order from start to end has the whole verified once more,
    /// against the checksum that was taken when it was written.
    ///
    /// # Errors
    /// `data.corrupt`, `drive.io`, …
    pub fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let left = self.info.size_bytes.saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let mut filled = 0;
        while filled < wanted {
            match self.content.read_at(offset + filled as u64, &mut into[filled..wanted])? {
                0 => return Err(self.corrupt("its content ends early")),
                more => filled += more,
            }
        }
        self.follow(offset, &into[..filled])?;
        Ok(filled)
    }

    fn follow(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some((crc, at)) = &mut self.running else { return Ok(()) };
        if *at != offset {
            self.running = None;
            return Ok(());
        }
        crc.update(bytes);
        *at += bytes.len() as u64;
        if *at < self.info.size_bytes {
            return Ok(());
        }
        let whole = self.running.take().map(|(crc, _)| crc.value());
        if whole == Some(self.info.checksum) {
            Ok(())
        } else {
            Err(self.corrupt("its checksum is wrong"))
        }
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
