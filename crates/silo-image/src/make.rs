//! New images: `import` (one layer from a tar) and `commit` (a container's changes).

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::changes::{self, Rules};
use crate::config::ContainerConfig;
use crate::digest::ChainId;
use crate::error::{ImageError, Result, io};
use crate::layers::{Format, Fresh, Keep, LINUX_ROOTS, WINDOWS, chains};
use crate::passing::{Reading, passing};
use crate::platform::host_architecture;
use crate::reference::Reference;
use crate::store::ImageStore;

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// OS of the image.
    pub os: String,
    /// Architecture; empty: this machine's.
    pub architecture: String,
    /// Commit message.
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// `name[:tag]`.
    pub reference: Option<String>,
    /// Where the tar came from, for the history.
    pub source: String,
    /// What the image's OS says of its config.
    pub rules: Rules,
}

/// What is committed.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Image that the container was made from.
    pub parent: String,
    /// The container's config.
    pub config: ContainerConfig,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Author.
    pub author: String,
    /// Message.
    pub message: String,
    /// `name[:tag]`.
    pub reference: Option<String>,
    /// The container's ID.
    pub container: String,
    /// Its command line, for the history.
    pub created_by: String,
    /// What the image's OS says of its config.
    pub rules: Rules,
}

pub(crate) fn encode(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| io("image config")(e.into()))
}

