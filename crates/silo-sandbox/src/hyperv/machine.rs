//! A running machine as its shim sees it: the VMM's process and the link to the agent.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use serde_json::json;
use silo_runtime::Bundle;
use silo_runtime::link::{Incoming, Link, Part, parts};
use silo_runtime::protocol::{Answer, Boot, Call, Event, Reply, Request};
use silo_sys::process;

use super::bundle::{self, translate};
use super::disks::{self, as_it_is, is_as_it_was};
use super::limits::{self, Rates};
use super::parts::{SAVED_SCRATCH, Saved, files, named, open, pair, size_of};
use super::qemu::{self, LAYER_DISKS, Memory, Vmm, Wanted};
use super::qmp::Qmp;
use super::{network, rehearsal, shares};
use crate::contract::MachineConfig;

/// Bytes that are read from the link at once.
const READ: usize = 256 << 10;
/// Bytes of requests that may wait for an agent that does not read.
const UNREAD: usize = 16 << 20;
/// Name of a container's scratch in its directory.
pub(crate) const SCRATCH: &str = "scratch.ext4";

/// What has happened in a machine.
#[derive(Debug)]
pub(crate) enum Happened {
    /// The answer to a request.
    Answer(u64, Answer),
    /// Something unasked.
    Event(Event),
    /// Bytes of a task's output.
    Output(u32, Part, Vec<u8>),
    /// There is room again for standard input, or a stream has ended: nothing to be done but to go on.
    Room,
}

/// A container that is to be started in a machine.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) config: &'a MachineConfig,
    pub(crate) bundle: &'a Bundle,
    /// The VMM's user and group.
    pub(crate) owner: u32,
    pub(crate) stdin: bool,
    pub(crate) size: (u16, u16),
    /// The machine is wanted for its files: it runs nothing.
    pub(crate) files_only: bool,
}

/// What every attempt to start it has in common.
#[derive(Debug)]
pub(crate) struct Plan {
    config: MachineConfig,
    files_only: bool,
    owner: u32,
    /// Of the read-only disks.
    images: Vec<PathBuf>,
    /// How many of them are layers; the others are empty.
    layers: usize,
    scratch: PathBuf,
    shares: Vec<Mount>,
    /// Where their server makes its root.
    stage: PathBuf,
    boot: Boot,
    limits: limits::Shares,
    /// Another machine may have written to the scratch: one that is tried after it has a new one.
    used: Cell<bool>,
}

/// Where a VMM takes orders.
#[derive(Debug)]
enum Orders {
    /// Nobody listens.
    None,
    /// Its greeting has not been heard yet: one that boots is not waited for.
    Unheard(OwnedFd),
    Heard(Qmp),
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    vmm: Vmm,
    orders: Orders,
    /// Of the process that serves shared folders.
    server: Option<(i32, OwnedFd)>,
    port: OwnedFd,
    link: Link,
    next: u64,
    buffer: Vec<u8>,
}

/// The scratch that the template was saved with, if something is on it: what goes on from that begins with a copy.
fn template_scratch(config: &MachineConfig) -> Option<PathBuf> {
    // One that is gone is an error of whoever copies it: without it the saved machine cannot go on.
    config.template.as_ref().filter(|_| config.ready.is_some()).map(|dir| dir.join(SAVED_SCRATCH))
}

/// Bytes that a container's writable files may have.
pub(crate) fn scratch_size(config: &MachineConfig) -> u64 {
    if config.scratch == 0 { disks::SCRATCH } else { config.scratch }
}

/// The images behind the read-only disks of a machine.
fn images(config: &MachineConfig, layers: &[Vec<PathBuf>]) -> io::Result<Vec<PathBuf>> {
    let mut images: Vec<PathBuf> =
        layers.iter().map(|l| disks::image(&config.disks, l)).collect::<io::Result<_>>()?;
    while images.len() < LAYER_DISKS {
        images.push(disks::empty(&config.disks)?);
    }
    Ok(images)
}

