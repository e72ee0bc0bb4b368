//! `-t`: terminals of containers, execs and attached clients, on both guests. The client's own terminal is script(1)'s.

use std::io::{Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use silo_tests::{Daemon, NANOSERVER};

const IMAGE: &str = "localhost/busybox";

/// A docker client on a terminal of 30 rows and 100 columns.
struct Terminal {
    child: Child,
    out: ChildStdout,
    shown: String,
}

impl Terminal {
    fn open(d: &Daemon, line: &str) -> Self {
        let line = format!("stty rows 30 cols 100; exec timeout --foreground -s KILL 60 docker {line}");
        let mut command = Command::new("script");
        command
            .args(["-q", "-e", "-c", &line, "/dev/null"])
            .env("DOCKER_HOST", d.host())
            .env("TERM", "xterm");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self { child, out, shown: String::new() }
    }

    /// Reads until the screen has shown `wanted` after what was read before.
    fn sees(&mut self, wanted: &str) {
        let mut buffer = [0u8; 4096];
        let mut fresh = String::new();
        while !plain(&fresh).contains(wanted) {
            let n = self.out.read(&mut buffer).unwrap();
            assert!(n > 0, "{wanted:?} was not shown: {:?}", self.shown);
            fresh.push_str(&String::from_utf8_lossy(&buffer[..n]));
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn ends_with(mut self, code: i32) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(code), "{:?}", self.shown);
                return;
            }
            assert!(Instant::now() < end, "it does not end: {:?}", self.shown);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Text without a terminal's control sequences (ECMA-48 CSI and OSC).
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => match rest.next() {
                Some('[') => while rest.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']') => while rest.next().is_some_and(|c| c != '\x07') {},
                _ => {}
            },
            c => out.push(c),
        }
    }
    out
}

#[test]
fn a_linux_shell_on_a_terminal() {
    let d = Daemon::start();
    let mut t = Terminal::open(&d, &format!("run -it --name aa {IMAGE} sh"));
    t.sees("/ # ");
    t.types("stty size\n");
    t.sees("30 100");
    // Said by the program that ctrl-c is for, so that it is there to get it; not the echo of what was typed.
    t.types("sh -c 'echo on its w\"\"ay; exec sleep 100'\n");
    t.sees("on its way");
    t.types("\x03");
    t.sees("/ # ");
    t.types("echo ba''ck\n");
    t.sees("back");
    // ctrl-p ctrl-q leaves the container running.
    t.types("\x10\x11");
    t.ends_with(0);
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.Status}}", "aa"]), "running");
    let mut t = Terminal::open(&d, "attach aa");
    t.types("echo again $((40+2))\n");
    t.sees("again 42");
    let mut e = Terminal::open(&d, "exec -it aa sh");
    e.sees("/ # ");
    e.types("exit 4\n");
    e.ends_with(4);
    t.types("exit 3\n");
    t.ends_with(3);
}

#[test]
fn a_windows_prompt_on_a_terminal() {
    let d = Daemon::windows();
    let mut t = Terminal::open(&d, &format!("run -it --name aa {NANOSERVER} cmd"));
    t.sees("C:\\>");
    t.types("echo one%OS%\r");
    t.sees("oneWindows_NT");
    // The line before, by the arrow key.
    t.types("\x1b[A\r");
    t.sees("oneWindows_NT");
    t.types("ping -n 100 127.0.0.1\r");
    t.sees("Reply from 127.0.0.1");
    t.types("\x03");
    t.sees("C:\\>");
    let mut e = Terminal::open(&d, "exec -it aa cmd");
    e.sees("C:\\>");
    e.types("exit 4\r");
    e.ends_with(4);
    t.types("exit 7\r");
    t.ends_with(7);
}

#[test]
fn a_windows_program_hears_of_its_terminals_new_size() {
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    silo_tests::probe("windows.c", dir.path());
    let bin = format!("{}:C:\\bin:ro", dir.path().display());
    let resize = |what: &str, rows: u16, columns: u16| {
        let mut socket = std::os::unix::net::UnixStream::connect(d.path("silo.sock")).unwrap();
        let request = format!("POST /v1.43/{what}/resize?h={rows}&w={columns} HTTP/1.0\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{what}: {answer}");
    };
    let mut t =
        Terminal::open(&d, &format!("run -it --name aa -v '{bin}' {NANOSERVER} C:\\\\bin\\\\probe.exe size"));
    t.sees("size=100x30/100x30.");
    resize("containers/aa", 40, 120);
    t.sees("size=120x40/120x40.");
    resize("containers/aa", 20, 50);
    t.sees("size=50x20/50x20.");
    // A program of its own has a terminal of its own.
    let mut e = Terminal::open(&d, "exec -it aa C:\\\\bin\\\\probe.exe size");
    e.sees("size=100x30/100x30.");
    let ids = d.ok(&["inspect", "-f", "{{json .ExecIDs}}", "aa"]);
    let id = ids.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    resize(&format!("exec/{id}"), 31, 77);
    e.sees("size=77x31/77x31.");
    e.ends_with(5);
    resize("containers/aa", 25, 77);
    t.sees("size=77x25/77x25.");
    t.ends_with(5);
}
