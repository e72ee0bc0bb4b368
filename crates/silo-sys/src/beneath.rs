//! Opening paths that somebody else controls: never outside a given root (openat2, Linux 5.6).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};

/// Tries of an openat2 that a concurrent rename made inconclusive (EAGAIN).
const TRIES: usize = 64;

fn openat2(
    root: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    for _ in 0..TRIES {
        match fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN) => continue,
            other => return other.map_err(|e| annotate(e, path)),
        }
    }
    Err(annotate(rustix::io::Errno::AGAIN, path))
}

fn annotate(error: rustix::io::Errno, path: &Path) -> io::Error {
    let error = io::Error::from(error);
    match error.raw_os_error() {
        // Keep the code: callers decide on NotFound and its like.
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
    }
}

/// Opens `path` as a process whose root is `root` would: absolute links and `..` stay inside.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    openat2(root, path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `dir`; a path or link that leads out is an error (EXDEV).
pub fn open_beneath(dir: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    openat2(dir, path, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `dir` and follows no link at all (ELOOP).
pub fn open_no_links(dir: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    openat2(dir, path, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Makes `path` and its missing parents as directories inside `root`, and opens it (`O_PATH`).
/// Existing links are followed inside the root.
pub fn make_dirs_in_root(root: impl AsFd, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    let dir_flags = OFlags::PATH | OFlags::DIRECTORY;
    if let Ok(fd) = open_in_root(&root, path, dir_flags, Mode::empty()) {
        return Ok(fd);
    }
    let mut so_far = PathBuf::new();
    let mut current = open_in_root(&root, Path::new("."), dir_flags, Mode::empty())?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        so_far.push(name);
        current = match open_in_root(&root, &so_far, dir_flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                match fs::mkdirat(&current, name, mode) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                open_in_root(&root, &so_far, dir_flags, Mode::empty())?
            }
            Err(e) => return Err(e),
        };
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_out_stay_inside_or_fail() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", dir.path().join("out")).unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let fd = open_in_root(&root, Path::new("/out"), OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(std::io::read_to_string(std::fs::File::from(fd)).unwrap(), "inside");
        assert!(open_beneath(&root, Path::new("out"), OFlags::RDONLY, Mode::empty()).is_err());
        assert!(open_no_links(&root, Path::new("out"), OFlags::RDONLY, Mode::empty()).is_err());
    }

    #[test]
    fn makes_parents_through_links() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink("/real", dir.path().join("link")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        make_dirs_in_root(&root, Path::new("/link/a/b"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(dir.path().join("real/a/b").is_dir());
    }
}
