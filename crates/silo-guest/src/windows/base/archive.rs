//! Writes a built base as an image archive: an OCI layout that also carries Docker's `manifest.json`.
//!
//! Everything that could differ between two builds of the same tree is fixed: entries are sorted, owner is 0, times
//! are the base's date, the layer's compression has one level and one thread.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::build::{BaseOptions, BuiltBase, build};
use super::family::Family;
use super::identity;
use super::packages::PackageSource;
use crate::contract::GuestError;
use crate::inside;

/// A base's top directory of the Linux side, in Linux' form.
pub(in crate::windows) const HOST: &str = "Host";
/// zstd level: near the smallest that this content gets, at a tenth of the time of the highest.
const LEVEL: i32 = 15;
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Why the archive could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct ArchiveError {
    doing: String,
    source: io::Error,
}

fn at(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ArchiveError {
    let doing = doing.into();
    move |source| ArchiveError { doing, source }
}

/// See [`crate::Guest::build_base`].
pub(in crate::windows) fn build_archive(
    family: &str,
    packages: Option<&Path>,
    work: &Path,
    progress: &mut dyn FnMut(&str),
    to: &mut dyn Write,
) -> Result<(), GuestError> {
    let family = Family::parse(family).ok_or_else(|| {
        GuestError::Invalid(format!("base {family:?}: there are nanoserver and servercore"))
    })?;
    let inside = inside::program("silo-init").and_then(|p| p.parent().map(Path::to_owned)).ok_or_else(|| {
        GuestError::NotFound(
            "the programs that run inside Windows containers are not installed beside silo (cargo xtask install)"
                .to_owned(),
        )
    })?;
    let packages =
        packages.map_or(PackageSource::HostsMirror, |path| PackageSource::Directory(path.to_owned()));
    let failed = |e: &dyn std::error::Error| GuestError::Io {
        doing: format!("building the base {}", family.as_str()),
        source: io::Error::other(e.to_string()),
    };
    let options = BaseOptions { family, packages, inside, work: work.to_owned() };
    let built = build(&options, progress).map_err(|e| failed(&e))?;
    built.write_archive(to).map_err(|e| failed(&e))
}

impl BuiltBase {
    /// Writes the whole archive to `out`. The layer is kept beside the tree meanwhile, since its digest comes first.
    pub fn write_archive(&self, out: &mut dyn Write) -> Result<(), ArchiveError> {
        let spool = self.tree.with_extension("layer");
        let layer = self.write_layer(&spool);
        let written = layer.and_then(|layer| self.write_image(&layer, &spool, out));
        // The spool file is ours alone; that it may be missing after an error is fine.
        let _ = fs::remove_file(&spool);
        written
    }

    fn write_layer(&self, spool: &Path) -> Result<Layer, ArchiveError> {
        let doing = || at(format!("writing the layer {}", spool.display()));
        let compressed = Hashing::new(BufWriter::new(File::create(spool).map_err(doing())?));
        let encoder = zstd::Encoder::new(compressed, LEVEL).map_err(doing())?;
        let mut plain = Hashing::new(encoder);
        write_tree(&self.tree, self.date, &mut plain)?;
        let diff_id = plain.digest();
        let mut compressed = plain.inner.finish().map_err(doing())?;
        compressed.inner.flush().map_err(doing())?;
        Ok(Layer { diff_id, digest: compressed.digest(), size: compressed.length })
    }

    fn write_image(&self, layer: &Layer, spool: &Path, out: &mut dyn Write) -> Result<(), ArchiveError> {
        let config = self.config(&layer.diff_id).to_string().into_bytes();
        let config_digest = sha256(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config_digest, "size": config.len()},
            "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size}],
        })
        .to_string()
        .into_bytes();
        let manifest_digest = sha256(&manifest);
        let reference = self.family.reference();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": MANIFEST, "digest": manifest_digest, "size": manifest.len(),
                "platform": {"architecture": "amd64", "os": "windows", "os.version": identity::os_version()},
                "annotations": {
                    "io.containerd.image.name": format!("docker.io/{reference}"),
                    "org.opencontainers.image.ref.name": reference.rsplit(':').next(),
                },
            }],
        });
        let docker = json!([{
            "Config": blob(&config_digest), "RepoTags": [reference], "Layers": [blob(&layer.digest)],
        }]);

        let mut tar = tar::Builder::new(out);
        for directory in ["blobs/", "blobs/sha256/"] {
            let mut header = self.header(tar::EntryType::Directory, 0, 0o755);
            tar.append_data(&mut header, directory, io::empty()).map_err(at("writing the archive"))?;
        }
        let small = [
            ("oci-layout".to_owned(), json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            ("manifest.json".to_owned(), docker.to_string().into_bytes()),
            (blob(&config_digest), config),
            (blob(&manifest_digest), manifest),
        ];
        for (name, content) in small {
            let mut header = self.header(tar::EntryType::Regular, content.len() as u64, 0o644);
            tar.append_data(&mut header, name, &content[..]).map_err(at("writing the archive"))?;
        }
        let mut file = File::open(spool).map_err(at(format!("reading {}", spool.display())))?;
        file.rewind().map_err(at(format!("reading {}", spool.display())))?;
        let mut header = self.header(tar::EntryType::Regular, layer.size, 0o644);
        tar.append_data(&mut header, blob(&layer.digest), &mut file).map_err(at("writing the archive"))?;
        tar.into_inner().and_then(|out| out.flush()).map_err(at("writing the archive"))
    }

    /// The image config, with the fields that Microsoft's bases have.
    fn config(&self, diff_id: &str) -> Value {
        let created = rfc3339(self.date);
        json!({
            "created": created,
            "architecture": "amd64",
            "os": "windows",
            "os.version": identity::os_version(),
            "config": {
                "User": "ContainerAdministrator",
                "Cmd": ["c:\\windows\\system32\\cmd.exe"],
                "Labels": {"dev.silo.base": self.family.as_str(), "dev.silo.wine": self.wine, "dev.silo.wine.patched": self.patched.to_string()},
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{
                "created": created,
                "created_by": format!("silo base build {} (Wine {})", self.family.as_str(), self.wine),
            }],
        })
    }

    fn header(&self, kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
        header(kind, size, mode, self.date)
    }
}

