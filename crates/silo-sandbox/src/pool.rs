//! The pool: which spares there are to be, of which kind, how many and for how long.
//!
//! A spare is a sandbox that was made ready before anybody asked for it; it becomes one container's and is never used again.
//! Kinds are told apart by a key. A start that asks for a kind makes it wanted; it stays so for a while after the last one.
//! The most recently wanted kind has its spares first, within bounds of number and bytes. Who makes and ends spares is told
//! what is to be done ([`Pool::next`]); nothing here does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Bounds of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Spares of one kind.
    pub each: usize,
    /// Spares in all.
    pub all: usize,
    /// Bytes of memory that they may take in all: beyond, none is made.
    pub bytes: u64,
    /// How long a kind is kept ready after it was asked for last.
    pub kept: Duration,
}

impl Bounds {
    /// Bounds of a pool of at most so many spares.
    pub fn of(all: usize) -> Self {
        Self { each: all.min(2), all, bytes: 512 << 20, kept: Duration::from_secs(600) }
    }
}

/// Spares that are made at once, of different kinds: one that takes its time, or hangs, keeps no other kind waiting, and on
/// few processors more would only be slower.
const AT_ONCE: usize = 2;
/// First pause after a spare that could not be made; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A spare that dies sooner than this after it was made is likely to do so again: the next one is made later.
const SHORT_LIFE: Duration = Duration::from_secs(10);
const AFTER_SHORT_LIFE: Duration = Duration::from_secs(30);
/// How long no spare is made after memory was short.
const AFTER_PRESSURE: Duration = Duration::from_secs(60);

/// A spare that waits.
#[derive(Debug)]
struct Ready<T> {
    id: String,
    since: Instant,
    bytes: u64,
    pid: i32,
    spare: T,
}

#[derive(Debug)]
struct Kind<R, T> {
    recipe: R,
    used: Instant,
    ready: Vec<Ready<T>>,
    making: usize,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct State<R, T> {
    kinds: HashMap<String, Kind<R, T>>,
    not_before: Option<Instant>,
}

/// A pool of spares `T` that are made after recipes `R`.
#[derive(Debug)]
pub struct Pool<R, T> {
    bounds: Bounds,
    state: Mutex<State<R, T>>,
    changed: watch::Sender<usize>,
}

/// What is to be done now.
#[derive(Debug)]
pub struct Work<R, T> {
    /// Are not wanted any more.
    pub end: Vec<T>,
    /// Is to be made: its key and recipe; [`Pool::made`] or [`Pool::failed`] follows.
    pub make: Option<(String, R)>,
    /// When to ask again, if nothing happens before.
    pub again: Option<Instant>,
}

/// A spare as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its kind.
    pub key: String,
    /// Its name.
    pub id: String,
    /// Of its shim.
    pub pid: i32,
    /// Memory, when it was made.
    pub bytes: u64,
}