impl Plan {
    /// Makes what is missing. Once for a container's start: its adapters are carried on. The caller is single-threaded and in
    /// the container's network namespace.
    pub(crate) fn new(start: Start<'_>) -> io::Result<Self> {
        let Start { config, bundle, owner, stdin, size, files_only } = start;
        let made = translate(bundle, bundle::COPIES)?;
        if made.layers.len() > LAYER_DISKS {
            return Err(io::Error::other(format!("a container of {} layer disks", made.layers.len())));
        }
        let scratch = bundle.dir.join(SCRATCH);
        if template_scratch(config).is_none() {
            disks::scratch(&config.disks, &scratch, scratch_size(config))?;
        }
        let images = images(config, &made.layers)?;
        let networks = network::carry_on(None).map_err(named("connecting the machine's network"))?;
        let boot = Boot {
            hostname: made.spec.hostname().clone().unwrap_or_else(|| "silo".into()),
            disks: bundle::mounted(made.layers.len()),
            files: made.files,
            shares: (!made.shares.is_empty()).then(|| bundle::SHARES.into()),
            networks,
            spec: Some(Box::new(made.spec)),
            rootfs: Some(made.rootfs),
            filter: made.filter,
            stdin,
            size,
            ..Boot::default()
        };
        let disk = silo_sys::block::disk_of(&bundle.dir)?;
        let resources = bundle.spec.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
        Ok(Self {
            limits: limits::Shares::of(&resources, disk),
            config: config.clone(),
            files_only,
            owner,
            images,
            layers: made.layers.len(),
            scratch,
            shares: made.shares,
            stage: bundle.dir.join("shares"),
            boot,
            used: Cell::new(false),
        })
    }

    /// Starts a VMM, a clone of the template if there is one, and has it become the sandbox of the bundle; the answers to the
    /// two returned requests (become it; run it, unless only its files are wanted) tell how that went. There is one attempt at a time.
    pub(crate) fn launch(&self, saved: Option<Saved>) -> io::Result<(Machine, u64, Option<u64>)> {
        if self.used.replace(false) {
            std::fs::remove_file(&self.scratch).map_err(named(self.scratch.display()))?;
        }
        match template_scratch(&self.config).filter(|_| saved.is_some()) {
            // Such a template is for containers that have written nothing yet; an attempt before may have.
            Some(from) => {
                disks::copy(&from, &self.scratch)?;
                self.used.set(true);
            }
            None => disks::scratch(&self.config.disks, &self.scratch, scratch_size(&self.config))?,
        }
        let mut layers = Vec::new();
        for (i, path) in self.images.iter().enumerate() {
            layers.push((bundle::serial(i), open(path, false)?));
        }
        let tap = network::tap().map_err(named("connecting the machine's network"))?;
        let (port, agents) = pair()?;
        let (served, theirs) = pair()?;
        rustix::io::ioctl_fionbio(&port, true)?;
        let (memory, incoming) = match saved {
            Some(saved) => (Memory::Clone(saved.memory), Some(saved.state)),
            None => (Memory::Fresh, None),
        };
        let state = incoming.as_ref().map(|state| state.as_raw_fd());
        let (orders, qmp) = pair()?;
        let wanted = Wanted {
            host: self.config.host.clone(),
            boot: if incoming.is_some() { None } else { Some(files(&self.config)?) },
            size: size_of(self.config.memory),
            processors: self.config.processors,
            memory,
            layers,
            scratch: (bundle::SCRATCH_SERIAL.into(), open(&self.scratch, true)?),
            tap,
            ports: [agents, theirs],
            incoming,
            qmp: Some(qmp),
            owner: self.owner,
        };
        let server = match self.shares.is_empty() {
            true => None,
            false => Some(shares::spawn(&self.shares, &self.stage, served)?),
        };
        let vmm = wanted.spawn()?;
        let mut machine = Machine::over(vmm, server, port);
        // The VMM has the descriptor under the number that it had here.
        let heard = match state {
            Some(state) => go_on(orders, state).map(Orders::Heard),
            None => Ok(Orders::Unheard(orders)),
        };
        let asked = heard.and_then(|orders| {
            machine.orders = orders;
            self.throttle(&mut machine)?;
            self.ask(&mut machine)
        });
        match asked {
            Ok((boot, start)) => Ok((machine, boot, start)),
            Err(e) => Err(machine.failed(e)),
        }
    }

    /// As [`Plan::launch`], with a machine that was made ready before. One that fails here is ended.
    pub(crate) fn take(&self, machine: &mut Machine, waiting: Waiting) -> io::Result<(u64, Option<u64>)> {
        let Waiting { mut orders, served, rehearsed, mounted, .. } = waiting;
        self.used.set(mounted.is_some());
        let asked = || {
            match mounted {
                None => exchange(&mut orders, &self.images[..self.layers.max(1)], &self.scratch, &rehearsed)?,
                Some(images) if images == self.images => {}
                Some(_) => return Err(io::Error::other("it has the disks of another container")),
            }
            orders.order("cont", json!({}))?;
            machine.orders = Orders::Heard(orders);
            self.throttle(machine)?;
            if !self.shares.is_empty() {
                machine.server = Some(shares::spawn(&self.shares, &self.stage, served)?);
            }
            self.ask(machine)
        };
        let asked: io::Result<(u64, Option<u64>)> = asked();
        asked.map_err(|e| machine.failed(e))
    }

