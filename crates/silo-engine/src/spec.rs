//! What a client asked for: the create request after decoding, with no `Option` standing for "default" that the engine decides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use silo_guest::{Limits, Security};
use silo_sandbox::Isolation;

/// Variables (`NAME=value`) that a container has and no record, answer or log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden(pub Vec<String>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} hidden", self.0.len())
    }
}

/// A container as requested. Stored in the database as it is here.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Image as the user named it (`busybox`, `busybox:1`, an ID).
    pub image: String,
    /// `--platform` (`linux/amd64`), empty when not given.
    pub platform: String,
    /// The container config, before (in a request) or after (in a record) the image's config is merged in.
    pub config: Config,
    /// `-v`, `--mount`, `--tmpfs`, and after creation the image's volumes.
    pub mounts: Vec<MountSpec>,
    /// `--volumes-from`: `container[:ro|rw]`.
    pub volumes_from: Vec<String>,
    /// `--link`.
    pub links: Vec<Link>,
    /// Limits.
    pub limits: Limits,
    /// Confinement.
    pub security: Security,
    /// `--network`.
    pub network: NetworkMode,
    /// What it is to have on each of its networks; the first is that of `network`. Records of before have one `endpoint`.
    #[serde(alias = "endpoint", deserialize_with = "endpoints")]
    pub networks: Vec<NetworkEndpoint>,
    /// `--pid`: empty, `host` or `container:<id>`.
    pub pid_mode: String,
    /// `--ipc`: empty, `private`, `none`, `shareable`, `host` or `container:<id>`.
    pub ipc_mode: String,
    /// `--uts`: empty or `host`.
    pub uts_mode: String,
    /// `--cgroupns`: empty, `private` or `host`.
    pub cgroupns_mode: String,
    /// `None`: the daemon's default.
    pub isolation: Option<Isolation>,
    /// Bytes that its files may take on a disk of its own; 0: the default.
    #[serde(default)]
    pub storage_size: u64,
    /// `--restart`.
    pub restart: RestartPolicy,
    /// `--rm`.
    pub auto_remove: bool,
    /// A step of a build runs in it: it is nobody's once the daemon that builds is gone.
    #[serde(default)]
    pub of_build: bool,
    /// Variables of a build's secrets.
    #[serde(skip)]
    pub hidden_env: Hidden,
    /// `--init`.
    pub init: bool,
    /// `--log-driver`, `--log-opt`.
    pub log: LogConfig,
    /// `-p`.
    pub ports: Vec<PortSpec>,
    /// `-P`.
    pub publish_all_ports: bool,
    /// `--dns`.
    pub dns: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--add-host`, `name:address`.
    pub extra_hosts: Vec<String>,
    /// `--group-add`.
    pub additional_groups: Vec<String>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// Initial terminal size (rows, columns), (0, 0) unknown.
    pub console_size: (u16, u16),
    /// The face's own document of the request (`HostConfig`), handed back by inspect; the engine never reads it.
    pub face: serde_json::Value,
}

/// Docker's container `Config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Empty: the first 12 digits of the container's ID.
    pub hostname: String,
    /// Domain name.
    pub domainname: String,
    /// User.
    pub user: String,
    /// `-a stdin`.
    pub attach_stdin: bool,
    /// `-a stdout`.
    pub attach_stdout: bool,
    /// `-a stderr`.
    pub attach_stderr: bool,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub open_stdin: bool,
    /// Standard input closes with the first attached client.
    pub stdin_once: bool,
    /// `NAME=value`; `NAME` alone takes the image's variable away.
    pub env: Vec<String>,
    /// `None`: the image's.
    pub cmd: Option<Vec<String>>,
    /// `None`: the image's; `Some([])` or `Some([""])`: none.
    pub entrypoint: Option<Vec<String>>,
    /// Image config `ArgsEscaped` (Windows).
    pub args_escaped: bool,
    /// Working directory.
    pub working_dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`, `15`; `None`: the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Seconds; `None`: 10.
    pub stop_timeout: Option<i64>,
    /// `None`: the image's.
    pub healthcheck: Option<Healthcheck>,
    /// Anonymous volumes (`-v /data`, image `VOLUME`).
    pub volumes: Vec<String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Image's `ONBUILD`.
    pub on_build: Vec<String>,
    /// Image's `SHELL`.
    pub shell: Vec<String>,
    /// `NetworkDisabled`.
    pub network_disabled: bool,
}

/// `--health-*`; durations in nanoseconds, 0: default (30 s, 30 s, 0 s, 5 s).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `[]` inherit, `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    /// Between two probes.
    pub interval: i64,
    /// Of one probe.
    pub timeout: i64,
    /// Failures that do not count at first.
    pub start_period: i64,
    /// Between two probes during the start period.
    pub start_interval: i64,
    /// Failures in a row; 0: 3.
    pub retries: i64,
}

