//! The task protocol: messages, framing and limits. Spoken engine ↔ shim, and shim ↔ agent of a microVM.
//!
//! A frame is a little-endian u32 length and that many bytes of JSON: a [`Request`] towards the shim, a
//! [`Reply`] back. Events ([`Event`]) come unasked on connections that sent [`Call::Subscribe`]. Descriptors
//! (attached clients) ride on the first byte of the frame that names them.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxResources, Process};
use serde::{Deserialize, Serialize};

pub use crate::failure::{Failure, FailureKind};
use crate::tools::Tool;

/// Bytes a frame may have.
pub const MAX_FRAME: usize = 4 << 20;

/// Version of the protocol; a daemon takes over shims of its own version and the one before.
pub const VERSION: u32 = 2;
/// The first version that knows [`Call::Networks`].
pub const KNOWS_NETWORKS: u32 = 2;

/// Directory of a bundle in a microVM, with what was written for it.
pub const BUNDLE: &str = "/g";
/// The same of a bundle that a machine is saved with.
pub const READY_BUNDLE: &str = "/w";
/// Where a microVM's writable disk is.
pub const SCRATCH: &str = "/s";

/// One question.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the asker, repeated in the reply.
    pub id: u64,
    /// What.
    pub call: Call,
}

/// What may be asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// Who are you? → [`Answer::State`].
    State,
    /// Send events on this connection from now on. → [`Answer::Done`].
    Subscribe,
    /// Make a machine of its own what this sandbox needs; asked of the agent of a microVM, once, before the start.
    /// → [`Answer::Done`].
    Boot(Box<Boot>),
    /// Do all that a boot, a start and an end need, with this, and leave nothing of it: what was done once is done faster. Where a
    /// bundle was brought up that runs its own rehearsal once more. Asked of the agent of a microVM, before it is somebody's. → [`Answer::Done`].
    Rehearse(Box<Boot>),
    /// Bring up this bundle, whose first process waits to be told what to run, on these disks: the machine is saved then, and a
    /// [`Call::Boot`] of a clone finds it. Asked of the agent of a microVM, once. → [`Answer::Done`] when it is ready.
    Ready(Box<Boot>),
    /// Mount the disks that the boot to come names, which then finds them there. Asked of the agent of a microVM, before it is
    /// somebody's. → [`Answer::Done`].
    Mount(Vec<Disk>),
    /// The time, which the agent has asked for by [`Answer::ClockAsked`]: nanoseconds since 1970. → [`Answer::Done`].
    Clock(u64),
    /// Of a spare, once, with its network namespace (one descriptor with this frame): be ready to become a sandbox.
    /// → [`Answer::Done`] when it is. Spares are their own daemon's: no other version ever asks.
    Prepare,
    /// Of a spare that is ready, once: be the shim of the sandbox in this directory, as its `shim.json` says. What follows is
    /// a shim's usual life. → [`Answer::Done`].
    Become {
        /// The sandbox's directory.
        dir: std::path::PathBuf,
    },
    /// Run the bundle. Once. → [`Answer::Started`].
    Start,
    /// Hand a client's socket (one descriptor with this frame) to the container's or an exec's streams.
    /// → [`Answer::Done`].
    Attach(Attach),
    /// Run a further process. → [`Answer::Started`].
    Exec {
        /// Name, unique in the sandbox.
        exec: String,
        /// The process.
        process: Box<Process>,
        /// It has standard input.
        stdin: bool,
        /// Standard input ends with the first attached client.
        stdin_once: bool,
        /// Initial terminal size (rows, columns), (0, 0) unknown.
        size: (u16, u16),
        /// Collect up to this many bytes of output for the exit event (health probes); 0: none.
        capture: u32,
        /// What the asker wants to find again in [`SandboxState::known`].
        #[serde(default)]
        note: String,
    },
    /// Use a tool on the container's files, in a machine of its own: while the container runs, frozen or not, or in a machine
    /// that was booted for its files and runs nothing. → [`Answer::Started`]; its end is an exec's.
    Tool {
        /// Name, unique in the sandbox.
        exec: String,
        /// Which.
        tool: Tool,
    },
    /// Send a signal to the first process of the container or of an exec. → [`Answer::Done`].
    Signal {
        /// `None`: the container.
        exec: Option<String>,
        /// Number.
        signal: i32,
    },
    /// Set the terminal's size. → [`Answer::Done`].
    Resize {
        /// `None`: the container.
        exec: Option<String>,
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Freeze. → [`Answer::Done`].
    Pause,
    /// Thaw. → [`Answer::Done`].
    Resume,
    /// Change limits. → [`Answer::Done`].
    Update(Box<LinuxResources>),
    /// Files of the bundle's own directory were written anew. A shim is told of none; one that has a machine sends it those
    /// that the machine has copies of, which replace the copies. → [`Answer::Done`].
    Refresh(Vec<SeedFile>),
    /// Its adapters are these from now on, and no others: of a container whose machine has a network of its own. What is on the
    /// host's side of a new one is there already, of one that is not named any more it is still. → [`Answer::Done`].
    Networks(Vec<MachineNetwork>),
    /// Usage. → [`Answer::Stats`].
    Stats,
    /// Host pids. → [`Answer::Pids`].
    Pids,
    /// Write what is buffered of the log to its file. → [`Answer::Done`].
    FlushLog,
    /// End now: kill what runs. The shim exits after its exit event was sent. → [`Answer::Done`].
    Shutdown,
}