struct Layer {
    diff_id: String,
    digest: String,
    size: u64,
}

fn header(kind: tar::EntryType, size: u64, mode: u32, date: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(date);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Writes `tree` as the archive of a Windows layer, everything of it with the time `date`.
fn write_tree(tree: &Path, date: u64, out: &mut dyn Write) -> Result<(), ArchiveError> {
    let time = rustix::fs::Timespec { tv_sec: date as i64, tv_nsec: 0 };
    stamp(tree, &rustix::fs::Timestamps { last_access: time, last_modification: time })?;
    silo_layer::pack_windows_tree(tree, &[], &[HOST], out)
        .map_err(|e| at("packing the base")(io::Error::other(e)))
}

/// Gives everything from `path` down its times, and the mode that it has in a layer.
fn stamp(path: &Path, times: &rustix::fs::Timestamps) -> Result<(), ArchiveError> {
    let failed = || at(format!("preparing {}", path.display()));
    let metadata = path.symlink_metadata().map_err(failed())?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(failed())? {
            stamp(&entry.map_err(failed())?.path(), times)?;
        }
    }
    if !metadata.is_symlink() {
        let mode = if metadata.is_dir() { 0o755 } else { metadata.permissions().mode() & 0o755 | 0o200 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed())?;
    }
    rustix::fs::utimensat(rustix::fs::CWD, path, times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| failed()(e.into()))
}

fn blob(digest: &str) -> String {
    digest.replacen("sha256:", "blobs/sha256/", 1)
}

fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
}

/// Seconds since 1970 as `2025-06-26T12:00:00Z` (days to date: Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// A writer that knows the digest and length of what went through it.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Hashing<W> {
        Hashing { inner, hash: Sha256::new(), length: 0 }
    }
    fn digest(&self) -> String {
        hex(self.hash.clone().finalize().as_slice())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_208_000), "2024-02-29T12:00:00Z");
        assert_eq!(rfc3339(1_750_939_199), "2025-06-26T11:59:59Z");
    }

    #[test]
    fn equal_trees_are_equal_bytes() {
        let directory = std::env::temp_dir().join(format!("silo-archive-test-{}", std::process::id()));
        let mut archives = Vec::new();
        for order in [["b", "a"], ["a", "b"]] {
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(directory.join("Files")).unwrap();
            for name in order {
                fs::write(directory.join("Files").join(name), name).unwrap();
            }
            let mut bytes = Vec::new();
            write_tree(&directory, 5, &mut bytes).unwrap();
            archives.push(bytes);
        }
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(archives[0], archives[1]);
    }

    #[test]
    fn hashing_counts_what_went_through() {
        let mut hashing = Hashing::new(Vec::new());
        hashing.write_all(b"abc").unwrap();
        assert_eq!(hashing.digest(), sha256(b"abc"));
        assert_eq!(hashing.length, 3);
    }
}
