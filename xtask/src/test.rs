//! `cargo xtask test`: unit tests, tidy tests, end-to-end tests by the stock client.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, build, fuzz, inside, packages, suites};

pub(crate) fn run_cargo(root: &Path, arguments: &[&str]) -> Outcome {
    crate::run(Command::new("cargo").current_dir(root).args(arguments))
}

/// The executable with the checks of a development build; the tests' own build shares all that it is made of.
fn build_for_tests(root: &Path) -> Outcome<PathBuf> {
    println!("building silo");
    run_cargo(root, &["build", "--quiet", "-p", "silo", "--target-dir", "target"])?;
    Ok(root.join("target/debug/silo"))
}

/// Installs what is missing and runs every test.
pub(crate) fn run_all(root: &Path) -> Outcome {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::RUN)?;
    packages::ensure(packages::MACHINES)?;
    packages::ensure(packages::TEST)?;
    let silo = build_for_tests(root)?;
    inside(root)?;
    // One at a time: a test that starts a program holds, for a moment, the sockets that another has just let go.
    run_cargo(root, &["test", "--workspace", "--exclude", "silo-tests", "--", "--test-threads=1"])?;
    println!("end-to-end tests under hyperv");
    let mut machines = Command::new("cargo");
    machines.current_dir(root).env("SILO_BIN", &silo).env("SILO_TEST_ISOLATION", "hyperv");
    machines.args(["test", "-p", "silo-tests", "--no-fail-fast"]);
    machines.args(UNDER_BOTH.iter().flat_map(|file| ["--test", file]));
    crate::run(machines.args(["--", "--test-threads=1"]))?;
    println!("end-to-end tests under process, and those of neither");
    let mut end_to_end = Command::new("cargo");
    end_to_end.current_dir(root).env("SILO_BIN", &silo);
    crate::run(end_to_end.args(["test", "-p", "silo-tests", "--no-fail-fast", "--", "--test-threads=2"]))?;
    suites::docker_py(root, &silo)
}

/// Files of end-to-end tests that hold under both isolations, from one list; the others are about one of them, or about
/// what no isolation has to do with (`docs/isolation.md`).
const UNDER_BOTH: &[&str] = &[
    "run",
    "options",
    "lifecycle",
    "terminal",
    "windows",
    "registry",
    "identity",
    "windows_bases",
    "volumes",
    "job",
    "limits",
    "stress",
    "bandwidth",
    "names",
    "networks",
    "ports",
    "isolation_network",
];

/// Campaigns: name, rounds if none are asked for, file and name of the test that has fewer of them.
const CAMPAIGNS: &[(&str, u64, &str, &str)] = &[
    ("kills", 50, "kills", ""),
    ("pulls", 50, "registry_pull", "a_pull_is_killed_and_the_store_is_sound"),
    ("loads", 50, "store_kills", "a_load_is_killed_and_the_store_is_sound"),
    ("commits", 50, "store_kills", "a_commit_is_killed_and_the_store_is_sound"),
    ("builds", 50, "store_kills", "a_build_is_killed_and_the_store_is_sound"),
    ("prunes", 50, "store_kills", "a_prune_is_killed_and_the_store_is_sound"),
    ("networks", 50, "network_kills", "networks_are_those_of_the_running_containers_after_a_kill"),
    ("machines", 50, "machine_faults", "every_machine_is_accounted_for"),
    ("spares", 50, "pool", "a_kill_while_a_spare_becomes_a_container_leaves_nothing"),
    ("boots", 30, "windows", "programs_that_come_at_once_meet_one_system"),
    ("bases", 5, "bases", "the_same_packages_make_the_same_base"),
    ("limits", 10, "limits", "neighbours_keep_their_service_times"),
    ("bandwidth", 1, "bandwidth", ""),
];

/// Long campaigns: tests with more rounds.
pub(crate) fn run_soak(root: &Path, arguments: Vec<String>) -> Outcome {
    let word = |i: usize, default: String| arguments.get(i).cloned().unwrap_or(default);
    let name = word(0, String::new());
    let whole = |text: &str| text.parse::<u64>().map_err(|_| format!("soak {name}: {text:?} is no number"));
    if name == "fuzz" {
        return fuzz::run(root, whole(&word(1, "60".to_owned()))?);
    }
    let Some((_, rounds, file, test)) = CAMPAIGNS.iter().find(|(other, ..)| *other == name) else {
        let names: Vec<&str> = CAMPAIGNS.iter().map(|(name, ..)| *name).collect();
        return Err(format!("soak {name:?}: there are {} [ROUNDS [SEED]], fuzz [SECONDS]", names.join(", ")));
    };
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_secs());
    let (rounds, seed) = (word(1, rounds.to_string()), word(2, seed.to_string()));
    for number in [&rounds, &seed] {
        whole(number)?;
    }
    packages::ensure(packages::RUN)?;
    if name == "bandwidth" {
        packages::ensure(packages::BANDWIDTH)?;
    }
    let silo = build(root)?;
    if !["kills", "registry_pull"].contains(file) {
        packages::ensure(packages::BUILD)?;
        inside(root)?;
    }
    let mut command = Command::new("cargo");
    command.current_dir(root).env("SILO_BIN", &silo);
    command.env("SILO_SOAK_ROUNDS", rounds).env("SILO_SOAK_SEED", seed);
    crate::run(command.args([
        "test",
        "-p",
        "silo-tests",
        "--test",
        file,
        "--",
        "--nocapture",
        "--test-threads=1",
        test,
    ]))
}
