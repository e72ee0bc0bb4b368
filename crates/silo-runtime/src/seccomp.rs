//! An OCI seccomp profile as a classic BPF program (seccomp(2)).
//!
//! System calls are found by binary search, so that the hundredth costs as little as the first. As in runc, a
//! call newer than any that the profile names gets ENOSYS where the profile's default is an error number: C
//! libraries then fall back to older calls. x32 calls get the default action.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator, LinuxSyscall};
use silo_sys::process::BpfInstruction;

use crate::protocol::{Failure, FailureKind, PackedFilter};
use crate::report::failure;

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// An action that needs somebody outside to answer.
    #[error("seccomp action {0:?} is not supported")]
    Action(LinuxSeccompAction),
    /// An argument number beyond 5.
    #[error("seccomp rule for {0}: argument {1} does not exist")]
    Argument(String, usize),
    /// More than the kernel takes.
    #[error("the seccomp profile becomes {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

/// A filter ready for the kernel.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Instructions.
    pub program: Vec<BpfInstruction>,
    /// Flags of seccomp(2).
    pub flags: u32,
}

impl Filter {
    /// As it is sent to a machine.
    pub fn pack(&self) -> PackedFilter {
        let one = |i: &BpfInstruction| {
            let (code, k) = (i.code.to_le_bytes(), i.k.to_le_bytes());
            [code[0], code[1], i.jt, i.jf, k[0], k[1], k[2], k[3]]
        };
        PackedFilter { program: self.program.iter().flat_map(one).collect(), flags: self.flags }
    }

    /// One that was sent; the kernel verifies what it says.
    pub fn unpack(packed: &PackedFilter) -> Self {
        let (whole, _) = packed.program.as_chunks::<8>();
        let one = |b: &[u8; 8]| BpfInstruction {
            code: u16::from_le_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        };
        Self { program: whole.iter().map(one).collect(), flags: packed.flags }
    }
}

/// The filter that a bundle asks for, if any.
pub(crate) fn of(bundle: &crate::Bundle) -> Result<Option<Cow<'_, Filter>>, Failure> {
    if let Some(filter) = &bundle.filter {
        return Ok(Some(Cow::Borrowed(filter)));
    }
    let profile = bundle.linux().map_err(failure)?.seccomp().as_ref();
    let compiled = profile.map(compile).transpose();
    let compiled = compiled.map_err(|e| Failure { kind: FailureKind::Invalid, message: e.to_string() })?;
    Ok(compiled.map(Cow::Owned))
}

const LD: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JA: u16 = 0x05;
const AND: u16 = 0x54;
const RET: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
const AUDIT_AARCH64: u32 = 0xc000_00b7;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const X32_BIT: u32 = 0x4000_0000;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> BpfInstruction {
    BpfInstruction { code, jt, jf, k }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    let data = errno.unwrap_or(libc::EPERM as u32) & 0xffff;
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
        LinuxSeccompAction::ScmpActErrno => RET_ERRNO | data,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        other => return Err(SeccompError::Action(other)),
    })
}

/// What happens on one system call.
#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Always(u32),
    /// Alternatives in order: code that falls through to its `RET` or ends.
    When(Vec<BpfInstruction>),
}

/// Name → number on one architecture.
type Numbers = fn(&str) -> Option<u32>;

fn architectures() -> &'static [(u32, Arch, Numbers)] {
    #[cfg(target_arch = "x86_64")]
    {
        &[
            (AUDIT_X86_64, Arch::ScmpArchX86_64, |n| {
                syscalls::x86_64::Sysno::from_str(n).ok().map(|s| s.id() as u32)
            }),
            (AUDIT_I386, Arch::ScmpArchX86, |n| {
                syscalls::x86::Sysno::from_str(n).ok().map(|s| s.id() as u32)
            }),
        ]
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        &[(AUDIT_AARCH64, Arch::ScmpArchAarch64, |n| {
            syscalls::aarch64::Sysno::from_str(n).ok().map(|s| s.id() as u32)
        })]
    }
}

