//! Takes from packages what a base can use: Wine's two sides (images shrunk on the way), libraries, tables.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::packages::{self, PackageError};
use super::pe::{self, Pe};
use super::{elf, prune, wine};

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const UNIX_HALVES: &str = "usr/lib/x86_64-linux-gnu/wine/x86_64-unix";
const IMAGES_64: &str = "usr/lib/x86_64-linux-gnu/wine/x86_64-windows";
const IMAGES_32: &str = "usr/lib/i386-linux-gnu/wine/i386-windows";
/// Not Wine's own, but imported by its user32.
const MINGW_LIBRARIES: [(&str, Bits); 2] =
    [("usr/x86_64-w64-mingw32/lib", Bits::SixtyFour), ("usr/i686-w64-mingw32/lib", Bits::ThirtyTwo)];
const TABLES: &str = "usr/share/wine";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    SixtyFour,
    ThirtyTwo,
}

/// What was found in the packages; file contents lie under `root`, at their paths in the packages.
pub(super) struct Unpacked {
    /// Directory with the taken files.
    pub(super) root: PathBuf,
    /// 64-bit images by lower-case name.
    pub(super) images: BTreeMap<String, Image>,
    /// 32-bit images by lower-case name.
    pub(super) images_32: BTreeMap<String, Image>,
    /// Shared libraries and Wine's Linux halves by file name: path under `root`, link target or needed names.
    pub(super) libraries: BTreeMap<String, (PathBuf, Vec<String>)>,
    /// Modification time of the Wine loader: the base's own date.
    pub(super) date: u64,
}

/// A file of Wine's Windows side.
pub(super) struct Image {
    /// Path under [`Unpacked::root`].
    pub(super) path: PathBuf,
    /// Lower-case names of the images that it loads.
    pub(super) needs: Vec<String>,
    /// Made by Wine's build, so that Wine finds it in its own directory.
    pub(super) builtin: bool,
}

/// Unpacks the useful part of `packages` into `root`.
pub(super) fn unpack(packages: &[PathBuf], root: &Path) -> Result<Unpacked, PackageError> {
    let mut unpacked = Unpacked {
        root: root.to_owned(),
        images: BTreeMap::new(),
        images_32: BTreeMap::new(),
        libraries: BTreeMap::new(),
        date: 0,
    };
    for package in packages {
        packages::each_entry(package, |path, entry| unpacked.take(path, entry))?;
    }
    Ok(unpacked)
}

impl Unpacked {
    fn take(&mut self, path: &Path, entry: &mut tar::Entry<'_, &mut dyn Read>) -> std::io::Result<()> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
            return Ok(());
        };
        let kind = entry.header().entry_type();
        if kind.is_symlink() {
            // A soname's link: as a library that needs its target.
            let target = entry.link_name()?.and_then(|t| Some(t.to_str()?.to_owned()));
            if let Some(target) = target.filter(|t| directory == Path::new(LIBRARIES) && !t.contains('/')) {
                fs::create_dir_all(self.root.join(directory))?;
                symlink(&target, self.root.join(path))?;
                self.libraries.insert(name.to_owned(), (path.to_owned(), vec![target]));
            }
            return Ok(());
        }
        if !kind.is_file() {
            return Ok(());
        }
        let mingw = MINGW_LIBRARIES.iter().find(|(d, _)| directory == Path::new(d) && name == "zlib1.dll");
        let bits = match directory.to_str() {
            Some(IMAGES_64) => Some(Bits::SixtyFour),
            Some(IMAGES_32) => Some(Bits::ThirtyTwo),
            _ => mingw.map(|(_, bits)| *bits),
        };
        if let Some(bits) = bits {
            return self.take_image(name, bits, entry);
        }
        let library = directory == Path::new(LIBRARIES) && name.contains(".so");
        let half = directory == Path::new(UNIX_HALVES);
        let loader = directory == Path::new("usr/lib/wine") && (name == "wine64" || name == "wineserver64");
        let table = directory.starts_with(TABLES) && (name.ends_with(".nls") || name == "wine.inf");
        let licence = directory.starts_with("usr/share/doc") && name == "copyright";
        if !(library || half || loader || table || licence) {
            return Ok(());
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        if name == "wine64" {
            self.date = entry.header().mtime()?;
        }
        if library || half {
            let needs = elf::needed(&content).unwrap_or_default();
            self.libraries.insert(name.to_owned(), (path.to_owned(), needs));
        }
        // The kernel runs the interpreter too.
        self.write(path, &content, loader || name.starts_with("ld-linux"))
    }

