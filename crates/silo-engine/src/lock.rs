//! Locks of plain data: nothing in it is half-changed when a thread panics.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex of plain data.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