/// Compiles a profile for this machine's architecture and the 32-bit one beside it, if the profile names that.
/// System calls that a table does not know (other architectures', future ones) are passed over, as libseccomp does.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let wanted = profile.architectures().clone().unwrap_or_default();
    let mut sections = Vec::new();
    for (index, (audit, arch, numbers)) in architectures().iter().enumerate() {
        if index == 0 || wanted.contains(arch) {
            let is_x86_64 = *audit == AUDIT_X86_64;
            sections.push((
                *audit,
                section(profile.syscalls().as_deref().unwrap_or(&[]), *numbers, default, is_x86_64)?,
            ));
        }
    }
    let mut program = vec![insn(LD, 0, 0, ARCH)];
    for (audit, code) in sections {
        program.push(insn(JEQ, 1, 0, audit));
        program.push(insn(JA, 0, 0, code.len() as u32));
        program.extend(code);
    }
    program.push(insn(RET, 0, 0, RET_KILL_PROCESS));
    if program.len() > 4096 {
        return Err(SeccompError::TooLong(program.len()));
    }
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            oci_spec::runtime::LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
            oci_spec::runtime::LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
            _ => 0,
        };
    }
    Ok(Filter { program, flags })
}

fn section(
    entries: &[LinuxSyscall],
    numbers: Numbers,
    default: u32,
    is_x86_64: bool,
) -> Result<Vec<BpfInstruction>, SeccompError> {
    let mut rules: BTreeMap<u32, Rule> = BTreeMap::new();
    for entry in entries {
        let ret = action(entry.action(), entry.errno_ret())?;
        let conditions = entry.args().as_deref().unwrap_or(&[]);
        for name in entry.names() {
            let Some(number) = numbers(name) else { continue };
            if conditions.is_empty() {
                rules.insert(number, Rule::Always(ret));
                continue;
            }
            // Two conditions on one argument are alternatives (runc does the same for libseccomp's sake).
            let mut seen = 0u8;
            let repeated = conditions.iter().any(|c| {
                let bit = 1u8.checked_shl(c.index() as u32).unwrap_or(0);
                let again = seen & bit != 0;
                seen |= bit;
                again
            });
            let groups: Vec<&[oci_spec::runtime::LinuxSeccompArg]> =
                if repeated { conditions.chunks(1).collect() } else { vec![conditions] };
            let mut code = Vec::new();
            for group in groups {
                code.extend(alternative(name, group, ret)?);
            }
            match rules.entry(number).or_insert_with(|| Rule::When(Vec::new())) {
                Rule::Always(_) => {}
                Rule::When(all) => all.extend(code),
            }
        }
    }
    let last = rules.keys().next_back().copied().unwrap_or(0);
    let mut intervals: Vec<(u32, Rule)> = vec![(0, Rule::Always(default))];
    for (number, rule) in rules {
        push_interval(&mut intervals, number, rule);
        push_interval(&mut intervals, number + 1, Rule::Always(default));
    }
    if default & 0xffff_0000 == RET_ERRNO {
        push_interval(&mut intervals, last + 1, Rule::Always(RET_ERRNO | libc::ENOSYS as u32));
    }
    if is_x86_64 {
        push_interval(&mut intervals, X32_BIT, Rule::Always(default));
    }
    let mut code = vec![insn(LD, 0, 0, NR)];
    code.extend(search(&intervals, default));
    Ok(code)
}

/// Adds an interval that begins at `start`; a later one at the same start replaces, an equal neighbour merges.
fn push_interval(intervals: &mut Vec<(u32, Rule)>, start: u32, rule: Rule) {
    if intervals.last().is_some_and(|(s, _)| *s == start) {
        intervals.pop();
    }
    if intervals.last().is_none_or(|(_, r)| *r != rule) {
        intervals.push((start, rule));
    }
}

