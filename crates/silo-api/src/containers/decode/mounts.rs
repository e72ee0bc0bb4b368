//! `-v`, `--mount` and `--tmpfs` of a create request.

use std::collections::BTreeMap;

use serde_json::Value;
use silo_engine::{MountMode, MountSource, MountSpec};

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

/// The words of a fault of one `-v` or `--mount`, without those of the whole.
type Checked<T> = Result<T, String>;

/// `C:\data`, `D:`; a Windows container's own form of a path. Others are taken for Linux paths, which it knows too.
fn is_windows(target: &str) -> bool {
    target.starts_with('\\') || target.as_bytes().get(1) == Some(&b':')
}

/// A target as `inspect` shows it: without what says nothing.
fn clean_target(target: &str) -> Checked<String> {
    if target.is_empty() {
        return Err("field Target must not be empty".to_owned());
    }
    if is_windows(target) {
        let target = target.replace('/', "\\");
        let whole_drive = target.len() <= 3;
        return Ok(if whole_drive { target } else { target.trim_end_matches('\\').to_owned() });
    }
    if !target.starts_with('/') {
        return Err(format!("invalid mount path: '{target}' mount path must be absolute"));
    }
    match clean(target) {
        parts if parts.is_empty() => Err("invalid specification: destination can't be '/'".to_owned()),
        parts => Ok(format!("/{}", parts.join("/"))),
    }
}

/// The parts of a path without `.` and `..`; what leads above the first is left out.
fn clean(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts
}

/// A path that does not lead out of the volume by its own words.
fn clean_subpath(path: &str) -> Checked<String> {
    let mut depth = 0_i32;
    for part in path.split('/') {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        if depth < 0 {
            return Err(OUTSIDE.to_owned());
        }
    }
    if path.starts_with('/') { Err(OUTSIDE.to_owned()) } else { Ok(clean(path).join("/")) }
}

const OUTSIDE: &str = "subpath must be a relative path within the volume";

fn of_type(kind: &str, why: &str) -> String {
    format!("invalid mount config for type {kind:?}: {why}")
}

fn bind(text: &str) -> Answer<MountSpec> {
    let invalid = |why: &str| ApiError::bad(format!("invalid volume specification: '{text}'{why}"));
    let parts = split_bind(text);
    let (source, target, words) = match parts.as_slice() {
        [target] => ("", target.as_str(), ""),
        [_, mode] if MountMode::parse(mode).is_some() => return Err(invalid("")),
        [source, target] => (source.as_str(), target.as_str(), ""),
        [source, target, mode] => (source.as_str(), target.as_str(), mode.as_str()),
        _ => return Err(invalid("")),
    };
    if parts[0].is_empty() {
        return Err(invalid(""));
    }
    // `name:d:rw`
    let is_drive = target.len() == 1 && target.as_bytes()[0].is_ascii_alphabetic() && !words.is_empty();
    let target = if is_drive { format!("{target}:") } else { target.to_owned() };
    let words = if is_windows(&target) { words.to_ascii_lowercase() } else { words.to_owned() };
    let mode = MountMode::parse(&words).ok_or_else(|| ApiError::bad(format!("invalid mode: {words}")))?;
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let typed = |why: &str| invalid(&format!(": {}", of_type(kind, why)));
    let target = clean_target(&target).map_err(|why| typed(&why))?;
    let kind = if kind == "bind" {
        if mode.no_copy {
            return Err(typed("field VolumeOptions must not be specified"));
        }
        MountSource::Bind { source: source.to_owned(), create: true }
    } else {
        if !mode.propagation.is_empty() {
            return Err(typed("field BindOptions must not be specified"));
        }
        volume(source, !mode.no_copy)
    };
    let shown = shown_mode(&kind, &words);
    Ok(MountSpec {
        kind,
        target,
        read_only: mode.read_only,
        mode: shown,
        propagation: mode.propagation,
        non_recursive: false,
    })
}

fn volume(name: &str, copies: bool) -> MountSource {
    let mut made = MountSource::anonymous_volume();
    if let MountSource::Volume { name: own, copy_up, anonymous, .. } = &mut made {
        name.clone_into(own);
        *copy_up = copies;
        *anonymous = false;
    }
    made
}

/// dockerd shows volumes that were asked for without a mode as labelled.
fn shown_mode(kind: &MountSource, words: &str) -> String {
    match kind {
        MountSource::Volume { .. } if words.is_empty() => "z".to_owned(),
        _ => words.to_owned(),
    }
}

