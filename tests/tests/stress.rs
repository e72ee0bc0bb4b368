//! One program runs into each limit, in both guests, and is held there: memory to 1 %, processors to 5 %, I/O to 10 %, tasks and
//! disk exactly. What only Linux can show of them is in `limits.rs`, what Windows programs are told of them in `job.rs`.
//!
//! That a container gets no more holds on a busy machine; that it gets all is printed.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use silo_tests::guests::{self, Guest, LINUX, WINDOWS};
use silo_tests::{Daemon, isolation};

const MIB: u64 = 1 << 20;

fn stats(d: &Daemon, name: &str) -> Value {
    let body = d.get(&format!("/containers/{name}/stats?stream=false&one-shot=true"));
    serde_json::from_str(&body).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

/// Hundredths of a percent of one processor that a program of the container got.
fn share(d: &Daemon, guest: Guest, name: &str, program: &str, ms: &str) -> u64 {
    let said = guest.exec(d, name, &["stress", program, ms]);
    said.out.parse().unwrap_or_else(|_| panic!("{said:?}"))
}

/// Waits until a container does nothing of its own: a Windows one's services start beside its program, and use what it may use.
fn settle(d: &Daemon, name: &str) {
    const LIMIT: Duration = Duration::from_secs(180);
    let used = || number(&stats(d, name)["cpu_stats"]["cpu_usage"]["total_usage"]);
    let end = Instant::now() + LIMIT;
    loop {
        let before = used();
        std::thread::sleep(Duration::from_secs(1));
        // A twentieth of a processor.
        if used() - before < 50_000_000 {
            return;
        }
        assert!(Instant::now() < end, "{name} is never idle");
    }
}

/// Makes a container by the API, with what the stock client says to Windows hosts alone, and starts it.
fn created(d: &Daemon, dir: &Path, guest: Guest, name: &str, host: Value) {
    let mut host = host;
    host["Binds"] = json!([guest.mount(dir)]);
    let program = [guest.program("stress"), "wait".to_owned()];
    let body = json!({"Image": guest.image, "Cmd": program, "OpenStdin": true, "HostConfig": host});
    let (status, said) = d.post(&format!("/containers/create?name={name}"), &body);
    assert_eq!(status, 201, "{said}");
    d.ok(&["start", name]);
    settle(d, name);
}

#[test]
fn memory_is_held_to_one_percent() {
    let (d, dir) = (guests::both(), guests::programs("stress"));
    let limit = 512 * MIB;
    for guest in [LINUX, WINDOWS] {
        let name = guest.name.to_lowercase();
        guest.start(
            &d,
            dir.path(),
            &name,
            &["--memory", "512m", "--memory-swap", "512m"],
            &["stress", "wait"],
        );
        let before = number(&stats(&d, &name)["memory_stats"]["usage"]);
        let said = guest.exec(&d, &name, &["stress", "memory", "1000000"]);
        let pieces = said.out.lines().filter_map(|l| l.trim().parse::<u64>().ok()).max().unwrap_or(0);
        let (touched, most) = (pieces << 16, number(&stats(&d, &name)["memory_stats"]["max_usage"]));
        println!(
            "{}: {} MiB were in use, {} more were touched, {:.1} was the most of 512; code {}",
            guest.name,
            before / MIB,
            touched / MIB,
            most as f64 / MIB as f64,
            said.code
        );
        // The kernel lets a program that it kills have the last pages it cannot do without.
        let (least, last) = (limit - limit / 100, 64 << 10);
        assert!(touched <= limit && (least..=limit + last).contains(&most), "{most} of {limit}");
        // What was there, and the page tables of the rest.
        assert!(touched + before >= limit - limit / 20, "{before} and {touched} of {limit}");
        // The one that asked for it ended, and nobody else.
        assert_eq!(d.ok(&["inspect", "-f", "{{.State.Running}}", &name]), "true");
        assert_eq!(guest.exec(&d, &name, &["stress", "memory", "1"]).out.trim(), "all");
        d.ok(&["rm", "-f", &name]);
        let program = ["stress", "memory", "1000000"];
        guest.start(&d, dir.path(), &name, &["--memory", "256m", "--memory-swap", "256m"], &program);
        let code = d.ok(&["wait", &name]);
        println!("{}: a container that has no memory left ends with {code}", guest.name);
        assert_eq!(d.ok(&["inspect", "-f", "{{.State.OOMKilled}}", &name]), "true");
        assert!(code == "137" && said.code == 137, "{code} {}", said.code);
    }
}

#[test]
fn processors_are_held_to_five_percent_and_shown_so() {
    let (d, dir) = (guests::both(), guests::programs("stress"));
    for guest in [LINUX, WINDOWS] {
        let name = guest.name.to_lowercase();
        guest.start(&d, dir.path(), &name, &["--cpus", "0.5"], &["stress", "cpu", "600000"]);
        let used = || number(&stats(&d, &name)["cpu_stats"]["cpu_usage"]["total_usage"]);
        let (begin, first) = (Instant::now(), used());
        std::thread::sleep(Duration::from_secs(3));
        let got = (used() - first) as f64 / begin.elapsed().as_nanos() as f64;
        let shown = || {
            let text = d.ok(&["stats", "--no-stream", "--format", "{{.CPUPerc}}", &name]);
            text.trim_end_matches('%').parse::<f64>().unwrap_or_else(|_| panic!("{text}"))
        };
        let mut shown = [shown(), shown(), shown()];
        shown.sort_by(f64::total_cmp);
        d.ok(&["rm", "-f", &name]);
        guest.start(&d, dir.path(), &name, &["--cpus", "0.5"], &["stress", "wait"]);
        settle(&d, &name);
        let told = share(&d, guest, &name, "cpu", "3000") as f64 / 100.0;
        d.ok(&["rm", "-f", &name]);
        println!(
            "{} with half a processor: {:.1} % by the API, {told:.1} % as it sees itself, docker stats {shown:?}",
            guest.name,
            got * 100.0
        );
        assert!(got <= 0.525 && told <= 52.5, "{}: {got} {told}", guest.name);
        assert!(shown[1] <= 55.0 && shown[1] > 5.0, "{}: {shown:?}", guest.name);
    }
}

#[test]
fn a_windows_containers_tasks_are_counted_exactly() {
    let (d, dir) = (WINDOWS.daemon(), guests::programs("stress"));
    WINDOWS.start(&d, dir.path(), "many", &["--pids-limit", "60"], &["stress", "tasks", "1000"]);
    let now = || number(&stats(&d, "many")["pids_stats"]["current"]);
    let end = Instant::now() + Duration::from_secs(30);
    while now() < 60 {
        assert!(Instant::now() < end, "{} tasks: {}", now(), d.ok(&["logs", "many"]));
        std::thread::sleep(Duration::from_millis(100));
    }
    // The system's are among them.
    d.await_line(&["logs", "-f", "many"], "");
    let own: u64 = d.ok(&["logs", "many"]).trim().parse().unwrap();
    println!("{own} of 60 tasks are the program's");
    assert!(own > 20 && own < 60, "{own}");
    assert_eq!(now(), 60);
    d.ok(&["update", "--pids-limit", "100", "many"]);
    let said = WINDOWS.exec(&d, "many", &["stress", "tasks", "1000"]);
    let further: u64 = said.out.trim().parse().unwrap_or_else(|_| panic!("{said:?}"));
    assert!(further > 20 && further <= 40, "{further}");
}

#[test]
fn a_windows_containers_disk_is_full_at_its_size() {
    let (d, dir) = (WINDOWS.daemon(), guests::programs("stress"));
    let size = 100 * MIB;
    WINDOWS.start(&d, dir.path(), "full", &["--storage-opt", "size=100m"], &["stress", "wait"]);
    let said = WINDOWS.exec(&d, "full", &["stress", "fill", r"C:\file"]);
    let (room, written) = said.out.trim().split_once(' ').unwrap_or_else(|| panic!("{said:?}"));
    let (room, written): (u64, u64) = (room.parse().unwrap(), written.parse().unwrap());
    println!("{written} of {room} bytes of {size} were written");
    // The registry and what else its system made.
    assert!(room <= size && room >= size - 4 * MIB, "{room}");
    assert!(written <= room && written >= room - 128 * 1024, "{written} of {room}");
    let (status, _) = d.request("GET /containers/full/archive?path=C:/file");
    assert_eq!(status, 200);
}

#[test]
fn the_system_drive_is_written_at_its_rate() {
    let (d, dir) = (guests::both(), guests::programs("stress"));
    let most = 4 * MIB;
    for guest in [LINUX, WINDOWS] {
        let name = guest.name.to_lowercase();
        guest.start(&d, dir.path(), &name, &[], &["stress", "wait"]);
        settle(&d, &name);
        let change = json!({"IOMaximumBandwidth": most});
        let (status, said) = d.post(&format!("/containers/{name}/update"), &change);
        if status == 400 && said.contains("is on no block device that could be limited") {
            println!("not measured: {said}");
            return;
        }
        assert_eq!(status, 200, "{said}");
        let file = if guest == LINUX { "/file" } else { r"C:\file" };
        let said = guest.exec(&d, &name, &["stress", "slabs", file, "20"]);
        let rate: u64 = said.out.trim().parse().unwrap_or_else(|_| panic!("{said:?}"));
        println!("{}: {:.1} % of the rate", guest.name, rate as f64 / most as f64 * 100.0);
        assert!(rate <= most + most / 10, "{}: {rate} of {most} bytes a second", guest.name);
        d.ok(&["rm", "-f", &name]);
    }
}

#[test]
fn processors_are_counted_and_shared_by_windows_flags() {
    let (d, dir) = (guests::both(), guests::programs("stress"));
    let there = std::thread::available_parallelism().unwrap().get() as u64;
    for guest in [LINUX, WINDOWS] {
        let of = |what: &str| format!("{}-{what}", guest.name.to_lowercase());
        // A machine has so many; where the kernel is the host's, less than it has shows more.
        let count = if isolation() == "hyperv" { there.min(2) } else { 1 };
        let name = of("count");
        created(&d, dir.path(), guest, &name, json!({"CpuCount": count}));
        let seen = guest.exec(&d, &name, &["stress", "processors"]).out;
        let got = share(&d, guest, &name, "pair", "2000");
        println!(
            "{}: CpuCount {count}: {seen} are seen, two threads get {:.1} %",
            guest.name,
            got as f64 / 100.0
        );
        // Linux programs see the host's: a quota hides none.
        if guest == WINDOWS || isolation() == "hyperv" {
            assert_eq!(seen.trim(), count.to_string(), "{}", guest.name);
        }
        assert!(got <= count * 10_500, "{}: {got}", guest.name);
        assert!(count < 2 || got > 11_000, "{}: {got} of two processors", guest.name);
        assert_eq!(d.ok(&["inspect", "-f", "{{.HostConfig.CpuCount}}", &name]), count.to_string());
        let name = of("percent");
        created(&d, dir.path(), guest, &name, json!({"CpuPercent": 25}));
        let of_all = if isolation() == "hyperv" { 1 } else { there };
        for percent in [25, 10] {
            if percent != 25 {
                let change = json!({"CpuPercent": percent});
                let (status, said) = d.post(&format!("/containers/{name}/update"), &change);
                assert_eq!(status, 200, "{said}");
            }
            let limit = percent * 100 * of_all;
            let got = share(&d, guest, &name, "cpu", "2000");
            println!("{}: CpuPercent {percent}: {:.1} % of one", guest.name, got as f64 / 100.0);
            assert!(got <= limit + limit / 20 + 50, "{}: {got} of {limit}", guest.name);
            let kept = d.ok(&["inspect", "-f", "{{.HostConfig.CpuPercent}}", &name]);
            assert_eq!(kept, percent.to_string());
        }
    }
}
