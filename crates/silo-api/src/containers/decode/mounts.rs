//! `-v`, `--mount` and `--tmpfs` of a create request.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use silo_engine::{MountSource, MountSpec};

use super::body::{HostConfig, MountBody};
use super::refused::is_zero;
use crate::error::{Answer, ApiError};

/// Splits `source:target:mode`; a colon after one letter belongs to a Windows path.
fn split_bind(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for piece in text.split(':') {
        let drive = parts.last().is_some_and(|p| p.len() == 1 && p.as_bytes()[0].is_ascii_alphabetic());
        if drive
            && (piece.is_empty() || piece.starts_with('\\') || piece.starts_with('/'))
            && let Some(last) = parts.last_mut()
        {
            *last = format!("{last}:{piece}");
            continue;
        }
        parts.push(piece.to_owned());
    }
    parts
}

fn bind(text: &str) -> Answer<MountSpec> {
    let invalid = |why: &str| ApiError::bad(format!("invalid volume specification: '{text}'{why}"));
    let parts = split_bind(text);
    let (source, target, mode) = match parts.as_slice() {
        [target] => (String::new(), target.clone(), String::new()),
        [source, target] => (source.clone(), target.clone(), String::new()),
        [source, target, mode] => (source.clone(), target.clone(), mode.clone()),
        _ => return Err(invalid("")),
    };
    if target.is_empty() {
        return Err(invalid(": destination is missing"));
    }
    let (mut read_only, mut propagation, mut copy_up) = (false, String::new(), true);
    for word in mode.split(',').filter(|w| !w.is_empty()) {
        match word {
            "ro" => read_only = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" => copy_up = false,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                word.clone_into(&mut propagation)
            }
            _ => return Err(invalid(&format!(": invalid mode: {mode}"))),
        }
    }
    let kind = if source.starts_with('/') {
        MountSource::Bind { source, create: true }
    } else {
        MountSource::Volume { name: source, copy_up, labels: BTreeMap::new(), subpath: String::new() }
    };
    Ok(MountSpec { kind, target, read_only, mode, propagation, non_recursive: false })
}

fn mount(body: &MountBody) -> Answer<MountSpec> {
    let invalid =
        |why: String| ApiError::bad(format!("invalid mount config for type \"{}\": {why}", body.r#type));
    if body.target.is_empty() {
        return Err(invalid("field Target must not be empty".to_owned()));
    }
    for (options, field) in [
        (&body.bind_options, "ReadOnlyForceRecursive"),
        (&body.bind_options, "ReadOnlyNonRecursive"),
        (&body.tmpfs_options, "Options"),
    ] {
        if options.get(field).is_some_and(|v| !is_zero(v)) {
            return Err(invalid(format!("{field} is not supported by this version of silo")));
        }
    }
    let text = |options: &Value, name: &str| {
        options.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let flag = |options: &Value, name: &str| options.get(name).and_then(Value::as_bool).unwrap_or(false);
    let kind = match body.r#type.as_str() {
        "bind" => {
            if body.source.is_empty() {
                return Err(invalid("field Source must not be empty".to_owned()));
            }
            MountSource::Bind {
                source: body.source.clone(),
                create: flag(&body.bind_options, "CreateMountpoint"),
            }
        }
        "volume" => {
            if let Some(driver) = body.volume_options.get("DriverConfig").filter(|d| !is_zero(d)) {
                let name = text(driver, "Name");
                if !matches!(name.as_str(), "" | "local")
                    || driver.get("Options").is_some_and(|o| !is_zero(o))
                {
                    return Err(invalid(
                        "VolumeOptions.DriverConfig is not supported by this version of silo".to_owned(),
                    ));
                }
            }
            let subpath = text(&body.volume_options, "Subpath");
            let parts = std::path::Path::new(&subpath).components();
            if parts
                .into_iter()
                .any(|c| !matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir))
            {
                return Err(invalid("subpath must be a relative path within the volume".to_owned()));
            }
            let labels = body.volume_options.get("Labels").cloned().unwrap_or(json!({}));
            MountSource::Volume {
                name: body.source.clone(),
                copy_up: !flag(&body.volume_options, "NoCopy"),
                labels: serde_json::from_value(labels).unwrap_or_default(),
                subpath,
            }
        }
        "tmpfs" => {
            if !body.source.is_empty() {
                return Err(invalid("Source must not be specified".to_owned()));
            }
            let mut options = Vec::new();
            let number = |name: &str| body.tmpfs_options.get(name).and_then(Value::as_u64).filter(|n| *n > 0);
            options.extend(number("SizeBytes").map(|n| format!("size={n}")));
            options.extend(number("Mode").map(|n| format!("mode={n:o}")));
            MountSource::Tmpfs { options, by_mount: true }
        }
        other => {
            return Err(ApiError::bad(format!(
                "invalid mount config for type \"{other}\": mount type unknown"
            )));
        }
    };
    Ok(MountSpec {
        kind,
        target: body.target.clone(),
        read_only: body.read_only,
        mode: String::new(),
        propagation: text(&body.bind_options, "Propagation"),
        non_recursive: flag(&body.bind_options, "NonRecursive"),
    })
}

pub(super) fn mounts(host: &HostConfig) -> Answer<Vec<MountSpec>> {
    let mut all = host.binds.iter().map(|b| bind(b)).collect::<Answer<Vec<_>>>()?;
    let driver = host.volume_driver.as_str();
    if !matches!(driver, "" | "local") && all.iter().any(|m| matches!(m.kind, MountSource::Volume { .. })) {
        return Err(ApiError::not_found(format!(
            "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
        )));
    }
    for body in &host.mounts {
        all.push(mount(body)?);
    }
    for (target, options) in &host.tmpfs {
        let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
        all.push(MountSpec {
            read_only: options.iter().any(|o| o == "ro"),
            kind: MountSource::Tmpfs { options, by_mount: false },
            target: target.clone(),
            mode: String::new(),
            propagation: String::new(),
            non_recursive: false,
        });
    }
    Ok(all)
}
