//! A create request's JSON → [`ContainerSpec`]: every field is honoured, has its zero value, or is refused by name.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use silo_engine::guest::{DeviceRule, Limits, Seccomp, Security};
use silo_engine::sandbox::Isolation;
use silo_engine::{
    Config, ContainerSpec, EndpointSpec, Healthcheck, Link, LogConfig, NetworkMode, PortSpec, RestartPolicy,
};

use crate::error::{Answer, ApiError};
use crate::names;

mod mounts;

/// `Config` of the API.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ConfigBody {
    hostname: String,
    domainname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    exposed_ports: BTreeMap<String, Value>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Vec<String>,
    cmd: Option<Strings>,
    healthcheck: Option<HealthBody>,
    image: String,
    volumes: BTreeMap<String, Value>,
    working_dir: String,
    entrypoint: Option<Strings>,
    network_disabled: bool,
    on_build: Vec<String>,
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
    stop_timeout: Option<i64>,
    shell: Vec<String>,
    mac_address: String,
}

/// A list, or one string that stands for a list of one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Strings {
    Many(Vec<String>),
    One(String),
}

impl Strings {
    fn list(self) -> Vec<String> {
        match self {
            Strings::Many(list) => list,
            Strings::One(text) => vec![text],
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct HealthBody {
    test: Vec<String>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Restart {
    pub(crate) name: String,
    maximum_retry_count: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct LogBody {
    r#type: String,
    config: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    soft: i64,
    hard: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Device {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct PortBinding {
    host_ip: String,
    host_port: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct MountBody {
    r#type: String,
    source: String,
    target: String,
    read_only: bool,
    bind_options: Value,
    volume_options: Value,
    tmpfs_options: Value,
}

/// What of `HostConfig` is honoured.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HostConfig {
    binds: Vec<String>,
    log_config: LogBody,
    network_mode: String,
    port_bindings: BTreeMap<String, Vec<PortBinding>>,
    pub(crate) restart_policy: Restart,
    auto_remove: bool,
    volumes_from: Vec<String>,
    volume_driver: String,
    links: Vec<String>,
    mounts: Vec<MountBody>,
    console_size: Option<(u16, u16)>,
    annotations: BTreeMap<String, String>,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    cgroupns_mode: String,
    dns: Vec<String>,
    dns_options: Vec<String>,
    dns_search: Vec<String>,
    extra_hosts: Vec<String>,
    group_add: Vec<String>,
    ipc_mode: String,
    oom_score_adj: i32,
    pid_mode: String,
    privileged: bool,
    publish_all_ports: bool,
    readonly_rootfs: bool,
    security_opt: Vec<String>,
    tmpfs: BTreeMap<String, String>,
    #[serde(rename = "UTSMode")]
    uts_mode: String,
    shm_size: i64,
    sysctls: BTreeMap<String, String>,
    isolation: String,
    pub(crate) cpu_shares: i64,
    pub(crate) memory: i64,
    pub(crate) nano_cpus: i64,
    pub(crate) blkio_weight: u16,
    pub(crate) cpu_period: i64,
    pub(crate) cpu_quota: i64,
    pub(crate) cpuset_cpus: String,
    pub(crate) cpuset_mems: String,
    devices: Vec<Device>,
    device_cgroup_rules: Vec<String>,
    pub(super) cpu_realtime_period: i64,
    pub(super) cpu_realtime_runtime: i64,
    pub(crate) memory_reservation: i64,
    pub(crate) memory_swap: i64,
    memory_swappiness: Option<i64>,
    oom_kill_disable: bool,
    init: bool,
    pub(crate) pids_limit: Option<i64>,
    ulimits: Vec<Ulimit>,
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
}

/// Fields of `HostConfig` that are refused unless they have their zero value.
const UNHONOURED: &[&str] = &[
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "Cgroup",
    "CgroupParent",
    "CpuCount",
    "CpuPercent",
    "DeviceRequests",
    "IOMaximumBandwidth",
    "IOMaximumIOps",
    "KernelMemory",
    "KernelMemoryTCP",
    "StorageOpt",
    "UsernsMode",
];

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Bool(true) => false,
    }
}

/// 400 for the first field that this version cannot honour.
pub(crate) fn refuse_unhonoured(host: &Value) -> Answer<()> {
    for name in UNHONOURED {
        if host.get(name).is_some_and(|v| !is_zero(v)) {
            return Err(ApiError::bad(format!("HostConfig.{name} is not supported by this version of silo")));
        }
    }
    if let Some(runtime) = host.get("Runtime").and_then(Value::as_str)
        && !matches!(runtime, "" | "runc" | "silo" | "io.containerd.runc.v2")
    {
        return Err(ApiError::bad(format!("unknown or invalid runtime name: {runtime}")));
    }
    Ok(())
}

/// A value as a typed document; the error names the field.
pub(crate) fn typed<T: for<'a> Deserialize<'a> + Default>(value: Value) -> Answer<T> {
    if value.is_null() {
        return Ok(T::default());
    }
    names::from_value(value).map_err(|e| ApiError::bad(format!("invalid JSON: {e}")))
}

fn positive(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// dockerd's checks of limits, in its words.
pub(crate) fn check_limits(host: &HostConfig) -> Answer<()> {
    const LEAST: i64 = 6 << 20;
    if host.memory != 0 && host.memory < LEAST {
        return Err(ApiError::bad("Minimum memory limit allowed is 6MB"));
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return Err(ApiError::bad("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return Err(ApiError::bad(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if host.memory_reservation != 0 && host.memory_reservation < LEAST {
        return Err(ApiError::bad("Minimum memory reservation allowed is 6MB"));
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return Err(ApiError::bad(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if host.nano_cpus != 0 && (host.cpu_quota != 0 || host.cpu_period != 0) {
        return Err(ApiError::bad("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as i64;
    if host.nano_cpus != 0 && !(10_000_000..=cpus * 1_000_000_000).contains(&host.nano_cpus) {
        return Err(ApiError::bad(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if (host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0)
        && !Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
    {
        return Err(ApiError::bad("Your kernel does not support CPU real-time scheduler"));
    }
    if host.cpu_realtime_period != 0 && host.cpu_realtime_runtime > host.cpu_realtime_period {
        return Err(ApiError::bad("cpu real-time runtime cannot be higher than cpu real-time period"));
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return Err(ApiError::bad(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return Err(ApiError::bad("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return Err(ApiError::bad("Range of blkio weight is from 10 to 1000"));
    }
    if host.memory_swappiness.is_some_and(|s| s != -1 && !(0..=100).contains(&s)) {
        return Err(ApiError::bad("Invalid value: memory swappiness must be between 0 and 100"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(ApiError::bad(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.shm_size < 0 {
        return Err(ApiError::bad("SHM size can not be less than 0"));
    }
    Ok(())
}

/// `--restart`.
pub(crate) fn restart_policy(policy: &Restart, auto_remove: bool) -> Answer<RestartPolicy> {
    let retries = policy.maximum_retry_count;
    if retries < 0 {
        return Err(ApiError::bad("invalid restart policy: maximum retry count cannot be negative"));
    }
    let parsed = match policy.name.as_str() {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => RestartPolicy::OnFailure { max_retries: u32::try_from(retries).unwrap_or(u32::MAX) },
        other => {
            return Err(ApiError::bad(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    if retries > 0 && !matches!(parsed, RestartPolicy::OnFailure { .. }) {
        return Err(ApiError::bad(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    if auto_remove && parsed != RestartPolicy::No {
        return Err(ApiError::bad("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(parsed)
}

fn network_mode(text: &str) -> Answer<NetworkMode> {
    Ok(match text {
        "" | "default" | "bridge" | "nat" => NetworkMode::Bridge,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        other => match other.strip_prefix("container:") {
            Some(id) if !id.is_empty() => NetworkMode::Container(id.to_owned()),
            // As dockerd: an unknown network is found out at the start.
            _ => NetworkMode::Named(other.to_owned()),
        },
    })
}

fn security(host: &HostConfig) -> Answer<Security> {
    let mut security = Security {
        privileged: host.privileged,
        cap_add: host.cap_add.clone(),
        cap_drop: host.cap_drop.clone(),
        read_only_root: host.readonly_rootfs,
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        sysctls: host.sysctls.clone(),
        ..Default::default()
    };
    for device in &host.devices {
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        let inside = or(&device.path_in_container, &device.path_on_host);
        security.devices.push((device.path_on_host.clone(), inside, or(&device.cgroup_permissions, "rwm")));
    }
    for rule in &host.device_cgroup_rules {
        security.device_rules.push(device_rule(rule)?);
    }
    for option in &host.security_opt {
        let (name, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => {}
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => {}
            ("seccomp", profile) => security.seccomp = Seccomp::Profile(profile.to_owned()),
            // Without such a module on the host there is nothing to switch off, as with dockerd.
            ("apparmor", "unconfined" | "") | ("label", _) | ("systempaths", "") => {}
            ("systempaths", "unconfined") => {
                security.masked_paths = Some(Vec::new());
                security.readonly_paths = Some(Vec::new());
            }
            _ => return Err(ApiError::bad(format!("invalid --security-opt: {option:?}"))),
        }
    }
    Ok(security)
}

/// `c 7:128 rwm`, with `*` for any number (kernel documentation, cgroup v1 devices).
fn device_rule(text: &str) -> Answer<DeviceRule> {
    let bad = || ApiError::bad(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = words[..] else { return Err(bad()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |n: &str| match n {
        "*" => Ok(-1),
        n => n.parse::<u32>().map(i64::from).map_err(|_| bad()),
    };
    let known = access.chars().all(|c| "rwm".contains(c)) && (1..=3).contains(&access.len());
    match (kind, known) {
        ("a" | "b" | "c", true) => Ok(DeviceRule {
            kind: kind.to_owned(),
            major: number(major)?,
            minor: number(minor)?,
            access: access.to_owned(),
        }),
        _ => Err(bad()),
    }
}

/// `container:alias`, `container`, or (from inspect) `/container:/this/alias`.
fn link(text: &str) -> Answer<Link> {
    let bad = || ApiError::bad(format!("bad format for links: {text}"));
    let (target, alias) = match text.split_once(':') {
        Some((target, alias)) => (target, alias.rsplit('/').next().unwrap_or(alias)),
        None => (text, text),
    };
    let target = target.trim_start_matches('/');
    if target.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(bad());
    }
    Ok(Link { target: target.to_owned(), alias: alias.to_owned() })
}

fn limits(host: &HostConfig) -> Limits {
    Limits {
        memory: positive(host.memory),
        memory_reservation: positive(host.memory_reservation),
        memory_swap: host.memory_swap,
        memory_swappiness: host.memory_swappiness.and_then(|s| u64::try_from(s).ok()),
        nano_cpus: positive(host.nano_cpus),
        cpu_quota: host.cpu_quota,
        cpu_period: positive(host.cpu_period),
        cpu_shares: positive(host.cpu_shares),
        cpu_realtime_period: positive(host.cpu_realtime_period),
        cpu_realtime_runtime: host.cpu_realtime_runtime,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        pids: host.pids_limit.map_or(0, positive),
        blkio_weight: host.blkio_weight,
        ulimits: host.ulimits.iter().map(|u| (u.name.clone(), (u.soft as u64, u.hard as u64))).collect(),
        shm_size: positive(host.shm_size),
        oom_score_adj: host.oom_score_adj,
        oom_kill_disable: host.oom_kill_disable,
    }
}

/// `10m` in bytes.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().ok()?;
    let factor = match lower[digits..].trim_end_matches('b').trim_end_matches('i') {
        "" => 1u64,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    Some((number * factor as f64) as u64)
}

fn log_config(body: &LogBody) -> Answer<LogConfig> {
    let driver = match body.r#type.as_str() {
        "" | "json-file" => "json-file",
        "none" => "none",
        other => return Err(ApiError::bad(format!("logger: no log driver named '{other}' is registered"))),
    };
    let mut log = LogConfig { driver: driver.to_owned(), options: body.config.clone(), ..Default::default() };
    for (name, value) in &body.config {
        let invalid = || ApiError::bad(format!("invalid value for log-opt {name}: {value:?}"));
        match name.as_str() {
            "max-size" => log.max_size = size(value).ok_or_else(invalid)?,
            "max-file" => log.max_files = value.parse().ok().filter(|n| *n >= 1).ok_or_else(invalid)?,
            "mode" if value == "blocking" => {}
            other => return Err(ApiError::bad(format!("unknown log opt '{other}' for {driver} log driver"))),
        }
    }
    Ok(log)
}

fn ports(host: &HostConfig) -> Answer<Vec<PortSpec>> {
    let mut all = Vec::new();
    for (port, bindings) in &host.port_bindings {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let container_port =
            number.parse().map_err(|_| ApiError::bad(format!("invalid port specification: {port:?}")))?;
        let none = [PortBinding::default()];
        for binding in if bindings.is_empty() { &none[..] } else { bindings } {
            let bad = || ApiError::bad(format!("invalid port specification: {:?}", binding.host_port));
            let (first, last) =
                binding.host_port.split_once('-').unwrap_or((&binding.host_port, &binding.host_port));
            let parse = |t: &str| if t.is_empty() { Ok(0) } else { t.parse::<u16>().map_err(|_| bad()) };
            all.push(PortSpec {
                container_port,
                protocol: protocol.to_owned(),
                host_ip: binding.host_ip.clone(),
                host_ports: (parse(first)?, parse(last)?),
            });
        }
    }
    Ok(all)
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

/// `HostConfig`'s fields with dockerd's zero values.
fn zero_face() -> Value {
    json!({
        "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {}}, "NetworkMode": "bridge",
        "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false, "VolumeDriver": "",
        "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null, "CgroupnsMode": "host", "Dns": [],
        "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null, "IpcMode": "private", "Cgroup": "",
        "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
        "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "", "ShmSize": 67_108_864,
        "Runtime": "silo", "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0,
        "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
        "CpusetCpus": "", "CpusetMems": "", "Devices": [], "DeviceCgroupRules": null, "DeviceRequests": null,
        "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": null, "OomKillDisable": false, "PidsLimit": null,
        "Ulimits": [], "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
        "MaskedPaths": silo_engine::guest::linux::DEFAULT_MASKED_PATHS,
        "ReadonlyPaths": silo_engine::guest::linux::DEFAULT_READONLY_PATHS,
    })
}

/// Names of `HostConfig`'s fields in their own spelling.
fn spelled(host: &mut Value) {
    let (Some(given), zero) = (host.as_object_mut(), zero_face()) else { return };
    let Some(known) = zero.as_object() else { return };
    *given = std::mem::take(given)
        .into_iter()
        .map(|(name, value)| (names::spelled(known.keys().map(String::as_str), &name).to_owned(), value))
        .collect();
}

/// `HostConfig` as inspect shows it: dockerd's zero values with what was given over them.
fn face(host: &Value) -> Value {
    let mut face = zero_face();
    let given: Map<String, Value> = host.as_object().cloned().unwrap_or_default();
    for (name, value) in given {
        let keep = !is_zero(&value) || face.get(&name).is_none();
        if keep {
            face[name] = value;
        }
    }
    if face["LogConfig"]["Type"] == "" {
        face["LogConfig"]["Type"] = "json-file".into();
    }
    if host.get("Privileged") == Some(&Value::Bool(true)) {
        face["MaskedPaths"] = Value::Null;
        face["ReadonlyPaths"] = Value::Null;
    }
    face
}

fn endpoint(value: &Value, mode: &NetworkMode, mac: String) -> Answer<EndpointSpec> {
    let mut endpoint = EndpointSpec { mac, ..Default::default() };
    for (name, settings) in value.get("EndpointsConfig").and_then(Value::as_object).into_iter().flatten() {
        if network_mode(name)? != *mode {
            return Err(ApiError::bad(format!(
                "NetworkingConfig.EndpointsConfig: a container has one network, {name:?} is a second"
            )));
        }
        if settings.get("Aliases").is_some_and(|v| !is_zero(v)) {
            return Err(ApiError::bad(
                "network-scoped aliases are only supported for user-defined networks".to_owned(),
            ));
        }
        for field in
            ["Links", "DriverOpts", "GwPriority", "IPAMConfig/IPv6Address", "IPAMConfig/LinkLocalIPs"]
        {
            if settings.pointer(&format!("/{field}")).is_some_and(|v| !is_zero(v)) {
                return Err(ApiError::bad(format!(
                    "NetworkingConfig.EndpointsConfig.{name}.{field} is not supported by this version of silo"
                )));
            }
        }
        if let Some(mac) = settings.get("MacAddress").and_then(Value::as_str).filter(|m| !m.is_empty()) {
            mac.clone_into(&mut endpoint.mac);
        }
        if let Some(ip) = settings.pointer("/IPAMConfig/IPv4Address").and_then(Value::as_str) {
            ip.clone_into(&mut endpoint.ipv4);
        }
    }
    Ok(endpoint)
}

/// A whole request, nulls taken out.
pub(crate) fn create(mut value: Value) -> Answer<ContainerSpec> {
    if !value.is_object() {
        return Err(ApiError::bad("config cannot be empty in order to create a container"));
    }
    let host_value = value.get_mut("HostConfig").map(Value::take).unwrap_or(json!({}));
    let networking = value.get_mut("NetworkingConfig").map(Value::take).unwrap_or(Value::Null);
    // docker-py puts it beside `HostConfig`.
    let runtime = value.get_mut("Runtime").map(Value::take).filter(|r| !is_zero(r));
    let mut host_value = host_value;
    spelled(&mut host_value);
    if let (Some(runtime), Some(host)) = (runtime, host_value.as_object_mut()) {
        host.insert("Runtime".to_owned(), runtime);
    }
    refuse_unhonoured(&host_value)?;
    let face = face(&host_value);
    let host: HostConfig = typed(host_value)?;
    let body: ConfigBody = typed(value)?;
    check_limits(&host)?;
    for (name, mode, allowed) in [
        ("PidMode", &host.pid_mode, &["host"][..]),
        ("IpcMode", &host.ipc_mode, &["host", "private", "shareable", "none"]),
        ("UTSMode", &host.uts_mode, &["host"]),
        ("CgroupnsMode", &host.cgroupns_mode, &["host", "private"]),
    ] {
        let joins = mode.starts_with("container:") && matches!(name, "PidMode" | "IpcMode");
        if !(mode.is_empty() || joins || allowed.contains(&mode.as_str())) {
            return Err(ApiError::bad(format!("invalid {name}: {mode}")));
        }
    }
    let isolation = match host.isolation.as_str() {
        "" | "default" => None,
        "process" => Some(Isolation::Process),
        other => {
            return Err(ApiError::bad(format!(
                "invalid isolation {other:?}: this version of silo has \"process\" only"
            )));
        }
    };
    let network = if body.network_disabled { NetworkMode::None } else { network_mode(&host.network_mode)? };
    let mut config_body = body;
    let (image, mac) = (std::mem::take(&mut config_body.image), std::mem::take(&mut config_body.mac_address));
    let mut config = config_body.into_config();
    let endpoint = endpoint(&networking, &network, mac)?;
    if network == NetworkMode::Host && config.hostname.is_empty() {
        config.hostname =
            std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    }
    for port in host.port_bindings.keys().filter(|_| network == NetworkMode::Bridge) {
        let port = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        if !config.exposed_ports.contains(&port) {
            config.exposed_ports.push(port);
        }
    }
    let restart = restart_policy(&host.restart_policy, host.auto_remove)?;
    Ok(ContainerSpec {
        image,
        platform: String::new(),
        config,
        mounts: mounts::mounts(&host)?,
        limits: limits(&host),
        security: security(&host)?,
        network,
        endpoint,
        isolation,
        restart,
        log: log_config(&host.log_config)?,
        ports: ports(&host)?,
        face,
        volumes_from: host.volumes_from,
        links: host.links.iter().map(|l| link(l)).collect::<Answer<_>>()?,
        pid_mode: host.pid_mode,
        ipc_mode: host.ipc_mode,
        uts_mode: host.uts_mode,
        cgroupns_mode: host.cgroupns_mode,
        auto_remove: host.auto_remove,
        init: host.init,
        publish_all_ports: host.publish_all_ports,
        dns: host.dns,
        dns_search: host.dns_search,
        dns_options: host.dns_options,
        extra_hosts: host.extra_hosts,
        additional_groups: host.group_add,
        annotations: host.annotations,
        console_size: host.console_size.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
