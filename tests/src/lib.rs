//! A real daemon of a test's own, driven by the stock docker client; nothing of it may be left at its end.

pub mod builds;
pub mod dockerd;
pub mod guests;
pub mod http;
pub mod images;
pub mod outside;
pub mod packages;
pub mod registry;
pub mod spares;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a daemon may take to listen.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a docker command may take, in seconds: longer is a fault, and shows as exit code 137.
const DOCKER_LIMIT: &str = "90";

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A running daemon.
pub struct Daemon {
    dir: tempfile::TempDir,
    bridge: String,
    /// Guest kernel and templates.
    machines: PathBuf,
    /// Spares that it keeps.
    pool: u64,
    /// Further flags.
    arguments: Vec<String>,
    child: Option<Child>,
}

/// What a docker command printed.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output, trimmed.
    pub out: String,
    /// Standard error, trimmed.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The executable under test.
pub fn silo() -> PathBuf {
    match std::env::var_os("SILO_BIN") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/silo"),
    }
}

/// This moment as docker takes it: seconds since 1970.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{:.9}", since.as_secs_f64())
}

/// Where containers of these tests run that ask for nothing: every test holds under both isolations, and `cargo xtask test`
/// runs them once under each. What does not is said by [`only_under`].
pub fn isolation() -> &'static str {
    static NAME: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        std::env::var("SILO_TEST_ISOLATION").unwrap_or_else(|_| "process".into())
    });
    &NAME
}

/// Whether a test (or a part of one) is to be run; the reason why it holds under one isolation only stands beside it, and
/// in docs/isolation.md.
pub fn only_under(wanted: &str, reason: &str) -> bool {
    let holds = isolation() == wanted;
    if !holds {
        // Past the test's own captured output.
        let _ = writeln!(std::io::stderr().lock(), "not under {}: {reason}", isolation());
    }
    holds
}

/// Guest kernel and templates, shared by the daemons of all tests of a build.
fn machines() -> PathBuf {
    let exe = silo().canonicalize().expect("silo is built");
    exe.parent().unwrap_or(Path::new("/")).join("../test-vm")
}

/// The Windows base of [`Daemon::windows`].
pub const NANOSERVER: &str = "silo/nanoserver:ltsc2022";

/// The Windows base of [`Daemon::servercore`].
pub const SERVERCORE: &str = "silo/servercore:ltsc2022";

/// Named by what makes the base: the executable and the inside programs, as they were built.
fn archive_of(family: &str) -> PathBuf {
    use std::hash::{Hash, Hasher};
    let exe = silo().canonicalize().expect("silo is built");
    let beside = exe.parent().unwrap_or(Path::new("/"));
    let inside = [beside.join("inside"), beside.join("../inside")].into_iter().find(|d| d.is_dir());
    let inside = inside.and_then(|d| d.canonicalize().ok());
    let inside = inside.expect("the inside programs are built by `cargo xtask inside`");
    let mut hasher = std::hash::DefaultHasher::new();
    std::fs::metadata(&exe).unwrap().modified().unwrap().hash(&mut hasher);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&inside).unwrap().flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files {
        (&file, std::fs::metadata(&file).unwrap().modified().unwrap()).hash(&mut hasher);
    }
    let dir = inside.join("../test-bases");
    std::fs::create_dir_all(&dir).unwrap();
    let build = format!("{:016x}", hasher.finish());
    // Of earlier builds only room is left.
    for old in std::fs::read_dir(&dir).unwrap().flatten() {
        if !old.file_name().to_string_lossy().starts_with(&build) {
            let _ = std::fs::remove_file(old.path());
        }
    }
    dir.join(format!("{build}-{family}.tar"))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// How many rounds a campaign has: `cargo xtask soak` sets `SILO_SOAK_ROUNDS` for longer ones.
pub fn rounds(default: u64) -> u64 {
    number("SILO_SOAK_ROUNDS", default)
}

/// What a campaign's moments come from: `SILO_SOAK_SEED`, or this.
pub fn seed(default: u64) -> u64 {
    number("SILO_SOAK_SEED", default)
}

/// xorshift64*: the moments of a campaign can be had again by its seed.
pub struct Random(u64);

