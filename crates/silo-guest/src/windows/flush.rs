//! What a running guest keeps in memory, written: `silo-init flush`, and what became of it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use rustix::fs::{Mode, OFlags};
use silo_sys::beneath::open_in_root;

use super::bundle::INIT;
use crate::contract::Flushed;

/// Init as it has Wine's server write the registry.
pub(super) fn process(bundle: &Spec) -> Option<Process> {
    let mut process = bundle.process().clone()?;
    process
        .set_args(Some(vec![INIT.to_owned(), "flush".to_owned()]))
        .set_env(Some(Vec::new()))
        .set_cwd("/".into())
        .set_terminal(Some(false))
        .set_console_size(None);
    Some(process)
}

/// Where it is told what became of it.
pub(super) const REPORT: &str = "run/silo";

/// What `silo-init flush` was told by Wine's server (`inside/windows/init/src/server.rs`).
pub(super) fn flushed(root: &Path) -> Flushed {
    let told = |name: &str| -> io::Result<OwnedFd> {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = Path::new(REPORT).join(name);
        open_in_root(root, &path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
    };
    match (told("flushed"), told("flush-failed")) {
        (_, Ok(link)) => {
            let reason = rustix::fs::readlinkat(&link, "", Vec::new()).unwrap_or_default();
            Flushed::Failed(reason.to_string_lossy().into_owned())
        }
        (Ok(_), _) => Flushed::All,
        _ => Flushed::ChangedSince,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_became_of_it_is_told_in_the_containers_own_files() {
        let root = tempfile::tempdir().unwrap();
        let told = root.path().join("run/silo");
        assert_eq!(flushed(root.path()), Flushed::ChangedSince);
        fs::create_dir_all(&told).unwrap();
        fs::write(told.join("flushed"), "").unwrap();
        assert_eq!(flushed(root.path()), Flushed::All);
        symlink("No space left on device", told.join("flush-failed")).unwrap();
        assert_eq!(flushed(root.path()), Flushed::Failed("No space left on device".to_owned()));
        // A link of the container's leads nowhere but into it.
        fs::remove_dir_all(root.path().join("run")).unwrap();
        symlink(root.path().parent().unwrap(), root.path().join("run")).unwrap();
        assert_eq!(flushed(root.path()), Flushed::ChangedSince);
    }
}
