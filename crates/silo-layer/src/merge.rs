//! What a chain of unpacked layers shows at a path, whiteouts and opaque directories respected.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType};
use rustix::io::Errno;

use crate::whiteout;

/// One visible node of a chain.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Itself, not what it leads to.
    pub stat: fs::Stat,
    /// Where it is; of a directory, all the directories that make it up, uppermost first.
    pub paths: Vec<PathBuf>,
}

impl Seen {
    /// Its type.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// The uppermost of the paths.
    pub fn path(&self) -> &Path {
        self.paths.first().map_or(Path::new(""), PathBuf::as_path)
    }
}

/// The node `name` in the merged directory `dirs` (uppermost first).
pub fn lookup(dirs: &[PathBuf], name: &OsStr) -> io::Result<Option<Seen>> {
    let mut seen: Option<Seen> = None;
    for dir in dirs {
        let path = dir.join(name);
        let stat = match fs::lstat(&path) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other?,
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match &mut seen {
            _ if whiteout::is_whiteout(&stat) => break,
            None if !is_dir => return Ok(Some(Seen { stat, paths: vec![path] })),
            Some(_) if !is_dir => break,
            found => {
                let end = whiteout::is_opaque(&path);
                found.get_or_insert_with(|| Seen { stat, paths: Vec::new() }).paths.push(path);
                if end {
                    break;
                }
            }
        }
    }
    Ok(seen)
}

/// The names in the merged directory `dirs`, sorted.
pub fn names(dirs: &[PathBuf]) -> io::Result<BTreeSet<OsString>> {
    let (mut names, mut gone) = (BTreeSet::new(), HashSet::new());
    for dir in dirs {
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name();
            if names.contains(&name) || gone.contains(&name) {
                continue;
            }
            if whiteout::is_whiteout(&fs::lstat(dir.join(&name))?) {
                gone.insert(name);
            } else {
                names.insert(name);
            }
        }
    }
    Ok(names)
}
