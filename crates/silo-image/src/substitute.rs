//! Layers that are not fetched because those of an image here take their place.
//!
//! Story: before the layers of an image are brought in, whoever asked for it is shown the [`Candidate`] and may say that its
//! lowest layers are the work of another image's ([`Substitute`]). The image keeps its config, ID, manifests and diff IDs; in
//! the store its chain begins with the other image's layers, so that what is kept by chain ID (snapshots, and what guests and
//! sandboxes make of them) is that of this one combination. The descriptors of the layers that are not here are kept, to be
//! pushed and saved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{HistoryEntry, ImageConfig};
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest::Descriptor;

/// An image whose layers are about to be brought in.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Its name as users write it; of an archive's nameless image its ID.
    pub name: &'a str,
    /// Config.
    pub config: &'a ImageConfig,
    /// Its layers as its manifest describes them, lowest first. Of an archive that does not say, digests are diff IDs.
    pub layers: &'a [Descriptor],
    /// The manifest's annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// By chain of layers that are not here, what took their place before: other images of the store, each with its lowest
    /// diff IDs and the reference that was given for them.
    pub known: &'a [(Vec<Digest>, String)],
}

impl Candidate<'_> {
    /// The history entries of the layers, lowest first; none if history and layers do not go together.
    pub fn history(&self) -> Vec<&HistoryEntry> {
        let all: Vec<&HistoryEntry> = self.config.history.iter().filter(|h| !h.empty_layer).collect();
        if all.len() == self.layers.len() { all } else { Vec::new() }
    }
}

/// What takes the place of an image's lowest layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substitute {
    /// So many layers, from below; at least one.
    pub layers: usize,
    /// The image here whose layers take their place, by its reference.
    pub base: String,
}

/// Who decides. The error refuses the image.
pub type Decide<'a> = &'a dyn Fn(&Candidate<'_>) -> Result<Option<Substitute>>;

/// Notes of an archive: see [`Substituted::source`] and [`Substituted::repository`].
const SOURCE: &str = "dev.silo.base.source";
const REPOSITORY: &str = "dev.silo.base.repository";

/// What is kept of an image's layers that another image's took the place of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Substituted {
    /// As manifests describe them, lowest first.
    pub(crate) layers: Vec<Descriptor>,
    /// Diff IDs of the layers in their place, lowest first.
    pub(crate) diffs: Vec<Digest>,
    /// The reference of the image that they are of.
    pub(crate) base: String,
    /// Where the originals can be had: `https://host/v2/path` of a repository.
    pub(crate) source: Option<String>,
    /// The same as users name it: `host/path`.
    pub(crate) repository: Option<String>,
}

impl Substituted {
    /// The layers with notes of where they can be had, for an archive.
    pub(crate) fn noted(&self) -> Vec<Descriptor> {
        let notes = [(SOURCE, &self.source), (REPOSITORY, &self.repository)];
        let mut layers = self.layers.clone();
        for layer in &mut layers {
            let of = notes.iter().filter_map(|(key, text)| Some(((*key).to_owned(), (*text).clone()?)));
            layer.annotations.extend(of);
        }
        layers
    }

    /// Takes the notes of an archive.
    pub(crate) fn take_notes(&mut self) {
        for layer in &mut self.layers {
            let (source, repository) =
                (layer.annotations.remove(SOURCE), layer.annotations.remove(REPOSITORY));
            // What is none would lead nowhere.
            self.source = source.filter(|s| s.contains("://") && s.contains("/v2/")).or(self.source.take());
            self.repository = repository.or(self.repository.take());
        }
    }

    /// A layer as one that registries hold no copy of, by where it can be had (OCI image specification, descriptor.md,
    /// `urls`; layer.md, "Non-Distributable Layers"; Docker's "foreign" layers).
    pub(crate) fn described(&self, layer: &Descriptor) -> Option<Descriptor> {
        let source = self.source.as_ref()?;
        let media_type = layer.media_type.replace("image.rootfs.diff.", "image.rootfs.foreign.diff.");
        let media_type = media_type.replace("image.layer.v1.", "image.layer.nondistributable.v1.");
        let described = Descriptor {
            media_type,
            urls: vec![format!("{source}/blobs/{}", layer.digest)],
            ..layer.clone()
        };
        described.is_foreign().then_some(described)
    }
}

/// The diff IDs of the layers here of an image with these in its config, lowest first.
pub(crate) fn effective(own: &[Digest], of: Option<&Substituted>) -> Result<Vec<Digest>> {
    let Some(of) = of else { return Ok(own.to_vec()) };
    let rest = own.get(of.layers.len()..).ok_or_else(|| {
        ImageError::Invalid(format!("{} layers are substituted of {}", of.layers.len(), own.len()))
    })?;
    Ok(of.diffs.iter().chain(rest).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str) -> Descriptor {
        serde_json::from_value(
            serde_json::json!({"mediaType": "m", "size": 1, "digest": Digest::of(text.as_bytes())}),
        )
        .unwrap()
    }

    #[test]
    fn the_others_layers_come_first_and_the_own_stay() {
        let own: Vec<Digest> = ["a", "b", "c"].map(|t| Digest::of(t.as_bytes())).to_vec();
        let here = Digest::of(b"here");
        let of = Substituted {
            layers: vec![layer("x"), layer("y")],
            diffs: vec![here.clone()],
            base: "b:1".into(),
            source: Some("https://host:1/v2/a/b".into()),
            repository: None,
        };
        assert_eq!(effective(&own, None).unwrap(), own);
        assert_eq!(effective(&own, Some(&of)).unwrap(), [here, own[2].clone()]);
        assert!(effective(&own[..1], Some(&of)).is_err());
        assert_eq!(of.described(&of.layers[0]), None);
        let mut from_archive = Substituted { layers: of.noted(), source: None, ..of.clone() };
        assert_ne!(from_archive.layers, of.layers);
        from_archive.take_notes();
        assert_eq!(from_archive, of);
        for (given, foreign) in [
            ("vnd.docker.image.rootfs.diff.tar.gzip", "vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            ("vnd.oci.image.layer.v1.tar+gzip", "vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        ] {
            let described = of.described(&Descriptor { media_type: given.into(), ..layer("x") }).unwrap();
            assert_eq!(described.media_type, foreign);
            assert_eq!(described.urls, [format!("https://host:1/v2/a/b/blobs/{}", layer("x").digest)]);
        }
    }

    #[test]
    fn history_counts_if_it_goes_with_the_layers() {
        let history = |empty: &[bool]| {
            empty.iter().map(|e| HistoryEntry { empty_layer: *e, ..Default::default() }).collect::<Vec<_>>()
        };
        let layers = [layer("x"), layer("y")];
        for (empty, found) in [(&[false, true, false][..], 2), (&[false, true], 0), (&[], 0)] {
            let config = ImageConfig { history: history(empty), ..Default::default() };
            let none = BTreeMap::new();
            let candidate =
                Candidate { name: "n", config: &config, layers: &layers, annotations: &none, known: &[] };
            assert_eq!(candidate.history().len(), found, "{empty:?}");
        }
    }
}
