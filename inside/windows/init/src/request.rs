//! The program to run, handed to the launcher inside Windows as a file, and its exit code, handed back as one.
//!
//! Files in `/run/silo`, see `inside/windows/boot/src/launch.rs`: `<n>.request`, `<n>.exit` and others, where `n` is this
//! process's id, which no other process of the guest has meanwhile.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::signals::Signals;

pub(crate) const DIRECTORY: &str = "/run/silo";
const WINE: &str = "/usr/lib/wine/wine64";
const LAUNCHER: &str = r"C:\windows\system32\wineboot.exe";
/// Variables of the host side's, not the program's.
const OURS: [&str; 7] = [
    "SILO_COMMAND_LINE",
    "SILO_USER",
    "SILO_STATUS_FD",
    "SILO_WAIT_FD",
    "SILO_DISCARD",
    "SILO_MACHINE_SID",
    "SILO_PRELOAD",
];

/// What to run, and as whom.
pub(crate) struct Request {
    options: String,
    /// Of a launcher that was started elsewhere.
    directory: String,
    command_line: String,
    environment: Vec<(OsString, OsString)>,
    /// Nobody reads the registry afterwards.
    discard: bool,
    machine_sid: Option<String>,
    user: OsString,
    /// Loaded into each of Wine's processes.
    library: Option<OsString>,
}

/// A started launcher.
pub(crate) struct Running {
    pid: i32,
    number: u32,
}

