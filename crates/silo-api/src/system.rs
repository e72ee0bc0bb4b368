//! `/_ping`, `/version`, `/info`, `/events`, `/system/df`.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Value, json};
use silo_engine::sandbox::Accounting;
use silo_engine::{Engine, Event};

use crate::build::Client;
use crate::error::{Answer, ApiError};
use crate::params::Params;
use crate::version::ApiVersion;
use crate::{containers, images, volumes};

pub(crate) async fn ping(method: Method) -> impl IntoResponse {
    let text = if method == Method::HEAD { "" } else { "OK" };
    (
        [
            (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
            (header::PRAGMA, "no-cache"),
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        ],
        [("Builder-Version", "1"), ("Swarm", "inactive")],
        text,
    )
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn arch() -> &'static str {
    if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" }
}

pub(crate) async fn version(State(engine): State<Engine>) -> Answer {
    let info = engine.info();
    Ok(axum::Json(json!({
        "Platform": {"Name": "Silo"},
        "Components": [{"Name": "Engine", "Version": VERSION, "Details": {
            "ApiVersion": "1.50", "Arch": arch(), "BuildTime": "", "Experimental": "false", "GitCommit": "",
            "GoVersion": "", "KernelVersion": info.kernel, "MinAPIVersion": "1.24", "Os": "linux"}}],
        "Version": VERSION, "ApiVersion": "1.50", "MinAPIVersion": "1.24", "GitCommit": "", "GoVersion": "",
        "Os": "linux", "Arch": arch(), "KernelVersion": info.kernel, "BuildTime": "",
    }))
    .into_response())
}

/// How registries are reached, as dockerd tells it.
fn registry_config(engine: &Engine) -> Value {
    let settings = &engine.config().registries;
    let (nets, hosts): (Vec<&String>, Vec<&String>) = settings.insecure.iter().partition(|e| e.contains('/'));
    let mut nets: Vec<String> = nets.into_iter().cloned().collect();
    nets.extend(["::1/128".to_owned(), "127.0.0.0/8".to_owned()]);
    let mut configs = serde_json::Map::new();
    for host in hosts {
        configs
            .insert(host.clone(), json!({"Name": host, "Mirrors": [], "Secure": false, "Official": false}));
    }
    let own = json!({"Name": "docker.io", "Mirrors": settings.mirrors, "Secure": true, "Official": true});
    configs.insert("docker.io".to_owned(), own);
    json!({"InsecureRegistryCIDRs": nets, "IndexConfigs": configs, "Mirrors": settings.mirrors})
}

/// A proxy's URL without the password in it.
fn proxy(url: &Option<String>) -> String {
    let url = url.as_deref().unwrap_or_default();
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}xxxxx:xxxxx{}", &url[..scheme + 3], &url[at..])
        }
        _ => url.to_owned(),
    }
}

/// What this host cannot do, in dockerd's words.
fn warnings(limits: &Accounting, version: u8, forwards: bool) -> Vec<String> {
    let (old, new) = (version == 1, version == 2);
    let all = [
        (!limits.memory, "memory limit"),
        (!limits.swap, "swap limit"),
        (!limits.oom_control && old, "oom kill disable"),
        (!limits.cpu_quota, "cpu cfs quota"),
        (!limits.cpu_quota, "cpu cfs period"),
        (!limits.cpu_shares, "cpu shares"),
        (!limits.cpuset, "cpuset"),
        // Of v1 kernels have had none for years.
        (!limits.io_weight && new, "io.weight"),
        (!limits.io_weight_device && new, "io.weight (per device)"),
        (!limits.read_bps, if new { "io.max (rbps)" } else { "blkio throttle.read_bps_device" }),
        (!limits.write_bps, if new { "io.max (wbps)" } else { "blkio throttle.write_bps_device" }),
        (!limits.read_iops, if new { "io.max (riops)" } else { "blkio throttle.read_iops_device" }),
        (!limits.write_iops, if new { "io.max (wiops)" } else { "blkio throttle.write_iops_device" }),
    ];
    let missing =
        all.into_iter().filter(|(is, _)| *is).map(|(_, what)| format!("WARNING: No {what} support"));
    let forwarding = (!forwards).then(|| "WARNING: IPv4 forwarding is disabled".to_owned());
    missing.chain(forwarding).collect()
}

