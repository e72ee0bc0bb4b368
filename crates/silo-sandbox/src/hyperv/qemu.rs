//! QEMU's command line and process: confined ([`confinement`](super::confinement)), with the descriptors that it is given
//! and no more.
//!
//! The machine is `microvm` with virtio devices alone. Devices and their order never differ: a template's state fits every
//! machine of the same kernel, agent, memory size and QEMU.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::pipe::PipeFlags;
use serde_json::json;
use silo_sys::process::{self, Fork};

use super::confinement::{self, PROGRAM};
use super::limits::Rates;
use super::qmp::Qmp;
use crate::contract::MachineHost;

/// Read-only disks of every machine.
pub(super) const LAYER_DISKS: usize = 4;

/// Memory of a machine.
#[derive(Debug)]
pub(super) enum Memory {
    /// Nothing yet, of the machine alone.
    Fresh,
    /// A template's, private from the first write on (sealed memory).
    Clone(OwnedFd),
    /// A file that becomes a template's.
    Template(OwnedFd),
}

/// What a machine boots.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) vmlinux: PathBuf,
    pub(super) initramfs: PathBuf,
}

/// A machine to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) host: MachineHost,
    /// `None`: it goes on from a state.
    pub(super) boot: Option<Files>,
    /// MiB.
    pub(super) size: u64,
    /// At least one.
    pub(super) processors: u64,
    pub(super) memory: Memory,
    /// Serial number and content of the read-only disks, [`LAYER_DISKS`] of them.
    pub(super) layers: Vec<(String, OwnedFd)>,
    /// The writable one.
    pub(super) scratch: (String, OwnedFd),
    pub(super) tap: OwnedFd,
    /// The other ends of the ports `agent` and `shares`.
    pub(super) ports: [OwnedFd; 2],
    /// The state to go on from.
    pub(super) incoming: Option<OwnedFd>,
    /// Where orders are taken from.
    pub(super) qmp: Option<OwnedFd>,
    /// User and group that it runs as.
    pub(super) owner: u32,
}

/// Kernel command line. Without the timer's figures a boot under TCG on a noisy host hangs at random.
fn command_line(host: &MachineHost) -> String {
    let mut line = "quiet cryptomgr.notests random.trust_cpu=on panic=-1 reboot=t pci=off \
                    cgroup_no_v1=all"
        .to_owned();
    if host.no_kvm.is_some() {
        let khz = host.tsc_khz;
        // Debian's kernel ticks 250 times a second. Speculation and address randomisation are the translator's matter.
        line += &format!(
            " mitigations=off nokaslr no_timer_check tsc=reliable tsc_early_khz={khz} lpj={}",
            khz * 4
        );
    }
    line
}

impl Wanted {
    /// What tells machines apart whose states do not fit each other, beside kernel, initial file system and memory.
    pub(super) fn shape() -> String {
        format!("microvm-4 layers={LAYER_DISKS} cpu=qemu64,+fsgsbase")
    }

