//! What is known by a digest as long as somebody holds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;

/// Things by digest, and by how many each is held.
#[derive(Debug)]
pub(crate) struct Holders<T>(Arc<Mutex<HashMap<Digest, (T, usize)>>>);

impl<T> Default for Holders<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Holders<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone> Holders<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, (T, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, id: &Digest) -> Option<T> {
        self.lock().get(id).map(|(held, _)| held.clone())
    }

    pub(crate) fn any(&self, is_wanted: impl Fn(&T) -> bool) -> bool {
        self.lock().values().any(|(held, _)| is_wanted(held))
    }

    /// One more holds it.
    pub(crate) fn hold(&self, id: &Digest, held: T) {
        self.lock().entry(id.clone()).or_insert((held, 0)).1 += 1;
    }

    /// One less does.
    pub(crate) fn release(&self, id: &Digest) {
        let mut known = self.lock();
        if let Some((_, holders)) = known.get_mut(id) {
            *holders -= 1;
            if *holders == 0 {
                known.remove(id);
            }
        }
    }
}
