//! Templates: machines that were booted once, saved while their agent waited for its first request, and are cloned since.
//!
//! Some are saved with a bundle brought up in them, whose first process waits to be told what to run: they have the disks of its
//! layers, and begin with a copy of the scratch.
//!
//! `<templates>/<key>/` holds `memory` (of which each clone maps what it does not write to), `state` (of the devices), `scratch`
//! (if there is something on it) and `template.json`; it is whole or absent. The key names everything that a state depends on: when a part changes, so does
//! the key, and the old template goes. The daemon keeps the memory as sealed memory that no clone can change for others.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use silo_runtime::Bundle;
use silo_runtime::link::{Incoming, Link};
use silo_runtime::protocol::{Answer, Boot, Call, Reply, Request};

use super::bundle;
use super::confinement::PROGRAM;
use super::disks::{self, as_it_is, is_as_it_was};
use super::kernel::Kernel;
use super::network;
use super::parts::{SAVED_SCRATCH, Saved, files, open, pair, size_of};
use super::qemu::{LAYER_DISKS, Memory, Wanted};
use super::qmp::Qmp;
use crate::contract::MachineConfig;

/// Templates that are kept on disk, and bytes of theirs; the one that was used longest ago goes first.
const KEPT: usize = 8;
const KEPT_BYTES: u64 = 3 << 30;
/// How long a machine may take to become one.
const BOOT: Duration = Duration::from_secs(60);
/// How long a bundle may take to be brought up in it.
const READY: Duration = Duration::from_secs(90);
/// How long a failed attempt keeps others from trying.
const AGAIN: Duration = Duration::from_secs(60);
/// The VMM's user while a template is made: nobody.
const NOBODY: u32 = 65_534;

const MEMORY: &str = "memory";
const STATE: &str = "state";
const TEMPLATE: &str = "template.json";
const LOCK: &str = ".lock";

/// What is known of a template; `template.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// What it depends on.
    pub key: String,
    /// `uname -r`.
    pub kernel: String,
    /// MiB of memory that its machines have.
    pub size: u64,
    /// SHA-256 of the memory's and the state's content.
    pub digest: String,
    /// What was brought up in it, as it is shown; empty: nothing.
    #[serde(default)]
    pub ready: String,
    /// The disks that it has open: path, inode and time of each.
    #[serde(default)]
    pub disks: Vec<String>,
    /// Bytes on disk.
    #[serde(default)]
    pub bytes: u64,
}

/// Those whose memory is at hand, and those that are being made or could not be.
#[derive(Default)]
struct Known {
    /// With all files that a clone of it will read, as they were when their content was compared with what is known of it.
    ready: HashMap<PathBuf, (Arc<OwnedFd>, Vec<String>)>,
    building: HashSet<PathBuf>,
    failed: HashMap<PathBuf, Instant>,
}

