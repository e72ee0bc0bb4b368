//! Mounts of a container in two halves: what needs the host's rights is made by the supervisor as detached mounts;
//! the container's first process attaches them in order, and makes those that belong to its namespaces.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use silo_sys::beneath;
use silo_sys::mount::{self, IdMap, Overlay, attr};

use crate::bundle::{Bundle, invalid};

/// `mounts[].options`, sorted out.
#[derive(Debug, Default, PartialEq)]
struct Options {
    set: u64,
    clear: u64,
    recursive: bool,
    propagation: Option<(u64, bool)>,
    data: Vec<String>,
    subpath: Option<PathBuf>,
    /// A mount namespace that the source is in.
    namespace: Option<PathBuf>,
}

fn parse_options(options: &[String]) -> Options {
    const PRIVATE: u64 = 1 << 18;
    const SLAVE: u64 = 1 << 19;
    const SHARED: u64 = 1 << 20;
    const UNBINDABLE: u64 = 1 << 17;
    let mut o = Options::default();
    for option in options {
        let (set, clear) = match option.as_str() {
            "ro" => (attr::RDONLY, 0),
            "rw" => (0, attr::RDONLY),
            "nosuid" => (attr::NOSUID, 0),
            "suid" => (0, attr::NOSUID),
            "nodev" => (attr::NODEV, 0),
            "dev" => (0, attr::NODEV),
            "noexec" => (attr::NOEXEC, 0),
            "exec" => (0, attr::NOEXEC),
            "noatime" => (attr::NOATIME, attr::ATIME_MASK),
            "strictatime" => (attr::STRICTATIME, attr::ATIME_MASK),
            "nodiratime" => (attr::NODIRATIME, 0),
            "bind" | "relatime" | "defaults" | "async" | "diratime" => (0, 0),
            "rbind" => {
                o.recursive = true;
                (0, 0)
            }
            "private" => set_propagation(&mut o, PRIVATE, false),
            "rprivate" => set_propagation(&mut o, PRIVATE, true),
            "slave" => set_propagation(&mut o, SLAVE, false),
            "rslave" => set_propagation(&mut o, SLAVE, true),
            "shared" => set_propagation(&mut o, SHARED, false),
            "rshared" => set_propagation(&mut o, SHARED, true),
            "unbindable" => set_propagation(&mut o, UNBINDABLE, false),
            "runbindable" => set_propagation(&mut o, UNBINDABLE, true),
            other => {
                let namespace =
                    other.strip_prefix(mount::NAMESPACE).or_else(|| other.strip_prefix(mount::MOUNTER));
                match (other.strip_prefix(mount::SUBPATH), namespace) {
                    (Some(path), _) => o.subpath = Some(path.into()),
                    (_, Some(path)) => o.namespace = Some(path.into()),
                    _ => o.data.push(other.to_owned()),
                }
                (0, 0)
            }
        };
        o.set = o.set & !clear | set;
        o.clear = o.clear & !set | clear;
    }
    o
}

fn set_propagation(o: &mut Options, kind: u64, recursive: bool) -> (u64, u64) {
    o.propagation = Some((kind, recursive));
    (0, 0)
}

/// Detached mounts, one for each entry of the bundle that needs the supervisor's rights.
#[derive(Debug)]
pub(crate) struct Prepared {
    root: OwnedFd,
    mounts: Vec<Ready>,
    /// Device nodes for a container that may not make them.
    devices: Vec<(PathBuf, OwnedFd)>,
}

#[derive(Debug)]
enum Ready {
    /// The first process makes it.
    InContainer,
    Mount(OwnedFd),
    /// The directories of the container's cgroup, by controller (v1).
    Cgroups(Vec<(String, OwnedFd)>),
}

/// Host devices that every container may use.
const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

fn id_maps(maps: Option<&Vec<LinuxIdMapping>>) -> Vec<IdMap> {
    maps.into_iter()
        .flatten()
        .map(|m| IdMap { inside: m.container_id(), outside: m.host_id(), size: m.size() })
        .collect()
}

