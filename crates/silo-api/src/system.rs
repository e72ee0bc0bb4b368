//! `/_ping`, `/version`, `/info`, `/events`, `/system/df`, `/auth`.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Value, json};
use silo_engine::{Engine, Event};

use crate::error::{Answer, ApiError};
use crate::params::Params;
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

pub(crate) async fn info(State(engine): State<Engine>) -> Answer {
    let info = engine.info();
    Ok(axum::Json(json!({
        "ID": info.id, "Containers": info.containers, "ContainersRunning": info.running,
        "ContainersPaused": info.paused, "ContainersStopped": info.stopped, "Images": info.images,
        "Driver": info.driver,
        "DriverStatus": [["Backing Filesystem", info.backing_filesystem], ["Supports d_type", "true"], ["Native Overlay Diff", "true"]],
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file", "none"]},
        "MemoryLimit": true, "SwapLimit": info.accounting.swap, "CpuCfsPeriod": true, "CpuCfsQuota": true, "CPUShares": true, "CPUSet": true,
        "PidsLimit": true, "IPv4Forwarding": true, "Debug": false, "NFd": 0, "OomKillDisable": info.accounting.oom_control,
        "NGoroutines": 0, "SystemTime": jiff::Timestamp::now().to_string(), "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs", "CgroupVersion": info.cgroup_version.to_string(), "NEventsListener": 0,
        "KernelVersion": info.kernel, "OperatingSystem": info.operating_system, "OSVersion": info.os_version,
        "OSType": "linux", "Architecture": std::env::consts::ARCH, "IndexServerAddress": "",
        "RegistryConfig": {"InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": null},
        "NCPU": info.cpus, "MemTotal": info.memory, "GenericResources": null, "DockerRootDir": info.root,
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "", "Name": info.name, "Labels": [], "ExperimentalBuild": false,
        "ServerVersion": VERSION, "Runtimes": {"silo": {"path": "silo"}}, "DefaultRuntime": "silo",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
        "LiveRestoreEnabled": true, "Isolation": info.default_isolation, "InitBinary": "silo-linux-init",
        "ContainerdCommit": {"ID": ""}, "RuncCommit": {"ID": ""}, "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin"], "CDISpecDirs": [], "Warnings": null,
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

pub(crate) async fn disk_usage(State(engine): State<Engine>) -> Answer {
    let usage = engine.disk_usage().await?;
    let counts = engine.image_containers();
    let images: Vec<Value> = engine
        .images()
        .list()
        .iter()
        .map(|i| images::summary(&engine, i, counts.get(i.id.as_str()).map_or(0, |c| *c as i64), true))
        .collect();
    let links = engine.link_names();
    let containers: Vec<Value> = usage
        .containers
        .iter()
        .map(|c| containers::list::row(&engine, c, links.get(&c.record.id.0)))
        .collect();
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
        "LayersSize": usage.layers, "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": [],
    }))
    .into_response())
}

pub(crate) async fn auth() -> ApiError {
    ApiError::unsupported("this version of silo does not speak to registries yet: login is not supported")
}

pub(crate) async fn no_build() -> ApiError {
    ApiError::bad("build is not supported by this version of silo")
}