/// What makes a microVM this sandbox's: everything that a clone of a template must not share with its siblings, and
/// the bundle.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Boot {
    /// Nanoseconds since 1970.
    pub clock: u64,
    /// Random bytes of the host's, 64 of them.
    #[serde(with = "hex")]
    pub seed: Vec<u8>,
    /// Name of the machine.
    pub hostname: String,
    /// 32 hex digits.
    pub machine_id: String,
    /// Disks to mount, in this order.
    pub disks: Vec<Disk>,
    /// Files to be there before the bundle runs, such as what its maker put into the writable directories.
    pub files: Vec<SeedFile>,
    /// Mount the host's shared folders at this path, from the second port.
    pub shares: Option<std::path::PathBuf>,
    /// The container's adapters; none: the machine has the loopback only.
    pub networks: Vec<MachineNetwork>,
    /// `config.json`; its paths are the machine's.
    pub spec: Option<Box<oci_spec::runtime::Spec>>,
    /// `rootfs.json`.
    pub rootfs: Option<oci_spec::runtime::Mount>,
    /// The bundle's system call filter, compiled where that is cheap; the bundle has none then.
    pub filter: Option<PackedFilter>,
    /// The first process has standard input.
    pub stdin: bool,
    /// Initial size of its terminal (rows, columns), (0, 0) unknown.
    pub size: (u16, u16),
}

/// A compiled system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedFilter {
    /// Instructions (`struct sock_filter`), eight bytes each, little-endian.
    #[serde(with = "hex")]
    pub program: Vec<u8>,
    /// Flags of seccomp(2).
    pub flags: u32,
}

/// Bytes as a string of hexadecimal digits: a third of what JSON's list of numbers takes, and read at once.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
        to.serialize_str(&bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| D::Error::custom("bytes that are not pairs of hexadecimal digits"))
    }
}

/// Mount option of a scratch (ext4(5)): the inode tables of a new file are zeros. Without it the kernel writes them in the background
/// for minutes: gigabytes of the host's, and as much as the container may write.
pub const SCRATCH_OPTION: &str = "noinit_itable";

/// A disk of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Serial number that the device shows.
    pub serial: String,
    /// `erofs`, `ext4`.
    pub filesystem: String,
    /// Where.
    pub at: std::path::PathBuf,
    /// No writes.
    pub read_only: bool,
}

/// A file, directory or link to be made in a machine; what is there already stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedFile {
    /// Where.
    pub path: std::path::PathBuf,
    /// `st_mode`: directories, regular files and symbolic links.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Content, or a link's target.
    #[serde(with = "hex")]
    pub content: Vec<u8>,
}

/// An adapter of a machine: what it had, or would have, on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineNetwork {
    /// Name.
    pub name: String,
    /// It shares the device of another (a macvlan); one at most does not.
    pub shared: bool,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Bytes; 0: what the adapter has on the host.
    pub mtu: u32,
    /// Addresses with the lengths of their prefixes.
    pub addresses: Vec<(std::net::IpAddr, u8)>,
    /// Where everything else goes.
    pub gateways: Vec<std::net::IpAddr>,
    /// A name server at the other end of the device's link: its address, and its hardware address there.
    pub resolver: Option<(std::net::IpAddr, [u8; 6])>,
}

/// How a client is attached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Attach {
    /// `None`: the container's streams.
    pub exec: Option<String>,
    /// The client's bytes go to standard input.
    pub stdin: bool,
    /// Standard output goes to the client.
    pub stdout: bool,
    /// Standard error goes to the client.
    pub stderr: bool,
    /// Each piece of output has an 8-byte header (stream, 0, 0, 0, big-endian length) before it.
    pub framed: bool,
    /// Bytes that detach the client when typed in a row; empty: none.
    pub detach_keys: Vec<u8>,
    /// Bytes that the client had sent already.
    pub read_ahead: Vec<u8>,
}

/// One answer, or an event (`id` 0).
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The request's, 0 for events.
    pub id: u64,
    /// What.
    pub answer: Answer,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It was done.
    Done,
    /// It runs.
    Started {
        /// Host pid.
        pid: i32,
    },
    /// State.
    State(SandboxState),
    /// Usage.
    Stats(Box<Stats>),
    /// Pids.
    Pids(Vec<i32>),
    /// Of an agent, unasked: it wants to be told the time, and measures how long that takes.
    ClockAsked,
    /// It was not done.
    Failed(Failure),
    /// Something happened.
    Event(Event),
}

/// How a tool has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolEnd {
    /// `None`: it has done all.
    pub failure: Option<Failure>,
}

