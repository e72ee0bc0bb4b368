//! Obtains the distribution's packages that a base is made of, and takes files out of them.
//!
//! Packages come through `apt-get` under a configuration of its own (own sources, lists, cache and status), so
//! nothing is installed on the host and nothing of the host's package state is read but the mirror's address and
//! keys. A directory of `.deb` files can be given instead.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::tools::{self, ToolError};

/// The release whose Wine can run today's Windows programs (10.0; bookworm's 8.0 cannot).
const SUITE: &str = "trixie";
/// Wine itself: taken without its dependencies, most of which are for desktops.
const WINE: &[&str] = &["wine64", "libwine", "libz-mingw-w64"];
/// Wine's Windows side for 32-bit programs.
const WINE_32: &[&str] = &["libwine:i386"];
/// Libraries that the kept part of Wine's Linux side loads; `apt-get` adds what these depend on.
const LIBRARIES: &[&str] =
    &["libc6", "libgcc-s1", "libunwind8", "libgnutls30t64", "libfreetype6", "libfontconfig1"];
/// Where packages come from.
#[derive(Debug, Clone)]
pub enum PackageSource {
    /// The mirror that the host's own package sources name.
    HostsMirror,
    /// A directory of `.deb` files, complete; in `source` below it Wine's source package and a compiler's `.deb` files.
    /// [`download`](super::download) makes such a one.
    Directory(PathBuf),
}

/// Why the packages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The host's package sources name no distribution mirror.
    #[error(
        "the host's apt sources name no mirror that carries a main component; \
         give a directory of packages instead (--packages)"
    )]
    NoMirror,
    /// The directory given holds no packages.
    #[error("{0}: no .deb files in this directory")]
    Empty(PathBuf),
    /// A directory for Wine's source that does not hold it.
    #[error(
        "{0}: this directory must hold Wine's source package (its .dsc and two .tar.xz files) and the .deb files of a \
         compiler"
    )]
    NoSource(PathBuf),
    /// The mirror's index names no such source, or no compiler.
    #[error("the mirror has no source package of Wine {0} or no compiler")]
    NotInIndex(String),
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Input/output.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> PackageError {
    let doing = doing.into();
    move |source| PackageError::Io { doing, source }
}

/// The `.deb` files for a base, sorted by file name. `work` is a directory that is this call's own; packages
/// already there from an earlier call are not fetched again.
pub(super) fn obtain(
    source: &PackageSource,
    with_32_bit: bool,
    work: &Path,
) -> Result<Vec<PathBuf>, PackageError> {
    let directory = match source {
        PackageSource::Directory(directory) => directory.clone(),
        PackageSource::HostsMirror => fetch(with_32_bit, work)?,
    };
    let packages = files(&directory, &["deb"])?;
    if packages.is_empty() { Err(PackageError::Empty(directory)) } else { Ok(packages) }
}

/// `version` of the package `name` among `packages`, from the file names (`name_version_arch.deb`).
pub(super) fn version(packages: &[PathBuf], name: &str) -> Option<String> {
    packages.iter().find_map(|path| {
        let file = path.file_name()?.to_str()?;
        let version = file.strip_prefix(name)?.strip_prefix('_')?.split('_').next()?;
        Some(version.replace("%3a", ":"))
    })
}

/// Calls `take` with the path (relative, no leading `./`), the entry and its content for each entry of a package.
pub(super) fn each_entry(
    package: &Path,
    mut take: impl FnMut(&Path, &mut tar::Entry<'_, &mut dyn Read>) -> std::io::Result<()>,
) -> Result<(), PackageError> {
    let doing = || format!("unpacking {}", package.display());
    tools::read_from("dpkg-deb", &["--fsys-tarfile".as_ref(), package.as_os_str()], |stream| {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.components().skip_while(|c| c.as_os_str() == ".").collect::<PathBuf>();
            take(&path, &mut entry)?;
        }
        Ok(())
    })?
    .map_err(io(doing()))
}

