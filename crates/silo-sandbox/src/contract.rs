//! The sandbox seam: the words, and what an isolation states about itself; imports no implementation.

use serde::{Deserialize, Serialize};

/// Where a container runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces and a cgroup on the host's kernel (a Windows Server Container).
    #[default]
    Process,
}

impl Isolation {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::Process => "process",
        }
    }
}

/// Resource usage of a sandbox at one moment; zero where this host does not account for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Nanoseconds.
    pub cpu_total: u64,
    /// Nanoseconds in user mode.
    pub cpu_user: u64,
    /// Nanoseconds in kernel mode.
    pub cpu_system: u64,
    /// Per processor, nanoseconds (cgroup v1).
    pub cpu_percpu: Vec<u64>,
    /// CFS periods.
    pub throttling_periods: u64,
    /// Throttled periods.
    pub throttled_periods: u64,
    /// Nanoseconds throttled.
    pub throttled_time: u64,
    /// Bytes, page cache included.
    pub memory_usage: u64,
    /// Bytes, highest (cgroup v1).
    pub memory_max_usage: u64,
    /// Bytes; `u64::MAX`: none.
    pub memory_limit: u64,
    /// `memory.stat`.
    pub memory_stats: std::collections::BTreeMap<String, u64>,
    /// Times the limit was hit.
    pub memory_failcnt: u64,
    /// Tasks.
    pub pids_current: u64,
    /// 0: none.
    pub pids_limit: u64,
    /// (major, minor, operation, bytes).
    pub io_service_bytes: Vec<(u64, u64, String, u64)>,
    /// (major, minor, operation, count).
    pub io_serviced: Vec<(u64, u64, String, u64)>,
    /// Interfaces: (name, rx bytes, rx packets, rx errors, rx dropped, tx bytes, tx packets, tx errors, tx dropped).
    pub networks: Vec<(String, [u64; 8])>,
}