/// The mapping that a mount asks for, as a user namespace.
fn mapping_of(mount: &Mount) -> io::Result<Option<OwnedFd>> {
    let (uids, gids) = (id_maps(mount.uid_mappings().as_ref()), id_maps(mount.gid_mappings().as_ref()));
    if uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    mount::mapping_namespace(&uids, &gids).map(Some)
}

fn context(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let text = format!("{doing} {}", path.display());
    move |e| io::Error::new(e.kind(), format!("{text}: {e}"))
}

/// Makes the detached mounts. The caller has a mount namespace of its own; `dir` is a scratch directory.
pub(crate) fn prepare(bundle: &Bundle) -> io::Result<Prepared> {
    prepare_mounts(bundle, |_| true)
}

/// As [`prepare`], of the bundle's mounts that are `wanted`; the others count as the container's own.
fn prepare_mounts(bundle: &Bundle, wanted: impl Fn(&Mount) -> bool) -> io::Result<Prepared> {
    let stage = bundle.dir.join("rootfs");
    std::fs::create_dir_all(&stage)?;
    let root = filesystem(&bundle.rootfs, &stage).map_err(context("assembling the root in", &stage))?;
    let userns = bundle.namespace(LinuxNamespaceType::User).is_some();
    let mut mounts = Vec::new();
    for entry in bundle.spec.mounts().iter().flatten() {
        let ready = match entry.typ().as_deref().unwrap_or("bind") {
            "cgroup" => cgroups(bundle)?,
            "proc" | "tmpfs" | "devpts" | "mqueue" | "cgroup2" => Ready::InContainer,
            "sysfs" if !userns => Ready::InContainer,
            _ if !wanted(entry) => Ready::InContainer,
            _ => Ready::Mount(detached(entry, &stage)?),
        };
        mounts.push(ready);
    }
    let mut devices = Vec::new();
    if userns {
        for (name, ..) in DEVICES {
            let path = Path::new("/dev").join(name);
            devices.push((path.clone(), mount::clone_tree(&path, false).map_err(context("taking", &path))?));
        }
    }
    Ok(Prepared { root, mounts, devices })
}

/// A detached mount of one entry of a bundle (or `rootfs.json`), with its attributes and id mapping; `stage` is a scratch
/// directory. The caller has a mount namespace of its own.
pub fn detached(entry: &Mount, stage: &Path) -> io::Result<OwnedFd> {
    filesystem(entry, stage).map_err(context("mounting for", entry.destination()))
}

/// A detached mount of an overlay, a bind source or another file system.
fn filesystem(entry: &Mount, stage: &Path) -> io::Result<OwnedFd> {
    let options = parse_options(entry.options().as_deref().unwrap_or(&[]));
    let mapping = mapping_of(entry)?;
    let source = entry.source().as_deref().unwrap_or(Path::new("none"));
    let fd = match entry.typ().as_deref().unwrap_or("bind") {
        "overlay" => overlay(&options, mapping.as_ref(), stage)?,
        "bind" | "none" | "" => {
            let (at, below) = (source.to_owned(), options.subpath.clone());
            let shown = below.as_ref().map_or_else(|| source.to_owned(), |path| source.join(path));
            let recursive = options.recursive;
            let take = move || match below {
                None => mount::clone_tree(&at, recursive),
                Some(path) => {
                    let flags = OFlags::PATH | OFlags::CLOEXEC;
                    let below = beneath::open_beneath(open_path(&at)?, &path, flags, Mode::empty())?;
                    mount::clone_tree_fd(&below, recursive)
                }
            };
            let fd = match &options.namespace {
                Some(namespace) => std::fs::File::open(namespace)
                    .and_then(|file| mount::in_namespace(file.into(), take))
                    .map_err(context("binding out of", namespace)),
                None => take(),
            };
            let fd = fd.map_err(context("binding", &shown))?;
            if let Some(mapping) = &mapping {
                mount::set_idmap(&fd, options.recursive, mapping)
                    .map_err(context("mapping the ids of", source))?;
            }
            fd
        }
        kind => mount::new_filesystem(kind, &source.to_string_lossy(), &options.data, 0)?,
    };
    if options.set != 0 || options.clear != 0 {
        mount::set_attr(&fd, options.recursive, options.set, options.clear)?;
    }
    if let Some((propagation, recursive)) = options.propagation {
        mount::set_propagation(&fd, recursive, propagation)?;
    }
    Ok(fd)
}

