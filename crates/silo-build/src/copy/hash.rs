//! Content's digests, kept while a build lasts and reckoned by all processors.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::Stat;
use sha2::{Digest as _, Sha256};

/// Processors that hash at once, at most.
const MOST_THREADS: usize = 16;
/// Fewer files than this are hashed by one.
const FEW: usize = 64;

/// SHA-256.
pub(super) type Hash = [u8; 32];

/// A file as it was: device, inode, size, and time of the last change of anything.
type Key = (u64, u64, i64, i64, u64);

/// The digests of the files that a build has read. A file that has changed since has another key.
#[derive(Debug, Default)]
pub struct Hashes(Mutex<HashMap<Key, Hash>>);

impl Hashes {
    /// The digest of a file's content.
    pub(super) fn of(&self, path: &Path, stat: &Stat) -> io::Result<Hash> {
        // A change of a file's names alone counts as one of the file: hashing again is harmless.
        let key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime, stat.st_ctime_nsec);
        if let Some(hash) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(*hash);
        }
        let hash = of_file(path)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, hash);
        Ok(hash)
    }
}

fn of_file(path: &Path) -> io::Result<Hash> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().into())
}

/// Does `work` for each, in any order, by several threads if there are many; the first error ends it.
pub(super) fn for_each<T: Send, E: Send>(
    all: &mut [T],
    work: impl Fn(&mut T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    if all.len() < FEW || threads < 2 {
        return all.iter_mut().try_for_each(work);
    }
    // Small parts: files differ in size.
    let parts: Vec<Mutex<&mut [T]>> = all.chunks_mut(16).map(Mutex::new).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let run = || {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(e) = part.iter_mut().try_for_each(&work) {
                next.store(parts.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_done_once_and_an_error_is_told() {
        let mut numbers: Vec<u32> = (0..1000).collect();
        for_each(&mut numbers, |n| {
            *n += 1;
            Ok::<(), u32>(())
        })
        .unwrap();
        assert_eq!(numbers, (1..=1000).collect::<Vec<u32>>());
        assert_eq!(for_each(&mut numbers, |n| if *n == 500 { Err(*n) } else { Ok(()) }), Err(500));
    }
}
