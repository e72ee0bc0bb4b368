//! `RUN --mount=type=…,key=value,…`.

use super::ast::{Mount, MountKind, Sharing};
use super::words::{go_quote, meant};

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// A mount that has no variables; `None` if it has some: then it is known when it is expanded.
pub(super) fn parse_fixed(text: &str) -> Result<Option<Mount>, String> {
    from(text)?;
    if text.contains('$') { Ok(None) } else { parse(text, &|v| Ok(v.to_owned())).map(Some) }
}

/// The stage or image that a mount names; no variable may stand there.
pub(crate) fn from(text: &str) -> Result<Option<String>, String> {
    let fields = csv(text)?;
    let from = fields.iter().filter_map(|f| f.split_once('=')).rfind(|(k, _)| k.eq_ignore_ascii_case("from"));
    match from {
        Some((_, value)) if value.find('$').is_some_and(|at| at + 1 < value.len()) => {
            Err("'from' doesn't support variable expansion, define alias stage instead".to_owned())
        }
        Some((_, value)) if !value.is_empty() => Ok(Some(value.to_owned())),
        _ => Ok(None),
    }
}

/// Reads a mount; `expand` replaces variables in a value.
pub(super) fn parse(text: &str, expand: &dyn Fn(&str) -> Result<String, String>) -> Result<Mount, String> {
    let mut kind = "bind".to_owned();
    let (mut from, mut source, mut target, mut id, mut env) = (None, None, None, None, None);
    let (mut mode, mut uid, mut gid, mut size) = (None, None, None, None);
    let (mut read_only, mut required, mut sharing) = (None, false, None);
    for field in csv(text)? {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(k, v)| (k, Some(v)));
        let key = key.to_ascii_lowercase();
        let value = match value {
            Some(value) => expand(value)?,
            None if ["readonly", "ro", "readwrite", "rw", "required"].contains(&key.as_str()) => {
                "true".to_owned()
            }
            None => return Err(format!("invalid field '{field}' must be a key=value pair")),
        };
        let invalid = || format!("invalid value for {key}: {value}");
        let unexpected = || format!("unexpected key '{key}' for mount type '{kind}'");
        match key.as_str() {
            "type" => {
                let lower = value.to_ascii_lowercase();
                if !TYPES.contains(&lower.as_str()) {
                    return Err(meant(format!("unsupported mount type {}", go_quote(&value)), &value, TYPES));
                }
                kind = lower;
            }
            "from" => from = Some(value).filter(|v| !v.is_empty()),
            "source" | "src" => source = Some(value),
            "target" | "dst" | "destination" => target = Some(value),
            "readonly" | "ro" => read_only = Some(bool(&value).ok_or_else(invalid)?),
            "readwrite" | "rw" => read_only = Some(!bool(&value).ok_or_else(invalid)?),
            "required" if ["secret", "ssh"].contains(&kind.as_str()) => {
                required = bool(&value).ok_or_else(invalid)?
            }
            "size" if kind == "tmpfs" => size = Some(silo_engine::size::bytes(&value).ok_or_else(invalid)?),
            "required" | "size" => return Err(unexpected()),
            "id" => id = Some(value),
            "sharing" => {
                sharing = Some(match value.to_ascii_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => {
                        let why = format!("unsupported sharing value {}", go_quote(&value));
                        return Err(meant(why, &value, SHARINGS));
                    }
                });
            }
            "mode" => {
                let octal = u32::from_str_radix(&value, 8);
                mode = Some(octal.map_err(|_| format!("invalid value {value} for mode"))?);
            }
            "uid" => uid = Some(value.parse::<u32>().map_err(|_| format!("invalid value {value} for uid"))?),
            "gid" => gid = Some(value.parse::<u32>().map_err(|_| format!("invalid value {value} for gid"))?),
            "env" => env = Some(value),
            _ => return Err(meant(format!("unexpected key '{key}' in '{field}'"), &key, KEYS)),
        }
    }
    let quoted = go_quote(&kind);
    let owned = [("mode", mode), ("uid", uid), ("gid", gid)];
    if let (true, Some((key, _))) =
        (["bind", "tmpfs"].contains(&kind.as_str()), owned.iter().find(|(_, v)| v.is_some()))
    {
        return Err(format!("{key} not allowed for {quoted} type mounts"));
    }
    if kind == "secret" {
        let why = match () {
            () if from.is_some() => Some("secret mount should not have a from"),
            () if sharing.is_some() => Some("secret mount should not define sharing"),
            () if source.is_none() && target.is_none() && id.is_none() => {
                Some("invalid secret mount. one of source, target required")
            }
            () if source.is_some() && id.is_some() => Some("both source and id can't be set"),
            () => None,
        };
        if let Some(why) = why {
            return Err(why.to_owned());
        }
    }
    if sharing.is_some() && kind != "cache" {
        return Err(format!("invalid cache sharing set for {kind} mount"));
    }
    let (uid, gid) = (uid.unwrap_or(0), gid.unwrap_or(0));
    // As dockerd: no target is the working directory.
    let directory = |target: Option<String>| Some(target.unwrap_or_else(|| ".".to_owned()));
    Ok(match kind.as_str() {
        "cache" => Mount {
            kind: MountKind::Cache {
                id,
                from,
                source: source.unwrap_or_default(),
                sharing: sharing.unwrap_or_default(),
                read_only: read_only.unwrap_or(false),
                mode: mode.unwrap_or(0o755),
                uid,
                gid,
            },
            target: directory(target),
        },
        "tmpfs" => Mount { kind: MountKind::Tmpfs { size }, target: directory(target) },
        "secret" => {
            let base = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
            let id = source.or(id).or_else(|| target.as_ref().map(base)).unwrap_or_default();
            if id.is_empty() {
                return Err("invalid secret mount. one of source, target required".to_owned());
            }
            let kind = MountKind::Secret { id, env, required, mode: mode.unwrap_or(0o400), uid, gid };
            Mount { kind, target }
        }
        "ssh" => {
            let id = id.unwrap_or_else(|| "default".to_owned());
            Mount { kind: MountKind::Ssh { id, required }, target }
        }
        _ => {
            let writable = read_only == Some(false);
            Mount {
                kind: MountKind::Bind { from, source: source.unwrap_or_default(), writable },
                target: directory(target),
            }
        }
    })
}

/// Go's `ParseBool`.
fn bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Fields between commas; one in quotes may have commas, and quotes that are doubled.
fn csv(text: &str) -> Result<Vec<String>, String> {
    let wrong = |why: &str| format!("failed to parse csv mounts: {why}");
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let Some(end) = quoted.find('"') else {
                    return Err(wrong("extraneous or missing \" in quoted-field"));
                };
                field.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                match quoted.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        quoted = more;
                    }
                    None => break,
                }
            }
            rest = quoted;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err(wrong("bare \" in non-quoted-field"));
            }
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(fields),
            None => return Err(wrong("extraneous or missing \" in quoted-field")),
        }
    }
}