fn overlay(options: &Options, mapping: Option<&OwnedFd>, stage: &Path) -> io::Result<OwnedFd> {
    let mut overlay = Overlay::default();
    let (mut upper, mut work) = (None, None);
    for option in &options.data {
        match option.split_once('=') {
            Some(("lowerdir", dirs)) => overlay.lower = dirs.split(':').map(PathBuf::from).collect(),
            Some(("upperdir", dir)) => upper = Some(PathBuf::from(dir)),
            Some(("workdir", dir)) => work = Some(PathBuf::from(dir)),
            _ => overlay.options.push(option.clone()),
        }
    }
    overlay.upper = upper.zip(work);
    if overlay.lower.is_empty() {
        return Err(invalid("an overlay without lowerdir"));
    }
    let staged = mapping.is_some();
    if let Some(mapping) = mapping {
        // Overlayfs takes paths: each mapped layer needs a place to be attached for the moment of the mount.
        mount::attach(mount::new_filesystem("tmpfs", "stage", &[], 0)?, open_path(stage)?)?;
        for (i, dir) in overlay.lower.iter_mut().enumerate() {
            let layer = mount::clone_tree(dir, false).map_err(context("taking the layer", dir))?;
            mount::set_idmap(&layer, false, mapping).map_err(context("mapping the ids of", dir))?;
            let place = stage.join(format!("l{i}"));
            std::fs::create_dir(&place)?;
            mount::attach(&layer, open_path(&place)?)?;
            *dir = place;
        }
    }
    let target = if staged { stage.join("m") } else { stage.to_owned() };
    if staged {
        std::fs::create_dir(&target)?;
    }
    overlay
        .mount(&target)
        .map_err(|e| io::Error::new(e.kind(), format!("overlay of {} layers: {e}", overlay.lower.len())))?;
    let fd = mount::clone_tree(&target, false)?;
    mount::detach(&target)?;
    if staged {
        mount::detach(stage)?;
    }
    Ok(fd)
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// On v1 a container sees its own directory of each hierarchy, read-only unless the mount says `rw`.
fn cgroups(bundle: &Bundle) -> io::Result<Ready> {
    if crate::cgroup::version() == 2 {
        return Ok(Ready::InContainer);
    }
    let mut list = Vec::new();
    for line in std::fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        if right.split(' ').next() != Some("cgroup") {
            continue;
        }
        let own = Path::new(point).join(bundle.cgroup()?.trim_start_matches('/'));
        let name = Path::new(point).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if own.is_dir() && !name.is_empty() {
            let fd = mount::clone_tree(&own, false)?;
            mount::set_attr(&fd, false, attr::NOSUID | attr::NODEV | attr::NOEXEC, 0)?;
            list.push((name, fd));
        }
    }
    Ok(Ready::Cgroups(list))
}

