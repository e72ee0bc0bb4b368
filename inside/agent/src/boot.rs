//! What makes a machine one sandbox's: clock, entropy, names, disks, files, shared folders, network.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use silo_runtime::protocol::{BUNDLE, Boot, Disk, SCRATCH_OPTION, SeedFile};
use silo_sys::entropy;
use silo_sys::mount::{self, attr};

use crate::network;

fn named(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.to_string();
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

/// The port of this name, which the kernel shows soon after its driver is loaded.
pub(crate) fn port(name: &str) -> io::Result<OwnedFd> {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        for entry in std::fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if text.trim() == name {
                let device = Path::new("/dev").join(entry.file_name());
                return Ok(rustix::fs::open(&device, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?);
            }
        }
        if std::time::Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no port {name}")));
        }
        // Ports are told by the device after its driver was loaded; there is no event without udev.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Does everything; `Err` names the step.
pub(crate) fn boot(wanted: &Boot, mounted: &[Disk]) -> io::Result<()> {
    clock(wanted.clock).map_err(named("setting the clock"))?;
    let random = rustix::fs::open("/dev/urandom", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    entropy::add(&random, &wanted.seed).map_err(named("adding entropy"))?;
    rustix::system::sethostname(wanted.hostname.as_bytes())
        .map_err(|e| named(format!("naming the machine {:?}", wanted.hostname))(e.into()))?;
    std::fs::write("/etc/machine-id", format!("{}\n", wanted.machine_id))?;
    for disk in wanted.disks.iter().filter(|disk| !mounted.contains(disk)) {
        mount(disk)?;
    }
    files(&wanted.files)?;
    if let Some(at) = &wanted.shares {
        std::fs::create_dir_all(at)?;
        crate::share::mount(port("shares")?, at).map_err(named("mounting the shared folders"))?;
    }
    network::set_up(&wanted.networks).map_err(named("setting up the network"))
}

/// Makes files that are not there yet.
pub(crate) fn files(wanted: &[SeedFile]) -> io::Result<()> {
    for file in wanted {
        place(file).map_err(named(format!("making {}", file.path.display())))?;
    }
    Ok(())
}

/// Replaces files, and makes those that are not there yet.
pub(crate) fn renew(wanted: &[SeedFile]) -> io::Result<()> {
    for file in wanted {
        replace(file).and_then(|()| place(file)).map_err(named(format!("making {}", file.path.display())))?;
    }
    Ok(())
}

/// Gives a file that is there its new content.
fn replace(file: &SeedFile) -> io::Result<()> {
    let is_file = file.path.symlink_metadata().is_ok_and(|there| there.is_file());
    if !is_file || std::fs::read(&file.path)? == file.content {
        return Ok(());
    }
    // One that was copied alone is mounted itself.
    if file.path.parent() == Some(Path::new(BUNDLE)) {
        return std::fs::write(&file.path, &file.content);
    }
    silo_sys::atomic_file::write_with(&file.path, &file.content, file.mode & 0o7777, false)?;
    chown(&file.path, Some(file.uid), Some(file.gid))
}

/// Sets the clock: nanoseconds since 1970.
pub(crate) fn clock(now: u64) -> io::Result<()> {
    let time = rustix::time::Timespec {
        tv_sec: (now / 1_000_000_000) as i64,
        tv_nsec: (now % 1_000_000_000) as i64,
    };
    Ok(rustix::time::clock_settime(rustix::time::ClockId::Realtime, time)?)
}

/// What can be done for the disks while this machine is nobody's yet: each request goes through the VMM and costs more than
/// what it brings, so there are to be few.
pub(crate) fn prepare_disks() -> io::Result<()> {
    for entry in std::fs::read_dir("/sys/block")? {
        std::fs::write(entry?.path().join("queue/read_ahead_kb"), DISK_AHEAD)?;
    }
    Ok(())
}

/// KiB that are read of a file ahead of its reader.
const DISK_AHEAD: &str = "512";

/// Mounts a disk; the error names it.
pub(crate) fn mount(disk: &Disk) -> io::Result<()> {
    mount_disk(disk).map_err(named(format!("mounting disk {} at {}", disk.serial, disk.at.display())))
}

fn mount_disk(disk: &Disk) -> io::Result<()> {
    let device = device(&disk.serial)?;
    std::fs::create_dir_all(&disk.at)?;
    let (option, attributes) = if disk.read_only { ("ro", attr::RDONLY) } else { (SCRATCH_OPTION, 0) };
    let options = [option.to_owned()];
    let fd = mount::new_filesystem(&disk.filesystem, &device.to_string_lossy(), &options, attributes)?;
    let at = rustix::fs::open(&disk.at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach(&fd, at)
}

/// The device of the disk with this serial number.
pub(crate) fn device(serial: &str) -> io::Result<PathBuf> {
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        if std::fs::read_to_string(entry.path().join("serial")).is_ok_and(|s| s.trim() == serial) {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "there is no such disk"))
}

fn place(file: &SeedFile) -> io::Result<()> {
    use rustix::fs::FileType;
    if file.path.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(parent) = file.path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match FileType::from_raw_mode(file.mode) {
        FileType::Directory => std::fs::create_dir_all(&file.path)?,
        FileType::Symlink => {
            use std::os::unix::ffi::OsStrExt;
            symlink(std::ffi::OsStr::from_bytes(&file.content), &file.path)?;
            return lchown(&file.path, Some(file.uid), Some(file.gid));
        }
        _ => std::fs::write(&file.path, &file.content)?,
    }
    chown(&file.path, Some(file.uid), Some(file.gid))?;
    std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(file.mode & 0o7777))
}
