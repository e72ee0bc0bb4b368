//! `load`: docker-archive and OCI image layout, plain or compressed, in one pass over the stream.
//!
//! The manifest may come last: what came before it is in `member.rs`; memory stays bounded.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{ImageError, Result, io};
use crate::manifest;
use crate::member::Members;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::ImageStore;
use crate::substitute::{Candidate, Decide, effective};

/// Bytes a manifest, index or config may have.
const MAX_JSON: u64 = 16 << 20;
/// Depth of nested indexes.
const MAX_DEPTH: usize = 4;
/// Images that an archive may hold, and entries that an index may have.
const MAX_IMAGES: usize = 1000;
/// Bytes that the configs of an archive may have together.
const MAX_CONFIGS: usize = 64 << 20;

fn too_many() -> ImageError {
    ImageError::Invalid(format!("the image archive names more than {MAX_IMAGES} images"))
}

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
    /// By diff ID: layers that are had from elsewhere.
    #[serde(default)]
    layer_sources: HashMap<Digest, manifest::Descriptor>,
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
    layers: Vec<manifest::Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// A layer in an archive.
struct Layer {
    /// As the manifest names it, and its member; it may have been left out.
    name: String,
    member: Option<String>,
    /// As a registry has it, if the archive tells.
    described: Option<manifest::Descriptor>,
}

/// What is to be loaded: a config, its layers, its names. Members by the names they have.
struct Plan {
    config: PathBuf,
    layers: Vec<Layer>,
    /// By diff ID.
    sources: HashMap<Digest, manifest::Descriptor>,
    annotations: BTreeMap<String, String>,
    references: Vec<Reference>,
}

impl Plan {
    /// The layers as registries have them; those of which nobody tells by their diff IDs.
    fn described(&self, diffs: &[Digest]) -> Vec<manifest::Descriptor> {
        let described = |(layer, diff): (&Layer, &Digest)| {
            let told = layer.described.as_ref().or_else(|| self.sources.get(diff));
            told.cloned().unwrap_or_else(|| manifest::Descriptor::unknown(diff.clone()))
        };
        self.layers.iter().zip(diffs).map(described).collect()
    }
}

impl Members<'_> {
    /// A layer by the name that a manifest has for it.
    fn named(&self, name: &str, described: Option<manifest::Descriptor>) -> Layer {
        Layer { name: name.to_owned(), member: self.find(name), described }
    }

    fn json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<T> {
        let bytes = small(self.document(name)?)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| ImageError::Invalid(format!("{name} in the image archive: {e}")))
    }

    /// The name of a blob's member.
    fn blob(&self, digest: &str) -> Result<String> {
        let digest = Digest::parse(digest)
            .ok_or_else(|| ImageError::Invalid(format!("the image archive has a digest {digest:?}")))?;
        self.member(&format!("blobs/sha256/{}", digest.hex()))
    }

    fn plans(&self) -> Result<Vec<Plan>> {
        if self.find("manifest.json").is_some() {
            let items: Vec<ManifestItem> = self.json("manifest.json")?;
            if items.len() > MAX_IMAGES {
                return Err(too_many());
            }
            return items
                .into_iter()
                .map(|item| {
                    Ok(Plan {
                        config: self.document(&item.config)?.to_owned(),
                        layers: item.layers.iter().map(|l| self.named(l, None)).collect(),
                        sources: item.layer_sources,
                        annotations: BTreeMap::new(),
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
        if index.manifests.len() > MAX_IMAGES {
            return Err(too_many());
        }
        for descriptor in &index.manifests {
            if plans.len() >= MAX_IMAGES {
                return Err(too_many());
            }
            let own = names_of(descriptor);
            let names = if own.is_empty() { names } else { &own };
            // A multi-platform index may name manifests that the archive leaves out.
            let Ok(name) = self.blob(&descriptor.digest) else { continue };
            let bytes = small(self.document(&name)?)?;
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
                config: self.document(&self.blob(&manifest.config.digest)?)?.to_owned(),
                layers: manifest
                    .layers
                    .into_iter()
                    .map(|l| self.named(&format!("blobs/sha256/{}", l.digest.hex()), Some(l)))
                    .collect(),
                sources: HashMap::new(),
                annotations: manifest.annotations.unwrap_or_default(),
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
    /// Loads all images of an archive, or those for one platform. Nothing is named before everything of it is there. Layers that
    /// `decide` has a substitute for may be missing, and are not looked at.
    pub fn load(
        &self,
        archive: Box<dyn Read + Send>,
        platform: Option<&Platform>,
        decide: Decide<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<LoadedImage>> {
        let mut plain = silo_layer::decompress(archive).map_err(io("reading the image archive"))?;
        let mut members = Members::read(self, &mut plain)?;
        let (mut decided, mut configs) = (Vec::new(), 0);
        for plan in members.plans()? {
            let raw = small(&plan.config)?;
            configs += raw.len();
            if configs > MAX_CONFIGS {
                return Err(ImageError::Invalid(
                    "image configs of more than 64 MiB in one archive".to_owned(),
                ));
            }
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
            let id = Digest::of(&raw);
            let name = plan.references.first().map_or_else(|| id.to_string(), Reference::familiar);
            let candidate = Candidate {
                name: &name,
                config: &config,
                layers: &plan.described(diffs),
                annotations: &plan.annotations,
                known: &self.known_substitutes(),
            };
            let here = self.lock().images.get(&id).cloned();
            // It may have to be made first: others may write meanwhile.
            let (mut substituted, base) = self.substituted(&candidate, here, decide)?;
            if let Some(substituted) = &mut substituted {
                substituted.take_notes();
            }
            decided.push((raw, config, plan, substituted, base));
        }
        let _writing = self.writing.lock();
        let mut loaded = Vec::new();
        for (raw, config, plan, substituted, _base) in decided {
            let own = effective(&config.rootfs.diff_ids, substituted.as_ref())?;
            let (others, absent) = substituted.as_ref().map_or((0, 0), |s| (s.diffs.len(), s.layers.len()));
            for (i, (diff, layer)) in own[others..].iter().zip(&plan.layers[absent..]).enumerate() {
                let member = layer.member.as_ref();
                let member = member
                    .ok_or_else(|| ImageError::Invalid(format!("the image archive has no {}", layer.name)))?;
                let total = members.size(member);
                let id = diff.hex()[..12].to_owned();
                progress(Progress { id: id.clone(), current: 0, total });
                members.layer(&config.os, &own[..others + i], diff, member)?;
                progress(Progress { id, current: total, total });
            }
            let id = self.enter(raw, None, substituted)?;
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
