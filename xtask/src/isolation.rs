//! `cargo xtask isolation`: measures the four cells of guest and isolation and writes the table of `docs/isolation.md`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::bench::pss_of_tree;
use crate::demo::{self, Daemon};
use crate::{Outcome, build, inside, packages};

const WINDOWS: &str = "silo/nanoserver:ltsc2022";
const LINUX: &str = "localhost/busybox";
/// Runs to take the median of.
const RUNS: usize = 9;
/// Idle containers whose memory is measured.
const IDLE: usize = 20;
/// Spares that are kept while starts from the pool are measured.
const POOL: usize = 2;
const BEGIN: &str = "<!-- measured: begin (cargo xtask isolation) -->";
const END: &str = "<!-- measured: end -->";

/// One cell of the table.
struct Cell<'a> {
    daemon: &'a Daemon,
    image: &'static str,
    isolation: &'static str,
    /// Something can be made ready for it.
    spares: bool,
}

impl Cell<'_> {
    fn run(&self, options: &[&str], command: &[&str]) -> Outcome<String> {
        let mut arguments = vec!["run", "--rm", "--isolation", self.isolation];
        arguments.extend(options);
        arguments.push(self.image);
        arguments.extend(command);
        said(self.daemon, &arguments)
    }

    fn is_windows(&self) -> bool {
        self.image == WINDOWS
    }

    /// A line of the guest's shell.
    fn shell(&self, linux: &str, windows: &str) -> Outcome<String> {
        let command = if self.is_windows() { ["cmd", "/c", windows] } else { ["sh", "-c", linux] };
        self.run(&[], &command)
    }

    /// The machine's SID in one new container and another.
    fn machine_sid(&self) -> Outcome<String> {
        if !self.is_windows() {
            return Ok("–".to_owned());
        }
        let one = || {
            let said = self.run(&[], &["reg", "query", r"HKLM\SAM\SAM\Domains\Account", "/v", "V"])?;
            sid_of(&said).ok_or_else(|| format!("no machine SID in {said:?}"))
        };
        let (one, other) = (one()?, one()?);
        Ok(if one == other { format!("{one} in each") } else { format!("{one}, next {other}") })
    }

    /// The median of a few runs; `before` each something is waited for, which does not count.
    fn start_ms(&self, before: impl Fn() -> Outcome) -> Outcome<String> {
        let command: &[&str] = if self.is_windows() { &["cmd", "/c", "ver"] } else { &["true"] };
        let mut times = Vec::new();
        // The first may make what the others share.
        self.run(&[], command)?;
        for _ in 0..RUNS {
            before()?;
            let begin = Instant::now();
            self.run(&[], command)?;
            times.push(begin.elapsed().as_millis());
        }
        times.sort_unstable();
        Ok(format!("{} ms", times[RUNS / 2]))
    }

    /// As [`Cell::start_ms`], of containers that spares become; the daemon keeps some.
    fn pooled_ms(&self) -> Outcome<String> {
        match self.spares {
            false => Ok("–".to_owned()),
            true => self.start_ms(|| self.daemon.silo(&["pool", "--wait", &POOL.to_string()])),
        }
    }

    /// Proportional memory of each of a few idle ones, everything in, and bytes on disk of their own.
    fn idle(&self) -> Outcome<(String, String)> {
        let command: &[&str] = if self.is_windows() { &["cmd"] } else { &["sh"] };
        let names: Vec<String> = (0..IDLE).map(|i| format!("idle{i}")).collect();
        for name in &names {
            let mut arguments =
                vec!["run", "-d", "-i", "--isolation", self.isolation, "--name", name, self.image];
            arguments.extend(command);
            said(self.daemon, &arguments)?;
        }
        let (mut memory, mut disk) = (0.0, 0);
        for name in &names {
            let of = |format: &str| said(self.daemon, &["inspect", "-f", format, name]);
            let status = std::fs::read_to_string(format!("/proc/{}/status", of("{{.State.Pid}}")?));
            let status = status.map_err(|e| format!("{name}: {e}"))?;
            let shim = status.lines().find_map(|l| l.strip_prefix("PPid:")?.trim().parse().ok());
            memory += pss_of_tree(shim.ok_or("a container's shim is not to be found")?);
            let dir = self.daemon.dir().join("root/containers").join(of("{{.Id}}")?);
            let output = Command::new("du").arg("-sk").arg(&dir).output().map_err(|e| format!("du: {e}"))?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            disk += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        let mut remove = vec!["rm", "-f"];
        remove.extend(names.iter().map(String::as_str));
        said(self.daemon, &remove)?;
        Ok((format!("{:.1} MiB", memory / IDLE as f64), format!("{} KiB", disk / IDLE as u64)))
    }

    fn column(&self) -> Outcome<Vec<String>> {
        let kernel = match self.is_windows() {
            // A Windows program sees Windows' version; the kernel below it shows in Wine's host files alone.
            true => self.shell("", "ver")?,
            false => self.shell("uname -r", "")?,
        };
        let who = self.shell("id -un; grep ^CapEff /proc/self/status | cut -f2", "whoami")?;
        let services = match self.is_windows() {
            true => self.run(&[], &["sc", "query"])?.matches("SERVICE_NAME").count().to_string(),
            false => self.shell("ps -o pid | tail -n +2 | wc -l", "")?,
        };
        let limit =
            "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
        let memory = match self.is_windows() {
            true => {
                let said = self.run(&["--memory", "256m"], &["systeminfo"])?;
                let line = said.lines().find_map(|l| l.strip_prefix("Total Physical Memory:"));
                line.unwrap_or_default().to_owned()
            }
            false => self.run(&["--memory", "256m"], &["sh", "-c", limit])?,
        };
        let identity = match self.is_windows() {
            true => self.run(&[], &["hostname"])?,
            false => self.shell("cat /proc/sys/kernel/random/boot_id | cut -c1-8", "")?,
        };
        let identity = identity.split_whitespace().last().unwrap_or_default().to_owned();
        let sid = self.machine_sid()?;
        let (idle, disk) = self.idle()?;
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let start = self.start_ms(|| Ok(()))?;
        Ok([kernel, who, services, memory, identity, sid, start, idle, disk].map(one_line).into())
    }
}

