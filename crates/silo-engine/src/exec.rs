//! Execs: further processes in a running container.

use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use silo_guest::ProcessConfig;
use silo_sandbox::{Attach, ExecRequest, ExecState, FailureKind, Sandbox, SandboxError, SandboxState};
use tokio::sync::oneshot;

use crate::container::detach_keys;
use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result, guest_error, sandbox_error};
use crate::execs::already_run;
use crate::ids::random_id;
use crate::record::{ContainerId, ExecRecord, ExecSpec, Status};
use crate::{bundle, placement};
use std::sync::Arc;

/// How long an inspect waits for the news of an end that the shim already knows.
const NEWS: Duration = Duration::from_secs(5);

/// Exit code of a program that cannot be run.
const CANNOT_RUN: u32 = 126;

/// Writes a sentence to a client in place of a program's output, and lets go of it.
async fn say(io: OwnedFd, framed: bool, text: &str) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    const STDERR: u8 = 2;
    let stream = std::os::unix::net::UnixStream::from(io);
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    let line = format!("{text}\r\n");
    if framed {
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX).to_be_bytes();
        stream.write_all(&[&[STDERR, 0, 0, 0], &length[..]].concat()).await?;
    }
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await
}

/// Most bytes kept of the output of an exec of the engine's own.
const CAPTURED: u32 = 4096;

/// How long a container may take to write what it keeps in memory.
const FLUSH: Duration = Duration::from_secs(20);

impl Engine {
    /// Prepares an exec; returns its ID.
    pub async fn exec_create(&self, name: &str, spec: ExecSpec) -> Result<String> {
        let entry = self.find(name)?;
        if spec.cmd.is_empty() {
            return Err(EngineError::invalid("No exec command specified"));
        }
        detach_keys(&spec.detach_keys)?;
        self.exec_allowed(&entry)?;
        let record = ExecRecord {
            id: random_id(),
            container: entry.id.clone(),
            spec,
            running: false,
            exit_code: None,
            pid: 0,
        };
        let id = record.id.clone();
        let command = format!("exec_create: {}", record.spec.cmd.join(" "));
        self.inner.execs.enter(record);
        self.inner.events.container(&entry.record(), &command, &[("execID", id.clone())]);
        Ok(id)
    }

    fn exec_allowed(&self, entry: &Entry) -> Result<Sandbox> {
        match entry.status() {
            Status::Paused => Err(EngineError::conflict(format!(
                "container {} is paused, unpause the container before exec",
                entry.id
            ))),
            Status::Restarting => Err(EngineError::conflict(format!(
                "container {} is restarting, wait until the container is running",
                entry.id
            ))),
            _ => entry.running(),
        }
    }

    /// An exec as the engine last heard of it.
    pub fn exec_record(&self, exec: &str) -> Result<ExecRecord> {
        self.inner.execs.get(exec)
    }

    /// An exec as it stands. The shim closes a client's stream at the process's end, and that client asks for the
    /// exit code at once: should its question overtake the shim's news, it waits for them.
    pub async fn exec_inspect(&self, exec: &str) -> Result<ExecRecord> {
        let record = self.exec_record(exec)?;
        if !record.running {
            return Ok(record);
        }
        let Ok(sandbox) = self.find(&record.container.0).and_then(|e| e.running()) else { return Ok(record) };
        match sandbox.state().await {
            Ok(state) if !state.execs.contains(&record.id) => {}
            _ => return self.exec_record(exec),
        }
        let end = tokio::time::Instant::now() + NEWS;
        loop {
            let mut news = std::pin::pin!(self.inner.execs.ended.notified());
            news.as_mut().enable();
            let record = self.exec_record(exec)?;
            if !record.running || tokio::time::timeout_at(end, news).await.is_err() {
                return Ok(record);
            }
        }
    }

    /// IDs of a container's execs that have not ended.
    pub fn exec_ids(&self, id: &ContainerId) -> Vec<String> {
        self.inner.execs.of(id)
    }

    /// Whether an exec may be started now.
    pub fn exec_check(&self, exec: &str) -> Result<()> {
        self.exec_ready(exec).map(drop)
    }

    /// An exec that may be started now, with what it takes.
    fn exec_ready(&self, exec: &str) -> Result<(ExecRecord, Arc<Entry>, Sandbox)> {
        let record = self.inner.execs.get(exec)?;
        if !record.is_new() {
            return Err(already_run(exec));
        }
        let entry = self.find(&record.container.0)?;
        let sandbox = self.exec_allowed(&entry)?;
        Ok((record, entry, sandbox))
    }

