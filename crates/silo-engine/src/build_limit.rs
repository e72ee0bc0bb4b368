//! What builds may take of the disk: the cache's ceiling, and which records go first when it is passed.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::statvfs;

use crate::build_records::CacheUsage;

/// Limits of builds.
#[derive(Debug, Clone)]
pub struct BuildSettings {
    /// Bytes of the cache that no image has too; above that what was not used for longest goes after a build. `None`: no limit.
    pub cache_limit: Option<u64>,
    /// Bytes that a context or an `ADD`ed archive may unpack to.
    pub unpacked_bytes: u64,
    /// Entries of one.
    pub unpacked_files: u64,
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self { cache_limit: None, unpacked_bytes: 100 << 30, unpacked_files: 5_000_000 }
    }
}

impl BuildSettings {
    /// dockerd's ceiling: a tenth of the disk, in whole gigabytes.
    pub fn usual_cache_limit(root: &Path) -> io::Result<u64> {
        let disk = statvfs(root)?;
        Ok(tenth(disk.f_blocks.saturating_mul(disk.f_frsize)))
    }
}

fn tenth(disk: u64) -> u64 {
    (disk / 10 / (1 << 30) + 1) * 1_000_000_000
}

/// When a record was last of use.
fn used(usage: &CacheUsage) -> Timestamp {
    usage.record.last_used.unwrap_or(usage.record.created)
}

/// What was not used for longest first. A step is of use as long as one that follows from it is, and goes after that.
pub(crate) fn oldest_first(all: &mut [CacheUsage]) {
    let parents: HashMap<&str, &str> =
        all.iter().filter_map(|one| Some((one.record.key.as_str(), one.record.parent.as_deref()?))).collect();
    let mut latest: HashMap<String, Timestamp> = HashMap::new();
    for one in all.iter() {
        let (mut at, time) = (Some(one.record.key.as_str()), used(one));
        while let Some(key) = at {
            match latest.get_mut(key) {
                // Those before it have been told.
                Some(known) if *known >= time => break,
                Some(known) => *known = time,
                None => drop(latest.insert(key.to_owned(), time)),
            }
            at = parents.get(key).copied();
        }
    }
    all.sort_by_cached_key(|one| {
        (latest.get(&one.record.key).copied(), Reverse(used(one)), one.record.key.clone())
    });
}

#[cfg(test)]
mod tests {
    use silo_image::HistoryEntry;

    use super::*;
    use crate::build_records::{CacheRecord, REGULAR};

    fn usage(key: &str, parent: Option<&str>, created: i64, last_used: Option<i64>) -> CacheUsage {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let record = CacheRecord {
            key: key.to_owned(),
            kind: REGULAR.to_owned(),
            description: String::new(),
            parent: parent.map(str::to_owned),
            entry: HistoryEntry::default(),
            chain: None,
            layer: None,
            size: 1,
            created: at(created),
            last_used: last_used.map(at),
            uses: 0,
        };
        CacheUsage { record, in_use: false, shared: false }
    }

    #[test]
    fn a_tenth_of_the_disk_in_whole_gigabytes() {
        assert_eq!(tenth(252 << 30), 26_000_000_000);
        assert_eq!(tenth(0), 1_000_000_000);
    }

    #[test]
    fn chains_go_from_their_ends_and_the_unused_ones_first() {
        let mut all = [
            usage("a1", None, 1, Some(50)),
            usage("a2", Some("a1"), 2, Some(51)),
            usage("b1", None, 10, None),
            usage("b2", Some("b1"), 11, None),
            // Another end of the first chain, which was not used again.
            usage("a3", Some("a2"), 12, None),
            usage("lost", Some("gone"), 40, None),
        ];
        oldest_first(&mut all);
        let keys: Vec<&str> = all.iter().map(|one| one.record.key.as_str()).collect();
        assert_eq!(keys, ["b2", "b1", "a3", "lost", "a2", "a1"]);
    }
}
