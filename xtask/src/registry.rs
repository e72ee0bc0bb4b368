//! Debian's docker-registry on a loopback port, with files of its own.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::Outcome;

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A running registry; it and its files go with their owner.
pub(crate) struct Registry {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Registry {
    pub(crate) fn start() -> Outcome<Self> {
        let number = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("silo-registry-{}-{number}", std::process::id()));
        let at = |e: std::io::Error| format!("{}: {e}", dir.display());
        std::fs::create_dir_all(&dir).map_err(at)?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(at)?;
        let settings = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{free}\", secret: x}}\n",
            dir.join("data").display()
        );
        std::fs::write(dir.join("config.yml"), settings).map_err(at)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("starting docker-registry: {e}"))?;
        let mut registry = Self { dir, port: free.port(), child };
        let end = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", registry.port)).is_err() {
            if Instant::now() > end || registry.child.try_wait().is_ok_and(|s| s.is_some()) {
                return Err("docker-registry does not listen".to_owned());
            }
            // Nobody tells when a port begins to be listened on.
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
