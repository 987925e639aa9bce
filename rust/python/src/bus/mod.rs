//! `dwkernel.bus`: a tenant's namespace, its subscriptions, and messages.

mod consumer;
mod filter;
mod message;
mod publishing;
mod settings;
mod space;
mod stream;
mod subscription;

pub(crate) use consumer::BusConsumer;
pub(crate) use filter::BusFilter;
pub(crate) use message::Message;
pub(crate) use publishing::BusPublishing;
pub(crate) use space::BusSpace;
pub(crate) use stream::{BusCursor, BusStream, BusStreams, outgoing};
pub(crate) use subscription::BusSubscription;

use dwk_base::{Error, codes};
use pyo3::prelude::*;

use crate::errors::to_py;

/// An option's value as it is needed.
///
/// # Errors
/// `stream.option` if it is of another type, or out of range
fn option<'py, T>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    value.extract().map_err(|_| {
        let text = format!("{name}={value:?} is not possible");
        to_py(value.py(), &Error::new(&codes::STREAM_OPTION, text).with("option", name))
    })
}
