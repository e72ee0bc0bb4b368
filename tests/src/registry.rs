//! Debian's docker-registry (distribution), one of a test's own on a loopback port.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);

/// `tester` with the password `secret`, as bcrypt has it; a file of it is what `htpasswd -B` writes.
pub const HTPASSWD: &str = "tester:$2b$05$9HhCeuUor32kmV7TyUJwVOoF4up6HihS0SSYz9pnhEGsnEjKf9U1O\n";

/// A running registry.
pub struct Registry {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

/// How it is set up.
#[derive(Default)]
pub struct Options {
    /// Certificate and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Certificate authority that clients' certificates must be of.
    pub client_ca: Option<PathBuf>,
    /// The `auth` section of its settings, as one line of YAML.
    pub auth: Option<String>,
    /// Takes manifests whose layers are had from elsewhere.
    pub foreign: bool,
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Registry {
    /// Starts one, plain and open.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// Starts one.
    pub fn with(options: &Options) -> Self {
        Self::at(free_port(), options)
    }

    /// Starts one on a port.
    pub fn at(port: u16, options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut settings = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n  secret: x\n",
            at("data")
        );
        if let Some((certificate, key)) = &options.tls {
            settings.push_str(&format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.display(),
                key.display()
            ));
            if let Some(ca) = &options.client_ca {
                settings.push_str(&format!("    clientcas: [{}]\n", ca.display()));
            }
        }
        if let Some(auth) = &options.auth {
            settings.push_str(&format!("auth: {auth}\n"));
        }
        if options.foreign {
            settings.push_str("validation: {manifests: {urls: {allow: [\"^http://\"]}}}\n");
        }
        std::fs::write(dir.path().join("config.yml"), settings).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed by `cargo xtask test`");
        let mut registry = Self { dir, port, child };
        let end = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = registry.child.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < end, "the registry does not listen:\n{}", registry.log());
            // Nobody tells when a port begins to be listened on.
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its files, `blobs/sha256/xx/…/data`.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data/docker/registry/v2")
    }

    /// Whether it has a blob.
    pub fn has(&self, digest: &str) -> bool {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.data().join("blobs/sha256").join(&hex[..2]).join(hex).join("data").exists()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a certificate authority `ca.crt`, a server's certificate for 127.0.0.1 and localhost (`server.crt`, `.key`), and a
/// client's (`client.cert`, `.key`), by openssl.
pub fn certificates(dir: &Path) {
    let script = "set -e; cd \"$1\"; \
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test-ca -keyout ca.key -out ca.crt; \
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\nextendedKeyUsage=serverAuth\\n' > server.ext; \
        printf 'extendedKeyUsage=clientAuth\\n' > client.ext; \
        for n in server client; do openssl req -newkey rsa:2048 -nodes -subj /CN=$n -keyout $n.key -out $n.csr; \
        openssl x509 -req -days 30 -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile $n.ext -out $n.crt; done; \
        cp client.crt client.cert";
    let made = Command::new("sh").args(["-c", script, "sh"]).arg(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Runs a command, which must succeed; what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new("timeout").args(["-s", "KILL", "120", program]).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {out}{err}");
    out.trim().to_owned()
}
