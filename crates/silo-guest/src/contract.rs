//! The guest seam: the words, the `Guest` trait and the bundle it makes; imports no implementation.
//!
//! Story: the engine resolves an image and a create request to a [`BundleRequest`], calls [`Guest::bundle`]
//! once per start, and hands the resulting [`Bundle`] (an OCI runtime bundle) to a sandbox. `exec` goes through
//! [`Guest::process`]; paths that users type (`cp`, `-v`) go through [`Guest::path_in_root`].
//! Nothing here knows about isolation: what differs is told as data ([`Identity`], the directories of the request).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Process, Spec};
use serde::{Deserialize, Serialize};

/// What a container's inside is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Os {
    /// A Linux image.
    Linux,
    /// A Windows image; Wine is its user-mode OS.
    Windows,
}

impl Os {
    /// The `os` field of an OCI image config, if this house has a guest for it.
    pub fn parse(os: &str) -> Option<Os> {
        match os {
            "linux" | "" => Some(Os::Linux),
            "windows" => Some(Os::Windows),
            _ => None,
        }
    }
    /// As written in image configs and in `docker version`.
    pub fn as_str(self) -> &'static str {
        match self {
            Os::Linux => "linux",
            Os::Windows => "windows",
        }
    }
}

/// An absolute Linux path inside the container's root, already resolved from the guest's own spelling
/// (`C:\data` → `/c/data`). Symbolic links are not resolved yet: open it beneath the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPath(pub PathBuf);

/// The program to run: image config and container config already merged by the engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessConfig {
    /// Entrypoint followed by command; never empty for a start.
    pub args: Vec<String>,
    /// Windows only: `args` has one element that already is a command line (image config `ArgsEscaped`).
    pub args_escaped: bool,
    /// `NAME=value`, the image's and then the container's, already merged; without the guest's own defaults.
    pub env: Vec<String>,
    /// Working directory in the guest's spelling; empty: the guest's default.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`, or a Windows account; empty: the guest's default.
    pub user: String,
    /// Supplementary groups (`--group-add`), names or numbers.
    pub additional_groups: Vec<String>,
    /// A terminal is attached.
    pub terminal: bool,
    /// Initial terminal size, (rows, columns); (0, 0): unknown.
    pub console_size: (u16, u16),
    /// `exec --privileged`.
    pub privileged: bool,
}

/// One `-v`/`--mount`/`--tmpfs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountRequest {
    /// What is mounted.
    pub kind: MountKind,
    /// Target in the guest's spelling.
    pub target: String,
    /// No writes through this mount.
    pub read_only: bool,
    /// `private`, `rprivate`, `slave`, …; empty: `rprivate`.
    pub propagation: String,
    /// Bind without the source's submounts.
    pub non_recursive: bool,
}

/// What a [`MountRequest`] mounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountKind {
    /// A directory or file of the host (a volume's directory too).
    Bind {
        /// Absolute host path.
        source: PathBuf,
        /// A path in it that is mounted in its place; links in it do not lead out.
        #[serde(default)]
        subpath: PathBuf,
    },
    /// Memory.
    Tmpfs {
        /// mount(8) options such as `size=64m`, `mode=1777`.
        options: Vec<String>,
    },
}

/// Resource limits; zero or `None`: not limited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes.
    pub memory: u64,
    /// Bytes, soft.
    pub memory_reservation: u64,
    /// Bytes, memory and swap together; -1: unlimited swap; 0: twice the memory.
    pub memory_swap: i64,
    /// 0–100; `None`: the kernel's.
    pub memory_swappiness: Option<u64>,
    /// Billionths of a processor.
    pub nano_cpus: u64,
    /// CFS quota, microseconds.
    pub cpu_quota: i64,
    /// CFS period, microseconds.
    pub cpu_period: u64,
    /// Microseconds of `--cpu-rt-period` (cgroup v1).
    pub cpu_realtime_period: u64,
    /// Microseconds of `--cpu-rt-runtime` (cgroup v1).
    pub cpu_realtime_runtime: i64,
    /// Relative weight, 2–262144.
    pub cpu_shares: u64,
    /// As `0-3,5`.
    pub cpuset_cpus: String,
    /// As `0-1`.
    pub cpuset_mems: String,
    /// Number of tasks.
    pub pids: u64,
    /// blkio weight 10–1000.
    pub blkio_weight: u16,
    /// `--ulimit`: name without `RLIMIT_`, in lower case → (soft, hard).
    pub ulimits: BTreeMap<String, (u64, u64)>,
    /// Size of `/dev/shm`, bytes; 0: 64 MiB.
    pub shm_size: u64,
    /// -1000–1000.
    pub oom_score_adj: i32,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
}

