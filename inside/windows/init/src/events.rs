//! Linux signals to Windows console events, and what follows when nobody listens.
//!
//! SIGTERM (`docker stop`) is a close event, as when a console window is closed; five seconds later, which is the
//! time Windows gives, a shutdown event. The last step, killing, is the supervisor's, who knows the stop timeout.

use std::time::{Duration, Instant};

use crate::request;

/// Windows' time for a program to handle a close event.
const GRACE: Duration = Duration::from_secs(5);

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
    deadline: Option<Instant>,
}

impl Events {
    /// For the program of request `number`, whose launcher has the process id `launcher`.
    pub(crate) fn new(number: u32, launcher: i32) -> Events {
        Events { number, launcher, deadline: None }
    }

    /// When [`Events::escalate`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Passes a signal on.
    pub(crate) fn forward(&mut self, signal: i32) {
        let Some(event) = event_of(signal) else { return };
        self.send(event);
        if event == Event::Close && self.deadline.is_none() {
            self.deadline = Some(Instant::now() + GRACE);
        }
    }

    /// The program did not end after a close event.
    pub(crate) fn escalate(&mut self) {
        self.deadline = None;
        self.send(Event::Shutdown);
    }

    fn send(&self, event: Event) {
        let digit = [b'0' + event as u8];
        match request::write_whole(self.number, "event", &digit) {
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