fn search(intervals: &[(u32, Rule)], default: u32) -> Vec<BpfInstruction> {
    if let [(_, rule)] = intervals {
        return match rule {
            Rule::Always(ret) => vec![insn(RET, 0, 0, *ret)],
            Rule::When(code) => {
                let mut code = code.clone();
                code.push(insn(RET, 0, 0, default));
                code
            }
        };
    }
    let middle = intervals.len() / 2;
    let left = search(&intervals[..middle], default);
    let right = search(&intervals[middle..], default);
    let mut code = Vec::with_capacity(left.len() + right.len() + 2);
    match u8::try_from(left.len()) {
        Ok(distance) => code.push(insn(JGE, distance, 0, intervals[middle].0)),
        Err(_) => {
            code.push(insn(JGE, 0, 1, intervals[middle].0));
            code.push(insn(JA, 0, 0, left.len() as u32));
        }
    }
    code.extend(left);
    code.extend(right);
    code
}

/// Code that returns `ret` when all conditions hold and otherwise falls out at its end.
fn alternative(
    name: &str,
    conditions: &[oci_spec::runtime::LinuxSeccompArg],
    ret: u32,
) -> Result<Vec<BpfInstruction>, SeccompError> {
    /// Stands for "to the end of this alternative" until the end is known; real distances are far smaller.
    const FAIL: u8 = 255;
    let mut code = Vec::new();
    for condition in conditions {
        if condition.index() > 5 {
            return Err(SeccompError::Argument(name.to_owned(), condition.index()));
        }
        let low = insn(LD, 0, 0, ARGS + 8 * condition.index() as u32);
        let high = insn(LD, 0, 0, low.k + 4);
        let value = condition.value();
        let (vh, vl) = ((value >> 32) as u32, value as u32);
        code.push(high);
        match condition.op() {
            LinuxSeccompOperator::ScmpCmpEq => {
                code.extend([insn(JEQ, 0, FAIL, vh), low, insn(JEQ, 0, FAIL, vl)]);
            }
            LinuxSeccompOperator::ScmpCmpNe => {
                code.extend([insn(JEQ, 0, 2, vh), low, insn(JEQ, FAIL, 0, vl)]);
            }
            LinuxSeccompOperator::ScmpCmpGt => {
                code.extend([insn(JGT, 3, 0, vh), insn(JEQ, 0, FAIL, vh), low, insn(JGT, 0, FAIL, vl)]);
            }
            LinuxSeccompOperator::ScmpCmpGe => {
                code.extend([insn(JGT, 3, 0, vh), insn(JEQ, 0, FAIL, vh), low, insn(JGE, 0, FAIL, vl)]);
            }
            LinuxSeccompOperator::ScmpCmpLt => {
                code.extend([insn(JGT, FAIL, 0, vh), insn(JEQ, 0, 2, vh), low, insn(JGE, FAIL, 0, vl)]);
            }
            LinuxSeccompOperator::ScmpCmpLe => {
                code.extend([insn(JGT, FAIL, 0, vh), insn(JEQ, 0, 2, vh), low, insn(JGT, FAIL, 0, vl)]);
            }
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                let datum = condition.value_two().unwrap_or(0);
                code.extend([
                    insn(AND, 0, 0, vh),
                    insn(JEQ, 0, FAIL, (datum >> 32) as u32),
                    low,
                    insn(AND, 0, 0, vl),
                    insn(JEQ, 0, FAIL, datum as u32),
                ]);
            }
        }
    }
    code.push(insn(RET, 0, 0, ret));
    let end = code.len();
    for (i, instruction) in code.iter_mut().enumerate() {
        let distance = (end - i - 1) as u8;
        if instruction.code != LD && instruction.code != RET {
            if instruction.jt == FAIL {
                instruction.jt = distance;
            }
            if instruction.jf == FAIL {
                instruction.jf = distance;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does, on (arch, nr, args).
    fn run(program: &[BpfInstruction], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let load = |offset: u32| match offset {
            NR => nr,
            ARCH => arch,
            o => {
                let a = args[((o - ARGS) / 8) as usize];
                if (o - ARGS) % 8 == 4 { (a >> 32) as u32 } else { a as u32 }
            }
        };
        let (mut pc, mut acc) = (0usize, 0u32);
        loop {
            let i = program[pc];
            pc += 1;
            let jump = |t: bool| usize::from(if t { i.jt } else { i.jf });
            match i.code {
                LD => acc = load(i.k),
                AND => acc &= i.k,
                JA => pc += i.k as usize,
                JEQ => pc += jump(acc == i.k),
                JGT => pc += jump(acc > i.k),
                JGE => pc += jump(acc >= i.k),
                RET => return i.k,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn profile(json: &str) -> Filter {
        compile(&serde_json::from_str(json).unwrap()).unwrap()
    }

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = RET_ERRNO | 1;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn calls_conditions_and_architectures() {
        let f = profile(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
            "syscalls":[{"names":["read","write","no_such_call"],"action":"SCMP_ACT_ALLOW"},
            {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":4294967295,"op":"SCMP_CMP_EQ"}]},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
            {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_LT"},{"index":0,"value":40,"op":"SCMP_CMP_GT"}]}]}"#,
        );
        let call = |nr, a0: u64| run(&f.program, AUDIT_X86_64, nr, [a0, 0, 0, 0, 0, 0]);
        assert_eq!(call(0, 0), ALLOW);
        assert_eq!(call(1, 0), ALLOW);
        assert_eq!(call(2, 0), EPERM);
        assert_eq!(call(435, 0), RET_ERRNO | 38);
        assert_eq!(call(135, 8), ALLOW);
        assert_eq!(call(135, 0xffff_ffff), ALLOW);
        assert_eq!(call(135, 8 << 32 | 8), EPERM);
        assert_eq!(call(135, 9), EPERM);
        assert_eq!(call(56, 0x11), ALLOW);
        assert_eq!(call(56, 0x1002_0000), EPERM, "CLONE_NEWUSER");
        assert_eq!(call(41, 39), ALLOW);
        assert_eq!(call(41, 40), EPERM);
        assert_eq!(call(41, 41), ALLOW);
        assert_eq!(call(9999, 0), RET_ERRNO | 38, "newer than the profile");
        assert_eq!(call(X32_BIT, 0), EPERM, "x32 read");
        assert_eq!(run(&f.program, AUDIT_I386, 3, [0; 6]), ALLOW, "i386 read");
        assert_eq!(run(&f.program, AUDIT_I386, 5, [0; 6]), EPERM, "i386 open");
        assert_eq!(run(&f.program, AUDIT_AARCH64, 63, [0; 6]), RET_KILL_PROCESS);
    }

    #[test]
    fn comparisons_hold_on_both_halves() {
        let ops = [
            ("LT", [true, false, false]),
            ("LE", [true, true, false]),
            ("GE", [false, true, true]),
            ("GT", [false, false, true]),
            ("EQ", [false, true, false]),
            ("NE", [true, false, true]),
        ];
        for value in [5u64, 1 << 32, (7 << 32) + 9] {
            for (op, expected) in ops {
                let f = profile(&format!(
                    r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                    "args":[{{"index":2,"value":{value},"op":"SCMP_CMP_{op}"}}]}}]}}"#
                ));
                let (arch, _, numbers) = architectures()[0];
                for (arg, allowed) in [value - 1, value, value + 1].into_iter().zip(expected) {
                    let got = run(&f.program, arch, numbers("read").unwrap(), [0, 0, arg, 0, 0, 0]);
                    assert_eq!(got == ALLOW, allowed, "{arg} {op} {value}");
                }
            }
        }
    }
}
