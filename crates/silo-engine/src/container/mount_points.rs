//! What a container has mounted: the mounts it asks for, its image's and other containers', with their volumes; and what a
//! new volume begins with.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use silo_guest::{Guest, MountKind};
use silo_sandbox::{beneath, mount_words};

use crate::engine::Engine;
use crate::error::{EngineError, Kind, Result, guest_error};
use crate::image;
use crate::mount_mode::MountMode;
use crate::record::{ContainerRecord, MountPoint, VolumeRecord};
use crate::spec::{ContainerSpec, MountSource, MountSpec};
use crate::volume_options;

/// `--volumes-from`: whose, and whether for reading only.
fn volumes_from(text: &str) -> Result<(&str, bool)> {
    let (name, words) = text.split_once(':').unwrap_or((text, ""));
    let mode = MountMode::parse(words).filter(|m| m.propagation.is_empty() && !m.no_copy);
    match mode {
        _ if text.is_empty() => {
            Err(EngineError::invalid("volumes-from specification cannot be an empty string"))
        }
        None => Err(EngineError::invalid(format!("invalid mode: {words}"))),
        Some(mode) => Ok((name, mode.read_only)),
    }
}

/// A path in a volume, spelled as it is there; links in it do not lead out.
fn subpath_in(volume: &Path, subpath: &str, guest: &dyn Guest) -> Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let at = volume.join(subpath);
    let absent = |e: std::io::Error| {
        let at = at.display();
        EngineError::not_found(format!("cannot access path {at}: lstat {at}: {}", mount_words::reason(&e)))
    };
    let root = rustix::fs::open(volume, flags, Mode::empty()).map_err(|e| absent(e.into()))?;
    let found = guest.in_volume(&root.as_fd(), subpath);
    match beneath::open_beneath(&root, &found, flags, Mode::empty()) {
        Ok(_) => Ok(found),
        Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => Err(EngineError::invalid(format!(
            "path concatenation escapes the base directory, base: {}, subpath: {subpath}",
            volume.display()
        ))),
        Err(e) => Err(absent(e)),
    }
}

impl Engine {
    /// `--volumes-from`: the other containers' mounts, the later one's where two have the same target, unless this
    /// container mounts something there itself.
    pub(super) fn resolve_volumes_from(&self, spec: &mut ContainerSpec, guest: &dyn Guest) -> Result<()> {
        let mut inherited: Vec<MountSpec> = Vec::new();
        for from in &spec.volumes_from {
            let (name, read_only) = volumes_from(from)?;
            let other = self.find(name).map_err(|e| EngineError { kind: Kind::NotFound, ..e })?.record();
            for mut mount in other.spec.mounts {
                let shown = other.mounts.iter().find(|m| m.destination == mount.target);
                match &mut mount.kind {
                    MountSource::Tmpfs { .. } => continue,
                    MountSource::Bind { create, .. } => *create = false,
                    MountSource::Volume { copy_up, anonymous, .. } => {
                        *copy_up = false;
                        *anonymous = shown.is_some_and(|m| m.anonymous);
                    }
                }
                mount.read_only |= read_only;
                mount.mode.clear();
                inherited.retain(|m| !guest.is_same_place(&m.target, &mount.target));
                inherited.push(mount);
            }
        }
        inherited.retain(|m| !spec.mounts.iter().any(|own| guest.is_same_place(&own.target, &m.target)));
        spec.mounts.append(&mut inherited);
        Ok(())
    }

