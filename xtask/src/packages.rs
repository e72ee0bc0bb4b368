//! Debian packages that a task needs: installs what is missing, by name.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Outcome, run};

/// To build silo and the inside programs.
pub(crate) const BUILD: &[&str] = &[
    "gcc",
    "libc6-dev",
    "rustc",
    "cargo",
    "libstd-rust-dev-windows",
    "gcc-mingw-w64-x86-64",
    "binutils-mingw-w64-x86-64",
];

/// To run silo and its tests.
pub(crate) const RUN: &[&str] = &[
    "nftables",
    "iproute2",
    "busybox-static",
    "skopeo",
    "umoci",
    "procps",
    "binutils-mingw-w64-x86-64",
    "binutils",
    "mono-mcs",
    "libhivex-bin",
    "zstd",
    "bsdutils",
    "docker-registry",
    "openssl",
];

/// To run containers with a kernel of their own.
pub(crate) const MACHINES: &[&str] = &["qemu-system-x86", "erofs-utils", "e2fsprogs"];

/// What tests compare with (dockerd) and make archives by.
pub(crate) const TEST: &[&str] = &["docker.io", "docker-compose", "xz-utils", "bzip2"];

/// What the campaign of that name measures with beside the tests' own program.
pub(crate) const BANDWIDTH: &[&str] = &["iperf3"];

/// What the bench compares with.
pub(crate) const BENCH: &[&str] = &["docker.io", "python3", "iperf3"];

fn installed(package: &str) -> bool {
    let output =
        Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).stderr(Stdio::null()).output();
    output.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("install ok installed"))
}

/// Installs those that are missing.
pub(crate) fn ensure(packages: &[&str]) -> Outcome {
    let has = |p: &str| p == "docker.io" && Path::new("/usr/sbin/dockerd").exists() || installed(p);
    let mut missing: Vec<&str> = packages.iter().copied().filter(|p| !has(p)).collect();
    // What may be there by other ways than Debian's packages.
    let runs = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if packages == RUN && !runs("docker", &["--version"]) {
        missing.push("docker.io");
    }
    if packages == RUN && !runs("python3", &["-c", "import ensurepip, venv"]) {
        missing.extend(["python3", "python3-venv", "python3-pip"]);
    }
    // A newer one from elsewhere, as some machines have it, does not go with the distribution's.
    if missing.contains(&"qemu-system-x86") && installed("qemu-utils") {
        println!("removing qemu-utils, which conflicts with qemu-system-x86");
        missing.push("qemu-utils-");
    }
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    let apt = |arguments: &[&str]| {
        run(Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .arg("-qq")
            .args(arguments)
            .stdout(Stdio::null()))
    };
    apt(&["update"])?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)
}
