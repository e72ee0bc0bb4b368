//! Every seed of every fuzz target through the target's own law: what fuzzing once found stays found, without a fuzzer.

#[path = "../../fuzz/laws/mod.rs"]
mod laws;

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_seed_keeps_its_law() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for directory in std::fs::read_dir(fuzz.join("seeds")).unwrap() {
        let directory = directory.unwrap();
        let target = directory.file_name().into_string().unwrap();
        for seed in std::fs::read_dir(directory.path()).unwrap() {
            let seed = seed.unwrap().path();
            let bytes = std::fs::read(&seed).unwrap();
            let held = std::panic::catch_unwind(|| laws::check(&target, &bytes));
            assert!(held.is_ok(), "{}", seed.display());
        }
    }
}

#[test]
fn every_target_has_a_law() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/targets");
    let names = std::fs::read_dir(targets).unwrap().map(|entry| entry.unwrap().path());
    let names: BTreeSet<_> =
        names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, laws::LAWS.iter().map(|(name, _)| (*name).to_owned()).collect());
}