/// One mount as requested or as made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountSpec {
    /// What.
    pub kind: MountSource,
    /// Where, in the guest's spelling.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// `-v`'s third part (`ro,z,nocopy`), as `inspect` shows it under `Mode`.
    pub mode: String,
    /// Bind propagation, empty: `rprivate`.
    pub propagation: String,
    /// `bind-recursive=disabled`.
    pub non_recursive: bool,
}

impl MountSource {
    /// A volume that a mount without a name asks for, filled with what the image has there.
    pub fn anonymous_volume() -> Self {
        Self::Volume {
            name: String::new(),
            copy_up: true,
            labels: BTreeMap::new(),
            subpath: String::new(),
            options: BTreeMap::new(),
            anonymous: true,
        }
    }

    /// As the Docker API calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "bind",
            Self::Volume { .. } => "volume",
            Self::Tmpfs { .. } => "tmpfs",
        }
    }
}

/// The source of a [`MountSpec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A host path.
    Bind {
        /// Absolute.
        source: String,
        /// Make the directory when it is missing (`-v`, not `--mount`).
        create: bool,
    },
    /// A named volume; empty name: an anonymous one is made.
    Volume {
        /// Name.
        name: String,
        /// Copy the image's content into an empty volume.
        copy_up: bool,
        /// Labels of a volume made by this mount.
        labels: BTreeMap<String, String>,
        /// What of the volume is mounted; empty: the whole.
        #[serde(default)]
        subpath: String,
        /// Options of the local driver for a volume made by this mount.
        #[serde(default)]
        options: BTreeMap<String, String>,
        /// It was made for a container that gave it no name, of which this is another (`--volumes-from`): it goes with the
        /// last of them.
        #[serde(default)]
        anonymous: bool,
    },
    /// Memory.
    Tmpfs {
        /// `size=…`, `mode=…`.
        options: Vec<String>,
        /// Asked for by `--mount`, not `--tmpfs`: `inspect` has it among the mounts.
        #[serde(default)]
        by_mount: bool,
    },
}

/// `--network`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The default bridge (`bridge`, `nat`, `default`).
    #[default]
    Bridge,
    /// Loopback only.
    None,
    /// The host's.
    Host,
    /// Another container's.
    Container(String),
    /// A network by its name or ID.
    Named(String),
}

/// Another container of the default bridge, under a name of this container's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Name or ID as given; the ID once the container is created.
    pub target: String,
    /// The name it has here.
    pub alias: String,
}

/// What was asked of a container's endpoint on one network; empty: chosen for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkEndpoint {
    /// The network as given; its name once the container is created and there is such a network.
    pub network: String,
    /// The network's ID once the container has been connected to it.
    pub network_id: String,
    /// `--mac-address`.
    pub mac: String,
    /// `--ip`.
    pub ipv4: String,
    /// `--ip6`.
    pub ipv6: String,
    /// `--link-local-ip`.
    pub link_local: Vec<String>,
    /// `--network-alias`.
    pub aliases: Vec<String>,
    /// `--link` on a network of one's own, `container:alias`.
    pub links: Vec<String>,
    /// `driver-opt=`, and what was set of the adapter since (`dev.silo.max-egress`).
    pub driver_opts: BTreeMap<String, String>,
    /// `gw-priority=`: the highest has the default route.
    pub gw_priority: i64,
    /// Whether the request had an IPAM configuration, for inspect.
    pub ipam: bool,
}

