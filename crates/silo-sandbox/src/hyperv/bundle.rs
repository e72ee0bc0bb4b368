//! A bundle that names the host's directories, as one that names a machine's.
//!
//! Lower directories of overlays (and a root that is bound) are layers: they never change and become disks. Upper and work
//! directories go to the scratch, with what the bundle's maker has put there. What lies in the bundle's own directory was
//! written for this start and is copied. Every other source is a shared folder. A
//! kernel of one's own needs no user namespace: ids are the container's own.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType as Ns, Mount, Spec};
use silo_runtime::Bundle;
use silo_runtime::protocol::{Disk, PackedFilter, SeedFile};

use super::limits;

/// Where disks are mounted in a machine.
const DISKS: &str = "/d";
/// Where the scratch is.
const SCRATCH: &str = silo_runtime::protocol::SCRATCH;
/// Where copies of what was written for the start are: a bundle's own directory in a machine.
pub(crate) const COPIES: &str = silo_runtime::protocol::BUNDLE;
/// The same of a bundle that a template is saved with.
pub(crate) const READY_COPIES: &str = silo_runtime::protocol::READY_BUNDLE;
/// Where the host's folders are.
pub(crate) const SHARES: &str = "/h";
/// Most files that a bundle's maker may have put into the writable directories, and bytes of one.
const MOST_FILES: usize = 4096;
const MOST_BYTES: u64 = 1 << 20;

/// What a machine needs for a bundle.
#[derive(Debug)]
pub(crate) struct Translated {
    pub(crate) spec: Spec,
    pub(crate) rootfs: Mount,
    /// Each becomes a disk: directories, uppermost first.
    pub(crate) layers: Vec<Vec<PathBuf>>,
    /// The folders to share, in their order.
    pub(crate) shares: Vec<Mount>,
    pub(crate) files: Vec<SeedFile>,
    pub(crate) filter: Option<PackedFilter>,
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}

/// Serial number of a disk.
pub(crate) fn serial(disk: usize) -> String {
    format!("silo-{disk}")
}

/// Serial number of the scratch.
pub(crate) const SCRATCH_SERIAL: &str = "silo-scratch";

/// The disks to mount, of so many lists of layers and the scratch.
pub(crate) fn mounted(layers: usize) -> Vec<Disk> {
    let layers = (0..layers).map(|i| Disk {
        serial: serial(i),
        filesystem: "erofs".into(),
        at: Path::new(DISKS).join(i.to_string()),
        read_only: true,
    });
    let scratch = Disk {
        serial: SCRATCH_SERIAL.into(),
        filesystem: "ext4".into(),
        at: SCRATCH.into(),
        read_only: false,
    };
    layers.chain([scratch]).collect()
}

/// Translates a bundle; `bundle.dir/top` holds its writable directories. `copies`: [`COPIES`] or [`READY_COPIES`].
pub(crate) fn translate(bundle: &Bundle, copies: &str) -> io::Result<Translated> {
    let top = bundle.dir.join("top");
    let mut spec = bundle.spec.clone();
    let base = first_id(bundle);
    let mut made = Translated {
        spec: Spec::default(),
        rootfs: Mount::default(),
        layers: Vec::new(),
        shares: Vec::new(),
        files: Vec::new(),
        filter: None,
    };
    made.rootfs = match bundle.rootfs.typ().as_deref() {
        Some("overlay") => overlay(&bundle.rootfs, &top, &mut made.layers)?,
        _ => {
            let source = bundle.rootfs.source().clone().ok_or_else(|| invalid("a root without a source"))?;
            let mut mount = bundle.rootfs.clone();
            mount.set_source(Some(disk(&mut made.layers, vec![source])));
            mount
        }
    };
    let mut mounts = Vec::new();
    for (number, entry) in spec.mounts().iter().flatten().enumerate() {
        mounts.push(match (own_source(bundle, entry), entry.typ().as_deref().unwrap_or("bind")) {
            (Some(source), _) => copied(source, &copy(copies, number), base, entry, &mut made.files)?,
            (None, "overlay") => overlay(entry, &top, &mut made.layers)?,
            (None, "bind" | "none" | "") => share(entry, base, &mut made.shares),
            _ => entry.clone(),
        });
    }
    spec.set_mounts(Some(mounts));
    made.filter = own_kernel(&mut spec)?;
    made.spec = spec;
    seed(&top, Path::new(SCRATCH), base, &mut made.files)?;
    Ok(made)
}

/// The files that a machine has copies of (in `copies`), as they are now.
pub(crate) fn copies(bundle: &Bundle, copies: &str) -> io::Result<Vec<SeedFile>> {
    let mut files = Vec::new();
    for (number, entry) in bundle.spec.mounts().iter().flatten().enumerate() {
        if let Some(source) = own_source(bundle, entry) {
            add(source, &copy(copies, number), first_id(bundle), &mut files)?;
        }
    }
    Ok(files)
}

