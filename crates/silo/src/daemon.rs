//! `silo daemon`: settings from flags and a TOML file, the socket, the engine, an orderly end.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use silo_engine::guest::windows::base::read_digests;
use silo_engine::images::RegistrySettings;
use silo_engine::{BaseSettings, Engine, EngineConfig};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::build_options::BuildArguments;

/// Settings; each may stand in the file of `--config` under the same name, and a flag wins.
#[derive(Args, Deserialize, Default, Debug)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DaemonArguments {
    /// Settings file (TOML); default /etc/silo/daemon.toml if it exists
    #[arg(long)]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Directory of everything that lasts [/var/lib/silo]
    #[arg(long)]
    root: Option<PathBuf>,
    /// Directory of sockets [/run/silo]
    #[arg(long)]
    run_dir: Option<PathBuf>,
    /// Socket to listen on [<run-dir>/silo.sock]
    #[arg(long)]
    socket: Option<PathBuf>,
    /// error, warn, info, debug, trace [info]
    #[arg(long)]
    log_level: Option<String>,
    /// Group that may use the socket [docker, if it exists]
    #[arg(long)]
    group: Option<String>,
    /// Name of the default bridge [silo0]
    #[arg(long)]
    bridge: Option<String>,
    /// Gateway and prefix of the default network, such as 172.20.0.1/16 [a free one]
    #[arg(long)]
    subnet: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    networks: crate::daemon_networks::NetworkArguments,
    /// Isolation of containers that ask for none: process or hyperv [process]
    #[arg(long)]
    isolation: Option<String>,
    /// Directory of guest kernels and templates, which daemons may share [<root>/vm]
    #[arg(long)]
    vm_dir: Option<PathBuf>,
    /// Sandboxes kept ready for containers to come, at most; 0: none [4]
    #[arg(long)]
    pool: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    builds: BuildArguments,
    #[command(flatten)]
    #[serde(flatten)]
    bases: BaseArguments,
    #[command(flatten)]
    #[serde(flatten)]
    registries: RegistryArguments,
}

/// How the bases of Windows images are had.
#[derive(Args, Deserialize, Default, Debug)]
#[serde(default, rename_all = "kebab-case")]
struct BaseArguments {
    /// Do not build the local base that an image needs: say which is missing
    #[arg(long)]
    no_base_build: bool,
    /// Directory with the packages that a missing base is built from (`silo base fetch`) [the distribution's mirror]
    #[arg(long)]
    base_packages: Option<PathBuf>,
    /// File that says which layers are whose base's: "sha256:… nanoserver" [/etc/silo/base-digests, if it exists]; may be repeated
    #[arg(long = "base-digests")]
    base_digests: Vec<PathBuf>,
}

impl BaseArguments {
    fn over(self, file: Self) -> Self {
        Self {
            no_base_build: self.no_base_build || file.no_base_build,
            base_packages: self.base_packages.or(file.base_packages),
            base_digests: if self.base_digests.is_empty() { file.base_digests } else { self.base_digests },
        }
    }

    fn settings(self) -> Result<BaseSettings, String> {
        let mut files = self.base_digests;
        if files.is_empty() && Path::new(DEFAULT_DIGESTS).exists() {
            files.push(DEFAULT_DIGESTS.into());
        }
        let mut digests = std::collections::BTreeMap::new();
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            digests.extend(read_digests(&text).map_err(|e| format!("{}: {e}", file.display()))?);
        }
        Ok(BaseSettings { no_build: self.no_base_build, packages: self.base_packages, digests })
    }
}

/// How registries are reached.
#[derive(Args, Deserialize, Default, Debug)]
#[serde(default, rename_all = "kebab-case")]
struct RegistryArguments {
    /// Registry (host[:port] or address/prefix) that needs no valid certificate and may speak plain HTTP; may be repeated
    #[arg(long = "insecure-registry")]
    insecure_registries: Vec<String>,
    /// URL that is asked before the default registry; may be repeated
    #[arg(long = "registry-mirror")]
    registry_mirrors: Vec<String>,
    /// Directory with host[:port]/{*.crt,*.cert,*.key} [/etc/docker/certs.d and /etc/silo/certs.d]; may be repeated
    #[arg(long = "certs-dir")]
    certs_dirs: Vec<PathBuf>,
    /// Proxy for plain HTTP [$HTTP_PROXY]
    #[arg(long)]
    http_proxy: Option<String>,
    /// Proxy for HTTPS [$HTTPS_PROXY]
    #[arg(long)]
    https_proxy: Option<String>,
    /// Hosts that are reached without a proxy, by commas [$NO_PROXY]
    #[arg(long)]
    no_proxy: Option<String>,
    /// Layers that are downloaded at once, of all pulls [3]
    #[arg(long)]
    max_concurrent_downloads: Option<usize>,
    /// Layers that are uploaded at once, of all pushes [5]
    #[arg(long)]
    max_concurrent_uploads: Option<usize>,
    /// How often a request to a registry is tried while it is in trouble [5]
    #[arg(long)]
    max_download_attempts: Option<u32>,
}

