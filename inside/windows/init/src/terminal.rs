//! The terminal on standard input: raw from the beginning, and its size.
//!
//! Wine's console host makes it raw when a program first reads. What is typed before that would be echoed by Linux and
//! get its carriage returns turned into line feeds, which a Windows console shows as `^J`.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Columns and rows of the terminal on standard input, if that is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let mut size = MaybeUninit::<libc::winsize>::uninit();
    // SAFETY: the structure is filled if the call succeeds, which it does on terminals only.
    unsafe {
        if libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) != 0 {
            return None;
        }
        let size = size.assume_init();
        Some((size.ws_col, size.ws_row))
    }
}

/// Opens a terminal of rows and columns, which becomes this process's own and its standard streams; its master.
pub(crate) fn take((rows, columns): (u16, u16)) -> io::Result<OwnedFd> {
    let open = |path: &CStr| {
        // SAFETY: the path is terminated; the descriptor is new and ours.
        match unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) } {
            fd if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let done = |result: i32| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    let master = open(c"/dev/ptmx")?;
    let mut name = [0u8; 64];
    // SAFETY: the buffer is as long as said; the descriptor is open.
    unsafe {
        done(libc::unlockpt(master.as_raw_fd()))?;
        match libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| io::ErrorKind::InvalidData)?;
    let slave = open(name)?;
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure outlives the call; descriptors are open. This process leads a session that has no terminal.
    unsafe {
        if (rows, columns) != (0, 0) {
            done(libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size))?;
        }
        done(libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0))?;
        (0..3).try_for_each(|stream| done(libc::dup2(slave.as_raw_fd(), stream)))?;
    }
    Ok(master)
}

/// Sends bytes, and a descriptor with them if there is one.
pub(crate) fn send(socket: &UnixStream, bytes: &[u8], fd: Option<i32>) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    // Aligned as `cmsghdr` is.
    let mut space = [0u64; 4];
    // SAFETY: zeros are a message without anything; what it points to outlives the call, and the control message is
    // written within the space whose size is set.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if let Some(fd) = fd {
            message.msg_control = space.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as _;
            let control = libc::CMSG_FIRSTHDR(&message);
            (*control).cmsg_level = libc::SOL_SOCKET;
            (*control).cmsg_type = libc::SCM_RIGHTS;
            (*control).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
            libc::CMSG_DATA(control).cast::<i32>().write_unaligned(fd);
        }
        libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes standard input raw if it is a terminal; output processing stays as it is.
pub(crate) fn make_raw() {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the structure is filled if the call succeeds, which it does on terminals only.
    unsafe {
        if libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) != 0 {
            return;
        }
        let mut settings = settings.assume_init();
        settings.c_iflag &= !(libc::ICRNL | libc::INLCR | libc::IGNCR | libc::ISTRIP | libc::IXON);
        settings.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG | libc::IEXTEN);
        // Not possible: then it is as the console host finds it.
        libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &settings);
    }
}
