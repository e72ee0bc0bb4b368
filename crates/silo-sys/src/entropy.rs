//! The kernel's random number generator (random(4)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `RNDADDENTROPY`, `RNDRESEEDCRNG` of linux/random.h.
const ADD: libc::c_ulong = 0x4008_5203;
const RESEED: libc::c_ulong = 0x5207;
const MOST: usize = 512;

#[repr(C)]
struct Pool {
    /// Bits.
    entropy: i32,
    /// Bytes.
    size: i32,
    bytes: [u8; MOST],
}

/// Mixes bytes that are random in full into the generator (`/dev/urandom`, opened) and has it make its next numbers of
/// them: two machines with the same memory go apart here. At most 512 bytes are taken.
pub fn add(device: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(MOST)];
    let mut pool = Pool { entropy: bytes.len() as i32 * 8, size: bytes.len() as i32, bytes: [0; MOST] };
    pool.bytes[..bytes.len()].copy_from_slice(bytes);
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: the structure has the layout of `rand_pool_info` and lives through the call; the second takes nothing.
    unsafe {
        if libc::ioctl(fd, ADD, &raw const pool) < 0 || libc::ioctl(fd, RESEED) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
