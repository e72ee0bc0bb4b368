//! Image, config and request → OCI bundle of a Linux container; and the process of an exec.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Linux, LinuxCapabilities, LinuxDevice, LinuxDeviceType, LinuxNamespace,
    LinuxNamespaceType as Ns, LinuxSeccomp, Mount, Process, Root, Spec, User,
};

use crate::contract::{
    Bundle, BundleRequest, GuestError, MountKind, MountRequest, Namespaces, ProcessConfig, Seccomp, Security,
    Shm,
};

use super::defaults::{self, mount};
use super::paths::{PATH, clean};
use super::users::{self, Files};
use super::{resources, seccomp};

/// Where `--init` puts the init program (Docker's path).
const INIT_PATH: &str = "/sbin/docker-init";

fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> GuestError {
    let doing = doing.into();
    move |source| GuestError::Io { doing, source }
}

pub(super) fn bundle(request: &BundleRequest<'_>) -> Result<Bundle, GuestError> {
    let capabilities = defaults::capabilities(request.security)?;
    let (upper, work) = (request.top.join("upper"), request.top.join("work"));
    for dir in [&upper, &work] {
        std::fs::create_dir_all(dir).map_err(io(format!("making {}", dir.display())))?;
    }
    let mut spec = Spec::default();
    let mut mounts = mounts(request)?;
    let mut process = process(request, &upper, &capabilities)?;
    if request.init {
        let program = crate::inside::program("silo-linux-init").ok_or_else(|| {
            GuestError::Invalid("--init: the init program is not installed beside silo".to_owned())
        })?;
        mounts.push(mount(INIT_PATH, "bind", &program.to_string_lossy(), &["bind", "ro"]));
        let args: Vec<String> = [INIT_PATH.to_owned(), "--".to_owned()]
            .into_iter()
            .chain(process.args().clone().unwrap_or_default())
            .collect();
        process.set_args(Some(args));
    }
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(request.security.read_only_root));
    spec.set_version("1.1.0".to_owned())
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_process(Some(process))
        .set_hostname(Some(request.hostname.to_owned()).filter(|h| !h.is_empty()))
        .set_domainname(Some(request.domainname.to_owned()).filter(|d| !d.is_empty()))
        .set_annotations(Some(request.annotations.clone().into_iter().collect()))
        .set_linux(Some(linux(request, &capabilities)?));
    let lower: Vec<String> = request.layers.iter().map(|l| l.display().to_string()).collect();
    let options = [
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
    ];
    let rootfs = mount("/", "overlay", "overlay", &options.each_ref().map(String::as_str));
    Ok(Bundle { spec, rootfs })
}

fn process(
    request: &BundleRequest<'_>,
    upper: &Path,
    capabilities: &[String],
) -> Result<Process, GuestError> {
    let config = request.process;
    if config.args.is_empty() {
        return Err(GuestError::Invalid("no command specified".to_owned()));
    }
    let mut layers: Vec<PathBuf> = vec![upper.to_owned()];
    layers.extend_from_slice(request.layers);
    let ids = users::resolve(&config.user, &config.additional_groups, Files::Layers(&layers))?;
    let mut env = vec![format!("PATH={}", PATH)];
    env.push(format!("HOSTNAME={}", request.hostname));
    if config.terminal {
        env.push("TERM=xterm".to_owned());
    }
    for entry in &config.env {
        set(&mut env, entry);
    }
    let mut process = Process::default();
    process
        .set_terminal(Some(config.terminal))
        .set_user(user(&ids))
        .set_args(Some(config.args.clone()))
        .set_env(Some(env))
        .set_cwd(cwd(&config.working_dir))
        .set_capabilities(Some(capability_sets(capabilities)))
        .set_rlimits(Some(resources::rlimits(request.limits)?))
        .set_no_new_privileges(Some(request.security.no_new_privileges))
        .set_oom_score_adj(Some(request.limits.oom_score_adj).filter(|s| *s != 0));
    Ok(process)
}

fn user(ids: &users::Ids) -> User {
    let mut user = User::default();
    user.set_uid(ids.uid).set_gid(ids.gid).set_additional_gids(Some(ids.groups.clone()));
    user
}

fn cwd(dir: &str) -> PathBuf {
    clean(&Path::new("/").join(dir))
}

/// Sets `NAME=value` in a list, replacing an earlier one of that name.
fn set(env: &mut Vec<String>, entry: &str) {
    let name = entry.split_once('=').map_or(entry, |(n, _)| n);
    env.retain(|e| e.split_once('=').map_or(e.as_str(), |(n, _)| n) != name);
    env.push(entry.to_owned());
}

