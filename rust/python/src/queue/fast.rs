//! `put(item)` and `get()` as CPython calls them, without the general way of taking arguments.
//!
//! A put costs some 20 ns altogether, and matching arguments to names is a third of that. So these two
//! stand in front of the methods of the same name: a call with positional arguments only that can be done
//! at once is done here; everything else goes on to the method as it came.

use std::ffi::CString;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::bounded::BoundedQueue;

type FastCall = unsafe extern "C" fn(
    *mut PyObject,
    *const *mut PyObject,
    ffi::Py_ssize_t,
    *mut PyObject,
) -> *mut PyObject;

static PUT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Puts the short cuts in front of the methods of `BoundedQueue`.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<BoundedQueue>();
    stand_in_front(&class, "put", put, &PUT)?;
    stand_in_front(&class, "get", get, &GET)
}

#[allow(unsafe_code, reason = "a method is made by hand")]
fn stand_in_front(
    class: &Bound<'_, PyType>,
    name: &str,
    call: FastCall,
    behind: &PyOnceLock<Py<PyAny>>,
) -> PyResult<()> {
    let py = class.py();
    let method = class.getattr(name)?;
    if behind.set(py, method.clone().unbind()).is_err() {
        return Ok(());
    }
    let signature: String = method.getattr("__text_signature__")?.extract()?;
    let text: String = method.getattr("__doc__")?.extract()?;
    let documentation = CString::new(format!("{name}{signature}\n--\n\n{text}"))?;
    let definition = ffi::PyMethodDef {
        ml_name: CString::new(name)?.into_raw(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: call },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: documentation.into_raw(),
    };
    // A class lives as long as the process, and so do the definitions of its methods.
    let definition = Box::leak(Box::new(definition));
    // SAFETY: `class` is a type, and the definition stays; the descriptor is a new reference or null.
    let made = unsafe {
        let made = ffi::PyDescr_NewMethod(class.as_ptr().cast(), definition);
        Bound::from_owned_ptr_or_err(py, made)?
    };
    class.setattr(name, made)
}

/// `BoundedQueue.put`
#[allow(unsafe_code, reason = "CPython's calling convention")]
unsafe extern "C" fn put(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    if count == 1 && names.is_null() {
        // SAFETY: the interpreter calls with the GIL, a `BoundedQueue` (the descriptor checks it) and
        // `count` arguments, which it holds until this returns.
        let went_in = unsafe {
            let py = Python::assume_attached();
            let item = *args;
            let pushed = guarded(py, slf, |queue| {
                let item = Bound::from_owned_ptr(py, item).unbind();
                // Not ours until it is in.
                queue.push_now(item).map_err(mem::forget).ok()
            });
            if pushed.is_some() {
                ffi::Py_IncRef(item);
            }
            pushed.is_some()
        };
        if went_in {
            // SAFETY: the GIL is held; a new reference to None.
            return unsafe {
                let none = ffi::Py_None();
                ffi::Py_IncRef(none);
                none
            };
        }
    }
    // SAFETY: what was given is passed on.
    unsafe { pass_on(&PUT, slf, args, count, names) }
}

/// `BoundedQueue.get`
#[allow(unsafe_code, reason = "CPython's calling convention")]
unsafe extern "C" fn get(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    if count == 0 && names.is_null() {
        // SAFETY: the interpreter calls with the GIL and a `BoundedQueue`.
        let taken = unsafe { guarded(Python::assume_attached(), slf, BoundedQueue::pop_now) };
        if let Some(item) = taken {
            return item.into_ptr();
        }
    }
    // SAFETY: what was given is passed on.
    unsafe { pass_on(&GET, slf, args, count, names) }
}

/// Runs `work` on the queue that `slf` is. A panic is a bug that shows again in the method behind.
///
/// # Safety
/// `slf` is a `BoundedQueue`.
#[inline]
#[allow(unsafe_code, reason = "the interpreter has checked the type")]
unsafe fn guarded<R>(
    py: Python<'_>,
    slf: *mut PyObject,
    work: impl FnOnce(&BoundedQueue) -> Option<R>,
) -> Option<R> {
    // SAFETY: the caller's word; the reference is held by the caller of the method.
    let queue = unsafe { Borrowed::from_ptr(py, slf).cast_unchecked::<BoundedQueue>() };
    catch_unwind(AssertUnwindSafe(|| work(queue.get()))).unwrap_or(None)
}

/// Calls the method `behind` with the same arguments.
///
/// # Safety
/// The arguments are those of a call by the interpreter.
#[cold]
#[allow(unsafe_code, reason = "CPython's calling convention")]
unsafe fn pass_on(
    behind: &PyOnceLock<Py<PyAny>>,
    slf: *mut PyObject,
    args: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the interpreter, so with the GIL.
    let py = unsafe { Python::assume_attached() };
    let outcome = (|| {
        // SAFETY: borrowed references that the caller holds; `names` is null or a tuple of names, whose
        // values follow the positional arguments.
        let (given, names) = unsafe {
            let names = Bound::from_borrowed_ptr_or_opt(py, names);
            let names = names.map(|names| names.cast_into_unchecked::<PyTuple>());
            let all = count as usize + names.as_ref().map_or(0, PyTupleMethods::len);
            let given = if all == 0 { &[][..] } else { slice::from_raw_parts(args, all) };
            let mut bound = vec![Bound::from_borrowed_ptr(py, slf)];
            bound.extend(given.iter().map(|one| Bound::from_borrowed_ptr(py, *one)));
            (bound, names)
        };
        let (positional, named) = given.split_at(1 + count as usize);
        let keywords = PyDict::new(py);
        for (name, value) in names.iter().flat_map(PyTupleMethods::iter).zip(named) {
            keywords.set_item(name, value)?;
        }
        let method = behind.get(py).map(|method| method.bind(py));
        method.map_or_else(
            || Err(pyo3::exceptions::PyRuntimeError::new_err("the module was not initialised")),
            |method| method.call(PyTuple::new(py, positional)?, Some(&keywords)),
        )
    })();
    match outcome {
        Ok(value) => value.into_ptr(),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}
