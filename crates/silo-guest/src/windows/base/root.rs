//! Runs a script over a root directory, in namespaces of its own: what comes out depends on nothing of the host, no
//! network, no environment, a host name of its own.

use std::ffi::OsStr;
use std::path::Path;

use super::tools::{self, ToolError};

/// Mounts what programs need below `$1`.
const MOUNTS: &str = r#"
set -e
root=$1
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev"
for node in null zero full random urandom; do
  touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
hostname base
"#;
/// The mount points, which the root must have.
pub(super) const MOUNT_POINTS: [&str; 5] = ["proc", "sys", "tmp", "run", "dev"];

/// Runs `script` on the host's side with `$root` mounted as above, at most `seconds`; it enters the root by chroot.
pub(super) fn run(root: &Path, seconds: u32, script: &str) -> Result<(), ToolError> {
    let (seconds, script) = (seconds.to_string(), format!("{MOUNTS}{script}"));
    let arguments = [
        "--kill-after=5",
        &seconds,
        "unshare",
        "--mount",
        "--pid",
        "--net",
        "--uts",
        "--ipc",
        "--fork",
        "--kill-child",
        "/bin/sh",
        "-c",
        &script,
        "base",
    ];
    let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    all.push(root.as_os_str());
    tools::run("timeout", &all, Path::new("/"))
}
