//! Wine's source package and the packages of a system that can compile it: known from the mirror's index, fetched only when
//! something is to be compiled (235 MB).

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::packages::{PackageError, PackageSource, apt_get, files, io};

/// What compiles parts of Wine, for Linux and for Windows; `apt-get` adds what these depend on.
const COMPILER: &[&str] = &[
    "autoconf",
    "bison",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "flex",
    "gawk",
    "gcc",
    "gcc-mingw-w64-i686-win32",
    "gcc-mingw-w64-x86-64-win32",
    "grep",
    "libc6-dev",
    "make",
    "patch",
    "perl",
    "sed",
    "tar",
    "xz-utils",
];

/// Wine's source and a compiler, which may have to be fetched yet.
pub(super) struct Sources {
    /// SHA-256 of `wine_<version>.dsc` in hex digits; that file holds the digests of the archives, which apt checks.
    pub(super) dsc: String,
    /// File names of the compiler's packages (`name_version_arch.deb`), sorted.
    pub(super) compiler: Vec<String>,
    place: Place,
}

enum Place {
    /// Here.
    Directory(PathBuf),
    /// On the mirror that apt is configured for in this directory.
    Mirror { version: String, apt: PathBuf },
}

/// The files themselves.
pub(super) struct SourceFiles {
    /// `wine_<version>.dsc` and the archives that it names.
    pub(super) source: Vec<PathBuf>,
    /// `.deb` files, complete.
    pub(super) compiler: Vec<PathBuf>,
}

/// The source of Wine `version` and a compiler; `None` if a directory of packages has no `source` directory. Called after
/// [`obtain`](super::packages::obtain), with the same `work`; fetches nothing.
pub(super) fn find(
    source: &PackageSource,
    version: &str,
    work: &Path,
) -> Result<Option<Sources>, PackageError> {
    match source {
        PackageSource::Directory(directory) => in_directory(directory.join("source")),
        PackageSource::HostsMirror => on_mirror(version, work.join("apt")).map(Some),
    }
}

fn in_directory(directory: PathBuf) -> Result<Option<Sources>, PackageError> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let found = files_in(&directory)?;
    let Some(dsc) = found.source.iter().find(|path| path.extension().is_some_and(|e| e == "dsc")) else {
        return Err(PackageError::NoSource(directory));
    };
    let content = fs::read(dsc).map_err(io(format!("reading {}", dsc.display())))?;
    let dsc = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    let names = found.compiler.iter().filter_map(|path| path.file_name());
    let compiler = names.map(|name| name.to_string_lossy().into_owned()).collect();
    Ok(Some(Sources { dsc, compiler, place: Place::Directory(directory) }))
}

fn on_mirror(version: &str, apt: PathBuf) -> Result<Sources, PackageError> {
    // Empty, so that apt names what it has fetched before as well.
    let plan = apt.join("plan");
    let archives = plan.join("archives/partial");
    fs::create_dir_all(&archives).map_err(io(format!("creating {}", archives.display())))?;
    let source = apt_get(&apt, &["source", "--print-uris", &format!("wine={version}")], &plan)?;
    let own_cache = format!("Dir::Cache={}", plan.display());
    let install = ["install", "--print-uris", "--yes", "-o", &own_cache];
    let packages = apt_get(&apt, &[&install, COMPILER].concat(), &plan)?;
    let none = || PackageError::NotInIndex(version.to_owned());
    let dsc = listed(&source).find(|(name, _)| name.ends_with(".dsc")).ok_or_else(none)?;
    let dsc = dsc.1.strip_prefix("SHA256:").ok_or_else(none)?.to_owned();
    let mut compiler: Vec<String> = listed(&packages).map(|(name, _)| name.to_owned()).collect();
    compiler.sort();
    if compiler.is_empty() {
        return Err(none());
    }
    Ok(Sources { dsc, compiler, place: Place::Mirror { version: version.to_owned(), apt } })
}

/// File names and digests of what `apt-get --print-uris` tells: `'address' name length kind:digest` a line.
fn listed(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        let mut words = rest.split(' ');
        Some((words.next()?, words.nth(1)?))
    })
}

impl Sources {
    /// The files, fetched if they are not here.
    pub(super) fn files(&self) -> Result<SourceFiles, PackageError> {
        match &self.place {
            Place::Directory(directory) => files_in(directory),
            Place::Mirror { version, apt } => files_in(&fetch(version, apt)?),
        }
    }
}

fn files_in(directory: &Path) -> Result<SourceFiles, PackageError> {
    let found =
        SourceFiles { source: files(directory, &["dsc", "xz"])?, compiler: files(directory, &["deb"])? };
    if found.compiler.is_empty() || found.source.len() != 3 {
        return Err(PackageError::NoSource(directory.to_owned()));
    }
    Ok(found)
}

fn fetch(version: &str, apt: &Path) -> Result<PathBuf, PackageError> {
    let directory = apt.join("source");
    let cache = apt.join("compiler");
    for directory in [&directory, &cache.join("archives/partial")] {
        fs::create_dir_all(directory).map_err(io(format!("creating {}", directory.display())))?;
    }
    apt_get(apt, &["source", "--download-only", &format!("wine={version}")], &directory)?;
    let own_cache = format!("Dir::Cache={}", cache.display());
    let install = ["install", "--download-only", "--yes", "-o", &own_cache];
    apt_get(apt, &[&install, COMPILER].concat(), &directory)?;
    for path in files(&cache.join("archives"), &["deb"])? {
        let to = directory.join(path.file_name().unwrap_or_default());
        fs::rename(&path, to).map_err(io(format!("moving {}", path.display())))?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_names_files_and_digests() {
        let text = "'http://a.test/w/wine_10.0%7erepack-6.dsc' wine_10.0~repack-6.dsc 3860 SHA256:47\n\
                    NOTICE: it is maintained elsewhere\n'http://a.test/z' zlib1g_1%3a1.3_amd64.deb 49 MD5Sum:8c\n";
        let found: Vec<_> = listed(text).collect();
        assert_eq!(
            found,
            [("wine_10.0~repack-6.dsc", "SHA256:47"), ("zlib1g_1%3a1.3_amd64.deb", "MD5Sum:8c")]
        );
    }

    #[test]
    fn a_directory_tells_what_the_index_would() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        let find = || {
            let source = PackageSource::Directory(dir.path().to_owned());
            super::find(&source, "10", Path::new("/nowhere"))
        };
        assert!(find().unwrap().is_none());
        fs::create_dir(&source).unwrap();
        for name in ["wine_10.dsc", "wine_10.orig.tar.xz", "b_2_all.deb", "a_1%3a1_amd64.deb"] {
            fs::write(source.join(name), "abc").unwrap();
        }
        assert!(matches!(find(), Err(PackageError::NoSource(_))));
        fs::write(source.join("wine_10.debian.tar.xz"), "").unwrap();
        let found = find().unwrap().unwrap();
        // FIPS 180-4's example.
        assert_eq!(found.dsc, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(found.compiler, ["a_1%3a1_amd64.deb", "b_2_all.deb"]);
        assert_eq!(found.files().unwrap().source.len(), 3);
    }
}
