//! Tools on the container's files: each runs in a process of its own, that of a hostile file's making included.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{Dir, FileType, Mode, OFlags};
use silo_layer::{ExtractOptions, LayerError};
use silo_runtime::protocol::{Failure, FailureKind, ToolEnd};
use silo_runtime::tools::Tool;
use silo_runtime::{Bundle, Started, Stdio};
use silo_sys::beneath;
use silo_sys::process::{self, Fork};

use crate::processes;

/// Where the scratch disk is mounted: the container's writable directory.
const SCRATCH: &str = "/s";

/// What tools work on.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) root: OwnedFd,
    /// Upper directories, and their names below the writable directory.
    pub(crate) uppers: Vec<(String, PathBuf)>,
    pub(crate) pids: Vec<i32>,
}

/// The upper directories of a bundle's overlays.
pub(crate) fn uppers(bundle: &Bundle) -> Vec<(String, PathBuf)> {
    let mounts = std::iter::once(&bundle.rootfs).chain(bundle.spec.mounts().iter().flatten());
    let options =
        mounts.filter(|m| m.typ().as_deref() == Some("overlay")).filter_map(|m| Mount::options(m).as_ref());
    let named = |option: &String| {
        let path = Path::new(option.strip_prefix("upperdir=")?);
        let name = path.strip_prefix(SCRATCH).ok()?.to_str()?;
        Some((name.to_owned(), path.to_owned()))
    };
    options.flatten().filter_map(named).collect()
}

/// Starts a tool; the caller is single-threaded.
pub(crate) fn spawn(tool: &Tool, on: &Container, stdio: Stdio) -> io::Result<Started> {
    let Stdio::Pipes { stdin, stdout, stderr } = stdio else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a tool with a terminal"));
    };
    // SAFETY: the agent has one thread.
    match unsafe { process::clone3(0, None) }? {
        Fork::Parent { pid, pidfd } => {
            Ok(Started { pid, pidfd, terminal: None, status: None, waiting: None })
        }
        Fork::Child => {
            let keep = [&stdin, &stdout, &stderr, &on.root].map(AsRawFd::as_raw_fd);
            let keep = [&[0, 1, 2], &keep[..]].concat();
            // SAFETY: this process goes on below with those descriptors only, and ends without destructors.
            let alone = unsafe { process::close_all_but(&keep) };
            let failure = alone.map_err(failed).and_then(|()| work(tool, on, stdin, stdout)).err();
            let code = i32::from(failure.is_some());
            let mut end = serde_json::to_vec(&ToolEnd { failure }).unwrap_or_default();
            end.push(b'\n');
            let _ = File::from(stderr).write_all(&end);
            process::exit_now(code)
        }
    }
}

fn failed(error: io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FailureKind::NoSuchFile,
        io::ErrorKind::InvalidInput => FailureKind::Invalid,
        _ => FailureKind::Other,
    };
    Failure { kind, message: error.to_string() }
}

fn of_layer(error: LayerError) -> Failure {
    let message = error.to_string();
    match error {
        LayerError::Io { source, .. } => Failure { message, ..failed(source) },
        _ => Failure { kind: FailureKind::Other, message },
    }
}

fn work(tool: &Tool, on: &Container, stdin: OwnedFd, stdout: OwnedFd) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(64 << 10, File::from(stdout));
    let root = on.root.as_fd();
    match tool {
        Tool::Stat { path } => {
            let found = silo_layer::look(root, path).map_err(failed)?;
            serde_json::to_writer(&mut out, &found).map_err(|e| failed(e.into()))?;
        }
        Tool::Names { path } => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = beneath::open_in_root(root, path, flags, Mode::empty()).map_err(failed)?;
            let entries = Dir::read_from(directory).map_err(|e| failed(e.into()))?;
            let mut names = Vec::new();
            for entry in entries {
                let entry = entry.map_err(|e| failed(e.into()))?;
                names.extend(entry.file_name().to_str().ok().map(str::to_owned));
            }
            serde_json::to_writer(&mut out, &names).map_err(|e| failed(e.into()))?;
        }
        Tool::Read { path, most } => {
            // Non-blocking: there may be a pipe.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let file = beneath::open_in_root(root, path, flags, Mode::empty()).map_err(failed)?;
            let stat = rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(failed(io::Error::other(format!("{} is no file", path.display()))));
            }
            io::copy(&mut File::from(file).take(*most), &mut out).map_err(failed)?;
        }
        Tool::Pack { path, prefix } => {
            silo_layer::pack_tree(root, path, prefix, 0, false, &mut out).map_err(of_layer)?;
        }
        Tool::Extract { path, no_overwrite_dir_non_dir, keep_owner } => {
            let options = ExtractOptions {
                no_overwrite_dir_non_dir: *no_overwrite_dir_non_dir,
                keep_owner: *keep_owner,
                ..Default::default()
            };
            let mut input = File::from(stdin);
            silo_layer::extract(root, path, &mut input, &options, None)
                .map_err(|e| Failure { kind: FailureKind::Invalid, ..of_layer(e) })?;
            // What follows the archive is read too: whoever sends it is not cut off.
            io::copy(&mut input, &mut io::sink()).map_err(failed)?;
        }
        Tool::Top => silo_layer::pack_uppers(&on.uppers, &mut out).map_err(of_layer)?,
        Tool::Sync => rustix::fs::sync(),
        Tool::Processes { arguments } => processes::print(&on.pids, arguments, &mut out).map_err(failed)?,
    }
    out.flush().map_err(failed)
}
