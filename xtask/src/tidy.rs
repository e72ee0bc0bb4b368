//! The repository checks itself: arrows between crates, files that say what they are for, no unfinished code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The arrows that HOUSE.md allows.
const ARROWS: &[(&str, &[&str])] = &[
    ("silo", &["silo-api", "silo-engine", "silo-sandbox"]),
    ("silo-api", &["silo-engine"]),
    ("silo-engine", &["silo-image", "silo-guest", "silo-sandbox", "silo-network"]),
    ("silo-image", &["silo-layer", "silo-sys"]),
    ("silo-guest", &["silo-layer", "silo-sys"]),
    ("silo-sandbox", &["silo-runtime", "silo-sys"]),
    ("silo-network", &["silo-sys"]),
    ("silo-layer", &["silo-sys"]),
    ("silo-runtime", &["silo-sys"]),
    ("silo-sys", &[]),
];

/// Lines a file may have.
const LONGEST: usize = 800;

fn sources() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files", "*.rs"]).current_dir(crate::root()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let files: Vec<PathBuf> = text.lines().map(|l| crate::root().join(l)).filter(|p| p.exists()).collect();
    assert!(files.len() > 50, "git lists only {} source files", files.len());
    files
}

#[test]
fn crates_depend_only_downwards() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(crate::root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(may) = allowed.get(name) else { continue };
        seen += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            assert!(
                !on.starts_with("silo") || may.contains(&on),
                "{name} -> {on} is not among the house's arrows"
            );
        }
    }
    assert_eq!(seen, ARROWS.len());
}

#[test]
fn every_file_opens_with_what_it_is_for_and_is_not_too_long() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with a sentence", path.display());
        assert!(text.lines().count() <= LONGEST, "{} has more than {LONGEST} lines", path.display());
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, so that this file does not find itself.
    let needles: Vec<String> = ["todo", "unimplemented", "dbg"]
        .iter()
        .map(|w| format!("{w}!("))
        .chain([format!("#[{}", "ignore")])
        .collect();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        for needle in &needles {
            assert!(!text.contains(needle), "{} has {needle}", path.display());
        }
    }
}

#[test]
fn paths_named_in_the_architecture_page_exist() {
    let root = crate::root();
    let text = std::fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let mut checked = 0;
    for path in
        text.split('`').skip(1).step_by(2).filter(|p| p.starts_with("crates/") || p.starts_with("inside/"))
    {
        assert!(Path::new(&root.join(path)).exists(), "docs/architecture.md names {path}");
        checked += 1;
    }
    assert!(checked > 10, "only {checked} paths");
}
