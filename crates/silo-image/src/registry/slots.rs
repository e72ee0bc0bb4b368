//! How many transfers there are at once, of all that is under way.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::registry::cancel::Cancel;
use crate::registry::error::Result;

/// How long a wait for others takes before the end of our own work is looked for.
const LOOK: Duration = Duration::from_millis(250);

/// The transfers of one kind.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<usize>, Condvar);

/// One transfer; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    /// Waits until there are fewer than `most`; an error once nobody wants it any more.
    pub(crate) fn take(&self, most: usize, cancel: &Cancel) -> Result<Slot<'_>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= most.max(1) {
            cancel.check()?;
            taken = self.1.wait_timeout(taken, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        cancel.check()?;
        *taken += 1;
        Ok(Slot(self))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.1.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn there_are_never_more_than_so_many() {
        let (slots, now, most) = (Slots::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _slot = slots.take(2, &Cancel::default()).unwrap();
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.into_inner()));
        let ended = Cancel::default();
        let _one = slots.take(1, &ended).unwrap();
        ended.cancel();
        assert!(slots.take(1, &ended).is_err());
    }
}
