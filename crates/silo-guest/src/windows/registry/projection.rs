//! A chain's registry as the files that Wine loads, made once and kept by chain ID.
//!
//! `<cache>/guest/windows/registry/<chain ID>-<form>/machine/` holds `system.reg`, `userdef.reg`, the list of drives and the
//! mark that Wine's own set-up is done; `users/<name>/` the `user.reg` of each account that has been used.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::{RegistryError, at, chain, text};
use crate::windows::users::Account;

/// Counts up with every change of what is written, so that no older version's files are taken.
const FORM: u32 = 2;

/// Files of the prefix.
pub(super) const SYSTEM: &str = "system.reg";
pub(super) const DEFAULT_USER: &str = "userdef.reg";
pub(super) const USER: &str = "user.reg";

fn directory(cache: &Path) -> PathBuf {
    cache.join("guest/windows/registry")
}

/// The directories that make up the prefix of a chain (uppermost layer first) for an account, uppermost first.
pub(in crate::windows) fn of(
    cache: &Path,
    chain: &str,
    layers: &[PathBuf],
    account: Account,
) -> Result<[PathBuf; 2], RegistryError> {
    let home = directory(cache).join(format!("{}-{FORM}", chain.rsplit(':').next().unwrap_or(chain)));
    let machine = home.join("machine");
    if !machine.exists() {
        make(&machine, |fresh| {
            let hives = chain::hives(layers)?;
            write(fresh, SYSTEM, &text::write(&hives.machine(), r"REGISTRY\\Machine"))?;
            write(fresh, DEFAULT_USER, &text::write(hives.default_user(), r"REGISTRY\\User\\.Default"))?;
            // Not a time: Wine then never runs its set-up.
            write(fresh, ".update-timestamp", b"disable\n")?;
            let drives = fresh.join("dosdevices");
            fs::create_dir(&drives).map_err(at("making", &drives))?;
            symlink("/c", drives.join("c:")).map_err(at("linking in", &drives))
        })?;
    }
    let user = home.join("users").join(account.name());
    if !user.exists() {
        make(&user, |fresh| {
            let hive = chain::user(layers, &account.profile())?;
            write(fresh, USER, &text::write(&hive.root, r"REGISTRY\\User\\S-1-5-21-0-0-0-1000"))
        })?;
    }
    Ok([user, machine])
}

/// Removes what was made of chains that are not `wanted`, and of the others what a process that is gone has left half-made.
pub(in crate::windows) fn keep_only(cache: &Path, wanted: &dyn Fn(&str) -> bool) {
    for entry in fs::read_dir(directory(cache)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Of whatever form: a container that an older version started may stand on it.
        let chain = name.rsplit_once('-').map(|(chain, _)| chain);
        if chain.is_some_and(wanted) {
            sweep(&entry.path());
            sweep(&entry.path().join("users"));
        } else {
            // What cannot be removed now is met again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// What names of directories that are being made begin with; and those of this process, whose number alone may come again.
const NEW: &str = ".new-";
static HALF_MADE: LazyLock<String> = LazyLock::new(|| {
    let start = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
    format!("{NEW}{}-{start:x}-", std::process::id())
});

/// Makes a directory under another name first; one that somebody else made meanwhile is as good.
fn make(
    directory: &Path,
    fill: impl FnOnce(&Path) -> Result<(), RegistryError>,
) -> Result<(), RegistryError> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(at("making", parent))?;
    sweep(parent);
    let mut fresh = parent.join(".new");
    for n in 0..1000 {
        fresh = parent.join(format!("{}{n}", *HALF_MADE));
        match fs::create_dir(&fresh) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => {
                other.map_err(at("making", &fresh))?;
                break;
            }
        }
    }
    let filled = fill(&fresh);
    let renamed = filled.and_then(|()| match fs::rename(&fresh, directory) {
        Err(_) if directory.exists() => Ok(()),
        other => other.and_then(|()| File::open(parent)?.sync_all()).map_err(at("making", directory)),
    });
    if fresh.exists() {
        let _ = fs::remove_dir_all(&fresh);
    }
    renamed
}

/// Removes what a process that is gone has left half-made.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(NEW) && !name.starts_with(&*HALF_MADE) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Writes a file to the disk: it is trusted from the moment that its directory has its name.
fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), RegistryError> {
    let path = directory.join(name);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(at("writing", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_image_wants_and_what_is_half_made_goes() {
        let cache = tempfile::tempdir().unwrap();
        let projections = directory(cache.path());
        let own = format!("aa-2/{}0", *HALF_MADE);
        let stay = ["aa-2/machine", "aa-2/users/ContainerUser", "aa-1/machine", &own];
        let go = ["bb-2/machine", "aa-2/.new-1-0", "aa-2/users/.new-1-5-0", "rest"];
        for path in stay.iter().chain(&go) {
            fs::create_dir_all(projections.join(path)).unwrap();
        }
        keep_only(cache.path(), &|chain| chain == "aa");
        for path in stay {
            assert!(projections.join(path).exists(), "{path}");
        }
        for path in go {
            assert!(!projections.join(path).exists(), "{path}");
        }
    }
}