impl ImageStore {
    /// Makes an image of a file tree; returns its ID. `os_version`: that of the OS in the unpacked layer, if it has one.
    pub fn import(
        &self,
        tar: Box<dyn Read + Send>,
        options: ImportOptions,
        os_version: impl FnOnce(&Path) -> std::io::Result<String>,
    ) -> Result<String> {
        let reference =
            options.reference.as_deref().filter(|r| !r.is_empty()).map(Reference::parse).transpose()?;
        let mut config = ContainerConfig::default();
        changes::apply(&mut config, &options.changes, &options.rules)?;
        let tar = match options.os == WINDOWS {
            true => self.as_windows_layer(tar)?,
            false => tar,
        };
        let format = if options.os == WINDOWS { Format::Windows(&[]) } else { Format::Linux };
        let fresh = self.layers.unpack(format, tar, true)?;
        let _writing = self.writing.lock();
        let layer = self.layers.keep(fresh, None, None, &Keep::Record)?;
        let now = Timestamp::now();
        let arch = if options.architecture.is_empty() { host_architecture() } else { &options.architecture };
        let comment = if options.message.is_empty() {
            format!("Imported from {}", options.source)
        } else {
            options.message
        };
        let version =
            os_version(&self.layers.dir(&layer.chain)).map_err(io("reading the layer's version"))?;
        let mut config = json!({
            "architecture": arch, "os": options.os, "created": now.to_string(), "comment": comment,
            "config": config.to_json(),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff]},
            "history": [{"created": now.to_string(), "comment": comment}],
        });
        if !version.is_empty() {
            config["os.version"] = version.into();
        }
        let id = self.enter(encode(&config)?, None, None)?;
        if let Some(reference) = reference {
            self.name(&id, &reference)?;
        }
        Ok(id.to_string())
    }

    /// Makes an image of a container's changes, which `write` writes as a layer tar; returns its ID.
    pub fn commit(
        &self,
        commit: Commit,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<String> {
        let reference =
            commit.reference.as_deref().filter(|r| !r.is_empty()).map(Reference::parse).transpose()?;
        let mut config = commit.config;
        changes::apply(&mut config, &commit.changes, &commit.rules)?;
        let parent = self.get(&commit.parent)?;
        // The config goes on with the original's layers, the chain with what is here in their place.
        let (below, substituted) = match self.lock().images.get(&parent.id) {
            Some(held) => (held.diffs(), held.extra.substituted.clone()),
            None => return Err(ImageError::NotFound(commit.parent)),
        };
        let below = chains(&below);
        // They stay, though nobody else may write meanwhile.
        let _lease = self.leases.take(below.clone(), Vec::new());
        let fresh = self.unpack_written(&parent.config.os, &below, write)?;
        let _writing = self.writing.lock();
        let layer = self.layers.keep(fresh, below.last(), None, &Keep::Record)?;
        let now = Timestamp::now().to_string();
        let mut history: Vec<Value> = parent.config.history.iter().map(|h| json!(h)).collect();
        let mut entry = json!({"created": now, "created_by": commit.created_by});
        if !commit.message.is_empty() {
            entry["comment"] = commit.message.clone().into();
        }
        if !commit.author.is_empty() {
            entry["author"] = commit.author.clone().into();
        }
        history.push(entry);
        let mut diff_ids = parent.config.rootfs.diff_ids.clone();
        diff_ids.push(layer.diff);
        let mut value = json!({
            "architecture": parent.config.architecture, "os": parent.config.os, "created": now,
            "config": config.to_json(), "container": commit.container,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        for (name, text) in [
            ("author", &commit.author),
            ("comment", &commit.message),
            ("os.version", &parent.config.os_version),
            ("variant", &parent.config.variant),
        ] {
            if !text.is_empty() {
                value[name] = text.clone().into();
            }
        }
        let id = self.enter(encode(&value)?, Some(parent.id), substituted)?;
        if let Some(reference) = reference {
            self.name(&id, &reference)?;
        }
        Ok(id.to_string())
    }
}

impl ImageStore {
    /// Unpacks what `write` writes while it does.
    pub(crate) fn unpack_written(
        &self,
        os: &str,
        below: &[ChainId],
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<Fresh> {
        let lower: Vec<PathBuf> = below.iter().rev().map(|chain| self.layers.dir(chain)).collect();
        let format = if os == WINDOWS { Format::Windows(&lower) } else { Format::Linux };
        read_written(write, |tar| self.layers.unpack(format, tar, true))
    }

    /// A tar to import as a Windows layer: one that is a layer already as it is, any other as what is on `C:`.
    fn as_windows_layer(&self, tar: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
        let failed = || io("reading the archive to import");
        let limits = silo_layer::Limits::default();
        let mut plain = silo_layer::decompress(tar).map_err(failed())?.take(limits.bytes.saturating_add(1));
        let mut spool = tempfile_in(&self.scratch)?;
        let length = std::io::copy(&mut plain, &mut spool).map_err(failed())?;
        if length > limits.bytes {
            return Err(ImageError::Invalid(format!("the archive has more than {} bytes", limits.bytes)));
        }
        spool.seek(SeekFrom::Start(0)).map_err(failed())?;
        let mut roots = std::collections::BTreeSet::new();
        let bounded = silo_layer::BoundedHeaders::new(&spool);
        for entry in tar::Archive::new(bounded).entries().map_err(failed())? {
            let name = entry.map_err(failed())?.path_bytes().into_owned();
            let name = String::from_utf8_lossy(&name).into_owned();
            roots.extend(name.split('/').find(|part| !matches!(*part, "" | ".")).map(str::to_owned));
        }
        let may_be = |root: &str| silo_layer::WINDOWS_ROOTS.contains(&root) || LINUX_ROOTS.contains(&root);
        let is_layer = roots.contains("Files") && roots.iter().all(|root| may_be(root));
        spool.seek(SeekFrom::Start(0)).map_err(failed())?;
        if is_layer {
            return Ok(Box::new(spool));
        }
        let tree = self.scratch.join(format!("import-{:016x}", rand::random::<u64>()));
        let files = tree.join("Files");
        std::fs::create_dir_all(&files).map_err(failed())?;
        let mut layer = tempfile_in(&self.scratch)?;
        let made = silo_layer::unpack(&mut spool, &files, &silo_layer::Limits::default())
            .and_then(|_| silo_layer::pack_windows_tree(&tree, &[], &[], &mut layer));
        // What is left is met again at the next start.
        let _ = std::fs::remove_dir_all(&tree);
        made?;
        layer.seek(SeekFrom::Start(0)).map_err(failed())?;
        Ok(Box::new(layer))
    }
}

/// A file without a name in `dir`.
pub(crate) fn tempfile_in(dir: &std::path::Path) -> Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600)).map_err(|e| ImageError::Io {
        doing: format!("making a file in {}", dir.display()),
        source: e.into(),
    })?;
    Ok(File::from(fd))
}

/// A layer of the archive that `write` writes, by what `read` does with it meanwhile.
pub(crate) fn read_written(
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    read: impl FnOnce(Reading) -> Result<Fresh> + Send,
) -> Result<Fresh> {
    let (mut writing, reading) = passing();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(reading));
        let written = write(&mut writing).and_then(|()| {
            if writing.written() == 0 {
                // No change at all: an archive of nothing but its end marks.
                writing.write_all(&[0; 1024])?;
            }
            writing.end()
        });
        let made = reader.join();
        let made = made.map_err(|_| io("reading a layer")(std::io::Error::other("panicked")))?;
        match (written, made) {
            // Whoever reads stopped: why is the better reason.
            (Err(e), Err(why)) if e.kind() == ErrorKind::BrokenPipe => Err(why),
            (Err(e), _) => Err(io("packing the container's changes")(e)),
            (Ok(()), made) => made,
        }
    })
}