impl NetworkEndpoint {
    /// On this network, nothing asked.
    pub fn on(network: &str) -> Self {
        Self { network: network.to_owned(), ..Default::default() }
    }
}

/// Reads the list, or the one endpoint of records of before.
fn endpoints<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<Vec<NetworkEndpoint>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Many(Vec<NetworkEndpoint>),
        One(Box<NetworkEndpoint>),
    }
    Ok(match Stored::deserialize(from)? {
        Stored::Many(list) => list,
        Stored::One(endpoint) => vec![*endpoint],
    })
}

impl ContainerSpec {
    /// Puts the container into the network of a mode and no other; what was asked of its first endpoint stays.
    pub fn set_network(&mut self, mode: NetworkMode) {
        self.networks.truncate(1);
        self.network = mode;
        match self.network.name() {
            None => self.networks.clear(),
            Some(name) => match self.networks.first_mut() {
                Some(first) => {
                    if first.network != name {
                        first.network_id.clear();
                    }
                    name.clone_into(&mut first.network);
                }
                None => self.networks.push(NetworkEndpoint::on(&name)),
            },
        }
    }

    /// Completes what a record of before says of networks.
    pub(crate) fn complete_networks(&mut self) {
        let Some(name) = self.network.name() else { return self.networks.clear() };
        if self.networks.is_empty() {
            self.networks.push(NetworkEndpoint::default());
        }
        if let Some(first) = self.networks.first_mut().filter(|f| f.network.is_empty()) {
            first.network = name;
        }
    }
}

impl NetworkMode {
    /// The network's name or ID; none of its own when it is another container's.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Bridge => Some("bridge".to_owned()),
            Self::None => Some("none".to_owned()),
            Self::Host => Some("host".to_owned()),
            Self::Named(name) => Some(name.clone()),
            Self::Container(_) => None,
        }
    }

    /// Whether the container has a namespace of its own with adapters in it.
    pub fn has_adapters(&self) -> bool {
        matches!(self, Self::Bridge | Self::Named(_))
    }
}

/// `-p`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Container port.
    pub container_port: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// Empty: all addresses.
    pub host_ip: String,
    /// First and last host port to try; (0, 0): any free one.
    pub host_ports: (u16, u16),
}

/// `--restart`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Also after a daemon restart if it was running.
    Always,
    /// As `Always`, unless the user stopped it.
    UnlessStopped,
    /// After a non-zero exit.
    OnFailure {
        /// 0: without bound.
        max_retries: u32,
    },
}

/// `--log-driver` and `--log-opt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// `json-file` or `none`.
    pub driver: String,
    /// Options as given (`max-size`, `max-file`, …); the face has checked names and values.
    pub options: BTreeMap<String, String>,
    /// Bytes a file may have; 0: no bound.
    pub max_size: u64,
    /// Files kept.
    pub max_files: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { driver: "json-file".into(), options: BTreeMap::new(), max_size: 0, max_files: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_records_of_before_say_of_networks_is_read() {
        let read = |text: &str| {
            let mut spec: ContainerSpec = serde_json::from_str(text).unwrap();
            spec.complete_networks();
            spec
        };
        let spec = read(r#"{"network": "Bridge", "endpoint": {"mac": "02:42:ac:11:00:02", "ipv4": ""}}"#);
        assert_eq!(spec.networks.len(), 1);
        assert_eq!(
            (spec.networks[0].network.as_str(), spec.networks[0].mac.as_str()),
            ("bridge", "02:42:ac:11:00:02")
        );
        assert_eq!(read(r#"{"network": "None"}"#).networks, [NetworkEndpoint::on("none")]);
        assert!(read(r#"{"network": {"Container": "x"}, "endpoint": {}}"#).networks.is_empty());
        let again = read(&serde_json::to_string(&spec).unwrap());
        assert_eq!(again.networks, spec.networks);
    }
}