impl<R: Clone, T> Pool<R, T> {
    /// An empty pool.
    pub fn new(bounds: Bounds) -> Self {
        let state = State { kinds: HashMap::new(), not_before: None };
        Self { bounds, state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    /// Its bounds.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    fn state(&self) -> MutexGuard<'_, State<R, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the number of spares that are ready.
    pub fn changes(&self) -> watch::Receiver<usize> {
        self.changed.subscribe()
    }

    fn tell(&self, state: &State<R, T>) {
        let count = state.kinds.values().map(|k| k.ready.len()).sum();
        self.changed.send_replace(count);
    }

    /// A kind is wanted from now on, and made by this recipe.
    pub fn want(&self, key: &str, recipe: R, now: Instant) {
        let mut state = self.state();
        let kind = state.kinds.entry(key.to_owned()).or_insert_with(|| Kind {
            recipe: recipe.clone(),
            used: now,
            ready: Vec::new(),
            making: 0,
            failures: 0,
            not_before: None,
        });
        (kind.recipe, kind.used) = (recipe, now);
    }

    /// A spare of this kind, if one is ready.
    pub fn take(&self, key: &str) -> Option<T> {
        let mut state = self.state();
        let kind = state.kinds.get_mut(key).filter(|k| !k.ready.is_empty())?;
        let taken = kind.ready.remove(0).spare;
        self.tell(&state);
        Some(taken)
    }

    /// What is to be done.
    pub fn next(&self, now: Instant) -> Work<R, T> {
        let Bounds { each, all, bytes, kept } = self.bounds;
        let mut state = self.state();
        let mut end = Vec::new();
        state.kinds.retain(|_, kind| {
            let wanted = now.saturating_duration_since(kind.used) < kept;
            if !wanted {
                end.extend(kind.ready.drain(..).map(|r| r.spare));
            }
            wanted || kind.making > 0
        });
        let closed = state.not_before.filter(|at| *at > now);
        // One that is kept only for what is being made of it is looked at again when that has come.
        let expiries = state.kinds.values().map(|k| k.used + kept).filter(|at| *at > now);
        let mut again = expiries.chain(closed).min();
        let mut used: u64 = state.kinds.values().flat_map(|k| &k.ready).map(|r| r.bytes).sum();
        let mut order: Vec<(&String, &mut Kind<R, T>)> = state.kinds.iter_mut().collect();
        order.sort_by_key(|(_, k)| std::cmp::Reverse(k.used));
        let (mut left, mut make) = (all, None);
        let busy = order.iter().map(|(_, k)| k.making).sum::<usize>() >= AT_ONCE;
        for (key, kind) in order {
            let share = each.min(left);
            while kind.ready.len() + kind.making > share {
                let Some(over) = kind.ready.pop() else { break };
                used = used.saturating_sub(over.bytes);
                end.push(over.spare);
            }
            left = left.saturating_sub(share);
            let lacks = kind.ready.len() < share && kind.making == 0 && used < bytes && !busy;
            match kind.not_before.filter(|at| *at > now) {
                _ if !lacks || make.is_some() || closed.is_some() => {}
                Some(at) => again = Some(again.map_or(at, |a| a.min(at))),
                None => {
                    kind.making += 1;
                    make = Some((key.clone(), kind.recipe.clone()));
                }
            }
        }
        self.tell(&state);
        Work { end, make, again }
    }

    /// A spare is ready. Given back: it is not wanted any more.
    pub fn made(&self, key: &str, shown: Shown, spare: T, now: Instant) -> Option<T> {
        let Shown { id, pid, bytes, .. } = shown;
        let mut state = self.state();
        let Some(kind) = state.kinds.get_mut(key) else { return Some(spare) };
        kind.making = kind.making.saturating_sub(1);
        (kind.failures, kind.not_before) = (0, None);
        kind.ready.push(Ready { id, since: now, bytes, pid, spare });
        self.tell(&state);
        None
    }

    /// A spare could not be made.
    pub fn failed(&self, key: &str, now: Instant) {
        let mut state = self.state();
        if let Some(kind) = state.kinds.get_mut(key) {
            kind.making = kind.making.saturating_sub(1);
            let pause = FIRST_PAUSE.saturating_mul(1 << kind.failures.min(16)).min(LONGEST_PAUSE);
            kind.failures += 1;
            kind.not_before = Some(now + pause);
        }
    }

    /// A spare has died while it waited; one that had not waited long counts as one that could not be made.
    pub fn lost(&self, id: &str, now: Instant) -> Option<T> {
        let mut state = self.state();
        let found = state.kinds.values_mut().find_map(|kind| {
            let at = kind.ready.iter().position(|r| r.id == id)?;
            let lost = kind.ready.remove(at);
            if now.saturating_duration_since(lost.since) < SHORT_LIFE {
                kind.not_before = Some(now + AFTER_SHORT_LIFE);
            }
            Some(lost.spare)
        });
        self.tell(&state);
        found
    }

    /// Memory is short: all are to be ended, and none is made for a while.
    pub fn shrink(&self, now: Instant) -> Vec<T> {
        let mut state = self.state();
        state.not_before = Some(now + AFTER_PRESSURE);
        let all = state.kinds.values_mut().flat_map(|k| k.ready.drain(..)).map(|r| r.spare).collect();
        self.tell(&state);
        all
    }

    /// Kinds whose recipe is like that are not wanted any more.
    pub fn forget(&self, like: impl Fn(&R) -> bool) -> Vec<T> {
        let mut state = self.state();
        let gone = state.kinds.extract_if(|_, kind| like(&kind.recipe));
        let all = gone.flat_map(|(_, k)| k.ready).map(|r| r.spare).collect();
        self.tell(&state);
        all
    }

    /// The spares that wait, and how many are being made.
    pub fn show(&self) -> (Vec<Shown>, usize) {
        let state = self.state();
        let shown = state.kinds.iter().flat_map(|(key, kind)| {
            kind.ready.iter().map(|r| Shown {
                key: key.clone(),
                id: r.id.clone(),
                pid: r.pid,
                bytes: r.bytes,
            })
        });
        (shown.collect(), state.kinds.values().map(|k| k.making).sum())
    }
}

/// Bytes of memory of a process and all below it, what is shared divided among those that share it (PSS). Blocking.
pub fn memory_of(pid: i32) -> u64 {
    /// No sandbox has more processes before it is somebody's.
    const MOST: usize = 256;
    let (mut total, mut open) = (0, vec![pid]);
    for _ in 0..MOST {
        let Some(pid) = open.pop() else { break };
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kib =
            rollup.lines().find_map(|l| l.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok());
        total += kib.unwrap_or(0u64) << 10;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        open.extend(children.unwrap_or_default().split_whitespace().filter_map(|p| p.parse::<i32>().ok()));
    }
    total
}

/// What is left of all memory where spares take too much of it: an eighth.
pub const SHORT: u64 = 8;
/// The same where programs wait for memory, which they do at their own limits too: a quarter.
pub const WAITED_FOR: u64 = 4;

/// Whether less than so much of all memory is available: [`SHORT`] or [`WAITED_FOR`].
pub fn memory_is_short(part: u64) -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| -> Option<u64> {
        text.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    matches!((kib("MemTotal:"), kib("MemAvailable:")), (Some(total), Some(left)) if left < total / part)
}

/// Has `tell` called, from a thread of its own, whenever programs have waited for memory 300 of 2000 milliseconds
/// (Linux, Documentation/accounting/psi.rst). `tell` is dropped when nothing more will be told.
///
/// # Errors
/// The kernel does not tell.
pub fn on_memory_pressure(tell: impl Fn() + Send + 'static) -> std::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open("/proc/pressure/memory", flags, Mode::empty())?;
    rustix::io::write(&fd, b"some 300000 2000000\0")?;
    let watch = move || {
        loop {
            let mut polled = [PollFd::new(&fd, PollFlags::PRI)];
            match poll(&mut polled, None) {
                Ok(_) if polled[0].revents().contains(PollFlags::PRI) => tell(),
                Err(rustix::io::Errno::INTR) => {}
                // The file is gone: nothing more is told.
                _ => return,
            }
        }
    };
    std::thread::Builder::new().name("pressure".into()).stack_size(16 << 10).spawn(watch).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(100);

    fn pool(each: usize, all: usize) -> Pool<(), u32> {
        Pool::new(Bounds { each, all, bytes: 1000, kept: KEPT })
    }

    /// Makes what is wanted, until nothing is; what was ended.
    fn fill(pool: &Pool<(), u32>, now: Instant, bytes: u64) -> Vec<u32> {
        let mut ended = Vec::new();
        loop {
            let work = pool.next(now);
            ended.extend(work.end);
            let Some((key, ())) = work.make else { return ended };
            let number = pool.show().0.len() as u32;
            assert!(pool.made(&key, shown(&key, number, bytes), number, now).is_none());
        }
    }

    fn shown(key: &str, number: u32, bytes: u64) -> Shown {
        Shown { key: key.to_owned(), id: format!("{key}{number}"), pid: 0, bytes }
    }

    fn keys(pool: &Pool<(), u32>) -> Vec<String> {
        let mut keys: Vec<_> = pool.show().0.into_iter().map(|s| s.key).collect();
        keys.sort();
        keys
    }

    #[test]
    fn a_kind_is_kept_ready_once_it_was_asked_for_and_forgotten_when_nobody_does() {
        let pool = pool(2, 4);
        let now = Instant::now();
        assert!(pool.next(now).make.is_none());
        assert_eq!(pool.take("a"), None);
        pool.want("a", (), now);
        assert!(fill(&pool, now, 1).is_empty());
        assert_eq!(keys(&pool), ["a", "a"]);
        assert_eq!(pool.take("a"), Some(0));
        fill(&pool, now, 1);
        assert_eq!(pool.next(now).again, Some(now + KEPT));
        let later = now + KEPT;
        assert_eq!(fill(&pool, later, 1).len(), 2);
        assert!(pool.show().0.is_empty() && pool.next(later).again.is_none());
    }

    #[test]
    fn the_kind_that_was_asked_for_last_has_its_spares_first() {
        let pool = pool(2, 3);
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        pool.want("a", (), now);
        fill(&pool, now, 1);
        pool.want("b", (), at(1));
        // Two of a are there, one too many.
        assert_eq!(fill(&pool, at(1), 1).len(), 1);
        assert_eq!(keys(&pool), ["a", "b", "b"]);
    }

    #[test]
    fn bytes_are_a_bound_too() {
        let pool = pool(2, 4);
        let now = Instant::now();
        pool.want("a", (), now);
        fill(&pool, now, 1000);
        assert_eq!(keys(&pool), ["a"]);
    }

    #[test]
    fn one_that_cannot_be_made_is_tried_again_later_and_later() {
        let pool = pool(1, 1);
        let mut now = Instant::now();
        pool.want("a", (), now);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            assert!(pool.next(now).make.is_some());
            assert!(pool.next(now).make.is_none(), "one is under way");
            pool.failed("a", now);
            let again = pool.next(now).again.unwrap();
            pauses.push((again - now).as_secs());
            now = again;
        }
        assert_eq!(pauses, [1, 2, 4, 8]);
        // One that dies is replaced.
        fill(&pool, now, 1);
        assert_eq!(pool.lost("a0", now + SHORT_LIFE), Some(0));
        assert_eq!(pool.lost("a0", now), None);
        fill(&pool, now, 1);
        assert_eq!(keys(&pool), ["a"]);
    }

    #[test]
    fn one_that_hangs_keeps_no_other_kind_waiting() {
        let pool = pool(2, 6);
        let now = Instant::now();
        let made = |key: &str| pool.made(key, shown(key, 1, 1), 1, now);
        for (later, key) in ["c", "b", "a"].into_iter().enumerate() {
            pool.want(key, (), now + Duration::from_millis(later as u64));
        }
        let now = now + Duration::from_secs(1);
        let next = || pool.next(now).make.map(|(key, ())| key);
        // Of each one, two at once; a never comes to its end.
        assert_eq!((next().as_deref(), next().as_deref(), next()), (Some("a"), Some("b"), None));
        for (done, then) in [("b", Some("b")), ("b", Some("c")), ("c", Some("c")), ("c", None)] {
            assert_eq!(made(done), None);
            assert_eq!(next().as_deref(), then, "after one of {done}");
        }
        assert_eq!(keys(&pool), ["b", "b", "c", "c"]);
    }

    #[test]
    fn kinds_are_forgotten_by_what_they_are_made_of() {
        let pool: Pool<&str, u32> = Pool::new(Bounds { each: 1, all: 2, bytes: 1000, kept: KEPT });
        let now = Instant::now();
        for (key, number) in [("a", 1), ("b", 2)] {
            pool.want(key, key, now);
            assert!(pool.next(now).make.is_some_and(|(made, _)| made == key));
            assert_eq!(pool.made(key, shown(key, number, 1), number, now), None);
        }
        assert_eq!(pool.forget(|made_of| *made_of == "a"), [1]);
        // What comes to its end later is given back.
        assert_eq!(pool.made("a", shown("a", 3, 1), 3, now), Some(3));
        assert_eq!((pool.take("a"), pool.take("b")), (None, Some(2)));
    }

    #[test]
    fn none_is_made_while_memory_is_short_and_none_without_a_pool() {
        let full = pool(1, 1);
        let now = Instant::now();
        full.want("a", (), now);
        fill(&full, now, 1);
        assert_eq!(full.shrink(now).len(), 1);
        assert!(full.next(now).make.is_none());
        assert!(full.next(now + AFTER_PRESSURE).make.is_some());
        let none = pool(0, 0);
        none.want("a", (), now);
        assert_eq!(none.take("a"), None);
        assert!(none.next(now).make.is_none());
    }
}
