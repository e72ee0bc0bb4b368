//! What sources are looked for in: a directory, or the layers of a chain over each other.

use std::io;
use std::path::{Component, Path, PathBuf};

use silo_image::layer::{self, Resolved};

use super::request::Form;

/// Files that are only read.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Uppermost first.
    pub(super) roots: Vec<PathBuf>,
    /// Names are Windows'.
    pub(super) windows: bool,
    /// The build's own directory: owners there mean nothing, and its files may get further names in a layer.
    pub(super) own: bool,
}

impl Tree {
    /// The context's directory, which nothing else uses or changes while the build lasts.
    pub fn context(directory: &Path) -> Self {
        Self { roots: vec![directory.to_owned()], windows: false, own: true }
    }

    /// Unpacked layers, uppermost first.
    pub fn chain(layers: &[PathBuf], form: Form) -> Self {
        Self { roots: roots(layers, form), windows: form.windows, own: false }
    }

    /// What is written as a path and no pattern, below the root.
    pub fn inside(&self, written: &str) -> Result<PathBuf, String> {
        let text = slashes(written, self.windows)?;
        Ok(Path::new(&text).components().fold(PathBuf::new(), |mut path, part| {
            match part {
                Component::Normal(name) => path.push(name),
                // Above the root is the root.
                Component::ParentDir => drop(path.pop()),
                _ => {}
            }
            path
        }))
    }

    /// Where a path leads, all links followed inside of the tree.
    pub fn resolve(&self, path: &Path) -> io::Result<Resolved> {
        layer::resolve(&self.roots, path, self.windows)
    }
}

/// A written path with `/` between its names; `windows`: without its drive, which must be that of the image's files.
pub(super) fn slashes(written: &str, windows: bool) -> Result<String, String> {
    if !windows {
        return Ok(written.to_owned());
    }
    let mut text = written.replace('\\', "/");
    if text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic() {
        if !text[..1].eq_ignore_ascii_case("c") {
            return Err(format!("{written}: only drive C: has files of an image"));
        }
        text.drain(..2);
    }
    Ok(text)
}

/// The directories of layers that hold the guest's files.
pub(super) fn roots(layers: &[PathBuf], form: Form) -> Vec<PathBuf> {
    let all =
        layers.iter().map(|layer| if form.files.is_empty() { layer.clone() } else { layer.join(form.files) });
    all.filter(|root| root.is_dir()).collect()
}
