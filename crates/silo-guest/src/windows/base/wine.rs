//! Wine's server, ntdll's Linux half and a few Windows libraries, compiled from the distribution's own source with the
//! patches in `wine/`.
//!
//! | patch | why |
//! |---|---|
//! | `hidden-variables` | `WINEDATADIR` and its like are not in programs' environment, if `SILO_HIDE_WINE` is set |
//! | `lock-file` | file locks with a status block, which Windows programs give (zig) |
//! | `registry-flush` | a flushed key is on disk when the call returns; the rest after five seconds, as on Windows, and at SIGUSR1 (commit), with an answer that holds until the next change; what cannot be written is an error |
//! | `standard-user` | who is no administrator changes neither the machine's registry, nor the system's files, nor administrators' processes |
//! | `machine-sid` | the machine's SID is not the same everywhere: the server takes it from a file that init leaves, at its start and at SIGUSR2, shows it in the registry (`HKLM\SAM\SAM\Domains\Account`) and has it in its tokens; `advapi32` and `sechost` look there, and know the accounts that each machine has |
//! | `job-limits` | the container is a job that every process is in: its limits, processes and times are told, and memory and processors agree with them; a program's own jobs keep their limits, and that of processes; times of other processes are theirs |
//! | `killed` | what ends without a word, killed from outside of Windows for want of memory, has 137 for exit code, not the 0 of success |
//!
//! They run in place of the packaged ones, beside all else of the packages. Compiled in a root of the distribution's own
//! packages, so that nothing of the host's is in them; what was compiled once for the same source, compiler and patches is
//! kept in [`CACHE`] and taken from there, without source and compiler being fetched.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::packages::PackageError;
use super::root;
use super::sources::{SourceFiles, Sources};
use super::tools::{self, ToolError};

/// In the order in which they are applied.
const PATCHES: &[(&str, &str)] = &[
    ("hidden-variables.patch", include_str!("wine/hidden-variables.patch")),
    ("lock-file.patch", include_str!("wine/lock-file.patch")),
    ("registry-flush.patch", include_str!("wine/registry-flush.patch")),
    ("standard-user.patch", include_str!("wine/standard-user.patch")),
    ("machine-sid.patch", include_str!("wine/machine-sid.patch")),
    ("job-limits.patch", include_str!("wine/job-limits.patch")),
    ("killed.patch", include_str!("wine/killed.patch")),
];
const BUILD: &str = include_str!("wine/build.sh");
/// Kept over base builds; what is in it can be removed at any time.
const CACHE: &str = "/var/cache/silo/wine";
/// Runs the build in the root.
const ENTER: &str = r#"exec env -i /usr/sbin/chroot "$root" /bin/sh /build/build.sh </dev/null"#;
/// Seconds.
const LIMIT: u32 = 1200;

/// What is taken from the build.
const NTDLL: &str = "ntdll.so";
const SERVER: &str = "wineserver";
const LIBRARIES: [&str; 2] = ["x86_64-windows/advapi32.dll", "x86_64-windows/sechost.dll"];
const LIBRARIES_32: [&str; 2] = ["i386-windows/advapi32.dll", "i386-windows/sechost.dll"];

fn files() -> impl Iterator<Item = &'static str> {
    [NTDLL, SERVER].into_iter().chain(LIBRARIES).chain(LIBRARIES_32)
}

/// The files.
pub(super) struct Built {
    /// `ntdll.so`.
    pub(super) ntdll: PathBuf,
    /// `wineserver64`.
    pub(super) server: PathBuf,
    /// 64-bit Windows libraries.
    pub(super) libraries: Vec<PathBuf>,
    /// 32-bit ones.
    pub(super) libraries_32: Vec<PathBuf>,
}