fn capability_sets(names: &[String]) -> LinuxCapabilities {
    let set: Capabilities =
        names.iter().filter_map(|n| serde_json::from_value(n.as_str().into()).ok()).collect();
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

fn mounts(request: &BundleRequest<'_>) -> Result<Vec<Mount>, GuestError> {
    let mut user = Vec::new();
    for wanted in request.mounts {
        user.push(user_mount(wanted)?);
    }
    // Parents before children, as dockerd sorts them.
    user.sort_by_key(|m| m.destination().components().count());
    let covered = |at: &Path| {
        user.iter().any(|m| {
            m.destination() == at || (m.destination() == Path::new("/dev") && at.starts_with("/dev"))
        })
    };
    let mut all: Vec<Mount> = defaults::mounts(request.security.privileged, request.limits.shm_size)
        .into_iter()
        .filter(|m| !covered(m.destination()))
        .collect();
    let is_shm = |m: &Mount| m.destination() == Path::new("/dev/shm");
    match &request.namespaces.shm {
        Shm::Own | Shm::Shareable => {}
        Shm::None => all.retain(|m| !is_shm(m)),
        Shm::Of(namespace) => {
            for m in all.iter_mut().filter(|m| is_shm(m)) {
                let from = silo_sys::mount::namespace_option(namespace);
                *m = mount("/dev/shm", "bind", "/dev/shm", &["bind", "nosuid", "noexec", "nodev", &from]);
            }
        }
    }
    if request.namespaces.host_ipc {
        // Not every host has message queues mounted.
        all.retain(|m| m.destination() != Path::new("/dev/mqueue") || m.destination().is_dir());
        for m in &mut all {
            if m.destination() == Path::new("/dev/shm") || m.destination() == Path::new("/dev/mqueue") {
                let at = m.destination().clone();
                *m = mount(
                    &at.to_string_lossy(),
                    "bind",
                    &at.to_string_lossy(),
                    &["rbind", "nosuid", "noexec", "nodev"],
                );
            }
        }
    }
    for (file, at) in
        [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")]
    {
        let source = request.dir.join(file);
        if source.is_file() && !covered(Path::new(at)) {
            all.push(mount(at, "bind", &source.to_string_lossy(), &["rbind", "rprivate"]));
        }
    }
    all.extend(user);
    Ok(all)
}

fn user_mount(wanted: &MountRequest) -> Result<Mount, GuestError> {
    if !wanted.target.starts_with('/') {
        return Err(GuestError::Invalid(format!(
            "invalid mount config: invalid mount path: '{}' mount path must be absolute",
            wanted.target
        )));
    }
    let at = clean(Path::new(&wanted.target));
    if at == Path::new("/") {
        return Err(GuestError::Invalid("invalid mount config: destination can't be '/'".to_owned()));
    }
    let at = at.to_string_lossy().into_owned();
    let access = if wanted.read_only { "ro" } else { "rw" };
    Ok(match &wanted.kind {
        MountKind::Bind { source, subpath, mounter } => {
            let bind = if wanted.non_recursive { "bind" } else { "rbind" };
            let propagation = if wanted.propagation.is_empty() { "rprivate" } else { &wanted.propagation };
            let mut options = vec![bind, access, propagation];
            let below = silo_sys::mount::subpath_option(subpath);
            options.extend(below.as_deref());
            let mounter = mounter.as_deref().map(silo_sys::mount::mounter_option);
            options.extend(mounter.as_deref());
            mount(&at, "bind", &source.to_string_lossy(), &options)
        }
        MountKind::Tmpfs { options } => {
            let mut all = vec!["nosuid", "nodev", "noexec", access];
            all.extend(options.iter().map(String::as_str));
            mount(&at, "tmpfs", "tmpfs", &all)
        }
    })
}

fn namespace(kind: Ns, path: Option<&Path>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path.map(Path::to_owned));
    namespace
}

fn namespaces(of: &Namespaces) -> Vec<LinuxNamespace> {
    let mut list = vec![namespace(Ns::Mount, None)];
    if !of.host_network {
        list.push(namespace(Ns::Network, of.network.as_deref()));
    }
    if !of.host_pid {
        list.push(namespace(Ns::Pid, of.pid.as_deref()));
    }
    if !of.host_ipc {
        list.push(namespace(Ns::Ipc, of.ipc.as_deref()));
    }
    if !of.host_uts {
        list.push(namespace(Ns::Uts, None));
    }
    if !of.host_cgroup {
        list.push(namespace(Ns::Cgroup, None));
    }
    list
}

fn linux(request: &BundleRequest<'_>, capabilities: &[String]) -> Result<Linux, GuestError> {
    let security = request.security;
    let mut resources = resources::resources(request.limits);
    let (devices, mut rules) = devices(security)?;
    if security.privileged {
        rules = vec![resources::device_rule(true, LinuxDeviceType::A, -1, -1, "rwm")];
    }
    resources.set_devices(Some(rules));
    let paths = |given: &Option<Vec<String>>, default: &[&str]| -> Option<Vec<String>> {
        if security.privileged {
            return None;
        }
        Some(given.clone().unwrap_or_else(|| default.iter().map(|p| (*p).to_owned()).collect()))
    };
    let mut sysctl: std::collections::HashMap<String, String> = std::collections::HashMap::new();
    if !request.namespaces.host_network {
        // Docker's: ports below 1024 and ping for everybody, in a network of one's own.
        sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        sysctl.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    }
    sysctl.extend(security.sysctls.clone());
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(request.namespaces)))
        .set_cgroups_path(Some(request.cgroup.into()))
        .set_resources(Some(resources))
        .set_devices(Some(devices))
        .set_seccomp(profile(security, capabilities)?)
        .set_sysctl(Some(sysctl))
        .set_masked_paths(paths(&security.masked_paths, defaults::DEFAULT_MASKED_PATHS))
        .set_readonly_paths(paths(&security.readonly_paths, defaults::DEFAULT_READONLY_PATHS))
        .set_uid_mappings(None)
        .set_gid_mappings(None);
    Ok(linux)
}

