//! `cargo xtask bench`: Silo and dockerd side by side in one run, both figures and the ratio, against what was promised.
//!
//! The Linux figures come from `../shared/bench/peer_bench.sh`, which treats both engines alike; the Windows ones are
//! measured here against dockerd's Linux figures of the same run. Absolute times are those of this machine in this
//! hour; the ratios are what `SPECIFICATION.md` promises. Nothing fails on a figure: the table says "missed".

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench_builds;
use crate::bench_images::{self, Figures};
use crate::bench_measure::median;
use crate::bench_networks::{self, Bound, Samples};
use crate::demo::{self, Daemon};
use crate::registry::Registry;
use crate::{Outcome, build, inside, packages, run};

/// How long dockerd may take to listen.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Parts of the peer bench.
const SECTIONS: &str = "run,api,exec,conc,rss,logs,attach";
/// Windows runs to take the median of.
const RUNS: usize = 15;

/// A figure of the peer bench: title, JSON pointer, bound on Silo's share of dockerd's, whether more is better.
const RATIOS: &[(&str, &str, f64, bool)] = &[
    ("docker run --rm true, ms", "/run_rm_true_cli_ms/median", 0.3, false),
    ("API create+start+wait+remove, ms", "/api_bridge_ms/total", 0.15, false),
    ("exec by API, ms", "/exec_api_ms/median", 0.3, false),
    ("50 concurrent runs by the client, s", "/concurrent_cli_run_rm/wall_s", 0.4, false),
    ("a million log lines written (detached), s", "/log_write_1000000_lines_detached_s", 0.3, false),
    ("log lines read by API, a second", "/logs_read_api_lines_per_s", 1.0 / 0.3, true),
    ("attached output, MB/s", "/attach_stdout_json-file_MBps", 5.0, true),
];

/// A figure that is promised as such: title, JSON pointer, bound.
const ABSOLUTE: &[(&str, &str, f64)] = &[
    ("daemon idle, MiB RSS", "/memory_MiB/daemon_idle_rss", 25.0),
    ("per idle Linux container, MiB PSS", "/memory_MiB/per_container_pss_all_in", 1.5),
];

/// dockerd with a root, socket and bridge of its own.
struct Dockerd {
    dir: PathBuf,
    child: Child,
    /// Firewall tables that were there before it.
    tables: Vec<String>,
}

