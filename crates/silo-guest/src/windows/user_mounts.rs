//! Mounts of the user's: on folders of `C:`, or as further drives.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{Mode, OFlags};

use crate::contract::{GuestError, MountKind, MountRequest};

use super::oci::{io, mapping, mount, own_directory};
use super::paths::{self, WindowsPath, drive_root, is_spelled};

/// The mounts, parents before children. `drive_c`: what shows at `C:`, uppermost first; `prefix`: the upper directory of
/// Wine's prefix, whose list of drives becomes longer.
pub(super) fn mounts(
    wanted: &[MountRequest],
    drive_c: &[PathBuf],
    prefix: &Path,
    id_range: u32,
) -> Result<Vec<Mount>, GuestError> {
    let mut targets = Vec::new();
    for wanted in wanted {
        let target = target(wanted)?;
        if target.is_root() {
            add_drive(target.drive(), prefix, id_range)?;
        }
        targets.push((target, wanted));
    }
    targets.sort_by_key(|(target, _)| target.depth());
    let mut made: Vec<Mount> = Vec::new();
    for (target, wanted) in targets {
        let at = beneath(target.resolve(drive_c), &made);
        made.push(user_mount(wanted, &at, id_range)?);
    }
    Ok(made)
}

/// The drives that mounts are: Wine looks for them when it starts.
pub(super) fn drives(mounts: &[Mount]) -> String {
    let roots = mounts.iter().map(|mount| mount.destination()).filter(|at| !at.starts_with("/c"));
    roots.map(|at| at.display().to_string()).collect::<Vec<_>>().join(" ")
}

/// Whether a mount at this path is a drive of its own.
pub(super) fn is_drive(target: &str) -> bool {
    WindowsPath::parse(target, None).is_ok_and(|path| path.drive() != 'c')
}

fn target(wanted: &MountRequest) -> Result<WindowsPath, GuestError> {
    let invalid = |why: &str| {
        GuestError::Invalid(format!("invalid mount config: invalid mount path: '{}' {why}", wanted.target))
    };
    if !paths::is_absolute(&wanted.target) {
        return Err(invalid("mount path must be absolute"));
    }
    let target = WindowsPath::parse(&wanted.target, None)?;
    match (target.drive(), target.is_root()) {
        ('c', true) => Err(invalid("destination path cannot be c: or c:\\")),
        (drive @ ('a' | 'b'), _) => Err(invalid(&format!("drive {drive}: cannot be mounted"))),
        ('c', false) | (_, true) => Ok(target),
        (_, false) => Err(invalid("a drive other than C: can only be mounted whole")),
    }
}

/// A path in the root as the mounts above it (parents before children) and what they mount spell it.
pub(super) fn beneath(at: PathBuf, mounts: &[Mount]) -> PathBuf {
    let above = mounts.iter().rev().find_map(|mount| {
        let (mut parts, target) = (at.components(), mount.destination());
        let same = |part: std::path::Component<'_>| {
            parts.next().is_some_and(|own| is_spelled(own.as_os_str(), part.as_os_str()))
        };
        target.components().all(same).then(|| (mount, parts.as_path().to_owned()))
    });
    let Some((mount, rest)) = above else { return at };
    let source = mount.source().iter().filter(|_| mount.typ().as_deref() == Some("bind"));
    let below = mount.options().iter().flatten().find_map(|o| o.strip_prefix(silo_sys::mount::SUBPATH));
    let shown = source.map(|source| source.join(below.unwrap_or_default()));
    mount.destination().join(paths::resolve(&rest, &shown.collect::<Vec<_>>()))
}

/// Refuses a directory on a drive that is not there.
pub(super) fn refuse_unmounted(directory: &WindowsPath, mounts: &[Mount]) -> Result<(), GuestError> {
    let root = drive_root(directory.drive());
    if directory.drive() == 'c' || mounts.iter().any(|mount| *mount.destination() == root) {
        return Ok(());
    }
    Err(GuestError::Invalid(format!(
        "invalid working directory '{directory}': nothing is mounted as drive {}:",
        directory.drive()
    )))
}