/// Why they could not be had.
#[derive(Debug, thiserror::Error)]
pub enum WineError {
    /// Source or compiler.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Unpacking or compiling failed.
    #[error("compiling parts of Wine: {0}")]
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

/// Takes them from the cache, or fetches and compiles them below `work`; `progress` hears a line for each stage.
pub(super) fn build(
    sources: &Sources,
    work: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, WineError> {
    build_with(Path::new(CACHE), sources, work, progress)
}

fn build_with(
    cache: &Path,
    sources: &Sources,
    work: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, WineError> {
    let kept = cache.join(key(sources));
    if let Some(built) = complete(&kept) {
        return Ok(built);
    }
    progress("obtaining Wine's source and a compiler");
    let files = sources.files()?;
    progress("compiling Wine's server, ntdll and two libraries");
    let directory = work.join("compiler-root");
    lay_root(&files, &directory)?;
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
    let all = |names: &[&str]| names.iter().map(|name| directory.join(name)).collect();
    files().all(|name| directory.join(name).is_file()).then(|| Built {
        ntdll: directory.join(NTDLL),
        server: directory.join(SERVER),
        libraries: all(&LIBRARIES),
        libraries_32: all(&LIBRARIES_32),
    })
}

/// Copies `out` to `to`, whole or not at all.
fn keep(out: &Path, to: &Path) -> Result<(), WineError> {
    let fresh = to.with_extension(format!("new-{}", std::process::id()));
    for name in files() {
        let (from, to) = (out.join(name), fresh.join(name));
        let parent = to.parent().unwrap_or(&fresh);
        fs::create_dir_all(parent).map_err(at("creating", parent))?;
        fs::copy(&from, &to).map_err(at("copying", &from))?;
    }
    match fs::rename(&fresh, to) {
        // Another build was first, with the same result.
        Err(_) if complete(to).is_some() => fs::remove_dir_all(&fresh).map_err(at("removing", &fresh)),
        other => other.map_err(at("moving", &fresh)),
    }
}

/// What decides the result, as hex digits: source, compiler, patches, script.
fn key(sources: &Sources) -> String {
    let mut hash = Sha256::new();
    for text in std::iter::once(&sources.dsc).chain(&sources.compiler) {
        hash.update(text);
        hash.update([0]);
    }
    for text in PATCHES.iter().map(|(_, text)| *text).chain([BUILD]) {
        hash.update(text);
        hash.update([0]);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Unpacks the compiler's packages and puts source, patches and script into `/build`.
fn lay_root(files: &SourceFiles, directory: &Path) -> Result<(), WineError> {
    let patches = directory.join("build/patches");
    fs::create_dir_all(&patches).map_err(at("creating", &patches))?;
    for point in root::MOUNT_POINTS {
        fs::create_dir_all(directory.join(point)).map_err(at("creating", directory))?;
    }
    for package in &files.compiler {
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
    for path in &files.source {
        let to = directory.join("build").join(path.file_name().unwrap_or_default());
        fs::copy(path, to).map_err(at("copying", path))?;
    }
    for (number, (name, text)) in PATCHES.iter().enumerate() {
        let path = patches.join(format!("{number}-{name}"));
        fs::write(&path, text).map_err(at("writing", &path))?;
    }
    let path = directory.join("build/build.sh");
    fs::write(&path, BUILD).map_err(at("writing", &path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::base::{packages::PackageSource, sources};

    #[test]
    fn what_was_compiled_once_needs_neither_source_nor_compiler() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        for name in ["wine_10.dsc", "wine_10.orig.tar.xz", "wine_10.debian.tar.xz", "gcc_4_amd64.deb"] {
            fs::write(source.join(name), "").unwrap();
        }
        let packages = PackageSource::Directory(dir.path().to_owned());
        let sources = sources::find(&packages, "10", dir.path()).unwrap().unwrap();
        fs::remove_dir_all(&source).unwrap();
        let cache = dir.path().join("cache");
        let kept = cache.join(key(&sources));
        for directory in ["x86_64-windows", "i386-windows"] {
            fs::create_dir_all(kept.join(directory)).unwrap();
        }
        let build = || build_with(&cache, &sources, &dir.path().join("work"), &mut |_| ());
        assert!(matches!(build(), Err(WineError::Package(_))));
        for name in files() {
            fs::write(kept.join(name), "").unwrap();
        }
        assert_eq!(build().unwrap().server, kept.join(SERVER));
    }
}
