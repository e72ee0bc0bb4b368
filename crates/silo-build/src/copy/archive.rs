//! `ADD` of an archive: unpacked aside, then copied as any tree is.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, Mode, OFlags};
use silo_image::layer::{self, ExtractOptions};

use super::nodes::{Content, Maker, Piece, attributes};
use super::request::{CopyError, Doing, Request};
use super::tree::Tree;

/// Whether a file is a tar, compressed or not, by what is in it.
pub(super) fn is_archive(path: &Path) -> Result<bool, CopyError> {
    let file = std::fs::File::open(path).map_err(CopyError::io(format!("opening {}", path.display())))?;
    let Ok(plain) = layer::decompress(Box::new(file)) else { return Ok(false) };
    let mut block = [0; 512];
    // What only looks compressed is no archive.
    if plain.take(512).read_exact(&mut block).is_err() {
        return Ok(false);
    }
    Ok(layer::is_tar_header(&block))
}

/// Unpacks an archive into `at`, which is made, and gives what is in it, for the directory that it is unpacked into.
/// Owners, modes and times are the archive's; `chown`: of all.
pub(super) fn unpacked(
    path: &Path,
    at: &Path,
    chown: Option<(u32, u32)>,
    request: &Request,
) -> Result<Piece, CopyError> {
    let windows = request.form.windows;
    let doing = || format!("unpacking {}", path.display());
    std::fs::create_dir(at).doing(doing)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(at, flags, Mode::empty()).doing(doing)?;
    let file = std::fs::File::open(path).doing(doing)?;
    let mut plain = layer::decompress(Box::new(file)).doing(doing)?;
    let mut named = HashSet::new();
    let mut places = |name: &[u8]| -> Result<Option<PathBuf>, String> {
        let mut inside = PathBuf::new();
        for part in Path::new(OsStr::from_bytes(name)).components() {
            match part {
                Component::Normal(name) => inside.push(name),
                Component::ParentDir if !inside.pop() => return Err("it leads out".to_owned()),
                _ => {}
            }
        }
        named.insert(inside.clone());
        Ok(Some(Path::new("/").join(&inside)).filter(|_| !inside.as_os_str().is_empty()))
    };
    let limits = Some(request.limits.clone());
    let options = ExtractOptions { keep_owner: true, owner: chown, limits, ..ExtractOptions::default() };
    layer::extract(root.as_fd(), Path::new("/"), &mut plain, &options, Some(&mut places))
        .map_err(|e| CopyError::Refused(format!("unpacking {}: {e}", shown(path))))?;
    let maker = Maker { windows, chown: None, chmod: None, exclude: None, keep_owners: true };
    let tree = Tree::context(at);
    let mut nodes = Vec::new();
    if let Some(seen) = tree.resolve(Path::new("/")).doing(doing)?.seen {
        maker.walk(&tree, &seen, Path::new(""), 0, &mut nodes)?;
    }
    for node in &mut nodes {
        node.xattrs = attributes(&node.from, windows).doing(doing)?;
        node.implied = matches!(node.content, Content::Directory) && !named.contains(&node.path);
    }
    Ok(Piece { name: None, nodes, archive: None })
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
