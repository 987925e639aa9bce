//! Text that crosses into native code: what is none, or cannot be UTF-8, is refused in the words and with
//! the code of what it should have been.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use dwk_base::{Code, Error, codes};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::errors::to_py;

/// What a text is for.
pub(crate) trait Meaning {
    /// With its article, as it begins a sentence.
    const WHAT: &'static str;

    /// Says that it is none.
    fn code() -> &'static Code;
}

/// An object's key, or the beginning of one.
pub(crate) struct OfKey;
/// A container's name.
pub(crate) struct OfContainer;
/// Anything kept with an object.
pub(crate) struct OfMetadata;
/// An option of a call.
pub(crate) struct OfOption;
/// A drive's name or place.
pub(crate) struct OfDrive;
/// A geometry.
pub(crate) struct OfGeometry;

impl Meaning for OfKey {
    const WHAT: &'static str = "a key";

    fn code() -> &'static Code {
        &codes::OBJECT_KEY
    }
}

impl Meaning for OfContainer {
    const WHAT: &'static str = "a container's name";

    fn code() -> &'static Code {
        &codes::CONTAINER_NAME
    }
}

impl Meaning for OfMetadata {
    const WHAT: &'static str = "a content type, and each name and value of metadata and tags,";

    fn code() -> &'static Code {
        &codes::OBJECT_METADATA
    }
}

impl Meaning for OfOption {
    const WHAT: &'static str = "this option";

    fn code() -> &'static Code {
        &codes::STORE_OPTION
    }
}

impl Meaning for OfDrive {
    const WHAT: &'static str = "a drive's name or place";

    fn code() -> &'static Code {
        &codes::DRIVE_URL
    }
}

impl Meaning for OfGeometry {
    const WHAT: &'static str = "a geometry";

    fn code() -> &'static Code {
        &codes::GEOMETRY_INVALID
    }
}

/// Text with a meaning.
pub(crate) struct Text<M> {
    pub(crate) text: String,
    meaning: PhantomData<fn() -> M>,
}

impl<M: Meaning> FromPyObject<'_, '_> for Text<M> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let text = text::<M>(&value)?;
        Ok(Self { text, meaning: PhantomData })
    }
}

/// Names with values, of metadata or tags.
pub(crate) struct Labels(pub(crate) BTreeMap<String, String>);

impl FromPyObject<'_, '_> for Labels {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let Ok(labels) = value.cast::<PyDict>() else {
            let text = format!("metadata and tags are a dict, not {}", type_name(&value));
            return Err(refused(value.py(), &codes::OBJECT_METADATA, text));
        };
        let label = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            Ok((text::<OfMetadata>(&name)?, text::<OfMetadata>(&value)?))
        };
        labels.iter().map(label).collect::<PyResult<_>>().map(Self)
    }
}

fn text<M: Meaning>(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let Ok(text) = value.cast::<PyString>() else {
        let text = format!("{} is text (str), not {}", M::WHAT, type_name(value));
        return Err(refused(value.py(), M::code(), text));
    };
    text.extract::<String>().map_err(|_| {
        let text = format!("{} holds half a surrogate pair, which UTF-8 cannot say", M::WHAT);
        refused(value.py(), M::code(), text)
    })
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "that".to_owned(), |name| name.to_string())
}

fn refused(py: Python<'_>, code: &'static Code, text: String) -> PyErr {
    to_py(py, &Error::new(code, text))
}
