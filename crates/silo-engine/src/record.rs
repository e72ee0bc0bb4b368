//! What exists: a container, its state, its execs, as stored and as shown.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use silo_guest::Os;
use silo_network::AdapterRecord;
use silo_sandbox::Isolation;

use crate::spec::ContainerSpec;

/// 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

impl ContainerId {
    /// The first 12 digits.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container: what was asked, what was resolved, what state it is in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// ID.
    pub id: ContainerId,
    /// Without the leading slash.
    pub name: String,
    /// When.
    pub created: Timestamp,
    /// The image's ID, `sha256:…`.
    pub image_id: String,
    /// Its OS.
    pub os: Os,
    /// Where it runs.
    pub isolation: Isolation,
    /// Merged with the image's config.
    pub spec: ContainerSpec,
    /// Resolved mounts, for inspect.
    pub mounts: Vec<MountPoint>,
    /// First id of its range of host ids.
    pub id_range: u32,
    /// State.
    pub state: State,
    /// Restarts by policy.
    pub restart_count: u32,
    /// The user stopped it: `unless-stopped` and `always` leave it alone until the next start.
    pub stopped_by_user: bool,
    /// The removal under way takes its anonymous volumes too.
    #[serde(default)]
    pub removes_volumes: bool,
    /// Adapters while running, in the order of their making. Records of before have one `adapter`, or none.
    #[serde(default, alias = "adapter", deserialize_with = "adapters")]
    pub adapters: Vec<AdapterRecord>,
    /// A change of its networks while it runs has begun: after a crash what there is may be neither the old nor the new.
    #[serde(default)]
    pub networks_changing: bool,
    /// Published ports while running.
    pub published: Vec<silo_network::PublishedPort>,
    /// Health, when there is a check.
    pub health: Option<Health>,
}

/// Reads the list, or what records of before have in its place.
fn adapters<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<AdapterRecord>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Many(Vec<AdapterRecord>),
        One(Box<AdapterRecord>),
        None(()),
    }
    Ok(match Stored::deserialize(from)? {
        Stored::Many(list) => list,
        Stored::One(adapter) => vec![*adapter],
        Stored::None(()) => Vec::new(),
    })
}

impl ContainerRecord {
    /// The adapter on a network.
    pub fn adapter_on(&self, network_id: &str) -> Option<&AdapterRecord> {
        self.adapters.iter().find(|a| a.network_id == network_id)
    }
}

/// A mount as `inspect` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs`.
    pub kind: String,
    /// Volume name, or empty.
    pub name: String,
    /// Host path.
    pub source: String,
    /// In the guest's spelling.
    pub destination: String,
    /// `local` for volumes.
    pub driver: String,
    /// As given.
    pub mode: String,
    /// Writable.
    pub rw: bool,
    /// Propagation.
    pub propagation: String,
    /// An anonymous volume (goes with `rm -v` and `--rm`).
    pub anonymous: bool,
}

/// The state of a container; the drawing of transitions is in `state.rs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// Host pid of its first process, 0 when not running.
    pub pid: i32,
    /// 32 bits wide for Windows.
    pub exit_code: u32,
    /// Why it could not be started, or died otherwise than by exiting.
    pub error: String,
    /// The kernel's out-of-memory killer took a process of it.
    pub oom_killed: bool,
    /// Last start.
    pub started_at: Option<Timestamp>,
    /// Last end.
    pub finished_at: Option<Timestamp>,
}

/// Docker's seven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Between two runs of a restart policy.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Removal failed half-way.
    Dead,
}

impl Status {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }
    /// Has a process (running or paused).
    pub fn is_running(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }
}

/// Health as `inspect` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`.
    pub status: String,
    /// In a row.
    pub failing_streak: u32,
    /// The last five.
    pub log: Vec<HealthProbe>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthProbe {
    /// Start.
    pub start: Timestamp,
    /// End.
    pub end: Timestamp,
    /// 0 healthy.
    pub exit_code: i64,
    /// At most 4096 bytes.
    pub output: String,
}

/// An exec, kept in memory while its container runs and until five minutes after its end.
#[derive(Debug, Clone)]
pub struct ExecRecord {
    /// 64 hex digits.
    pub id: String,
    /// In which container.
    pub container: ContainerId,
    /// As asked.
    pub spec: ExecSpec,
    /// Runs now.
    pub running: bool,
    /// Once ended.
    pub exit_code: Option<u32>,
    /// Host pid, 0 before the start.
    pub pid: i32,
}

impl ExecRecord {
    /// Nobody has run it yet.
    pub(crate) fn is_new(&self) -> bool {
        !self.running && self.exit_code.is_none()
    }
}

/// `exec` as asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// Added to the container's.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub user: String,
    /// Empty: the container's.
    pub working_dir: String,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub attach_stdin: bool,
    /// Output wanted.
    pub attach_stdout: bool,
    /// Error output wanted.
    pub attach_stderr: bool,
    /// `--privileged`.
    pub privileged: bool,
    /// As given, empty: the daemon's.
    pub detach_keys: String,
    /// (rows, columns).
    pub console_size: (u16, u16),
}

/// A row of `docker ps`.
#[derive(Debug, Clone)]
pub struct ContainerSummary {
    /// The container.
    pub record: ContainerRecord,
    /// (`SizeRw`, `SizeRootFs`) bytes when asked for.
    pub size: Option<(u64, u64)>,
}

/// An event, as `/events` sends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `image`, `network`, `volume`, `daemon`.
    pub kind: String,
    /// `create`, `start`, `die`, …
    pub action: String,
    /// ID or name of the object.
    pub actor: String,
    /// `name`, `image`, labels, …
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time: Timestamp,
}

/// A volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Name, 64 hex digits for anonymous ones.
    pub name: String,
    /// When.
    pub created: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Directory on the host.
    pub mountpoint: String,
    /// Made for a container without a name.
    pub anonymous: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(adapter: Value) -> ContainerRecord {
        let mut record = json!({
            "id": "a", "name": "c", "created": "2026-01-01T00:00:00Z", "image_id": "", "os": "linux",
            "isolation": "process", "spec": {}, "mounts": [], "id_range": 0, "state": {}, "restart_count": 0,
            "stopped_by_user": false, "published": [], "health": null,
        });
        record["adapter"] = adapter;
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn adapters_of_records_of_before_are_read() {
        assert!(read(Value::Null).adapters.is_empty());
        let one = read(json!({
            "network": "bridge", "network_id": "n", "endpoint_id": "e", "host_interface": "sv0", "ipv4": "172.17.0.2",
            "prefix": 16, "gateway": "172.17.0.1", "mac": "02:42:ac:11:00:02",
        }));
        assert_eq!(one.adapters.len(), 1);
        assert_eq!(one.adapter_on("n").map(|a| a.interface.as_str()), Some("eth0"));
        let again: ContainerRecord = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(again.adapters, one.adapters);
    }
}
