//! Where the programs that run inside containers lie on the host.

use std::path::PathBuf;

/// The path of an inside program: beside the executable in `inside/` (an installation), in `../inside/` (a build tree's
/// `target/inside`), or in `../lib/silo/`. `None`: not installed.
pub fn program(name: &str) -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    let dir = executable.parent()?;
    [dir.join("inside"), dir.join("../inside"), dir.join("../lib/silo")]
        .into_iter()
        .map(|d| d.join(name))
        .find(|p| p.is_file())
        .and_then(|p| p.canonicalize().ok())
}
