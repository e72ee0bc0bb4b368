//! Both guests, for tests that ask the same of each: programs of `tests/probes` that are compiled for both.

use std::path::Path;
use std::process::Command;

use crate::{Daemon, NANOSERVER, Said};

/// A guest, as a test uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// `Linux`, `Windows`.
    pub name: &'static str,
    /// An image of it, of [`both`]'s daemon.
    pub image: &'static str,
    /// Where its programs are mounted, with what follows before a name.
    bin: &'static str,
    suffix: &'static str,
}

/// Linux.
pub const LINUX: Guest = Guest { name: "Linux", image: "localhost/busybox", bin: "/bin/probes/", suffix: "" };

/// Windows.
pub const WINDOWS: Guest = Guest { name: "Windows", image: NANOSERVER, bin: r"C:\bin\", suffix: ".exe" };

impl Guest {
    /// A daemon with its image.
    pub fn daemon(&self) -> Daemon {
        if *self == LINUX { Daemon::start() } else { Daemon::windows() }
    }

    /// A program's path inside.
    pub fn program(&self, name: &str) -> String {
        format!("{}{name}{}", self.bin, self.suffix)
    }

    /// `docker run -v` for a directory of programs.
    pub fn mount(&self, dir: &Path) -> String {
        let bin = self.bin.trim_end_matches(['/', '\\']);
        format!("{}:{bin}:ro", dir.display())
    }

    /// Starts a container that runs a program and is left to itself, with its input open.
    pub fn start(&self, d: &Daemon, dir: &Path, name: &str, options: &[&str], program: &[&str]) {
        let (mount, path) = (self.mount(dir), self.program(program[0]));
        let head = ["run", "-d", "-i", "--name", name, "-v", &mount];
        d.ok(&[&head[..], options, &[self.image, &path], &program[1..]].concat());
    }

    /// Runs a program in a container that runs, whatever comes of it.
    pub fn exec(&self, d: &Daemon, name: &str, program: &[&str]) -> Said {
        let path = self.program(program[0]);
        d.docker(&[&["exec", name, &path], &program[1..]].concat())
    }
}

/// A daemon with an image of each guest.
pub fn both() -> Daemon {
    let daemon = Daemon::windows();
    daemon.import_busybox();
    daemon
}

/// A directory with `tests/probes/<name>.c` compiled for both.
pub fn programs(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("probes/{name}.c"));
    let compile = |compiler: &str, guest: Guest, flags: &[&str], libraries: &[&str]| {
        let to = dir.path().join(format!("{name}{}", guest.suffix));
        let mut command = Command::new(compiler);
        let built = command.args(flags).arg("-O1").arg("-o").arg(to).arg(&source).args(libraries).output();
        let built = built.unwrap_or_else(|e| panic!("{compiler}, which `cargo xtask test` installs: {e}"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    };
    compile("gcc", LINUX, &["-static"], &[]);
    compile("x86_64-w64-mingw32-gcc", WINDOWS, &[], &["-lws2_32"]);
    dir
}