fn no_driver(volume: &str, driver: &str) -> ApiError {
    ApiError::not_found(format!(
        "create {volume}: error looking up volume plugin {driver}: plugin {driver:?} not found"
    ))
}

fn text(options: &Value, name: &str) -> String {
    options.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn words(options: &Value, name: &str) -> Checked<BTreeMap<String, String>> {
    match options.get(name) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(value) => {
            serde_json::from_value(value.clone()).map_err(|_| format!("field {name} must be a list of words"))
        }
    }
}

fn flag(options: &Value, name: &str) -> bool {
    options.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn mount(body: &MountBody) -> Answer<MountSpec> {
    let invalid = |why: String| ApiError::bad(of_type(&body.r#type, &why));
    let target = clean_target(&body.target).map_err(invalid)?;
    for (options, field) in [
        (&body.bind_options, "ReadOnlyForceRecursive"),
        (&body.bind_options, "ReadOnlyNonRecursive"),
        (&body.tmpfs_options, "Options"),
    ] {
        if options.get(field).is_some_and(|v| !is_zero(v)) {
            return Err(invalid(format!("{field} is not supported by this version of silo")));
        }
    }
    let foreign = |options: &Value, field: &str| match options {
        Value::Null => Ok(()),
        _ => Err(invalid(format!("field {field} must not be specified"))),
    };
    let propagation = text(&body.bind_options, "Propagation");
    let kind = match body.r#type.as_str() {
        "bind" => {
            if body.source.is_empty() {
                return Err(invalid("field Source must not be empty".to_owned()));
            }
            if MountMode::parse(&propagation).is_none_or(|m| m.propagation != propagation) {
                return Err(invalid(format!("invalid propagation mode: {propagation}")));
            }
            foreign(&body.volume_options, "VolumeOptions")?;
            MountSource::Bind {
                source: body.source.clone(),
                create: flag(&body.bind_options, "CreateMountpoint"),
            }
        }
        "volume" => {
            foreign(&body.bind_options, "BindOptions")?;
            let asked = &body.volume_options;
            let subpath = text(asked, "Subpath");
            let anonymous = body.source.is_empty();
            if anonymous && !subpath.is_empty() {
                return Err(invalid("must not set Subpath when using anonymous volumes".to_owned()));
            }
            if anonymous && body.read_only {
                return Err(invalid("must not set ReadOnly mode when using anonymous volumes".to_owned()));
            }
            let driver = asked.get("DriverConfig").unwrap_or(&Value::Null);
            let name = text(driver, "Name");
            if !matches!(name.as_str(), "" | "local") {
                return Err(no_driver(&body.source, &name));
            }
            MountSource::Volume {
                name: body.source.clone(),
                copy_up: !flag(asked, "NoCopy"),
                labels: words(asked, "Labels").map_err(invalid)?,
                subpath: clean_subpath(&subpath).map_err(invalid)?,
                options: words(driver, "Options").map_err(invalid)?,
                anonymous,
            }
        }
        "tmpfs" => {
            foreign(&body.bind_options, "BindOptions")?;
            if !body.source.is_empty() {
                return Err(invalid("field Source must not be specified".to_owned()));
            }
            let mut options = Vec::new();
            let number = |name: &str| body.tmpfs_options.get(name).and_then(Value::as_u64).filter(|n| *n > 0);
            options.extend(number("SizeBytes").map(|n| format!("size={n}")));
            options.extend(number("Mode").map(|n| format!("mode={n:o}")));
            MountSource::Tmpfs { options, by_mount: true }
        }
        _ => return Err(invalid("mount type unknown".to_owned())),
    };
    let mode = shown_mode(&kind, "");
    Ok(MountSpec {
        kind,
        target,
        read_only: body.read_only,
        mode,
        propagation,
        non_recursive: flag(&body.bind_options, "NonRecursive"),
    })
}

pub(super) fn mounts(host: &HostConfig) -> Answer<Vec<MountSpec>> {
    let mut all = host.binds.iter().map(|b| bind(b)).collect::<Answer<Vec<_>>>()?;
    let driver = host.volume_driver.as_str();
    if !matches!(driver, "" | "local") {
        for mount in &all {
            if let MountSource::Volume { name, .. } = &mount.kind {
                return Err(no_driver(name, driver));
            }
        }
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
