//! Linux signals to Windows console events, and what follows when nobody listens.
//!
//! SIGTERM (`docker stop`) is a close event, as when a console window is closed; five seconds later, which is the
//! time Windows gives, a shutdown event. The last step, killing, is the supervisor's, who knows the stop timeout. (A
//! program that is still in its handler of the first event does not hear the second: kernelbase calls handlers one at a
//! time, under a lock of the program's own.)
//!
//! SIGWINCH is the terminal's new size.

use std::time::{Duration, Instant};

use crate::{request, terminal};

/// Windows' time for a program to handle a close event.
const GRACE: Duration = Duration::from_secs(5);
/// Between looks whether the launcher listens yet. It is started with the size that there is; only a change in its first
/// moments waits.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    CtrlC = 0,
    CtrlBreak = 1,
    Close = 2,
    Shutdown = 6,
}

/// The events of one running program.
pub(crate) struct Events {
    number: u32,
    launcher: i32,
    shutdown: Option<Instant>,
    resize: Option<Instant>,
}

impl Events {
    /// For the program of request `number`, whose launcher has the process id `launcher`.
    pub(crate) fn new(number: u32, launcher: i32) -> Events {
        Events { number, launcher, shutdown: None, resize: None }
    }

    /// When [`Events::due`] is to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.shutdown.into_iter().chain(self.resize).min()
    }

    /// Passes a signal on.
    pub(crate) fn forward(&mut self, signal: i32) {
        if signal == libc::SIGWINCH {
            self.resize = Some(Instant::now());
            return;
        }
        let Some(event) = event_of(signal) else { return };
        self.send(event);
        if event == Event::Close && self.shutdown.is_none() {
            self.shutdown = Some(Instant::now() + GRACE);
        }
    }

    /// The deadline has passed.
    pub(crate) fn due(&mut self) {
        let now = Instant::now();
        if self.resize.is_some_and(|due| due <= now) {
            // Before it listens, the signal would end it.
            let listens = !request::file(self.number, "request").exists();
            self.resize = if listens { None } else { Some(now + LOOK) };
            if let (true, Some((columns, rows))) = (listens, terminal::size()) {
                self.tell("size", format!("{columns} {rows}").as_bytes());
            }
        }
        if self.shutdown.is_some_and(|due| due <= now) {
            // The program did not end after a close event.
            self.shutdown = None;
            self.send(Event::Shutdown);
        }
    }

    fn send(&self, event: Event) {
        self.tell("event", &[b'0' + event as u8]);
    }

    fn tell(&self, what: &str, content: &[u8]) {
        match request::write_whole(self.number, what, content) {
            // SAFETY: takes no pointers; the launcher is our child and not reaped while this runs.
            Ok(()) => drop(unsafe { libc::kill(self.launcher, libc::SIGINT) }),
            Err(error) => eprintln!("silo-init: passing on an event: {error}"),
        }
    }
}

fn event_of(signal: i32) -> Option<Event> {
    match signal {
        libc::SIGINT => Some(Event::CtrlC),
        libc::SIGQUIT => Some(Event::CtrlBreak),
        libc::SIGTERM | libc::SIGHUP => Some(Event::Close),
        libc::SIGPWR => Some(Event::Shutdown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_is_a_close_event() {
        assert_eq!(event_of(libc::SIGTERM), Some(Event::Close));
        assert_eq!(event_of(libc::SIGINT), Some(Event::CtrlC));
        assert_eq!(event_of(libc::SIGUSR1), None);
    }
}
