//! `cargo xtask`: what a developer or operator does with the repository, each as one command.

mod bench;
#[cfg(test)]
mod circles;
mod demo;
mod inside;
mod install;
mod packages;
mod suites;
mod test;
#[cfg(test)]
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask COMMAND

  demo      install what is missing, build, start a daemon of its own, run Linux and Windows containers
  test      install what is missing, build, run every test
  bench     measure silo and dockerd side by side (installs dockerd)
  soak kills [ROUNDS [SEED]]   kill the daemon at random moments (50)
  soak boots [ROUNDS]          start programs in a Windows container while it boots (30)
  soak bases [ROUNDS]          build a base from the same packages and compare (5)
  install   install silo on this machine: executable, inside programs, systemd unit
  inside    build the programs that run inside containers
";

/// Why a command failed: a sentence.
pub(crate) type Outcome<T = ()> = Result<T, String>;

fn main() -> ExitCode {
    let root = root();
    let result = match std::env::args().nth(1).as_deref() {
        Some("demo") => demo::run_demo(&root),
        Some("test") => test::run_all(&root),
        Some("bench") => bench::run_bench(&root),
        Some("soak") => test::run_soak(&root, std::env::args().skip(2).collect()),
        Some("install") => install::run_install(&root),
        Some("inside") => packages::ensure(packages::BUILD).and_then(|()| inside(&root)).map(|_| ()),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Builds the inside programs.
pub(crate) fn inside(root: &Path) -> Outcome<PathBuf> {
    println!("building the programs that run inside containers");
    inside::build(root).map_err(|e| e.to_string())
}

/// Builds the silo executable for release; returns its path.
pub(crate) fn build(root: &Path) -> Outcome<PathBuf> {
    println!("building silo");
    run(Command::new("cargo").current_dir(root).args([
        "build",
        "--release",
        "--quiet",
        "-p",
        "silo",
        "--target-dir",
        "target",
    ]))?;
    Ok(root.join("target/release/silo"))
}

/// Runs a command to its end; an error names it.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let name = format!("{command:?}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name}: {status}")),
        Err(e) => Err(format!("{name}: {e}")),
    }
}
