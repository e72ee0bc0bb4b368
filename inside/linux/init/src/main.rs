//! PID 1 for `docker run --init`: runs one program, passes signals on to it, reaps orphans, ends as it ends.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

/// Signals that are not passed on: they concern this process itself.
const KEPT: &[i32] = &[
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCHLD,
];

fn main() {
    let arguments: Vec<CString> = std::env::args_os()
        .skip(1)
        .skip_while(|a| a == "--")
        .filter_map(|a| CString::new(a.into_vec()).ok())
        .collect();
    if arguments.is_empty() {
        eprintln!("usage: docker-init -- PROGRAM [ARGUMENT...]");
        std::process::exit(1);
    }
    // SAFETY: a single-threaded process; sets and argument arrays outlive the calls that use them.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        for signal in KEPT.iter().filter(|s| **s != libc::SIGCHLD) {
            libc::sigdelset(&raw mut all, *signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let child = libc::fork();
        match child {
            -1 => fail("fork", &arguments[0], 1),
            0 => {
                libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
                // A group of its own, in the foreground if there is a terminal.
                libc::setpgid(0, 0);
                libc::signal(libc::SIGTTOU, libc::SIG_IGN);
                libc::tcsetpgrp(0, libc::getpgrp());
                libc::signal(libc::SIGTTOU, libc::SIG_DFL);
                let mut pointers: Vec<*const libc::c_char> = arguments.iter().map(|a| a.as_ptr()).collect();
                pointers.push(std::ptr::null());
                libc::execvp(pointers[0], pointers.as_ptr());
                let code = if std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT) {
                    127
                } else {
                    126
                };
                fail("exec", &arguments[0], code)
            }
            _ => {}
        }
        loop {
            let signal = libc::sigwaitinfo(&raw const all, std::ptr::null_mut());
            if signal > 0 && !KEPT.contains(&signal) {
                libc::kill(child, signal);
            }
            let mut status = 0;
            loop {
                let pid = libc::waitpid(-1, &raw mut status, libc::WNOHANG);
                if pid == child {
                    let code = if libc::WIFSIGNALED(status) {
                        128 + libc::WTERMSIG(status)
                    } else {
                        libc::WEXITSTATUS(status)
                    };
                    std::process::exit(code);
                }
                if pid <= 0 {
                    break;
                }
            }
        }
    }
}

fn fail(doing: &str, program: &CString, code: i32) -> ! {
    eprintln!("docker-init: {doing} {}: {}", program.to_string_lossy(), std::io::Error::last_os_error());
    std::process::exit(code)
}
