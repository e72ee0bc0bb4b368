//! What was written and may not be on disk yet.
//!
//! A file that says that something is there (a layer's record, a config, the references) is written under its name with
//! [`MARK`] and the boot ID behind it, and what it speaks of is not waited for. A thread then syncs the file system and
//! renames: a file without a mark speaks of what is on disk. Whoever reads prefers the marked file, the newer one.
//!
//! At a start, marks of this boot are synced and taken away: the kernel has all that was written, whoever was killed. Marks
//! of another boot are suspects: their files may hold anything, since the file system keeps names and attributes in order
//! but not what files hold. Each is proved, and then counts as whole, or goes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use silo_sys::atomic_file;

/// Between a file's name and the boot ID.
const MARK: &str = ".unsynced-";

#[derive(Debug, Default)]
struct State {
    /// Files by the name they will have, and when they were written last.
    pending: HashMap<PathBuf, u64>,
    serial: u64,
    /// A thread syncs.
    running: bool,
}

/// The unsynced files of one store.
#[derive(Debug)]
pub(crate) struct Unsynced {
    root: PathBuf,
    boot: String,
    state: Mutex<State>,
    ended: Condvar,
}

/// A marked file of another boot.
#[derive(Debug)]
pub(crate) struct Suspect {
    /// Where it is.
    pub(crate) marked: PathBuf,
    /// Where it will be if it is whole.
    pub(crate) path: PathBuf,
}

impl Suspect {
    /// It is whole.
    pub(crate) fn clear(&self) -> io::Result<()> {
        rustix::fs::rename(&self.marked, &self.path).map_err(Into::into)
    }

    /// It is not.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_file(&self.marked);
    }
}

/// This boot's ID: 36 characters.
fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The name without its mark, and the boot.
fn parts(name: &str) -> Option<(&str, &str)> {
    name.split_once(MARK)
}

impl Unsynced {
    pub(crate) fn open(root: &Path) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            root: root.to_owned(),
            boot: boot_id()?,
            state: Mutex::default(),
            ended: Condvar::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn marked(&self, path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(MARK);
        name.push(&self.boot);
        name.into()
    }

    /// Takes the marks of this boot away in `dir`, all being on disk then; returns those of others. For the start.
    pub(crate) fn settle(&self, dir: &Path) -> io::Result<Vec<Suspect>> {
        let (mut ours, mut suspects) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((plain, boot)) = parts(&name) else { continue };
            let found = Suspect { marked: entry.path(), path: dir.join(plain) };
            if boot == self.boot { &mut ours } else { &mut suspects }.push(found);
        }
        if !ours.is_empty() {
            rustix::fs::syncfs(File::open(&self.root)?)?;
        }
        for suspect in ours {
            match suspect.clear() {
                // Whoever wrote it took the mark away.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(suspects)
    }

    /// Whether the file may not be on disk.
    pub(crate) fn is_pending(&self, path: &Path) -> bool {
        self.lock().pending.contains_key(path)
    }

    /// Whether anything may not be on disk.
    pub(crate) fn any(&self) -> bool {
        !self.lock().pending.is_empty()
    }

    /// Reads a file, marked or not.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.lock();
        let path = if state.pending.contains_key(path) { &self.marked(path) } else { path };
        std::fs::read(path)
    }

    /// Removes a file, marked or not.
    pub(crate) fn remove(&self, path: &Path) {
        let mut state = self.lock();
        if state.pending.remove(path).is_some() {
            let _ = std::fs::remove_file(self.marked(path));
        }
        let _ = std::fs::remove_file(path);
    }

    /// The names that files will have whose marks are in `dir`.
    pub(crate) fn pending_in(&self, dir: &Path) -> Vec<PathBuf> {
        self.lock().pending.keys().filter(|path| path.parent() == Some(dir)).cloned().collect()
    }

    /// Replaces a file; on disk when this returns, unless `later`.
    pub(crate) fn write(self: &Arc<Self>, path: &Path, bytes: &[u8], later: bool) -> io::Result<()> {
        let mut state = self.lock();
        if !later {
            atomic_file::write(path, bytes)?;
            if state.pending.remove(path).is_some() {
                let _ = std::fs::remove_file(self.marked(path));
            }
            return Ok(());
        }
        atomic_file::write_with(&self.marked(path), bytes, 0o600, false)?;
        state.serial += 1;
        let serial = state.serial;
        state.pending.insert(path.to_owned(), serial);
        if !state.running {
            state.running = true;
            let unsynced = self.clone();
            let spawned = std::thread::Builder::new().name("sync".to_owned()).spawn(move || unsynced.run());
            state.running = spawned.is_ok();
            spawned?;
        }
        Ok(())
    }

    /// Syncs until nothing is left to sync.
    fn run(&self) {
        let mut state = self.lock();
        while !state.pending.is_empty() {
            let now = state.serial;
            drop(state);
            let synced = File::open(&self.root).and_then(|root| Ok(rustix::fs::syncfs(root)?));
            state = self.lock();
            if let Err(e) = synced {
                // The marks stay; the next write tries again.
                tracing::error!("syncing {}: {e}", self.root.display());
                break;
            }
            // In the order of writing: what speaks of another thing loses its mark after that.
            let mut done: Vec<(u64, PathBuf)> = state
                .pending
                .iter()
                .filter(|(_, s)| **s <= now)
                .map(|(path, s)| (*s, path.clone()))
                .collect();
            done.sort();
            let mut failed = false;
            for (_, path) in done {
                match rustix::fs::rename(self.marked(&path), &path) {
                    Ok(()) => drop(state.pending.remove(&path)),
                    // What it says is read from under its mark as long as it has one.
                    Err(e) => {
                        tracing::error!("naming {}: {e}", path.display());
                        failed = true;
                    }
                }
            }
            if failed {
                break;
            }
        }
        state.running = false;
        drop(state);
        self.ended.notify_all();
    }

    /// Waits until nothing is being synced. It ends: each round is one sync of the file system, and rounds end with writes.
    #[cfg(test)]
    pub(crate) fn wait(&self) {
        drop(self.ended.wait_while(self.lock(), |s| s.running));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_goes_when_its_file_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let unsynced = Unsynced::open(dir.path()).unwrap();
        let path = dir.path().join("a.json");
        unsynced.write(&path, b"1", false).unwrap();
        unsynced.write(&path, b"2", true).unwrap();
        assert_eq!(unsynced.read(&path).unwrap(), b"2");
        unsynced.wait();
        assert_eq!((std::fs::read(&path).unwrap(), unsynced.any()), (b"2".to_vec(), false));
        unsynced.remove(&path);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn marks_of_this_boot_are_taken_away_and_those_of_others_are_suspects() {
        let dir = tempfile::tempdir().unwrap();
        let unsynced = Unsynced::open(dir.path()).unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        std::fs::write(unsynced.marked(&ours), "1").unwrap();
        std::fs::write(dir.path().join("theirs.unsynced-other"), "2").unwrap();
        let suspects = unsynced.settle(dir.path()).unwrap();
        assert!(ours.exists() && !theirs.exists());
        assert_eq!((suspects.len(), &suspects[0].path), (1, &theirs));
        suspects[0].clear().unwrap();
        assert!(theirs.exists() && unsynced.settle(dir.path()).unwrap().is_empty());
    }
}
