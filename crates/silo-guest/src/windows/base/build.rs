//! Builds a base's directory tree: packages, selection, set-up, identity, layout.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use silo_hive::Hive;

use super::family::Family;
use super::packages::{self, PackageError, PackageSource};
use super::registry::Registry;
use super::tools::ToolError;
use super::unpack::{Image, Unpacked, unpack};
use super::{identity, own_files, prune, setup, sources, stack, user_name, wine};
use crate::windows::paths::HOSTS;
use crate::windows::registry::hives::{Hives, PLACES, Place, of_user};
use crate::windows::registry::{RegistryError, text};

/// Programs of `inside/windows`: name in the inside directory, place in the tree.
const INSIDE: &[(&str, &str)] = &[
    ("silo-init", "Host/silo-init"),
    ("silo-limits.so", "Host/usr/lib/silo/limits.so"),
    ("silo-boot.exe", "Files/Windows/System32/wineboot.exe"),
    ("CExecSvc.exe", "Files/Windows/System32/CExecSvc.exe"),
    ("ipconfig.exe", "Files/Windows/System32/ipconfig.exe"),
    ("nslookup.exe", "Files/Windows/System32/nslookup.exe"),
    ("sc.exe", "Files/Windows/System32/sc.exe"),
    ("setx.exe", "Files/Windows/System32/setx.exe"),
    ("systeminfo.exe", "Files/Windows/System32/systeminfo.exe"),
];
const WINE: &str = "usr/lib/x86_64-linux-gnu/wine";
/// Mount points and other directories of the Linux root.
const HOST_DIRECTORIES: &[&str] = &["c", "prefix", "proc", "sys", "dev", "tmp", "run", "etc/fonts"];
/// Small files of the Linux root. No font directory: nothing is drawn; the file must exist, or fontconfig complains
/// on the program's standard error.
const HOST_FILES: &[(&str, &str)] = &[
    ("etc/passwd", "ContainerAdministrator:x:0:0::/prefix:/\n"),
    ("etc/group", "Administrators:x:0:\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
    ("etc/hostname", ""),
    ("etc/resolv.conf", ""),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
    (
        "etc/fonts/fonts.conf",
        "<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n<fontconfig><cachedir>/tmp</cachedir></fontconfig>\n",
    ),
];
/// Directories that each Windows has.
const WINDOWS_DIRECTORIES: &[&str] = &[
    "Program Files",
    "ProgramData",
    "Users/ContainerAdministrator/AppData/Local/Temp",
    "Users/ContainerAdministrator/AppData/Roaming",
    "Users/ContainerUser/AppData/Local/Temp",
    "Users/ContainerUser/AppData/Roaming",
    "Users/Default",
    "Users/Public/Documents",
    "Windows/Temp",
    "Windows/System32/config/systemprofile",
    "Windows/System32/drivers/etc",
];

/// What to build, from what, where.
#[derive(Debug, Clone)]
pub struct BaseOptions {
    /// Which base.
    pub family: Family,
    /// Where the packages come from.
    pub packages: PackageSource,
    /// Directory with the built programs of `inside/windows`: as `INSIDE` in `build.rs` lists them.
    pub inside: PathBuf,
    /// Directory for downloads and the tree; fetched packages stay in it, the tree is made anew.
    pub work: PathBuf,
}

/// A built base on disk.
#[derive(Debug)]
pub struct BuiltBase {
    /// Which.
    pub family: Family,
    /// Directory with `Files` and `Host`.
    pub tree: PathBuf,
    /// Wine's package version, such as `10.0~repack-6`.
    pub wine: String,
    /// Wine's server and ntdll are this house's, compiled from that version's source.
    pub patched: bool,
    /// The base's date, seconds since 1970: that of the Wine packages.
    pub date: u64,
}

/// Why a base could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Packages.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Compiling Wine's Linux side.
    #[error(transparent)]
    Wine(#[from] wine::WineError),
    /// The packages are not complete.
    #[error(transparent)]
    Missing(#[from] prune::MissingFile),
    /// The package set has no Wine, or another layout.
    #[error("the packages bring no {0}; they must be those of Wine 10 with wine64 and libwine")]
    NoWine(&'static str),
    /// Wine's own set-up failed.
    #[error("setting up the registry: {0}")]
    Setup(#[source] ToolError),
    /// Wine's set-up ended without a result.
    #[error("Wine's set-up left no {0}")]
    NoRegistry(&'static str),
    /// The registry that set-up made.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Input/output.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BaseError {
    let doing = format!("{doing} {}", path.display());
    move |source| BaseError::Io { doing, source }
}

/// Builds a base. `progress` hears one line for each stage.
pub fn build(options: &BaseOptions, progress: &mut dyn FnMut(&str)) -> Result<BuiltBase, BaseError> {
    let family = options.family;
    let with_32_bit = family == Family::ServerCore;
    fs::create_dir_all(&options.work).map_err(at("creating", &options.work))?;
    progress("obtaining packages");
    let packages = packages::obtain(&options.packages, with_32_bit, &options.work)?;
    let version = packages::version(&packages, "libwine").ok_or(BaseError::NoWine("libwine"))?;

    progress(&format!("unpacking Wine {version}"));
    let work = options.work.join(family.as_str());
    remove_tree(&work)?;
    let mut unpacked = unpack(&packages, &work.join("packages"))?;
    if unpacked.date == 0 {
        return Err(BaseError::NoWine("usr/lib/wine/wine64"));
    }
    let sources = sources::find(&options.packages, &version, &options.work)?;
    if let Some(sources) = &sources {
        let built = wine::build(sources, &options.work, progress)?;
        unpacked.replace(&built).map_err(at("taking", &built.server))?;
    } else {
        progress(
            "no source beside the packages: Wine's server is the packaged one (no registry flush, no file locks with status)",
        );
    }
    let patched = sources.is_some();

    progress("selecting files");
    let images = match family {
        Family::NanoServer => {
            let needs = unpacked.images.iter().map(|(name, image)| (name.clone(), image.needs.clone()));
            prune::console_closure(&needs.collect())?
        }
        Family::ServerCore => unpacked.images.keys().cloned().collect(),
    };
    let tree = work.join("tree");
    let host = tree.join("Host");
    lay_host(&unpacked, &host)?;
    let c = host.join("c");
    for directory in WINDOWS_DIRECTORIES {
        let directory = c.join(directory);
        fs::create_dir_all(&directory).map_err(at("creating", &directory))?;
    }
    let hosts = c.join(HOSTS);
    fs::write(&hosts, "").map_err(at("writing", &hosts))?;
    for name in &images {
        place_for_setup(&unpacked, &unpacked.images[name], name, &host, ["x86_64-windows", "System32"])?;
    }
    for (name, image) in unpacked.images_32.iter().filter(|_| with_32_bit) {
        place_for_setup(&unpacked, image, name, &host, ["i386-windows", "SysWOW64"])?;
    }

    progress("setting up the registry");
    let files = tree.join("Files");
    fs::create_dir_all(host.join("prefix/dosdevices")).map_err(at("creating", &host))?;
    symlink("/c", host.join("prefix/dosdevices/c:")).map_err(at("linking in", &host))?;
    setup::run(&host).map_err(BaseError::Setup)?;
    move_file(&host.join("c"), &files)?;
    move_file(&host.join("prefix"), &work.join("prefix"))?;

    progress("arranging the tree");
    for directory in ["c", "prefix"] {
        let directory = host.join(directory);
        fs::create_dir(&directory).map_err(at("creating", &directory))?;
    }
    place_images(&host, &files, &images, with_32_bit)?;
    let ntdll = files.join("Windows/System32/ntdll.dll");
    let mut bytes = fs::read(&ntdll).map_err(at("reading", &ntdll))?;
    if stack::clear_less(&mut bytes) {
        fs::write(&ntdll, bytes).map_err(at("writing", &ntdll))?;
    } else {
        progress("ntdll.dll clears stacks in another way than Wine 10's: each thread takes 1 MB more");
    }
    if patched {
        hide_user_name(&files, with_32_bit, progress)?;
    }
    share_tables(&host, &files)?;
    if family == Family::NanoServer {
        keep_console_files(&files, &images)?;
    }
    for (name, place) in INSIDE {
        let (from, to) = (options.inside.join(name), tree.join(place));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(at("creating", parent))?;
        }
        fs::copy(&from, &to).map_err(at("copying", &from))?;
        let mode = if place.ends_with("init") { 0o755 } else { 0o644 };
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))
            .map_err(at("changing the mode of", &to))?;
    }
    let inside: Vec<&str> = INSIDE.iter().filter_map(|(_, place)| place.strip_prefix("Files/")).collect();
    let list = own_files::list(&files, &inside).map_err(at("looking through", &files))?;
    let to = tree.join(own_files::PLACE);
    fs::create_dir_all(to.parent().unwrap_or(&tree)).map_err(at("creating", &to))?;
    fs::write(&to, list).map_err(at("writing", &to))?;
    write_registry(&work.join("prefix"), &tree, family, unpacked.date)?;
    for scratch in ["packages", "prefix"] {
        remove_tree(&work.join(scratch))?;
    }
    Ok(BuiltBase { family, tree, wine: version, patched, date: unpacked.date })
}

/// See [`user_name`].
fn hide_user_name(files: &Path, with_32_bit: bool, progress: &mut dyn FnMut(&str)) -> Result<(), BaseError> {
    for directory in &["System32", "SysWOW64"][..1 + usize::from(with_32_bit)] {
        for library in user_name::READERS {
            let path = files.join("Windows").join(directory).join(library);
            let mut bytes = fs::read(&path).map_err(at("reading", &path))?;
            if user_name::rename(&mut bytes) {
                fs::write(&path, bytes).map_err(at("writing", &path))?;
            } else {
                progress(&format!(
                    "{directory}/{library} finds the user's name in another way than Wine 10's"
                ));
            }
        }
    }
    Ok(())
}

/// Wine's own images into its own directory, others into `C:`.
fn place_for_setup(
    unpacked: &Unpacked,
    image: &Image,
    name: &str,
    host: &Path,
    [own, windows]: [&str; 2],
) -> Result<(), BaseError> {
    let place = if image.builtin { host.join(WINE).join(own) } else { host.join("c/Windows").join(windows) };
    move_file(&unpacked.root.join(&image.path), &place.join(name))
}

/// The Linux root: loader, libraries, tables, mount points, small files.
fn lay_host(unpacked: &Unpacked, host: &Path) -> Result<(), BaseError> {
    for path in unpacked.linux_side()? {
        move_file(&unpacked.root.join(&path), &host.join(&path))?;
    }
    for path in ["usr/lib/wine/wine64", "usr/lib/wine/wineserver64", "usr/share/wine", "usr/share/doc"] {
        move_file(&unpacked.root.join(path), &host.join(path))?;
    }
    // A mount point for each drive that a container may be given.
    let drives = ('d'..='z').map(|drive| format!("mnt/{drive}"));
    for directory in HOST_DIRECTORIES.iter().map(|d| (*d).to_owned()).chain(drives) {
        let directory = host.join(directory);
        fs::create_dir_all(&directory).map_err(at("creating", &directory))?;
    }
    for (path, content) in HOST_FILES {
        let path = host.join(path);
        fs::write(&path, content).map_err(at("writing", &path))?;
    }
    // Every x86-64 program names its interpreter as /lib64/….
    let links = [("usr/lib", "lib"), ("usr/lib64", "lib64")];
    fs::create_dir_all(host.join("usr/lib64")).map_err(at("creating", host))?;
    symlink("../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", host.join("usr/lib64/ld-linux-x86-64.so.2"))
        .map_err(at("linking in", host))?;
    for (target, link) in links {
        symlink(target, host.join(link)).map_err(at("linking in", host))?;
    }
    Ok(())
}

/// One copy of each image: it lies in `C:`, and the directory in which Wine looks for its own files becomes one of
/// links into `C:`. (A single link to `System32` would not do: the look-up is flat and drivers lie in `drivers`.)
fn place_images(
    host: &Path,
    files: &Path,
    images: &BTreeSet<String>,
    with_32_bit: bool,
) -> Result<(), BaseError> {
    let system = files.join("Windows/System32");
    let wanted = [("x86_64-windows", system.clone()), ("i386-windows", files.join("Windows/SysWOW64"))];
    for (directory, home) in &wanted[..1 + usize::from(with_32_bit)] {
        let directory = host.join(WINE).join(directory);
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&directory).map_err(at("reading", &directory))? {
            let entry = entry.map_err(at("reading", &directory))?;
            names.extend(entry.file_name().to_str().map(str::to_owned));
        }
        fs::create_dir_all(home).map_err(at("creating", home))?;
        let places = places(files, home)?;
        for name in names {
            let builtin = directory.join(&name);
            let drivers = name.ends_with(".sys") && images.contains(&name);
            let default = if drivers { home.join("drivers").join(&name) } else { home.join(&name) };
            let place = places.get(&name).unwrap_or(&default);
            // Set-up may have written a placeholder or a copy; the packages' own file is what counts.
            move_file(&builtin, place)?;
            let inside = place.strip_prefix(files).unwrap_or(place);
            symlink(Path::new("/c").join(inside), &builtin).map_err(at("linking", &builtin))?;
        }
    }
    Ok(())
}

/// Where set-up put images of `home`'s word size: lower-case file name → path, `home` itself first.
fn places(files: &Path, home: &Path) -> Result<BTreeMap<String, PathBuf>, BaseError> {
    let mut places = BTreeMap::new();
    let mut roots = vec![home.join("drivers"), home.to_owned()];
    if home.ends_with("System32") {
        roots.insert(0, files.join("Windows"));
    }
    for root in roots {
        let Ok(entries) = fs::read_dir(&root) else { continue };
        for entry in entries {
            let path = entry.map_err(at("reading", &root))?.path();
            if let (true, Some(name)) = (path.is_file(), path.file_name().and_then(|n| n.to_str())) {
                places.insert(name.to_ascii_lowercase(), path);
            }
        }
    }
    Ok(places)
}

/// Wine's Linux side reads the same code page and collation tables that Windows programs find in `C:`.
fn share_tables(host: &Path, files: &Path) -> Result<(), BaseError> {
    let directory = host.join("usr/share/wine/nls");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).map_err(at("reading", &directory))? {
        names.push(entry.map_err(at("reading", &directory))?.file_name());
    }
    for name in names {
        let table = directory.join(&name);
        let home =
            if name == "sortdefault.nls" { "Windows/Globalization/Sorting" } else { "Windows/System32" };
        let home = existing_spelling(files, home);
        fs::create_dir_all(files.join(&home)).map_err(at("creating", files))?;
        move_file(&table, &files.join(&home).join(&name))?;
        symlink(Path::new("/c").join(&home).join(&name), &table).map_err(at("linking", &table))?;
    }
    Ok(())
}

