//! The request's JSON as types.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use silo_engine::{Config, Healthcheck};

/// `Config` of the API.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ConfigBody {
    pub(super) hostname: String,
    pub(super) domainname: String,
    pub(super) user: String,
    pub(super) attach_stdin: bool,
    pub(super) attach_stdout: bool,
    pub(super) attach_stderr: bool,
    pub(super) exposed_ports: BTreeMap<String, Value>,
    pub(super) tty: bool,
    pub(super) open_stdin: bool,
    pub(super) stdin_once: bool,
    pub(super) env: Vec<String>,
    pub(super) cmd: Option<Strings>,
    pub(super) healthcheck: Option<HealthBody>,
    pub(super) image: String,
    pub(super) volumes: BTreeMap<String, Value>,
    pub(super) working_dir: String,
    pub(super) entrypoint: Option<Strings>,
    pub(super) network_disabled: bool,
    pub(super) on_build: Vec<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) stop_signal: Option<String>,
    pub(super) stop_timeout: Option<i64>,
    pub(super) shell: Vec<String>,
    pub(super) mac_address: String,
}

/// A list, or one string that stands for a list of one.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Strings {
    Many(Vec<String>),
    One(String),
}

impl Strings {
    pub(super) fn list(self) -> Vec<String> {
        match self {
            Strings::Many(list) => list,
            Strings::One(text) => vec![text],
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct HealthBody {
    pub(super) test: Vec<String>,
    pub(super) interval: i64,
    pub(super) timeout: i64,
    pub(super) start_period: i64,
    pub(super) start_interval: i64,
    pub(super) retries: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Restart {
    pub(crate) name: String,
    pub(super) maximum_retry_count: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct LogBody {
    pub(super) r#type: String,
    pub(super) config: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Ulimit {
    pub(super) name: String,
    pub(super) soft: i64,
    pub(super) hard: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Device {
    pub(super) path_on_host: String,
    pub(super) path_in_container: String,
    pub(super) cgroup_permissions: String,
}

/// Bytes or operations a second of a device.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Throttle {
    pub(super) path: String,
    pub(super) rate: u64,
}

/// Its weight.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct WeightOf {
    pub(super) path: String,
    pub(super) weight: u16,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct PortBinding {
    pub(super) host_ip: String,
    pub(super) host_port: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct MountBody {
    pub(super) r#type: String,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) read_only: bool,
    pub(super) bind_options: Value,
    pub(super) volume_options: Value,
    pub(super) tmpfs_options: Value,
}

/// What of `HostConfig` is honoured.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HostConfig {
    pub(super) binds: Vec<String>,
    pub(super) log_config: LogBody,
    pub(super) network_mode: String,
    pub(super) port_bindings: BTreeMap<String, Vec<PortBinding>>,
    pub(crate) restart_policy: Restart,
    pub(super) auto_remove: bool,
    pub(super) volumes_from: Vec<String>,
    pub(super) volume_driver: String,
    pub(super) links: Vec<String>,
    pub(super) mounts: Vec<MountBody>,
    pub(super) console_size: Option<(u16, u16)>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) cap_add: Vec<String>,
    pub(super) cap_drop: Vec<String>,
    pub(super) cgroupns_mode: String,
    pub(super) dns: Vec<String>,
    pub(super) dns_options: Vec<String>,
    pub(super) dns_search: Vec<String>,
    pub(super) extra_hosts: Vec<String>,
    pub(super) group_add: Vec<String>,
    pub(super) ipc_mode: String,
    pub(super) oom_score_adj: i32,
    pub(super) pid_mode: String,
    pub(super) privileged: bool,
    pub(super) publish_all_ports: bool,
    pub(super) readonly_rootfs: bool,
    pub(super) security_opt: Vec<String>,
    pub(super) tmpfs: BTreeMap<String, String>,
    #[serde(rename = "UTSMode")]
    pub(super) uts_mode: String,
    pub(super) shm_size: i64,
    pub(super) sysctls: BTreeMap<String, String>,
    pub(super) isolation: String,
    pub(super) storage_opt: BTreeMap<String, String>,
    pub(crate) cpu_shares: i64,
    pub(crate) memory: i64,
    pub(crate) nano_cpus: i64,
    pub(crate) blkio_weight: u16,
    pub(crate) cpu_period: i64,
    pub(crate) cpu_quota: i64,
    pub(crate) cpuset_cpus: String,
    pub(crate) cpuset_mems: String,
    pub(super) devices: Vec<Device>,
    pub(super) device_cgroup_rules: Vec<String>,
    pub(crate) cpu_realtime_period: i64,
    pub(crate) cpu_realtime_runtime: i64,
    pub(crate) memory_reservation: i64,
    pub(crate) memory_swap: i64,
    pub(crate) memory_swappiness: Option<i64>,
    pub(crate) oom_kill_disable: Option<bool>,
    pub(super) cgroup_parent: String,
    pub(crate) cpu_count: i64,
    pub(crate) cpu_percent: i64,
    #[serde(rename = "IOMaximumBandwidth")]
    pub(crate) io_maximum_bandwidth: u64,
    #[serde(rename = "IOMaximumIOps")]
    pub(crate) io_maximum_iops: u64,
    pub(super) blkio_weight_device: Vec<WeightOf>,
    pub(super) blkio_device_read_bps: Vec<Throttle>,
    pub(super) blkio_device_write_bps: Vec<Throttle>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub(super) blkio_device_read_iops: Vec<Throttle>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub(super) blkio_device_write_iops: Vec<Throttle>,
    pub(super) init: bool,
    pub(crate) pids_limit: Option<i64>,
    pub(super) ulimits: Vec<Ulimit>,
    pub(super) masked_paths: Option<Vec<String>>,
    pub(super) readonly_paths: Option<Vec<String>>,
}

impl ConfigBody {
    pub(crate) fn into_config(self) -> Config {
        Config {
            hostname: self.hostname,
            domainname: self.domainname,
            user: self.user,
            attach_stdin: self.attach_stdin,
            attach_stdout: self.attach_stdout,
            attach_stderr: self.attach_stderr,
            tty: self.tty,
            open_stdin: self.open_stdin,
            stdin_once: self.stdin_once,
            env: self.env,
            cmd: self.cmd.map(Strings::list).filter(|c| !c.is_empty()),
            entrypoint: self.entrypoint.map(Strings::list),
            args_escaped: false,
            working_dir: self.working_dir,
            labels: self.labels,
            stop_signal: self.stop_signal.filter(|s| !s.is_empty()),
            stop_timeout: self.stop_timeout,
            healthcheck: self.healthcheck.map(|h| Healthcheck {
                test: h.test,
                interval: h.interval,
                timeout: h.timeout,
                start_period: h.start_period,
                start_interval: h.start_interval,
                retries: h.retries,
            }),
            volumes: self.volumes.into_keys().collect(),
            exposed_ports: self.exposed_ports.into_keys().collect(),
            on_build: self.on_build,
            shell: self.shell,
            network_disabled: self.network_disabled,
        }
    }
}
