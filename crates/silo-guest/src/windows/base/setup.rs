//! Lets Wine make its own registry and Windows tree, once, in namespaces of its own on the unpacked files.
//!
//! The packages' own set-up (`wineboot --init` over `wine.inf`) knows what each version needs; what comes out
//! depends on nothing of the host: no network, no home, no environment, a host name of its own.

use std::path::Path;

use super::tools::{self, ToolError};

/// Mounts what Wine needs below `$1` and runs its set-up there; the server then writes the registry and ends.
const SCRIPT: &str = r#"
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
ip link set lo up 2>/dev/null || true
hostname base
run() {
  env -i LC_ALL=C.UTF-8 HOME=/tmp USER=ContainerAdministrator WINEPREFIX=/prefix WINEDEBUG=-all \
    WINESERVER=/usr/lib/wine/wineserver64 TZ=UTC /usr/sbin/chroot "$root" "$@" </dev/null >/dev/null 2>&1
}
run /usr/lib/wine/wine64 'C:\windows\system32\wineboot.exe' --init
run /usr/lib/wine/wineserver64 -k15
run /usr/lib/wine/wineserver64 -w
"#;

/// Makes `root/prefix/*.reg` and fills `root/c`. `root` holds Wine's Linux side with its image directory, and the
/// mount points `c`, `prefix`, `proc`, `sys`, `tmp`, `run`, `dev`.
pub(super) fn run(root: &Path) -> Result<(), ToolError> {
    let arguments = [
        "--kill-after=5",
        "300",
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
        SCRIPT,
        "base",
    ];
    let mut all: Vec<&std::ffi::OsStr> = arguments.iter().map(std::ffi::OsStr::new).collect();
    all.push(root.as_os_str());
    tools::run("timeout", &all, Path::new("/"))
}
