//! The engine's end of the task protocol: starts shims, finds them again, asks them.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oci_spec::runtime::{LinuxResources, Process};
use silo_runtime::protocol::{Answer, Call, MachineNetwork, Reply, Request, decode, encode};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::contract::{Attach, Event, Exit, Isolation, SandboxError, SandboxState, ShimConfig, Stats, files};
use crate::hyperv;

type Result<T> = std::result::Result<T, SandboxError>;

/// How long a shim may take for an answer. A start may take its own limit (60 s) and is given a little more.
const ANSWER_LIMIT: Duration = Duration::from_secs(75);
/// How long a spare may take to become a sandbox's shim: it has nothing else to do, and a start waits.
const BECOME_LIMIT: Duration = Duration::from_secs(2);

/// Events of one sandbox; ends when its shim is gone.
pub type Events = mpsc::UnboundedReceiver<Event>;

/// A connection to a shim. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
    /// The reading half, which ends with the last clone: the shim then sees the connection close.
    _reading: Arc<Reading>,
}

#[derive(Debug)]
struct Reading(tokio::task::JoinHandle<()>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Inner {
    stream: UnixStream,
    /// One writer at a time, so that frames stay whole.
    writing: tokio::sync::Mutex<()>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
    /// The shim has closed the connection.
    gone: watch::Sender<bool>,
}

/// How to run a further process.
#[derive(Debug)]
pub struct ExecRequest {
    /// Name, unique in the sandbox.
    pub exec: String,
    /// The process.
    pub process: Process,
    /// It has standard input.
    pub stdin: bool,
    /// Initial terminal size (rows, columns).
    pub size: (u16, u16),
    /// Bytes of output to collect for the exit event.
    pub capture: u32,
    /// What a later daemon finds in [`SandboxState::known`].
    pub note: String,
}

pub(crate) fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> SandboxError {
    let doing = doing.into();
    move |source| SandboxError::Io { doing, source }
}

/// How long a client may take to read the head of its answer.
const HEAD_LIMIT: Duration = Duration::from_millis(100);
/// Looks at once before it is waited for by the clock.
const LOOKS: u32 = 64;

/// Waits until a client has read what it was sent. docker-py reads the head of an answer by a buffer and what follows from
/// the socket itself: what came with the head would be lost to it.
async fn head_is_read(client: &OwnedFd) {
    let until = tokio::time::Instant::now() + HEAD_LIMIT;
    for look in 0.. {
        if !silo_sys::socket::unread(client).is_ok_and(|bytes| bytes > 0)
            || tokio::time::Instant::now() > until
        {
            return;
        }
        if look < LOOKS {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Sandbox {
    /// Starts a shim for the bundle in `dir` (`config.json`, `rootfs.json` are there by the time of
    /// [`Sandbox::start`]). It ends by itself if this connection is dropped before the start.
    pub async fn spawn(executable: &Path, dir: &Path, config: &ShimConfig) -> Result<(Self, Events)> {
        let mut config = ShimConfig { open_files: silo_sys::process::open_files_before(), ..config.clone() };
        let dir = dir.to_owned();
        let executable = executable.to_owned();
        let ours = tokio::task::spawn_blocking(move || -> io::Result<std::os::unix::net::UnixStream> {
            let template = match config.isolation {
                Isolation::Process => None,
                Isolation::Hyperv => {
                    config.machine.host = hyperv::host().clone();
                    if config.files_of.is_some() || dir.join(hyperv::machine::SCRATCH).exists() {
                        // It is for containers that have written nothing yet.
                        config.machine.ready = None;
                    }
                    hyperv::template::find_best(&executable, &mut config.machine)
                }
            };
            let mut memory = Stdio::null();
            if let Some((dir, fd)) = template {
                config.machine.template = Some(dir);
                memory = Stdio::from(fd.try_clone()?);
            }
            furnish(&dir, &config)?;
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let log = std::fs::File::options().create(true).append(true).open(dir.join(files::SHIM_LOG))?;
            let mut child = Command::new(executable)
                .arg("shim")
                .arg(&dir)
                .current_dir("/")
                .env_clear()
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(memory)
                .stderr(log)
                .spawn()?;
            // Reaps it whenever it ends; costs a parked thread's stack address space only.
            std::thread::Builder::new()
                .name("reap".into())
                .stack_size(16 << 10)
                .spawn(move || child.wait())?;
            Ok(ours)
        })
        .await
        .map_err(|e| io_error("starting a shim")(io::Error::other(e)))?
        .map_err(io_error("starting a shim"))?;
        let stream = UnixStream::from_std(ours).map_err(io_error("starting a shim"))?;
        let (sandbox, events) = Self::over(stream);
        sandbox.done(Call::Subscribe, None).await?;
        Ok((sandbox, events))
    }

    /// Has a spare that was spawned make itself ready, in this network namespace.
    pub async fn prepare(&self, network: OwnedFd) -> Result<()> {
        self.done(Call::Prepare, Some(network)).await
    }

    /// Has a spare that is ready become the shim of the container in `dir`. One that does not is to be let go.
    pub async fn become_shim_of(&self, dir: &Path, config: &ShimConfig) -> Result<()> {
        let (at, config) = (dir.to_owned(), config.clone());
        tokio::task::spawn_blocking(move || furnish(&at, &config))
            .await
            .map_err(|e| io_error("taking a spare")(io::Error::other(e)))?
            .map_err(io_error("taking a spare"))?;
        let became = self.done(Call::Become { dir: dir.to_owned() }, None);
        tokio::time::timeout(BECOME_LIMIT, became)
            .await
            .unwrap_or(Err(SandboxError::Silent(BECOME_LIMIT.as_secs())))
    }

    /// The shim's process, to be waited for.
    pub async fn process(&self) -> Result<ShimProcess> {
        let pid = self.state().await?.shim_pid;
        silo_sys::process::pidfd_open(pid)
            .map(ShimProcess)
            .map_err(io_error("looking for the shim's process"))
    }

    /// Becomes true when the shim has closed the connection; it does not keep the connection itself.
    pub fn gone(&self) -> watch::Receiver<bool> {
        self.inner.gone.subscribe()
    }

    /// Connects to a shim that an earlier daemon started.
    pub async fn connect(socket: &Path) -> Result<(Self, Events)> {
        let stream = UnixStream::connect(socket).await.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => SandboxError::Gone,
            _ => io_error(format!("connecting to {}", socket.display()))(e),
        })?;
        let (sandbox, events) = Self::over(stream);
        sandbox.done(Call::Subscribe, None).await?;
        Ok((sandbox, events))
    }

    fn over(stream: UnixStream) -> (Self, Events) {
        let (sender, events) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            stream,
            writing: tokio::sync::Mutex::new(()),
            waiting: Mutex::new(HashMap::new()),
            next: AtomicU64::new(1),
            gone: watch::Sender::new(false),
        });
        let reading = Arc::new(Reading(tokio::spawn(read(inner.clone(), sender))));
        (Self { inner, _reading: reading }, events)
    }

    async fn call(&self, call: Call, fd: Option<OwnedFd>) -> Result<Answer> {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let frame =
            encode(&Request { id, call }).map_err(|e| io_error("asking the shim")(io::Error::other(e)))?;
        let (sender, receiver) = oneshot::channel();
        lock(&self.inner.waiting).insert(id, sender);
        let sent = self.send(&frame, fd).await;
        if sent.is_err() {
            lock(&self.inner.waiting).remove(&id);
            return Err(SandboxError::Gone);
        }
        match tokio::time::timeout(ANSWER_LIMIT, receiver).await {
            Ok(Ok(Answer::Failed(failure))) => Err(SandboxError::Failed(failure)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(SandboxError::Gone),
            Err(_) => {
                lock(&self.inner.waiting).remove(&id);
                Err(SandboxError::Silent(ANSWER_LIMIT.as_secs()))
            }
        }
    }

    async fn send(&self, frame: &[u8], fd: Option<OwnedFd>) -> io::Result<()> {
        let _turn = self.inner.writing.lock().await;
        let mut sent = 0;
        while sent < frame.len() {
            self.inner.stream.writable().await?;
            let result = self.inner.stream.try_io(Interest::WRITABLE, || {
                // Descriptors ride on the first byte.
                let fds: Vec<_> = fd.iter().filter(|_| sent == 0).map(AsFd::as_fd).collect();
                silo_sys::socket::send(&self.inner.stream, &frame[sent..], &fds)
            });
            match result {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn done(&self, call: Call, fd: Option<OwnedFd>) -> Result<()> {
        self.call(call, fd).await.map(|_| ())
    }

    pub(crate) async fn started(&self, call: Call, fd: Option<OwnedFd>) -> Result<i32> {
        match self.call(call, fd).await? {
            Answer::Started { pid } => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs the bundle in this network namespace (`None`: the host's); returns the host pid of its first process.
    pub async fn start(&self, network: Option<OwnedFd>) -> Result<i32> {
        self.started(Call::Start, network).await
    }

    /// Hands a client's socket over; allowed before the start, and for an exec before it runs.
    pub async fn attach(&self, attach: Attach, client: OwnedFd) -> Result<()> {
        head_is_read(&client).await;
        self.done(Call::Attach(attach), Some(client)).await
    }

    /// Runs a further process; returns its host pid.
    pub async fn exec(&self, request: ExecRequest) -> Result<i32> {
        let ExecRequest { exec, process, stdin, size, capture, note } = request;
        let process = Box::new(process);
        let call = Call::Exec { exec, process, stdin, stdin_once: true, size, capture, note };
        self.started(call, None).await
    }

    /// Sends a signal to the first process (`None`) or an exec.
    pub async fn signal(&self, exec: Option<&str>, signal: i32) -> Result<()> {
        self.done(Call::Signal { exec: exec.map(str::to_owned), signal }, None).await
    }

    /// Sets a terminal's size.
    pub async fn resize(&self, exec: Option<&str>, rows: u16, cols: u16) -> Result<()> {
        self.done(Call::Resize { exec: exec.map(str::to_owned), rows, cols }, None).await
    }

    /// Freezes or thaws.
    pub async fn freeze(&self, frozen: bool) -> Result<()> {
        self.done(if frozen { Call::Pause } else { Call::Resume }, None).await
    }

    /// Changes limits.
    pub async fn update(&self, resources: LinuxResources) -> Result<()> {
        self.done(Call::Update(Box::new(resources)), None).await
    }

    /// What the bundle's maker has written anew in the sandbox's directory is what the container sees.
    pub async fn refresh(&self) -> Result<()> {
        self.done(Call::Refresh(Vec::new()), None).await
    }

    /// What the container has of networks is this from now on, where its machine has a network of its own. New adapters are in
    /// the container's network namespace already, those not named any more are still.
    pub async fn set_networks(&self, networks: Vec<MachineNetwork>) -> Result<()> {
        self.done(Call::Networks(networks), None).await
    }

    /// Usage.
    pub async fn stats(&self) -> Result<Stats> {
        match self.call(Call::Stats, None).await? {
            Answer::Stats(stats) => Ok(*stats),
            other => Err(unexpected(&other)),
        }
    }

    /// Host pids.
    pub async fn pids(&self) -> Result<Vec<i32>> {
        match self.call(Call::Pids, None).await? {
            Answer::Pids(pids) => Ok(pids),
            other => Err(unexpected(&other)),
        }
    }

    /// What the shim says of itself.
    pub async fn state(&self) -> Result<SandboxState> {
        match self.call(Call::State, None).await? {
            Answer::State(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// What the log holds back goes to its file.
    pub async fn flush_log(&self) -> Result<()> {
        self.done(Call::FlushLog, None).await
    }

    /// Kills what runs; the shim goes after it.
    pub async fn shutdown(&self) -> Result<()> {
        self.done(Call::Shutdown, None).await
    }
}

/// Puts what a shim reads into its directory.
fn furnish(dir: &Path, config: &ShimConfig) -> io::Result<()> {
    silo_sys::atomic_file::write_with(&dir.join(files::SHIM), &serde_json::to_vec(config)?, 0o600, false)?;
    match std::fs::remove_file(dir.join(files::EXIT)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// What a shim wrote when its container ended, if it did.
pub fn recorded_exit(dir: &Path) -> Option<Exit> {
    serde_json::from_slice(&std::fs::read(dir.join(files::EXIT)).ok()?).ok()
}

/// A shim's process.
#[derive(Debug)]
pub struct ShimProcess(OwnedFd);

impl ShimProcess {
    /// Waits until it has ended, at most so long; whether it has. Blocking.
    pub fn wait(&self, limit: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let time = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        // It is readable from its end on (pidfd_open(2)).
        matches!(poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&time)), Ok(1))
    }

    /// Has it end now; what it supervises, too, if that is a machine.
    pub fn kill(&self) {
        let _ = silo_sys::process::pidfd_signal(&self.0, libc::SIGKILL);
    }
}

/// Removes what a shim that was killed has left: processes and cgroup of the bundle in `dir`.
pub fn clean_up_after(cgroup: &str, socket: &PathBuf) -> io::Result<()> {
    let _ = std::fs::remove_file(socket);
    silo_runtime::cgroup::Cgroup::at(cgroup)?.destroy()
}

/// As [`clean_up_after`], where a shim's socket says that it was killed: it takes its socket along when it leaves by
/// itself, and what it then still waits for is its own.
pub fn clean_up_if_killed(cgroup: &str, socket: &PathBuf) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(socket) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => clean_up_after(cgroup, socket),
        _ => Ok(()),
    }
}

fn unexpected(answer: &Answer) -> SandboxError {
    io_error("asking the shim")(io::Error::other(format!("an answer to another question: {answer:?}")))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn read(inner: Arc<Inner>, events: mpsc::UnboundedSender<Event>) {
    let mut input = Vec::new();
    let mut buffer = vec![0u8; 8 << 10];
    'connected: loop {
        if inner.stream.readable().await.is_err() {
            break;
        }
        match inner.stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => input.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        }
        loop {
            match decode::<Reply>(&mut input) {
                Ok(Some(Reply { answer: Answer::Event(event), .. })) => {
                    let _ = events.send(event);
                }
                Ok(Some(Reply { id, answer })) => {
                    if let Some(sender) = lock(&inner.waiting).remove(&id) {
                        let _ = sender.send(answer);
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    tracing::warn!("a shim's connection: {e}");
                    break 'connected;
                }
            }
        }
    }
    lock(&inner.waiting).clear();
    inner.gone.send_replace(true);
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_a_killed_shim_has_left_is_taken_away_and_a_living_ones_is_not() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let path = format!("/silo-test/left-{}", std::process::id());
        let socket = std::env::temp_dir().join(format!("silo-left-{}", std::process::id()));
        let found = || {
            let below = |e: std::fs::DirEntry| e.path().join(&path[1..]).exists();
            std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().any(below)
                || Path::new("/sys/fs/cgroup").join(&path[1..]).exists()
        };
        silo_runtime::cgroup::Cgroup::at(&path).unwrap().create(None).unwrap();
        clean_up_if_killed(&path, &socket).unwrap();
        assert!(found(), "a shim that left by itself takes away what is its own");
        let listener = UnixListener::bind(&socket).unwrap();
        clean_up_if_killed(&path, &socket).unwrap();
        assert!(found() && socket.exists(), "it lives");
        drop(listener);
        clean_up_if_killed(&path, &socket).unwrap();
        assert!(!found() && !socket.exists());
    }
}
