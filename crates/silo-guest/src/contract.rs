//! The guest seam: the words, the `Guest` trait and the bundle it makes; imports no implementation.
//!
//! Story: the engine resolves an image and a create request to a [`BundleRequest`], calls [`Guest::bundle`]
//! once per start, and hands the resulting [`Bundle`] (an OCI runtime bundle) to a sandbox. `exec` goes through
//! [`Guest::process`]; paths that users type (`cp`, `-v`) go through [`Guest::path_in_root`].
//! Nothing here knows about isolation: what differs is told as data ([`Identity`], the directories of the request).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Process, Spec};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
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
        /// A file of `/proc` that leads to the mount namespace in which the source is mounted; `None`: it is no mount of
        /// the engine's.
        #[serde(default)]
        mounter: Option<PathBuf>,
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
    /// `--device-read-bps` and its kin, one entry a device.
    pub io: Vec<DeviceLimits>,
    /// `--cpu-count`: processors that a container may use.
    pub cpu_count: u64,
    /// `--cpu-percent`: of all processors that there are, 1–100.
    pub cpu_percent: u64,
    /// `--io-maxbandwidth`: bytes a second of the drive that the container's files are on.
    pub io_bandwidth: u64,
    /// `--io-maxiops`: operations a second of that drive.
    pub io_operations: u64,
    /// `--cgroup-parent`, empty: the engine's own.
    pub cgroup_parent: String,
    /// `--ulimit`: name without `RLIMIT_`, in lower case → (soft, hard).
    pub ulimits: BTreeMap<String, (u64, u64)>,
    /// Size of `/dev/shm`, bytes; 0: 64 MiB.
    pub shm_size: u64,
    /// -1000–1000.
    pub oom_score_adj: i32,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
}

/// What one block device may be used; 0: not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceLimits {
    /// The device's file, as given.
    pub path: String,
    /// Its numbers, once they are found out: (major, minor).
    pub device: (i64, i64),
    /// Bytes a second.
    pub read_bps: u64,
    /// Bytes a second.
    pub write_bps: u64,
    /// Operations a second.
    pub read_iops: u64,
    /// Operations a second.
    pub write_iops: u64,
    /// 10–1000.
    pub weight: u16,
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

/// Whose memory shows at `/dev/shm` (`--ipc`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Shm {
    /// The container's own.
    #[default]
    Own,
    /// The container's own, which others may join (`--ipc shareable`).
    Shareable,
    /// Nobody's (`--ipc none`).
    None,
    /// That of the container with this mount namespace; empty before it is known.
    Of(PathBuf),
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
    /// Whose `/dev/shm`, unless it is the host's.
    pub shm: Shm,
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
    /// Engine root; a guest keeps caches in `<root>/guest/<os>/`, and what is one in all of the engine's containers.
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
    /// Nobody reads the container's files after its end (`--rm`): what it has in memory of them need not be written then.
    pub discarded: bool,
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
    /// What the container or a layer of its image holds cannot be read; the text names the file, and the place in it.
    #[error("{0}")]
    Broken(String),
    /// Input/output, with what was being done.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// What is known of an image before its layers are here.
#[derive(Debug, Clone)]
pub struct Lineage<'a> {
    /// Its name as users write it.
    pub name: &'a str,
    /// Labels of its config.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations of its manifest.
    pub annotations: &'a BTreeMap<String, String>,
    /// Its config's `os.features`.
    pub os_features: &'a [String],
    /// Its layers, lowest first.
    pub layers: &'a [LineageLayer<'a>],
    /// What was decided of other images here: the lowest diff IDs, and the base in their place.
    pub known: &'a [(Vec<String>, String)],
    /// What the user says of layers: digest or diff ID → the family of the base that has it.
    pub digests: &'a BTreeMap<String, String>,
}