/// What confines the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// `--privileged`.
    pub privileged: bool,
    /// `--cap-add`, upper case without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// Seccomp.
    pub seccomp: Seccomp,
    /// Root file system read-only.
    pub read_only_root: bool,
    /// Masked paths; `None`: the guest's default.
    pub masked_paths: Option<Vec<String>>,
    /// Read-only paths; `None`: the guest's default.
    pub readonly_paths: Option<Vec<String>>,
    /// `--device`: (host path, container path, cgroup permissions).
    pub devices: Vec<(String, String, String)>,
    /// `--device-cgroup-rule`.
    #[serde(default)]
    pub device_rules: Vec<DeviceRule>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
}

/// One rule of the device cgroup, always one that allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: String,
    /// -1: any.
    pub major: i64,
    /// -1: any.
    pub minor: i64,
    /// Out of `rwm`.
    pub access: String,
}

/// Which system calls are allowed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Seccomp {
    /// dockerd's default profile.
    #[default]
    Default,
    /// None (`seccomp=unconfined`).
    Unconfined,
    /// A profile in Docker's JSON format.
    Profile(String),
}

/// Namespaces shared with the host or another container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Path of a network namespace to join; `None` with `host_network` unset: a new, empty one.
    pub network: Option<PathBuf>,
    /// The host's network.
    pub host_network: bool,
    /// The host's processes.
    pub host_pid: bool,
    /// Join this process's pid namespace (`--pid container:`).
    pub pid: Option<PathBuf>,
    /// The host's IPC objects.
    pub host_ipc: bool,
    /// Join this IPC namespace (`--ipc container:`).
    pub ipc: Option<PathBuf>,
    /// The host's name.
    pub host_uts: bool,
    /// `private` cgroup namespace unless set.
    pub host_cgroup: bool,
}

/// Whose machine SID a Windows container shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// The engine's, the same in each container.
    Hosts,
    /// The sandbox's own.
    Own,
}

/// What a guest can refuse before there is anything to start.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The program has arguments, hence a name.
    pub has_command: bool,
    /// `--init`.
    pub init: bool,
    /// `--group-add`.
    pub additional_groups: &'a [String],
    /// Limits.
    pub limits: &'a Limits,
    /// Confinement.
    pub security: &'a Security,
    /// Namespaces; paths may be missing yet.
    pub namespaces: &'a Namespaces,
}

/// Everything a guest needs to write a bundle.
#[derive(Debug, Clone)]
pub struct BundleRequest<'a> {
    /// 64 hex digits.
    pub container_id: &'a str,
    /// The program.
    pub process: &'a ProcessConfig,
    /// `--init`.
    pub init: bool,
    /// Host name.
    pub hostname: &'a str,
    /// Domain name; may be empty.
    pub domainname: &'a str,
    /// Unpacked layers of the image, **uppermost first**; each is a directory as the layer format unpacks.
    pub layers: &'a [PathBuf],
    /// Chain ID of `layers`: what a guest makes of them alone, it makes once for each.
    pub chain: &'a str,
    /// The container's writable directory; the guest keeps its overlay `upper`s and `work`s in it and may
    /// create them here. Contents survive stop/start and go with the container.
    pub top: &'a Path,
    /// The container's own directory on the host, for generated files (`hosts`, `resolv.conf`, `hostname`
    /// are already there if the container has a network of its own).
    pub dir: &'a Path,
    /// Engine root; a guest may keep caches in `<root>/guest/<os>/`.
    pub cache: &'a Path,
    /// Mounts.
    pub mounts: &'a [MountRequest],
    /// Limits.
    pub limits: &'a Limits,
    /// Confinement.
    pub security: &'a Security,
    /// Namespaces.
    pub namespaces: &'a Namespaces,
    /// cgroup path, below each hierarchy's root, such as `/silo/<id>`.
    pub cgroup: &'a str,
    /// First id of the container's own range of 65,536 host user and group ids.
    pub id_range: u32,
    /// Whose identity.
    pub identity: Identity,
    /// OCI annotations.
    pub annotations: &'a BTreeMap<String, String>,
}

/// An OCI runtime bundle, in memory: `config.json` and the mount that makes `root.path`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// `config.json` (OCI runtime specification 1.1). A mount of type `overlay` takes absolute directories in
    /// `lowerdir=`/`upperdir=`/`workdir=`; its `uidMappings`/`gidMappings` map the *lower* directories.
    /// A `bind` mount's `uidMappings` map the source.
    pub spec: Spec,
    /// Mounted at `root.path` before everything else (as containerd's task request carries it).
    pub rootfs: Mount,
}

/// A container's changes, to be told or to become a layer. Nothing writes to them meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Changes<'a> {
    /// As in [`BundleRequest`].
    pub layers: &'a [PathBuf],
    /// As in [`BundleRequest`]; `None` for what the layers alone are.
    pub top: Option<&'a Path>,
    /// The user that the container was started for.
    pub user: &'a str,
    /// The layer's time: seconds since 1970 and nanoseconds.
    pub time: (i64, i64),
}