impl Random {
    /// Begins anew.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// The next number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Compiles a Windows program out of `tests/probes` into `dir`, as `probe.exe`.
pub fn probe(source: &str, dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("probes").join(source);
    let program = dir.join("probe.exe");
    let built = Command::new("x86_64-w64-mingw32-gcc")
        .args(["-O1", "-o"])
        .arg(&program)
        .arg(&source)
        .args(["-lws2_32", "-liphlpapi"])
        .output();
    let built = built.expect("gcc-mingw-w64-x86-64 is installed by `cargo xtask test`");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

/// A shell's line that prints what no two machines may share ([`OWN`], a line each), random bytes at its first instruction,
/// then `end`, and stays. Of `--privileged` containers: the machine's ID is in its agent's files, which only a program shows
/// that the machine's kernel starts outside of all containers, at a core dump (core(5)).
pub const TELL_OWN: &str = r"head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; echo
cat /proc/sys/kernel/random/boot_id /sys/class/net/eth0/address; hostname; cat /proc/sys/kernel/random/uuid
echo '|/proc/%P/root/bin/busybox cp /etc/machine-id /proc/%P/root/machine-id' > /proc/sys/kernel/core_pattern
sh -c 'kill -SEGV $$' 2> /dev/null; cat /machine-id; rm /machine-id
echo end; exec sleep 1000";

/// What [`TELL_OWN`] prints.
pub const OWN: [&str; 6] =
    ["random bytes", "boot IDs", "hardware addresses", "host names", "further random bytes", "machine IDs"];

/// Attaches to a container, writes a line to its main program and waits until it answers with these words.
pub fn say_to(daemon: &Daemon, name: &str, line: &str, words: &str) {
    let mut command = daemon.command(&["attach", name]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(line.as_bytes()).unwrap();
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains(words) {
        // The command's own limit ends it.
        let n = client.stdout.as_mut().unwrap().read(&mut piece).unwrap();
        assert!(n > 0, "{name} does not say {words:?}: {}\n{}", String::from_utf8_lossy(&seen), daemon.log());
        seen.extend_from_slice(&piece[..n]);
    }
    // `timeout` leads a group with the client in it, which passes any gentler signal on to the container.
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", client.id())]).status();
    client.wait().unwrap();
    drop(stdin);
}

impl Daemon {
    /// Starts a daemon with nothing in it.
    pub fn empty() -> Self {
        let mut daemon = Self::new();
        daemon.run();
        if isolation() == "hyperv" {
            static KERNEL: Mutex<()> = Mutex::new(());
            let _one = KERNEL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            daemon.prepare_kernel();
        }
        daemon
    }

    /// As [`Daemon::empty`], with further flags; `path` of the directory is known before it starts.
    pub fn with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let mut daemon = Self::new();
        daemon.arguments = arguments(daemon.dir.path());
        daemon.run();
        daemon
    }

    /// As [`Daemon::start`], with a guest kernel and templates that no other daemon has.
    pub fn with_own_machines() -> Self {
        let mut daemon = Self::new();
        daemon.machines = daemon.path("vm");
        daemon.run();
        daemon.prepare_kernel();
        daemon.import_busybox();
        daemon
    }

    /// As [`Daemon::start`], with a pool of at most so many spares, and the kernel for machines.
    pub fn with_pool(spares: u64) -> Self {
        let mut daemon = Self::new();
        daemon.pool = spares;
        daemon.run();
        daemon.prepare_kernel();
        daemon.import_busybox();
        daemon
    }

    fn new() -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::SeqCst);
        let bridge = format!("st{}x{serial}", std::process::id() % 100_000);
        Self {
            dir: tempfile::tempdir().unwrap(),
            bridge,
            machines: machines(),
            pool: number("SILO_TEST_POOL", 0),
            arguments: Vec::new(),
            child: None,
        }
    }

    /// The kernel of the package that `SILO_KERNEL_PACKAGE` names, or the distribution's.
    fn prepare_kernel(&self) {
        if self.machines.join("kernel/version").exists() {
            return;
        }
        let package = std::env::var("SILO_KERNEL_PACKAGE").ok();
        let mut arguments = vec!["vm", "kernel"];
        arguments.extend(package.iter().flat_map(|p| ["--package", p]));
        let said = self.silo(&arguments);
        assert_eq!(said.code, 0, "{said:?}");
    }

    /// Starts a daemon with the image `localhost/busybox`.
    pub fn start() -> Self {
        let daemon = Self::empty();
        daemon.import_busybox();
        daemon
    }