    fn arguments(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut add = |name: &str, value: String| all.extend([format!("-{name}"), value]);
        let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
        add("machine", "microvm,isa-serial=off,memory-backend=memory".into());
        if self.host.no_kvm.is_none() {
            add("accel", "kvm".into());
            add("cpu", "host".into());
        } else {
            add("accel", "tcg,tb-size=64".into());
            // Not `max`: Wine dies by a signal there.
            add("cpu", "qemu64,+fsgsbase".into());
        }
        add("smp", self.processors.max(1).to_string());
        add("m", format!("{}M", self.size));
        let size = self.size;
        add(
            "object",
            match &self.memory {
                Memory::Fresh => format!("memory-backend-ram,id=memory,size={size}M"),
                Memory::Clone(fd) => format!(
                    "memory-backend-file,id=memory,size={size}M,share=off,mem-path=/proc/self/fd/{}",
                    number(fd)
                ),
                Memory::Template(fd) => format!(
                    "memory-backend-file,id=memory,size={size}M,share=on,mem-path=/proc/self/fd/{}",
                    number(fd)
                ),
            },
        );
        // What goes on from a state has its kernel in memory.
        if let Some(boot) = &self.boot {
            add("kernel", boot.vmlinux.display().to_string());
            add("initrd", boot.initramfs.display().to_string());
            let template = if matches!(self.memory, Memory::Template(_)) { " silo.template" } else { "" };
            add("append", command_line(&self.host) + template);
        }
        add("device", "virtio-serial-device,max_ports=3".into());
        for (i, (name, fd)) in ["agent", "shares"].iter().zip(&self.ports).enumerate() {
            add("chardev", format!("socket,id={name},fd={}", number(fd)));
            add("device", format!("virtserialport,chardev={name},name={name},nr={}", i + 1));
        }
        let disks = self.layers.iter().map(|d| (d, "on")).chain([(&self.scratch, "off")]);
        for (i, ((serial, fd), read_only)) in disks.enumerate() {
            add("add-fd", format!("fd={},set={i}", number(fd)));
            let both = format!("read-only={read_only},auto-read-only=off,discard=unmap");
            let at = format!("node-name=file{i},filename=/dev/fdset/{i},locking=off");
            add("blockdev", format!("driver=file,{at},{both}"));
            add("blockdev", format!("driver=raw,node-name=disk{i},file=file{i},{both}"));
            // A full disk of the host is an error in the machine: QEMU would stop it, and nobody would go on with it.
            let errors = "werror=report,rerror=report";
            let cache = "write-cache=on";
            let id = device_id(i);
            add(
                "device",
                format!("virtio-blk-device,id={id},drive=disk{i},serial={serial},{cache},{errors}"),
            );
        }
        add("netdev", format!("tap,id=network,fd={}", number(&self.tap)));
        add("device", "virtio-net-device,netdev=network".into());
        if let Some(fd) = &self.qmp {
            add("chardev", format!("socket,id=qmp,fd={}", number(fd)));
            add("mon", "chardev=qmp,mode=control".into());
        }
        if self.incoming.is_some() {
            add("incoming", "defer".into());
        }
        add("sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
        add("display", "none".into());
        add("name", "silo".into());
        all.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
        all
    }

    fn descriptors(&self) -> Vec<&OwnedFd> {
        let mut all: Vec<&OwnedFd> = self.layers.iter().map(|(_, fd)| fd).collect();
        all.push(&self.scratch.1);
        all.extend(&self.ports);
        all.push(&self.tap);
        all.extend([&self.incoming, &self.qmp].into_iter().flatten());
        if let Memory::Clone(fd) | Memory::Template(fd) = &self.memory {
            all.push(fd);
        }
        all
    }

    /// Starts it; the caller is single-threaded. Its process dies with the caller.
    pub(super) fn spawn(self) -> io::Result<Vmm> {
        if !Path::new(PROGRAM).exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{PROGRAM} is not there: install the package qemu-system-x86"),
            ));
        }
        let text = |s: String| CString::new(s).map_err(io::Error::other);
        let arguments: Vec<CString> =
            [PROGRAM.to_owned()].into_iter().chain(self.arguments()).map(text).collect::<io::Result<_>>()?;
        let (said, says) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let parent = process::pidfd_open(rustix::process::getpid().as_raw_nonzero().get())?;
        // SAFETY: the caller is single-threaded.
        match unsafe { process::clone3(confinement::NAMESPACES, None) }? {
            Fork::Parent { pid, pidfd } => Ok(Vmm { pid, pidfd, said }),
            Fork::Child => {
                let error = self.become_vmm(&arguments, &says, &parent);
                let _ = rustix::io::write(&says, format!("starting {PROGRAM}: {error}\n").as_bytes());
                process::exit_now(1)
            }
        }
    }

    fn become_vmm(&self, arguments: &[CString], says: &OwnedFd, parent: &OwnedFd) -> io::Error {
        let prepared = || -> io::Result<()> {
            let _ = rustix::process::setsid();
            process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
            let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
            process::duplicate_onto(&null, 0)?;
            process::duplicate_onto(&null, 1)?;
            process::duplicate_onto(says, 2)?;
            process::close_on_exec_from(3)?;
            for fd in self.descriptors() {
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
            }
            process::reset_signals();
            let mut files = vec![Path::new(PROGRAM)];
            files.extend(self.boot.iter().flat_map(|b| [&*b.vmlinux, &*b.initramfs]));
            confinement::enter(&files, self.host.no_kvm.is_none(), self.owner, parent)
        };
        if let Err(e) = prepared() {
            return e;
        }
        process::exec(PROGRAM.as_ref(), arguments, &[c"PATH=/usr/bin".to_owned()])
    }
}

/// Name of the device of a disk.
fn device_id(disk: usize) -> String {
    format!("device{disk}")
}

/// Sets what goes to all disks of a machine together in a second.
pub(super) fn throttle(qmp: &mut Qmp, rates: &Rates) -> io::Result<()> {
    for disk in 0..=LAYER_DISKS {
        let order = json!({
            "id": device_id(disk), "group": "disks", "bps": 0, "iops": 0,
            "bps_rd": rates.read_bytes, "bps_wr": rates.write_bytes,
            "iops_rd": rates.reads, "iops_wr": rates.writes,
        });
        qmp.order("block_set_io_throttle", order)?;
    }
    Ok(())
}

/// Puts other content behind the device of a disk, which sees no change: every disk has the same size. By its number, the layers'
/// first; the last is the writable one.
pub(super) fn exchange(qmp: &mut Qmp, disk: usize, content: &OwnedFd) -> io::Result<()> {
    let (read_only, set) = (disk < LAYER_DISKS, disk + LAYER_DISKS + 1);
    qmp.order_with("add-fd", json!({"fdset-id": set}), Some(content))?;
    let (node, file) = (format!("disk{disk}"), format!("file{set}"));
    let mut added = json!({
        "driver": "file", "node-name": file, "filename": format!("/dev/fdset/{set}"), "locking": "off",
    });
    let mut changed = json!({"driver": "raw", "node-name": node, "file": file});
    for options in [&mut added, &mut changed] {
        options["read-only"] = read_only.into();
        options["auto-read-only"] = false.into();
        options["discard"] = "unmap".into();
    }
    qmp.order("blockdev-add", added)?;
    qmp.order("blockdev-reopen", json!({"options": [changed]})).map(drop)
}

/// A VMM's process.
#[derive(Debug)]
pub(super) struct Vmm {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// What it says: nobody waits for it to be read, and what it has no room for is lost.
    pub(super) said: OwnedFd,
}

impl Vmm {
    /// The end of what it has said, one line.
    pub(super) fn last_words(&self) -> String {
        let mut text = vec![0; 64 << 10];
        let n = rustix::io::read(&self.said, &mut text).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..n]);
        let line = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default();
        line.chars().filter(|c| !c.is_control()).take(300).collect()
    }

    /// Ends it and waits for that.
    pub(super) fn end(&self) {
        let _ = process::pidfd_signal(&self.pidfd, libc::SIGKILL);
        let _ = process::wait(self.pid);
    }
}
