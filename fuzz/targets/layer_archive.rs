//! A Windows layer's archive, over a layer: unpacked and packed again, or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let scratch = tempfile::tempdir().unwrap();
    let lower = scratch.path().join("lower");
    std::fs::create_dir_all(lower.join("Files/Windows/System32")).unwrap();
    std::fs::write(lower.join("Files/Windows/System32/a.dll"), "a").unwrap();
    silo_layer::fuzz_windows(bytes, &[lower], &scratch.path().join("new"));
});
