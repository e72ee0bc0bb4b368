//! Lets Wine make its own registry and Windows tree, once, on the unpacked files.
//!
//! The packages' own set-up (`wineboot --init` over `wine.inf`) knows what each version needs.

use std::path::Path;

use super::root;
use super::tools::ToolError;

/// Runs Wine's set-up in the root; the server then writes the registry and ends.
const SCRIPT: &str = r#"
ip link set lo up 2>/dev/null || true
run() {
  env -i LC_ALL=C.UTF-8 HOME=/tmp USER=ContainerAdministrator WINEPREFIX=/prefix WINEDEBUG=-all \
    WINESERVER=/usr/lib/wine/wineserver64 TZ=UTC /usr/sbin/chroot "$root" "$@" </dev/null >/dev/null 2>&1
}
run /usr/lib/wine/wine64 'C:\windows\system32\wineboot.exe' --init
run /usr/lib/wine/wineserver64 -k15
run /usr/lib/wine/wineserver64 -w
"#;
/// Seconds.
const LIMIT: u32 = 300;

/// Makes `directory/prefix/*.reg` and fills `directory/c`. It holds Wine's Linux side with its image directory, and the
/// mount points `c`, `prefix` and [`root::MOUNT_POINTS`].
pub(super) fn run(directory: &Path) -> Result<(), ToolError> {
    root::run(directory, LIMIT, SCRIPT)
}
