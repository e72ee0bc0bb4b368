//! The records of the cache of builds, as kept and as held.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use silo_image::{ChainId, Digest, HistoryEntry, ImageStore, Lease};

use crate::db::{Db, Table};
use crate::error::Result;
use crate::lock::lock;

/// Type of a step's result, in BuildKit's words.
pub const REGULAR: &str = "regular";
/// Type of a directory of `RUN --mount=type=cache`.
pub const CACHE_MOUNT: &str = "exec.cachemount";

/// A record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Digest of all that the result follows from, without the algorithm.
    pub key: String,
    /// [`REGULAR`] or [`CACHE_MOUNT`].
    pub kind: String,
    /// The instruction.
    pub description: String,
    /// Key of the step before, if that is kept.
    pub parent: Option<String>,
    /// The line of history that the step has.
    pub entry: HistoryEntry,
    /// Chain of the result's layers.
    pub chain: Option<ChainId>,
    /// Diff ID of the layer that the step has made.
    pub layer: Option<Digest>,
    /// Bytes of it.
    pub size: u64,
    /// When.
    pub created: Timestamp,
    /// When it was last found.
    pub last_used: Option<Timestamp>,
    /// How often.
    pub uses: u64,
}

/// A record as it is shown.
#[derive(Debug, Clone)]
pub struct CacheUsage {
    /// The record.
    pub record: CacheRecord,
    /// A build under way has it.
    pub in_use: bool,
    /// An image has its layer.
    pub shared: bool,
}

/// All records.
#[derive(Debug, Default)]
pub(crate) struct BuildCache {
    pub(crate) records: Mutex<HashMap<String, Kept>>,
    pub(crate) in_use: Arc<Mutex<HashMap<String, u32>>>,
    /// Held by who removes what is above the ceiling.
    pub(crate) trimming: Mutex<()>,
}

/// A record with what keeps its layer.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) record: CacheRecord,
    pub(crate) _lease: Option<Lease>,
}

/// That a build under way has a record; nobody prunes it meanwhile.
#[derive(Debug)]
pub struct InUse {
    key: String,
    in_use: Arc<Mutex<HashMap<String, u32>>>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut all = lock(&self.in_use);
        if let Some(holders) = all.get_mut(&self.key) {
            *holders -= 1;
            if *holders == 0 {
                all.remove(&self.key);
            }
        }
    }
}

impl BuildCache {
    /// Reads the records; each keeps its layer.
    pub(crate) fn open(db: &Db, images: &ImageStore) -> Result<Self> {
        let cache = Self::default();
        let mut records = lock(&cache.records);
        for record in db.all::<CacheRecord>(Table::BuildCache)? {
            let chain = record.chain.clone().filter(|_| record.layer.is_some());
            let lease = chain.map(|chain| images.keep_chain(chain));
            records.insert(record.key.clone(), Kept { record, _lease: lease });
        }
        drop(records);
        Ok(cache)
    }

    pub(crate) fn hold(&self, key: &str) -> InUse {
        *lock(&self.in_use).entry(key.to_owned()).or_insert(0) += 1;
        InUse { key: key.to_owned(), in_use: self.in_use.clone() }
    }

    /// `None`: somebody has it.
    pub(crate) fn hold_alone(&self, key: &str) -> Option<InUse> {
        match lock(&self.in_use).entry(key.to_owned()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(1);
                Some(InUse { key: key.to_owned(), in_use: self.in_use.clone() })
            }
        }
    }
}

impl CacheRecord {
    /// The ID that it is shown and pruned by.
    pub fn id(&self) -> &str {
        self.key.get(..25).unwrap_or(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_not_held_alone() {
        let cache = BuildCache::default();
        let one = cache.hold("k");
        let two = cache.hold("k");
        drop(one);
        assert!(cache.hold_alone("k").is_none());
        drop(two);
        let alone = cache.hold_alone("k").unwrap();
        assert!(cache.hold_alone("k").is_none() && cache.hold_alone("other").is_some());
        drop(alone);
        assert!(lock(&cache.in_use).is_empty());
    }
}
