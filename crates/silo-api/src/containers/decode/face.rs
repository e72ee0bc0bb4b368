//! `HostConfig` as inspect shows it.

use serde_json::{Map, Value, json};

use super::refused::is_zero;
use crate::names;

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
pub(super) fn spelled(host: &mut Value) {
    let (Some(given), zero) = (host.as_object_mut(), zero_face()) else { return };
    let Some(known) = zero.as_object() else { return };
    *given = std::mem::take(given)
        .into_iter()
        .map(|(name, value)| (names::spelled(known.keys().map(String::as_str), &name).to_owned(), value))
        .collect();
}

/// `HostConfig` as inspect shows it: dockerd's zero values with what was given over them.
pub(super) fn face(host: &Value) -> Value {
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
