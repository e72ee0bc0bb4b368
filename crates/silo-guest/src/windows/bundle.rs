//! Image, config and request → OCI bundle of a Windows container; and the process of an exec.
//!
//! The root is the base's Linux side, read-only. `C:` is an overlay of the layers' `Files` at `/c`, the registry one of
//! the chain's projection at `/prefix`. Everything runs in a user namespace with ids of its own: Wine is no boundary, so
//! the container is confined as a hostile Linux program would be.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Box as ConsoleSize, BoxBuilder, Linux, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType as Ns,
    Mount, Process, Root, Spec, User,
};

use crate::contract::{
    Bundle, BundleRequest, GuestError, Identity, Limits, Namespaces, ProcessConfig, Seccomp, Shm, Wish,
};
use crate::linux;

use super::command_line::command_line;
use super::machine_sid::{self, MachineSid};
use super::oci::{io, mapping, mount, own_directory};
use super::paths::{HOSTS, WindowsPath, drive_root};
use super::registry::projection;
use super::users::Account;
use super::{env, limits, user_mounts};

/// In a base's `Host`.
pub(super) const INIT: &str = "/silo-init";
const LIMITS_LIBRARY: &str = "/usr/lib/silo/limits.so";
/// Size of a container's range of user and group ids.
const IDS: u32 = 65_536;
/// Tells init that the registry need not be written at the end.
const DISCARD: &str = "SILO_DISCARD";
/// Asks the runtime for a pipe on which init reports the 32-bit exit code.
const STATUS_PIPE: &str = "dev.silo.status-fd";

/// Tells the runtime that the first process waits to be told what to run.
const WAITS: &str = "dev.silo.waits";
/// Tells the runtime what is settled when a guest is booted: the drives that Wine knows.
const SETTLED: &str = "dev.silo.settled";
/// Run once before a guest waits: it loads what every program needs, and the volumes' driver has to answer.
const REHEARSAL: [&str; 3] = ["cmd", "/c", r"dir c:\ >nul"];

/// Counts up with every change of what [`warm_up`] brings up, or of how it waits.
const WARM_FORM: u32 = 1;

/// Whose registry and environment it is booted with. Drives and limits are settled then.
pub(super) fn ready_state(user: &str, limits: &Limits, targets: &[&str]) -> Option<String> {
    let inherited = !limits.ulimits.is_empty() || limits.oom_score_adj != 0;
    // What shows limits inside is mounted before it waits.
    let shown = limits.memory > 0 || limits.pids > 0 || limits::are_shown(limits);
    if inherited || shown || targets.iter().any(|target| user_mounts::is_drive(target)) {
        return None;
    }
    Some(format!("windows-{WARM_FORM}-{}", Account::parse(user).ok()?.name()))
}

/// A guest that is booted and waits for its program.
pub(super) fn warm_up(request: &BundleRequest<'_>) -> Result<Bundle, GuestError> {
    let process = ProcessConfig {
        args: REHEARSAL.map(str::to_owned).to_vec(),
        user: request.process.user.clone(),
        ..Default::default()
    };
    // Whose own it will be is not known yet: it is told with the program.
    let machine = match request.identity {
        Identity::Hosts => Some(machine_sid::of(request.identity, request.cache, request.dir)?),
        Identity::Own => None,
    };
    let request = BundleRequest { process: &process, ..request.clone() };
    let mut bundle = bundle_of(&request, &[INIT, "warm"], machine)?;
    let mut annotations = bundle.spec.annotations().clone().unwrap_or_default();
    annotations.insert(WAITS.to_owned(), "1".to_owned());
    bundle.spec.set_annotations(Some(annotations));
    Ok(bundle)
}

pub(super) fn bundle(request: &BundleRequest<'_>) -> Result<Bundle, GuestError> {
    let machine = machine_sid::of(request.identity, request.cache, request.dir)?;
    bundle_of(request, &[INIT], Some(machine))
}

