//! PID 1 of a microVM: loads the modules that its kernel needs, then waits on the first port for the shim, which makes
//! it one sandbox ([`boot`]) and speaks the task protocol with it ([`serve`]). The bundle runs by the same
//! `silo-runtime` as on a host.
//!
//! A template is saved while this program waits for its first request: what is done before that is in each clone.

mod boot;
mod modules;
mod network;
mod processes;
mod ready;
mod rehearsal;
mod serve;
mod share;
mod task;
mod tool;

use std::io;
use std::path::Path;

use silo_sys::mount;

fn main() {
    // The program of a rehearsal.
    if std::env::args_os().nth(1).is_some_and(|word| word == rehearsal::PROGRAM) {
        return println!("{}", rehearsal::PROGRAM);
    }
    let error = match start() {
        Ok(()) => "the shim is gone".to_owned(),
        Err(e) => e.to_string(),
    };
    // Without a console nobody reads it; with one it is the only trace.
    eprintln!("silo-agent: {error}");
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
}

/// The kernel gives its first process no streams where it has no console: their numbers must not go to anything else.
fn standard_streams() -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let open = |path: &str| rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
    let stream = open("/dev/console").or_else(|_| open("/dev/null"))?;
    for number in 0..3 {
        silo_sys::process::duplicate_onto(&stream, number)?;
    }
    // The descriptor may be one of the three.
    std::mem::forget(stream);
    Ok(())
}

fn start() -> io::Result<()> {
    let mounted = |at: &str, kind: &str, options: &[&str]| -> io::Result<()> {
        std::fs::create_dir_all(at)?;
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        let fd = mount::new_filesystem(kind, kind, &options, 0)?;
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        mount::attach(&fd, rustix::fs::open(at, flags, rustix::fs::Mode::empty())?)
            .map_err(|e| io::Error::new(e.kind(), format!("mounting {at}: {e}")))
    };
    mounted("/dev", "devtmpfs", &["mode=755"])?;
    standard_streams()?;
    modules::load(Path::new("/modules"))?;
    // The kernel's first root cannot be left by pivot_root(2), which each container does: one of our own goes over it.
    mounted("/new", "tmpfs", &["mode=755"])?;
    for directory in ["proc", "sys", "dev", "run", "tmp", "etc"] {
        std::fs::create_dir(Path::new("/new").join(directory))?;
    }
    mount::move_onto(Path::new("/dev"), Path::new("/new/dev"))?;
    rustix::process::chdir("/new")?;
    mount::move_onto(Path::new("."), Path::new("/"))?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    mounted("/proc", "proc", &[])?;
    mounted("/sys", "sysfs", &[])?;
    mounted("/sys/fs/cgroup", "cgroup2", &[])?;
    // The hierarchy's controllers are switched on while this machine is nobody's yet.
    let rehearsed = silo_runtime::cgroup::Cgroup::at("/silo/rehearsal")?;
    rehearsed.create(Some(&oci_spec::runtime::LinuxResources::default()))?;
    rehearsed.destroy()?;
    mounted("/dev/pts", "devpts", &["mode=620", "ptmxmode=666"])?;
    mounted("/dev/shm", "tmpfs", &["mode=1777"])?;
    mounted("/dev/mqueue", "mqueue", &[])?;
    mounted("/run", "tmpfs", &["mode=755"])?;
    std::fs::create_dir_all(silo_runtime::protocol::BUNDLE)?;
    boot::prepare_disks()?;
    network::prepare()?;
    serve::Agent::new(boot::port("agent")?)?.run()
}