    fn take_image(&mut self, name: &str, bits: Bits, entry: &mut dyn Read) -> std::io::Result<()> {
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        // Type libraries and themes lie among the images and are none.
        let (content, needs) = match pe::strip(&content) {
            Ok(stripped) => {
                let needs = Pe::parse(&stripped).map(|pe| pe.needs()).unwrap_or_default();
                (stripped, needs.into_iter().collect())
            }
            Err(_) => (content, Vec::new()),
        };
        let lower = name.to_ascii_lowercase();
        let path = match bits {
            Bits::SixtyFour => Path::new(IMAGES_64).join(&lower),
            Bits::ThirtyTwo => Path::new("usr/lib/x86_64-linux-gnu/wine/i386-windows").join(&lower),
        };
        self.write(&path, &content, false)?;
        // Type libraries and the like have no mark and are found by their builtin neighbours' names all the same.
        let builtin = pe::is_builtin(&content) || needs.is_empty();
        let image = Image { path, needs, builtin };
        match bits {
            Bits::SixtyFour => self.images.insert(lower, image),
            Bits::ThirtyTwo => self.images_32.insert(lower, image),
        };
        Ok(())
    }

    fn write(&self, path: &Path, content: &[u8], executable: bool) -> std::io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mode = if executable { 0o755 } else { 0o644 };
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&path)?
            .write_all(content)
    }

    /// Puts what was compiled here in the packages' place.
    pub(super) fn replace(&mut self, built: &wine::Built) -> std::io::Result<()> {
        let content = fs::read(&built.ntdll)?;
        let path = Path::new(UNIX_HALVES).join("ntdll.so");
        let needs = elf::needed(&content).unwrap_or_default();
        self.write(&path, &content, false)?;
        self.libraries.insert("ntdll.so".to_owned(), (path, needs));
        let libraries = built.libraries.iter().map(|path| (path, Bits::SixtyFour));
        for (path, bits) in libraries.chain(built.libraries_32.iter().map(|path| (path, Bits::ThirtyTwo))) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let packaged = match bits {
                Bits::SixtyFour => &self.images,
                Bits::ThirtyTwo => &self.images_32,
            };
            if packaged.contains_key(&*name) {
                self.take_image(&name, bits, &mut fs::File::open(path)?)?;
            }
        }
        self.write(Path::new("usr/lib/wine/wineserver64"), &fs::read(&built.server)?, true)
    }

    /// Paths under `root` of the Linux side: the loader, the roots of [`prune`] and all that these need.
    pub(super) fn linux_side(&self) -> Result<Vec<PathBuf>, prune::MissingFile> {
        let needs: BTreeMap<_, _> =
            self.libraries.iter().map(|(n, (_, needs))| (n.clone(), needs.clone())).collect();
        let (halves, opened) = prune::linux_roots();
        let roots = halves.into_iter().chain(opened.iter().map(|name| name.to_string()));
        // Every program names its interpreter, not libc's file, in a header that is not a library's.
        let roots = roots.chain(["ld-linux-x86-64.so.2".to_owned()]);
        let kept = prune::closure(roots, &needs, |_| false)?;
        Ok(kept.iter().map(|name| self.libraries[name].0.clone()).collect())
    }
}