impl Prepared {
    /// In the first process, with all its namespaces: makes the tree and makes it the root.
    /// `mknod`: device nodes may be made (no user namespace).
    pub(crate) fn enter(
        self,
        bundle: &Bundle,
        mknod: bool,
        before_locking: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        // Whatever is mounted from here on stays here.
        mount::make_all_slave()?;
        // On a place of this namespace that every host has and every user may enter; it is covered for a moment only.
        let place_of_root = open_path(Path::new("/proc"))?;
        mount::attach(&self.root, &place_of_root)
            .map_err(|e| io::Error::new(e.kind(), format!("attaching the root: {e}")))?;
        let root = &self.root;
        let mut own_dev = false;
        let entries = bundle.spec.mounts().iter().flatten();
        let mut read_only_later = Vec::new();
        for (entry, ready) in entries.zip(self.mounts) {
            let at = entry.destination();
            let describe = context("mounting at", at);
            own_dev |= at == Path::new("/dev") && entry.typ().as_deref() == Some("tmpfs");
            if attach_entry(root, entry, ready).map_err(describe)? {
                read_only_later.push(at.clone());
            }
        }
        if own_dev {
            fill_dev(bundle, root, self.devices, mknod)?;
        }
        for path in read_only_later {
            let fd = beneath::open_in_root(root, &path, OFlags::PATH, Mode::empty())?;
            mount::set_attr(&fd, false, attr::RDONLY, 0)?;
        }
        make_root(root)?;
        // Mount points were made in it until now.
        if bundle.spec.root().as_ref().is_some_and(|r| r.readonly() == Some(true)) {
            mount::set_attr(root, false, attr::RDONLY, 0)?;
        }
        // While /proc/sys can still be written.
        before_locking()?;
        let linux = bundle.linux()?;
        for path in linux.readonly_paths().iter().flatten() {
            read_only(Path::new(path)).map_err(context("making read-only", Path::new(path)))?;
        }
        for path in linux.masked_paths().iter().flatten() {
            mask(Path::new(path)).map_err(context("masking", Path::new(path)))?;
        }
        Ok(())
    }
}

/// Attaches, or makes, the mount of one entry; whether it is to be made read-only when everything is in it.
fn attach_entry(root: &OwnedFd, entry: &Mount, ready: Ready) -> io::Result<bool> {
    let at = entry.destination();
    let options = parse_options(entry.options().as_deref().unwrap_or(&[]));
    match ready {
        Ready::Mount(fd) => mount::attach(&fd, place(root, at, is_directory(&fd)?)?).map(|()| false),
        Ready::Cgroups(list) => attach_cgroups(root, at, list, &options).map(|()| false),
        Ready::InContainer => {
            let kind = match entry.typ().as_deref() {
                Some("cgroup") => "cgroup2",
                Some(kind) => kind,
                None => "tmpfs",
            };
            let late = kind == "tmpfs" && options.set & attr::RDONLY != 0;
            let set = if late { options.set & !attr::RDONLY } else { options.set };
            let source = entry.source().as_deref().unwrap_or(Path::new(kind)).to_string_lossy().into_owned();
            let target = place(root, at, true)?;
            mount::attach(mount::new_filesystem(kind, &source, &options.data, set)?, target)?;
            Ok(late)
        }
    }
}

/// Further mounts for a container that is there already.
#[derive(Debug)]
pub(crate) struct Further(Vec<(Mount, Ready)>);

/// Makes the detached mounts of `entries`, binds, overlays and memory, with the supervisor's rights.
pub(crate) fn further(bundle: &Bundle, entries: &[Mount]) -> io::Result<Further> {
    let stage = bundle.dir.join("rootfs");
    std::fs::create_dir_all(&stage)?;
    let ready = |entry: &Mount| match entry.typ().as_deref() {
        Some("tmpfs") => Ok((entry.clone(), Ready::InContainer)),
        _ => Ok((entry.clone(), Ready::Mount(detached(entry, &stage)?))),
    };
    entries.iter().map(ready).collect::<io::Result<_>>().map(Further)
}

impl Further {
    /// In the container, as its root.
    pub(crate) fn attach(self, root: &OwnedFd) -> io::Result<()> {
        for (entry, ready) in self.0 {
            let at = entry.destination();
            if attach_entry(root, &entry, ready).map_err(context("mounting at", at))? {
                let fd = beneath::open_in_root(root, at, OFlags::PATH, Mode::empty())?;
                mount::set_attr(&fd, false, attr::RDONLY, 0)?;
            }
        }
        Ok(())
    }
}

