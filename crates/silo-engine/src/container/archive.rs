//! `cp` both ways, `diff`, `export`: a container's files from outside, running or not.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::ByteStream;
use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Kind, Result, guest_error};
use crate::record::{ContainerRecord, Status};
use crate::spec::NetworkMode;
use crate::stream::stream_by;
use crate::{image, placement};

use super::start::Joined;

/// A file as `docker cp` is told of it.
#[derive(Debug, Clone)]
pub struct PathStat {
    /// Last component.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Go's `os.FileMode` bits.
    pub mode: u32,
    /// Last change.
    pub mtime: Timestamp,
    /// Target of a symbolic link, inside the container.
    pub link_target: String,
}

/// One line of `docker diff`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute, in the guest's view.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}

fn internal(doing: &str) -> impl FnOnce(io::Error) -> EngineError + '_ {
    move |e| EngineError::internal(format!("{doing}: {e}"))
}

/// Go's `os.FileMode` of a `st_mode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        _ => 0,
    };
    let special = (mode >> 11 & 1) << 23 | (mode >> 10 & 1) << 22 | (mode >> 9 & 1) << 20;
    kind | special | mode & 0o777
}

/// What is done inside of a container's file tree.
type Work<T> = Box<dyn FnOnce(&OwnedFd) -> Result<T> + Send>;

impl Engine {
    /// Runs `work` on the open root directory of a container: the running one's own, or one assembled for the moment.
    fn with_root<T: Send + 'static>(&self, entry: &Arc<Entry>, work: Work<T>) -> Result<T> {
        let record = entry.record();
        if record.state.status.is_running() {
            let path = format!("/proc/{}/root", record.state.pid);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(path.as_str(), flags, Mode::empty())
                .map_err(|e| internal("opening the container's root")(e.into()))?;
            return work(&root);
        }
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            return Err(EngineError::conflict(format!("container {} is being removed", entry.id)));
        }
        self.bundle_for_files(&record)?;
        let dir = self.dir(&entry.id);
        silo_sandbox::with_stopped_root(&dir, move |root| Ok(work(root)))
            .map_err(internal("assembling the container's root"))?
    }

    /// A container that was never started has no bundle yet.
    fn bundle_for_files(&self, record: &ContainerRecord) -> Result<()> {
        if self.dir(&record.id).join(crate::bundle::CONFIG).exists() {
            return Ok(());
        }
        let mut quiet = record.clone();
        quiet.spec.network = NetworkMode::None;
        self.write_bundle(&quiet, &Joined { namespace: None, adapter: None })
    }

    fn path_in(&self, record: &ContainerRecord, path: &str) -> Result<PathBuf> {
        if path.is_empty() {
            return Err(EngineError::invalid("missing parameter: path"));
        }
        let guest = placement::guest(record.os)?;
        let at = guest.path_in_root(path, "").map_err(guest_error)?.0;
        // `dir/.` and `link/` mean what the link leads to.
        let directory = path.ends_with('/') || path.ends_with("/.") || path.ends_with('\\');
        Ok(if directory { at.join(".") } else { at })
    }

    /// What is at a path.
    pub async fn archive_stat(&self, name: &str, path: &str) -> Result<PathStat> {
        let entry = self.find(name)?;
        let at = self.path_in(&entry.record(), path)?;
        let (engine, shown) = (self.clone(), path.to_owned());
        blocking(move || {
            engine.with_root(&entry.clone(), Box::new(move |root| stat(root, &at, &shown, &entry.id.0)))
        })
        .await
    }

    /// A file or directory as tar.
    pub async fn archive_get(&self, name: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let found = self.archive_stat(name, path).await?;
        let entry = self.find(name)?;
        let at = self.path_in(&entry.record(), path)?;
        let contents_only = path.ends_with("/.");
        let prefix = if contents_only { ".".to_owned() } else { found.name.clone() };
        let offset = self.id_offset(&entry.record());
        let bytes = self.packed(entry, move |root, to| {
            silo_image::layer::pack_tree(root.as_fd(), &at, &prefix, offset, false, to)
                .map_err(|e| EngineError::internal(e.to_string()))
        });
        Ok((found, bytes))
    }

    /// A stream of what `work` writes of a container's root directory.
    fn packed(
        &self,
        entry: Arc<Entry>,
        work: impl FnOnce(&OwnedFd, &mut dyn Write) -> Result<()> + Send + 'static,
    ) -> ByteStream {
        let engine = self.clone();
        stream_by(move |mut to| {
            let work = move |root: &OwnedFd| {
                work(root, &mut to)?;
                to.flush().map_err(internal("packing"))
            };
            engine.with_root(&entry, Box::new(work)).map_err(io::Error::other)
        })
    }

    /// Ids on disk are this much higher than inside.
    fn id_offset(&self, record: &ContainerRecord) -> u32 {
        match placement::guest(record.os) {
            Ok(guest) if guest.maps_ids() => record.id_range,
            _ => 0,
        }
    }

    /// Extracts a tar into a directory.
    pub async fn archive_put(
        &self,
        name: &str,
        path: &str,
        no_overwrite_dir_non_dir: bool,
        keep_owner: bool,
        mut tar: Box<dyn Read + Send>,
    ) -> Result<()> {
        let entry = self.find(name)?;
        let record = entry.record();
        let at = self.path_in(&record, path)?;
        if record.spec.security.read_only_root
            && !record.mounts.iter().any(|m| m.rw && at.starts_with(&m.destination))
        {
            return Err(EngineError {
                kind: Kind::Invalid,
                message: "container rootfs is marked read-only".into(),
            });
        }
        let offset = self.id_offset(&record);
        let options = silo_image::layer::ExtractOptions {
            no_overwrite_dir_non_dir,
            keep_owner,
            owner: None,
            id_offset: offset,
        };
        let (engine, shown) = (self.clone(), path.to_owned());
        blocking(move || {
            let result = engine.with_root(
                &entry.clone(),
                Box::new(move |root| {
                    let found = stat(root, &at.join("."), &shown, &entry.id.0).map_err(|e| match e.kind {
                        Kind::NotFound => e,
                        _ => EngineError::invalid("extraction point is not a directory"),
                    })?;
                    if found.mode & 1 << 31 == 0 {
                        return Err(EngineError::invalid("extraction point is not a directory"));
                    }
                    silo_image::layer::extract(root.as_fd(), &at, &mut tar, &options)
                        .map_err(|e| EngineError::invalid(e.to_string()))?;
                    // What follows the archive is read, so that the client is not cut off while it sends.
                    let _ = io::copy(&mut tar.by_ref().take(64 << 20), &mut io::sink());
                    Ok(())
                }),
            );
            engine.inner.events.container(&record, "extract-to-dir", &[("path", String::new())]);
            result
        })
        .await
    }

    /// The whole file tree as tar.
    pub async fn export(&self, name: &str) -> Result<ByteStream> {
        let entry = self.find(name)?;
        self.flush(&entry).await?;
        let record = entry.record();
        let guest = placement::guest(record.os)?;
        let layers = self.inner.images.chain(&record.image_id).map_err(image::error)?;
        let top = self.dir(&entry.id).join("top");
        self.inner.events.container(&record, "export", &[]);
        Ok(self.packed(entry, move |root, to| {
            let of = silo_guest::Changes {
                layers: &layers,
                top: Some(&top),
                user: &record.spec.config.user,
                time: (Timestamp::now().as_second(), 0),
            };
            guest.export(root.as_fd(), &of, to).map_err(guest_error)
        }))
    }

    /// What differs from the image.
    pub async fn changes(&self, name: &str) -> Result<Vec<Change>> {
        let entry = self.find(name)?;
        self.flush(&entry).await?;
        let record = entry.record();
        let guest = placement::guest(record.os)?;
        let top = self.dir(&entry.id).join("top");
        let upper = top.join(guest.changes().0);
        let files = guest.layer_files();
        let own = guest.own_mount_points();
        let layers = self.inner.images.chain(&record.image_id).map_err(image::error)?;
        blocking(move || {
            if !upper.exists() {
                return Ok(Vec::new());
            }
            let lower: Vec<PathBuf> = layers.iter().map(|l| l.join(files)).collect();
            let changes = silo_image::layer::changes(&upper, &lower, own)
                .map_err(|e| EngineError::internal(e.to_string()))?;
            let mut shown: Vec<Change> = changes
                .into_iter()
                .map(|c| Change { path: guest.shown_path(&c.path), kind: c.kind as u8 })
                .collect();
            let of = silo_guest::Changes {
                layers: &layers,
                top: Some(&top),
                user: &record.spec.config.user,
                time: (0, 0),
            };
            for (path, is_new) in guest.changed_elsewhere(&of).map_err(guest_error)? {
                let path = guest.shown_path(&path);
                shown.retain(|change| change.path != path);
                shown.push(Change { path, kind: u8::from(is_new) });
            }
            Ok(shown)
        })
        .await
    }
}