fn known() -> std::sync::MutexGuard<'static, Known> {
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// Everything that a machine's state depends on.
fn key(config: &MachineConfig) -> io::Result<String> {
    let kernel = Kernel::find(&config.vm)?;
    let mut hash = Sha256::new();
    for path in [Path::new(PROGRAM), &kernel.vmlinux, &config.agent] {
        let found = std::fs::metadata(path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        hash.update(format!("{} {} {}.{}\n", path.display(), found.len(), found.mtime(), found.mtime_nsec()));
    }
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find(|l| l.starts_with("model name")).unwrap_or_default();
    let name = if config.host.no_kvm.is_some() { "tcg" } else { "kvm" };
    let processors = config.processors.max(1);
    let shape = Wanted::shape();
    hash.update(format!("{shape} {name} {model} {} MiB {processors}", size_of(config.memory)));
    if let Some(ready) = &config.ready {
        hash.update(format!("\n{} {}", ready.key, config.disks.display()));
    }
    Ok(hash.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect())
}

/// The template of such machines, if it is ready: its directory and memory. If not, one is made in the background by
/// `executable template`, unless that has failed a moment ago.
pub(crate) fn find(executable: &Path, config: &MachineConfig) -> Option<(PathBuf, Arc<OwnedFd>)> {
    let key = key(config).ok()?;
    let dir = config.templates.join(&key);
    let mut state = known();
    // Memory of templates that are not there any more is let go.
    state.ready.retain(|dir, _| dir.join(TEMPLATE).exists());
    match state.ready.get(&dir) {
        Some((memory, files)) if files.iter().all(|f| is_as_it_was(f)) => return Some((dir, memory.clone())),
        // Somebody has written to one, or made it anew: what it is now is looked at.
        Some(_) => drop(state.ready.remove(&dir)),
        None => {}
    }
    match load(&dir) {
        Ok(Some((memory, files))) => {
            let memory = Arc::new(memory);
            state.ready.insert(dir.clone(), (memory.clone(), files));
            return Some((dir, memory));
        }
        Ok(None) => {}
        Err(e) => {
            tracing::warn!("template {}: {e}; it is made anew", dir.display());
            let _ = std::fs::remove_dir_all(&dir);
        }
    }
    let failed = state.failed.get(&dir).is_some_and(|at| at.elapsed() < AGAIN);
    if !failed && state.building.insert(dir.clone()) {
        let (executable, config) = (executable.to_owned(), config.clone());
        let at = dir.clone();
        let spawned = std::thread::Builder::new().name("template".into()).spawn(move || {
            let result = run_builder(&executable, &config);
            let mut state = known();
            state.building.remove(&at);
            if let Err(e) = result {
                tracing::warn!("making a template: {e}");
                state.failed.insert(at, Instant::now());
            }
        });
        if spawned.is_err() {
            state.building.remove(&dir);
        }
    }
    None
}

/// As [`find`], or, until there is one with what is to be brought up in it, one of the plain machine.
pub(crate) fn find_best(executable: &Path, config: &mut MachineConfig) -> Option<(PathBuf, Arc<OwnedFd>)> {
    let found = find(executable, config);
    if found.is_none() && config.ready.take().is_some() {
        return find(executable, config);
    }
    found
}

/// The key of the template of such machines, if it is ready; as [`find`], it has one made if not.
pub(crate) fn ready_key(executable: &Path, config: &MachineConfig) -> Option<String> {
    let config = MachineConfig { host: super::host().clone(), ..config.clone() };
    let (dir, _) = find(executable, &config)?;
    Some(dir.file_name()?.to_string_lossy().into_owned())
}

/// Runs the process that makes a template.
pub fn run_builder(executable: &Path, config: &MachineConfig) -> io::Result<()> {
    let text = serde_json::to_string(config)?;
    let output = Command::new(executable).args(["template", &text]).env_clear().output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Lets go of the memory of all templates: it is read again when the next machine wants it.
pub fn forget() {
    known().ready.clear();
}

/// The memory of a whole template, and the files that its clones will read, as they are; `None`: there is none.
fn load(dir: &Path) -> io::Result<Option<(OwnedFd, Vec<String>)>> {
    let text = match std::fs::read(dir.join(TEMPLATE)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let template: Template = serde_json::from_slice(&text)?;
    let memory = File::open(dir.join(MEMORY))?;
    if memory.metadata()?.len() != template.size << 20 {
        return Err(invalid("its memory is not as long as it should be"));
    }
    if template.disks.iter().any(|disk| !is_as_it_was(disk)) {
        return Err(invalid("a disk that it has open is another one now"));
    }
    let own = [STATE, SAVED_SCRATCH].map(|name| dir.join(name));
    let own = own.iter().filter(|path| path.exists()).map(|path| as_it_is(path));
    let files = template.disks.into_iter().map(Ok).chain(own).collect::<io::Result<_>>()?;
    if digest(&memory, dir)? != template.digest {
        return Err(invalid("its content has changed"));
    }
    Ok(Some((silo_sys::tap::sealed_copy("template", &memory)?, files)))
}

/// SHA-256 of what is not a hole of the memory, of the state and of what is not a hole of the scratch.
fn digest(memory: &File, dir: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash_data(&mut hash, memory)?;
    hash.update(std::fs::read(dir.join(STATE))?);
    match File::open(dir.join(SAVED_SCRATCH)) {
        Ok(scratch) => hash_data(&mut hash, &scratch)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn hash_data(hash: &mut Sha256, file: &File) -> io::Result<()> {
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(start) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?;
        let mut file = file;
        file.seek(io::SeekFrom::Start(start))?;
        let mut piece = file.take(end - start);
        loop {
            match piece.read(&mut buffer)? {
                0 => break,
                // A hole and zeros are the same content.
                n if buffer[..n].iter().all(|b| *b == 0) => {}
                n => hash.update(&buffer[..n]),
            }
        }
        at = end;
    }
    Ok(())
}

/// The template whose memory a shim was given. One without its state is discarded.
pub(crate) fn saved(config: &MachineConfig, memory: Option<OwnedFd>) -> Option<Saved> {
    let (dir, memory) = (config.template.as_ref()?, memory?);
    match File::open(dir.join(STATE)) {
        Ok(state) => Some(Saved { memory, state: state.into() }),
        Err(e) => {
            crate::complain!("template {}: {e}", dir.display());
            discard(dir);
            None
        }
    }
}

/// A template turned out not to work: it goes, and whoever looks for it next makes another.
pub(crate) fn discard(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(TEMPLATE));
}

/// The templates below a directory.
pub fn list(templates: &Path) -> Vec<Template> {
    let entries = std::fs::read_dir(templates).into_iter().flatten().flatten();
    let read = |dir: PathBuf| -> Option<Template> {
        let mut template: Template = serde_json::from_slice(&std::fs::read(dir.join(TEMPLATE)).ok()?).ok()?;
        let used = |name: &str| std::fs::metadata(dir.join(name)).map_or(0, |m| m.blocks() * 512);
        template.bytes = used(MEMORY) + used(STATE) + used(SAVED_SCRATCH);
        Some(template)
    };
    entries.filter_map(|e| read(e.path())).collect()
}

/// Removes one template, by its key.
///
/// # Errors
/// `NotFound`, naming the key.
pub fn remove(templates: &Path, key: &str) -> io::Result<()> {
    if !list(templates).iter().any(|t| t.key == key) {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no template {key}")));
    }
    let dir = templates.join(key);
    discard(&dir);
    std::fs::remove_dir_all(dir)
}

/// Makes the template of such machines. The process must be single-threaded.
pub fn build(config: &MachineConfig) -> io::Result<Template> {
    let key = key(config)?;
    std::fs::create_dir_all(&config.templates)?;
    // One maker at a time: daemons may share the directory.
    let turn = File::options().create(true).truncate(false).write(true).open(config.templates.join(LOCK))?;
    rustix::fs::flock(&turn, rustix::fs::FlockOperation::LockExclusive)?;
    let dir = config.templates.join(&key);
    if let Some(made) = list(&config.templates).into_iter().find(|t| t.key == key) {
        return Ok(made);
    }
    sweep(&config.templates, &key);
    let fresh = tempfile::Builder::new().prefix(".fresh-").tempdir_in(&config.templates)?;
    let kernel = Kernel::find(&config.vm)?;
    let size = size_of(config.memory);
    let file =
        |name: &str| File::options().read(true).write(true).create_new(true).open(fresh.path().join(name));
    let (memory, state) = (file(MEMORY)?, file(STATE)?);
    memory.set_len(size << 20)?;
    fchown(&memory, Some(NOBODY), Some(NOBODY))?;
    let ready = config.ready.as_ref().map(|ready| Ready::of(config, &ready.bundle)).transpose()?;
    let images = ready.as_ref().map_or(&[][..], |ready| &ready.images);
    let empty = disks::empty(&config.disks)?;
    let layers = (0..LAYER_DISKS)
        .map(|i| Ok((bundle::serial(i), open(images.get(i).unwrap_or(&empty), false)?)))
        .collect::<io::Result<Vec<_>>>()?;
    let scratch = match &ready {
        Some(_) => {
            let path = fresh.path().join(SAVED_SCRATCH);
            disks::scratch(&config.disks, &path, disks::SCRATCH)?;
            File::options().read(true).write(true).open(path)?
        }
        None => {
            let scratch = tempfile::tempfile_in(&config.templates)?;
            scratch.set_len(disks::SIZE)?;
            scratch
        }
    };
    let saved_scratch = scratch.try_clone()?;
    let (port, agents) = pair()?;
    let (_shares, theirs) = pair()?;
    let (orders, taken) = pair()?;
    let version = kernel.version;
    let wanted = Wanted {
        host: config.host.clone(),
        boot: Some(files(config)?),
        size,
        processors: config.processors,
        memory: Memory::Template(memory.try_clone()?.into()),
        layers,
        scratch: (bundle::SCRATCH_SERIAL.into(), scratch.into()),
        tap: network::apart()?,
        ports: [agents, theirs],
        incoming: None,
        qmp: Some(taken),
        owner: NOBODY,
    };
    let vmm = wanted.spawn()?;
    let mut agent = Agent { stream: port.into(), link: Link::default(), until: Instant::now() + BOOT };
    let saved = agent
        .boot()
        .and_then(|()| ready.as_ref().map_or(Ok(()), |ready| agent.bring_up(&ready.boot)))
        .and_then(|()| save(orders, &state.try_clone()?.into()));
    vmm.end();
    saved.map_err(|e| io::Error::new(e.kind(), format!("{e} (QEMU: {})", vmm.last_words())))?;
    memory.sync_all()?;
    state.sync_all()?;
    saved_scratch.sync_all()?;
    let template = Template {
        key: key.clone(),
        kernel: version,
        size,
        digest: digest(&memory, fresh.path())?,
        ready: config.ready.as_ref().map(|ready| ready.of.clone()).unwrap_or_default(),
        disks: images.iter().map(|path| as_it_is(path)).collect::<io::Result<_>>()?,
        bytes: 0,
    };
    std::fs::write(fresh.path().join(TEMPLATE), serde_json::to_vec(&template)?)?;
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::rename(fresh.keep(), &dir)?;
    Ok(template)
}

/// A bundle that is brought up in a template.
struct Ready {
    images: Vec<PathBuf>,
    boot: Boot,
}

impl Ready {
    fn of(config: &MachineConfig, dir: &Path) -> io::Result<Self> {
        let made = bundle::translate(&Bundle::load(dir)?, bundle::READY_COPIES)?;
        if made.layers.len() > LAYER_DISKS {
            return Err(io::Error::other(format!("a bundle of {} layer disks", made.layers.len())));
        }
        let images = made.layers.iter().map(|l| disks::image(&config.disks, l)).collect::<io::Result<_>>()?;
        let boot = Boot {
            disks: bundle::mounted(made.layers.len()),
            files: made.files,
            spec: Some(Box::new(made.spec)),
            rootfs: Some(made.rootfs),
            filter: made.filter,
            ..Boot::default()
        };
        Ok(Self { images, boot })
    }
}

/// The agent of a machine that becomes a template.
struct Agent {
    stream: std::os::unix::net::UnixStream,
    link: Link,
    until: Instant,
}

impl Agent {
    /// Waits for its word that it is ready.
    fn boot(&mut self) -> io::Result<()> {
        match self.reply()? {
            Answer::State(_) => Ok(()),
            other => Err(invalid(format!("the agent begins with {other:?}"))),
        }
    }

    /// Has it bring up a bundle.
    fn bring_up(&mut self, boot: &Boot) -> io::Result<()> {
        self.until = Instant::now() + READY;
        let call = Call::Ready(Box::new(boot.clone()));
        self.link.send(&Request { id: 1, call }).map_err(io::Error::other)?;
        self.stream.write_all(&std::mem::take(&mut self.link.output))?;
        match self.reply()? {
            Answer::Done => Ok(()),
            Answer::Failed(failure) => Err(io::Error::other(failure)),
            other => Err(invalid(format!("the agent answers {other:?}"))),
        }
    }

    fn reply(&mut self) -> io::Result<Answer> {
        let mut buffer = [0; 4096];
        loop {
            while let Some(incoming) = self.link.take::<Reply>()? {
                if let Incoming::Message(Reply { answer, .. }) = incoming {
                    return Ok(answer);
                }
            }
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the machine does not answer"));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::Error::other("the machine ended while it booted")),
                n => self.link.received(&buffer[..n]),
            }
        }
    }
}

fn save(orders: OwnedFd, state: &OwnedFd) -> io::Result<()> {
    let mut qmp = Qmp::connect(orders)?;
    qmp.leave_memory_out()?;
    qmp.order_with("getfd", json!({"fdname": "state"}), Some(state))?;
    qmp.order("migrate", json!({"uri": "fd:state"}))?;
    let until = Instant::now() + BOOT;
    while Instant::now() < until {
        let found = qmp.order("query-migrate", json!({}))?;
        match found["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                return Err(io::Error::other(format!("saving the machine failed: {found}")));
            }
            // The event that tells it comes only to those who had asked for it before the machine was made.
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "saving the machine does not end"))
}

/// Removes what a crash has left half-made, and templates beyond the number that is kept.
fn sweep(templates: &Path, wanted: &str) {
    let mut whole = Vec::new();
    for entry in std::fs::read_dir(templates).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        let age = age.unwrap_or_default();
        if name == LOCK {
            continue;
        }
        if name.starts_with(".fresh-") || !entry.path().join(TEMPLATE).exists() {
            if age > BOOT * 4 {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        } else if name != wanted {
            whole.push((age, entry.path()));
        }
    }
    whole.sort();
    let bytes = |dir: &Path| -> u64 {
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        files.filter_map(|f| f.metadata().ok()).map(|m| m.blocks() * 512).sum()
    };
    let mut total = 0;
    for (kept, (_, dir)) in whole.into_iter().enumerate() {
        total += bytes(&dir);
        if kept < KEPT - 1 && total < KEPT_BYTES {
            continue;
        }
        discard(&dir);
        let _ = std::fs::remove_dir_all(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_was_cut_off_or_changed_is_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        let memory = File::create_new(dir.path().join(MEMORY)).unwrap();
        memory.set_len(1 << 20).unwrap();
        std::fs::write(dir.path().join(STATE), "state").unwrap();
        std::fs::write(dir.path().join(SAVED_SCRATCH), "disk").unwrap();
        let memory = File::open(dir.path().join(MEMORY)).unwrap();
        let digest = digest(&memory, dir.path()).unwrap();
        let template = Template { key: "k".into(), size: 1, digest, ..Default::default() };
        std::fs::write(dir.path().join(TEMPLATE), serde_json::to_vec(&template).unwrap()).unwrap();
        let (_, files) = load(dir.path()).unwrap().unwrap();
        assert!(files.len() == 2 && files.iter().all(|file| is_as_it_was(file)), "{files:?}");
        std::fs::write(dir.path().join(SAVED_SCRATCH), "torn").unwrap();
        assert!(files.iter().any(|file| !is_as_it_was(file)));
        assert!(load(dir.path()).unwrap_err().to_string().contains("changed"));
        std::fs::write(dir.path().join(SAVED_SCRATCH), "disk").unwrap();
        std::fs::write(dir.path().join(STATE), "stale").unwrap();
        assert!(load(dir.path()).unwrap_err().to_string().contains("changed"));
        std::fs::write(dir.path().join(STATE), "state").unwrap();
        File::options().write(true).open(dir.path().join(MEMORY)).unwrap().set_len(10).unwrap();
        assert!(load(dir.path()).unwrap_err().to_string().contains("long"));
    }

    #[test]
    fn only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..KEPT + 4 {
            let one = dir.path().join(format!("k{i}"));
            std::fs::create_dir(&one).unwrap();
            let template = Template { key: format!("k{i}"), ..Default::default() };
            std::fs::write(one.join(TEMPLATE), serde_json::to_vec(&template).unwrap()).unwrap();
        }
        sweep(dir.path(), "k0");
        assert_eq!(list(dir.path()).len(), KEPT);
        assert!(list(dir.path()).iter().any(|t| t.key == "k0"));
        remove(dir.path(), "k0").unwrap();
        assert!(remove(dir.path(), "k0").unwrap_err().to_string().contains("k0"));
    }
}