/// `path` below `root` in the spelling that its components have there already.
fn existing_spelling(root: &Path, path: &str) -> PathBuf {
    let mut found = PathBuf::new();
    for part in path.split('/') {
        let same = fs::read_dir(root.join(&found)).ok().and_then(|entries| {
            entries.flatten().map(|e| e.file_name()).find(|name| name.eq_ignore_ascii_case(part))
        });
        found.push(same.unwrap_or_else(|| part.into()));
    }
    found
}

/// Removes what set-up made for a desktop: other images, side-by-side assemblies, program folders.
fn keep_console_files(files: &Path, images: &BTreeSet<String>) -> Result<(), BaseError> {
    let keep = |name: &str| {
        let lower = name.to_ascii_lowercase();
        let is_image = [".exe", ".dll", ".sys", ".drv", ".ocx", ".cpl", ".acm", ".ax", ".ds", ".tlb"]
            .iter()
            .any(|suffix| lower.ends_with(suffix));
        !is_image || images.contains(&lower)
    };
    let mut queue = vec![files.to_owned()];
    while let Some(directory) = queue.pop() {
        for entry in fs::read_dir(&directory).map_err(at("reading", &directory))? {
            let path = entry.map_err(at("reading", &directory))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() {
                queue.push(path);
            } else if !keep(name) {
                fs::remove_file(&path).map_err(at("removing", &path))?;
            }
        }
    }
    for directory in ["winsxs", "inf", "twain_64", "resources", "help", "performance", "Fonts"] {
        remove_tree(
            &files
                .join(existing_spelling(files, "Windows"))
                .join(existing_spelling(&files.join("Windows"), directory)),
        )?;
    }
    for directory in ["Internet Explorer", "Windows Media Player", "Windows NT", "Common Files"] {
        remove_tree(&files.join("Program Files").join(directory))?;
    }
    Ok(())
}

