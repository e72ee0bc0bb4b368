//! The container's processes, as ps(1) of procps prints them: `-ef`, `aux`, and `-o` with the usual columns.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Clock ticks a second of `/proc` (`USER_HZ`, the same on every Linux of this architecture).
const TICKS: u64 = 100;
/// Bytes of a command that are shown.
const COMMAND: usize = 4096;
const PAGE: u64 = 4096;

const FULL: &str = "user=UID,pid,ppid,c,stime=STIME,tty,time,args=CMD";
const AUX: &str = "user,pid,pcpu,pmem,vsz,rss,tty,stat,start,time,args=COMMAND";

/// Columns by ps(1)'s keywords: the names of one, its title.
const COLUMNS: &[(&[&str], &str)] = &[
    (&["pid", "tgid"], "PID"),
    (&["ppid"], "PPID"),
    (&["pgid", "pgrp"], "PGID"),
    (&["sid", "sess", "session"], "SID"),
    (&["user", "uname", "euser"], "USER"),
    (&["uid", "euid"], "UID"),
    (&["gid", "egid"], "GID"),
    (&["comm", "ucmd", "ucomm"], "COMMAND"),
    (&["args", "cmd", "command"], "COMMAND"),
    (&["time", "cputime"], "TIME"),
    (&["etime"], "ELAPSED"),
    (&["etimes"], "ELAPSED"),
    (&["stime", "start", "start_time", "bsdstart"], "START"),
    (&["tty", "tt", "tname"], "TTY"),
    (&["stat"], "STAT"),
    (&["state", "s"], "S"),
    (&["c"], "C"),
    (&["pcpu", "%cpu"], "%CPU"),
    (&["pmem", "%mem"], "%MEM"),
    (&["vsz", "vsize"], "VSZ"),
    (&["rss", "rssize", "rsz"], "RSS"),
    (&["ni", "nice"], "NI"),
    (&["pri"], "PRI"),
    (&["nlwp", "thcount"], "NLWP"),
];

/// A column, and its title.
type Column = (&'static str, String);

/// What ps's arguments ask for; those that choose processes choose nothing here.
fn columns(arguments: &[String]) -> Result<Vec<Column>, String> {
    let mut wanted = String::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let options = word.strip_prefix('-').unwrap_or(word);
        let list = match options.find('o').map(|at| options.split_at(at)) {
            Some((before, list)) if before.chars().all(|c| "eAax".contains(c)) => Some(&list[1..]),
            _ => None,
        };
        let list = match list {
            Some("") => words.next().map(String::as_str).unwrap_or_default(),
            Some(list) => list,
            None if matches!(options, "ef" | "fe" | "f" | "efww" | "fA" | "Af") => FULL,
            None if matches!(options, "aux" | "auxww" | "u") => AUX,
            None if options.chars().all(|c| "eAaxw".contains(c)) => continue,
            None => return Err(format!("ps {word}: of a machine there are -ef, aux and -o FIELDS")),
        };
        if !wanted.is_empty() {
            wanted.push(',');
        }
        wanted += list;
    }
    if wanted.is_empty() {
        wanted += FULL;
    }
    let column = |word: &str| {
        let (name, title) = word.split_once('=').map_or((word, None), |(n, t)| (n, Some(t)));
        let known = COLUMNS.iter().find(|(names, _)| names.contains(&name.to_ascii_lowercase().as_str()));
        let (names, usual) = known.ok_or_else(|| format!("ps -o {name:?}: there is no such column"))?;
        Ok((names[0], title.filter(|t| !t.is_empty()).unwrap_or(usual).to_owned()))
    };
    wanted.split(',').map(|word| column(word.trim())).collect()
}

/// What of `/proc/<pid>/stat` is shown (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: String,
    parent: i64,
    group: i64,
    session: i64,
    terminal: i64,
    /// Ticks in user and kernel mode.
    spent: u64,
    priority: i64,
    nice: i64,
    threads: i64,
    /// Ticks after the boot.
    started: u64,
    /// Bytes.
    size: u64,
    /// Pages.
    resident: u64,
}

fn stat(text: &str) -> Option<Stat> {
    // The name may hold anything but ends at the last parenthesis.
    let (before, after) = (text.find('(')?, text.rfind(')')?);
    let fields: Vec<&str> = text.get(after + 1..)?.split_whitespace().collect();
    let number = |i: usize| fields.get(i).and_then(|f| f.parse::<i64>().ok());
    let unsigned = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok());
    Some(Stat {
        name: text.get(before + 1..after)?.to_owned(),
        state: (*fields.first()?).to_owned(),
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        terminal: number(4)?,
        spent: unsigned(11)?.saturating_add(unsigned(12)?),
        priority: number(15)?,
        nice: number(16)?,
        threads: number(17)?,
        started: unsigned(19)?,
        size: unsigned(20)?,
        resident: unsigned(21)?,
    })
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// One line, without control characters.
fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(COMMAND)]).into_owned();
    let words = text.trim_end_matches('\0').replace('\0', " ");
    words.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `[[days-]hours:]minutes:seconds`.
fn elapsed(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let rest = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => rest,
        (0, hours) => format!("{hours:02}:{rest}"),
        (days, hours) => format!("{days}-{hours:02}:{rest}"),
    }
}

