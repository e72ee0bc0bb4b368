//! What is being brought in and belongs to no image yet: collection leaves it alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::digest::{ChainId, Digest};

/// What one piece of work needs.
#[derive(Debug, Default)]
pub(crate) struct Leased {
    chains: Vec<ChainId>,
    blobs: Vec<Digest>,
}

type All = Mutex<(u64, HashMap<u64, Leased>)>;

/// All leases. Whoever collects holds the lock until the files are gone: a lease is either seen, or sees them gone.
#[derive(Debug, Default)]
pub(crate) struct Leases(Arc<All>);

/// A lease; it ends with its owner.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<All>,
    number: u64,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Leased>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a lease of layers (by chain) and blobs, whether they are here already or not.
    pub(crate) fn take(&self, chains: Vec<ChainId>, blobs: Vec<Digest>) -> Lease {
        let mut all = self.lock();
        all.0 += 1;
        let number = all.0;
        all.1.insert(number, Leased { chains, blobs });
        Lease { leases: self.0.clone(), number }
    }

    /// Collects with what is leased.
    pub(crate) fn collecting<T>(&self, collect: impl FnOnce(HashSet<ChainId>, HashSet<Digest>) -> T) -> T {
        let all = self.lock();
        let chains = all.1.values().flat_map(|l| l.chains.iter().cloned()).collect();
        let blobs = all.1.values().flat_map(|l| l.blobs.iter().cloned()).collect();
        collect(chains, blobs)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.number);
    }
}

/// What only one at a time fetches, by digest.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<HashSet<Digest>>, Condvar);

/// A claim; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    digest: Digest,
}

impl Claims {
    /// Claims a digest if nobody has; waits a little for whoever has. `None`: try again.
    pub(crate) fn take(&self, digest: &Digest, wait: Duration) -> Option<Claim<'_>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.1.wait_timeout_while(held, wait, |held| held.contains(digest));
        let (mut held, _) = taken.unwrap_or_else(PoisonError::into_inner);
        held.insert(digest.clone()).then(|| Claim { claims: self, digest: digest.clone() })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
        self.claims.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_its_owner_goes() {
        let leases = Leases::default();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let lease = leases.take(vec![a.clone()], vec![b.clone()]);
        leases.collecting(|chains, blobs| assert!(chains.contains(&a) && blobs.contains(&b)));
        drop(lease);
        leases.collecting(|chains, blobs| assert!(chains.is_empty() && blobs.is_empty()));
    }

    #[test]
    fn one_claims_at_a_time() {
        let claims = Claims::default();
        let a = Digest::of(b"a");
        let first = claims.take(&a, Duration::ZERO).unwrap();
        assert!(claims.take(&a, Duration::from_millis(1)).is_none());
        assert!(claims.take(&Digest::of(b"b"), Duration::ZERO).is_some());
        std::thread::scope(|s| {
            let next = s.spawn(|| claims.take(&a, Duration::from_secs(60)).is_some());
            drop(first);
            assert!(next.join().unwrap());
        });
    }
}
