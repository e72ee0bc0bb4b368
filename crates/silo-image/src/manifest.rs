//! Manifests and indexes (OCI image specification; Docker's image manifest version 2, schema 2): read, checked, made.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::platform::Platform;

/// Bytes that a manifest may have (distribution's own limit).
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Bytes that a config may have.
pub(crate) const MAX_CONFIG: u64 = 16 << 20;
/// Layers that an image may have: what overlayfs can stack in a page of options.
const MAX_LAYERS: usize = 500;

/// Docker's manifest.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// OCI's manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's index.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's config.
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// OCI's config.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// What is asked of registries for.
pub(crate) const ACCEPTED: &[&str] = &[DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST, OCI_INDEX];

/// Layer types without their compression, Docker's and OCI's.
const LAYERS: &[(&str, &str)] = &[
    ("application/vnd.docker.image.rootfs.diff.tar", "."),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar", "."),
    ("application/vnd.oci.image.layer.v1.tar", "+"),
    ("application/vnd.oci.image.layer.nondistributable.v1.tar", "+"),
];

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// A blob by its type, digest and size (OCI image specification, descriptor.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default, deserialize_with = "nullable")]
    pub media_type: String,
    /// Digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Where else it may be had.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Remarks.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Of a manifest in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescribedPlatform>,
}

/// A platform as indexes write it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DescribedPlatform {
    /// `amd64`.
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    /// `linux`.
    #[serde(deserialize_with = "nullable")]
    pub os: String,
    /// Windows' build.
    #[serde(rename = "os.version", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// What of the OS it needs.
    #[serde(rename = "os.features", deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// `v7`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl From<&DescribedPlatform> for Platform {
    fn from(p: &DescribedPlatform) -> Self {
        Self {
            os: p.os.clone(),
            architecture: p.architecture.clone(),
            variant: p.variant.clone(),
            os_version: p.os_version.clone(),
        }
    }
}

impl Descriptor {
    /// Whether registries hold no copy of it: Windows' base layers.
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains(".foreign.") || self.media_type.contains(".nondistributable.")
    }

    /// A layer of which no more is known than its diff ID.
    pub(crate) fn unknown(diff: Digest) -> Self {
        Self {
            media_type: String::new(),
            digest: diff,
            size: 0,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
        }
    }

    /// No image, but remarks on one: what buildx puts beside it.
    fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
    }
}

/// One image for one platform.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// Lowest first.
    pub(crate) layers: Vec<Descriptor>,
    /// Remarks.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What a reference may lead to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Document {
    Image(Box<Manifest>),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    media_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "nullable")]
    annotations: BTreeMap<String, String>,
}

fn invalid(what: &Digest, why: impl std::fmt::Display) -> ImageError {
    ImageError::Invalid(format!("manifest {what}: {why}"))
}

impl Document {
    /// Reads a manifest or index. `media_type`: what the registry or the index says that it is; may say nothing.
    pub(crate) fn read(bytes: &[u8], media_type: &str) -> Result<Self> {
        let digest = Digest::of(bytes);
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| invalid(&digest, e))?;
        if raw.schema_version == Some(1) {
            return Err(invalid(
                &digest,
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are no longer supported; \
                 the image must be pushed again by a newer Docker",
            ));
        }
        if raw.schema_version != Some(2) {
            return Err(invalid(&digest, "its schemaVersion is not 2"));
        }
        let said = |text: &str| match text {
            DOCKER_MANIFEST | OCI_MANIFEST => Some(false),
            DOCKER_LIST | OCI_INDEX => Some(true),
            _ => None,
        };
        let types = [said(media_type), said(&raw.media_type)];
        // One document, one meaning: what is both, or is called the other, is not looked at (CVE-2021-41190).
        match (raw.manifests, raw.layers, raw.config) {
            (Some(manifests), None, None) if !types.contains(&Some(false)) => Ok(Self::Index(manifests)),
            (None, layers, Some(config)) if !types.contains(&Some(true)) => {
                let layers = layers.unwrap_or_default();
                if layers.len() > MAX_LAYERS {
                    return Err(invalid(&digest, format!("more than {MAX_LAYERS} layers")));
                }
                Ok(Self::Image(Box::new(Manifest { config, layers, annotations: raw.annotations })))
            }
            (None, None, None) => Err(invalid(&digest, "it is neither an image's nor an index")),
            _ => Err(invalid(&digest, "it is an image's and an index at once")),
        }
    }
}

