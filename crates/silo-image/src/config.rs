//! An image's config: the JSON that its ID is the digest of. Read leniently, kept byte for byte.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::digest::Digest;

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// `{"/data": {}}` or `null` as a sorted list of keys.
fn keys<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<BTreeMap<String, Value>>::deserialize(d)?.unwrap_or_default().into_keys().collect())
}

/// The image config (OCI image specification, config.md, and Docker's additions).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `linux`, `windows`.
    #[serde(deserialize_with = "nullable")]
    pub os: String,
    /// `10.0.20348.…` for Windows.
    #[serde(rename = "os.version", deserialize_with = "nullable")]
    pub os_version: String,
    /// What of the OS it needs: `win32k`.
    #[serde(rename = "os.features", deserialize_with = "nullable")]
    pub os_features: Vec<String>,
    /// `amd64`.
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    /// `v8`.
    #[serde(deserialize_with = "nullable")]
    pub variant: String,
    /// When.
    pub created: Option<Timestamp>,
    /// Who.
    #[serde(deserialize_with = "nullable")]
    pub author: String,
    /// Commit message.
    #[serde(deserialize_with = "nullable")]
    pub comment: String,
    /// Defaults for containers.
    #[serde(deserialize_with = "nullable")]
    pub config: ContainerConfig,
    /// Layers.
    #[serde(deserialize_with = "nullable")]
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(deserialize_with = "nullable")]
    pub history: Vec<HistoryEntry>,
}

/// `rootfs`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

/// One step of `history`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Command.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Message.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// No layer belongs to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Defaults for containers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// Host name (of the container that was committed).
    #[serde(deserialize_with = "nullable")]
    pub hostname: String,
    /// User.
    #[serde(deserialize_with = "nullable")]
    pub user: String,
    /// Environment.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Command.
    pub cmd: Option<Vec<String>>,
    /// Entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// `Cmd[0]` is a whole command line (Windows).
    #[serde(deserialize_with = "nullable")]
    pub args_escaped: bool,
    /// Working directory.
    #[serde(deserialize_with = "nullable")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Volumes.
    #[serde(deserialize_with = "keys")]
    pub volumes: Vec<String>,
    /// Ports.
    #[serde(deserialize_with = "keys")]
    pub exposed_ports: Vec<String>,
    /// Stop signal.
    #[serde(deserialize_with = "nullable")]
    pub stop_signal: String,
    /// Shell of the shell form.
    #[serde(deserialize_with = "nullable")]
    pub shell: Vec<String>,
    /// Triggers.
    #[serde(deserialize_with = "nullable")]
    pub on_build: Vec<String>,
    /// Health check.
    pub healthcheck: Option<Healthcheck>,
}

/// What dockerd leaves out of its JSON.
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Health check; times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["CMD", …]`.
    #[serde(deserialize_with = "nullable")]
    pub test: Vec<String>,
    /// Between probes.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of a probe.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Grace.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between probes in the grace.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

impl ContainerConfig {
    /// As Docker writes it into an image's config; what is empty is left out but the five fields that are always there.
    pub fn to_json(&self) -> Value {
        let set = |list: &[String]| -> Value {
            list.iter().map(|k| (k.clone(), json!({}))).collect::<Map<_, _>>().into()
        };
        let mut map = Map::new();
        let mut put = |name: &str, value: Value, wanted: bool| {
            if wanted {
                map.insert(name.to_owned(), value);
            }
        };
        put("Hostname", json!(self.hostname), !self.hostname.is_empty());
        put("User", json!(self.user), !self.user.is_empty());
        put("ExposedPorts", set(&self.exposed_ports), !self.exposed_ports.is_empty());
        put("Env", json!(self.env), !self.env.is_empty());
        put("Entrypoint", json!(self.entrypoint), self.entrypoint.is_some());
        put("Cmd", json!(self.cmd), self.cmd.is_some());
        put("Healthcheck", json!(self.healthcheck), self.healthcheck.is_some());
        put("ArgsEscaped", json!(true), self.args_escaped);
        put("Volumes", set(&self.volumes), !self.volumes.is_empty());
        put("WorkingDir", json!(self.working_dir), !self.working_dir.is_empty());
        put("Labels", json!(self.labels), !self.labels.is_empty());
        put("StopSignal", json!(self.stop_signal), !self.stop_signal.is_empty());
        put("Shell", json!(self.shell), !self.shell.is_empty());
        put("OnBuild", json!(self.on_build), !self.on_build.is_empty());
        map.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_strangers_are_read() {
        let text = r#"{"os":"linux","architecture":"amd64","created":"2024-01-01T00:00:00.5Z","config":{"Env":null,"Cmd":["sh"],
            "Volumes":{"/b":{},"/a":{}},"Labels":null,"Tty":false},"rootfs":{"type":"layers","diff_ids":null},"history":null,"x":1}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(config.config.volumes, ["/a", "/b"]);
        let again: ContainerConfig = serde_json::from_value(config.config.to_json()).unwrap();
        assert_eq!(again, config.config);
    }
}