/// What happens unasked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The container's first process ended.
    Exited(Exit),
    /// An exec ended.
    ExecExited {
        /// Which.
        exec: String,
        /// How.
        exit: Exit,
        /// Captured output, lossy UTF-8.
        output: String,
    },
    /// A client detached by its keys.
    Detached {
        /// From which exec; `None`: the container.
        exec: Option<String>,
    },
}

/// How a process ended. Also written to `exit.json` in the sandbox's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 32 bits wide; a signal is 128 + its number.
    pub code: u32,
    /// The out-of-memory killer was in this container.
    pub oom_killed: bool,
    /// Milliseconds since 1970 when it was seen.
    pub at_ms: i64,
    /// Why it ended, when not by itself.
    pub error: String,
}

/// What a shim says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxState {
    /// [`VERSION`].
    pub version: u32,
    /// Pid of the shim.
    pub shim_pid: i32,
    /// Host pid of the first process; 0 before the start.
    pub pid: i32,
    /// Milliseconds since 1970 of the start; 0 before.
    pub started_ms: i64,
    /// It ended.
    pub exit: Option<Exit>,
    /// Frozen.
    pub paused: bool,
    /// Execs that run.
    pub execs: Vec<String>,
    /// Execs that run, and those that have ended not long ago, for a daemon that was not there; without those that
    /// collect their output for their asker. `None`: a shim that does not tell.
    #[serde(default)]
    pub known: Option<Vec<ExecState>>,
}

/// What a shim says of an exec.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecState {
    /// Its name.
    pub exec: String,
    /// Host pid.
    pub pid: i32,
    /// It ended.
    pub exit: Option<Exit>,
    /// Somebody was there to hear of the end.
    pub told: bool,
    /// As given with [`Call::Exec`]; empty when there are too many to tell.
    pub note: String,
}

/// Resource usage of a sandbox at one moment; zero where this host does not account for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Nanoseconds.
    pub cpu_total: u64,
    /// Nanoseconds in user mode.
    pub cpu_user: u64,
    /// Nanoseconds in kernel mode.
    pub cpu_system: u64,
    /// Per processor, nanoseconds (cgroup v1).
    pub cpu_percpu: Vec<u64>,
    /// CFS periods.
    pub throttling_periods: u64,
    /// Throttled periods.
    pub throttled_periods: u64,
    /// Nanoseconds throttled.
    pub throttled_time: u64,
    /// Bytes, page cache included.
    pub memory_usage: u64,
    /// Bytes, highest (cgroup v1).
    pub memory_max_usage: u64,
    /// Bytes; `u64::MAX`: none.
    pub memory_limit: u64,
    /// `memory.stat`.
    pub memory_stats: BTreeMap<String, u64>,
    /// Times the limit was hit.
    pub memory_failcnt: u64,
    /// Tasks.
    pub pids_current: u64,
    /// 0: none.
    pub pids_limit: u64,
    /// (major, minor, operation, bytes).
    pub io_service_bytes: Vec<(u64, u64, String, u64)>,
    /// (major, minor, operation, count).
    pub io_serviced: Vec<(u64, u64, String, u64)>,
    /// Interfaces: (name, rx bytes, packets, errors, dropped, tx bytes, packets, errors, dropped).
    pub networks: Vec<(String, [u64; 8])>,
}

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes, at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    /// Not the JSON that was expected.
    #[error("a frame that is no message: {0}")]
    Syntax(#[from] serde_json::Error),
}

/// A message as a frame.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0u8; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Takes the first whole frame off `buffer`; `None` when there is none yet.
pub fn decode<T: for<'a> Deserialize<'a>>(buffer: &mut Vec<u8>) -> Result<Option<T>, FrameError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[4..4 + length])?;
    buffer.drain(..4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_piece_by_piece() {
        let a = encode(&Request { id: 1, call: Call::Pause }).unwrap();
        let b = encode(&Request { id: 2, call: Call::Signal { exec: None, signal: 9 } }).unwrap();
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        for byte in a.iter().chain(&b) {
            buffer.push(*byte);
            while let Some(r) = decode::<Request>(&mut buffer).unwrap() {
                seen.push(r.id);
            }
        }
        assert_eq!(seen, [1, 2]);
    }

    #[test]
    fn bytes_go_as_digits_and_come_back() {
        let file = SeedFile { content: (0..=255).collect(), ..Default::default() };
        let text = serde_json::to_string(&file).unwrap();
        assert!(text.contains("\"00010203"));
        assert_eq!(serde_json::from_str::<SeedFile>(&text).unwrap(), file);
        assert!(serde_json::from_str::<SeedFile>(&text.replace("0001", "00g1")).is_err());
    }

    #[test]
    fn hostile_lengths_are_errors() {
        let mut buffer = u32::MAX.to_le_bytes().to_vec();
        assert!(matches!(decode::<Request>(&mut buffer), Err(FrameError::TooLong(_))));
        let mut buffer = vec![2, 0, 0, 0, b'{', b'x'];
        assert!(matches!(decode::<Request>(&mut buffer), Err(FrameError::Syntax(_))));
    }
}
