//! The writable directory of a container on the host's kernel as a disk of its own: an ext4 image of the size that was asked
//! for, mounted at `top` where its files are used and nowhere else. Full is full at that size, whatever wrote to it.
//!
//! A mount is seen in the mount namespace that it was made in: the shim's while the container runs, a thread's or a
//! descriptor's otherwise. The loop device below goes with the last of them, after a crash too; two that are made at once
//! are mounts of one file system, since a file has one loop device at most.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use silo_runtime::protocol::SCRATCH_OPTION;
use silo_sys::block::Loop;
use silo_sys::mount;

use crate::contract::TopDisk;
use crate::hyperv::disks;

/// Name of the image in the container's directory.
const IMAGE: &str = "scratch.ext4";
/// A container's writable directory in its own.
const TOP: &str = "top";
/// What was let go of between the look and the mount is looked for again so often.
const TRIES: u32 = 8;

/// The directory, as a mount that nobody sees; it goes with the descriptor. The image is made if there is none.
pub fn open_top(dir: &Path, disk: &TopDisk) -> io::Result<OwnedFd> {
    let image = dir.join(IMAGE);
    disks::scratch(&disk.disks, &image, disk.size)?;
    mounted(&image)
}

fn mounted(image: &Path) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open(image)?;
    let mut tries = 0;
    loop {
        let device = Loop::of(&file)?;
        // What is deleted takes no room of the host's any more.
        let options = ["discard".to_owned(), SCRATCH_OPTION.to_owned()];
        match mount::new_filesystem("ext4", &device.path().to_string_lossy(), &options, 0) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENXIO | libc::EBUSY)) && tries < TRIES => {
                tries += 1
            }
            other => {
                return other.map_err(|e| {
                    io::Error::new(
                        e.kind(),
                        format!("mounting {} by {}: {e}", image.display(), device.path().display()),
                    )
                });
            }
        }
    }
}

fn attach(top: OwnedFd, dir: &Path) -> io::Result<()> {
    let at = dir.join(TOP);
    std::fs::create_dir_all(&at)?;
    let at = rustix::fs::open(&at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach(top, at)
}

/// Mounts it in the caller's mount namespace.
pub(crate) fn mount_top(dir: &Path, disk: &TopDisk) -> io::Result<()> {
    attach(open_top(dir, disk)?, dir)
}

/// Takes it away again, for whoever uses it no more.
pub(crate) fn leave_top(dir: &Path) {
    if let Err(e) = mount::detach(&dir.join(TOP)) {
        crate::complain!("unmounting {}: {e}", dir.join(TOP).display());
    }
}

/// Mounts that of a container that has one in the caller's mount namespace.
pub(crate) fn mount_own(dir: &Path) -> io::Result<()> {
    let image = dir.join(IMAGE);
    if image.exists() { attach(mounted(&image)?, dir) } else { Ok(()) }
}

/// Does `work` where the directory is mounted at its place; nobody else sees that.
pub fn with_top<T: Send>(
    dir: &Path,
    disk: &TopDisk,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    mount::in_private_namespace(|| {
        mount_top(dir, disk)?;
        work()
    })
}

/// Bytes on disk of what is in it.
pub fn top_usage(dir: &Path, disk: &TopDisk) -> u64 {
    disks::used(&disk.disks, &dir.join(IMAGE), disk.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_full_at_its_size() {
        use std::io::Write;
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (dir, size) = (root.path().join("container"), 64 << 20);
        std::fs::create_dir(&dir).unwrap();
        let disk = TopDisk { disks: root.path().join("disks"), size };
        let written = with_top(&dir, &disk, || {
            let free = rustix::fs::statvfs(dir.join(TOP))?;
            assert_eq!(free.f_bavail * free.f_frsize, size);
            let mut file = File::create(dir.join(TOP).join("file"))?;
            let piece = vec![1; 64 << 10];
            let mut written = 0;
            let error = loop {
                match file.write(&piece) {
                    Ok(n) => written += n as u64,
                    Err(e) => break e,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            file.sync_all()?;
            Ok(written)
        })
        .unwrap();
        // The map of the file's blocks takes room as well.
        assert!(written <= size && written >= size - (64 << 10), "{written} of {size}");
        assert!(!dir.join(TOP).join("file").exists());
        assert!(top_usage(&dir, &disk) >= written);
        let top = open_top(&dir, &disk).unwrap();
        let again = open_top(&dir, &disk).unwrap();
        let at = |fd: &OwnedFd| format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(fd));
        assert_eq!(std::fs::metadata(at(&top)).unwrap().len(), written);
        std::fs::remove_file(at(&top)).unwrap();
        assert!(!Path::new(&at(&again)).exists());
        drop((top, again));
        let image = dir.join(IMAGE).display().to_string();
        let bound = std::fs::read_dir("/sys/block").unwrap().flatten().any(|e| {
            std::fs::read_to_string(e.path().join("loop/backing_file")).is_ok_and(|t| t.trim() == image)
        });
        assert!(!bound, "a loop device is left");
    }
}
