//! `cargo xtask soak fuzz`: every fuzz target for a while.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;

/// Runs every target for so many seconds, from its seeds and what earlier runs found (`target/fuzz/corpus`). What breaks a
/// law is in `target/fuzz/artifacts`; repaired, it belongs into `fuzz/seeds`, which a plain test replays.
pub(crate) fn run(root: &Path, seconds: u64) -> Outcome {
    // Both words are a program's own: without that part it fails.
    for (arguments, missing) in [
        (["fuzz", "--version"], "cargo-fuzz: cargo install cargo-fuzz"),
        (["+nightly", "--version"], "a nightly toolchain: rustup toolchain install nightly"),
    ] {
        let mut asked = Command::new("cargo");
        asked.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        if !asked.status().is_ok_and(|status| status.success()) {
            return Err(format!("soak fuzz: nothing was run, for want of {missing}"));
        }
    }
    let io = |doing: &str, path: &Path, e| format!("{doing} {}: {e}", path.display());
    let (fuzz, kept) = (root.join("fuzz"), root.join("target/fuzz"));
    let listed =
        std::fs::read_dir(fuzz.join("targets")).map_err(|e| io("reading", &fuzz.join("targets"), e))?;
    let mut targets: Vec<String> = listed
        .flatten()
        .filter_map(|entry| entry.path().file_stem().map(|name| name.to_string_lossy().into_owned()))
        .collect();
    targets.sort();
    let mut broken = Vec::new();
    for target in &targets {
        println!("{target}: {seconds} s");
        let (corpus, artifacts) = (kept.join("corpus").join(target), kept.join("artifacts").join(target));
        for directory in [&corpus, &artifacts] {
            std::fs::create_dir_all(directory).map_err(|e| io("making", directory, e))?;
        }
        let mut command = Command::new("cargo");
        command.current_dir(root).args([
            "+nightly",
            "fuzz",
            "run",
            target,
            "--fuzz-dir",
            "fuzz",
            "--target-dir",
        ]);
        command.arg(kept.join("build")).arg(corpus).arg(fuzz.join("seeds").join(target));
        command.args(["--", &format!("-max_total_time={seconds}")]);
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        if crate::run(&mut command).is_err() {
            broken.push(target.as_str());
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(format!("soak fuzz: {} failed; see {}/artifacts", broken.join(", "), kept.display())),
    }
}
