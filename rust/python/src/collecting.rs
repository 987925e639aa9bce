//! The interpreter's garbage collector, asked to look at certain objects first.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;

/// Moves objects into the collector's youngest generation, as if they had just been made.
#[pyfunction]
#[allow(unsafe_code, reason = "the collector is reached through C only")]
pub(crate) fn rejuvenate(objects: &Bound<'_, PyList>) {
    for object in objects.iter() {
        let at = object.as_ptr();
        // SAFETY: the list keeps the object alive. The interpreter is held: where a collection lets
        // go of it, for finalizers, objects may be freed and made, which unlinks and links them as
        // is done here. What was tracked is tracked again, once.
        unsafe {
            if ffi::PyObject_GC_IsTracked(at) == 1 {
                ffi::PyObject_GC_UnTrack(at.cast());
                ffi::PyObject_GC_Track(at.cast());
            }
        }
    }
}