    /// Imports `localhost/busybox`.
    pub fn import_busybox(&self) {
        let script = "set -e; r=$(mktemp -d); trap 'rm -rf $r' EXIT; mkdir -p $r/bin $r/etc $r/tmp $r/root; \
            cp $(command -v busybox) $r/bin/; for a in $(busybox --list); do [ $a = busybox ] || ln -s busybox $r/bin/$a; done; \
            printf 'root:x:0:0:root:/root:/bin/sh\\nbob:x:1000:1000::/home/bob:/bin/sh\\n' > $r/etc/passwd; \
            printf 'root:x:0:\\nbob:x:1000:\\n' > $r/etc/group; \
            tar -C $r -c . | docker import -c 'CMD [\"sh\"]' - localhost/busybox";
        let made =
            Command::new("bash").args(["-c", script]).env("DOCKER_HOST", self.host()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts a daemon with the image [`NANOSERVER`], built once for all tests of a build of silo.
    pub fn windows() -> Self {
        Self::with_base("nanoserver").unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Daemon::windows`], with a pool of at most so many spares.
    pub fn windows_with_pool(spares: u64) -> Self {
        let mut daemon = Self::new();
        daemon.pool = spares;
        daemon.run();
        daemon.add_base("nanoserver").unwrap_or_else(|why| panic!("{why}"));
        daemon
    }

    /// As [`Daemon::windows`], with a guest kernel and templates of its own.
    pub fn windows_with_machines() -> Self {
        let mut daemon = Self::new();
        daemon.machines = daemon.path("vm");
        daemon.run();
        daemon.prepare_kernel();
        daemon.add_base("nanoserver").unwrap_or_else(|why| panic!("{why}"));
        daemon
    }

    /// Starts a daemon with the base `silo/servercore:ltsc2022`. `None` only if the mirror's index of 32-bit packages is at
    /// odds with its packages, as has been seen: nothing of ours, and said even where tests' output is not shown.
    pub fn servercore() -> Option<Self> {
        match Self::with_base("servercore") {
            Ok(daemon) => Some(daemon),
            Err(why) if why.contains("Failed to fetch") && why.contains("i386") => {
                use std::io::Write;
                let text = format!(
                    "\n*** NOT TESTED: 32-bit Windows programs. The mirror's i386 packages cannot be had.\n*** {why}\n\n"
                );
                let _ = std::io::stderr().write_all(text.as_bytes());
                None
            }
            Err(why) => panic!("{why}"),
        }
    }

    /// Runs silo as a client of this daemon, whatever comes of it.
    pub fn silo(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(silo());
        command.args(["--host", &self.host()]).args(arguments).stdin(Stdio::null());
        command.output().unwrap().into()
    }

    /// Starts a daemon with the base `silo/<family>:ltsc2022`, built once for all tests of a build of silo; says why it
    /// could not be built.
    pub fn with_base(family: &str) -> Result<Self, String> {
        let daemon = Self::empty();
        daemon.add_base(family).map(|()| daemon)
    }

    /// The same, in this daemon.
    pub fn add_base(&self, family: &str) -> Result<(), String> {
        if isolation() == "hyperv" {
            self.prepare_kernel();
        }
        static BUILD: Mutex<()> = Mutex::new(());
        // A failed build fails its own test; the others may try again.
        let _one = BUILD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let archive = archive_of(family);
        // Spares are made of what was asked for.
        let ask = || {
            if self.pool > 0 {
                self.ok(&["run", "--rm", &format!("silo/{family}:ltsc2022"), "cmd", "/c", "exit"]);
            }
        };
        if archive.exists() {
            self.ok(&["load", "-q", "-i", &archive.display().to_string()]);
            ask();
            return Ok(());
        }
        let said = self.silo(&["base", "build", family]);
        if said.code != 0 {
            let why = said.err.lines().last().unwrap_or_default();
            return Err(format!(
                "the base {family} cannot be built: {}",
                why.find("E: ").map_or(why, |at| &why[at..])
            ));
        }
        let fresh = archive.with_extension("new");
        self.ok(&["save", "-o", &fresh.display().to_string(), &format!("silo/{family}:ltsc2022")]);
        std::fs::rename(&fresh, &archive).unwrap();
        ask();
        Ok(())
    }

    fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let child = Command::new(silo())
            .args(["daemon", "--bridge", &self.bridge, "--root"])
            .arg(self.path("root"))
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("--socket")
            .arg(self.path("silo.sock"))
            .args(["--isolation", isolation(), "--vm-dir"])
            .arg(&self.machines)
            .args(["--pool", &self.pool.to_string()])
            .args(&self.arguments)
            .stderr(log)
            .spawn()
            .expect("silo is built by `cargo xtask test`, or named by SILO_BIN");
        self.child = Some(child);
        let end = Instant::now() + START_LIMIT;
        while UnixStream::connect(self.path("silo.sock")).is_err() {
            let ended = self.child.as_mut().is_some_and(|c| c.try_wait().unwrap().is_some());
            assert!(!ended && Instant::now() < end, "the daemon does not listen:\n{}", self.log());
            // Nobody tells when a socket begins to be listened on.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A path in the daemon's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The name of its bridge.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("silo.sock").display())
    }

    /// A docker command, not started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", DOCKER_LIMIT, "docker"]).args(arguments);
        // What one test logs in to is no other's business.
        command.env("DOCKER_BUILDKIT", "0").env("DOCKER_CONFIG", self.path("docker"));
        command.env("DOCKER_HOST", self.host()).stdin(Stdio::null());
        command
    }

    /// Waits until a spare is ready, if one is being made: with a pool every start that can have one is to have it.
    fn await_spare(&self) {
        let now = || self.get("/silo/pool");
        if self.pool > 0 && !now().contains("\"Making\":0") {
            self.get("/silo/pool?ready=1");
        }
    }

    /// Runs docker, whatever comes of it.
    pub fn docker(&self, arguments: &[&str]) -> Said {
        if matches!(arguments.first(), Some(&("run" | "start" | "restart"))) {
            self.await_spare();
        }
        self.command(arguments).output().unwrap().into()
    }

    /// Runs docker, which must succeed; returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.docker(arguments);
        assert_eq!(said.code, 0, "docker {arguments:?}: {said:?}\n{}", self.log());
        said.out
    }

    /// Runs docker, which must fail with these words.
    pub fn fails(&self, arguments: &[&str], words: &str) -> Said {
        let said = self.docker(arguments);
        assert_ne!(said.code, 0, "docker {arguments:?} should fail: {said:?}");
        assert!(said.err.contains(words), "docker {arguments:?} should say {words:?}: {said:?}");
        said
    }

    /// One request over the daemon's socket; the status and everything after the head.
    pub fn request(&self, line: &str) -> (u16, String) {
        self.request_with(line, "")
    }

    /// Posts JSON, whatever comes of it.
    pub fn post(&self, path: &str, body: &serde_json::Value) -> (u16, String) {
        self.request_with(&format!("POST {path}"), &body.to_string())
    }

    fn request_with(&self, line: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.path("silo.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = "HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json";
        write!(stream, "{line} {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.unwrap_or_else(|| panic!("{answer:?}")), body.to_owned())
    }

    /// Gets a path of the API, which must succeed.
    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.request(&format!("GET {path}"));
        assert_eq!(status, 200, "{path}: {body}\n{}", self.log());
        body
    }

    /// Kills the daemon (SIGKILL) or stops it (SIGTERM).
    pub fn stop(&mut self, kill: bool) {
        if let Some(mut child) = self.child.take() {
            if kill {
                child.kill().unwrap();
            } else {
                Command::new("kill").arg(child.id().to_string()).status().unwrap();
            }
            child.wait().unwrap();
        }
    }

    /// Waits until it has ended by itself.
    pub fn await_end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let end = Instant::now() + START_LIMIT;
            while child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < end, "the daemon does not end:\n{}", self.log());
                // `Child` has no wait with a limit.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// From its next start on it keeps at most so many spares.
    pub fn keep_spares(&mut self, spares: u64) {
        self.pool = spares;
    }

    /// Starts it again after [`Daemon::stop`].
    pub fn again(&mut self) {
        self.run();
    }

    /// Waits until a docker command that goes on (`logs -f`, `events`) prints a line with these words.
    pub fn await_line(&self, arguments: &[&str], words: &str) {
        use std::io::BufRead;
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut before = Vec::new();
        // The command's own limit ends the lines.
        let found = lines.by_ref().map_while(Result::ok).any(|line| {
            before.push(line);
            before.last().is_some_and(|line| line.contains(words))
        });
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        child.wait().unwrap();
        assert!(found, "docker {arguments:?} should print {words:?}: {before:?}\n{}", self.log());
    }

    /// Waits until `docker inspect -f format name` prints `wanted`.
    pub fn await_state(&self, name: &str, format: &str, wanted: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let now = self.docker(&["inspect", "-f", format, name]).out;
            if now == wanted {
                return;
            }
            assert!(Instant::now() < end, "{name}: {format} is {now:?} and not {wanted:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Removes the firewall tables of a daemon with this default bridge.
pub fn remove_tables(bridge: &str) {
    for family in ["inet", "bridge"] {
        let table = ["delete", "table", family, &format!("silo_{bridge}")];
        let _ = Command::new("nft").args(table).stderr(Stdio::null()).status();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_none() {
            self.run();
        }
        let ids = self.docker(&["ps", "-aq"]).out;
        let mut arguments = vec!["rm", "-f"];
        arguments.extend(ids.split_whitespace());
        if arguments.len() > 2 {
            self.docker(&arguments);
        }
        self.docker(&["network", "prune", "-f"]);
        self.stop(false);
        let of = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let mounts = of("/proc/self/mountinfo");
        let dir = self.dir.path().display().to_string();
        // Ports of the bridge: adapters.
        let ports = std::fs::read_dir(format!("/sys/class/net/{}/brif", self.bridge));
        let adapters: Vec<_> = ports.into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).stderr(Stdio::null()).status();
        remove_tables(&self.bridge);
        if !std::thread::panicking() {
            assert!(!mounts.contains(&dir), "mounts are left below {dir}");
            assert!(adapters.is_empty(), "adapters are left: {adapters:?}");
        }
    }
}
