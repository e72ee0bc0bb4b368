//! `cargo xtask test`: unit tests, tidy tests, end-to-end tests by the stock client.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, build, fuzz, inside, packages, suites};

pub(crate) fn run_cargo(root: &Path, arguments: &[&str]) -> Outcome {
    crate::run(Command::new("cargo").current_dir(root).args(arguments))
}

/// The executable with the checks of a development build, and all tests. Every command here selects the whole workspace: cargo
/// chooses the features of what is shared by what is selected, and would build everything anew for another selection.
fn build_for_tests(root: &Path) -> Outcome<PathBuf> {
    println!("building silo and its tests");
    let build = ["build", "--quiet", "--workspace", "--bins", "--tests", "--target-dir", "target"];
    run_cargo(root, &build)?;
    Ok(root.join("target/debug/silo"))
}

/// Files of tests (`tests/*.rs`) of a directory, as cargo names them.
fn files_of_tests(directory: &Path) -> Outcome<Vec<String>> {
    let list = std::fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let paths = list.flatten().map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let mut names: Vec<String> =
        paths.filter_map(|p| Some(p.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

/// The command that runs these files of tests, all of them whatever fails.
fn test_command<'n>(root: &Path, files: impl IntoIterator<Item = &'n str>) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["test", "--workspace", "--no-fail-fast", "--target-dir", "target"]);
    command.args(files.into_iter().flat_map(|file| ["--test", file]));
    command
}

/// Installs what is missing and runs every test.
pub(crate) fn run_all(root: &Path) -> Outcome {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::RUN)?;
    packages::ensure(packages::MACHINES)?;
    packages::ensure(packages::TEST)?;
    let silo = build_for_tests(root)?;
    inside(root)?;
    let mut of_crates = Vec::new();
    for entry in std::fs::read_dir(root.join("crates")).map_err(|e| format!("crates: {e}"))?.flatten() {
        let directory = entry.path().join("tests");
        if directory.is_dir() {
            of_crates.extend(files_of_tests(&directory)?);
        }
    }
    let all = files_of_tests(&root.join("tests/tests"))?;
    // Cargo knows no file of one package alone when it runs all.
    if let Some(twice) = of_crates.iter().find(|name| all.contains(name)) {
        return Err(format!(
            "{twice}.rs is a file of tests of a crate and of the end-to-end tests: rename one"
        ));
    }
    let mut failed = Vec::new();
    let mut stage = |name: &'static str, command: &mut Command| {
        println!("{name}");
        failed.extend(crate::run(command).err().map(|e| format!("{name}: {e}")));
    };
    // One at a time: a test that starts a program holds, for a moment, the sockets that another has just let go.
    let mut units = test_command(root, of_crates.iter().map(String::as_str));
    stage("unit tests", units.args(["--lib", "--bins", "--", "--test-threads=1"]));
    run_cargo(root, &["test", "--quiet", "--workspace", "--target-dir", "target", "--doc"])?;
    let mut machines = test_command(root, UNDER_BOTH.iter().copied());
    machines.env("SILO_BIN", &silo).env("SILO_TEST_ISOLATION", "hyperv");
    // One leaves a third of two processors idle: a machine has one, and its VMM some of another.
    stage("end-to-end tests under hyperv", machines.args(["--", "--test-threads=2"]));
    let mut end_to_end = test_command(root, all.iter().map(String::as_str));
    end_to_end.env("SILO_BIN", &silo).args(["--", "--test-threads=2"]);
    stage("end-to-end tests under process, and those of neither", &mut end_to_end);
    failed.extend(suites::docker_py(root, &silo).err());
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
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
    ("stress", 1, "stress", ""),
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
    let mut command = test_command(root, [*file]);
    command.env("SILO_BIN", &silo).env("SILO_SOAK_ROUNDS", rounds).env("SILO_SOAK_SEED", seed);
    crate::run(command.args(["--", "--nocapture", "--test-threads=1", test]))
}
