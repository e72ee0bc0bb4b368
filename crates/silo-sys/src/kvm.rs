//! The smallest guest that KVM can run (Linux, Documentation/virt/kvm/api.rst): a counting loop.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

const CREATE_VM: libc::c_ulong = 0xae01;
const RUN_SIZE: libc::c_ulong = 0xae04;
const CREATE_VCPU: libc::c_ulong = 0xae41;
const SET_MEMORY: libc::c_ulong = 0x4020_ae46;
const RUN: libc::c_ulong = 0xae80;
const SET_REGS: libc::c_ulong = 0x4090_ae82;
const GET_SREGS: libc::c_ulong = 0x8138_ae83;
const SET_SREGS: libc::c_ulong = 0x4138_ae84;
const EXIT_HLT: u32 = 5;
const PAGE: usize = 4096;

#[repr(C)]
struct Memory {
    slot: u32,
    flags: u32,
    guest: u64,
    size: u64,
    host: u64,
}

/// `struct kvm_regs`: 16 registers, `rip`, `rflags`.
type Registers = [u64; 18];
/// `struct kvm_sregs`; the code segment comes first: base (u64), limit (u32), selector (u16), …
type Special = [u64; 39];

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Has a guest count down from `count`, two instructions each; false: it had not ended after `limit`. Its thread ends
/// when the counting does.
pub fn count(count: u32, limit: Duration) -> io::Result<bool> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("kvm-probe".into()).spawn(move || {
        let _ = sender.send(run(count));
    })?;
    match receiver.recv_timeout(limit) {
        Ok(result) => result.map(|()| true),
        Err(_) => Ok(false),
    }
}

fn run(count: u32) -> io::Result<()> {
    let kvm = rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: each call gets the argument that api.rst gives it, of the right layout and alive through the call; the
    // descriptors are made by the kernel for us; the mapped pages outlive the virtual processor that uses them.
    unsafe {
        let vm = OwnedFd::from_raw_fd(check(libc::ioctl(kvm.as_raw_fd(), CREATE_VM, 0))?);
        let size = check(libc::ioctl(kvm.as_raw_fd(), RUN_SIZE, 0))?.unsigned_abs() as usize;
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let page = libc::mmap(std::ptr::null_mut(), PAGE, both, anonymous, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // 16-bit code: mov ecx, count; again: dec ecx; jnz again; hlt
        let n = count.to_le_bytes();
        let code = [0x66, 0xb9, n[0], n[1], n[2], n[3], 0x66, 0x49, 0x75, 0xfc, 0xf4];
        std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len());
        let memory = Memory { slot: 0, flags: 0, guest: 0x1000, size: PAGE as u64, host: page as u64 };
        check(libc::ioctl(vm.as_raw_fd(), SET_MEMORY, &raw const memory))?;
        let vcpu = OwnedFd::from_raw_fd(check(libc::ioctl(vm.as_raw_fd(), CREATE_VCPU, 0))?);
        let state =
            libc::mmap(std::ptr::null_mut(), size.max(PAGE), both, libc::MAP_SHARED, vcpu.as_raw_fd(), 0);
        if state == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut special: Special = [0; 39];
        check(libc::ioctl(vcpu.as_raw_fd(), GET_SREGS, &raw mut special))?;
        // Base 0, selector 0; the limit stays.
        special[0] = 0;
        special[1] &= !0xffff_0000_0000;
        check(libc::ioctl(vcpu.as_raw_fd(), SET_SREGS, &raw const special))?;
        let mut registers: Registers = [0; 18];
        (registers[16], registers[17]) = (0x1000, 2);
        check(libc::ioctl(vcpu.as_raw_fd(), SET_REGS, &raw const registers))?;
        check(libc::ioctl(vcpu.as_raw_fd(), RUN, 0))?;
        // `exit_reason` of `struct kvm_run` stands after eight bytes.
        let reason = state.cast::<u32>().add(2).read_volatile();
        libc::munmap(state, size.max(PAGE));
        drop(vcpu);
        drop(vm);
        libc::munmap(page, PAGE);
        if reason == EXIT_HLT {
            Ok(())
        } else {
            Err(io::Error::other(format!("the guest ended by exit {reason} instead of hlt")))
        }
    }
}
