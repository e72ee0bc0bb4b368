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

/// Campaigns: name, rounds if none are asked for, file and name of the test that has fewer of them.
const CAMPAIGNS: &[(&str, u64, &str, &str)] = &[
    ("kills", 50, "kills", ""),
    ("boots", 30, "windows", "programs_that_come_at_once_meet_one_system"),
    ("bases", 5, "bases", "the_same_packages_make_the_same_base"),
];

/// Long campaigns: tests with more rounds.
pub(crate) fn run_soak(root: &Path, arguments: Vec<String>) -> Outcome {
    let word = |i: usize, default: String| arguments.get(i).cloned().unwrap_or(default);
    let name = word(0, String::new());
    let Some((_, rounds, file, test)) = CAMPAIGNS.iter().find(|(other, ..)| *other == name) else {
        let names: Vec<&str> = CAMPAIGNS.iter().map(|(name, ..)| *name).collect();
        return Err(format!("soak {name:?}: there are {} [ROUNDS [SEED]]", names.join(", ")));
    };
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_secs());
    let (rounds, seed) = (word(1, rounds.to_string()), word(2, seed.to_string()));
    for number in [&rounds, &seed] {
        number.parse::<u64>().map_err(|_| format!("soak {name}: {number:?} is no number"))?;
    }
    packages::ensure(packages::RUN)?;
    let silo = build(root)?;
    if *file != "kills" {
        packages::ensure(packages::BUILD)?;
        inside(root)?;
    }
    let mut command = Command::new("cargo");
    command.current_dir(root).env("SILO_BIN", &silo);
    command.env("SILO_SOAK_ROUNDS", rounds).env("SILO_SOAK_SEED", seed);
    crate::run(command.args(["test", "-p", "silo-tests", "--test", file, "--", "--nocapture", test]))
}
