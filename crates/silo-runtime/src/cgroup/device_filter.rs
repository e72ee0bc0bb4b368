//! cgroup v2 device rules as an eBPF program (`BPF_PROG_TYPE_CGROUP_DEVICE`, linux/bpf.h).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: programs of ancestors are asked as well.
const ALLOW_MULTI: u32 = 2;

const fn op(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: src << 4 | dst, offset, immediate }
}

/// The program: the **last** rule that matches decides, so rules are tried from the end; none matching denies.
///
/// Context (`struct bpf_cgroup_dev_ctx`): u32 access_type (low 16 bits type: 1 block, 2 char; high 16 bits access:
/// 1 mknod, 2 read, 4 write), u32 major, u32 minor.
fn compile(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    const LDX_W: u8 = 0x61;
    const MOV_IMM: u8 = 0xb7;
    const MOV_REG: u8 = 0xbf;
    const AND_IMM: u8 = 0x57;
    const RSH_IMM: u8 = 0x77;
    const JNE_IMM: u8 = 0x55;
    const JNE_REG: u8 = 0x5d;
    const EXIT: u8 = 0x95;
    let mut program = vec![
        op(LDX_W, 2, 1, 0, 0),
        op(MOV_REG, 3, 2, 0, 0),
        op(AND_IMM, 2, 0, 0, 0xffff),
        op(RSH_IMM, 3, 0, 0, 16),
        op(LDX_W, 4, 1, 4, 0),
        op(LDX_W, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut access = 0;
        for c in rule.access().as_deref().unwrap_or("rwm").chars() {
            access |= match c {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            };
        }
        let mut tests: Vec<Instruction> = Vec::new();
        match rule.typ() {
            Some(LinuxDeviceType::B) => tests.push(op(JNE_IMM, 2, 0, 0, 1)),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => tests.push(op(JNE_IMM, 2, 0, 0, 2)),
            _ => {}
        }
        if access != 7 {
            // Allow: every bit asked for is in the rule. Deny: likewise, so that a rule speaks of its own bits only.
            tests.push(op(MOV_REG, 1, 3, 0, 0));
            tests.push(op(AND_IMM, 1, 0, 0, access));
            tests.push(op(JNE_REG, 1, 3, 0, 0));
        }
        for (register, number) in [(4, rule.major()), (5, rule.minor())] {
            if let Some(number) = number.filter(|n| *n >= 0).and_then(|n| i32::try_from(n).ok()) {
                tests.push(op(JNE_IMM, register, 0, 0, number));
            }
        }
        let unconditional = tests.is_empty();
        let length = tests.len() + 2;
        for (i, mut test) in tests.into_iter().enumerate() {
            if matches!(test.code, JNE_IMM | JNE_REG) {
                test.offset = (length - i - 1) as i16;
            }
            program.push(test);
        }
        program.push(op(MOV_IMM, 0, 0, 0, i32::from(rule.allow())));
        program.push(op(EXIT, 0, 0, 0, 0));
        if unconditional {
            // Earlier rules are never asked, and the verifier refuses code that cannot be reached.
            return program;
        }
    }
    program.push(op(MOV_IMM, 0, 0, 0, 0));
    program.push(op(EXIT, 0, 0, 0, 0));
    program
}

fn bpf(command: libc::c_int, attributes: &mut [u32]) -> io::Result<libc::c_long> {
    // SAFETY: the attribute block lives through the call and its size is passed; pointers in it are set by callers
    // in this file to buffers that live as long.
    let r =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let split = |p: u64| [p as u32, (p >> 32) as u32];
    let [code_low, code_high] = split(program.as_ptr() as u64);
    let [license_low, license_high] = split(license.as_ptr() as u64);
    // union bpf_attr for BPF_PROG_LOAD: type, count, instructions (64), licence (64), log level, size, buffer (64) …
    let mut attributes = [0u32; 12];
    attributes[0] = PROG_TYPE_CGROUP_DEVICE;
    attributes[1] = program.len() as u32;
    attributes[2] = code_low;
    attributes[3] = code_high;
    attributes[4] = license_low;
    attributes[5] = license_high;
    let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: just made by the kernel.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches the rules to a cgroup directory; they stay until it is removed.
pub(super) fn attach(cgroup: &OwnedFd, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    let context =
        |e: io::Error| io::Error::new(e.kind(), format!("attaching the device rules to the cgroup: {e}"));
    let program = load(&compile(rules)).map_err(context)?;
    let mut attributes =
        [cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32, ATTACH_CGROUP_DEVICE, ALLOW_MULTI, 0];
    bpf(BPF_PROG_ATTACH, &mut attributes).map_err(context)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        allow: bool,
        typ: LinuxDeviceType,
        major: Option<i64>,
        minor: Option<i64>,
        access: &str,
    ) -> LinuxDeviceCgroup {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(allow)
            .set_typ(Some(typ))
            .set_major(major)
            .set_minor(minor)
            .set_access(Some(access.into()));
        rule
    }

    /// The kernel's verifier is the judge of the program's form.
    #[test]
    fn the_kernel_accepts_the_program() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let rules = [
            rule(false, LinuxDeviceType::A, None, None, "rwm"),
            rule(true, LinuxDeviceType::C, Some(1), Some(3), "rwm"),
            rule(true, LinuxDeviceType::C, None, None, "m"),
            rule(true, LinuxDeviceType::B, Some(8), None, "r"),
        ];
        match load(&compile(&rules)) {
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
            Err(e) => panic!("{e}"),
        }
    }
}
