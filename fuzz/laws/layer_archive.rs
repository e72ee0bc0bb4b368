//! A Windows layer's archive, as a base and over a layer: unpacked, packed and unpacked again, or an error.

/// The law.
pub(crate) fn check(bytes: &[u8]) {
    let scratch = tempfile::tempdir().unwrap();
    let lower = scratch.path().join("lower");
    std::fs::create_dir_all(lower.join("Files/Windows/System32")).unwrap();
    std::fs::write(lower.join("Files/Windows/System32/a.dll"), "a").unwrap();
    for (name, lower) in [("base", None), ("over", Some(lower.as_path()))] {
        let scratch = scratch.path().join(name);
        std::fs::create_dir(&scratch).unwrap();
        // What is no layer is an error; the laws are checked inside.
        let _ = silo_layer::fuzz_windows(bytes, lower, &scratch);
    }
}