/// Assembles the root of a container that does not run, with what is mounted over it from the host, in the calling
/// thread's own mount namespace. The tree goes with the descriptor and the namespace.
pub fn assemble(bundle: &Bundle) -> io::Result<OwnedFd> {
    // Another container's are there while that runs.
    let is_hosts =
        |entry: &Mount| !entry.options().iter().flatten().any(|option| option.starts_with(mount::NAMESPACE));
    let prepared = prepare_mounts(bundle, is_hosts)?;
    mount::attach(&prepared.root, open_path(&bundle.dir.join("rootfs"))?)?;
    for (entry, ready) in bundle.spec.mounts().iter().flatten().zip(prepared.mounts) {
        if let Ready::Mount(fd) = ready {
            let target = place(&prepared.root, entry.destination(), is_directory(&fd)?)?;
            mount::attach(&fd, target)?;
        }
    }
    Ok(prepared.root)
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// The mount point in the root, made when it is missing.
fn place(root: &OwnedFd, at: &Path, directory: bool) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o755);
    if directory {
        return beneath::make_dirs_in_root(root, at, mode);
    }
    match beneath::open_in_root(root, at, OFlags::PATH, Mode::empty()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = beneath::make_dirs_in_root(root, at.parent().unwrap_or(Path::new("/")), mode)?;
            let name = at.file_name().ok_or_else(|| invalid("a mount point without a name"))?;
            let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?);
            beneath::open_in_root(root, at, OFlags::PATH, Mode::empty())
        }
        other => other,
    }
}

fn attach_cgroups(
    root: &OwnedFd,
    at: &Path,
    list: Vec<(String, OwnedFd)>,
    options: &Options,
) -> io::Result<()> {
    let tmpfs = mount::new_filesystem(
        "tmpfs",
        "tmpfs",
        &["mode=755".into()],
        attr::NOSUID | attr::NODEV | attr::NOEXEC,
    )?;
    mount::attach(&tmpfs, place(root, at, true)?)?;
    let read_only = options.set & attr::RDONLY;
    for (name, fd) in list {
        if read_only != 0 {
            mount::set_attr(&fd, false, read_only, 0)?;
        }
        mount::attach(&fd, place(root, &at.join(&name), true)?)?;
        for part in name.split(',').filter(|p| *p != name) {
            let _ = rustix::fs::symlinkat(name.as_str(), &tmpfs, part);
        }
    }
    if read_only != 0 {
        mount::set_attr(&tmpfs, false, read_only, 0)?;
    }
    Ok(())
}

