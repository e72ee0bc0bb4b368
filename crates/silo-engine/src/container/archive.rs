//! `cp` both ways, `diff`, `export`: a container's files from outside, running or not.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags};
use silo_image::layer::Found;
use silo_sandbox::Tool;

use crate::ByteStream;
use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Kind, Result, guest_error};
use crate::joined::Joined;
use crate::record::{ContainerRecord, Status};
use crate::spec::NetworkMode;
use crate::stream::stream_by;
use crate::{image, placement};

use super::keeper::{AskedNames, Keeper, are_asked_for, tool_error};

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

/// Whether a path asks for what is in a directory, without its name.
fn is_contents(path: &str) -> bool {
    path.ends_with("/.") || path.ends_with("\\.")
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
        let _volumes = self.volumes_for_now(&record)?;
        self.bundle_for_files(&record)?;
        let dir = self.dir(&entry.id);
        silo_sandbox::with_stopped_root(&dir, None, move |root| Ok(work(root)))
            .map_err(internal("assembling the container's root"))?
    }

    /// A container that was never started has no bundle yet.
    pub(super) fn bundle_for_files(&self, record: &ContainerRecord) -> Result<()> {
        if self.dir(&record.id).join(crate::bundle::CONFIG).exists() {
            return Ok(());
        }
        let mut quiet = record.clone();
        quiet.spec.network = NetworkMode::None;
        self.write_bundle(&quiet, &Joined::default())
    }

    fn path_in(&self, record: &ContainerRecord, path: &str) -> Result<PathBuf> {
        if path.is_empty() {
            return Err(EngineError::invalid("missing parameter: path"));
        }
        let guest = placement::guest(record.os)?;
        let at = guest.path_in_root(path, "").map_err(guest_error)?.0;
        // `dir/.` and `link/` mean what the link leads to.
        let directory = path.ends_with('/') || path.ends_with('\\') || is_contents(path);
        Ok(if directory { at.join(".") } else { at })
    }

    /// What is at a path.
    pub async fn archive_stat(&self, name: &str, path: &str) -> Result<PathStat> {
        let entry = self.find(name)?;
        let record = entry.record();
        let at = self.path_in(&record, path)?;
        if are_asked_for(&record) {
            let keeper = Arc::new(self.keeper(&entry).await?);
            return Ok(asked_stat(&keeper, &at, path, &entry).await?.0);
        }
        let guest = placement::guest(record.os)?;
        let (engine, shown) = (self.clone(), path.to_owned());
        blocking(move || {
            let named = entry.clone();
            let find =
                move |root: &OwnedFd| stat(root, &guest.spelled(&root.as_fd(), &at), &at, &shown, &named);
            engine.with_root(&entry, Box::new(find))
        })
        .await
    }

    /// A file or directory as tar.
    pub async fn archive_get(&self, name: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let entry = self.find(name)?;
        let record = entry.record();
        let at = self.path_in(&record, path)?;
        let prefix_of = |found: &PathStat| {
            if is_contents(path) { ".".to_owned() } else { found.name.clone() }
        };
        if are_asked_for(&record) {
            let keeper = Arc::new(self.keeper(&entry).await?);
            let (found, at) = asked_stat(&keeper, &at, path, &entry).await?;
            let mut from = keeper.tool(Tool::Pack { path: at, prefix: prefix_of(&found) }).await?;
            let bytes = stream_by(move |mut to| {
                let _keeper = keeper;
                io::copy(&mut from, &mut to)?;
                to.flush()
            });
            return Ok((found, bytes));
        }
        let found = self.archive_stat(name, path).await?;
        let prefix = prefix_of(&found);
        let offset = self.id_offset(&entry.record());
        let guest = placement::guest(record.os)?;
        let bytes = self.packed(entry, None, move |root, to| {
            let at = guest.spelled(&root.as_fd(), &at);
            silo_image::layer::pack_tree(root.as_fd(), &at, &prefix, offset, false, to)
                .map_err(|e| EngineError::internal(e.to_string()))
        });
        Ok((found, bytes))
    }

    /// A stream of what `work` writes of a container's root directory, or of the one that a copy of its writable directory
    /// makes.
    fn packed(
        &self,
        entry: Arc<Entry>,
        copy: Option<PathBuf>,
        work: impl FnOnce(&OwnedFd, &mut dyn Write) -> Result<()> + Send + 'static,
    ) -> ByteStream {
        let engine = self.clone();
        stream_by(move |mut to| {
            let work = move |root: &OwnedFd| {
                work(root, &mut to)?;
                to.flush().map_err(internal("packing"))
            };
            if copy.is_none() {
                return engine.with_root(&entry, Box::new(work)).map_err(io::Error::other);
            }
            let _volumes = engine.volumes_for_now(&entry.record()).map_err(io::Error::other)?;
            silo_sandbox::with_stopped_root(&engine.dir(&entry.id), copy, move |root| {
                work(root).map_err(io::Error::other)
            })
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
        if are_asked_for(&record) {
            let keeper = Arc::new(self.keeper(&entry).await?);
            let found = asked_stat(&keeper, &at.join("."), path, &entry).await;
            let at = found.as_ref().map_or_else(|_| at, |(_, at)| at.components().as_path().to_owned());
            extraction_point(found.map(|(stat, _)| stat))?;
            let guest = placement::guest(record.os)?;
            let result = blocking(move || {
                let names = AskedNames(&keeper);
                let places = guest.entry_places(&names, &at);
                // Names that are told here are those in the root.
                let path = if places.is_some() { PathBuf::from("/") } else { at.clone() };
                let tool = Tool::Extract { path, no_overwrite_dir_non_dir, keep_owner };
                let mut to = tokio::runtime::Handle::current().block_on(keeper.tool(tool))?;
                match places {
                    Some(mut places) => to
                        .send_by(|to| silo_image::layer::rename_entries(&mut tar, &mut *places, to))
                        .map_err(|e| EngineError::invalid(e.to_string()))?,
                    None => to.send(&mut tar).map_err(tool_error)?,
                }
                to.finish().map_err(tool_error)?;
                swallow(&mut tar);
                Ok(())
            })
            .await;
            self.inner.events.container(&record, "extract-to-dir", &[("path", String::new())]);
            return result;
        }
        let offset = self.id_offset(&record);
        let options = silo_image::layer::ExtractOptions {
            no_overwrite_dir_non_dir,
            keep_owner,
            owner: None,
            id_offset: offset,
            limits: None,
        };
        let guest = placement::guest(record.os)?;
        let (engine, shown) = (self.clone(), path.to_owned());
        blocking(move || {
            let result = engine.with_root(
                &entry.clone(),
                Box::new(move |root| {
                    let at = guest.spelled(&root.as_fd(), &at);
                    extraction_point(stat(root, &at.join("."), &at, &shown, &entry))?;
                    let names = root.as_fd();
                    let mut places = guest.entry_places(&names, &at);
                    silo_image::layer::extract(root.as_fd(), &at, &mut tar, &options, places.as_deref_mut())
                        .map_err(|e| EngineError::invalid(e.to_string()))?;
                    swallow(&mut tar);
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
        self.write_out(&entry).await?;
        let record = entry.record();
        let guest = placement::guest(record.os)?;
        let layers = self.inner.images.chain(&record.image_id).map_err(image::error)?;
        let top = self.writable(&entry).await?;
        self.inner.events.container(&record, "export", &[]);
        Ok(self.packed(entry, top.stands_in(), move |root, to| {
            let of = silo_guest::Changes {
                layers: &layers,
                top: Some(top.path()),
                user: &record.spec.config.user,
                time: (Timestamp::now().as_second(), 0),
            };
            guest.export(root.as_fd(), &of, to).map_err(guest_error)
        }))
    }

    /// What differs from the image.
    pub async fn changes(&self, name: &str) -> Result<Vec<Change>> {
        let entry = self.find(name)?;
        self.write_out(&entry).await?;
        let record = entry.record();
        let guest = placement::guest(record.os)?;
        let top = self.writable(&entry).await?;
        let upper = top.path().join(guest.changes().0);
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
                top: Some(top.path()),
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

/// What is looked at is missing, in dockerd's words.
fn missing(shown: &str, entry: &Entry) -> EngineError {
    EngineError::not_found(format!("Could not find the file {shown} in container {}", entry.id))
}

/// `typed`: the path that the user named; `at`: where that is.
fn stat(root: &OwnedFd, at: &Path, typed: &Path, shown: &str, entry: &Entry) -> Result<PathStat> {
    let found = silo_image::layer::look(root.as_fd(), at).map_err(|_| missing(shown, entry))?;
    Ok(path_stat(found, at, typed))
}

/// What is at a path that the user named `typed`, and where that is in the machine's spelling.
async fn asked_stat(
    keeper: &Arc<Keeper>,
    typed: &Path,
    shown: &str,
    entry: &Entry,
) -> Result<(PathStat, PathBuf)> {
    let missing = |e: EngineError| if e.kind == Kind::NotFound { missing(shown, entry) } else { e };
    match keeper.stat(typed).await {
        Ok(found) => return Ok((path_stat(found, typed, typed), typed.to_owned())),
        Err(e) if e.kind != Kind::NotFound => return Err(e),
        Err(_) => {}
    }
    let guest = placement::guest(entry.record().os)?;
    let (asked, path) = (keeper.clone(), typed.to_owned());
    let at = blocking(move || Ok(guest.spelled(&AskedNames(&asked), &path))).await?;
    let found = keeper.stat(&at).await.map_err(missing)?;
    Ok((path_stat(found, &at, typed), at))
}

fn path_stat(found: Found, at: &Path, typed: &Path) -> PathStat {
    let parent = at.parent().unwrap_or(Path::new("/"));
    let mtime = Timestamp::new(found.mtime.0, i32::try_from(found.mtime.1).unwrap_or(0));
    PathStat {
        // As typed: the client renames what it copies by looking for that.
        name: typed.file_name().map_or_else(|| "/".to_owned(), |n| n.to_string_lossy().into_owned()),
        size: found.size,
        mode: go_mode(found.mode),
        mtime: mtime.unwrap_or(Timestamp::UNIX_EPOCH),
        link_target: found.link.map_or_else(String::new, |to| parent.join(to).to_string_lossy().into_owned()),
    }
}

/// Refuses what is no directory.
fn extraction_point(found: Result<PathStat>) -> Result<()> {
    let wrong = || EngineError::invalid("extraction point is not a directory");
    match found {
        Ok(found) if found.mode & 1 << 31 != 0 => Ok(()),
        Err(e) if e.kind == Kind::NotFound => Err(e),
        _ => Err(wrong()),
    }
}

/// Reads what follows the archive, so that the client is not cut off while it sends.
fn swallow(tar: &mut dyn Read) {
    let _ = io::copy(&mut tar.take(64 << 20), &mut io::sink());
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
