//! What streams and consumers were made with, by name: the other way of the options that make them.

use dwk_stream::{Ack, ConsumerConfig, Discard, From as Begin, Retention, StreamConfig};
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(super) fn of_stream<'py>(
    py: Python<'py>,
    config: &StreamConfig,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("max_age_s", config.max_age.map(|age| age.as_secs_f64()))?;
    dict.set_item("max_bytes", config.max_bytes)?;
    dict.set_item("max_messages", config.max_messages)?;
    let discard = match config.discard {
        Discard::Old => "old",
        Discard::New => "new",
    };
    dict.set_item("discard", discard)?;
    let retention = match config.retention {
        Retention::Limits => "limits",
        Retention::Interest => "interest",
        Retention::WorkQueue => "work_queue",
    };
    dict.set_item("retention", retention)?;
    dict.set_item("keep_last_per_key", config.keep_last_per_key)?;
    dict.set_item("duplicate_window_s", config.duplicate_window.as_secs_f64())?;
    Ok(dict)
}

pub(super) fn of_consumer<'py>(
    py: Python<'py>,
    config: &ConsumerConfig,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let ack = match config.ack {
        Ack::Explicit => "explicit",
        Ack::None => "none",
        Ack::All => "all",
    };
    dict.set_item("ack", ack)?;
    dict.set_item("ack_wait_s", config.ack_wait.as_secs_f64())?;
    dict.set_item("max_deliver", config.max_deliver)?;
    let backoff: Vec<f64> = config.backoff.iter().map(std::time::Duration::as_secs_f64).collect();
    dict.set_item("backoff_s", backoff)?;
    dict.set_item("max_ack_pending", config.max_ack_pending)?;
    dict.set_item("filter", config.filter.as_ref().map(ToString::to_string))?;
    let subjects: Vec<&str> = config.subjects.iter().map(dwk_bus::Pattern::as_str).collect();
    dict.set_item("subjects", subjects)?;
    let start = match config.start {
        Begin::First => ("first", None),
        Begin::Last => ("last", None),
        Begin::Next => ("new", None),
        Begin::Sequence(number) => ("sequence", Some(number)),
        Begin::Time(unix_ns) => ("time", Some(unix_ns)),
    };
    dict.set_item("start", start)?;
    dict.set_item("priority_window", config.priority_window)?;
    dict.set_item("dead_letters", config.dead_letter)?;
    dict.set_item("inactive_after_s", config.inactive_after.map(|after| after.as_secs_f64()))?;
    Ok(dict)
}
