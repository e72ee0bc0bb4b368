//! Block devices: the disk that a file lies on, and files as disks (loop devices that go with their last user).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

// linux/loop.h
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// What other programs take in between is tried again with another number so often.
const TRIES: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A file that is a block device as long as this or a mount of it is there.
#[derive(Debug)]
pub struct Loop {
    path: PathBuf,
    _open: File,
}

impl Loop {
    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The loop device of a file: the one that it is already, so that no two file systems of one content are mounted, or a
    /// free one. The device lets go of the file when nobody has it open or mounted any more.
    pub fn of(file: &File) -> io::Result<Self> {
        // Two who come at once find the same device.
        rustix::fs::flock(file, FlockOperation::LockExclusive)?;
        let found = Self::found_or_made(file);
        rustix::fs::flock(file, FlockOperation::Unlock)?;
        found
    }

    fn found_or_made(file: &File) -> io::Result<Self> {
        let wanted = file.metadata()?;
        for entry in std::fs::read_dir("/sys/block")?.flatten() {
            let name = entry.file_name();
            if !entry.path().join("loop/backing_file").exists() {
                continue;
            }
            let path = Path::new("/dev").join(name);
            // Of one that is gone by now, somebody else's.
            let Ok(open) = File::options().read(true).write(true).open(&path) else { continue };
            // SAFETY: all-zero is a valid value of this plain structure.
            let mut info: LoopInfo = unsafe { std::mem::zeroed() };
            // SAFETY: the structure lives through the call and has the size that the kernel writes.
            let told = unsafe { libc::ioctl(open.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
            if told == 0 && (info.device, info.inode, info.offset) == (wanted.dev(), wanted.ino(), 0) {
                return Ok(Self { path, _open: open });
            }
        }
        let control = File::options().read(true).write(true).open("/dev/loop-control").map_err(|e| {
            io::Error::new(e.kind(), format!("/dev/loop-control: {e}: this host has no loop devices"))
        })?;
        for _ in 0..TRIES {
            // SAFETY: no memory is involved.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let open = File::options().read(true).write(true).open(&path)?;
            match configure(&open, file) {
                Ok(()) => return Ok(Self { path, _open: open }),
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "other programs take every free loop device"))
    }
}

fn configure(device: impl AsFd, file: impl AsFd) -> io::Result<()> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = file.as_fd().as_raw_fd() as u32;
    config.block_size = 4096;
    // The file's pages are not kept twice; where its file system cannot do that, the kernel takes the flag away.
    config.info.flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    // SAFETY: structure and descriptors live through the call.
    let done = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Major and minor number of the whole disk that a path's file system is on: limits are kept for disks, not for partitions.
/// `None`: it is on no block device (memory, network, a file system of several devices).
pub fn disk_of(path: &Path) -> io::Result<Option<(u32, u32)>> {
    let device = std::fs::metadata(path)?.dev();
    Ok(whole((rustix::fs::major(device), rustix::fs::minor(device))))
}

/// The disk of a partition; a whole disk is its own.
fn whole((major, minor): (u32, u32)) -> Option<(u32, u32)> {
    let own = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    if !own.exists() {
        return None;
    }
    if !own.join("partition").exists() {
        return Some((major, minor));
    }
    let of = std::fs::read_to_string(own.canonicalize().ok()?.parent()?.join("dev")).ok()?;
    let (major, minor) = of.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Major and minor number of a block device file.
pub fn device_numbers(path: &Path) -> io::Result<(u32, u32)> {
    use std::os::unix::fs::FileTypeExt;
    let found = std::fs::metadata(path)?;
    if !found.file_type().is_block_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a block device"));
    }
    Ok((rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_device_and_no_device_afterwards() {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let first = Loop::of(&file).unwrap();
        let second = Loop::of(&file).unwrap();
        assert_eq!(first.path(), second.path());
        assert_eq!(device_numbers(first.path()).unwrap().0, 7);
        let name = first.path().file_name().unwrap().to_owned();
        drop((first, second));
        let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
        let still = std::fs::read_to_string(backing).unwrap_or_default();
        assert!(!still.contains(path.to_str().unwrap()), "{still}");
    }

    #[test]
    fn the_disk_of_a_file_is_a_whole_one() {
        if let Some((major, minor)) = disk_of(Path::new("/")).unwrap() {
            assert!(!Path::new(&format!("/sys/dev/block/{major}:{minor}/partition")).exists());
        }
        assert_eq!(disk_of(Path::new("/proc")).unwrap(), None);
        assert!(device_numbers(Path::new("/dev/null")).is_err());
    }
}
