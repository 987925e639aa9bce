//! Names, and the rows that they are kept under.

use std::fmt;

use dwk_base::{Error, Result, codes};

/// The longest container name, in bytes.
const CONTAINER_BYTES_MAX: usize = 255;
/// The longest object name within its container, in bytes.
const NAME_BYTES_MAX: usize = 4096;

/// The most characters of a wrong name that its error repeats.
const SHOWN_CHARS: usize = 200;

/// First byte of a container's row.
pub(crate) const CONTAINER_ROW: u8 = 1;
/// First byte of an object's row.
pub(crate) const OBJECT_ROW: u8 = 2;

/// A container's name: 1 to 255 bytes of UTF-8 without `/` and NUL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerName(String);

impl ContainerName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// `container.name`
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if name.is_empty() || name.len() > CONTAINER_BYTES_MAX || name.contains(['/', '\0']) {
            let shown = shown(&name);
            let text = format!("not a container name: {shown:?}");
            return Err(Error::new(&codes::CONTAINER_NAME, text).with("container", shown));
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn row(&self) -> Vec<u8> {
        row(CONTAINER_ROW, &self.0)
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's key: `container/name`, the name 1 to 4096 bytes of UTF-8 without NUL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    container: ContainerName,
    text: String,
}

impl Key {
    /// Checks and takes a key; it is kept exactly as given.
    ///
    /// # Errors
    /// `object.key`, `container.name`
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let Some((container, name)) = text.split_once('/') else {
            return Err(invalid(&text, "it has no '/' after the container"));
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(invalid(&text, "the name is empty or longer than 4096 bytes"));
        }
        if name.contains('\0') {
            return Err(invalid(&text, "the name holds a NUL"));
        }
        Ok(Self { container: ContainerName::new(container)?, text })
    }

    /// The container.
    pub fn container(&self) -> &ContainerName {
        &self.container
    }

    /// The name within the container.
    pub fn name(&self) -> &str {
        &self.text[self.container.0.len() + 1..]
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn row(&self) -> Vec<u8> {
        object_row(&self.text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The row of an object, or the place in the order of rows of any text.
///
/// Rows sort as keys do, over all containers: the separator in the row is the `/` of the key.
pub(crate) fn object_row(text: &str) -> Vec<u8> {
    row(OBJECT_ROW, text)
}

fn row(kind: u8, text: &str) -> Vec<u8> {
    let mut row = Vec::with_capacity(text.len() + 1);
    row.push(kind);
    row.extend_from_slice(text.as_bytes());
    row
}

/// The text of a row that was found under `kind`.
pub(crate) fn text_of(row: &[u8]) -> Result<&str> {
    let damaged = || Error::new(&codes::FORMAT_DAMAGED, "a row's key is not text");
    std::str::from_utf8(row.get(1..).ok_or_else(damaged)?).map_err(|_| damaged())
}

fn invalid(text: &str, why: &str) -> Error {
    let shown = shown(text);
    Error::new(&codes::OBJECT_KEY, format!("not an object's key: {shown:?}: {why}"))
        .with("key", shown)
}

/// So much of what somebody gave as an error has room for.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_kept_as_given_and_bad_ones_refused() {
        let key = Key::new("docs/a/b//ä").unwrap();
        assert_eq!((key.container().as_str(), key.name()), ("docs", "a/b//ä"));
        assert_ne!(Key::new("docs/\u{e9}").unwrap(), Key::new("docs/e\u{301}").unwrap());
        for text in ["", "docs", "docs/", "/name", "do\0cs/a", "docs/a\0"] {
            assert!(Key::new(text).is_err(), "{text:?}");
        }
        assert!(Key::new(format!("docs/{}", "x".repeat(4096))).is_ok());
        assert!(Key::new(format!("docs/{}", "x".repeat(4097))).is_err());
        assert!(Key::new(format!("{}/x", "c".repeat(256))).is_err());
        for huge in ["ä".repeat(1 << 20), format!("docs/{}", "ä".repeat(1 << 20))] {
            let told = Key::new(huge).unwrap_err().to_string();
            assert!(told.len() < 1000 && told.contains("2097"), "{} bytes", told.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn rows_sort_as_keys_do(a in "[a-c/]{1,6}", b in "[a-c/]{1,6}") {
            prop_assert_eq!(object_row(&a).cmp(&object_row(&b)), a.as_bytes().cmp(b.as_bytes()));
            let row = object_row(&a);
            prop_assert_eq!(text_of(&row).unwrap(), a);
        }
    }
}