    /// Runs an exec. `io`: the client's connection, which the shim keeps, and whether its output is framed; `None`: detached.
    pub async fn exec_start(
        &self,
        exec: &str,
        console_size: (u16, u16),
        io: Option<(OwnedFd, bool)>,
        read_ahead: Bytes,
    ) -> Result<()> {
        let (record, entry, sandbox) = self.exec_ready(exec)?;
        self.inner.execs.claim(&record.id)?;
        let spec = &record.spec;
        let size = if console_size == (0, 0) { spec.console_size } else { console_size };
        let request = match self.compose(&entry, &record, size, 0).await {
            Ok(request) => request,
            Err(e) => {
                // In place of the program's own words.
                if let Some((io, framed)) = io {
                    let told = tokio::time::timeout(NEWS, say(io, framed, &e.message)).await;
                    if !matches!(told, Ok(Ok(()))) {
                        tracing::debug!("exec {exec}: the client cannot be told: {e}");
                    }
                }
                return Err(e);
            }
        };
        if let Some((io, framed)) = io {
            let attach = Attach {
                exec: Some(record.id.clone()),
                stdin: spec.attach_stdin,
                stdout: spec.attach_stdout || spec.tty,
                stderr: spec.attach_stderr && !spec.tty,
                framed,
                detach_keys: if spec.tty { detach_keys(&spec.detach_keys)? } else { Vec::new() },
                read_ahead: read_ahead.to_vec(),
            };
            if let Err(e) = sandbox.attach(attach, io).await {
                self.exec_ended(&entry, &record.id, CANNOT_RUN, String::new());
                return Err(sandbox_error(e));
            }
        }
        self.run_exec(&entry, &sandbox, &record, request).await
    }

    async fn run_exec(
        &self,
        entry: &Arc<Entry>,
        sandbox: &Sandbox,
        record: &ExecRecord,
        request: ExecRequest,
    ) -> Result<()> {
        let of_container = entry.record();
        let told = |action: &str, more: &[(&str, String)]| {
            let mut all = vec![("execID", record.id.clone())];
            all.extend_from_slice(more);
            self.inner.events.container(&of_container, action, &all);
        };
        told(&format!("exec_start: {}", record.spec.cmd.join(" ")), &[]);
        match sandbox.exec(request).await {
            Ok(pid) => {
                self.inner.execs.change(&record.id, |h| h.record.pid = pid);
                Ok(())
            }
            Err(e) => {
                let code = match &e {
                    SandboxError::Failed(f) if f.kind == FailureKind::ProgramNotFound => 127,
                    _ => 126,
                };
                self.inner.execs.end(&record.id, code, String::new());
                told("exec_die", &[("exitCode", code.to_string())]);
                let text =
                    format!("OCI runtime exec failed: exec failed: unable to start container process: {e}");
                Err(match sandbox_error(e) {
                    e if e.kind == crate::error::Kind::Invalid => EngineError::invalid(text),
                    e => e,
                })
            }
        }
    }

    /// What the shim is asked for; an exec that cannot be composed has ended.
    async fn compose(
        &self,
        entry: &Arc<Entry>,
        record: &ExecRecord,
        size: (u16, u16),
        capture: u32,
    ) -> Result<ExecRequest> {
        let spec = &record.spec;
        let os = entry.with(|r| r.os);
        let config = ProcessConfig {
            args: spec.cmd.clone(),
            args_escaped: false,
            env: spec.env.clone(),
            working_dir: spec.working_dir.clone(),
            user: spec.user.clone(),
            additional_groups: Vec::new(),
            terminal: spec.tty,
            console_size: size,
            privileged: spec.privileged,
        };
        let dir = self.dir(&entry.id);
        let composed = async {
            let view = self.accounts(entry, &config.working_dir).await?;
            blocking(move || {
                let bundle = bundle::read_config(&dir)?;
                placement::guest(os)?.process(&bundle, view.path(), &config).map_err(guest_error)
            })
            .await
        };
        let process =
            composed.await.inspect_err(|_| self.exec_ended(entry, &record.id, CANNOT_RUN, String::new()))?;
        // What an inspect shows: the environment may hold secrets, and has no use after the start.
        let shown = ExecSpec { env: Vec::new(), ..spec.clone() };
        let note = serde_json::to_string(&shown).unwrap_or_default();
        Ok(ExecRequest { exec: record.id.clone(), process, stdin: spec.attach_stdin, size, capture, note })
    }

    /// A shim tells that an exec has ended.
    pub(crate) fn exec_ended(&self, entry: &Arc<Entry>, exec: &str, code: u32, output: String) {
        // One without a command is the engine's own.
        if let Some(record) = self.inner.execs.end(exec, code, output).filter(|r| !r.spec.cmd.is_empty()) {
            self.inner.events.container(
                &entry.record(),
                "exec_die",
                &[("execID", record.id), ("exitCode", code.to_string())],
            );
        }
    }