/// What a bind mount shows, if it lies in the bundle's own directory.
fn own_source<'m>(bundle: &Bundle, entry: &'m Mount) -> Option<&'m Path> {
    let binds = matches!(entry.typ().as_deref().unwrap_or("bind"), "bind" | "none" | "");
    entry.source().as_deref().filter(|source| binds && source.starts_with(&bundle.dir))
}

/// Where the copy of a mount's source is; `number`: which of the bundle's mounts.
fn copy(copies: &str, number: usize) -> PathBuf {
    Path::new(copies).join(number.to_string())
}

/// The host's id of the container's first.
fn first_id(bundle: &Bundle) -> u32 {
    let ids = bundle.spec.linux().as_ref().and_then(|l| l.uid_mappings().as_ref());
    ids.into_iter().flatten().find(|m| m.container_id() == 0).map_or(0, LinuxIdMapping::host_id)
}

/// What a kernel of one's own makes needless or cannot have; the filter of system calls is compiled here.
fn own_kernel(spec: &mut Spec) -> io::Result<Option<PackedFilter>> {
    let Some(mut linux) = spec.linux().clone() else { return Ok(None) };
    let namespaces = linux.namespaces().clone().unwrap_or_default();
    linux.set_namespaces(Some(namespaces.into_iter().filter(|n| n.typ() != Ns::User).collect()));
    linux.set_uid_mappings(None).set_gid_mappings(None);
    if let Some(resources) = linux.resources().as_ref().map(limits::inside) {
        linux.set_resources(Some(resources));
    }
    // The machine is the slower compiler.
    let filter = linux.seccomp().as_ref().map(silo_runtime::seccomp::compile).transpose();
    let filter = filter.map_err(|e| invalid(e.to_string()))?;
    linux.set_seccomp(None);
    spec.set_linux(Some(linux));
    Ok(filter.map(|f| f.pack()))
}

/// The place of a disk of these layers.
fn disk(layers: &mut Vec<Vec<PathBuf>>, wanted: Vec<PathBuf>) -> PathBuf {
    let found = layers.iter().position(|l| *l == wanted).unwrap_or_else(|| {
        layers.push(wanted);
        layers.len() - 1
    });
    Path::new(DISKS).join(found.to_string())
}

fn overlay(entry: &Mount, top: &Path, layers: &mut Vec<Vec<PathBuf>>) -> io::Result<Mount> {
    let writable = |path: &str| -> io::Result<String> {
        let below = Path::new(path)
            .strip_prefix(top)
            .map_err(|_| invalid(format!("{path} is not among the container's writable directories")))?;
        Ok(Path::new(SCRATCH).join(below).display().to_string())
    };
    let mut options = Vec::new();
    for option in entry.options().iter().flatten() {
        options.push(match option.split_once('=') {
            Some(("lowerdir", list)) => {
                let list = list.split(':').map(PathBuf::from).collect();
                format!("lowerdir={}", disk(layers, list).display())
            }
            Some((key @ ("upperdir" | "workdir"), path)) => format!("{key}={}", writable(path)?),
            _ => option.clone(),
        });
    }
    let mut mount = entry.clone();
    mount.set_options(Some(options)).set_uid_mappings(None).set_gid_mappings(None);
    Ok(mount)
}

fn copied(
    source: &Path,
    at: &Path,
    base: u32,
    entry: &Mount,
    files: &mut Vec<SeedFile>,
) -> io::Result<Mount> {
    add(source, at, base, files)?;
    let mut mount = entry.clone();
    mount.set_source(Some(at.to_owned())).set_uid_mappings(None).set_gid_mappings(None);
    Ok(mount)
}

fn share(entry: &Mount, base: u32, shares: &mut Vec<Mount>) -> Mount {
    let at = Path::new(SHARES).join(shares.len().to_string());
    let mut outside = entry.clone();
    let shifted = |maps: &Option<Vec<LinuxIdMapping>>| {
        maps.as_ref().map(|maps| {
            let one = |m: &LinuxIdMapping| {
                let host = m.host_id().saturating_sub(base);
                let made = LinuxIdMappingBuilder::default().container_id(m.container_id()).host_id(host);
                made.size(m.size()).build().unwrap_or(*m)
            };
            maps.iter().map(one).collect()
        })
    };
    outside.set_uid_mappings(shifted(entry.uid_mappings())).set_gid_mappings(shifted(entry.gid_mappings()));
    shares.push(outside);
    let outside_only = [silo_sys::mount::SUBPATH, silo_sys::mount::MOUNTER];
    let inside = entry.options().iter().flatten().filter(|o| !outside_only.iter().any(|p| o.starts_with(p)));
    let inside = inside.map(|o| if o == "rbind" { "bind".to_owned() } else { o.clone() }).collect();
    let mut mount = entry.clone();
    mount.set_source(Some(at)).set_options(Some(inside)).set_uid_mappings(None).set_gid_mappings(None);
    mount
}

