//! `cargo xtask test`: unit tests, tidy tests, end-to-end tests by the stock client.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, build, inside, packages, suites};

pub(crate) fn run_cargo(root: &Path, arguments: &[&str]) -> Outcome {
    crate::run(Command::new("cargo").current_dir(root).args(arguments))
}

/// Installs what is missing and runs every test.
pub(crate) fn run_all(root: &Path) -> Outcome {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::RUN)?;
    let silo = build(root)?;
    inside(root)?;
    // One at a time: a test that starts a program holds, for a moment, the sockets that another has just let go.
    run_cargo(root, &["test", "--workspace", "--exclude", "silo-tests", "--", "--test-threads=1"])?;
    let mut end_to_end = Command::new("cargo");
    end_to_end.current_dir(root).env("SILO_BIN", &silo);
    crate::run(end_to_end.args(["test", "-p", "silo-tests", "--no-fail-fast", "--", "--test-threads=2"]))?;
    suites::docker_py(root, &silo)
}

/// Long campaigns: the tests of the same name with more rounds.
pub(crate) fn run_soak(root: &Path, arguments: Vec<String>) -> Outcome {
    let word = |i: usize, default: &str| arguments.get(i).cloned().unwrap_or_else(|| default.to_owned());
    if word(0, "") != "kills" {
        return Err(format!("soak {:?}: there is only `soak kills [ROUNDS [SEED]]`", word(0, "")));
    }
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_secs()).to_string();
    for i in [1, 2] {
        word(i, "1").parse::<u64>().map_err(|_| format!("soak kills: {:?} is no number", word(i, "1")))?;
    }
    packages::ensure(packages::RUN)?;
    let silo = build(root)?;
    let mut command = Command::new("cargo");
    command.current_dir(root).env("SILO_BIN", &silo);
    command.env("SILO_SOAK_ROUNDS", word(1, "50")).env("SILO_SOAK_SEED", word(2, &seed));
    crate::run(command.args(["test", "-p", "silo-tests", "--test", "kills", "--", "--nocapture"]))
}
