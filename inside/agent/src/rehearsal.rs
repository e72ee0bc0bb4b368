//! The end of a rehearsal: what it has made goes again, so that nothing of it is in the container to come.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use silo_runtime::protocol::Boot;
use silo_sys::mount;

use crate::{boot, network};

/// Word that has this program do what a rehearsal's program does: end.
pub(crate) const PROGRAM: &str = "rehearsal";

/// How long the kernel may take to let go of what was mounted.
const LIMIT: Duration = Duration::from_secs(2);

/// Undoes [`boot::boot`].
pub(crate) fn undo(done: &Boot) -> io::Result<()> {
    for disk in done.disks.iter().rev() {
        mount::detach(&disk.at)?;
    }
    for disk in &done.disks {
        forget(&disk.serial)?;
    }
    for disk in &done.disks {
        remove(&disk.at)?;
    }
    for file in &done.files {
        remove(&file.path)?;
    }
    if !done.networks.is_empty() {
        network::undo(&done.networks)?;
    }
    remove(Path::new("/etc/machine-id"))?;
    Ok(rustix::system::sethostname(b"silo")?)
}

fn remove(path: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    // Of a directory below one that was removed nothing is left to look at.
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => gone(std::fs::remove_dir_all(path)),
        Ok(_) => gone(std::fs::remove_file(path)),
        Err(_) => Ok(()),
    }
}

/// Waits until nobody has a disk any more; with its last user the kernel forgets what it knows of its content.
fn forget(serial: &str) -> io::Result<()> {
    let device = boot::device(serial)?;
    let until = Instant::now() + LIMIT;
    loop {
        // Exclusive: refused while it is mounted.
        match rustix::fs::open(&device, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if Instant::now() < until => {
                // The kernel unmounts in the background, and tells nobody.
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => {
                let e = io::Error::from(e);
                return Err(io::Error::new(e.kind(), format!("letting go of {}: {e}", device.display())));
            }
        }
    }
}
