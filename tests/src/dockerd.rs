//! The engine that Silo is compared with: Debian's dockerd, with a root, socket and bridge of its own.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Said;

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running dockerd.
pub struct Dockerd {
    dir: tempfile::TempDir,
    child: Child,
    /// Firewall tables that were there before it.
    tables: Vec<String>,
}

fn firewall_tables() -> Vec<String> {
    let output = Command::new("nft").args(["list", "tables"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

impl Dockerd {
    /// Starts one.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let tables = firewall_tables();
        let child = Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["-H", &format!("unix://{}", path("docker.sock")), "--bip", "172.29.78.1/24"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker.io is installed by `cargo xtask test`");
        let mut dockerd = Self { dir, child, tables };
        let end = Instant::now() + START_LIMIT;
        while UnixStream::connect(dockerd.dir.path().join("docker.sock")).is_err() {
            let ended = dockerd.child.try_wait().unwrap().is_some();
            let log = std::fs::read_to_string(dockerd.dir.path().join("log")).unwrap_or_default();
            assert!(!ended && Instant::now() < end, "dockerd does not listen:\n{log}");
            // A socket file that appears tells nobody that it is being listened on.
            std::thread::sleep(Duration::from_millis(50));
        }
        dockerd
    }

    /// `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// Runs docker, which must succeed; returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "120", "docker"]).args(arguments);
        command.env("DOCKER_HOST", self.host()).env("DOCKER_BUILDKIT", "0").stdin(Stdio::null());
        let said: Said = command.output().unwrap().into();
        assert_eq!(said.code, 0, "docker {arguments:?} (dockerd): {said:?}");
        said.out
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = Command::new("ip").args(["link", "delete", "docker0"]).stderr(Stdio::null()).status();
        // Of a Silo that has come meanwhile none are dockerd's.
        let own = |t: &&String| !self.tables.contains(t) && !t.contains(" silo_");
        for table in firewall_tables().iter().filter(own) {
            let _ = Command::new("nft").arg("delete").args(table.split(' ')).stderr(Stdio::null()).status();
        }
    }
}