impl Request {
    /// From the variables listed in `main.rs`; everything else of the environment is the program's.
    pub(crate) fn from(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Request, String> {
        let mut ours = Vec::new();
        let mut of_program = Vec::new();
        for (name, value) in environment {
            match OURS.into_iter().find(|ours| name == **ours) {
                Some(name) => ours.push((name, value)),
                // Empty: the host side's way to say that there is none.
                None if name == "HOME" && value.is_empty() => {}
                None => of_program.push((name, value)),
            }
        }
        let take = |name: &str| ours.iter().find(|(ours, _)| *ours == name).map(|(_, value)| value.clone());
        let command_line = take("SILO_COMMAND_LINE").ok_or("SILO_COMMAND_LINE is not set")?;
        let command_line =
            command_line.into_string().map_err(|line| format!("SILO_COMMAND_LINE is no text: {line:?}"))?;
        Ok(Request {
            options: String::new(),
            directory: String::new(),
            command_line,
            environment: of_program,
            discard: take("SILO_DISCARD").is_some(),
            machine_sid: take("SILO_MACHINE_SID").map(|sid| sid.to_string_lossy().into_owned()),
            user: take("SILO_USER").unwrap_or_else(|| "ContainerAdministrator".into()),
            library: take("SILO_PRELOAD"),
        })
    }

    /// The first program of a guest that was booted before anybody knew for whom; `input`: it has some.
    pub(crate) fn first(mut self, input: bool) -> Request {
        self.options.push('f');
        if !input {
            self.options.push('n');
        }
        self
    }

    /// Whether a launcher that was started for `other` can run this.
    pub(crate) fn suits_launcher_of(&self, other: &Request) -> bool {
        (&self.user, &self.library) == (&other.user, &other.library)
    }

    /// The environment of Wine's own processes: nothing of the program's, nothing of the host's.
    pub(crate) fn linux_environment(&self) -> Vec<(&'static str, OsString)> {
        let mut environment: Vec<(&'static str, OsString)> = vec![
            ("WINEPREFIX", "/prefix".into()),
            ("WINESERVER", "/usr/lib/wine/wineserver64".into()),
            // Messages of Wine's would be taken for the program's.
            ("WINEDEBUG", "-all".into()),
            ("HOME", "/prefix".into()),
            ("LC_ALL", "C.UTF-8".into()),
            ("USER", self.user.clone()),
            // No variables of Wine's in the programs' environment.
            ("SILO_HIDE_WINE", "1".into()),
        ];
        environment.extend(self.library.iter().map(|library| ("LD_PRELOAD", library.clone())));
        environment
    }

    /// Of the machine that the guest is to be.
    pub(crate) fn machine_sid(&self) -> Option<&str> {
        self.machine_sid.as_deref()
    }

    /// Starts the launcher with this process's standard streams and working directory.
    pub(crate) fn start(&self, signals: &Signals) -> Result<Running, String> {
        let number = self.write()?;
        self.launch(number, "--run", signals, Stdio::inherit)
    }

    /// Whether the registry is nobody's concern after the end.
    pub(crate) fn is_discarded(&self) -> bool {
        self.discard
    }

    /// As [`Request::start`], without streams.
    pub(crate) fn start_silently(&self, signals: &Signals) -> Result<Running, String> {
        let number = self.write()?;
        self.launch(number, "--run", signals, Stdio::null)
    }

    /// Starts a launcher that waits for a request, with this process's standard streams.
    pub(crate) fn start_waiting(&self, signals: &Signals) -> Result<Running, String> {
        make_directory()?;
        self.launch(std::process::id(), "--wait", signals, Stdio::inherit)
    }

    /// Has a launcher that waits run this in `directory`.
    pub(crate) fn hand_to(mut self, waiting: &Running, directory: String) -> Result<(), String> {
        self.directory = directory;
        self.write()?;
        // SAFETY: takes no pointers; the launcher is our child and not reaped yet.
        match unsafe { libc::kill(waiting.pid, libc::SIGINT) } {
            0 => Ok(()),
            _ => Err(format!("waking the launcher: {}", io::Error::last_os_error())),
        }
    }

    fn write(&self) -> Result<u32, String> {
        let number = std::process::id();
        make_directory()?;
        write_whole(number, "request", &self.to_utf16())
            .map_err(|e| format!("writing {}: {e}", file(number, "request").display()))?;
        Ok(number)
    }

    fn launch(
        &self,
        number: u32,
        mode: &str,
        signals: &Signals,
        stream: fn() -> Stdio,
    ) -> Result<Running, String> {
        let mut command = Command::new(WINE);
        command.args([LAUNCHER, mode, &number.to_string()]).env_clear().envs(self.linux_environment());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let mask = signals.previous();
        // SAFETY: only sets this process's own signal mask back, an async-signal-safe call.
        unsafe { command.pre_exec(move || mask.restore()) };
        let child = command.spawn().map_err(|e| format!("running {WINE}: {e}"))?;
        Ok(Running { pid: child.id() as i32, number })
    }

    /// Options, working directory, command line and environment, each text ended by a zero, and one more.
    fn to_utf16(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |text: &str| bytes.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        put(&self.options);
        put(&self.directory);
        put(&self.command_line);
        for (name, value) in &self.environment {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            put(&format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
        }
        put("");
        bytes
    }
}

impl Running {
    /// The launcher's process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The request's number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The program's exit code: what the launcher left, or what became of the launcher.
    pub(crate) fn exit_code(&self, wait_status: i32) -> u32 {
        let reported =
            fs::read(file(self.number, "exit")).ok().and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        for suffix in ["request", "exit", "event", "size", "waiting"] {
            // The directory is memory that ends with the guest; a file that was never made is no matter.
            let _ = fs::remove_file(file(self.number, suffix));
        }
        reported.map_or_else(|| of_launcher(ExitStatus::from_raw(wait_status)), u32::from_le_bytes)
    }
}

/// What a program ends with that does not handle a console event (ntstatus.h, `STATUS_CONTROL_C_EXIT`).
const CONTROL_C_EXIT: u32 = 0xc000_013a;

/// Shells' convention: 128 and the signal. Of the code of a launcher that an event ended before it could handle it,
/// Linux shows the low byte.
fn of_launcher(status: ExitStatus) -> u32 {
    match status.code() {
        Some(code) if code as u32 == CONTROL_C_EXIT & 0xff => CONTROL_C_EXIT,
        Some(code) => code as u32,
        None => 128 + status.signal().unwrap_or(0) as u32,
    }
}

/// A directory of a drive as Windows writes it; `None`: it is on no drive.
pub(crate) fn on_drive(directory: &Path) -> Option<String> {
    let (drive, below) = match directory.strip_prefix("/c") {
        Ok(below) => ("C", below),
        Err(_) => {
            let mut parts = directory.strip_prefix("/mnt").ok()?.iter();
            (parts.next()?.to_str().filter(|drive| drive.len() == 1)?, parts.as_path())
        }
    };
    Some(format!(r"{}:\{}", drive.to_uppercase(), below.to_str()?.replace('/', r"\")))
}

fn make_directory() -> Result<(), String> {
    fs::create_dir_all(DIRECTORY).map_err(|e| format!("creating {DIRECTORY}: {e}"))
}

/// A file of request `number`.
pub(crate) fn file(number: u32, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{DIRECTORY}/{number}.{suffix}"))
}

/// Writes a file whole or not at all, as the launcher may read it at any moment.
pub(crate) fn write_whole(number: u32, suffix: &str, content: &[u8]) -> io::Result<()> {
    let temporary = file(number, "new");
    fs::write(&temporary, content)?;
    fs::rename(temporary, file(number, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_gets_every_text_with_its_end() {
        let request = Request {
            options: "f".into(),
            directory: String::new(),
            command_line: "a b".into(),
            environment: vec![("X".into(), "1".into())],
            discard: false,
            machine_sid: None,
            user: "u".into(),
            library: None,
        };
        let units: Vec<u16> =
            request.to_utf16().chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        assert_eq!(String::from_utf16(&units).unwrap(), "f\0\0a b\0X=1\0\0");
    }

    #[test]
    fn directories_are_written_as_windows_does() {
        let on = |path: &str| on_drive(Path::new(path));
        assert_eq!(on("/c").as_deref(), Some(r"C:\"));
        assert_eq!(on("/c/App/sub").as_deref(), Some(r"C:\App\sub"));
        assert_eq!(on("/mnt/d/x").as_deref(), Some(r"D:\x"));
        assert_eq!((on("/cd"), on("/mnt"), on("/run")), (None, None, None));
    }

    #[test]
    fn a_killed_launcher_counts_as_in_a_shell() {
        assert_eq!(of_launcher(ExitStatus::from_raw(9)), 137);
        assert_eq!(of_launcher(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(of_launcher(ExitStatus::from_raw(0x3a << 8)), CONTROL_C_EXIT);
    }
}
