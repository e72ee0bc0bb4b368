//! The promise on memory: a hive in work takes no more than three times its file.

mod large;

use std::process::Command;

use silo_hive::{Hive, Value, merge};

/// Which step this process is to do; the test starts itself once for each.
const STEP: &str = "SILO_HIVE_MEMORY_STEP";
const VALUES: usize = 250_000;

/// Most bytes that the process has had in memory.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn step(name: &str, path: &std::path::Path) {
    let before = peak();
    let hive = Hive::from_bytes(std::fs::read(path).unwrap()).unwrap();
    let mut delta = Hive { layered: true, ..Hive::default() };
    for i in 0..300 {
        delta.root.insert_value(Value::string(format!("new {i}").as_str(), "new")).unwrap();
    }
    let kept = match name {
        "read" => hive.root.subkeys().len(),
        "merge" => merge(hive, delta).root.values().len(),
        _ => merge(hive, delta).to_bytes().unwrap().len(),
    };
    assert!(kept > 0);
    println!("grown: {}", peak() - before);
}

#[test]
fn reading_merging_and_writing_take_three_times_the_file_at_most() {
    let path =
        std::env::temp_dir().join(format!("silo-hive-memory-{}", std::env::var("USER").unwrap_or_default()));
    if let Ok(name) = std::env::var(STEP) {
        return step(&name, &path);
    }
    for each in [10, VALUES] {
        let bytes = large::hive(VALUES, each).to_bytes().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        for name in ["read", "merge", "write"] {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--nocapture", "--test-threads=1"])
                .env(STEP, name)
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let grown =
                text.lines().find_map(|l| l.split("grown: ").nth(1)?.trim().parse::<usize>().ok()).unwrap();
            let ratio = grown as f64 / bytes.len() as f64;
            println!("{name}, {each} values a key: {grown} bytes for a file of {}: {ratio:.2}", bytes.len());
            assert!(ratio <= 3.0, "{name}, {each} values a key: {ratio:.2} times the file");
        }
    }
    std::fs::remove_file(&path).unwrap();
}