impl Manifest {
    /// An error that names what is no image for a container.
    pub(crate) fn check(&self) -> Result<()> {
        let kind = self.config.media_type.as_str();
        let known = [DOCKER_CONFIG, OCI_CONFIG, "", "application/octet-stream", "application/json"];
        if !known.contains(&kind) {
            return Err(ImageError::Invalid(format!(
                "unsupported media type {kind} of the config {}: this is no container image",
                self.config.digest
            )));
        }
        for layer in &self.layers {
            let known = LAYERS.iter().any(|(base, sign)| match layer.media_type.strip_prefix(base) {
                Some("") => true,
                Some(rest) => rest.strip_prefix(sign).is_some_and(|c| matches!(c, "gzip" | "zstd")),
                None => false,
            });
            if !known {
                return Err(ImageError::Invalid(format!(
                    "unsupported media type {:?} of the layer {}",
                    layer.media_type, layer.digest
                )));
            }
        }
        Ok(())
    }
}

/// Which manifest of an index is wanted.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// What the user asked for.
    pub platform: Option<Platform>,
    /// Without that: this one, and if the index has none of its OS, the others in order.
    pub preferred: Vec<Platform>,
}

/// The manifest of an index that is chosen.
pub(crate) fn choose<'a>(manifests: &'a [Descriptor], choice: &Choice) -> Result<&'a Descriptor> {
    let images: Vec<(Platform, &Descriptor)> = manifests
        .iter()
        .filter(|d| !d.is_attestation())
        .filter_map(|d| Some((d.platform.as_ref()?.into(), d)))
        .collect();
    let wanted: Vec<Platform> = match &choice.platform {
        Some(platform) if platform.os_version.is_empty() => {
            // Of several builds first the preferred one.
            let same = |p: &&Platform| p.os == platform.os && !p.os_version.is_empty();
            let build = choice.preferred.iter().find(same).map(|p| p.os_version.clone());
            let build = build.map(|os_version| Platform { os_version, ..platform.clone() });
            build.into_iter().chain([platform.clone()]).collect()
        }
        Some(platform) => vec![platform.clone()],
        None => choice.preferred.clone(),
    };
    for platform in &wanted {
        let best = images.iter().filter_map(|(p, d)| Some((platform.rank(p)?, *d)));
        // Of equals the first.
        if let Some((_, found)) = best.rev().max_by(|(a, _), (b, _)| a.cmp(b)) {
            return Ok(found);
        }
    }
    // An index of a single image that does not say for whom.
    let plain: Vec<&Descriptor> = manifests.iter().filter(|d| !d.is_attestation()).collect();
    if let ([only], None) = (plain.as_slice(), &choice.platform)
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let name = wanted
        .last()
        .filter(|_| choice.platform.is_some())
        .or(wanted.first())
        .map(ToString::to_string)
        .unwrap_or_default();
    Err(ImageError::Absent(format!("no matching manifest for {name} in the manifest list entries")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn read(text: &str, media_type: &str) -> std::result::Result<Document, String> {
        Document::read(text.replace("DIGEST", DIGEST).as_bytes(), media_type).map_err(|e| e.to_string())
    }

    #[test]
    fn documents_mean_one_thing() {
        let descriptor = r#"{"mediaType":"m","digest":"DIGEST","size":1}"#;
        let image = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
        let both =
            format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}],"config":{descriptor},"layers":[]}}"#);
        assert!(matches!(read(&image, OCI_MANIFEST).unwrap(), Document::Image(m) if m.layers.len() == 1));
        assert!(matches!(read(&image, "").unwrap(), Document::Image(_)));
        assert!(matches!(read(&index, DOCKER_LIST).unwrap(), Document::Index(m) if m.len() == 1));
        for (text, media_type, words) in [
            (both.as_str(), "", "at once"),
            (&image, OCI_INDEX, "at once"),
            (&index, DOCKER_MANIFEST, "at once"),
            (r#"{"schemaVersion":1,"name":"x"}"#, "", "schema 1"),
            (r#"{"schemaVersion":2}"#, "", "neither"),
            ("{}", "", "schemaVersion"),
            ("<html>", "", "expected value"),
            (r#"{"schemaVersion":2,"config":{"digest":"sha256:12","size":1}}"#, "", "no sha256 digest"),
            (r#"{"schemaVersion":2,"config":{"digest":"DIGEST","size":-1}}"#, "", "invalid value"),
        ] {
            let error = read(text, media_type).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn only_container_images_are_images() {
        let of = |config: &str, layer: &str| {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"DIGEST","size":1}},
                    "layers":[{{"mediaType":"{layer}","digest":"DIGEST","size":1}}]}}"#
            );
            match read(&text, "").unwrap() {
                Document::Image(m) => m.check().map_err(|e| e.to_string()),
                Document::Index(_) => Err("index".into()),
            }
        };
        for layer in [
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ] {
            of(OCI_CONFIG, layer).unwrap();
        }
        assert!(of(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+lz4").unwrap_err().contains("lz4"));
        let helm = "application/vnd.cncf.helm.config.v1+json";
        assert!(of(helm, "application/vnd.oci.image.layer.v1.tar").unwrap_err().contains(helm));
    }

    #[test]
    fn the_platform_chooses() {
        let entry = |os: &str, architecture: &str, os_version: &str, variant: &str| Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: Digest::of(format!("{os}{architecture}{os_version}{variant}").as_bytes()),
            size: 1,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: Some(DescribedPlatform {
                os: os.into(),
                architecture: architecture.into(),
                os_version: os_version.into(),
                variant: variant.into(),
                os_features: Vec::new(),
            }),
        };
        let parse = |text: &str| Platform::parse(text).unwrap();
        let host = |wanted: Option<&str>| Choice {
            platform: wanted.map(parse),
            preferred: vec![
                parse("linux/amd64"),
                Platform { os_version: "10.0.20348".into(), ..parse("windows/amd64") },
                parse("windows/amd64"),
            ],
        };
        let windows = [
            entry("windows", "amd64", "10.0.17763.1", ""),
            entry("windows", "amd64", "10.0.20348.1", ""),
            entry("windows", "amd64", "10.0.26100.1", ""),
        ];
        let mut all = vec![entry("unknown", "unknown", "", "")];
        all.extend(windows.clone());
        all.extend([
            entry("linux", "arm", "", "v5"),
            entry("linux", "arm", "", "v7"),
            entry("linux", "arm64", "", "v8"),
            entry("linux", "amd64", "", ""),
        ]);
        for (wanted, found) in [
            (None, &all[7]),
            (Some("linux/amd64"), &all[7]),
            (Some("linux/arm64"), &all[6]),
            (Some("linux/arm/v7"), &all[5]),
            (Some("linux/arm/v6"), &all[4]),
            (Some("windows/amd64"), &all[2]),
            (Some("windows(10.0.26100)/amd64"), &all[3]),
        ] {
            assert_eq!(choose(&all, &host(wanted)).unwrap(), found, "{wanted:?}");
        }
        assert_eq!(choose(&windows, &host(None)).unwrap(), &windows[1]);
        let error = choose(&all, &host(Some("linux/s390x"))).unwrap_err().to_string();
        assert!(
            error.contains("no matching manifest for linux/s390x in the manifest list entries"),
            "{error}"
        );
    }
}
