//! Confinement: capabilities, devices, `--security-opt`.

use silo_engine::guest::{DeviceRule, Seccomp, Security};

use super::body::HostConfig;
use crate::error::{Answer, ApiError};

pub(super) fn security(host: &HostConfig) -> Answer<Security> {
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
