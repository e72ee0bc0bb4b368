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