/// What is in the writable directories before the start.
fn seed(from: &Path, to: &Path, base: u32, files: &mut Vec<SeedFile>) -> io::Result<()> {
    let entries = match std::fs::read_dir(from) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        add(&entry.path(), &to.join(entry.file_name()), base, files)?;
    }
    Ok(())
}

fn add(path: &Path, at: &Path, base: u32, files: &mut Vec<SeedFile>) -> io::Result<()> {
    let meta = path.symlink_metadata()?;
    if files.len() >= MOST_FILES {
        return Err(invalid("too many files in the container's own directories before its start"));
    }
    let kind = meta.file_type();
    let content = if kind.is_symlink() {
        std::fs::read_link(path)?.as_os_str().as_bytes().to_vec()
    } else if kind.is_file() {
        if meta.len() > MOST_BYTES {
            return Err(invalid(format!("{} is too large to be there before the start", path.display())));
        }
        std::fs::read(path)?
    } else if kind.is_dir() {
        Vec::new()
    } else {
        return Ok(());
    };
    files.push(SeedFile {
        path: at.to_owned(),
        mode: meta.permissions().mode(),
        uid: meta.uid().saturating_sub(base),
        gid: meta.gid().saturating_sub(base),
        content,
    });
    if kind.is_dir() { seed(path, at, base, files) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let mut mount = Mount::default();
        mount
            .set_destination("/x".into())
            .set_typ(Some(kind.into()))
            .set_source(Some(source.into()))
            .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
        mount
    }

    #[test]
    fn layers_become_disks_tops_scratch_and_the_rest_shares() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir_all(top.join("upper/app")).unwrap();
        let overlay = mount(
            "overlay",
            "overlay",
            &[
                "lowerdir=/l/2:/l/1",
                &format!("upperdir={}", top.join("upper").display()),
                &format!("workdir={}", top.join("work").display()),
            ],
        );
        let mut spec = Spec::default();
        spec.set_mounts(Some(vec![
            mount("proc", "proc", &[]),
            mount(
                "bind",
                "/srv/data",
                &["rbind", "ro", "rprivate", "x-silo.subpath=a", "x-silo.mounter=/run/silo/mounts"],
            ),
            mount("overlay", "overlay", &["lowerdir=/l/2:/l/1"]),
        ]));
        let bundle = Bundle { dir: dir.path().into(), spec, rootfs: overlay, filter: None };
        let made = translate(&bundle, COPIES).unwrap();
        assert_eq!(made.layers, [["/l/2", "/l/1"].map(PathBuf::from).to_vec()]);
        assert_eq!(
            made.rootfs.options().clone().unwrap(),
            ["lowerdir=/d/0", "upperdir=/s/upper", "workdir=/s/work"]
        );
        assert_eq!(made.shares.len(), 1);
        let bind = &made.spec.mounts().as_ref().unwrap()[1];
        assert_eq!(bind.source().as_deref(), Some(Path::new("/h/0")));
        assert_eq!(bind.options().as_ref().unwrap(), &["bind", "ro", "rprivate"]);
        let seeded: Vec<_> = made.files.iter().map(|f| f.path.display().to_string()).collect();
        assert_eq!(seeded, ["/s/upper", "/s/upper/app"]);
        assert!(
            made.spec
                .linux()
                .as_ref()
                .unwrap()
                .namespaces()
                .as_ref()
                .unwrap()
                .iter()
                .all(|n| n.typ() != Ns::User)
        );
    }

    #[test]
    fn what_was_written_for_a_start_is_copied_and_copied_anew_to_the_same_place() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path().join("sys");
        std::fs::create_dir(&sys).unwrap();
        std::fs::write(sys.join("limits"), "one").unwrap();
        let mut spec = Spec::default();
        let own = mount("bind", &sys.display().to_string(), &["bind", "ro"]);
        spec.set_mounts(Some(vec![mount("proc", "proc", &[]), own]));
        let rootfs = mount("bind", "/base", &[]);
        let bundle = Bundle { dir: dir.path().into(), spec, rootfs, filter: None };
        let made = translate(&bundle, COPIES).unwrap();
        let at = Path::new(COPIES).join("1");
        assert_eq!(made.spec.mounts().as_ref().unwrap()[1].source().as_deref(), Some(&*at));
        let limits = |files: &[SeedFile]| {
            let found = files.iter().find(|file| file.path == at.join("limits"));
            String::from_utf8(found.unwrap().content.clone()).unwrap()
        };
        assert_eq!(limits(&made.files), "one");
        std::fs::write(sys.join("another"), "").unwrap();
        std::fs::write(sys.join("limits"), "two").unwrap();
        assert_eq!(limits(&copies(&bundle, COPIES).unwrap()), "two");
    }

    #[test]
    fn a_writable_directory_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = mount("overlay", "overlay", &["lowerdir=/l", "upperdir=/etc", "workdir=/w"]);
        let bundle = Bundle { dir: dir.path().into(), spec: Spec::default(), rootfs, filter: None };
        assert!(translate(&bundle, COPIES).unwrap_err().to_string().contains("/etc"));
    }
}
