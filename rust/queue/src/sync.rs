//! What threads share, from the standard library or from a model checker that tries every interleaving.
//!
//! The features `loom` and `shuttle` are for this crate's own tests (tests/loom.rs, tests/shuttle.rs).
//! loom knows `SeqCst` in fences only, so each place that leans on the single order of `SeqCst`
//! operations calls [`seq_cst_for_loom`] as well; outside loom it is nothing.

#![allow(unsafe_code, reason = "rooms that a protocol outside of them guards")]

#[cfg(all(feature = "loom", feature = "shuttle"))]
compile_error!("one model checker at a time");

#[cfg(feature = "loom")]
mod kind {
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering, fence};
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;
}

#[cfg(all(feature = "shuttle", not(feature = "loom")))]
mod kind {
    pub(crate) use shuttle::hint::spin_loop;
    pub(crate) use shuttle::sync::atomic::{AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread::yield_now;
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod kind {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread::yield_now;
}

use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::PoisonError;

pub(crate) use kind::*;

/// True while a model checker runs the code: it sees every step, so nothing is gained by spinning.
pub(crate) const MODEL: bool = cfg!(any(feature = "loom", feature = "shuttle"));

/// Stands where `SeqCst` operations on different words must have one order.
#[inline]
pub(crate) fn seq_cst_for_loom() {
    #[cfg(feature = "loom")]
    fence(Ordering::SeqCst);
}

/// Locks `mutex`. A panic while it was held leaves no half-done state behind: each critical section
/// here is one change of a collection.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps its value on cache lines of its own; prefetchers fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> Deref for Padded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Room for a value that one thread at a time may touch, by a protocol outside of it.
#[derive(Debug)]
pub(crate) struct Cell<T> {
    #[cfg(feature = "loom")]
    inner: loom::cell::UnsafeCell<MaybeUninit<T>>,
    #[cfg(not(feature = "loom"))]
    inner: std::cell::UnsafeCell<MaybeUninit<T>>,
}

impl<T> Cell<T> {
    /// Room without a value.
    pub(crate) fn empty() -> Self {
        #[cfg(feature = "loom")]
        let inner = loom::cell::UnsafeCell::new(MaybeUninit::uninit());
        #[cfg(not(feature = "loom"))]
        let inner = std::cell::UnsafeCell::new(MaybeUninit::uninit());
        Self { inner }
    }

    /// Puts a value in.
    ///
    /// # Safety
    /// Nobody else touches this room meanwhile. A value that is there is forgotten, not dropped.
    #[inline]
    pub(crate) unsafe fn write(&self, value: T) {
        let pointer = self.pointer();
        // SAFETY: the caller has this room for itself.
        unsafe { (*pointer).write(value) };
    }

    /// Takes the value out.
    ///
    /// # Safety
    /// A value is there, nobody else touches this room meanwhile, and nobody reads it again.
    #[inline]
    pub(crate) unsafe fn take(&self) -> T {
        let pointer = self.pointer();
        // SAFETY: the caller knows that a value is there and has it for itself.
        unsafe { (*pointer).assume_init_read() }
    }

    /// Looks at the value.
    ///
    /// # Safety
    /// A value is there, and nobody writes or takes it while the reference lives.
    #[inline]
    pub(crate) unsafe fn peek(&self) -> &T {
        let pointer = self.pointer();
        // SAFETY: the caller knows that a value is there and stays.
        unsafe { (*pointer).assume_init_ref() }
    }

    #[inline]
    fn pointer(&self) -> *mut MaybeUninit<T> {
        // loom sees an access here; it is over before the value is touched, which is as good: it looks
        // for accesses that are not ordered, and between here and there nothing orders anything.
        #[cfg(feature = "loom")]
        let pointer = self.inner.with_mut(|pointer| pointer);
        #[cfg(not(feature = "loom"))]
        let pointer = self.inner.get();
        pointer
    }
}