    /// Removes the disk images that the agent's complaint names: they are made anew when they are needed. Machines that
    /// have them open go on with what they have.
    pub(crate) fn distrust(&self, complaint: &str) -> Vec<&Path> {
        let named = |i: usize| complaint.split(|c: char| c.is_whitespace()).any(|w| w == bundle::serial(i));
        let images = self.images.iter().enumerate().take(self.layers).filter(|(i, _)| named(*i));
        images.map(|(_, path)| &**path).filter(|path| std::fs::remove_file(path).is_ok()).collect()
    }

    /// Who keeps which of the container's limits.
    pub(crate) fn limits(&self) -> &limits::Shares {
        &self.limits
    }

    fn throttle(&self, machine: &mut Machine) -> io::Result<()> {
        match self.limits.rates {
            rates if rates == Rates::default() => Ok(()),
            rates => machine.throttle(&rates),
        }
    }

    fn ask(&self, machine: &mut Machine) -> io::Result<(u64, Option<u64>)> {
        let boot = fresh(&self.boot)?;
        let boot = machine.ask(Call::Boot(Box::new(boot)))?;
        let start = (!self.files_only).then(|| machine.ask(Call::Start)).transpose()?;
        machine.flush()?;
        Ok((boot, start))
    }
}

/// What is still to be done with a machine that has been made ready: behind its disks is nobody's content, its tap leads
/// nowhere.
#[derive(Debug)]
pub(crate) struct Waiting {
    orders: Qmp,
    /// Where the server of shared folders will be.
    served: OwnedFd,
    /// The scratch that it rehearsed with.
    rehearsed: OwnedFd,
    /// The images that are mounted already, with a scratch.
    mounted: Option<Vec<PathBuf>>,
    /// Those and the scratch, as they are while it waits.
    files: Vec<String>,
}

impl Waiting {
    /// It has its container's disks.
    pub(crate) fn is_mounted(&self) -> bool {
        self.mounted.is_some()
    }

    /// After the rehearsal: puts the disks of the container to come there, with a scratch in `dir`. Answers to the returned
    /// request tell that they are mounted.
    pub(crate) fn mount(
        &mut self,
        machine: &mut Machine,
        config: &MachineConfig,
        dir: &Path,
    ) -> io::Result<u64> {
        let scratch = dir.join(SCRATCH);
        disks::scratch(&config.disks, &scratch, scratch_size(config))?;
        let images = images(config, &config.layers)?;
        exchange(&mut self.orders, &images[..config.layers.len()], &scratch, &self.rehearsed)?;
        self.mounted = Some(images);
        let asked = machine.ask(Call::Mount(bundle::mounted(config.layers.len())))?;
        machine.flush()?;
        Ok(asked)
    }

    /// Has the guest stand still: one that waits is to cost no time of a processor.
    /// `dir` is its directory.
    pub(crate) fn rest(&mut self, dir: &Path) -> io::Result<()> {
        self.orders.order("stop", json!({}))?;
        let Some(images) = &self.mounted else { return Ok(()) };
        let scratch = dir.join(SCRATCH);
        self.files = images.iter().chain([&scratch]).map(|path| as_it_is(path)).collect::<io::Result<_>>()?;
        Ok(())
    }

    /// Gives the scratch that is mounted to the container in `to`, unless somebody else has written to what is mounted.
    pub(crate) fn hand_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(changed) = self.files.iter().find(|file| !is_as_it_was(file)) {
            let path = changed.splitn(3, ' ').nth(2).unwrap_or_default();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{path} has changed since the machine mounted it"),
            ));
        }
        match self.mounted {
            Some(_) => std::fs::rename(from.join(SCRATCH), to.join(SCRATCH)),
            None => Ok(()),
        }
    }
}

