//! `inspect`: a record in dockerd's shape.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use silo_engine::guest::{DeviceLimits, Limits};
use silo_engine::{ContainerRecord, Engine, Healthcheck, NetworkMode, RestartPolicy, Status};

use crate::error::Answer;
use crate::params::Params;
use crate::version::ApiVersion;

use super::endpoints;

fn time(at: Option<Timestamp>) -> String {
    at.map_or("0001-01-01T00:00:00Z".to_owned(), |t| t.to_string())
}

pub(crate) fn network_mode(record: &ContainerRecord) -> String {
    match &record.spec.network {
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Named(name) => name.clone(),
    }
}

pub(crate) fn mounts(record: &ContainerRecord) -> Value {
    record
        .mounts
        .iter()
        .map(|m| {
            let mut out = json!({"Type": m.kind, "Source": m.source, "Destination": m.destination, "Mode": m.mode,
                                 "RW": m.rw, "Propagation": m.propagation});
            if m.kind == "volume" {
                out["Name"] = m.name.clone().into();
                out["Driver"] = m.driver.clone().into();
            }
            out
        })
        .collect()
}

fn healthcheck(check: &Healthcheck) -> Value {
    let mut out = json!({"Test": check.test});
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ] {
        if value != 0 {
            out[name] = value.into();
        }
    }
    out
}

fn config(record: &ContainerRecord) -> Value {
    let c = &record.spec.config;
    let set = |list: &[String]| -> Value {
        if list.is_empty() {
            Value::Null
        } else {
            list.iter().map(|k| (k.clone(), json!({}))).collect::<Map<_, _>>().into()
        }
    };
    let mut out = json!({
        "Hostname": c.hostname, "Domainname": c.domainname, "User": c.user, "AttachStdin": c.attach_stdin,
        "AttachStdout": c.attach_stdout, "AttachStderr": c.attach_stderr, "Tty": c.tty, "OpenStdin": c.open_stdin,
        "StdinOnce": c.stdin_once, "Env": c.env, "Cmd": c.cmd, "Image": record.spec.image, "Volumes": set(&c.volumes),
        "WorkingDir": c.working_dir, "Entrypoint": c.entrypoint,
        "OnBuild": if c.on_build.is_empty() { Value::Null } else { json!(c.on_build) }, "Labels": c.labels,
    });
    if !c.exposed_ports.is_empty() {
        out["ExposedPorts"] = set(&c.exposed_ports);
    }
    if let Some(signal) = &c.stop_signal {
        out["StopSignal"] = signal.clone().into();
    }
    if let Some(timeout) = c.stop_timeout {
        out["StopTimeout"] = timeout.into();
    }
    if let Some(check) = &c.healthcheck {
        out["Healthcheck"] = healthcheck(check);
    }
    if !c.shell.is_empty() {
        out["Shell"] = json!(c.shell);
    }
    if c.args_escaped {
        out["ArgsEscaped"] = true.into();
    }
    if c.network_disabled {
        out["NetworkDisabled"] = true.into();
    }
    out
}

/// Devices that have a limit, as the request names them.
fn devices(limits: &Limits, name: &str, value: fn(&DeviceLimits) -> u64) -> Value {
    limits.io.iter().filter(|d| value(d) > 0).map(|d| json!({"Path": d.path, name: value(d)})).collect()
}

/// The request's `HostConfig` with what an update has changed.
fn host_config(record: &ContainerRecord) -> Value {
    let mut host = record.spec.face.clone();
    let l = &record.spec.limits;
    let (name, retries) = match record.spec.restart {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure { max_retries } => ("on-failure", max_retries),
    };
    for (key, value) in [
        ("RestartPolicy", json!({"Name": name, "MaximumRetryCount": retries})),
        ("Memory", json!(l.memory)),
        ("MemoryReservation", json!(l.memory_reservation)),
        (
            "MemorySwap",
            if l.memory > 0 && l.memory_swap == 0 { json!(l.memory * 2) } else { json!(l.memory_swap) },
        ),
        ("NanoCpus", json!(l.nano_cpus)),
        ("CpuQuota", json!(l.cpu_quota)),
        ("CpuPeriod", json!(l.cpu_period)),
        ("CpuShares", json!(l.cpu_shares)),
        ("CpusetCpus", json!(l.cpuset_cpus)),
        ("CpusetMems", json!(l.cpuset_mems)),
        ("PidsLimit", if l.pids > 0 { json!(l.pids) } else { Value::Null }),
        ("BlkioWeight", json!(l.blkio_weight)),
        ("BlkioWeightDevice", devices(l, "Weight", |d| d.weight.into())),
        ("BlkioDeviceReadBps", devices(l, "Rate", |d| d.read_bps)),
        ("BlkioDeviceWriteBps", devices(l, "Rate", |d| d.write_bps)),
        ("BlkioDeviceReadIOps", devices(l, "Rate", |d| d.read_iops)),
        ("BlkioDeviceWriteIOps", devices(l, "Rate", |d| d.write_iops)),
        ("CpuCount", json!(l.cpu_count)),
        ("CpuPercent", json!(l.cpu_percent)),
        ("IOMaximumBandwidth", json!(l.io_bandwidth)),
        ("IOMaximumIOps", json!(l.io_operations)),
        ("CgroupParent", json!(l.cgroup_parent)),
        ("MemorySwappiness", json!(l.memory_swappiness)),
        ("OomKillDisable", json!(l.oom_kill_disable)),
        ("NetworkMode", json!(network_mode(record))),
    ] {
        host[key] = value;
    }
    host
}