/// The files of a directory that have one of these extensions, sorted by name.
pub(super) fn files(directory: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, PackageError> {
    let reading = || io(format!("reading {}", directory.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(reading())? {
        let path = entry.map_err(reading())?.path();
        if path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Runs `apt-get` in `directory` under the configuration that [`fetch`] has written into `apt`; returns what it wrote to
/// standard output.
pub(super) fn apt_get(apt: &Path, args: &[&str], directory: &Path) -> Result<String, ToolError> {
    let configuration = apt.join("apt.conf");
    let mut all = vec!["-c".as_ref(), configuration.as_os_str(), "-qq".as_ref()];
    all.extend(args.iter().map(std::ffi::OsStr::new));
    tools::output("apt-get", &all, directory)
}

fn fetch(with_32_bit: bool, work: &Path) -> Result<PathBuf, PackageError> {
    let apt = work.join("apt");
    let archives = apt.join("cache/archives");
    for directory in ["lists/partial", "cache/archives/partial"] {
        let directory = apt.join(directory);
        fs::create_dir_all(&directory).map_err(io(format!("creating {}", directory.display())))?;
    }
    let write = |name: &str, text: &str| {
        let path = apt.join(name);
        fs::write(&path, text).map_err(io(format!("writing {}", path.display())))
    };
    write("sources.list", &sources_list(&mirror()?))?;
    // No installed packages: the closure is that of an empty system.
    write("status", "")?;
    write("apt.conf", &apt_configuration(&apt, with_32_bit))?;

    apt_get(&apt, &["update"], &apt)?;
    let mut install = vec!["install", "--download-only", "--yes"];
    install.extend(LIBRARIES);
    apt_get(&apt, &install, &apt)?;
    let mut download = vec!["download"];
    download.extend(WINE);
    if with_32_bit {
        download.extend(WINE_32);
    }
    apt_get(&apt, &download, &archives)?;
    Ok(archives)
}

/// The mirror's address: the host's own release from its own sources.
fn mirror() -> Result<String, PackageError> {
    let format = "$(REPO_URI)|$(COMPONENT)|$(ORIGIN)|$(RELEASE)";
    let text = tools::output(
        "apt-get",
        &["indextargets".as_ref(), "--format".as_ref(), format.as_ref(), "Created-By: Packages".as_ref()],
        Path::new("/"),
    )?;
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    choose_mirror(&text, &release).ok_or(PackageError::NoMirror)
}

fn choose_mirror(targets: &str, os_release: &str) -> Option<String> {
    let codename = os_release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="))?.trim_matches('"');
    targets.lines().find_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
        [uri, "main", _, release] if release == codename || release == SUITE => Some(uri.to_owned()),
        _ => None,
    })
}

fn sources_list(mirror: &str) -> String {
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let signed_by = if Path::new(keys).exists() { format!("[signed-by={keys}] ") } else { String::new() };
    format!("deb {signed_by}{mirror} {SUITE} main\ndeb-src {signed_by}{mirror} {SUITE} main\n")
}

fn apt_configuration(apt: &Path, with_32_bit: bool) -> String {
    let apt = apt.display();
    let foreign = if with_32_bit { " \"i386\";" } else { "" };
    format!(
        "Dir::Etc::sourcelist \"{apt}/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::State \"{apt}\";\n\
         Dir::State::lists \"{apt}/lists\";\n\
         Dir::State::status \"{apt}/status\";\n\
         Dir::Cache \"{apt}/cache\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\";{foreign} }};\n\
         APT::Install-Recommends \"false\";\n\
         APT::Sandbox::User \"root\";\n\
         APT::Keep-Downloaded-Packages \"true\";\n\
         Binary::apt::APT::Keep-Downloaded-Packages \"true\";\n\
         DPkg::Post-Invoke {{}};\n\
         APT::Update::Post-Invoke {{}};\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_hosts_own_release() {
        let targets = "http://a.test/security/|main|Debian|bookworm-security\n\
                       http://a.test/debian/|contrib|Debian|bookworm\nhttp://a.test/debian/|main|Debian|bookworm\n";
        let release = "NAME=x\nVERSION_CODENAME=bookworm\n";
        assert_eq!(choose_mirror(targets, release).as_deref(), Some("http://a.test/debian/"));
        assert_eq!(choose_mirror("", release), None);
    }

    #[test]
    fn versions_come_from_file_names() {
        let packages =
            [PathBuf::from("/x/libwine_10.0~repack-6_amd64.deb"), PathBuf::from("/x/p_7%3a7.1_all.deb")];
        assert_eq!(version(&packages, "libwine").as_deref(), Some("10.0~repack-6"));
        assert_eq!(version(&packages, "p").as_deref(), Some("7:7.1"));
        assert_eq!(version(&packages, "wine"), None);
    }
}