fn profile(security: &Security, capabilities: &[String]) -> Result<Option<LinuxSeccomp>, GuestError> {
    match &security.seccomp {
        _ if security.privileged => Ok(None),
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => Ok(Some(seccomp::default_profile(capabilities))),
        Seccomp::Profile(text) => seccomp::resolve(text, capabilities, seccomp::kernel()).map(Some),
    }
}

type Devices = (Vec<LinuxDevice>, Vec<oci_spec::runtime::LinuxDeviceCgroup>);

fn devices(security: &Security) -> Result<Devices, GuestError> {
    let mut rules = resources::default_device_rules();
    let mut list = Vec::new();
    let mut add = |host: &Path, inside: &Path, access: &str| -> Result<(), GuestError> {
        let stat = std::fs::metadata(host).map_err(|_| {
            GuestError::Invalid(format!(
                "error gathering device information while adding custom device {:?}: no such file or directory",
                host.display()
            ))
        })?;
        let kind = if stat.file_type().is_block_device() {
            LinuxDeviceType::B
        } else if stat.file_type().is_char_device() {
            LinuxDeviceType::C
        } else {
            return Err(GuestError::Invalid(format!(
                "error gathering device information while adding custom device {:?}: not a device node",
                host.display()
            )));
        };
        let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
        let mut device = LinuxDevice::default();
        device
            .set_path(inside.to_owned())
            .set_typ(kind)
            .set_major(i64::from(major))
            .set_minor(i64::from(minor))
            .set_file_mode(Some(stat.mode() & 0o777))
            .set_uid(Some(stat.uid()))
            .set_gid(Some(stat.gid()));
        list.push(device);
        rules.push(resources::device_rule(true, kind, i64::from(major), i64::from(minor), access));
        Ok(())
    };
    if security.privileged {
        for entry in std::fs::read_dir("/dev").map_err(io("reading /dev"))?.flatten() {
            let path = entry.path();
            let own = ["console", "tty", "ptmx", "null", "zero", "full", "random", "urandom"];
            let is_device = entry.file_type().is_ok_and(|t| t.is_char_device() || t.is_block_device());
            if is_device && !own.iter().any(|n| path.ends_with(n)) {
                add(&path, &path, "rwm")?;
            }
        }
    }
    for (host, inside, access) in &security.devices {
        add(Path::new(host), Path::new(inside), access)?;
    }
    for rule in &security.device_rules {
        let kind = match rule.kind.as_str() {
            "a" => LinuxDeviceType::A,
            "b" => LinuxDeviceType::B,
            _ => LinuxDeviceType::C,
        };
        rules.push(resources::device_rule(true, kind, rule.major, rule.minor, &rule.access));
    }
    Ok((list, rules))
}

pub(super) fn exec_process(bundle: &Spec, root: &Path, exec: &ProcessConfig) -> Result<Process, GuestError> {
    let first = bundle
        .process()
        .as_ref()
        .ok_or_else(|| GuestError::Invalid("the container has no process".to_owned()))?;
    let mut process = Process::default();
    let user = if exec.user.is_empty() && exec.additional_groups.is_empty() {
        first.user().clone()
    } else {
        user(&users::resolve(&exec.user, &exec.additional_groups, Files::Root(root))?)
    };
    let mut env = first.env().clone().unwrap_or_default();
    if exec.terminal {
        set(&mut env, "TERM=xterm");
    }
    for entry in &exec.env {
        set(&mut env, entry);
    }
    let capabilities = if exec.privileged {
        let all = defaults::capabilities(&Security { privileged: true, ..Default::default() })?;
        Some(capability_sets(&all))
    } else {
        first.capabilities().clone()
    };
    process
        .set_terminal(Some(exec.terminal))
        .set_user(user)
        .set_args(Some(exec.args.clone()))
        .set_env(Some(env))
        .set_cwd(if exec.working_dir.is_empty() { first.cwd().clone() } else { cwd(&exec.working_dir) })
        .set_capabilities(capabilities)
        .set_rlimits(first.rlimits().clone())
        .set_no_new_privileges(first.no_new_privileges())
        .set_oom_score_adj(first.oom_score_adj());
    Ok(process)
}
