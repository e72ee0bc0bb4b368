//! `cargo xtask`: what a developer or operator does with the repository, each as one command.

mod bench;
mod bench_builds;
mod bench_images;
mod bench_inside;
mod bench_measure;
mod bench_networks;
#[cfg(test)]
mod circles;
mod demo;
mod fuzz;
mod inside;
mod install;
mod isolation;
mod packages;
mod registry;
mod suites;
mod test;
#[cfg(test)]
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask COMMAND

  demo      install what is missing, build, start a daemon of its own, run Linux and Windows containers
  test      install what is missing, build, run every test
  bench [images|networks]   measure silo and dockerd side by side (installs dockerd); images: pull, push, load and build
            only; networks: networks and volumes only
  docker-py  run docker-py's integration tests, if they lie beside the repository
  isolation  measure guest x isolation and write the table of docs/isolation.md
  soak kills [ROUNDS [SEED]]   kill the daemon at random moments (50)
  soak pulls|loads|commits|builds|prunes [ROUNDS [SEED]]   kill the daemon at random moments of these (50)
  soak machines [ROUNDS [SEED]]   kill VMMs, shims and the daemon while hyperv containers come and go (50)
  soak spares [ROUNDS [SEED]]   kill shims, VMMs and the daemon while spares become containers (50)
  soak boots [ROUNDS]          start programs in a Windows container while it boots (30)
  soak bases [ROUNDS]          build a base from the same packages and compare (5)
  soak limits [ROUNDS]         20 neighbours beside a container that runs into each limit (10)
  soak bandwidth [ROUNDS]      measure limits of 1 to 1000 Mbit/s in both guests (1); SILO_TEST_ISOLATION=hyperv: in machines
  soak stress [ROUNDS]         run into each limit in both guests (1); SILO_TEST_ISOLATION=hyperv: in machines
  soak fuzz [SECONDS]          run every fuzz target for so long each (60); needs cargo-fuzz and a nightly toolchain
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
        Some("bench") => bench::run_bench(&root, std::env::args().nth(2).as_deref()),
        // What the bench asks of itself inside containers.
        Some("bench-inside") => bench_inside::run_inside(&std::env::args().skip(2).collect::<Vec<_>>()),
        Some("docker-py") => built(&root).and_then(|silo| suites::docker_py(&root, &silo)),
        Some("isolation") => isolation::run_isolation(&root),
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

/// The executable that `SILO_BIN` names, or a fresh one.
pub(crate) fn built(root: &Path) -> Outcome<PathBuf> {
    std::env::var_os("SILO_BIN").map_or_else(|| build(root), |silo| Ok(silo.into()))
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