    /// Checks targets and sources, makes volumes and missing bind sources. `made`: the anonymous volumes, whose rows are
    /// still to be written.
    pub(super) fn mount_points(
        &self,
        spec: &mut ContainerSpec,
        guest: &dyn Guest,
        made: &mut Vec<VolumeRecord>,
    ) -> Result<Vec<MountPoint>> {
        for target in spec.config.volumes.clone() {
            if !spec.mounts.iter().any(|m| guest.is_same_place(&m.target, &target)) {
                spec.mounts.push(MountSpec {
                    kind: MountSource::anonymous_volume(),
                    target,
                    read_only: false,
                    mode: String::new(),
                    propagation: String::new(),
                    non_recursive: false,
                });
            }
        }
        let mut points: Vec<MountPoint> = Vec::new();
        // `--tmpfs`, which dockerd does not show.
        let mut hidden: Vec<String> = Vec::new();
        for mount in &mut spec.mounts {
            if !guest.is_absolute(&mount.target) {
                return Err(EngineError::invalid(format!(
                    "invalid mount config for type \"{}\": invalid mount path: '{}' mount path must be absolute",
                    mount.kind.kind(),
                    mount.target
                )));
            }
            let mut taken = hidden.iter().chain(points.iter().map(|p| &p.destination));
            if taken.any(|other| guest.is_same_place(other, &mount.target)) {
                return Err(EngineError::invalid(format!("Duplicate mount point: {}", mount.target)));
            }
            if matches!(mount.kind, MountSource::Tmpfs { by_mount: false, .. }) {
                hidden.push(mount.target.clone());
                continue;
            }
            points.push(self.mount_point(mount, made)?);
        }
        Ok(points)
    }

    fn mount_point(&self, mount: &mut MountSpec, made: &mut Vec<VolumeRecord>) -> Result<MountPoint> {
        let mut propagation = mount.propagation.clone();
        let (name, source, anonymous) = match &mut mount.kind {
            MountSource::Bind { source, create } => {
                bind_source(source, *create)?;
                if propagation.is_empty() {
                    "rprivate".clone_into(&mut propagation);
                }
                (String::new(), source.clone(), false)
            }
            MountSource::Volume { name, labels, options, anonymous, .. } => {
                let volume = if name.is_empty() {
                    *anonymous = true;
                    let volume = self.inner.volumes.make_anonymous(labels.clone(), options.clone())?;
                    made.push(volume.clone());
                    volume
                } else {
                    self.named_volume(name, labels.clone(), options.clone())?
                };
                name.clone_from(&volume.name);
                (volume.name, volume.mountpoint, *anonymous)
            }
            MountSource::Tmpfs { .. } => Default::default(),
        };
        Ok(MountPoint {
            kind: mount.kind.kind().to_owned(),
            driver: if name.is_empty() { String::new() } else { "local".to_owned() },
            name,
            source,
            destination: mount.target.clone(),
            mode: mount.mode.clone(),
            rw: !mount.read_only,
            propagation,
            anonymous,
        })
    }

    /// Empty volumes get what the image has at their places.
    pub(super) fn fill_volumes(&self, record: &ContainerRecord, guest: &dyn Guest) -> Result<()> {
        let copies = |m: &&MountSpec| matches!(m.kind, MountSource::Volume { copy_up: true, .. });
        let layers = match record.spec.mounts.iter().any(|m| copies(&m)) {
            true => self.inner.images.chain(&record.image_id).map_err(image::error)?,
            false => return Ok(()),
        };
        for mount in record.spec.mounts.iter().filter(copies) {
            let at = guest.path_in_root(&mount.target, "").map_err(guest_error)?;
            let Ok(inside) = at.0.strip_prefix(guest.changes().1) else { continue };
            let windows = !guest.env_case_sensitive();
            let shown = silo_image::shown_at(&layers, guest.layer_files(), inside, windows);
            match shown.map_err(|e| not_copied(mount, &e))? {
                None => {}
                Some((from, FileType::Directory)) => {
                    self.fill_volume(record, mount, guest, &layers, &from)?;
                }
                Some(_) => {
                    let words = "cannot mount volume over existing file, file exists";
                    return Err(EngineError::invalid(format!("{words} {}", mount.target)));
                }
            }
        }
        Ok(())
    }

