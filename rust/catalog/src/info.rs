//! What is known of an object without reading it, and how its row keeps it.

use std::collections::BTreeMap;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Error, Result, codes};

use crate::{Key, PutOptions};

/// The most bytes that content type, metadata and tags of one object take together.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;

/// The version of the body of an object's row.
const BODY: u8 = 0;

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key, with its container.
    pub key: Key,
    /// Its length.
    pub size_bytes: u64,
    /// Grows with each commit that touches the key and is never re-used.
    pub version: u64,
    /// CRC-64/NVME of the whole content.
    pub checksum: u64,
    /// What its writer said it is.
    pub content_type: Option<String>,
    /// What its writer wanted kept with it.
    pub metadata: BTreeMap<String, String>,
    /// Labels to find it by.
    pub tags: BTreeMap<String, String>,
    /// When this version was written, in nanoseconds since 1970.
    pub created_unix_ns: u64,
}

impl ObjectInfo {
    /// An opaque strong validator: equal exactly for the same version of the same object.
    pub fn etag(&self) -> String {
        format!("{:x}-{:016x}", self.version, self.checksum)
    }

    /// The body of its row. The version is not in it: it is that of the commit.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(64);
        writer.u8(BODY).varint(self.size_bytes).u64(self.checksum).u64(self.created_unix_ns);
        writer.str(self.content_type.as_deref().unwrap_or(""));
        pairs(&mut writer, &self.metadata);
        pairs(&mut writer, &self.tags);
        writer.finish()
    }

    pub(crate) fn decode(key: Key, version: u64, body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body, "an object's row");
        if reader.u8()? != BODY {
            let text = "an object's row is of another version";
            return Err(Error::new(&codes::FORMAT_NEWER, text).with("key", key));
        }
        let (size_bytes, checksum) = (reader.varint()?, reader.u64()?);
        let created_unix_ns = reader.u64()?;
        let content_type = Some(reader.str()?.to_owned()).filter(|text| !text.is_empty());
        let (metadata, tags) = (take_pairs(&mut reader)?, take_pairs(&mut reader)?);
        reader.end()?;
        Ok(Self {
            key,
            size_bytes,
            version,
            checksum,
            content_type,
            metadata,
            tags,
            created_unix_ns,
        })
    }

    pub(crate) fn new(key: Key, options: &PutOptions) -> Result<Self> {
        let length = |map: &BTreeMap<String, String>| -> usize {
            map.iter().map(|(name, value)| name.len() + value.len() + 8).sum()
        };
        let content_type = options.content_type.clone().filter(|text| !text.is_empty());
        let bytes = length(&options.metadata)
            + length(&options.tags)
            + content_type.as_ref().map_or(0, String::len);
        if bytes > METADATA_BYTES_MAX {
            let text = format!("{bytes} bytes of metadata, of at most {METADATA_BYTES_MAX}");
            return Err(Error::new(&codes::OBJECT_METADATA, text).with("key", key));
        }
        Ok(Self {
            key,
            size_bytes: 0,
            version: 0,
            checksum: 0,
            content_type,
            metadata: options.metadata.clone(),
            tags: options.tags.clone(),
            created_unix_ns: 0,
        })
    }
}

fn pairs(writer: &mut Writer, map: &BTreeMap<String, String>) {
    writer.varint(map.len() as u64);
    for (name, value) in map {
        writer.str(name).str(value);
    }
}

fn take_pairs(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>> {
    let count = reader.count(2)?;
    (0..count).map(|_| Ok((reader.str()?.to_owned(), reader.str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_info() -> impl Strategy<Value = ObjectInfo> {
        let map = || proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,8}", 0..4);
        (any::<[u64; 3]>(), proptest::option::of("[a-z]{1,9}"), map(), map()).prop_map(
            |([size_bytes, checksum, created_unix_ns], content_type, metadata, tags)| ObjectInfo {
                key: Key::new("docs/a").unwrap(),
                size_bytes,
                version: 7,
                checksum,
                content_type,
                metadata,
                tags,
                created_unix_ns,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_row_is_read_as_it_was_written_and_a_cut_one_is_refused(info in any_info(), cut in 0usize..64) {
            let body = info.encode();
            let read = ObjectInfo::decode(info.key.clone(), 7, &body);
            prop_assert_eq!(read.ok(), Some(info.clone()));
            let cut = cut.min(body.len() - 1);
            prop_assert!(ObjectInfo::decode(info.key, 7, &body[..cut]).is_err());
        }
    }

    #[test]
    fn metadata_has_a_limit() {
        let metadata = BTreeMap::from([("a".to_owned(), "x".repeat(METADATA_BYTES_MAX))]);
        let options = PutOptions { metadata, ..PutOptions::default() };
        let refused = ObjectInfo::new(Key::new("docs/a").unwrap(), &options);
        assert!(refused.is_err_and(|error| error.is(&codes::OBJECT_METADATA)));
    }
}
