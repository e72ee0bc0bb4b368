//! The threads that answer: what they may do, and their loop.

use std::io;

use rustix::fs::Mode;

use super::link::Link;
use super::tree::Tree;
use super::wire::{MAX_MESSAGE, Reply};

/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, SETFCAP (linux/capability.h): the guest's
/// kernel has checked permissions; this side acts on any file, and only on files.
const CAPABILITIES: u64 = 0b1101_1111 | 1 << 31;

/// Answers messages until the guest ends. However a worker ends, the others end too.
pub(super) fn work(link: &Link, tree: &Tree) -> io::Result<()> {
    let _close = Close(link);
    prepare(tree)?;
    answer_all(link, tree)
}

struct Close<'l>(&'l Link);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn answer_all(link: &Link, tree: &Tree) -> io::Result<()> {
    let mut message = vec![0; MAX_MESSAGE];
    let mut reply = Reply::new();
    while let Some(request) = link.next(&mut message)? {
        if let Some(reply) = tree.answer(request, &mut reply) {
            match link.send(reply) {
                // The guest went away; what it asked is done.
                Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                sent => sent?,
            }
        }
    }
    Ok(())
}

/// Gives the calling thread a umask of 0 and the working directory [`Tree::path`] speaks of, both its own, and takes
/// all capabilities but those over files.
fn prepare(tree: &Tree) -> io::Result<()> {
    silo_sys::mount::unshare(libc::CLONE_FS)?;
    rustix::process::umask(Mode::empty());
    rustix::process::fchdir(&tree.descriptors)?;
    silo_sys::identity::keep_capabilities()?;
    silo_sys::identity::keep_only(CAPABILITIES)
}