fn user_mount(wanted: &MountRequest, at: &Path, id_range: u32) -> Result<Mount, GuestError> {
    let at = at.to_string_lossy();
    let access = if wanted.read_only { "ro" } else { "rw" };
    let (source, subpath, mounter) = match &wanted.kind {
        MountKind::Bind { source, subpath, mounter } => (source, subpath, mounter),
        MountKind::Tmpfs { options } => {
            let mut all = vec!["nosuid", "nodev", access];
            all.extend(options.iter().map(String::as_str));
            return Ok(mount(&at, "tmpfs", Path::new("tmpfs"), &all));
        }
    };
    let (user, group) =
        owner(source, subpath).map_err(io(format!("mounting {}", source.join(subpath).display())))?;
    let bind = if wanted.non_recursive { "bind" } else { "rbind" };
    let propagation = if wanted.propagation.is_empty() { "rprivate" } else { &wanted.propagation };
    let mut options = vec![bind, access, propagation, "nosuid", "nodev"];
    let below = silo_sys::mount::subpath_option(subpath);
    let mounter = mounter.as_deref().map(silo_sys::mount::mounter_option);
    options.extend(below.as_deref().into_iter().chain(mounter.as_deref()));
    let mut mount = mount(&at, "bind", source, &options);
    // The folder's owner is who programs are in it, so that they may do what that user may, and new files are that
    // user's. Everybody else's files show as nobody's, open as far as their mode says.
    mount.set_uid_mappings(Some(mapping(user, id_range, 1)));
    mount.set_gid_mappings(Some(mapping(group, id_range, 1)));
    Ok(mount)
}

/// Who owns what is mounted: links in the source do not lead out of it.
fn owner(source: &Path, subpath: &Path) -> std::io::Result<(u32, u32)> {
    if subpath.as_os_str().is_empty() {
        let meta = fs::metadata(source)?;
        return Ok((meta.uid(), meta.gid()));
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(source, flags, Mode::empty())?;
    let found = rustix::fs::fstat(silo_sys::beneath::open_beneath(&root, subpath, flags, Mode::empty())?)?;
    Ok((found.st_uid, found.st_gid))
}

/// Makes Wine know a drive: a link in its list of drives, to the mount point that each base has.
fn add_drive(drive: char, prefix: &Path, owner: u32) -> Result<(), GuestError> {
    let drives = prefix.join("dosdevices");
    own_directory(&drives, owner)?;
    let link = drives.join(format!("{drive}:"));
    match std::os::unix::fs::symlink(drive_root(drive), &link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(io(format!("making {}", link.display()))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(source: &Path, target: &str) -> MountRequest {
        MountRequest {
            kind: MountKind::Bind { source: source.to_owned(), subpath: PathBuf::new(), mounter: None },
            target: target.to_owned(),
            read_only: false,
            propagation: String::new(),
            non_recursive: false,
        }
    }

    #[test]
    fn parents_come_first_and_spell_what_is_beneath_them() {
        let host = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = host.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (files, prefix, data) = (at("files"), at("prefix"), at("data"));
        at("data/Sub/Deep");
        let wanted = [wanted(&at("x"), r"C:\DATA\sub\new"), wanted(&data, r"c:\Data"), wanted(&data, "D:")];
        let made = mounts(&wanted, std::slice::from_ref(&files), &prefix, 0).unwrap();
        let targets: Vec<&Path> = made.iter().map(|m| m.destination().as_path()).collect();
        assert_eq!(targets, [Path::new("/mnt/d"), Path::new("/c/Data"), Path::new("/c/Data/Sub/new")]);
        assert!(prefix.join("dosdevices/d:").is_symlink());
        let directory = |path: &str| {
            let path = WindowsPath::parse(path, None)?;
            refuse_unmounted(&path, &made)?;
            Ok::<_, GuestError>(beneath(path.resolve(std::slice::from_ref(&files)), &made))
        };
        assert_eq!(directory(r"d:\SUB\deep").unwrap(), Path::new("/mnt/d/Sub/Deep"));
        assert_eq!(directory(r"C:\data\sub").unwrap(), Path::new("/c/Data/Sub"));
        assert_eq!(directory(r"C:\other").unwrap(), Path::new("/c/other"));
        let refused = directory(r"E:\x").unwrap_err().to_string();
        assert_eq!(refused, r"invalid working directory 'E:\x': nothing is mounted as drive e:");
    }

    #[test]
    fn what_is_below_a_volumes_path_is_found_there() {
        let host = tempfile::tempdir().unwrap();
        let volume = host.path().join("volume");
        fs::create_dir_all(volume.join("Sub/Deep")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        let mounted = |subpath: &str| {
            let mut wanted = wanted(&volume, r"C:\data");
            wanted.kind = MountKind::Bind {
                source: volume.clone(),
                subpath: subpath.into(),
                mounter: Some("/run/silo/mounts".into()),
            };
            mounts(&[wanted], &[], host.path(), 7)
        };
        let made = mounted("Sub").unwrap();
        let options = made[0].options().as_ref().unwrap();
        for option in ["x-silo.subpath=Sub", "x-silo.mounter=/run/silo/mounts"] {
            assert!(options.iter().any(|o| o == option), "{options:?}");
        }
        assert_eq!(beneath(PathBuf::from("/c/DATA/deep"), &made), Path::new("/c/data/Deep"));
        assert!(mounted("out").is_err() && mounted("none").is_err());
    }
}