    /// Takes over the execs of a container that is taken over; those that ended meanwhile are told.
    pub(crate) fn restore_execs(&self, entry: &Arc<Entry>, state: &SandboxState) {
        let known = state.known.clone().unwrap_or_else(|| {
            let running = state.execs.iter();
            running.map(|exec| ExecState { exec: exec.clone(), ..Default::default() }).collect()
        });
        for exec in known {
            let code = exec.exit.as_ref().map(|e| e.code);
            let spec = serde_json::from_str(&exec.note).unwrap_or_default();
            self.inner.execs.restore(ExecRecord {
                id: exec.exec.clone(),
                container: entry.id.clone(),
                spec,
                running: true,
                exit_code: None,
                pid: exec.pid,
            });
            match code {
                Some(code) if exec.told => {
                    self.inner.execs.end(&exec.exec, code, String::new());
                }
                Some(code) => self.exec_ended(entry, &exec.exec, code, String::new()),
                None => {}
            }
        }
    }

    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(&self, exec: &str, rows: u16, cols: u16) -> Result<()> {
        let record = self.inner.execs.get(exec)?;
        let entry = self.find(&record.container.0)?;
        entry.running()?.resize(Some(&record.id), rows, cols).await.map_err(sandbox_error)
    }

    /// Has a running container put on disk what it keeps in memory of its changes.
    pub(crate) async fn flush(&self, entry: &Arc<Entry>) -> Result<()> {
        if entry.status() != Status::Running {
            return Ok(());
        }
        let (dir, os) = (self.dir(&entry.id), entry.with(|r| r.os));
        let process = blocking(move || Ok(placement::guest(os)?.flush(&bundle::read_config(&dir)?))).await?;
        let Some(process) = process else { return Ok(()) };
        let sandbox = self.exec_allowed(entry)?;
        let (record, end) = self.own_exec(entry, ExecSpec::default());
        let exec = record.id;
        let request = ExecRequest {
            exec: exec.clone(),
            process,
            stdin: false,
            size: (0, 0),
            capture: CAPTURED,
            note: String::new(),
        };
        if let Err(e) = sandbox.exec(request).await {
            self.inner.execs.end(&exec, CANNOT_RUN, String::new());
            // A container that ends meanwhile writes all by itself.
            return if entry.status().is_running() { Err(sandbox_error(e)) } else { Ok(()) };
        }
        match end_of(&sandbox, &exec, end, FLUSH).await {
            Ok(Some((0, _))) | Err(_) => Ok(()),
            Ok(Some((_, said))) if entry.status().is_running() => {
                Err(EngineError::internal(format!("writing what the container keeps in memory: {said}")))
            }
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(EngineError::internal("the container does not write what it keeps in memory")),
        }
    }

    /// Enters a running exec of the engine's own, and what hears of its end.
    fn own_exec(&self, entry: &Entry, spec: ExecSpec) -> (ExecRecord, End) {
        let record = ExecRecord {
            id: random_id(),
            container: entry.id.clone(),
            spec,
            running: true,
            exit_code: None,
            pid: 0,
        };
        self.inner.execs.enter(record.clone());
        let (sender, end) = oneshot::channel();
        self.inner.execs.change(&record.id, |h| h.waiter = Some(sender));
        (record, end)
    }

    /// Runs a command and collects its output (health probes); `None`: it did not end in time and was killed.
    pub(crate) async fn probe(
        &self,
        entry: &Arc<Entry>,
        cmd: Vec<String>,
        limit: Duration,
    ) -> Result<Option<(u32, String)>> {
        let sandbox = self.exec_allowed(entry)?;
        let spec = ExecSpec { cmd, attach_stdout: true, attach_stderr: true, ..Default::default() };
        let (record, end) = self.own_exec(entry, spec);
        let request = self.compose(entry, &record, (0, 0), CAPTURED).await?;
        self.run_exec(entry, &sandbox, &record, request).await?;
        end_of(&sandbox, &record.id, end, limit).await
    }
}

/// An exec's exit code and output.
type End = oneshot::Receiver<(u32, String)>;

/// Waits for an exec of the engine's own; `None`: it did not end in time and was killed.
async fn end_of(sandbox: &Sandbox, exec: &str, end: End, limit: Duration) -> Result<Option<(u32, String)>> {
    match tokio::time::timeout(limit, end).await {
        Ok(Ok(result)) => Ok(Some(result)),
        Ok(Err(_)) => Err(EngineError::conflict("the container has ended")),
        Err(_) => {
            let _ = sandbox.signal(Some(exec), 9).await;
            Ok(None)
        }
    }
}