/// The machine, as far as processes are measured by it.
struct Host {
    /// Seconds since the boot, since 1970.
    up: u64,
    now: u64,
    /// Bytes.
    memory: u64,
}

fn row(pid: i32, columns: &[Column], host: &Host) -> Option<String> {
    let dir = Path::new("/proc").join(pid.to_string());
    let found = stat(&String::from_utf8_lossy(&std::fs::read(dir.join("stat")).ok()?))?;
    let owner = std::fs::metadata(&dir).ok()?;
    let age = host.up.saturating_sub(found.started / TICKS);
    // Tenths of a per cent.
    let share = (found.spent * 1000 / TICKS).checked_div(age).unwrap_or(0).min(999);
    let memory = (found.resident * PAGE * 1000).checked_div(host.memory).unwrap_or(0).min(999);
    let tenths = |n: u64| format!("{}.{}", n / 10, n % 10);
    let command = || {
        let command = std::fs::read(dir.join("cmdline")).unwrap_or_default();
        if command.is_empty() { format!("[{}]", line(found.name.as_bytes())) } else { line(&command) }
    };
    let cell = |column: &str| match column {
        "pid" => pid.to_string(),
        "ppid" => found.parent.to_string(),
        "pgid" => found.group.to_string(),
        "sid" => found.session.to_string(),
        "user" if owner.uid() == 0 => "root".to_owned(),
        "user" | "uid" => owner.uid().to_string(),
        "gid" => owner.gid().to_string(),
        "comm" => line(found.name.as_bytes()),
        "args" => command(),
        "time" => clock(found.spent / TICKS),
        "etime" => elapsed(age),
        "etimes" => age.to_string(),
        "stime" => clock(host.now.saturating_sub(age) % 86_400)[..5].to_owned(),
        // Unix 98 terminals have the major numbers from 136 on (Documentation/admin-guide/devices.txt).
        "tty" if (found.terminal >> 8) & 0xfff == 136 => format!("pts/{}", found.terminal & 0xff),
        "tty" => "?".to_owned(),
        "stat" if found.session == i64::from(pid) => format!("{}s", found.state),
        "stat" | "state" => found.state.clone(),
        "c" => (share / 10).to_string(),
        "pcpu" => tenths(share),
        "pmem" => tenths(memory),
        "vsz" => (found.size / 1024).to_string(),
        "rss" => (found.resident * PAGE / 1024).to_string(),
        "ni" => found.nice.to_string(),
        "pri" => (39 - found.priority).to_string(),
        "nlwp" => found.threads.to_string(),
        _ => "-".to_owned(),
    };
    let cells: Vec<String> = columns.iter().map(|(column, _)| cell(column)).collect();
    Some(cells.join(" "))
}

/// Writes a line of titles and one for each process that is still there. The error names the argument of ps that is not
/// known here.
pub(crate) fn print(pids: &[i32], arguments: &[String], to: &mut dyn Write) -> io::Result<()> {
    let columns = columns(arguments).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = |t: rustix::time::Timespec| u64::try_from(t.tv_sec).unwrap_or(0);
    let memory = rustix::system::sysinfo();
    let memory = memory.totalram.saturating_mul(memory.mem_unit.into());
    let host = Host { up: seconds(up), now: seconds(now), memory };
    let titles: Vec<&str> = columns.iter().map(|(_, title)| &**title).collect();
    writeln!(to, "{}", titles.join(" "))?;
    for pid in pids {
        if let Some(row) = row(*pid, &columns, &host) {
            writeln!(to, "{row}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_no_field() {
        let text = "7 (a) b (c) S 1 7 6 34817 7 0 0 0 0 0 250 50 0 0 20 0 1 0 4200 8192 2";
        let found = stat(text).unwrap();
        assert_eq!((&*found.name, &*found.state, found.parent), ("a) b (c", "S", 1));
        assert_eq!((found.terminal, found.session), (34817, 6));
        assert_eq!((found.spent, found.started, found.size, found.resident), (300, 4200, 8192, 2));
        assert_eq!(stat("7 (a"), None);
    }

    #[test]
    fn a_command_is_one_line() {
        assert_eq!(line(b"sh\0-c\0a\nb\0"), "sh -c a?b");
        assert_eq!(clock(3661), "01:01:01");
        assert_eq!([59, 3661, 90_061].map(elapsed), ["00:59", "01:01:01", "1-01:01:01"]);
    }

    #[test]
    fn the_usual_arguments_of_ps_are_known() {
        let titles = |arguments: &str| {
            let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            columns(&words).map(|all| all.into_iter().map(|(_, title)| title).collect::<Vec<_>>().join(" "))
        };
        let full = "UID PID PPID C STIME TTY TIME CMD";
        for arguments in ["", "-ef", "-e -f", "-A"] {
            assert_eq!(titles(arguments).unwrap(), full, "{arguments}");
        }
        assert_eq!(titles("aux").unwrap(), "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
        for arguments in ["-o pid,comm", "-eo pid,comm", "o pid,comm", "-opid -o comm", "-ao pid,comm"] {
            assert_eq!(titles(arguments).unwrap(), "PID COMMAND", "{arguments}");
        }
        assert_eq!(titles("-o pid=,args=What").unwrap(), "PID What");
        assert!(titles("-Z").unwrap_err().contains("-Z"));
        assert!(titles("-o pid,wchan").unwrap_err().contains("\"wchan\""));
    }
}