/// The registry that set-up made, with the base's identity and one time, as the hives that Windows has.
fn write_registry(prefix: &Path, tree: &Path, family: Family, date: u64) -> Result<(), BaseError> {
    let files = tree.join("Files");
    let system = files.join("Windows");
    let exists = |name: &str| {
        ["System32", "System32/drivers", "SysWOW64", "System32/wbem", "."].iter().any(|directory| {
            system.join(directory).join(name).exists()
                || system.join(directory).join(name.to_uppercase()).exists()
        }) || name == "cexecsvc.exe"
    };
    let read = |file: &'static str| -> Result<Registry, BaseError> {
        let from = prefix.join(file);
        let bytes = match fs::read(&from) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BaseError::NoRegistry(file)),
            Err(error) => return Err(at("reading", &from)(error)),
        };
        let root = text::read(&bytes).map_err(|source| RegistryError::Text { path: from, source })?;
        Ok(Registry::new(root))
    };
    let (mut machine, mut user) = (read("system.reg")?, read("user.reg")?);
    identity::apply(&mut machine, family, &exists);
    identity::apply_to_user(&mut user);
    let hives = Hives::of_trees(machine.into_key(date), read("userdef.reg")?.into_key(date));
    let mut new_profiles = Hive::default();
    let name = std::mem::replace(&mut new_profiles.root, user.into_key(date)).name;
    new_profiles.root.name = name;
    let named = PLACES.iter().map(Place::path).zip(&hives.0);
    for (path, hive) in named.chain([(of_user("Users/Default"), &new_profiles)]) {
        let to = files.join(existing_spelling(&files, &path));
        let bytes = hive.to_bytes().map_err(|source| RegistryError::Hive { path: to.clone(), source })?;
        fs::write(&to, bytes).map_err(at("writing", &to))?;
    }
    Ok(())
}

fn move_file(from: &Path, to: &Path) -> Result<(), BaseError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(at("creating", parent))?;
    }
    fs::rename(from, to).map_err(at("moving", from))
}

fn remove_tree(path: &Path) -> Result<(), BaseError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("removing", path)(error)),
        _ => Ok(()),
    }
}
