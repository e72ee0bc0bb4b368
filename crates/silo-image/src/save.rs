//! `save`: the combined format of current Docker: an OCI image layout that also is a docker-archive.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};

use serde_json::json;

use crate::digest::Digest;
use crate::error::{Result, io};
use crate::reference::Reference;
use crate::store::{Held, ImageStore};
use crate::substitute::Substituted;

fn append(tar: &mut tar::Builder<&mut dyn Write>, name: &str, bytes: &[u8]) -> Result<()> {
    append_reader(tar, name, bytes.len() as u64, bytes)
}

fn append_reader(
    tar: &mut tar::Builder<&mut dyn Write>,
    name: &str,
    size: u64,
    bytes: impl io::Read,
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, bytes).map_err(io(format!("writing {name}")))
}

impl ImageStore {
    /// Writes images (names keep their tags, IDs have none) as one archive, in constant memory.
    pub fn save(&self, names: &[String], to: &mut dyn Write) -> Result<()> {
        let mut wanted: Vec<(Digest, Held, Vec<Reference>)> = Vec::new();
        for name in names {
            let index = self.lock();
            let id = self.resolve(&index, name)?;
            let Some(held) = index.images.get(&id).cloned() else { continue };
            let by_id = Digest::parse(name).is_some() || id.hex().starts_with(name.as_str());
            let reference =
                if by_id { None } else { Reference::parse(name).ok().filter(|r| r.tag.is_some()) };
            match wanted.iter_mut().find(|(have, ..)| *have == id) {
                Some((_, _, list)) => list.extend(reference),
                None => wanted.push((id, held, reference.into_iter().collect())),
            }
        }
        // Nothing of it goes meanwhile.
        let all = wanted.iter().flat_map(|(_, held, _)| held.layers.iter().map(|l| l.chain.clone()));
        let _lease = self.leases.take(all.collect(), Vec::new());
        let mut tar = tar::Builder::new(to);
        let mut written = HashSet::new();
        let (mut legacy, mut manifests) = (Vec::new(), Vec::new());
        for (id, held, references) in &wanted {
            let blob = |hex: &str| format!("blobs/sha256/{hex}");
            // Layers that are not here are left out, and described as registries have them.
            let absent = held.extra.substituted.as_ref().map(Substituted::noted).unwrap_or_default();
            for layer in held.own_layers() {
                if written.insert(layer.diff.clone()) {
                    append_reader(
                        &mut tar,
                        &blob(layer.diff.hex()),
                        layer.tar_size,
                        self.layers.tar(layer)?,
                    )?;
                }
            }
            if written.insert(id.clone()) {
                append(&mut tar, &blob(id.hex()), &held.raw)?;
            }
            let layers = absent.iter().map(|l| json!(l)).chain(held.own_layers().iter().map(|l| {
                json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": l.diff, "size": l.tar_size})
            }));
            let layers: Vec<_> = layers.collect();
            let manifest = json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                           "digest": id, "size": held.raw.len()},
                "layers": layers,
            })
            .to_string();
            let digest = Digest::of(manifest.as_bytes());
            if written.insert(digest.clone()) {
                append(&mut tar, &blob(digest.hex()), manifest.as_bytes())?;
            }
            let descriptor = |annotations: BTreeMap<&str, String>| {
                let mut d = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": digest, "size": manifest.len()});
                if !annotations.is_empty() {
                    d["annotations"] = json!(annotations);
                }
                d
            };
            if references.is_empty() {
                manifests.push(descriptor(BTreeMap::new()));
            }
            for r in references {
                manifests.push(descriptor(BTreeMap::from([
                    ("io.containerd.image.name", r.to_string()),
                    ("org.opencontainers.image.ref.name", r.tag.clone().unwrap_or_default()),
                ])));
            }
            let tags: Vec<String> = references.iter().map(Reference::familiar).collect();
            let files = absent.iter().map(|l| &l.digest).chain(held.own_layers().iter().map(|l| &l.diff));
            let mut item = json!({
                "Config": blob(id.hex()),
                "RepoTags": if tags.is_empty() { serde_json::Value::Null } else { json!(tags) },
                "Layers": files.map(|digest| blob(digest.hex())).collect::<Vec<_>>(),
            });
            if !absent.is_empty() {
                // dockerd's own field for layers that are had from elsewhere, by diff ID.
                let sources = held.config.rootfs.diff_ids.iter().map(ToString::to_string).zip(&absent);
                item["LayerSources"] = json!(sources.collect::<BTreeMap<_, _>>());
            }
            legacy.push(item);
        }
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
        append(&mut tar, "index.json", index.to_string().as_bytes())?;
        append(&mut tar, "manifest.json", json!(legacy).to_string().as_bytes())?;
        append(&mut tar, "oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}")?;
        tar.finish().map_err(io("writing the archive"))
    }
}
