//! What every Linux container gets unless it asks otherwise: dockerd's capabilities, mounts, masked paths.

use oci_spec::runtime::Mount;

use crate::contract::{GuestError, Security};

/// dockerd's fourteen.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All there are (linux/capability.h).
const ALL: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Hidden from the container.
pub const DEFAULT_MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Visible, not writable.
pub const DEFAULT_READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Capabilities (`CAP_…`) of a container.
pub fn capabilities(security: &Security) -> Result<Vec<String>, GuestError> {
    let known = |name: &str| -> Result<String, GuestError> {
        let upper = name.to_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" || ALL.contains(&short) {
            Ok(short.to_owned())
        } else {
            Err(GuestError::Invalid(format!("invalid capability: unknown capability: \"CAP_{short}\"")))
        }
    };
    let list = |names: &[String]| names.iter().map(|n| known(n)).collect::<Result<Vec<_>, _>>();
    let (add, drop) = (list(&security.cap_add)?, list(&security.cap_drop)?);
    let chosen: Vec<&str> = if security.privileged {
        ALL.to_vec()
    } else {
        let has = |set: &[String], name: &str| set.iter().any(|s| s == name);
        let base = if has(&add, "ALL") {
            ALL
        } else if has(&drop, "ALL") {
            &[]
        } else {
            DEFAULT
        };
        ALL.iter()
            .copied()
            .filter(|name| (base.contains(name) && !has(&drop, name)) || has(&add, name))
            .collect()
    };
    Ok(chosen.into_iter().map(|name| format!("CAP_{name}")).collect())
}

/// A mount entry.
pub(super) fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

/// dockerd's mounts, in order.
pub(super) fn mounts(privileged: bool, shm_size: u64) -> Vec<Mount> {
    let ro = if privileged { "rw" } else { "ro" };
    let shm = format!("size={}", if shm_size == 0 { 64 << 20 } else { shm_size });
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", ro]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", ro]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], expected: usize) {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        let security = Security { cap_add: own(add), cap_drop: own(drop), ..Default::default() };
        assert_eq!(capabilities(&security).unwrap().len(), expected, "{add:?} {drop:?}");
    }

    #[test]
    fn add_and_drop() {
        check(&[], &[], 14);
        check(&["NET_ADMIN"], &[], 15);
        check(&["cap_net_admin"], &["MKNOD"], 14);
        check(&["ALL"], &["MKNOD"], ALL.len() - 1);
        check(&["CHOWN"], &["ALL"], 1);
        let bad = Security { cap_add: vec!["NONSENSE".into()], ..Default::default() };
        assert!(capabilities(&bad).unwrap_err().to_string().contains("CAP_NONSENSE"));
    }
}
