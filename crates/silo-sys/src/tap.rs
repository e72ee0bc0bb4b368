//! Ethernet interfaces whose other end is a program (Linux, Documentation/networking/tuntap.rst), timestamp counter and
//! sealed memory: what a virtual machine is made of beside files.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// Makes a tap interface (Ethernet frames, with the header by which offloads are told) in the calling thread's network
/// namespace; it goes with the descriptor.
pub fn create(name: &str) -> io::Result<OwnedFd> {
    let fd = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the structure lives through the call.
    if unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), TUNSETIFF, &raw const request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

/// Memory with the content of a file that nobody can write to any more: private mappings of it share its pages until they
/// write. Holes of the file stay holes.
pub fn sealed_copy(name: &str, from: &std::fs::File) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let length = from.metadata()?.len();
    rustix::fs::ftruncate(&memory, length)?;
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
        let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(start))?;
        let (mut source, mut target) = (start, start);
        while source < end {
            let step = usize::try_from(end - source).unwrap_or(usize::MAX).min(64 << 20);
            rustix::fs::seek(&memory, rustix::fs::SeekFrom::Start(target))?;
            let n = rustix::fs::sendfile(&memory, from, Some(&mut source), step)?;
            if n == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
            }
            target += n as u64;
        }
        at = end;
    }
    // Whoever maps it must open it for reading and writing; the seals keep the content.
    rustix::fs::fchmod(&memory, Mode::from_raw_mode(0o666))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory)
}

/// Thousands of ticks a second of the processor's timestamp counter, measured over 100 milliseconds.
#[cfg(target_arch = "x86_64")]
pub fn tsc_khz() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    let ticks = || unsafe { core::arch::x86_64::_rdtsc() };
    // A moment by both clocks: the try between whose readings the least time lies, for whoever is interrupted there is off.
    let moment = || {
        let tries = (0..64).map(|_| {
            let (before, at) = (std::time::Instant::now(), ticks());
            (before.elapsed(), before, at)
        });
        tries
            .min_by_key(|(took, ..)| *took)
            .map_or_else(|| (std::time::Instant::now(), ticks()), |(_, i, t)| (i, t))
    };
    let (begin, first) = moment();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let (end, last) = moment();
    let time = end.duration_since(begin);
    (u128::from(last.wrapping_sub(first)) * 1_000_000 / time.as_nanos().max(1)) as u64
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn sealed_memory_has_the_file_and_takes_no_more() {
        let mut file = tempfile::tempfile().unwrap();
        file.seek(io::SeekFrom::Start(1 << 20)).unwrap();
        file.write_all(b"content").unwrap();
        let memory = sealed_copy("test", &file).unwrap();
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let mut again = std::fs::File::options().read(true).write(true).open(path).unwrap();
        again.seek(io::SeekFrom::Start(1 << 20)).unwrap();
        let mut text = String::new();
        again.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        again.rewind().unwrap();
        assert_eq!(again.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn the_counter_counts() {
        assert!((100_000..10_000_000).contains(&tsc_khz()));
    }
}