    /// Copies the image's directory `from` into the volume of a mount, unless something is in it.
    fn fill_volume(
        &self,
        record: &ContainerRecord,
        mount: &MountSpec,
        guest: &dyn Guest,
        layers: &[PathBuf],
        from: &Path,
    ) -> Result<()> {
        let MountSource::Volume { name, subpath, .. } = &mount.kind else { return Ok(()) };
        let mut of = record.clone();
        of.spec.mounts = vec![mount.clone()];
        let _mounted = self.volumes_for_now(&of)?;
        let to = match self.volume_mount(name, subpath, guest) {
            Ok(MountKind::Bind { source, subpath, .. }) => source.join(subpath),
            Ok(MountKind::Tmpfs { .. }) => return Ok(()),
            // It may be there when the container starts.
            Err(e) if e.kind == Kind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        if std::fs::read_dir(&to).is_ok_and(|mut found| found.next().is_none()) {
            silo_image::copy_up(layers, guest.layer_files(), from, &to).map_err(|e| not_copied(mount, &e))?;
        }
        Ok(())
    }

    /// A volume, or what is at a path in it, as something to mount.
    pub(super) fn volume_mount(&self, name: &str, subpath: &str, guest: &dyn Guest) -> Result<MountKind> {
        let volume = self.volume(name)?;
        let source = PathBuf::from(&volume.mountpoint);
        let mounter = volume_options::is_mount(&volume.options).then(|| self.mounts_file());
        let subpath = match subpath {
            "" => PathBuf::new(),
            subpath => subpath_in(&source, subpath, guest)?,
        };
        Ok(MountKind::Bind { source, subpath, mounter })
    }
}

fn not_copied(mount: &MountSpec, why: &std::io::Error) -> EngineError {
    EngineError::internal(format!("copying the image's {} into a volume: {why}", mount.target))
}

/// Checks what is to be bound, or makes it.
fn bind_source(source: &str, create: bool) -> Result<()> {
    let invalid =
        |why: String| EngineError::invalid(format!("invalid mount config for type \"bind\": {why}"));
    let path = Path::new(source);
    if !path.is_absolute() {
        return Err(invalid(format!("invalid mount path: '{source}' mount path must be absolute")));
    }
    if path.exists() {
        return Ok(());
    }
    if !create {
        return Err(invalid(format!("bind source path does not exist: {source}")));
    }
    std::fs::create_dir_all(path)
        .map_err(|e| EngineError::invalid(format!("error while creating mount source path '{source}': {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use silo_guest::Os;

    #[test]
    fn who_lends_volumes_and_how() {
        let said = |text| volumes_from(text).map_err(|e| e.message);
        assert_eq!(said("a"), Ok(("a", false)));
        assert_eq!(said("a:ro,z"), Ok(("a", true)));
        for mode in ["nocopy", "rslave", "rx"] {
            let refused = volumes_from(&format!("a:{mode}")).map(|_| ()).map_err(|e| e.message);
            assert_eq!(refused, Err(format!("invalid mode: {mode}")));
        }
    }

    #[test]
    fn a_subpath_stays_in_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("Sub/deep")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("../..", volume.join("Sub/up")).unwrap();
        std::os::unix::fs::symlink("Sub", volume.join("link")).unwrap();
        let says = |os, subpath: &str, wanted: std::result::Result<&str, &str>| {
            let found = subpath_in(&volume, subpath, crate::placement::guest(os).unwrap());
            let found = found.map(|path| path.display().to_string()).map_err(|e| e.message);
            match (found, wanted) {
                (Err(said), Err(wanted)) => assert!(said.contains(wanted), "{subpath}: {said}"),
                (found, wanted) => assert_eq!(found.as_deref().ok(), wanted.ok(), "{subpath}"),
            }
        };
        says(Os::Linux, "Sub/deep", Ok("Sub/deep"));
        says(Os::Linux, "link/deep", Ok("link/deep"));
        says(Os::Linux, "sub", Err("no such file or directory"));
        says(Os::Linux, "out", Err("path concatenation escapes the base directory"));
        says(Os::Linux, "Sub/up", Err("path concatenation escapes the base directory"));
        says(Os::Windows, r"sub\DEEP", Ok("Sub/deep"));
        says(Os::Windows, "out", Err("path concatenation escapes the base directory"));
        says(Os::Windows, "none", Err("cannot access path"));
    }
}