fn forwards() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

pub(crate) async fn info(State(engine): State<Engine>) -> Answer {
    let info = engine.info();
    let (limits, forwards) = (&info.accounting, forwards());
    let warnings = warnings(limits, info.cgroup_version, forwards);
    let warnings = if warnings.is_empty() { Value::Null } else { json!(warnings) };
    let registries = &engine.config().registries;
    Ok(axum::Json(json!({
        "ID": info.id, "Containers": info.containers, "ContainersRunning": info.running,
        "ContainersPaused": info.paused, "ContainersStopped": info.stopped, "Images": info.images,
        "Driver": info.driver,
        "DriverStatus": [["Backing Filesystem", info.backing_filesystem], ["Supports d_type", "true"], ["Native Overlay Diff", "true"],
            ["hyperv", info.machines], ["hyperv directory", info.vm], ["pool", info.pool]],
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "ipvlan", "macvlan", "null"], "Authorization": null, "Log": ["json-file", "none"]},
        "MemoryLimit": limits.memory, "SwapLimit": limits.swap, "CpuCfsPeriod": limits.cpu_quota, "CpuCfsQuota": limits.cpu_quota,
        "CPUShares": limits.cpu_shares, "CPUSet": limits.cpuset, "PidsLimit": limits.pids, "IPv4Forwarding": forwards, "Debug": false, "NFd": 0, "OomKillDisable": limits.oom_control,
        "NGoroutines": 0, "SystemTime": jiff::Timestamp::now().to_string(), "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs", "CgroupVersion": info.cgroup_version.to_string(), "NEventsListener": 0,
        "KernelVersion": info.kernel, "OperatingSystem": info.operating_system, "OSVersion": info.os_version,
        "OSType": "linux", "Architecture": std::env::consts::ARCH, "IndexServerAddress": silo_engine::images::DEFAULT_SERVER,
        "RegistryConfig": registry_config(&engine),
        "NCPU": info.cpus, "MemTotal": info.memory, "GenericResources": null, "DockerRootDir": info.root,
        "HttpProxy": proxy(&registries.http_proxy), "HttpsProxy": proxy(&registries.https_proxy), "NoProxy": registries.no_proxy, "Name": info.name, "Labels": [], "ExperimentalBuild": false,
        "ServerVersion": VERSION, "Runtimes": {"silo": {"path": "silo"}}, "DefaultRuntime": "silo",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
        "LiveRestoreEnabled": true, "Isolation": info.default_isolation, "InitBinary": "silo-linux-init",
        "ContainerdCommit": {"ID": ""}, "RuncCommit": {"ID": ""}, "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin"], "CDISpecDirs": [], "Warnings": warnings,
    }))
    .into_response())
}

fn event_json(event: &Event) -> Value {
    let mut out = json!({
        "Type": event.kind, "Action": event.action, "Actor": {"ID": event.actor, "Attributes": event.attributes},
        "scope": "local", "time": event.time.as_second(), "timeNano": event.time.as_nanosecond() as i64,
    });
    if event.kind == "container" {
        out["status"] = event.action.clone().into();
        out["id"] = event.actor.clone().into();
        out["from"] = event.attributes.get("image").cloned().into();
    } else if event.kind == "image" {
        out["status"] = event.action.clone().into();
        out["id"] = event.actor.clone().into();
    }
    out
}

/// dockerd's; those of objects that Silo has not match nothing.
const EVENT_FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