fn fill_dev(
    bundle: &Bundle,
    root: &OwnedFd,
    devices: Vec<(PathBuf, OwnedFd)>,
    mknod: bool,
) -> io::Result<()> {
    let dev =
        beneath::open_in_root(root, Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    if mknod {
        for (name, major, minor) in DEVICES {
            let device = rustix::fs::makedev(*major, *minor);
            node(&dev, name, FileType::CharacterDevice, 0o666, device)?;
        }
        for device in bundle.linux()?.devices().iter().flatten() {
            use oci_spec::runtime::LinuxDeviceType as T;
            let kind = match device.typ() {
                T::B => FileType::BlockDevice,
                T::P => FileType::Fifo,
                _ => FileType::CharacterDevice,
            };
            let path = device.path();
            let Ok(relative) = path.strip_prefix("/dev") else {
                return Err(invalid(format!("device {} is not below /dev", path.display())));
            };
            let parent =
                place(root, &Path::new("/dev").join(relative.parent().unwrap_or(Path::new(""))), true)?;
            let name = relative
                .file_name()
                .and_then(|n| n.to_str())
                .ok_or_else(|| invalid("a device without a name"))?;
            let number = rustix::fs::makedev(device.major() as u32, device.minor() as u32);
            node(&parent, name, kind, device.file_mode().unwrap_or(0o666), number)?;
            rustix::fs::chownat(
                &parent,
                name,
                device.uid().map(rustix::fs::Uid::from_raw),
                device.gid().map(rustix::fs::Gid::from_raw),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
    }
    for (path, fd) in devices {
        mount::attach(&fd, place(root, &path, false)?)?;
    }
    for (link, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
        ("core", "/proc/kcore"),
    ] {
        match rustix::fs::symlinkat(to, &dev, link) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn node(dir: impl AsFd, name: &str, kind: FileType, mode: u32, device: u64) -> io::Result<()> {
    match rustix::fs::mknodat(&dir, name, kind, Mode::from_raw_mode(mode), device) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(io::Error::new(io::Error::from(e).kind(), format!("making /dev/{name}: {e}"))),
    }
    // mknod is subject to the umask.
    Ok(rustix::fs::chmodat(&dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
}

/// pivot_root(2) onto itself: the old root lies over the new one for a moment and is then detached.
fn make_root(root: &OwnedFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("pivot_root: {e}")))?;
    mount::detach(Path::new("."))?;
    Ok(rustix::process::chdir("/")?)
}

fn read_only(path: &Path) -> io::Result<()> {
    let fd = match mount::clone_tree(path, true) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    mount::set_attr(&fd, true, attr::RDONLY, 0)?;
    mount::attach(&fd, open_path(path)?)
}

fn mask(path: &Path) -> io::Result<()> {
    let target = match open_path(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let cover = if is_directory(&target)? {
        mount::new_filesystem(
            "tmpfs",
            "tmpfs",
            &[],
            attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC,
        )?
    } else {
        mount::clone_tree(Path::new("/dev/null"), false)?
    };
    mount::attach(&cover, &target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_out() {
        let list = |s: &str| s.split(',').map(str::to_owned).collect::<Vec<_>>();
        let o = parse_options(&list("rbind,ro,nosuid,rprivate"));
        assert_eq!((o.set, o.recursive), (attr::RDONLY | attr::NOSUID, true));
        assert_eq!(o.propagation, Some((1 << 18, true)));
        let o = parse_options(&list("ro,rw,mode=1777,size=64m"));
        assert_eq!((o.set, o.clear), (0, attr::RDONLY));
        assert_eq!(o.data, ["mode=1777", "size=64m"]);
    }

    #[test]
    fn what_is_mounted_elsewhere_is_bound_with_its_ids_mapped() {
        let dir = std::env::temp_dir().join(format!("silo-mounts-{}", std::process::id()));
        let (volume, at) = (dir.join("volume"), dir.join("at"));
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::create_dir_all(&at).unwrap();
        let seen = mount::in_private_namespace(move || {
            let memory = mount::new_filesystem("tmpfs", "tmpfs", &["uid=1000".to_owned()], 0)?;
            mount::attach(&memory, open_path(&volume)?)?;
            std::fs::create_dir(volume.join("sub"))?;
            std::os::unix::fs::chown(volume.join("sub"), Some(1000), Some(1000))?;
            let here = std::fs::read_link("/proc/thread-self")?;
            let namespace = Path::new("/proc").join(here).join("ns/mnt");
            mount::in_private_namespace(move || {
                // As a shim, which has not seen it.
                silo_sys::mount_words::detach_below(volume.parent().unwrap_or(&volume))?;
                assert!(!volume.join("sub").exists());
                let ids = oci_spec::runtime::LinuxIdMappingBuilder::default();
                let ids = ids.container_id(1000_u32).host_id(7_u32).size(1_u32).build();
                let ids = ids.map_err(io::Error::other)?;
                let mut entry = Mount::default();
                let options = ["bind", "x-silo.subpath=sub", &mount::mounter_option(&namespace)];
                entry
                    .set_typ(Some("bind".to_owned()))
                    .set_source(Some(volume.clone()))
                    .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()))
                    .set_uid_mappings(Some(vec![ids]))
                    .set_gid_mappings(Some(vec![ids]));
                mount::attach(detached(&entry, &at)?, open_path(&at)?)?;
                Ok(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&at)?))
            })
        });
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(seen.unwrap(), 7);
    }
}
