//! Builds the programs that run inside guests into `target/inside`.
//!
//! Three kinds: a static Linux program (init), a Linux library for Wine's own processes, and PE programs. The last are
//! built by the distribution's Rust, which has the Windows target; the workspace's toolchain has not.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINUX: &str = "x86_64-unknown-linux-gnu";
const WINDOWS: &str = "x86_64-pc-windows-gnu";

/// One program: folder below `inside`, file that cargo makes, name in `target/inside`, target.
const PROGRAMS: &[(&str, &str, &str, &str)] = &[
    ("agent", "silo-agent", "silo-agent", LINUX),
    ("linux/init", "silo-linux-init", "silo-linux-init", LINUX),
    ("windows/init", "silo-init", "silo-init", LINUX),
    ("windows/limits", "liblimits.so", "silo-limits.so", LINUX),
    ("windows/boot", "silo-boot.exe", "silo-boot.exe", WINDOWS),
    ("windows/cexecsvc", "CExecSvc.exe", "CExecSvc.exe", WINDOWS),
    ("windows/tools", "ipconfig.exe", "ipconfig.exe", WINDOWS),
    ("windows/tools", "nslookup.exe", "nslookup.exe", WINDOWS),
    ("windows/tools", "sc.exe", "sc.exe", WINDOWS),
    ("windows/tools", "setx.exe", "setx.exe", WINDOWS),
    ("windows/tools", "systeminfo.exe", "systeminfo.exe", WINDOWS),
];

/// Those of a kind are built with the same flags, and what they depend on once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Static,
    Library,
    Pe,
}

impl Kind {
    fn of(folder: &str, target: &str) -> Self {
        match folder {
            _ if target == WINDOWS => Self::Pe,
            // Loaded into Wine's processes.
            "windows/limits" => Self::Library,
            // They run before anything of the guest is there.
            _ => Self::Static,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Library => "library",
            Self::Pe => "windows",
        }
    }
}

/// Why a program could not be built.
#[derive(Debug)]
pub struct InsideError(String);

impl fmt::Display for InsideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InsideError {}

/// Builds them all for release; returns the directory that holds them. `root` is the repository.
pub fn build(root: &Path) -> Result<PathBuf, InsideError> {
    let out = root.join("target/inside");
    fs::create_dir_all(&out).map_err(|e| InsideError(format!("creating {}: {e}", out.display())))?;
    for (folder, made, name, target) in PROGRAMS {
        let kind = Kind::of(folder, target);
        let target_dir = root.join("target/inside-build").join(kind.name());
        cargo(&root.join("inside").join(folder), kind, &target_dir)?;
        let made = target_dir.join(target).join("release").join(made);
        let to = out.join(name);
        // Under another name first: a running guest may have the old file mapped.
        let fresh = out.join(format!(".{name}"));
        fs::copy(&made, &fresh)
            .and_then(|_| fs::rename(&fresh, &to))
            .map_err(|e| InsideError(format!("copying {} to {}: {e}", made.display(), to.display())))?;
        if *target == WINDOWS {
            run(Command::new("x86_64-w64-mingw32-strip").arg(&to), "binutils-mingw-w64-x86-64")?;
        }
    }
    Ok(out)
}

fn cargo(folder: &Path, kind: Kind, target_dir: &Path) -> Result<(), InsideError> {
    let (target, is_windows) = if kind == Kind::Pe { (WINDOWS, true) } else { (LINUX, false) };
    let mut command = if is_windows {
        let mut command = Command::new("/usr/bin/cargo");
        command.env("RUSTC", "/usr/bin/rustc");
        command
    } else {
        let mut command = Command::new("cargo");
        let flags = if kind == Kind::Static { "-C target-feature=+crt-static" } else { "" };
        command.env("RUSTFLAGS", flags);
        command
    };
    // What the outer cargo says to its own programs is not meant for these.
    for name in
        ["CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET", "RUSTDOC"]
    {
        if is_windows || name != "RUSTUP_TOOLCHAIN" {
            command.env_remove(name);
        }
    }
    command
        .current_dir(folder)
        .args(["build", "--release", "--quiet", "--target", target, "--target-dir"])
        .arg(target_dir);
    run(&mut command, "rustc, cargo, libstd-rust-dev-windows and gcc-mingw-w64-x86-64")
}

fn run(command: &mut Command, packages: &str) -> Result<(), InsideError> {
    let program = |command: &Command| OsStr::to_string_lossy(command.get_program()).into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(InsideError(format!("{} failed: {status}", program(command)))),
        Err(e) => Err(InsideError(format!("cannot run {}: {e} (packages: {packages})", program(command)))),
    }
}