fn network_settings(record: &ContainerRecord, version: ApiVersion) -> Value {
    let mut ports = Map::new();
    if record.state.status.is_running() {
        for exposed in &record.spec.config.exposed_ports {
            ports.insert(exposed.clone(), Value::Null);
        }
        for p in &record.published {
            let entry = ports.entry(format!("{}/{}", p.container_port, p.protocol)).or_insert(Value::Null);
            let binding = json!({"HostIp": p.host_ip, "HostPort": p.host_port.to_string()});
            match entry {
                Value::Array(list) => list.push(binding),
                other => *other = json!([binding]),
            }
        }
    }
    // Of the default network, for clients from before there were others.
    let adapter = record.adapters.iter().find(|a| a.network == "bridge");
    let first = record.adapters.first();
    let text = |address: Option<String>| address.unwrap_or_default();
    json!({
        "Bridge": "", "SandboxID": first.map_or("", |a| &a.endpoint_id), "SandboxKey": "", "Ports": ports,
        "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null, "EndpointID": adapter.map_or("", |a| &a.endpoint_id),
        "Gateway": text(adapter.and_then(|a| a.gateway).map(|g| g.to_string())),
        "GlobalIPv6Address": text(adapter.and_then(|a| a.ipv6).map(|ip| ip.to_string())),
        "GlobalIPv6PrefixLen": adapter.map_or(0, |a| a.prefix6),
        "IPAddress": text(adapter.and_then(|a| a.ipv4).map(|ip| ip.to_string())),
        "IPPrefixLen": adapter.map_or(0, |a| a.prefix),
        "IPv6Gateway": text(adapter.and_then(|a| a.gateway6).map(|g| g.to_string())),
        "MacAddress": adapter.map_or("", |a| &a.mac), "Networks": endpoints::networks(record, version),
    })
}

pub(crate) async fn inspect(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    query: Params,
) -> Answer {
    let summary = engine.inspect(&id, query.flag("size")).await?;
    let record = &summary.record;
    let state = &record.state;
    let paths = engine.paths(&record.id);
    let command: Vec<String> = record
        .spec
        .config
        .entrypoint
        .iter()
        .flatten()
        .chain(record.spec.config.cmd.iter().flatten())
        .cloned()
        .collect();
    let (program, arguments) = command.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    let running = matches!(state.status, Status::Running | Status::Paused | Status::Restarting);
    let mut shown = json!({
        "Status": state.status.as_str(), "Running": running, "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting, "OOMKilled": state.oom_killed, "Dead": state.status == Status::Dead,
        "Pid": state.pid, "ExitCode": state.exit_code, "Error": state.error, "StartedAt": time(state.started_at),
        "FinishedAt": time(state.finished_at),
    });
    if let Some(health) = &record.health {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|p| json!({"Start": p.start.to_string(), "End": p.end.to_string(), "ExitCode": p.exit_code, "Output": p.output}))
            .collect();
        shown["Health"] =
            json!({"Status": health.status, "FailingStreak": health.failing_streak, "Log": log});
    }
    let execs = engine.exec_ids(&record.id);
    let log = if record.spec.log.driver == "none" { String::new() } else { paths.log.display().to_string() };
    let mut out = json!({
        "Id": record.id, "Created": record.created.to_string(), "Path": program, "Args": arguments, "State": shown,
        "Image": record.image_id, "ResolvConfPath": paths.resolv_conf, "HostnamePath": paths.hostname,
        "HostsPath": paths.hosts, "LogPath": log, "Name": format!("/{}", record.name), "RestartCount": record.restart_count,
        "Driver": "overlay2", "Platform": record.os.as_str(), "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "",
        "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs) }, "HostConfig": host_config(record),
        "GraphDriver": {"Data": {"UpperDir": paths.dir.join("top")}, "Name": "overlay2"}, "Mounts": mounts(record),
        "Config": config(record), "NetworkSettings": network_settings(record, version),
    });
    if let Some((own, whole)) = summary.size {
        out["SizeRw"] = own.into();
        out["SizeRootFs"] = whole.into();
    }
    Ok(axum::Json(out).into_response())
}
