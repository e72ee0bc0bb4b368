//! Images made by hand, as a registry would serve them.

use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A tar of files of mode 755, by path.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Packs a tar.
pub fn pack(tar: &[u8], how: Packed) -> Vec<u8> {
    match how {
        Packed::Plain => tar.to_vec(),
        Packed::Gzip => {
            let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            to.write_all(tar).unwrap();
            to.finish().unwrap()
        }
        Packed::Zstd => zstd::encode_all(tar, 1).unwrap(),
    }
}

/// Bytes that do not get smaller, the same each time.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut random = crate::Random::new(seed);
    std::iter::repeat_with(|| random.below(256) as u8).take(size).collect()
}

/// An image: its blobs by digest, and its manifest.
#[derive(Debug, Clone)]
pub struct Image {
    /// Config and layers.
    pub blobs: Vec<Vec<u8>>,
    /// OCI's.
    pub manifest: Vec<u8>,
    /// ID.
    pub id: String,
}

/// OCI's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An OCI image for a platform (`os/architecture`) of layers, each a tar and how it is packed.
pub fn image(platform: &str, layers: &[(Vec<u8>, Packed)]) -> Image {
    let (os, architecture) = platform.split_once('/').unwrap();
    let diffs: Vec<String> = layers.iter().map(|(tar, _)| digest(tar)).collect();
    let config = json!({"architecture": architecture, "os": os, "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": diffs.iter().map(|_| json!({"created_by": "a test"})).collect::<Vec<_>>()});
    let config = config.to_string().into_bytes();
    let packed: Vec<(Vec<u8>, Packed)> = layers.iter().map(|(tar, how)| (pack(tar, *how), *how)).collect();
    let descriptors: Vec<Value> = packed
        .iter()
        .map(|(bytes, how)| {
            let suffix = match how {
                Packed::Plain => "",
                Packed::Gzip => "+gzip",
                Packed::Zstd => "+zstd",
            };
            json!({"mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                "digest": digest(bytes), "size": bytes.len()})
        })
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": descriptors});
    let id = digest(&config);
    let mut blobs = vec![config];
    blobs.extend(packed.into_iter().map(|(bytes, _)| bytes));
    Image { blobs, manifest: manifest.to_string().into_bytes(), id }
}