/// The bundle with this program to run the request's, on this machine.
fn bundle_of(
    request: &BundleRequest<'_>,
    init: &[&str],
    machine: Option<MachineSid>,
) -> Result<Bundle, GuestError> {
    refuse_what_windows_has_not(&Wish {
        has_command: !request.process.args.is_empty(),
        init: request.init,
        additional_groups: &request.process.additional_groups,
        limits: request.limits,
        security: request.security,
        // On cgroup v1 the host's is the engine's default, and no wish.
        namespaces: &Namespaces { host_cgroup: false, ..request.namespaces.clone() },
    })?;
    let base =
        request.layers.last().ok_or_else(|| GuestError::Invalid("the image has no layers".to_owned()))?;
    if !base.join("Host").join(INIT.trim_start_matches('/')).is_file() {
        return Err(GuestError::Invalid(
            "the image is not built on a base of this engine: make one with `silo base build` and build the image on it"
                .to_owned(),
        ));
    }
    let layers: Vec<PathBuf> =
        request.layers.iter().map(|layer| layer.join("Files")).filter(|d| d.is_dir()).collect();
    let files = Writable::make(request.top, "files", request.id_range)?;
    let registry = Writable::make(request.top, "prefix", request.id_range)?;
    let mut drive_c = vec![files.upper.clone()];
    drive_c.extend(layers.iter().cloned());

    let sys = limits::write(request.limits, &guest_directory(request.dir)?)?;
    let mut mounts = system_mounts(request, &sys);
    mounts.push(overlay("/c", &layers, &files, request.id_range));
    mounts.extend(hosts_file(request.dir, &layers));
    let account = Account::parse(&request.process.user)?;
    let projected = projection::of(request.cache, request.chain, request.layers, account)?;
    mounts.push(overlay("/prefix", &projected, &registry, request.id_range));
    let users = user_mounts::mounts(request.mounts, &drive_c, &registry.upper, request.id_range)?;
    let drives = user_mounts::drives(&users);
    let mut process = process(request.process, init, |directory| {
        user_mounts::refuse_unmounted(directory, &users)?;
        Ok(user_mounts::beneath(directory.resolve(&drive_c), &users))
    })?;
    mounts.extend(users);
    let directory = process.cwd().clone();
    make_directory(&files, &directory, request.id_range)?;
    let told = machine.map(|sid| format!("{}={sid}", machine_sid::VARIABLE));
    extend_env(&mut process, told);
    if request.discarded {
        let mut all = process.env().clone().unwrap_or_default();
        all.push(format!("{DISCARD}=1"));
        process.set_env(Some(all));
    }
    process
        .set_rlimits(Some(linux::rlimits(request.limits)?))
        .set_oom_score_adj(Some(request.limits.oom_score_adj).filter(|score| *score != 0));

    let mut annotations = request.annotations.clone();
    annotations.insert(STATUS_PIPE.to_owned(), "1".to_owned());
    annotations.insert(SETTLED.to_owned(), drives);
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(true));
    let mut spec = Spec::default();
    spec.set_version("1.1.0".to_owned())
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_process(Some(process))
        .set_hostname(Some(request.hostname.to_owned()).filter(|name| !name.is_empty()))
        .set_domainname(Some(request.domainname.to_owned()).filter(|name| !name.is_empty()))
        .set_annotations(Some(annotations.into_iter().collect()))
        .set_linux(Some(confinement(request)));
    let rootfs = mount("/", "bind", &base.join("Host"), &["bind", "ro", "nosuid", "nodev"]);
    Ok(Bundle { spec, rootfs })
}

/// Options that name Linux things, with dockerd's words where it has them.
pub(super) fn refuse_what_windows_has_not(wish: &Wish<'_>) -> Result<(), GuestError> {
    let (security, namespaces) = (wish.security, wish.namespaces);
    let refused = [
        (security.privileged, "Windows does not support privileged mode"),
        (
            !security.cap_add.is_empty() || !security.cap_drop.is_empty(),
            "Windows does not support capabilities (CapAdd, CapDrop)",
        ),
        (
            security.read_only_root,
            "invalid option: Windows does not support root filesystem in read-only mode",
        ),
        (!security.devices.is_empty(), "invalid option: Windows does not support Devices"),
        (!security.device_rules.is_empty(), "invalid option: Windows does not support DeviceCgroupRules"),
        (wish.init, "invalid option: Windows does not support Init"),
        (!wish.additional_groups.is_empty(), "invalid option: Windows does not support GroupAdd"),
        (wish.limits.shm_size != 0, "invalid option: Windows does not support ShmSize"),
        (!security.sysctls.is_empty(), "invalid option: Windows does not support Sysctls"),
        (
            security.seccomp != Seccomp::Default,
            "invalid option: a Windows container always runs with the default seccomp profile",
        ),
        (
            namespaces.host_pid || namespaces.pid.is_some(),
            "invalid PID mode: Windows does not support it (PidMode)",
        ),
        (
            namespaces.host_ipc || namespaces.ipc.is_some() || namespaces.shm != Shm::Own,
            "invalid IPC mode: Windows does not support it (IpcMode)",
        ),
        (namespaces.host_cgroup, "invalid cgroup namespace mode: Windows does not support it (CgroupnsMode)"),
        (
            security.masked_paths.is_some() || security.readonly_paths.is_some(),
            "invalid option: Windows does not support systempaths (MaskedPaths, ReadonlyPaths)",
        ),
        (namespaces.host_uts, "invalid UTS mode: Windows does not support it (UTSMode)"),
        (!wish.has_command, "no command specified"),
    ];
    match refused.into_iter().find(|(is, _)| *is) {
        Some((_, why)) => Err(GuestError::Invalid(why.to_owned())),
        None => Ok(()),
    }
}

