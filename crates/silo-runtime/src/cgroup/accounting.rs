//! What a host's cgroups can keep, as told to whoever asks for a limit.

/// Which limits the host's hierarchies can keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Memory is limited.
    pub memory: bool,
    /// Swap is counted.
    pub swap: bool,
    /// Memory has a soft limit.
    pub reservation: bool,
    /// A cgroup has a swappiness of its own.
    pub swappiness: bool,
    /// The out-of-memory killer can be switched off.
    pub oom_control: bool,
    /// Tasks are counted.
    pub pids: bool,
    /// Processor time is shared by weight.
    pub cpu_shares: bool,
    /// Processor time is limited (CFS quota and period).
    pub cpu_quota: bool,
    /// Processors and memory nodes are assigned.
    pub cpuset: bool,
    /// Disks are shared by weight: the controller is there, and a disk's scheduler that does it.
    pub io_weight: bool,
    /// The same, by a weight for each disk.
    pub io_weight_device: bool,
    /// Bytes read of a disk are limited.
    pub read_bps: bool,
    /// Bytes written.
    pub write_bps: bool,
    /// Reads.
    pub read_iops: bool,
    /// Writes.
    pub write_iops: bool,
}
