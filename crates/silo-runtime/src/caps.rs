//! Capability sets of an OCI process as bits.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// Names in the order of linux/capability.h: the index is the number.
const NAMES: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The five sets of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

fn bits(set: Option<&Capabilities>) -> u64 {
    set.into_iter()
        .flatten()
        .filter_map(|c| NAMES.iter().position(|n| n == c))
        .fold(0, |bits, number| bits | 1 << number)
}

impl Sets {
    /// What is not named in `of` is dropped.
    pub(crate) fn of(of: Option<&LinuxCapabilities>) -> Self {
        let Some(caps) = of else { return Self::default() };
        Self {
            bounding: bits(caps.bounding().as_ref()),
            effective: bits(caps.effective().as_ref()),
            permitted: bits(caps.permitted().as_ref()),
            inheritable: bits(caps.inheritable().as_ref()),
            ambient: bits(caps.ambient().as_ref()),
        }
    }

    /// Without those that the caller's own bounding set lacks: `--privileged` on a restricted host gives what there is.
    pub(crate) fn within(self, available: u64) -> Self {
        Self {
            bounding: self.bounding & available,
            effective: self.effective & available,
            permitted: self.permitted & available,
            inheritable: self.inheritable & available,
            ambient: self.ambient & available,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        let position = |c| NAMES.iter().position(|n| *n == c).unwrap();
        assert_eq!(position(Capability::SysAdmin), 21);
        assert_eq!(position(Capability::Mknod), 27);
        assert_eq!(position(Capability::CheckpointRestore), 40);
        assert_eq!(NAMES.len(), 41);
    }
}
