//! The default seccomp profile (equal to dockerd 28's) and profiles in Docker's JSON format, resolved to OCI.
//!
//! Source of the list: Docker's documented default profile; rules for capabilities as documented there
//! (docs.docker.com, "Seccomp security profiles for Docker").

use oci_spec::runtime::LinuxSeccomp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::contract::GuestError;

/// Always allowed.
const ALWAYS: &str = "
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid
getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt
get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64
ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr
_llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret
mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64
prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read
readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat
shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair
splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee
tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes
vfork vmsplice wait4 waitid waitpid write writev process_vm_readv process_vm_writev ptrace arch_prctl modify_ldt";

/// Allowed with a capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Namespace flags of clone(2) and unshare(2): `CLONE_NEW*` but time.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// The default profile of a container that has these capabilities (`CAP_…`).
pub fn default_profile(capabilities: &[String]) -> LinuxSeccomp {
    let has = |name: &str| capabilities.iter().any(|c| c == name);
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let allow = |text: &str| json!({"names": names(text), "action": "SCMP_ACT_ALLOW"});
    let allow_if = |name: &str, value: u64, op: &str| {
        json!({"names": [name], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": value, "valueTwo": 0, "op": op}]})
    };
    let mut rules = vec![allow(ALWAYS), allow_if("socket", 40, "SCMP_CMP_NE")];
    for value in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(allow_if("personality", value, "SCMP_CMP_EQ"));
    }
    for (capability, text) in BY_CAPABILITY {
        if has(capability) {
            rules.push(allow(text));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        rules.push(allow_if("clone", NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ"));
        // Its flags are in memory, where no filter sees them: the C library falls back to clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    }
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    });
    // A constant in another notation: the tests below read it for every capability.
    serde_json::from_value(profile).unwrap_or_default()
}

/// Docker's profile format (moby profiles/seccomp): OCI's with `archMap`, single `name`s and conditional rules.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Value>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Resolves a profile that the user gave (`--security-opt seccomp=…`).
pub fn resolve(text: &str, capabilities: &[String], kernel: (u32, u32)) -> Result<LinuxSeccomp, GuestError> {
    let invalid = |e: serde_json::Error| GuestError::Invalid(format!("Decoding seccomp profile failed: {e}"));
    let profile: Profile = serde_json::from_str(text).map_err(invalid)?;
    let native = "SCMP_ARCH_X86_64";
    let mut architectures = profile.architectures.unwrap_or_default();
    for map in profile.arch_map.iter().flatten().filter(|m| m.architecture == native) {
        architectures.push(map.architecture.clone());
        architectures.extend(map.sub_architectures.iter().flatten().cloned());
    }
    let has = |c: &String| capabilities.contains(c);
    let here = |a: &String| a == "amd64" || a == "x86_64";
    let old = |v: &str| kernel < parse_kernel(v);
    let mut rules = Vec::new();
    for rule in profile.syscalls.into_iter().flatten() {
        let (i, e) = (&rule.includes, &rule.excludes);
        let excluded = e.caps.iter().flatten().any(has)
            || e.arches.iter().flatten().any(here)
            || e.min_kernel.as_deref().is_some_and(|v| !old(v));
        let missing = i.caps.iter().flatten().any(|c| !has(c))
            || i.arches.as_ref().is_some_and(|a| !a.is_empty() && !a.iter().any(here))
            || i.min_kernel.as_deref().is_some_and(old);
        if excluded || missing {
            continue;
        }
        let mut names = rule.names.unwrap_or_default();
        if !rule.name.is_empty() {
            names.push(rule.name);
        }
        let mut entry = json!({"names": names, "action": rule.action});
        if let Some(errno) = rule.errno_ret {
            entry["errnoRet"] = errno.into();
        }
        if let Some(args) = rule.args.filter(|a| !a.is_empty()) {
            entry["args"] = args.into();
        }
        rules.push(entry);
    }
    let mut out =
        json!({"defaultAction": profile.default_action, "architectures": architectures, "syscalls": rules});
    if let Some(errno) = profile.default_errno_ret {
        out["defaultErrnoRet"] = errno.into();
    }
    if let Some(flags) = profile.flags.filter(|f| !f.is_empty()) {
        out["flags"] = flags.into();
    }
    serde_json::from_value(out).map_err(invalid)
}

fn parse_kernel(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Major and minor number of the running kernel.
pub fn kernel() -> (u32, u32) {
    parse_kernel(&rustix::system::uname().release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &LinuxSeccomp, name: &str) -> usize {
        profile.syscalls().iter().flatten().filter(|s| s.names().iter().any(|n| n == name)).count()
    }

    #[test]
    fn the_default_knows_capabilities() {
        let plain = default_profile(&[]);
        assert_eq!(allowed(&plain, "read"), 1);
        assert_eq!(allowed(&plain, "mount"), 0);
        assert_eq!(allowed(&plain, "clone3"), 1, "as ENOSYS");
        let all: Vec<String> = BY_CAPABILITY.iter().map(|(c, _)| (*c).to_owned()).collect();
        let full = default_profile(&all);
        assert_eq!(allowed(&full, "mount"), 1);
        assert_eq!(allowed(&full, "reboot"), 1);
        assert_eq!(plain.default_errno_ret(), Some(1));
    }

    #[test]
    fn conditional_rules_of_a_given_profile() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
          "syscalls":[{"name":"chmod","action":"SCMP_ACT_ERRNO"},
          {"names":["mount"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["chown"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"99.0"}}]}"#;
        let profile = resolve(text, &[], (6, 1)).unwrap();
        assert_eq!(allowed(&profile, "chmod"), 1);
        assert_eq!(allowed(&profile, "mount"), 0);
        assert_eq!(allowed(&profile, "chown"), 0);
        let error = resolve("{", &[], (6, 1)).unwrap_err().to_string();
        assert!(error.starts_with("Decoding seccomp profile failed"), "{error}");
    }
}
