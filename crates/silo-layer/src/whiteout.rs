//! The two spellings of "gone": `.wh.` names in archives, devices and attributes in overlayfs.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, FileType, Mode, XattrFlags};

/// What a whiteout's name begins with.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// Names of aufs' own book-keeping begin so.
pub(crate) const META: &[u8] = b".wh..wh.";
/// The name that hides everything below a directory.
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// The attribute that does the same in overlayfs.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// What a name in an archive says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// An ordinary name.
    Name,
    /// This name is gone.
    Gone(&'a OsStr),
    /// The directory hides what lies below.
    Opaque,
    /// Book-keeping of aufs, of no interest.
    Meta,
    /// A whiteout of no name, `.` or `..`.
    Nonsense,
}

pub(crate) fn read_name(name: &OsStr) -> Said<'_> {
    let name = name.as_bytes();
    if name == OPAQUE_NAME {
        return Said::Opaque;
    }
    if name.starts_with(META) {
        return Said::Meta;
    }
    match name.strip_prefix(PREFIX) {
        None => Said::Name,
        Some(b"" | b"." | b"..") => Said::Nonsense,
        Some(rest) => Said::Gone(OsStr::from_bytes(rest)),
    }
}

/// Is this the device that overlayfs takes as "gone"?
pub(crate) fn is_whiteout(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes the device 0/0.
pub(crate) fn make(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Does the directory (a link of `/proc/self/fd` will do) hide what lies below it?
pub(crate) fn is_opaque(dir: &Path) -> bool {
    let mut value = [0u8; 4];
    matches!(fs::getxattr(dir, OPAQUE, &mut value[..]), Ok(1) if value[0] == b'y')
}

/// Does the open directory hide what lies below it?
pub(crate) fn is_opaque_fd(dir: impl AsFd) -> bool {
    let mut value = [0u8; 4];
    matches!(fs::fgetxattr(dir, OPAQUE, &mut value[..]), Ok(1) if value[0] == b'y')
}

/// Makes a directory (a link of `/proc/self/fd` will do) hide what lies below it.
pub(crate) fn set_opaque(dir: &Path) -> rustix::io::Result<()> {
    fs::setxattr(dir, OPAQUE, b"y", XattrFlags::empty())
}