/// The SID at the end of what `reg query` prints of the value `V`: three numbers, the lowest byte of each first.
fn sid_of(said: &str) -> Option<String> {
    let hex = said.split_whitespace().last().filter(|hex| hex.is_ascii())?;
    let numbers = hex.get(hex.len().checked_sub(24)?..)?;
    let number =
        |at: usize| Some(u32::from_str_radix(numbers.get(at * 8..at * 8 + 8)?, 16).ok()?.swap_bytes());
    Some(format!("S-1-5-21-{}-{}-{}", number(0)?, number(1)?, number(2)?))
}

fn said(daemon: &Daemon, arguments: &[&str]) -> Outcome<String> {
    let output =
        daemon.docker(arguments).stdin(Stdio::null()).output().map_err(|e| format!("docker: {e}"))?;
    if !output.status.success() {
        return Err(format!("docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

const ROWS: &[&str] = &[
    "kernel that programs see",
    "administration inside",
    "processes of a Linux container, services of a Windows one",
    "`--memory 256m` as seen inside",
    "boot ID (Linux), computer name (Windows)",
    "machine SID",
    "start: `docker run --rm` of `true`, `cmd /c ver`",
    "idle, all in (PSS)",
    "on disk, of its own",
    "start from the pool",
];

/// The cells: image, isolation, and whether there are spares of it.
const CELLS: [(&str, &str, bool); 4] = [
    (LINUX, "process", false),
    (LINUX, "hyperv", true),
    (WINDOWS, "process", true),
    (WINDOWS, "hyperv", true),
];

/// Measures and writes.
pub(crate) fn run_isolation(root: &Path) -> Outcome {
    for list in [packages::BUILD, packages::RUN, packages::MACHINES] {
        packages::ensure(list)?;
    }
    let silo = build(root)?;
    inside(root)?;
    let mut daemon = Daemon::start(&silo, "siloiso")?;
    demo::busybox(&daemon)?;
    daemon.silo(&["base", "build", "nanoserver"])?;
    daemon.silo(&["vm", "kernel"])?;
    daemon.silo(&["vm", "template", "build"])?;
    let mut columns = Vec::new();
    for (image, isolation, spares) in CELLS {
        println!("measuring {image} under {isolation}");
        columns.push(Cell { daemon: &daemon, image, isolation, spares }.column()?);
    }
    daemon.again(POOL)?;
    for (column, (image, isolation, spares)) in columns.iter_mut().zip(CELLS) {
        column.push(Cell { daemon: &daemon, image, isolation, spares }.pooled_ms()?);
    }
    let mut table = String::from(
        "| | Linux, process | Linux, hyperv | Windows, process | Windows, hyperv |\n|---|---|---|---|---|\n",
    );
    for (i, title) in ROWS.iter().enumerate() {
        let values: Vec<&str> = columns.iter().map(|c| c[i].as_str()).collect();
        table.push_str(&format!("| {title} | {} |\n", values.join(" | ")));
    }
    let info =
        Command::new(&silo).args(["--host", &daemon.host(), "info"]).output().map_err(|e| e.to_string())?;
    let info = String::from_utf8_lossy(&info.stdout).into_owned();
    let machines = info.lines().find_map(|l| l.strip_prefix("hyperv")).unwrap_or_default().trim().to_owned();
    table.push_str(&format!("\nMachines by {machines}.\n"));
    let page = root.join("docs/isolation.md");
    let text = std::fs::read_to_string(&page).map_err(|e| format!("{}: {e}", page.display()))?;
    let (before, rest) = text.split_once(BEGIN).ok_or("docs/isolation.md has no place for the table")?;
    let (_, after) = rest.split_once(END).ok_or("docs/isolation.md has no end of the table")?;
    std::fs::write(&page, format!("{before}{BEGIN}\n{table}{END}{after}"))
        .map_err(|e| format!("{}: {e}", page.display()))?;
    print!("{table}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_sid_is_read_from_what_reg_prints() {
        let of = |hex: &str| {
            super::sid_of(&format!("\r\nHKEY_LOCAL_MACHINE\\SAM\r\n    V    REG_BINARY    {hex}\r\n\r\n"))
        };
        let whole = "0104000000000005150000000B00000016000000FFFFFFFF";
        assert_eq!(of(whole).as_deref(), Some("S-1-5-21-11-22-4294967295"));
        assert_eq!(of("0B000000"), None);
        assert_eq!(super::sid_of(""), None);
    }
}