impl RegistryArguments {
    fn over(self, file: Self) -> Self {
        fn either<T>(flags: Vec<T>, file: Vec<T>) -> Vec<T> {
            if flags.is_empty() { file } else { flags }
        }
        Self {
            insecure_registries: either(self.insecure_registries, file.insecure_registries),
            registry_mirrors: either(self.registry_mirrors, file.registry_mirrors),
            certs_dirs: either(self.certs_dirs, file.certs_dirs),
            http_proxy: self.http_proxy.or(file.http_proxy),
            https_proxy: self.https_proxy.or(file.https_proxy),
            no_proxy: self.no_proxy.or(file.no_proxy),
            max_concurrent_downloads: self.max_concurrent_downloads.or(file.max_concurrent_downloads),
            max_concurrent_uploads: self.max_concurrent_uploads.or(file.max_concurrent_uploads),
            max_download_attempts: self.max_download_attempts.or(file.max_download_attempts),
        }
    }

    fn settings(self) -> Result<RegistrySettings, String> {
        let environment =
            |names: [&str; 2]| names.iter().find_map(|n| std::env::var(n).ok()).filter(|v| !v.is_empty());
        let defaults = RegistrySettings::default();
        let settings = RegistrySettings {
            insecure: self.insecure_registries,
            mirrors: self.registry_mirrors,
            certificates: if self.certs_dirs.is_empty() { defaults.certificates } else { self.certs_dirs },
            http_proxy: self.http_proxy.or_else(|| environment(["HTTP_PROXY", "http_proxy"])),
            https_proxy: self.https_proxy.or_else(|| environment(["HTTPS_PROXY", "https_proxy"])),
            no_proxy: self.no_proxy.or_else(|| environment(["NO_PROXY", "no_proxy"])),
            downloads: self.max_concurrent_downloads.unwrap_or(defaults.downloads),
            uploads: self.max_concurrent_uploads.unwrap_or(defaults.uploads),
            attempts: self.max_download_attempts.unwrap_or(defaults.attempts),
        };
        settings.check().map_err(|e| e.to_string())?;
        Ok(settings)
    }
}

/// How long the end waits for what ended containers have left.
const SETTLE_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);
/// Spares that are kept ready, where nobody says how many.
const POOL: usize = 4;
const DEFAULT_DIGESTS: &str = "/etc/silo/base-digests";
const DEFAULT_FILE: &str = "/etc/silo/daemon.toml";

impl DaemonArguments {
    fn with_file(self) -> Result<Self, String> {
        let path = match &self.config {
            Some(path) => path.clone(),
            None if Path::new(DEFAULT_FILE).exists() => DEFAULT_FILE.into(),
            None => return Ok(self),
        };
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let file: Self = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self {
            config: self.config,
            root: self.root.or(file.root),
            run_dir: self.run_dir.or(file.run_dir),
            socket: self.socket.or(file.socket),
            log_level: self.log_level.or(file.log_level),
            group: self.group.or(file.group),
            bridge: self.bridge.or(file.bridge),
            subnet: self.subnet.or(file.subnet),
            networks: self.networks.over(file.networks),
            isolation: self.isolation.or(file.isolation),
            vm_dir: self.vm_dir.or(file.vm_dir),
            pool: self.pool.or(file.pool),
            builds: self.builds.over(file.builds),
            bases: self.bases.over(file.bases),
            registries: self.registries.over(file.registries),
        })
    }
}

