//! Mounts by the new mount API, idmapped mounts, and work in a mount namespace of one thread's own.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

/// Attributes of `mount_setattr(2)` (linux/mount.h).
pub mod attr {
    /// No writes.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-ID bits have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// Clears the access time mode field.
    pub const ATIME_MASK: u64 = 0x70;
    /// Never update access times.
    pub const NOATIME: u64 = 0x10;
    /// Always update access times.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids of files are mapped.
    pub const IDMAP: u64 = 0x0010_0000;
}

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn set_attributes(mount: impl AsFd, recursive: bool, attributes: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor lives through the call, the path is a NUL-terminated constant and the structure has
    // the size that is passed along.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets and clears attributes ([`attr`]) of a mount given by an `O_PATH` or detached descriptor.
pub fn set_attr(mount: impl AsFd, recursive: bool, set: u64, clear: u64) -> io::Result<()> {
    set_attributes(mount, recursive, &MountAttr { attr_set: set, attr_clr: clear, ..Default::default() })
}

/// Sets the propagation (`MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`) of a mount.
pub fn set_propagation(mount: impl AsFd, recursive: bool, propagation: u64) -> io::Result<()> {
    set_attributes(mount, recursive, &MountAttr { propagation, ..Default::default() })
}

/// Maps the ids of a detached mount's files as the user namespace `userns` says (Linux 5.12).
pub fn set_idmap(mount: impl AsFd, recursive: bool, userns: impl AsFd) -> io::Result<()> {
    let userns_fd = u64::try_from(userns.as_fd().as_raw_fd()).unwrap_or(u64::MAX);
    set_attributes(mount, recursive, &MountAttr { attr_set: attr::IDMAP, userns_fd, ..Default::default() })
}

/// Our own mount option: what is bound is not the source but this path in it, of which no link leads out.
pub const SUBPATH: &str = "x-silo.subpath=";

/// The mount option that binds `path` in a source; `None` for an empty path.
pub fn subpath_option(path: &Path) -> Option<String> {
    (!path.as_os_str().is_empty()).then(|| format!("{SUBPATH}{}", path.display()))
}

/// Our own mount option: the source is a path as in this mount namespace, a file of `/proc`.
pub const NAMESPACE: &str = "x-silo.mount-namespace=";

/// The mount option that binds out of the mount namespace at `path`.
pub fn namespace_option(path: &Path) -> String {
    format!("{NAMESPACE}{}", path.display())
}

/// Our own mount option: the source is a path as in the mount namespace of who has mounted it there. Unlike that of
/// [`NAMESPACE`] it is there whether or not another container runs.
pub const MOUNTER: &str = "x-silo.mounter=";

/// The mount option for a source that is mounted in the namespace at `path`.
pub fn mounter_option(path: &Path) -> String {
    format!("{MOUNTER}{}", path.display())
}

/// Runs `work` with the paths of another mount namespace: a thread of its own goes there.
pub fn in_namespace<T: Send + 'static>(
    namespace: OwnedFd,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let there = move || {
        unshare(libc::CLONE_FS)?;
        setns(namespace, libc::CLONE_NEWNS)?;
        work()
    };
    let thread = std::thread::Builder::new().name("mounts-of".to_owned()).spawn(there)?;
    thread.join().map_err(|_| io::Error::other("the thread that binds out of a namespace panicked"))?
}

/// A detached copy of the mount (and with `recursive` the submounts) at `path`, which may be a file.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(rustix::fs::CWD, path, flags)?)
}

/// As [`clone_tree`], of an open `O_PATH` descriptor.
pub fn clone_tree_fd(fd: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(fd, "", flags)?)
}

/// Attaches a detached mount onto what `target` (`O_PATH`) refers to.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Moves what is mounted at a path to another.
pub fn move_onto(source: &Path, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_move(source, target)?)
}

/// A new, detached file system of type `kind` with `options` (`key=value` or flags) and attributes ([`attr`]).
pub fn new_filesystem(kind: &str, source: &str, options: &[String], attributes: u64) -> io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", source)?;
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), option.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// mount(2) with an option string, for file systems whose options are longer than the new API takes (overlay).
pub fn mount_classic(
    source: &str,
    target: &Path,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> io::Result<()> {
    let data = CString::new(data)?;
    Ok(rustix::mount::mount(source, target, kind, flags, data.as_c_str())?)
}

/// Makes every mount of this namespace a slave of its peer: nothing that is mounted here shows outside.
pub fn make_all_slave() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// Lazily unmounts; no error when nothing is mounted there.
pub fn detach(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Directories and settings of an overlay.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// Lower directories, uppermost first; at least one.
    pub lower: Vec<PathBuf>,
    /// Writable directory and its work directory on the same file system; `None`: read-only.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Further options (`volatile`, `userxattr`).
    pub options: Vec<String>,
}

impl Overlay {
    /// Mounts at `target`. Options are limited to a page: directories are named relative to their common parent,
    /// which becomes the working directory of the calling **process** for the moment of the call, so this is for
    /// single-threaded processes and threads with a file system context of their own.
    pub fn mount(&self, target: &Path) -> io::Result<()> {
        let base = common_parent(self.lower.iter());
        let relative = |p: &Path| -> io::Result<String> {
            let p = p.strip_prefix(&base).unwrap_or(p);
            let text = std::str::from_utf8(p.as_os_str().as_bytes()).map_err(io::Error::other)?;
            // ',' and ':' separate, '\\' quotes (fs/overlayfs/params.c).
            Ok(text.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,"))
        };
        let mut data = String::from("lowerdir=");
        let mut lower = self.lower.clone();
        if lower.len() == 1 && self.upper.is_none() {
            // The kernel wants two layers where nothing can be written: an empty one, below.
            lower.push(lower[0].clone());
        }
        for (i, dir) in lower.iter().enumerate() {
            if i > 0 {
                data.push(':');
            }
            let text = relative(dir)?;
            data.push_str(if text.is_empty() { "." } else { &text });
        }
        if let Some((upper, work)) = &self.upper {
            data.push_str(&format!(",upperdir={},workdir={}", relative(upper)?, relative(work)?));
        }
        for option in &self.options {
            data.push(',');
            data.push_str(option);
        }
        if data.len() >= rustix::param::page_size() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} layers are more than one overlay mount takes", self.lower.len()),
            ));
        }
        let before = rustix::fs::open(
            ".",
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        rustix::process::chdir(&base)?;
        let result = mount_classic("overlay", target, "overlay", MountFlags::empty(), &data);
        rustix::process::fchdir(&before)?;
        result
    }
}