/// What a guest refuses or fails at.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The request cannot be honoured; the text names the field and value.
    #[error("{0}")]
    Invalid(String),
    /// Named thing is missing inside the image (user, group, working directory…).
    #[error("{0}")]
    NotFound(String),
    /// Input/output, with what was being done.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Axis 1. One implementation a guest OS; chosen by [`crate::of`].
pub trait Guest: Send + Sync {
    /// Which.
    fn os(&self) -> Os;
    /// Refuses what this guest's containers cannot have, naming the field. Called when a container is created, and by
    /// [`Guest::bundle`].
    fn check(&self, _wish: &Wish<'_>) -> Result<(), GuestError> {
        Ok(())
    }
    /// Writes a bundle. Called by the engine at each start, after the network namespace exists and before a sandbox does.
    fn bundle(&self, request: &BundleRequest<'_>) -> Result<Bundle, GuestError>;
    /// The limits of a running container have changed: shows them in it as far as that goes, and in `bundle` for further
    /// programs. `dir` is the container's own, as in [`BundleRequest`]. Whether `bundle` was changed.
    fn limits_changed(&self, _bundle: &mut Spec, _limits: &Limits, _dir: &Path) -> Result<bool, GuestError> {
        Ok(false)
    }
    /// The OCI process of an exec in a container that runs `bundle` (its `config.json`); `root` is an open view
    /// of the container's root directory (`/proc/<pid>/root`), for user look-up.
    fn process(&self, bundle: &Spec, root: &Path, exec: &ProcessConfig) -> Result<Process, GuestError>;
    /// A path as this guest's users type it, relative ones against `working_dir`, to one in the root.
    fn path_in_root(&self, path: &str, working_dir: &str) -> Result<GuestPath, GuestError>;
    /// Whether `path` is absolute in this guest's spelling.
    fn is_absolute(&self, path: &str) -> bool;
    /// Arguments of the shell form, before the one command string: `["/bin/sh", "-c"]`, `["cmd", "/S", "/C"]`.
    fn default_shell(&self) -> Vec<String>;
    /// The environment that is always there unless the image or user says otherwise (`PATH`, …).
    fn default_env(&self) -> Vec<(String, String)>;
    /// Whether environment names differ by case.
    fn env_case_sensitive(&self) -> bool;
    /// Writes a container's changes as a plain tar in this guest's layer format.
    fn capture(&self, changes: &Changes<'_>, to: &mut dyn std::io::Write) -> Result<(), GuestError>;
    /// Writes all of a container's visible files as a tar: of a guest whose layers have a format of their own, as a base
    /// layer, so that an import of it runs. `root` is an open view of the container's root directory. Of what is mounted
    /// there only the mount points are written.
    fn export(
        &self,
        root: std::os::fd::BorrowedFd<'_>,
        of: &Changes<'_>,
        to: &mut dyn std::io::Write,
    ) -> Result<(), GuestError>;
    /// Files whose change is not in the directory of [`Guest::changes`] but kept elsewhere: paths in the visible files,
    /// absolute with slashes, and whether the chain has no such file.
    fn changed_elsewhere(&self, _changes: &Changes<'_>) -> Result<Vec<(String, bool)>, GuestError> {
        Ok(Vec::new())
    }
    /// Writes the registry of a container, or of layers alone, as a tar of hive files, each called
    /// as users call its root: `HKLM\SOFTWARE`, `HKCU`.
    fn registry(&self, _of: &Changes<'_>, _to: &mut dyn std::io::Write) -> Result<(), GuestError> {
        Err(GuestError::Invalid("only Windows containers and images have a registry".to_owned()))
    }
    /// A path in the visible files, absolute with slashes, as users of this guest write it.
    fn shown_path(&self, path: &str) -> String {
        path.to_owned()
    }
    /// A program of the guest's own to run in a container before its changes are read, if it is running: what is
    /// only in memory yet is then on disk.
    fn flush(&self, _bundle: &Spec) -> Option<Process> {
        None
    }
    /// Removes what was made in `cache` of chains that are not `wanted` (by chain ID).
    fn forget_chains(&self, _cache: &Path, _wanted: &dyn Fn(&str) -> bool) {}
    /// The directory (below `top`) that holds changes to the root's visible files, and the path in the root
    /// that it shows at: (`upper`, `/`) for Linux, (`files/upper`, `/c`) for Windows. For `diff` and `commit`.
    fn changes(&self) -> (&'static str, &'static str);
    /// Whether files of the container lie on disk with ids of its own range (a user namespace).
    fn maps_ids(&self) -> bool {
        false
    }
    /// Paths (absolute, in the visible files) where the engine itself mounts: what it makes there for that purpose is no
    /// change of the container's.
    fn own_mount_points(&self) -> &'static [&'static str] {
        &[]
    }
    /// The directory of an unpacked layer that holds those visible files: `""` for Linux, `Files` for Windows.
    fn layer_files(&self) -> &'static str;
}
