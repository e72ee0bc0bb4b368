//! Readiness of descriptors: a thin layer over epoll that knows what each one is for.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use super::log::Stream;

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Signals,
    Listener,
    Machine,
    Prepared,
    Connection(u64),
    Output(u32, StreamKey),
    Stdin(u32),
    Client(u32, u64),
}

/// A [`Stream`] that can be part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum StreamKey {
    Out,
    Err,
}

impl From<StreamKey> for Stream {
    fn from(key: StreamKey) -> Self {
        match key {
            StreamKey::Out => Stream::Stdout,
            StreamKey::Err => Stream::Stderr,
        }
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) target: Target,
    pub(super) read: bool,
    pub(super) write: bool,
    /// The other side is gone altogether.
    pub(super) hangup: bool,
}

/// The set of watched descriptors.
#[derive(Debug)]
pub(super) struct Reactor {
    epoll: OwnedFd,
    tokens: HashMap<u64, Target>,
    by_target: HashMap<Target, (u64, Interest)>,
    next: u64,
}

impl Reactor {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, tokens: HashMap::new(), by_target: HashMap::new(), next: 1 })
    }

    /// Watches, or changes what is waited for.
    pub(super) fn watch(&mut self, target: Target, fd: impl AsFd, interest: Interest) -> io::Result<()> {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, interest.read);
        flags.set(epoll::EventFlags::OUT, interest.write);
        match self.by_target.get_mut(&target) {
            Some((_, now)) if *now == interest => Ok(()),
            Some((token, now)) => {
                *now = interest;
                Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(*token), flags)?)
            }
            None => {
                let token = self.next;
                self.next += 1;
                epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?;
                self.tokens.insert(token, target);
                self.by_target.insert(target, (token, interest));
                Ok(())
            }
        }
    }

    /// Stops watching; to be called before the descriptor is closed, since copies of it may live on elsewhere.
    pub(super) fn forget(&mut self, target: Target, fd: impl AsFd) {
        if let Some((token, _)) = self.by_target.remove(&target) {
            self.tokens.remove(&token);
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    /// Waits for events; `None`: without limit.
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> io::Result<Vec<Ready>> {
        let mut buffer = Vec::with_capacity(64);
        let limit =
            limit.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: i64::from(l.subsec_nanos()) });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut buffer), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = buffer.iter().filter_map(|event: &epoll::Event| {
            let flags = event.flags;
            let target = *self.tokens.get(&event.data.u64())?;
            Some(Ready {
                target,
                read: flags.contains(epoll::EventFlags::IN),
                write: flags.contains(epoll::EventFlags::OUT),
                hangup: flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR),
            })
        });
        Ok(ready.collect())
    }
}
