//! `dwkernel._native`: bindings, no logic.
//!
//! - [`detach`]: the one way out of the interpreter: releases the GIL, catches panics, maps errors;
//! - [`buffers`]: Python's memory, borrowed where nobody can write to it, copied where somebody can;
//! - [`errors`]: `base::Error` as Python exceptions;
//! - everything else takes arguments apart, calls a crate and wraps what comes back.

mod aside;
mod buffers;
mod bus;
mod bytes_queue;
mod collecting;
mod detach;
mod drives;
mod erasure;
mod errors;
mod files;
mod forks;
mod hashing;
mod held;
mod line;
mod malloc;
mod opening;
mod policies;
mod pool;
mod queue;
mod reader;
mod rows;
mod sources;
mod store;
mod texts;
mod units;
mod waiting;

use pyo3::prelude::*;

/// The native part of dwkernel; use the public modules instead.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::bus::{
        BusConsumer, BusCursor, BusFilter, BusPublishing, BusSpace, BusStream, BusStreams,
        BusSubscription, Message,
    };
    #[pymodule_export]
    use super::bytes_queue::SharedQueue;
    #[pymodule_export]
    use super::collecting::rejuvenate;
    #[pymodule_export]
    use super::drives::{register, unregister};
    #[pymodule_export]
    use super::erasure::{PyCode, PyGeometry, levels};
    #[pymodule_export]
    use super::errors::error_registry;
    #[pymodule_export]
    use super::forks::forked;
    #[pymodule_export]
    use super::hashing::{blake3, blake3_many, crc64_join, crc64nvme};

    #[pymodule_export]
    use super::policies::{PolicyBatch, PolicyDesk};
    #[pymodule_export]
    use super::pool::Pool;
    #[cfg(unix)]
    #[pymodule_export]
    use super::queue::Bell;
    #[pymodule_export]
    use super::queue::{BoundedQueue, QueueTurn};
    #[pymodule_export]
    use super::reader::ObjectReader;
    #[pymodule_export]
    use super::store::{Caller, Store, forget_memory_drives};
    #[pymodule_export]
    use super::units::{format_size, parse_duration, parse_size};

    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::queue::install(module.py())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