/// One layer of a [`Lineage`].
#[derive(Debug, Clone)]
pub struct LineageLayer<'a> {
    /// Of its blob; of an archive that does not tell, its diff ID.
    pub digest: &'a str,
    /// Diff ID.
    pub diff: &'a str,
    /// Registries hold no copy of it.
    pub foreign: bool,
    /// Where else it may be had.
    pub urls: &'a [String],
    /// Bytes of the blob; 0: not known.
    pub size: u64,
    /// The command of its history entry; empty if none is known to be its.
    pub created_by: &'a str,
}

/// The layers of an image that a base made here takes the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseLayers {
    /// So many, from below.
    pub layers: usize,
    /// The reference of that base.
    pub base: String,
    /// Its name for [`Guest::build_base`] and `silo base build`.
    pub family: String,
}

/// The names in a container's root, wherever that is. Paths are absolute in it; links in them are resolved there.
pub trait Names {
    /// Whether there is something of this name in a directory; `None`: there is no such directory.
    fn has(&self, directory: &Path, name: &str) -> Option<bool>;
    /// All names in a directory, in no order; a directory that cannot be read has none.
    fn all(&self, directory: &Path) -> Vec<OsString>;
}

/// The names in an open root.
impl Names for BorrowedFd<'_> {
    fn has(&self, directory: &Path, name: &str) -> Option<bool> {
        let there = opened(*self, directory, OFlags::PATH)?;
        Some(rustix::fs::statat(&there, name, AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    fn all(&self, directory: &Path) -> Vec<OsString> {
        let entries = opened(*self, directory, OFlags::RDONLY).and_then(|fd| Dir::read_from(fd).ok());
        let names = entries.into_iter().flatten().flatten();
        names.map(|e| OsStr::from_bytes(e.file_name().to_bytes()).to_owned()).collect()
    }
}

fn opened(root: BorrowedFd<'_>, directory: &Path, flags: OFlags) -> Option<OwnedFd> {
    silo_sys::beneath::open_in_root(root, directory, flags | OFlags::DIRECTORY, Mode::empty()).ok()
}

/// Where an archive's entry goes, by its name: an absolute path in the root; `None`: it is the directory itself that the
/// archive is extracted into. The error says why it goes nowhere.
pub type EntryPlaces<'r> = Box<dyn FnMut(&[u8]) -> Result<Option<PathBuf>, String> + 'r>;

/// What of a container's changes is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flushed {
    /// All.
    All,
    /// What there was then; there is more since, or there was nothing to ask.
    ChangedSince,
    /// It could not be written; why.
    Failed(String),
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
    /// What the state of [`Guest::warm_up`] depends on beside the layers, of containers with this user: a text that differs where
    /// one cannot stand for the other, whatever version made it. `None`: there is no such state, or none that a container with
    /// these limits and paths of mounts can be had from.
    fn ready_state(&self, _user: &str, _limits: &Limits, _targets: &[&str]) -> Option<String> {
        None
    }
    /// A bundle whose first process brings up what every container of these layers and this account has to wait for, and
    /// then waits to be told what to run (`dev.silo.waits`; the runtime says how), so that a bundle of [`Guest::bundle`] can
    /// be had from it. Of the request's process only the user counts. Called by the engine for sandboxes that nobody has
    /// asked for yet, where there is a [`Guest::ready_state`].
    fn warm_up(&self, _request: &BundleRequest<'_>) -> Result<Bundle, GuestError> {
        Err(GuestError::Invalid("nothing of this guest has to be waited for".to_owned()))
    }
    /// The limits of a running container have changed: writes those files anew that show them inside. `dir` is the
    /// container's own, as in [`BundleRequest`]. Whether there are such files: a machine has copies of them.
    fn limits_changed(&self, _limits: &Limits, _dir: &Path) -> Result<bool, GuestError> {
        Ok(false)
    }
    /// The OCI process of an exec in a container that runs `bundle` (its `config.json`); `root` is an open view
    /// of the container's root directory (`/proc/<pid>/root`), for user look-up.
    fn process(&self, bundle: &Spec, root: &Path, exec: &ProcessConfig) -> Result<Process, GuestError>;
    /// The files (paths in the root) that [`Guest::process`] reads: a root that cannot be opened may be a copy of these.
    fn account_files(&self) -> &'static [&'static str] {
        &[]
    }
    /// A path as this guest's users type it, relative ones against `working_dir`, to one in the root.
    fn path_in_root(&self, path: &str, working_dir: &str) -> Result<GuestPath, GuestError>;
    /// A path of [`Guest::path_in_root`] with each part spelled as it is in the container's root, as far as it is there.
    fn spelled(&self, _names: &dyn Names, path: &Path) -> PathBuf {
        path.to_owned()
    }
    /// A path in a volume as this guest's users type it, to one as it is spelled there. `names`: those in the volume.
    fn in_volume(&self, _names: &dyn Names, path: &str) -> PathBuf {
        path.into()
    }
    /// Where the entries of an archive go that is extracted into `directory` of the container's root; `None`: to their names
    /// below it.
    fn entry_places<'r>(&self, _names: &'r dyn Names, _directory: &Path) -> Option<EntryPlaces<'r>> {
        None
    }
    /// Whether two absolute paths, as users type them, are one place whatever the container holds.
    fn is_same_place(&self, one: &str, other: &str) -> bool {
        match (self.path_in_root(one, ""), self.path_in_root(other, "")) {
            (Ok(one), Ok(other)) => one == other,
            _ => one == other,
        }
    }
    /// A working directory after `WORKDIR next` in one that was `current`, which may be empty, as dockerd writes it.
    fn next_working_dir(&self, current: &str, next: &str) -> Result<String, GuestError>;
    /// The version of the OS in an unpacked base layer, as in an image config's `os.version`; empty: it has none.
    fn os_version(&self, _layer: &Path) -> Result<String, GuestError> {
        Ok(String::new())
    }
    /// Which layers of an image a base that is made here takes the place of; `None`: of none. The error says why that cannot
    /// be told, and how to tell. Called by the engine before an image's layers are fetched.
    fn base_layers(&self, _of: &Lineage<'_>) -> Result<Option<BaseLayers>, GuestError> {
        Ok(None)
    }
    /// The base made here that stands for the image of this whole reference.
    fn stands_for(&self, _reference: &str) -> Option<&'static str> {
        None
    }
    /// Makes a base, as an archive for `docker load`. `packages`: what it is made of, instead of the distribution's mirror;
    /// `work`: an empty directory; `progress` hears a line for each stage.
    fn build_base(
        &self,
        family: &str,
        _packages: Option<&Path>,
        _work: &Path,
        _progress: &mut dyn FnMut(&str),
        _to: &mut dyn std::io::Write,
    ) -> Result<(), GuestError> {
        Err(GuestError::Invalid(format!("base {family:?}: this guest has none")))
    }
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
        root: BorrowedFd<'_>,
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
    /// What became of the last [`Guest::flush`] of a container, which is frozen now. `root`: its root directory, whose
    /// contents are its own.
    fn flushed(&self, _root: &Path) -> Flushed {
        Flushed::All
    }
    /// The directory (path in the root) that [`Guest::flushed`] reads: a root that cannot be opened may be a copy of it.
    fn flush_report(&self) -> Option<&'static str> {
        None
    }
    /// Removes what was made in `cache` of chains that are not `wanted` (by chain ID), and what a process that is gone has
    /// left half-made.
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
    /// Whether the directory of [`Guest::changes`] is what the layer that [`Guest::capture`] writes unpacks to.
    fn changes_are_layer(&self) -> bool {
        false
    }
    /// The directory of an unpacked layer that holds those visible files: `""` for Linux, `Files` for Windows.
    fn layer_files(&self) -> &'static str;
}