/// Puts images and a scratch in the place of what was rehearsed with.
fn exchange(orders: &mut Qmp, images: &[PathBuf], scratch: &Path, rehearsed: &OwnedFd) -> io::Result<()> {
    for (disk, path) in images.iter().enumerate() {
        qemu::exchange(orders, disk, &open(path, false)?)?;
    }
    qemu::exchange(orders, LAYER_DISKS, &open(scratch, true)?)?;
    // The VMM keeps it open: an order to close it would have to wait for the guest, which has other things to do.
    Ok(rustix::fs::ftruncate(rehearsed, 0)?)
}

/// Starts a clone of a template that is to wait for its container, and has it rehearse; the answer to the returned request
/// tells that it is ready. The caller is single-threaded and in the container's network namespace. `dir` is its directory.
pub(crate) fn wait_ready(
    config: &MachineConfig,
    owner: u32,
    dir: &Path,
    saved: Saved,
) -> io::Result<(Machine, Waiting, u64)> {
    // Of a template that has a bundle brought up the disks are in use already.
    let (shown, mounted, scratch): (Vec<PathBuf>, _, OwnedFd) = match template_scratch(config) {
        Some(from) => {
            let images = images(config, &config.layers)?;
            disks::copy(&from, &dir.join(SCRATCH))?;
            (images.clone(), Some(images), open(&dir.join(SCRATCH), true)?)
        }
        None => {
            let mut shown = vec![disks::rehearsal(&config.disks, &config.agent)?];
            shown.resize(LAYER_DISKS, disks::empty(&config.disks)?);
            (shown, None, disks::nobodys(&config.disks)?.into())
        }
    };
    let layers = shown.iter().enumerate().map(|(i, path)| Ok((bundle::serial(i), open(path, false)?)));
    let layers = layers.collect::<io::Result<Vec<_>>>()?;
    let rehearsed = scratch.try_clone()?;
    let tap = network::awaited().map_err(named("making a tap"))?;
    let (port, agents) = pair()?;
    let (served, theirs) = pair()?;
    let (ours, qmp) = pair()?;
    rustix::io::ioctl_fionbio(&port, true)?;
    let state = saved.state.as_raw_fd();
    let wanted = Wanted {
        host: config.host.clone(),
        boot: None,
        size: size_of(config.memory),
        processors: config.processors,
        memory: Memory::Clone(saved.memory),
        layers,
        scratch: (bundle::SCRATCH_SERIAL.into(), scratch),
        tap,
        ports: [agents, theirs],
        incoming: Some(saved.state),
        qmp: Some(qmp),
        owner,
    };
    let mut machine = Machine::over(wanted.spawn()?, None, port);
    let asked = go_on(ours, state).and_then(|orders| {
        let boot = if mounted.is_some() { Boot::default() } else { fresh(&rehearsal::boot()?)? };
        let rehearse = machine.ask(Call::Rehearse(Box::new(boot)))?;
        machine.flush()?;
        Ok((orders, rehearse))
    });
    match asked {
        Ok((orders, rehearse)) => {
            Ok((machine, Waiting { orders, served, rehearsed, mounted, files: Vec::new() }, rehearse))
        }
        Err(e) => Err(machine.failed(e)),
    }
}

/// Has a VMM go on from a state, which it has under the number of a descriptor.
fn go_on(orders: OwnedFd, state: i32) -> io::Result<Qmp> {
    let mut qmp = Qmp::connect(orders)?;
    qmp.leave_memory_out()?;
    qmp.order("migrate-incoming", json!({"uri": format!("fd:{state}")}))?;
    Ok(qmp)
}

/// With what no other machine has.
fn fresh(boot: &Boot) -> io::Result<Boot> {
    let random = |n: usize| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        Ok(bytes)
    };
    Ok(Boot {
        clock: now(),
        seed: random(64)?,
        machine_id: random(16)?.iter().map(|b| format!("{b:02x}")).collect(),
        ..boot.clone()
    })
}

impl Drop for Machine {
    /// Nothing of it stays; the shim reaps what has ended.
    fn drop(&mut self) {
        for pidfd in self.server.iter().map(|(_, pidfd)| pidfd).chain([&self.vmm.pidfd]) {
            let _ = process::pidfd_signal(pidfd, libc::SIGKILL);
        }
    }
}

impl Machine {
    fn over(vmm: Vmm, server: Option<(i32, OwnedFd)>, port: OwnedFd) -> Self {
        Self {
            vmm,
            orders: Orders::None,
            server,
            port,
            link: Link::default(),
            next: 1,
            buffer: vec![0; READ],
        }
    }