pub(crate) async fn events(State(engine): State<Engine>, query: Params) -> Answer {
    let time = |name: &str| query.get(name).map(silo_engine::time::parse).transpose();
    let filters = query.filters()?;
    if let Some(unknown) = filters.unknown(EVENT_FILTERS) {
        return Err(ApiError::bad(format!("invalid filter '{unknown}'")));
    }
    let mut events = engine.subscribe(time("since")?, time("until")?, filters);
    let lines = futures_util::stream::poll_fn(move |cx| {
        events.poll_recv(cx).map(|e| {
            e.map(|e| Ok::<_, std::convert::Infallible>(Bytes::from(format!("{}\n", event_json(&e)))))
        })
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

pub(crate) async fn disk_usage(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
) -> Answer {
    let usage = engine.disk_usage().await?;
    let counts = engine.image_containers();
    let images: Vec<Value> = engine
        .images()
        .list()
        .iter()
        .map(|image| {
            let containers = counts.get(image.id.as_str()).map_or(0, |c| *c as i64);
            let mut out = images::summary(&engine, image, containers, true);
            // Here what it takes, archives and all: what goes with it is reclaimed.
            if let Some(on_disk) = usage.images.images.get(&image.id) {
                (out["Size"], out["SharedSize"]) = (on_disk.size.into(), on_disk.shared.into());
            }
            out
        })
        .collect();
    let links = engine.link_names();
    let containers: Vec<Value> = usage
        .containers
        .iter()
        .map(|c| containers::list::row(&engine, c, links.get(&c.record.id.0), version))
        .collect();
    let cache: Vec<Value> = usage.cache.iter().map(crate::build::cache_row).collect();
    let volumes: Vec<Value> = usage
        .volumes
        .iter()
        .map(|(volume, bytes, users)| {
            let mut out = volumes::show(volume);
            out["UsageData"] = json!({"Size": bytes, "RefCount": users});
            out
        })
        .collect();
    Ok(axum::Json(json!({
        "LayersSize": usage.images.total, "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": cache,
    }))
    .into_response())
}

/// How long somebody may wait for spares.
const SPARES: std::time::Duration = std::time::Duration::from_secs(60);

/// `/silo/pool`: the spares, as soon as `ready` of them are.
pub(crate) async fn pool(State(engine): State<Engine>, query: Params) -> Answer {
    let wanted = query.get("ready").map_or(Ok(0), str::parse);
    let wanted = wanted.map_err(|_| ApiError::bad("invalid parameter: ready is no number"))?;
    let pool = engine.await_spares(wanted, SPARES).await;
    let spares: Vec<Value> = pool
        .ready
        .iter()
        .map(|s| json!({"Id": s.id, "Key": s.key, "Pid": s.pid, "Memory": s.bytes}))
        .collect();
    Ok(axum::Json(json!({"Most": pool.most, "Making": pool.making, "Ranges": pool.ranges, "Ready": spares}))
        .into_response())
}

/// A session is BuildKit's.
pub(crate) async fn no_build() -> ApiError {
    ApiError::bad("sessions (BuildKit) are not supported by this version of silo")
}

/// How long a client may take to read that everything is down.
const READ_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Takes everything of the networks away; the daemon ends once the client has read that.
pub(crate) async fn down(
    State(engine): State<Engine>,
    Extension(client): Extension<Client>,
    query: Params,
) -> Answer {
    engine.take_down(query.flag("force")).await?;
    tokio::spawn(async move {
        let _ = tokio::time::timeout(READ_LIMIT, client.gone()).await;
        engine.end();
    });
    Ok(axum::http::StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_cannot_do_is_warned_of() {
        let none = Accounting::default();
        let said = warnings(&none, 2, false);
        assert!(said.contains(&"WARNING: No io.max (rbps) support".to_owned()), "{said:?}");
        assert!(!said.contains(&"WARNING: No oom kill disable support".to_owned()), "{said:?}");
        assert_eq!(said.last().unwrap(), "WARNING: IPv4 forwarding is disabled");
        let said = warnings(&Accounting { memory: true, ..none }, 1, true);
        assert!(
            said.contains(&"WARNING: No blkio throttle.write_iops_device support".to_owned()),
            "{said:?}"
        );
        assert!(said.contains(&"WARNING: No oom kill disable support".to_owned()), "{said:?}");
        assert!(!said.iter().any(|w| w.contains("memory limit") || w.contains("io.weight")), "{said:?}");
    }
}