fn common_parent<'a>(mut dirs: impl Iterator<Item = &'a PathBuf>) -> PathBuf {
    let mut base = dirs.next().and_then(|p| p.parent()).unwrap_or(Path::new("/")).to_path_buf();
    for dir in dirs {
        while !dir.starts_with(&base) {
            if !base.pop() {
                return PathBuf::from("/");
            }
        }
    }
    base
}

/// Runs `work` in a thread with a mount namespace and working directory of its own: what it mounts is seen by
/// nobody else and is gone when it returns.
pub fn in_private_namespace<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("mounts".into()).spawn_scoped(scope, move || {
            unshare(libc::CLONE_NEWNS)?;
            make_all_slave()?;
            work()
        })?;
        thread.join().map_err(|_| io::Error::other("a thread with mounts of its own panicked"))?
    })
}

/// unshare(2).
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no memory is involved; the caller's thread alone changes its namespaces.
    if unsafe { libc::unshare(flags) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// setns(2).
pub fn setns(fd: impl AsFd, flags: i32) -> io::Result<()> {
    // SAFETY: the descriptor lives through the call.
    if unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// One line of `/proc/<pid>/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside (for an idmapped mount: on the file system).
    pub inside: u32,
    /// First id outside (for an idmapped mount: as it shows).
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// A user namespace that exists only to describe a mapping for [`set_idmap`].
pub fn mapping_namespace(uids: &[IdMap], gids: &[IdMap]) -> io::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: plain fork semantics; the child only waits for the pipe's end and exits, using async-signal-safe
    // calls, so it does not matter which locks other threads held.
    let pid = unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        args.flags = libc::CLONE_NEWUSER as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>())
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: async-signal-safe calls only, see above.
        unsafe {
            libc::close(writer.as_raw_fd());
            let mut byte = 0u8;
            libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
    }
    let result = (|| {
        write_id_maps(pid as i32, uids, gids)?;
        let path = CString::new(format!("/proc/{pid}/ns/user"))?;
        // SAFETY: a NUL-terminated path; the returned descriptor is owned by nobody else.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })();
    drop(writer);
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
    result
}

/// Writes the uid and gid maps of a process in a new user namespace.
pub fn write_id_maps(pid: i32, uids: &[IdMap], gids: &[IdMap]) -> io::Result<()> {
    let text = |maps: &[IdMap]| -> String {
        maps.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.size)).collect()
    };
    for (file, maps) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{pid}/{file}");
        rustix::fs::open(
            path.as_str(),
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .and_then(|fd| rustix::io::write(&fd, text(maps).as_bytes()))
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{path}: {e}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_parents() {
        let p = |s: &str| PathBuf::from(s);
        assert_eq!(common_parent([p("/a/b/1"), p("/a/b/2")].iter()), p("/a/b"));
        assert_eq!(common_parent([p("/a/b/1"), p("/a/c/2")].iter()), p("/a"));
        assert_eq!(common_parent([p("/x/1"), p("/y/2")].iter()), p("/"));
    }

    #[test]
    fn an_overlay_in_a_private_namespace_leaves_no_mount() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        for n in ["l1", "l2", "up", "work", "m"] {
            std::fs::create_dir(at(n)).unwrap();
        }
        std::fs::write(at("l1/a"), "1").unwrap();
        std::fs::write(at("l2/b"), "2").unwrap();
        let overlay =
            Overlay { lower: vec![at("l1"), at("l2")], upper: Some((at("up"), at("work"))), options: vec![] };
        let target = at("m");
        let seen = in_private_namespace(move || {
            overlay.mount(&target)?;
            std::fs::write(target.join("c"), "3")?;
            Ok(std::fs::read_dir(&target)?.count())
        })
        .unwrap();
        assert_eq!(seen, 3);
        assert!(at("up/c").exists());
        assert_eq!(std::fs::read_dir(at("m")).unwrap().count(), 0);
    }
}