/// A writable overlay layer in the container's top, owned by the container's own administrator.
struct Writable {
    upper: PathBuf,
    work: PathBuf,
}

impl Writable {
    fn make(top: &Path, name: &str, owner: u32) -> Result<Writable, GuestError> {
        let made = Writable { upper: top.join(name).join("upper"), work: top.join(name).join("work") };
        for directory in [&made.upper, &made.work] {
            own_directory(directory, owner)?;
        }
        Ok(made)
    }
}

/// The working directory, made if no layer has it (as dockerd does). `directory` is below `/c`.
fn make_directory(files: &Writable, directory: &Path, owner: u32) -> Result<(), GuestError> {
    let mut path = files.upper.clone();
    for part in directory.strip_prefix("/c").unwrap_or(Path::new("")) {
        path.push(part);
        // Only what the upper layer lacks: a directory there merges with that of the same name below.
        if !path.exists() {
            own_directory(&path, owner)?;
        }
    }
    Ok(())
}

/// Where generated files of this guest go in the container's own directory.
fn guest_directory(dir: &Path) -> Result<PathBuf, GuestError> {
    let directory = dir.join("guest");
    fs::create_dir_all(&directory).map_err(io(format!("making {}", directory.display())))?;
    Ok(directory)
}

fn overlay(at: &str, layers: &[PathBuf], writable: &Writable, id_range: u32) -> Mount {
    let lower: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
    let options = [
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", writable.upper.display()),
        format!("workdir={}", writable.work.display()),
        "nosuid".to_owned(),
        "nodev".to_owned(),
    ];
    let mut mount = mount(at, "overlay", Path::new("overlay"), &options.each_ref().map(String::as_str));
    // Layers belong to the host's root; in here they belong to the container's.
    mount.set_uid_mappings(Some(mapping(0, id_range, IDS))).set_gid_mappings(Some(mapping(0, id_range, IDS)));
    mount
}

/// The container's `hosts` where Windows programs look for it. Of a base that has no such file there would be one in the
/// container's own layer.
fn hosts_file(dir: &Path, layers: &[PathBuf]) -> Option<Mount> {
    let source = dir.join("hosts");
    let there = source.is_file() && layers.iter().any(|layer| layer.join(HOSTS).is_file());
    there.then(|| mount(&format!("/c/{HOSTS}"), "bind", &source, &["bind"]))
}

fn system_mounts(request: &BundleRequest<'_>, sys: &Path) -> Vec<Mount> {
    let memory = ["nosuid", "nodev", "noexec", "mode=1777"];
    let mut mounts = vec![
        mount("/proc", "proc", Path::new("proc"), &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", Path::new("tmpfs"), &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            Path::new("devpts"),
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        ),
        mount("/sys", "bind", sys, &["bind", "ro", "nosuid", "nodev", "noexec"]),
        // Wine's server listens here; init and the launcher talk in /run.
        mount("/tmp", "tmpfs", Path::new("tmpfs"), &memory),
        mount("/run", "tmpfs", Path::new("tmpfs"), &memory),
    ];
    for (name, at) in
        [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")]
    {
        let source = request.dir.join(name);
        if source.is_file() {
            mounts.push(mount(at, "bind", &source, &["bind", "ro"]));
        }
    }
    mounts
}

/// The OCI process of a program: init with the command line. `in_root`: where a working directory is.
fn process(
    config: &ProcessConfig,
    init: &[&str],
    in_root: impl FnOnce(&WindowsPath) -> Result<PathBuf, GuestError>,
) -> Result<Process, GuestError> {
    let account = Account::parse(&config.user)?;
    let directory = if config.working_dir.is_empty() { r"C:\" } else { &config.working_dir };
    let directory = in_root(&WindowsPath::parse(directory, None)?)?;
    let mut all = env::merge(&config.env);
    if !all.iter().any(|entry| entry.get(..3).is_some_and(|name| name.eq_ignore_ascii_case("TZ="))) {
        // The container's clock shows UTC; runtimes with tables of their own (node) do not know the zone by the name
        // that it has in the base's registry (`base/identity.rs`).
        all.push("TZ=UTC".to_owned());
    }
    if !all.iter().any(|entry| entry.starts_with("HOME=")) {
        // The supervisor would set it to a Linux path; init takes an empty one away.
        all.push("HOME=".to_owned());
    }
    all.push(format!("SILO_COMMAND_LINE={}", command_line(&config.args, config.args_escaped)));
    all.push(format!("SILO_USER={}", account.name()));
    let mut process = Process::default();
    process
        .set_terminal(Some(config.terminal))
        .set_console_size(console_size(config))
        // Account and Linux user are apart: Wine's server and its files belong to one user.
        .set_user(User::default())
        .set_args(Some(init.iter().map(|argument| (*argument).to_owned()).collect()))
        .set_env(Some(all))
        .set_cwd(directory)
        .set_capabilities(Some(no_capabilities()))
        .set_no_new_privileges(Some(true));
    Ok(process)
}

fn console_size(config: &ProcessConfig) -> Option<ConsoleSize> {
    let (rows, columns) = config.console_size;
    let size = BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns)).build();
    size.ok().filter(|_| rows > 0 && columns > 0)
}

fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    let empty = oci_spec::runtime::Capabilities::new();
    none.set_bounding(Some(empty.clone()))
        .set_effective(Some(empty.clone()))
        .set_permitted(Some(empty.clone()))
        .set_inheritable(Some(empty.clone()))
        .set_ambient(Some(empty));
    none
}

fn extend_env(process: &mut Process, further: Option<String>) {
    let mut all = process.env().clone().unwrap_or_default();
    all.push(format!("SILO_PRELOAD={LIMITS_LIBRARY}"));
    all.extend(further);
    process.set_env(Some(all));
}

/// Namespaces, ids, system calls, resources.
fn confinement(request: &BundleRequest<'_>) -> Linux {
    let mut resources = linux::resources(request.limits);
    resources.set_devices(Some(linux::default_device_rules()));
    let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    // What no program of a Windows container has a use for, and what /proc tells of the host.
    let mut masked = list(linux::DEFAULT_MASKED_PATHS);
    masked.extend(list(&["/proc/config.gz", "/proc/cmdline", "/proc/modules", "/proc/kallsyms"]));
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(request.namespaces)))
        .set_uid_mappings(Some(mapping(0, request.id_range, IDS)))
        .set_gid_mappings(Some(mapping(0, request.id_range, IDS)))
        .set_cgroups_path(Some(request.cgroup.into()))
        .set_resources(Some(resources))
        .set_devices(None)
        .set_seccomp(Some(linux::seccomp::default_profile(&[])))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(list(linux::DEFAULT_READONLY_PATHS)));
    linux
}

fn namespaces(of: &Namespaces) -> Vec<LinuxNamespace> {
    let namespace = |kind: Ns, path: Option<&Path>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path.map(Path::to_owned));
        namespace
    };
    let mut list: Vec<_> = [Ns::User, Ns::Mount, Ns::Pid, Ns::Ipc, Ns::Uts, Ns::Cgroup]
        .into_iter()
        .map(|kind| namespace(kind, None))
        .collect();
    if !of.host_network {
        list.push(namespace(Ns::Network, of.network.as_deref()));
    }
    list
}

/// Writes the files that show limits anew.
pub(super) fn show_limits(limits: &Limits, dir: &Path) -> Result<(), GuestError> {
    limits::write(limits, &guest_directory(dir)?).map(drop)
}

pub(super) fn exec_process(bundle: &Spec, root: &Path, exec: &ProcessConfig) -> Result<Process, GuestError> {
    let first = bundle.process().as_ref();
    let first = first.ok_or_else(|| GuestError::Invalid("the container has no process".to_owned()))?;
    if exec.privileged {
        return Err(GuestError::Invalid("Windows does not support privileged mode".to_owned()));
    }
    let inherited = first.env().clone().unwrap_or_default();
    let is_ours = |entry: &&String| entry.starts_with("SILO_");
    let value = |name: &str| inherited.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
    let mut config = exec.clone();
    if config.user.is_empty() {
        config.user = value("SILO_USER").unwrap_or_default().to_owned();
    }
    config.env = inherited.iter().filter(|entry| !is_ours(entry)).chain(&exec.env).cloned().collect();
    let mut process = process(&config, &[INIT, "exec"], |directory| {
        user_mounts::refuse_unmounted(directory, bundle.mounts().as_deref().unwrap_or_default())?;
        let drive = drive_root(directory.drive());
        Ok(directory.resolve(&[root.join(drive.strip_prefix("/").unwrap_or(&drive))]))
    })?;
    if exec.working_dir.is_empty() {
        process.set_cwd(first.cwd().clone());
    }
    let mut all = process.env().clone().unwrap_or_default();
    all.extend(value("SILO_PRELOAD").map(|library| format!("SILO_PRELOAD={library}")));
    process.set_env(Some(all)).set_rlimits(first.rlimits().clone()).set_oom_score_adj(first.oom_score_adj());
    Ok(process)
}
