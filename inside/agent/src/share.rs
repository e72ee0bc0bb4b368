//! The host's folders: a FUSE mount whose requests go to the host by a port, and its replies come back.
//!
//! Both sides speak whole messages that begin with their length, so nothing is added on the way. The relay is a
//! process of its own with two threads, so that the agent can go on forking.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::mount::MountFlags;
use silo_sys::process::{self, Fork};

/// Longest message: 1 MiB of data and a page of headers.
const MAX_MESSAGE: usize = (1 << 20) + 4096;
/// `struct fuse_out_header`.
const HEADER_OUT: usize = 16;
/// Whole reads of a file ahead of its reader, KiB: one message.
const READ_AHEAD: &str = "1024";
/// linux/prctl.h (Linux 5.6).
const PR_SET_IO_FLUSHER: i32 = 57;

/// Mounts at `at` what the host serves at the other end of `port`, a device that blocks and whose host side is connected.
///
/// For a single-threaded process: forks the relay, which ends when the host does; the mount then answers ENOTCONN.
///
/// # Errors
/// Of opening `/dev/fuse`, mounting and forking. What the host makes of it shows at the first use.
pub(crate) fn mount(port: OwnedFd, at: &Path) -> io::Result<()> {
    let fuse = attach(at)?;
    // SAFETY: the agent has one thread.
    match unsafe { process::clone3(0, None) }? {
        Fork::Child => {
            let keep = [0, 1, 2, port.as_raw_fd(), fuse.as_raw_fd()];
            // SAFETY: this process goes on below with those descriptors only, and ends without destructors.
            let alone = unsafe { process::close_all_but(&keep) };
            let failed = alone.and_then(|()| relay(port, fuse)).err();
            if let Some(e) = &failed {
                eprintln!("shared folders: {e}");
            }
            process::exit_now(failed.is_some().into())
        }
        Fork::Parent { .. } => Ok(()),
    }
}

/// Makes the mount and returns the kernel's end of it.
pub(crate) fn attach(at: &Path) -> io::Result<OwnedFd> {
    let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read={}",
        fuse.as_raw_fd(),
        1 << 20
    );
    // A device number of the host's means another device here.
    silo_sys::mount::mount_classic("shares", at, "fuse", MountFlags::NODEV, &options)?;
    // Without it reading goes in smaller pieces.
    let _ = read_far_ahead(at);
    Ok(fuse)
}

/// Before the first reply: the kernel takes the lesser of its own setting and the host's.
fn read_far_ahead(at: &Path) -> io::Result<()> {
    // Nobody answers yet: what the kernel knows has to do.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(rustix::fs::CWD, at, flags, StatxFlags::TYPE)?;
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", stat.stx_dev_major, stat.stx_dev_minor);
    let setting = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(setting, READ_AHEAD.as_bytes())?;
    Ok(())
}

/// Relays until one side ends.
fn relay(port: OwnedFd, fuse: OwnedFd) -> io::Result<()> {
    // File systems must be written to for memory to come free: without this, by this very process, it could wait
    // for itself. Older kernels go without.
    let _ = process::prctl(PR_SET_IO_FLUSHER, 1);
    let (port, fuse) = (File::from(port), File::from(fuse));
    let ends = (port.try_clone()?, fuse.try_clone()?);
    std::thread::Builder::new().spawn(move || {
        let (port, fuse) = ends;
        let failed = requests(&fuse, &port).err();
        if let Some(e) = &failed {
            eprintln!("shared folders: a request: {e}");
        }
        process::exit_now(failed.is_some().into())
    })?;
    replies(&port, &fuse)
}

/// From the kernel to the port, until the unmount.
pub(crate) fn requests(mut fuse: &File, mut port: &File) -> io::Result<()> {
    let mut message = vec![0; MAX_MESSAGE];
    loop {
        // One read is one request.
        match fuse.read(&mut message) {
            Ok(0) => return Ok(()),
            Ok(len) => port.write_all(&message[..len])?,
            Err(e) => match e.raw_os_error() {
                Some(libc::ENODEV) => return Ok(()),
                // ENOENT: the request was taken back.
                Some(libc::EINTR | libc::EAGAIN | libc::ENOENT) => {}
                _ => return Err(e),
            },
        }
    }
}

/// From the port, which gives a few KiB at a time, to the kernel, until the port ends.
///
/// # Errors
/// InvalidData: no reply has that length. Others of reading and writing.
pub(crate) fn replies(mut port: &File, mut fuse: &File) -> io::Result<()> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut filled = 0;
    loop {
        let mut begin = 0;
        while let Some(len) = whole_reply(&buffer[begin..filled])? {
            // One write is one reply.
            match fuse.write(&buffer[begin..begin + len]) {
                Ok(_) => {}
                // Nobody waits for it any more.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                Err(e) => return Err(e),
            }
            begin += len;
        }
        buffer.copy_within(begin..filled, 0);
        filled -= begin;
        match port.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(len) => filled += len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Length of the reply the bytes begin with, once it is there as a whole.
fn whole_reply(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(&head) = bytes.first_chunk() else { return Ok(None) };
    let len = u32::from_ne_bytes(head) as usize;
    if !(HEADER_OUT..=MAX_MESSAGE).contains(&len) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a reply of {len} bytes")));
    }
    Ok((bytes.len() >= len).then_some(len))
}