/// Runs the daemon until SIGTERM or SIGINT.
pub(crate) fn main(arguments: DaemonArguments) -> Result<(), String> {
    let settings = arguments.with_file()?;
    let level = settings.log_level.as_deref().unwrap_or("info");
    let level: tracing::Level = level.parse().map_err(|_| format!("--log-level {level:?} is no level"))?;
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false).init();
    // A few for each container and each connection: more than the thousand that a shell gives.
    silo_sandbox::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| format!("starting the runtime: {e}"))?;
    let result = runtime.block_on(run(settings));
    // Blocking threads that wait for shims to end must not hold up the daemon's own end.
    runtime.shutdown_background();
    result
}

/// Gives memory back once a burst of work is over: nothing has happened for a second, or for a minute something has.
async fn rest(engine: Engine) {
    const QUIET: Duration = Duration::from_secs(1);
    const BUSY: Duration = Duration::from_secs(60);
    let mut events = engine.subscribe(None, None, silo_engine::Filters::default());
    while events.recv().await.is_some() {
        let burst =
            async { while tokio::time::timeout(QUIET, events.recv()).await.is_ok_and(|e| e.is_some()) {} };
        let _ = tokio::time::timeout(BUSY, burst).await;
        silo_sandbox::give_memory_back();
    }
}

async fn run(settings: DaemonArguments) -> Result<(), String> {
    let run_dir = settings.run_dir.unwrap_or_else(|| "/run/silo".into());
    let socket = settings.socket.unwrap_or_else(|| run_dir.join("silo.sock"));
    let root = settings.root.unwrap_or_else(|| "/var/lib/silo".into());
    let isolation = settings.isolation.as_deref().unwrap_or("process");
    let held = lock(&root)?;
    let config = EngineConfig {
        builds: settings.builds.settings(&root)?,
        vm: settings.vm_dir.unwrap_or_else(|| root.join("vm")),
        root,
        registries: std::sync::Arc::new(settings.registries.settings()?),
        bases: settings.bases.settings()?,
        run: run_dir,
        executable: std::env::current_exe().map_err(|e| format!("finding this program: {e}"))?,
        networks: settings
            .networks
            .settings(settings.bridge.unwrap_or_else(|| "silo0".to_owned()), settings.subnet)?,
        isolation: silo_sandbox::Isolation::parse(isolation)
            .ok_or_else(|| format!("--isolation {isolation:?}: there are process and hyperv"))?,
        pool: settings.pool.unwrap_or(POOL),
    };
    let engine = Engine::open(config).await.map_err(|e| e.to_string())?;
    let listener = listen(&socket, settings.group.as_deref())?;
    tracing::info!("listening on {}", socket.display());
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let ending = engine.clone();
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = ending.ended_by_itself() => {}
        }
        tracing::info!("stopping; containers go on");
    };
    engine.trim_build_cache();
    tokio::spawn(rest(engine.clone()));
    let served = engine.clone();
    let result = silo_api::serve(listener, served, stop).await.map_err(|e| format!("serving: {e}"));
    engine.empty_pool().await;
    engine.settle(SETTLE_LIMIT).await;
    let _ = std::fs::remove_file(&socket);
    drop(held);
    result
}

/// How long a daemon that ends may still hold its root.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// One daemon a root: held until the process ends, however it ends.
fn lock(root: &Path) -> Result<std::fs::File, String> {
    std::fs::create_dir_all(root).map_err(|e| format!("making {}: {e}", root.display()))?;
    let path = root.join("daemon.lock");
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    // One that was killed while it synced the file system holds it until that is done.
    let until = std::time::Instant::now() + LOCK_LIMIT;
    while file.try_lock().is_err() {
        if std::time::Instant::now() > until {
            return Err(format!("another silo daemon uses {}", root.display()));
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(file)
}

fn listen(socket: &Path, group: Option<&str>) -> Result<UnixListener, String> {
    let at = |e: std::io::Error| format!("listening on {}: {e}", socket.display());
    if let Some(parent) = socket.parent() {
        std::fs::create_dir_all(parent).map_err(at)?;
    }
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at(e)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(at)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660)).map_err(at)?;
    let gid = group_id(group.unwrap_or("docker"));
    match (gid, group) {
        (Some(gid), _) => std::os::unix::fs::chown(socket, None, Some(gid)).map_err(at)?,
        (None, Some(name)) => return Err(format!("--group {name}: there is no such group")),
        (None, None) => {}
    }
    Ok(listener)
}

fn group_id(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    text.lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.len() >= 3 && (f[0] == name || f[2] == name))
        .and_then(|f| f[2].parse().ok())
}
