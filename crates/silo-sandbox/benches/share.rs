//! How fast, on this host and without a machine between (`SILO_TEST_DIR=/dev/shm` leaves the disk out):
//! `cargo bench -p silo-sandbox`

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

#[allow(dead_code)]
#[path = "../tests/share/mounted.rs"]
mod mounted;
#[allow(dead_code, missing_docs)]
#[path = "../../../inside/agent/src/share.rs"]
mod relay;

use mounted::Mounted;

const MIB: usize = 1 << 20;
const SIZE: usize = 256;
const FILES: u32 = 10_000;

fn rate(amount: f64, begun: Instant) -> u64 {
    (amount / begun.elapsed().as_secs_f64()) as u64
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

fn measure(name: &str, dir: &Path) {
    let block = vec![7u8; MIB];
    let path = dir.join("big");
    let begun = Instant::now();
    let mut file = File::create(&path).unwrap();
    (0..SIZE).for_each(|_| file.write_all(&block).unwrap());
    drop(file);
    let write = rate(SIZE as f64, begun);
    rustix::fs::sync();
    // The guest's cache goes with the change, the host's stays.
    let warm = |path: &Path| {
        let mut block = vec![0u8; MIB];
        let mut file = File::open(path).unwrap();
        let begun = Instant::now();
        while file.read(&mut block).unwrap() > 0 {}
        rate(SIZE as f64, begun)
    };
    let read = warm(&path);
    let again = warm(&path);
    let begun = Instant::now();
    (0..FILES).for_each(|i| fs::write(dir.join(i.to_string()), "a small file").unwrap());
    let made = rate(FILES.into(), begun);
    std::thread::sleep(Duration::from_millis(1100));
    drop_caches();
    let begun = Instant::now();
    let listed = fs::read_dir(dir).unwrap().filter(|e| e.as_ref().unwrap().metadata().is_ok()).count();
    let stat = rate(listed as f64, begun);
    let begun = Instant::now();
    (0..FILES).for_each(|i| assert_eq!(fs::read(dir.join(i.to_string())).unwrap().len(), 12));
    let opened = rate(FILES.into(), begun);
    println!(
        "{name}: write {write} MiB/s, read {read} MiB/s, again {again} MiB/s; small files/s: made {made}, \
         listed with metadata {stat}, read {opened}"
    );
}

fn main() {
    let Some(m) = Mounted::new() else { return println!("not measured: needs root and /dev/fuse") };
    let direct = m.host.join("direct");
    let shared = m.guest.join("shared");
    fs::create_dir(&direct).unwrap();
    fs::create_dir(&shared).unwrap();
    measure("host  ", &direct);
    measure("shared", &shared);
}
