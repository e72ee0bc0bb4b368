//! Wine's server and ntdll's Linux half, compiled from the distribution's own source with the patches in `wine/`.
//!
//! | patch | why |
//! |---|---|
//! | `hidden-variables` | `WINEDATADIR` and its like are not in programs' environment, if `SILO_HIDE_WINE` is set |
//! | `lock-file` | file locks with a status block, which Windows programs give (zig) |
//! | `registry-flush` | a flushed key is on disk when the call returns; the rest after five seconds, as on Windows, and at SIGUSR1 (commit) |
//! | `standard-user` | who is no administrator changes neither the machine's registry, nor the system's files, nor administrators' processes |
//!
//! They run in place of the packaged ones, beside the packaged Windows side. Compiled in a root of the distribution's own
//! packages, so that nothing of the host's is in them; what was compiled once for the same source, compiler and patches is
//! kept in [`CACHE`] and taken from there.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::packages::Sources;
use super::root;
use super::tools::{self, ToolError};

const PATCHES: &[(&str, &str)] = &[
    ("hidden-variables.patch", include_str!("wine/hidden-variables.patch")),
    ("lock-file.patch", include_str!("wine/lock-file.patch")),
    ("registry-flush.patch", include_str!("wine/registry-flush.patch")),
    ("standard-user.patch", include_str!("wine/standard-user.patch")),
];
const BUILD: &str = include_str!("wine/build.sh");
/// Kept over base builds; what is in it can be removed at any time.
const CACHE: &str = "/var/cache/silo/wine";
/// Runs the build in the root.
const ENTER: &str = r#"exec env -i /usr/sbin/chroot "$root" /bin/sh /build/build.sh </dev/null"#;
/// Seconds.
const LIMIT: u32 = 1200;

/// The two programs.
pub(super) struct Built {
    /// `ntdll.so`.
    pub(super) ntdll: PathBuf,
    /// `wineserver64`.
    pub(super) server: PathBuf,
}

/// Why they could not be had.
#[derive(Debug, thiserror::Error)]
pub enum WineError {
    /// Unpacking or compiling failed.
    #[error("compiling Wine's Linux side: {0}")]
    Tool(#[from] ToolError),
    /// Input/output.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WineError {
    let doing = format!("{doing} {}", path.display());
    move |source| WineError::Io { doing, source }
}

/// Compiles them below `work`, or takes them from the cache.
pub(super) fn build(sources: &Sources, work: &Path) -> Result<Built, WineError> {
    let kept = Path::new(CACHE).join(key(sources)?);
    if let Some(built) = complete(&kept) {
        return Ok(built);
    }
    let directory = work.join("compiler-root");
    lay_root(sources, &directory)?;
    root::run(&directory, LIMIT, ENTER)?;
    let out = directory.join("build/out");
    // A host whose cache cannot be written has none.
    let here = work.join("wine");
    let place = match keep(&out, &kept) {
        Ok(()) => kept,
        Err(_) => keep(&out, &here).map(|()| here)?,
    };
    fs::remove_dir_all(&directory).map_err(at("removing", &directory))?;
    complete(&place).ok_or_else(|| at("taking programs from", &place)(io::ErrorKind::NotFound.into()))
}

fn complete(directory: &Path) -> Option<Built> {
    let built = Built { ntdll: directory.join("ntdll.so"), server: directory.join("wineserver") };
    (built.ntdll.is_file() && built.server.is_file()).then_some(built)
}

/// Copies `out` to `to`, whole or not at all.
fn keep(out: &Path, to: &Path) -> Result<(), WineError> {
    let fresh = to.with_extension(format!("new-{}", std::process::id()));
    fs::create_dir_all(&fresh).map_err(at("creating", &fresh))?;
    for name in ["ntdll.so", "wineserver"] {
        fs::copy(out.join(name), fresh.join(name)).map_err(at("copying", &out.join(name)))?;
    }
    match fs::rename(&fresh, to) {
        // Another build was first, with the same result.
        Err(_) if complete(to).is_some() => fs::remove_dir_all(&fresh).map_err(at("removing", &fresh)),
        other => other.map_err(at("moving", &fresh)),
    }
}

/// What decides the result, as hex digits: source, compiler, patches, script.
fn key(sources: &Sources) -> Result<String, WineError> {
    let mut hash = Sha256::new();
    for path in sources.source.iter().filter(|path| path.extension().is_some_and(|e| e == "dsc")) {
        // It holds the digests of the archives, which apt has checked.
        hash.update(fs::read(path).map_err(at("reading", path))?);
    }
    for path in &sources.compiler {
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update([0]);
    }
    for text in PATCHES.iter().map(|(_, text)| *text).chain([BUILD]) {
        hash.update(text);
        hash.update([0]);
    }
    Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// Unpacks the compiler's packages and puts source, patches and script into `/build`.
fn lay_root(sources: &Sources, directory: &Path) -> Result<(), WineError> {
    let patches = directory.join("build/patches");
    fs::create_dir_all(&patches).map_err(at("creating", &patches))?;
    for point in root::MOUNT_POINTS {
        fs::create_dir_all(directory.join(point)).map_err(at("creating", directory))?;
    }
    for package in &sources.compiler {
        tools::run(
            "dpkg-deb",
            &["--extract".as_ref(), package.as_os_str(), directory.as_os_str()],
            Path::new("/"),
        )?;
    }
    // What the packages' own set-up scripts would have made.
    let links = [
        ("usr/bin", "bin"),
        ("usr/lib", "lib"),
        ("usr/lib64", "lib64"),
        ("dash", "usr/bin/sh"),
        ("gawk", "usr/bin/awk"),
    ];
    for (target, link) in links {
        let link = directory.join(link);
        match symlink(target, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at("making", &link)(error));
            }
            _ => {}
        }
    }
    for path in &sources.source {
        let to = directory.join("build").join(path.file_name().unwrap_or_default());
        fs::copy(path, to).map_err(at("copying", path))?;
    }
    for (name, text) in PATCHES {
        let path = patches.join(name);
        fs::write(&path, text).map_err(at("writing", &path))?;
    }
    let path = directory.join("build/build.sh");
    fs::write(&path, BUILD).map_err(at("writing", &path))
}