fn firewall_tables() -> Vec<String> {
    let output = Command::new("nft").args(["list", "tables"]).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

impl Dockerd {
    fn start() -> Outcome<Self> {
        let dir = std::env::temp_dir().join(format!("silo-bench-dockerd-{}", std::process::id()));
        let at = |e: std::io::Error| format!("{}: {e}", dir.display());
        std::fs::create_dir_all(&dir).map_err(at)?;
        let log = std::fs::File::create(dir.join("log")).map_err(at)?;
        let path = |name: &str| dir.join(name).display().to_string();
        let tables = firewall_tables();
        let child = Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["-H", &format!("unix://{}", path("docker.sock")), "--bip", "172.29.77.1/24"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("starting dockerd: {e}"))?;
        let mut dockerd = Self { dir, child, tables };
        let end = Instant::now() + START_LIMIT;
        while std::os::unix::net::UnixStream::connect(dockerd.dir.join("docker.sock")).is_err() {
            if Instant::now() > end || dockerd.child.try_wait().is_ok_and(|s| s.is_some()) {
                let log = std::fs::read_to_string(dockerd.dir.join("log")).unwrap_or_default();
                return Err(format!("dockerd does not listen:\n{log}"));
            }
            // A socket file that appears tells nobody that it is being listened on.
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(dockerd)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        demo::clear(&self.host());
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = Command::new("ip").args(["link", "delete", "docker0"]).stderr(Stdio::null()).status();
        // Of a Silo that has come meanwhile none are dockerd's.
        let own = |t: &&String| !self.tables.contains(t) && !t.contains(" silo_");
        for table in firewall_tables().iter().filter(own) {
            let _ = Command::new("nft").arg("delete").args(table.split(' ')).stderr(Stdio::null()).status();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// How long one engine may take, in seconds.
const LIMIT: &str = "420";

fn peer_bench(script: &Path, host: &str, scratch: &Path) -> Outcome<Value> {
    println!("measuring {host}");
    // An engine may hang; what was measured before is printed already.
    let output = Command::new("timeout")
        .args(["-k", "5", LIMIT, "bash"])
        .arg(script)
        .env("DOCKER_HOST", host)
        .env("SECTIONS", SECTIONS)
        .env("BENCH_TMP", scratch)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{}: {e}", script.display()))?;
    if output.status.code() == Some(124) {
        return Err(format!("{host} was not measured to the end in {LIMIT} s"));
    }
    let value: Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("{}: {e}", script.display()))?;
    println!("{value}");
    if let Some(errors) = value["errors"].as_object().filter(|e| !e.is_empty()) {
        println!("errors of {host}: {errors:?}");
    }
    Ok(value)
}

fn median_ms(once: impl FnMut() -> Outcome) -> Outcome<f64> {
    median_ms_after(|| Ok(()), once)
}

/// The same; `before` each something is done that does not count.
fn median_ms_after(mut before: impl FnMut() -> Outcome, mut once: impl FnMut() -> Outcome) -> Outcome<f64> {
    once()?;
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        before()?;
        let start = Instant::now();
        once()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(times))
}

/// Proportional memory, in MiB, of a process and everything below it.
pub(crate) fn pss_of_tree(root: u32) -> f64 {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        if let Some(parent) = rest.split_whitespace().nth(1).and_then(|p| p.parse::<u32>().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(of) = tree.get(at).copied() {
        tree.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        at += 1;
    }
    let kib = |pid: &u32| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    tree.iter().map(kib).sum::<u64>() as f64 / 1024.0
}

struct Windows {
    run_ms: f64,
    /// By `docker exec`.
    exec_ms: f64,
    /// Started by a program that runs.
    further_ms: f64,
    idle_mib: f64,
    /// By `docker commit`, of a running container that changed one key.
    commit_ms: f64,
}

fn windows(daemon: &Daemon, silo: &Path) -> Outcome<Windows> {
    const IMAGE: &str = "silo/nanoserver:ltsc2022";
    println!("building the nanoserver base");
    run(Command::new(silo)
        .args(["--host", &daemon.host(), "base", "build", "nanoserver"])
        .stdout(Stdio::null())
        .stderr(Stdio::null()))?;
    let quiet = |arguments: &[&str]| run(daemon.docker(arguments).stdout(Stdio::null()));
    println!("measuring Windows containers");
    let run_ms = median_ms(|| quiet(&["run", "--rm", IMAGE, "cmd", "/c", "ver"]))?;
    quiet(&["run", "-d", "-i", "--name", "idle", IMAGE, "cmd"])?;
    let exec_ms = median_ms(|| quiet(&["exec", "idle", "cmd", "/c", "ver"]))?;
    // Twenty more in one exec: what they add is theirs.
    let programs = |n: &str| {
        let line = format!("for /L %i in (1,1,{n}) do @cmd /c ver >nul");
        median_ms(|| quiet(&["exec", "idle", "cmd", "/c", &line]))
    };
    let further_ms = (programs("21")? - programs("1")?) / 20.0;
    let output = daemon
        .docker(&["inspect", "-f", "{{.State.Pid}}", "idle"])
        .output()
        .map_err(|e| format!("docker inspect: {e}"))?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| e.to_string())?;
    let shim = status.lines().find_map(|l| l.strip_prefix("PPid:")?.trim().parse().ok());
    let idle_mib = pss_of_tree(shim.ok_or("the container's shim is not to be found")?);
    quiet(&["exec", "idle", "reg", "add", r"HKLM\Software\Acme", "/v", "V", "/d", "1", "/f"])?;
    let commit_ms = median_ms(|| quiet(&["commit", "idle"]))?;
    quiet(&["rm", "-f", "idle"])?;
    println!(
        "run {run_ms:.0} ms, exec {exec_ms:.0} ms, further {further_ms:.0} ms, idle {idle_mib:.1} MiB, commit {commit_ms:.0} ms"
    );
    Ok(Windows { run_ms, exec_ms, further_ms, idle_mib, commit_ms })
}

/// Figures of containers with a kernel of their own.
struct Machines {
    accelerator: String,
    run_ms: f64,
    windows_ms: f64,
    exec_ms: f64,
    /// Of each of [`CLONES`].
    idle_mib: f64,
    image_mbps: f64,
    bind_mbps: f64,
}

/// Idle machines whose memory is measured.
const CLONES: usize = 20;
/// MiB of the files that are read.
const READ: u64 = 128;

fn machines(daemon: &Daemon, silo: &Path) -> Outcome<Machines> {
    const IMAGE: &str = "localhost/busybox";
    println!("measuring containers with a kernel of their own");
    run(Command::new(silo).args(["--host", &daemon.host(), "vm", "kernel"]).stdout(Stdio::null()))?;
    run(Command::new(silo).args(["--host", &daemon.host(), "vm", "template", "build"]))?;
    let info =
        Command::new(silo).args(["--host", &daemon.host(), "info"]).output().map_err(|e| e.to_string())?;
    let info = String::from_utf8_lossy(&info.stdout).into_owned();
    let accelerator =
        info.lines().find_map(|l| l.strip_prefix("hyperv")).unwrap_or_default().trim().to_owned();
    let quiet = |arguments: &[&str]| run(daemon.docker(arguments).stdout(Stdio::null()));
    let run_ms = median_ms(|| quiet(&["run", "--rm", "--isolation", "hyperv", IMAGE, "true"]))?;
    let windows = ["run", "--rm", "--isolation", "hyperv", "silo/nanoserver:ltsc2022", "cmd", "/c", "ver"];
    let windows_ms = median_ms(|| quiet(&windows))?;
    let dir = daemon.dir().join("bind");
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let content: Vec<u8> = (0..READ << 20).map(|i| (i / 4096 % 251) as u8).collect();
    std::fs::write(dir.join("file"), &content).map_err(|e| e.to_string())?;
    let bind = format!("{}:/bind", dir.display());
    // The image's own file, big enough to be timed.
    quiet(&["create", "--name", "big", IMAGE])?;
    quiet(&["cp", &dir.join("file").display().to_string(), "big:/file"])?;
    quiet(&["commit", "big", "localhost/big"])?;
    quiet(&[
        "run",
        "-d",
        "--name",
        "reader",
        "--isolation",
        "hyperv",
        "-v",
        &bind,
        "localhost/big",
        "sleep",
        "1000",
    ])?;
    let exec_ms = median_ms(|| quiet(&["exec", "reader", "true"]))?;
    // Without what starting the reader takes, and each time from the disk.
    let mbps = |path: &str| -> Outcome<f64> {
        let script = format!(
            "echo 3 >/proc/sys/vm/drop_caches 2>/dev/null; cat /proc/uptime; dd if={path} of=/dev/null bs=1M 2>/dev/null; cat /proc/uptime"
        );
        let output = daemon
            .docker(&["exec", "--privileged", "reader", "sh", "-c", &script])
            .output()
            .map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Seconds since the boot, in hundredths.
        let at: Vec<f64> = text.lines().filter_map(|l| l.split(' ').next()?.parse().ok()).collect();
        let [begin, end] = at[..] else { return Err(format!("the reader said {text:?}")) };
        Ok(READ as f64 * 1.048_576 / (end - begin).max(0.01))
    };
    let (image_mbps, bind_mbps) = (mbps("/file")?, mbps("/bind/file")?);
    quiet(&["rm", "-f", "reader", "big"])?;
    let names: Vec<String> = (0..CLONES).map(|i| format!("clone{i}")).collect();
    for name in &names {
        quiet(&["run", "-d", "--name", name, "--isolation", "hyperv", IMAGE, "sleep", "1000"])?;
    }
    let mut all = 0.0;
    for name in &names {
        let output =
            daemon.docker(&["inspect", "-f", "{{.State.Pid}}", name]).output().map_err(|e| e.to_string())?;
        let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| e.to_string())?;
        let shim = status.lines().find_map(|l| l.strip_prefix("PPid:")?.trim().parse().ok());
        all += pss_of_tree(shim.ok_or("a machine's shim is not to be found")?);
    }
    let mut remove = vec!["rm", "-f"];
    remove.extend(names.iter().map(String::as_str));
    quiet(&remove)?;
    let idle_mib = all / CLONES as f64;
    println!(
        "{accelerator}: run {run_ms:.0} ms, Windows {windows_ms:.0} ms, exec {exec_ms:.0} ms, idle {idle_mib:.1} MiB, image {image_mbps:.0} MB/s, bind {bind_mbps:.0} MB/s"
    );
    Ok(Machines { accelerator, run_ms, windows_ms, exec_ms, idle_mib, image_mbps, bind_mbps })
}

/// Spares that are kept while starts from the pool are measured.
const SPARES: usize = 2;
const WINDOWS: &str = "silo/nanoserver:ltsc2022";
/// Starts from the pool: title, options, what is run, promised as a share of dockerd's `run --rm true`.
const POOLED: &[(&str, &[&str], &[&str], f64)] = &[
    (
        "hyperv: run --rm true from the pool, ms",
        &["--isolation", "hyperv", "localhost/busybox"],
        &["true"],
        0.35,
    ),
    (
        "hyperv: Windows run --rm cmd /c ver from the pool, ms",
        &["--isolation", "hyperv", WINDOWS],
        &["cmd", "/c", "ver"],
        2.0,
    ),
    ("Windows: run --rm cmd /c dir c:\\ from the pool, ms", &[WINDOWS], &["cmd", "/c", "dir c:\\"], 0.4),
];

/// Medians of [`POOLED`].
fn pooled(daemon: &mut Daemon) -> Outcome<Vec<f64>> {
    println!("measuring containers from the pool");
    let mut all = Vec::new();
    for (_, options, command, _) in POOLED {
        // With spares of this kind alone.
        daemon.again(SPARES)?;
        let daemon = &*daemon;
        let arguments = [&["run", "--rm"], *options, *command].concat();
        all.push(median_ms_after(
            || daemon.silo(&["pool", "--wait", &SPARES.to_string()]),
            || run(daemon.docker(&arguments).stdout(Stdio::null())),
        )?);
    }
    Ok(all)
}

fn line(title: &str, silo: f64, dockerd: Option<f64>, share: f64, bound: String, reached: bool) {
    let peer = dockerd.map_or_else(|| "-".to_owned(), |d| format!("{d:.2}"));
    let share = if dockerd.is_some() { format!("{share:.2}") } else { "-".to_owned() };
    let word = if reached { "reached" } else { "MISSED" };
    println!("| {title} | {silo:.2} | {peer} | {share} | {bound} | {word} |");
}

/// Both engines' figures of images: Silo's, dockerd's.
struct Images {
    registry: (Figures, Figures),
    builds: (Vec<f64>, Vec<f64>),
}

fn images(silo: &Path, scratch: &Path) -> Outcome<Images> {
    let registry = Registry::start()?;
    std::fs::create_dir_all(scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let maker = Daemon::start(silo, "silomake")?;
    bench_images::prepare(&maker.host(), &registry, scratch)?;
    let given = bench_builds::prepare(&maker.host(), scratch)?;
    drop(maker);
    let measured = |host: &str| -> Outcome<(Figures, Vec<f64>)> {
        let registry = bench_images::measure(host, &registry, scratch)?;
        demo::busybox_at(host, "bench-base:1")?;
        Ok((registry, bench_builds::measure(host, &given)?))
    };
    let (ours, our_builds) = measured(&Daemon::start(silo, "silobench")?.host())?;
    let (theirs, their_builds) = measured(&Dockerd::start()?.host())?;
    Ok(Images { registry: (ours, theirs), builds: (our_builds, their_builds) })
}

fn image_lines(images: &Images) {
    let (ours, theirs) = &images.registry;
    for (title, a, b, bound) in [
        ("pull of 209 MB in 4 layers from a local registry, s", ours.pull, theirs.pull, 0.5),
        (
            "push of what was pulled, to a registry that has none of it, s",
            ours.push_pulled,
            theirs.push_pulled,
            0.67,
        ),
        ("push of what was loaded, s", ours.push_loaded, theirs.push_loaded, 0.67),
    ] {
        line(title, a, Some(b), a / b, format!("≤ {bound:.2} ×"), a / b <= bound);
    }
    let (ours, theirs) = &images.builds;
    for (((title, bound), a), b) in bench_builds::ROWS.iter().zip(ours).zip(theirs) {
        line(title, *a, Some(*b), a / b, format!("≤ {bound:.2} ×"), a / b <= *bound);
    }
}

/// Figures of networks and volumes: both engines', and Silo's alone with their peers.
struct Networks {
    ours: Vec<f64>,
    theirs: Vec<f64>,
    alone: Vec<(f64, Option<f64>)>,
}

fn networks(silo: &Path, scratch: &Path) -> Outcome<Networks> {
    let given = bench_networks::prepare(scratch)?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..bench_networks::ROUNDS {
        // Each goes before the next one starts.
        ours.measure(&Daemon::start(silo, "silobench")?.host(), &given)?;
        theirs.measure(&Dockerd::start()?.host(), &given)?;
    }
    let daemon = Daemon::start(silo, "silobench")?;
    daemon.silo(&["vm", "kernel"])?;
    let alone = bench_networks::alone(&daemon.host(), &given)?;
    Ok(Networks { ours: ours.figures(), theirs: theirs.figures(), alone })
}

fn network_lines(networks: &Networks) {
    let peers = networks.theirs.iter().map(|b| Some(*b));
    let both = bench_networks::ROWS.iter().zip(networks.ours.iter().copied().zip(peers));
    let alone = bench_networks::ALONE_ROWS.iter().zip(networks.alone.iter().copied());
    for ((title, bound), (a, b)) in both.chain(alone) {
        let share = b.map_or(f64::NAN, |b| a / b);
        let (text, reached) = match bound {
            Bound::Share(bound) => (format!("≥ {bound:.2} ×"), share >= *bound),
            Bound::AtMost(bound) => (format!("≤ {bound}"), a <= *bound),
            Bound::AtLeast(bound) => (format!("≥ {bound}"), a >= *bound),
        };
        line(title, a, b, share, text, reached);
    }
}

const HEAD: &str = "\n| figure | Silo | dockerd | ratio | promised | |\n|---|---|---|---|---|---|";

/// Measures and prints the table; `only`: a part of it.
pub(crate) fn run_bench(root: &Path, only: Option<&str>) -> Outcome {
    let scratch = std::env::temp_dir().join(format!("silo-bench-{}", std::process::id()));
    match only {
        None => {}
        Some("images") => {
            packages::ensure(packages::RUN)?;
            packages::ensure(packages::BENCH)?;
            let figures = images(&crate::built(root)?, &scratch);
            let _ = std::fs::remove_dir_all(&scratch);
            println!("{HEAD}");
            image_lines(&figures?);
            return Ok(());
        }
        Some("networks") => {
            for list in [packages::BUILD, packages::RUN, packages::MACHINES, packages::BENCH] {
                packages::ensure(list)?;
            }
            let silo = crate::built(root)?;
            inside(root)?;
            let figures = networks(&silo, &scratch);
            let _ = std::fs::remove_dir_all(&scratch);
            let figures = figures?;
            println!("{HEAD}");
            network_lines(&figures);
            return Ok(());
        }
        Some(other) => return Err(format!("bench {other:?}: there are images, networks")),
    }
    let script = root.join("../shared/bench/peer_bench.sh");
    if !script.exists() {
        return Err(format!("the bench needs {}", script.display()));
    }
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::RUN)?;
    packages::ensure(packages::MACHINES)?;
    packages::ensure(packages::BENCH)?;
    let silo = build(root)?;
    inside(root)?;
    let (ours, windows, machines, pooled) = {
        let mut daemon = Daemon::start(&silo, "silobench")?;
        let ours = peer_bench(&script, &daemon.host(), &scratch)?;
        demo::busybox(&daemon)?;
        (ours, windows(&daemon, &silo)?, machines(&daemon, &silo)?, pooled(&mut daemon)?)
    };
    let theirs = {
        let dockerd = Dockerd::start()?;
        peer_bench(&script, &dockerd.host(), &scratch)?
    };
    let images = images(&silo, &scratch)?;
    let networks = networks(&silo, &scratch)?;
    let _ = std::fs::remove_dir_all(&scratch);
    let figure = |of: &Value, pointer: &str| of.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    println!("{HEAD}");
    for (title, pointer, bound, more) in RATIOS {
        let (a, b) = (figure(&ours, pointer), figure(&theirs, pointer));
        let share = a / b;
        let reached = if *more { share >= *bound } else { share <= *bound };
        let sign = if *more { "≥" } else { "≤" };
        line(title, a, Some(b), share, format!("{sign} {bound:.2} ×"), reached);
    }
    image_lines(&images);
    network_lines(&networks);
    let linux = figure(&theirs, "/run_rm_true_cli_ms/median");
    let share = windows.run_ms / linux;
    let title = "Windows: run --rm cmd /c ver, ms (dockerd: Linux true)";
    line(title, windows.run_ms, Some(linux), share, "≤ 0.80 ×".to_owned(), share <= 0.8);
    let own = [
        ("Windows: a further process (cmd /c ver), ms", windows.further_ms, 100.0),
        ("Windows: a further process by docker exec, ms", windows.exec_ms, 100.0),
        ("Windows: idle container all in, MiB PSS", windows.idle_mib, 40.0),
        ("Windows: commit of a running container with one changed key, ms", windows.commit_ms, 300.0),
    ];
    for (title, value, bound) in own {
        line(title, value, None, 0.0, format!("≤ {bound}"), value <= bound);
    }
    println!("hyperv isolation by {}:", machines.accelerator);
    for (title, value, bound) in [
        ("hyperv: run --rm true from a template, ms", machines.run_ms, 0.5),
        ("hyperv: Windows run --rm cmd /c ver, ms (dockerd: Linux true)", machines.windows_ms, 3.0),
    ] {
        let share = value / linux;
        line(title, value, Some(linux), share, format!("≤ {bound:.2} ×"), share <= bound);
    }
    for ((title, .., bound), value) in POOLED.iter().zip(pooled) {
        let share = value / linux;
        line(title, value, Some(linux), share, format!("≤ {bound:.2} ×"), share <= *bound);
    }
    for (title, value, bound, more) in [
        ("hyperv: exec, ms", machines.exec_ms, 40.0, false),
        ("hyperv: each of 20 idle Linux machines all in, MiB PSS", machines.idle_mib, 22.0, false),
        ("hyperv: sequential read of an image's file, MB/s", machines.image_mbps, 300.0, true),
        ("hyperv: sequential read of a bind mount, MB/s", machines.bind_mbps, 100.0, true),
    ] {
        let reached = if more { value >= bound } else { value <= bound };
        line(title, value, None, 0.0, format!("{} {bound}", if more { "≥" } else { "≤" }), reached);
    }
    for (title, pointer, bound) in ABSOLUTE {
        let (a, b) = (figure(&ours, pointer), figure(&theirs, pointer));
        line(title, a, Some(b), a / b, format!("≤ {bound}"), a <= *bound);
    }
    Ok(())
}