fn stat(root: &OwnedFd, at: &Path, shown: &str, id: &str) -> Result<PathStat> {
    let missing = |_| EngineError::not_found(format!("Could not find the file {shown} in container {id}"));
    // The path's parents are followed, the last part is looked at itself.
    let parent = at.parent().unwrap_or(Path::new("/"));
    let last = at.file_name().filter(|_| !at.ends_with("."));
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let open = |path: &Path, flags| silo_image::open_in_root(root, path, flags);
    let fd = match (last, at.to_string_lossy().ends_with("/.")) {
        (Some(name), false) => {
            let parent = open(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(missing)?;
            rustix::fs::openat(&parent, name, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| missing(e.into()))?
        }
        _ => open(at, OFlags::PATH).map_err(missing)?,
    };
    let found = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH).map_err(|e| missing(e.into()))?;
    let link_target = if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
        let target = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(|e| missing(e.into()))?;
        let target = PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes()));
        parent.join(target).to_string_lossy().into_owned()
    } else {
        String::new()
    };
    let mtime = Timestamp::new(found.st_mtime, i32::try_from(found.st_mtime_nsec).unwrap_or(0));
    let name = Path::new(shown.trim_end_matches("/."))
        .file_name()
        .map_or_else(|| "/".to_owned(), |n| n.to_string_lossy().into_owned());
    Ok(PathStat {
        name,
        size: u64::try_from(found.st_size).unwrap_or(0),
        mode: go_mode(found.st_mode),
        mtime: mtime.unwrap_or(Timestamp::UNIX_EPOCH),
        link_target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_modes() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 1 << 31 | 0o755);
        assert_eq!(go_mode(0o120_777), 1 << 27 | 0o777);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
    }
}
