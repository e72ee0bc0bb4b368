//! `load`: docker-archive and OCI image layout, plain or compressed, in one pass over the stream.
//!
//! Members are spooled to the store's scratch directory, since the manifest may come last; memory stays bounded.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{ImageError, Result, io};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::ImageStore;

/// Members an archive may have.
const MAX_MEMBERS: usize = 100_000;
/// Bytes a manifest, index or config may have.
const MAX_JSON: u64 = 16 << 20;
/// Depth of nested indexes.
const MAX_DEPTH: usize = 4;

/// How far a load is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The layer (12 digits).
    pub id: String,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

/// One image that was loaded.
#[derive(Debug, Clone)]
pub struct LoadedImage {
    /// ID.
    pub id: Digest,
    /// Names as users write them.
    pub references: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestItem {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct OciIndex {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct OciManifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// What is to be loaded: a config, its layers, its names.
struct Plan {
    config: PathBuf,
    layers: Vec<PathBuf>,
    references: Vec<Reference>,
}

/// A directory that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Members of an archive by name.
struct Spool {
    _scratch: Scratch,
    files: HashMap<String, PathBuf>,
    links: HashMap<String, String>,
}

/// `./a/../b` as `b`; `None` when it leads out.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str()?.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

impl Spool {
    fn read(tar: &mut dyn Read, dir: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&dir).map_err(io(format!("making {}", dir.display())))?;
        let mut spool = Self { _scratch: Scratch(dir.clone()), files: HashMap::new(), links: HashMap::new() };
        let bad = |e: io::Error| ImageError::Invalid(format!("the image archive cannot be read: {e}"));
        let mut archive = tar::Archive::new(tar);
        for (number, entry) in archive.entries().map_err(bad)?.enumerate() {
            let mut entry = entry.map_err(bad)?;
            if number >= MAX_MEMBERS {
                return Err(ImageError::Invalid(format!(
                    "the image archive has more than {MAX_MEMBERS} members"
                )));
            }
            let path = entry.path().map_err(bad)?.into_owned();
            let Some(name) = normal(&path) else {
                return Err(ImageError::Invalid(format!(
                    "the image archive has a member {:?}",
                    path.display()
                )));
            };
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::GNUSparse => {
                    let to = dir.join(number.to_string());
                    let mut file = File::create(&to).map_err(io(format!("making {}", to.display())))?;
                    io::copy(&mut entry, &mut file).map_err(io(format!("spooling {name}")))?;
                    spool.files.insert(name, to);
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let Some(target) = entry.link_name().map_err(bad)?.map(std::borrow::Cow::into_owned)
                    else {
                        continue;
                    };
                    let base = match entry.header().entry_type() {
                        tar::EntryType::Symlink => path.parent().unwrap_or(Path::new("")).join(&target),
                        _ => target,
                    };
                    if let Some(target) = normal(&base) {
                        spool.links.insert(name, target);
                    }
                }
                _ => {}
            }
        }
        Ok(spool)
    }

    fn find(&self, name: &str) -> Option<&PathBuf> {
        let mut name = normal(Path::new(name))?;
        for _ in 0..8 {
            if let Some(file) = self.files.get(&name) {
                return Some(file);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    fn member(&self, name: &str) -> Result<&PathBuf> {
        self.find(name).ok_or_else(|| ImageError::Invalid(format!("the image archive has no {name}")))
    }

    fn json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<T> {
        let bytes = small(self.member(name)?)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| ImageError::Invalid(format!("{name} in the image archive: {e}")))
    }

    fn blob(&self, digest: &str) -> Result<&PathBuf> {
        let digest = Digest::parse(digest)
            .ok_or_else(|| ImageError::Invalid(format!("the image archive has a digest {digest:?}")))?;
        self.member(&format!("blobs/sha256/{}", digest.hex()))
    }

    fn plans(&self) -> Result<Vec<Plan>> {
        if self.find("manifest.json").is_some() {
            let items: Vec<ManifestItem> = self.json("manifest.json")?;
            return items
                .into_iter()
                .map(|item| {
                    Ok(Plan {
                        config: self.member(&item.config)?.clone(),
                        layers: item.layers.iter().map(|l| self.member(l).cloned()).collect::<Result<_>>()?,
                        references: item
                            .repo_tags
                            .iter()
                            .flatten()
                            .map(|t| Reference::parse(t))
                            .collect::<Result<_>>()?,
                    })
                })
                .collect();
        }
        if self.find("index.json").is_some() {
            let mut plans = Vec::new();
            let index: OciIndex = self.json("index.json")?;
            self.walk(&index, &[], MAX_DEPTH, &mut plans)?;
            return Ok(plans);
        }
        Err(ImageError::Invalid(
            "the archive has neither manifest.json nor index.json: it holds no image".to_owned(),
        ))
    }

    fn walk(&self, index: &OciIndex, names: &[Reference], depth: usize, plans: &mut Vec<Plan>) -> Result<()> {
        if depth == 0 {
            return Err(ImageError::Invalid("the image archive nests indexes too deeply".to_owned()));
        }
        for descriptor in &index.manifests {
            let own = names_of(descriptor);
            let names = if own.is_empty() { names } else { &own };
            // A multi-platform index may name manifests that the archive leaves out.
            let Ok(path) = self.blob(&descriptor.digest) else { continue };
            let bytes = small(path)?;
            let invalid = |e| ImageError::Invalid(format!("manifest {}: {e}", descriptor.digest));
            if Digest::of(&bytes).as_str() != descriptor.digest {
                return Err(ImageError::Invalid(format!(
                    "manifest {} is not what its digest says",
                    descriptor.digest
                )));
            }
            if descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list") {
                self.walk(&serde_json::from_slice(&bytes).map_err(invalid)?, names, depth - 1, plans)?;
                continue;
            }
            let manifest: OciManifest = serde_json::from_slice(&bytes).map_err(invalid)?;
            if manifest.layers.iter().any(|l| l.media_type.contains("in-toto")) {
                continue;
            }
            plans.push(Plan {
                config: self.blob(&manifest.config.digest)?.clone(),
                layers: manifest
                    .layers
                    .iter()
                    .map(|l| self.blob(&l.digest).cloned())
                    .collect::<Result<_>>()?,
                references: names.to_vec(),
            });
        }
        Ok(())
    }
}

/// The name that an index gives a manifest: containerd's whole one, else OCI's if it is more than a tag.
fn names_of(descriptor: &Descriptor) -> Vec<Reference> {
    let Some(annotations) = &descriptor.annotations else { return Vec::new() };
    let whole = annotations.get("io.containerd.image.name");
    let oci = annotations.get("org.opencontainers.image.ref.name").filter(|n| n.contains([':', '/']));
    whole.or(oci).and_then(|n| Reference::parse(n).ok()).into_iter().collect()
}

fn small(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|f| f.take(MAX_JSON + 1).read_to_end(&mut bytes))
        .map_err(io(format!("reading {}", path.display())))?;
    if bytes.len() as u64 > MAX_JSON {
        return Err(ImageError::Invalid("a manifest or config of more than 16 MiB".to_owned()));
    }
    Ok(bytes)
}

impl ImageStore {
    /// Loads all images of an archive, or those for one platform. Nothing is named before everything of it is there.
    pub fn load(
        &self,
        archive: Box<dyn Read + Send>,
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<LoadedImage>> {
        let mut plain = silo_layer::decompress(archive).map_err(io("reading the image archive"))?;
        let spool =
            Spool::read(&mut plain, self.scratch.join(format!("load-{:016x}", rand::random::<u64>())))?;
        let _writing = self.writing.lock();
        let mut loaded = Vec::new();
        for plan in spool.plans()? {
            let raw = small(&plan.config)?;
            let config: ImageConfig = serde_json::from_slice(&raw)
                .map_err(|e| ImageError::Invalid(format!("an image config in the archive: {e}")))?;
            if platform.is_some_and(|p| !p.matches(&config)) {
                continue;
            }
            let diffs = &config.rootfs.diff_ids;
            if diffs.len() != plan.layers.len() {
                return Err(ImageError::Invalid(format!(
                    "invalid manifest, layers length mismatch: expected {}, got {}",
                    plan.layers.len(),
                    diffs.len()
                )));
            }
            for (i, (diff, path)) in diffs.iter().zip(&plan.layers).enumerate() {
                let file = File::open(path).map_err(io(format!("reading {}", path.display())))?;
                let total = file.metadata().map_or(0, |m| m.len());
                let id = diff.hex()[..12].to_owned();
                progress(Progress { id: id.clone(), current: 0, total });
                self.layers.add(
                    &config.os,
                    &diffs[..i],
                    Some(diff),
                    Box::new(io::BufReader::with_capacity(1 << 18, file)),
                )?;
                progress(Progress { id, current: total, total });
            }
            let id = self.enter(raw, None)?;
            for reference in &plan.references {
                self.name(&id, reference)?;
            }
            loaded.push(LoadedImage {
                id,
                references: plan.references.iter().map(Reference::familiar).collect(),
            });
        }
        if loaded.is_empty() {
            return Err(ImageError::Invalid(match platform {
                Some(platform) => format!("the archive holds no image for the platform {platform}"),
                None => "the archive holds no image for this machine".to_owned(),
            }));
        }
        Ok(loaded)
    }
}