    /// A machine without a VMM, whose agent is at the other end of `port`.
    #[cfg(test)]
    pub(crate) fn pretended(pid: i32, port: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&port, true)?;
        let (said, _) = rustix::pipe::pipe()?;
        Ok(Self::over(Vmm { pid, pidfd: process::pidfd_open(pid)?, said }, None, port))
    }

    /// The VMM's.
    pub(crate) fn pid(&self) -> i32 {
        self.vmm.pid
    }

    /// All processes of it.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> {
        [self.vmm.pid].into_iter().chain(self.server.as_ref().map(|(pid, _)| *pid))
    }

    /// Its processes are not behind others any more.
    pub(crate) fn go_ahead(&self, niceness: i32) {
        for pid in self.pids() {
            // The VMM leads a group of its own: all threads of it.
            let group = rustix::process::Pid::from_raw(pid);
            let _ = rustix::process::setpriority_pgrp(group, niceness);
        }
    }

    /// Sets what goes to its disks in a second.
    pub(crate) fn throttle(&mut self, rates: &Rates) -> io::Result<()> {
        self.orders = match std::mem::replace(&mut self.orders, Orders::None) {
            Orders::Unheard(socket) => Orders::Heard(Qmp::connect(socket)?),
            heard => heard,
        };
        match &mut self.orders {
            Orders::Heard(qmp) => qemu::throttle(qmp, rates).map_err(named("limiting the machine's disks")),
            _ => Err(io::Error::other("its VMM takes no orders")),
        }
    }

    /// Forgets what the VMM tells unasked.
    pub(crate) fn forget_events(&mut self) {
        if let Orders::Heard(qmp) = &mut self.orders {
            qmp.forget_events();
        }
    }

    /// Kills the VMM.
    pub(crate) fn switch_off(&self) {
        let _ = process::pidfd_signal(&self.vmm.pidfd, libc::SIGKILL);
    }

    /// Ends the VMM; the error with its last words.
    fn failed(&self, e: io::Error) -> io::Error {
        self.vmm.end();
        io::Error::new(e.kind(), format!("{e} (QEMU: {})", self.vmm.last_words()))
    }

    /// What the VMM has said last, one line.
    pub(crate) fn last_words(&self) -> String {
        self.vmm.last_words()
    }

    /// The link's descriptor, to be watched.
    pub(crate) fn port(&self) -> &OwnedFd {
        &self.port
    }

    /// There are bytes to be sent.
    pub(crate) fn has_output(&self) -> bool {
        !self.link.output.is_empty()
    }

    /// The link's state of streams.
    pub(crate) fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Queues a request; its number.
    pub(crate) fn ask(&mut self, call: Call) -> io::Result<u64> {
        if self.link.output.len() > UNREAD {
            return Err(io::Error::other("its virtual machine does not take requests"));
        }
        let id = self.next;
        self.next += 1;
        self.link.send(&Request { id, call }).map_err(io::Error::other)?;
        Ok(id)
    }

    /// Sends as much as the VMM takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        let result = loop {
            if sent == self.link.output.len() {
                break Ok(());
            }
            match rustix::io::write(&self.port, &self.link.output[sent..]) {
                Ok(n) => sent += n,
                Err(rustix::io::Errno::AGAIN) => break Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => break Err(e.into()),
            }
        };
        self.link.output.drain(..sent);
        result
    }

    /// Reads what has come. An error: the VMM is gone, or the agent does not keep to the protocol.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<Happened>> {
        match rustix::io::read(&self.port, &mut self.buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.link.received(&self.buffer[..n]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        }
        let mut all = Vec::new();
        while let Some(incoming) = self.link.take::<Reply>()? {
            all.push(match incoming {
                Incoming::Message(Reply { answer: Answer::Event(event), .. }) => Happened::Event(event),
                Incoming::Message(Reply { answer: Answer::ClockAsked, .. }) => {
                    // At once: what lies between is the error of its clock.
                    let _ = self.ask(Call::Clock(now()));
                    let _ = self.flush();
                    Happened::Room
                }
                Incoming::Message(Reply { id: 0, .. }) | Incoming::Credit(..) | Incoming::End(_) => {
                    Happened::Room
                }
                Incoming::Message(Reply { id, answer }) => Happened::Answer(id, answer),
                Incoming::Data(stream, bytes) => match parts(stream) {
                    Some((task, part @ (Part::Stdout | Part::Stderr))) => Happened::Output(task, part, bytes),
                    _ => return Err(io::Error::other("bytes of a stream that is none")),
                },
            });
        }
        Ok(all)
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}
