//! A container's changes as a Windows layer: its files, and the hives of its registry that differ.

use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use silo_hive::{Hive, Value, kind};

use crate::contract::{Changes, GuestError};

use super::base;
use super::registry::RegistryError;
use super::registry::capture::{Captured, capture as read_registry};
use super::registry::hives::{PLACES, of_user};
use super::users::Account;

/// Of `top`: the upper directories of `C:` and of Wine's prefix.
const FILES: &str = "files/upper";
const PREFIX: &str = "prefix/upper";

impl From<RegistryError> for GuestError {
    fn from(error: RegistryError) -> GuestError {
        let doing = "reading the registry".to_owned();
        match error {
            RegistryError::Io { .. } => {
                GuestError::Io { doing, source: std::io::Error::other(error.to_string()) }
            }
            _ => GuestError::Broken(format!("{doing}: {error}")),
        }
    }
}

fn registry(changes: &Changes<'_>) -> Result<(Captured, String), GuestError> {
    let account = Account::parse(changes.user)?;
    let prefix = changes.top.map(|top| top.join(PREFIX));
    let captured = read_registry(changes.layers, prefix.as_deref(), account)?;
    Ok((captured, account.profile()))
}

/// The version that a base layer's registry tells; that of our own bases if it has none.
pub(super) fn os_version(layer: &Path) -> Result<String, GuestError> {
    let software = PLACES.iter().find(|place| place.shown() == r"HKLM\SOFTWARE");
    let Some(path) = software.map(|place| layer.join("Files").join(place.path())) else {
        return Ok(base::os_version());
    };
    let doing = || format!("reading {}", path.display());
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(base::os_version()),
        other => other.map_err(|source| GuestError::Io { doing: doing(), source })?,
    };
    let hive = Hive::from_bytes(bytes).map_err(|e| GuestError::Broken(format!("{}: {e}", doing())))?;
    let version = hive.root.at_path(r"Microsoft\Windows NT\CurrentVersion");
    let text = |name: &str| version?.value(name).and_then(shown);
    let (Some(build), Some(revision)) = (text("CurrentBuildNumber"), text("UBR")) else {
        return Ok(base::os_version());
    };
    let part = |name: &str, before: u32| text(name).unwrap_or_else(|| before.to_string());
    Ok(format!(
        "{}.{}.{build}.{revision}",
        part("CurrentMajorVersionNumber", 10),
        part("CurrentMinorVersionNumber", 0)
    ))
}

/// A number or a text as a version has it.
fn shown(value: &Value) -> Option<String> {
    match (value.kind, <[u8; 4]>::try_from(&value.data[..])) {
        (kind::DWORD, Ok(bytes)) => Some(u32::from_le_bytes(bytes).to_string()),
        (kind::SZ, _) => {
            let units = value.data.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
            let text: String =
                char::decode_utf16(units).map_while(Result::ok).take_while(|c| *c != '\0').collect();
            Some(text).filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        }
        _ => None,
    }
}

/// Writes the layer.
pub(super) fn capture(changes: &Changes<'_>, to: &mut dyn Write) -> Result<(), GuestError> {
    let top = changes.top.ok_or_else(|| GuestError::Invalid("layers alone have no changes".to_owned()))?;
    let (captured, profile) = registry(changes)?;
    let (mut deltas, mut whole) = (Vec::new(), Vec::new());
    for changed in captured.changed(&profile) {
        let bytes = changed.bytes()?;
        match changed.delta {
            Some(name) => deltas.push((name, bytes)),
            None => whole.push((changed.file, bytes)),
        }
    }
    let deltas: Vec<(&str, &[u8])> = deltas.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let whole: Vec<(&str, &[u8])> = whole.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
    let files = top.join(FILES);
    // Not there yet in a container that was never started.
    std::fs::create_dir_all(&files)
        .map_err(|source| GuestError::Io { doing: format!("making {}", files.display()), source })?;
    let upper = silo_layer::WindowsUpper {
        files: &files,
        lower: changes.layers,
        hives: &deltas,
        whole: &whole,
        time: changes.time,
        own: &[],
    };
    silo_layer::pack_windows_upper(&upper, to).map_err(|e| GuestError::Io {
        doing: "packing the container's changes".to_owned(),
        source: std::io::Error::other(e.to_string()),
    })
}

/// The hives that differ, by the files that they are on Windows.
pub(super) fn changed_hives(changes: &Changes<'_>) -> Result<Vec<(String, bool)>, GuestError> {
    let (captured, profile) = registry(changes)?;
    let mut shown = Vec::new();
    for changed in captured.changed(&profile) {
        let missing = silo_layer::find_windows(changes.layers, &changed.file)
            .map_err(|source| GuestError::Io { doing: format!("looking for {}", changed.file), source })?;
        shown.push((format!("/{}", changed.file), missing.is_none()));
    }
    Ok(shown)
}

/// See [`crate::Guest::registry`].
pub(super) fn registry_archive(of: &Changes<'_>, to: &mut dyn Write) -> Result<(), GuestError> {
    let registry = registry(of)?.0.new;
    let failed = |source| GuestError::Io { doing: "packing the registry".to_owned(), source };
    let mut archive = tar::Builder::new(to);
    let system = PLACES.iter().map(super::registry::hives::Place::shown).zip(&registry.hives.0);
    for (name, hive) in system.chain([("HKCU".to_owned(), &registry.user)]) {
        let bytes = hive.to_bytes().map_err(|e| failed(std::io::Error::other(format!("{name}: {e}"))))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, &name, &bytes[..]).map_err(failed)?;
    }
    archive.finish().map_err(failed)
}

/// See [`crate::Guest::export`]: `Files` with whole hives, as a base has them, and the base's own Linux side.
pub(super) fn export(root: BorrowedFd<'_>, of: &Changes<'_>, to: &mut dyn Write) -> Result<(), GuestError> {
    let (captured, profile) = registry(of)?;
    let registry = captured.new;
    let failed = |doing: &str, source| GuestError::Io { doing: doing.to_owned(), source };
    let bytes = |hive: &silo_hive::Hive| {
        hive.to_bytes().map_err(|e| failed("writing the registry", std::io::Error::other(e)))
    };
    let mut whole = Vec::new();
    for (place, hive) in PLACES.iter().zip(&registry.hives.0) {
        whole.push((place.path(), bytes(hive)?));
    }
    if captured.old.user != registry.user {
        whole.push((of_user(&profile), bytes(&registry.user)?));
    }
    let whole: Vec<(&str, &[u8])> = whole.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
    // An image that was made of files alone has no Linux side.
    let base = of.layers.last().map(|base| base.join(super::base::HOST)).filter(|base| base.is_dir());
    let linux: Vec<(&str, &Path)> = base.iter().map(|path| (super::base::HOST, path.as_path())).collect();
    let drive =
        rustix::fs::openat(root, "c", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed("opening C:", e.into()))?;
    let files = format!("/proc/self/fd/{}", drive.as_raw_fd());
    let all = silo_layer::WindowsRoot {
        files: Path::new(&files),
        layers: of.layers,
        whole: &whole,
        time: of.time,
        linux: &linux,
    };
    silo_layer::pack_windows_root(&all, to)
        .map_err(|e| failed("packing the container's files", std::io::Error::other(e.to_string())))
}
