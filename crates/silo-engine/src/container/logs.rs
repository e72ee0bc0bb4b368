//! `logs`: reads json-file logs, filters, frames them for the client, and follows.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::log_files::{self, LogFile};
use crate::ByteStream;
use crate::engine::{Engine, Entry, log_path};
use crate::error::{EngineError, Result};

/// Output is sent in pieces of about this size.
const PIECE: usize = 128 << 10;

/// What of the log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container stops.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// The time before each line.
    pub timestamps: bool,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// Without frames although there is no terminal.
    pub raw: bool,
    /// The last so many lines.
    pub tail: Option<u64>,
}

/// A log on its way.
#[derive(Debug)]
pub struct LogStream {
    /// Without frames, since the container has a terminal.
    pub tty: bool,
    /// As the client gets it.
    pub bytes: ByteStream,
}

impl Engine {
    /// Reads a container's log.
    pub async fn logs(&self, name: &str, options: LogOptions) -> Result<LogStream> {
        let entry = self.find(name)?;
        if !options.stdout && !options.stderr {
            return Err(EngineError::invalid("Bad parameters: you must choose at least one stream"));
        }
        let record = entry.record();
        if record.spec.log.driver == "none" {
            return Err(EngineError::unsupported("configured logging driver does not support reading"));
        }
        if let Some(sandbox) = entry.sandbox() {
            let _ = sandbox.flush_log().await;
        }
        let tty = record.spec.config.tty;
        let path = log_path(&self.dir(&entry.id));
        let kept = record.spec.log.max_files.max(1);
        let (to, bytes) = mpsc::channel(8);
        tokio::spawn(async move {
            let framed = !tty && !options.raw;
            let reading = Reader { path, kept, framed, options, out: Vec::new(), to: to.clone() };
            if let Err(e) = read_all(reading, &entry).await {
                let _ = to.send(Err(e)).await;
            }
        });
        Ok(LogStream { tty, bytes })
    }
}

/// Turns log entries into what the client gets.
struct Reader {
    path: PathBuf,
    /// Files that rotation leaves, the newest among them.
    kept: u32,
    options: LogOptions,
    framed: bool,
    out: Vec<u8>,
    to: mpsc::Sender<io::Result<Bytes>>,
}

/// Whether there is more to read.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

async fn read_all(mut reader: Reader, entry: &Entry) -> io::Result<()> {
    let follow = reader.options.follow;
    // Watched before the first reading, so that nothing is missed in between.
    let watch = if follow { Some(Watch::new(&reader.path)?) } else { None };
    let mut changed = entry.changed.subscribe();
    let (mut reader, mut last) = tokio::task::spawn_blocking(move || -> io::Result<_> {
        let last = reader.existing()?;
        Ok((reader, last))
    })
    .await
    .map_err(io::Error::other)??;
    let Some(watch) = watch else { return Ok(()) };
    loop {
        // Looked at before reading: what is written until then is read.
        let over = !entry.status().is_running() && entry.status() != crate::record::Status::Restarting
            || changed.borrow_and_update().removed;
        let flow;
        (reader, last, flow) = tokio::task::spawn_blocking(move || -> io::Result<_> {
            let flow = reader.more(&mut last)?;
            Ok((reader, last, flow))
        })
        .await
        .map_err(io::Error::other)??;
        if over || flow == Flow::Stop || reader.to.is_closed() {
            return Ok(());
        }
        let until = reader.options.until;
        let end = async {
            match until {
                Some(until) => {
                    tokio::time::sleep(until.duration_since(Timestamp::now()).try_into().unwrap_or_default())
                        .await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = watch.wait() => result?,
            _ = changed.changed() => {}
            () = reader.to.closed() => return Ok(()),
            () = end => return Ok(()),
        }
    }
}

impl Reader {
    /// Everything that is there; returns the newest file as far as it was read.
    fn existing(&mut self) -> io::Result<Option<LogFile>> {
        let mut files = log_files::after(&self.path, self.kept, None)?;
        if let Some(mut wanted) = self.options.tail {
            for file in files.iter_mut().rev() {
                let (offset, found) =
                    if wanted == 0 { (file.length()?, 0) } else { file.last_lines(wanted)? };
                file.at = offset;
                wanted -= found;
            }
        }
        for file in &mut files {
            if self.read(file)? == Flow::Stop {
                break;
            }
        }
        Ok(files.pop())
    }

    /// What was added since `last` was read, there and in the files that rotation has begun meanwhile.
    fn more(&mut self, last: &mut Option<LogFile>) -> io::Result<Flow> {
        // Looked for first: once there is a newer file, nothing is added to `last`.
        let newer = log_files::after(&self.path, self.kept, last.as_ref())?;
        if let Some(file) = last
            && self.read(file)? == Flow::Stop
        {
            return Ok(Flow::Stop);
        }
        for mut file in newer {
            let flow = self.read(&mut file)?;
            *last = Some(file);
            if flow == Flow::Stop {
                return Ok(flow);
            }
        }
        Ok(Flow::Continue)
    }

    /// The rest of a file.
    fn read(&mut self, file: &mut LogFile) -> io::Result<Flow> {
        let mut lines = BufReader::with_capacity(PIECE, file.rest()?);
        let mut line = Vec::new();
        let mut read = 0;
        let mut flow = Flow::Continue;
        while flow == Flow::Continue {
            line.clear();
            let n = lines.read_until(b'\n', &mut line)?;
            if n == 0 || line.last() != Some(&b'\n') {
                // An entry that is still being written is read the next time.
                break;
            }
            read += n as u64;
            flow = self.line(&line)?;
        }
        file.at += read;
        if self.send()? == Flow::Stop { Ok(Flow::Stop) } else { Ok(flow) }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<Flow> {
        let Some(entry) = parse(line) else { return Ok(Flow::Continue) };
        if (entry.stderr && !self.options.stderr) || (!entry.stderr && !self.options.stdout) {
            return Ok(Flow::Continue);
        }
        if self.options.since.is_some() || self.options.until.is_some() {
            let time: Option<Timestamp> = entry.time.parse().ok();
            if time.zip(self.options.since).is_some_and(|(t, s)| t < s) {
                return Ok(Flow::Continue);
            }
            if time.zip(self.options.until).is_some_and(|(t, u)| t > u) {
                return Ok(Flow::Stop);
            }
        }
        let start = self.out.len();
        if self.framed {
            self.out.extend_from_slice(&[if entry.stderr { 2 } else { 1 }, 0, 0, 0, 0, 0, 0, 0]);
        }
        let text = self.out.len();
        if self.options.timestamps {
            self.out.extend_from_slice(entry.time.as_bytes());
            self.out.push(b' ');
        }
        unescape(entry.text, &mut self.out);
        if self.framed {
            let length = ((self.out.len() - text) as u32).to_be_bytes();
            self.out[start + 4..start + 8].copy_from_slice(&length);
        }
        if self.out.len() >= PIECE { self.send() } else { Ok(Flow::Continue) }
    }

    fn send(&mut self) -> io::Result<Flow> {
        if self.out.is_empty() {
            return Ok(Flow::Continue);
        }
        let piece = Bytes::from(std::mem::take(&mut self.out));
        self.out.reserve(PIECE + PIECE / 4);
        match self.to.blocking_send(Ok(piece)) {
            Ok(()) => Ok(Flow::Continue),
            Err(_) => Ok(Flow::Stop),
        }
    }
}

struct LogEntry<'a> {
    text: &'a [u8],
    stderr: bool,
    time: &'a str,
}

/// Takes an entry apart that `silo-sandbox`'s log writes: `{"log":"…","stream":"stdout","time":"…"}`.
fn parse(line: &[u8]) -> Option<LogEntry<'_>> {
    let rest = line.strip_prefix(b"{\"log\":\"")?;
    let tail = rest.strip_suffix(b"\"}\n")?;
    let (before, time) = split_last(tail, b"\",\"time\":\"")?;
    let (text, stream) = split_last(before, b"\",\"stream\":\"")?;
    Some(LogEntry { text, stderr: stream == b"stderr", time: std::str::from_utf8(time).ok()? })
}

fn split_last<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).rposition(|w| w == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

/// The inside of a JSON string as bytes.
fn unescape(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = text.iter().position(|b| *b == b'\\') {
        out.extend_from_slice(&text[..at]);
        let mut used = 2;
        match text.get(at + 1) {
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'u') => {
                let code = text
                    .get(at + 2..at + 6)
                    .and_then(|h| std::str::from_utf8(h).ok())
                    .and_then(|h| u32::from_str_radix(h, 16).ok())
                    .and_then(char::from_u32)
                    .unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
                used = 6;
            }
            Some(other) => out.push(*other),
            None => {}
        }
        text = text.get(at + used..).unwrap_or(&[]);
    }
    out.extend_from_slice(text);
}

/// Wakes when something happens to a file in its directory.
struct Watch {
    fd: AsyncFd<std::os::fd::OwnedFd>,
}

impl Watch {
    fn new(path: &Path) -> io::Result<Self> {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        add_watch(
            &fd,
            dir,
            WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF,
        )?;
        // SAFETY: an `OwnedFd` closes its descriptor on drop only, and it is not replaced while it is registered.
        Ok(Self { fd: unsafe { AsyncFd::register(fd) }.map_err(|e| io::Error::other(e.to_string()))? })
    }

    async fn wait(&self) -> io::Result<()> {
        let mut ready = self.fd.readable().await?;
        let mut buffer = [0u8; 4096];
        while matches!(rustix::io::read(&self.fd, &mut buffer), Ok(n) if n > 0) {}
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_apart() {
        let line =
            b"{\"log\":\"a\\\",\\\"stream\\\":\\\"x\\u001b\\n\",\"stream\":\"stderr\",\"time\":\"T\"}\n";
        let entry = parse(line).unwrap();
        let mut text = Vec::new();
        unescape(entry.text, &mut text);
        assert_eq!(text, b"a\",\"stream\":\"x\x1b\n");
        assert!(entry.stderr);
        assert_eq!(entry.time, "T");
        assert!(parse(b"garbage\n").is_none());
    }

    fn entry(text: &str) -> String {
        format!("{{\"log\":\"{text}\",\"stream\":\"stdout\",\"time\":\"T\"}}\n")
    }

    fn reader(path: &Path) -> (Reader, impl FnMut() -> String + use<>) {
        let (to, mut bytes) = mpsc::channel(64);
        let options = LogOptions { stdout: true, ..Default::default() };
        let reader = Reader { path: path.to_owned(), kept: 2, framed: false, options, out: Vec::new(), to };
        let told = move || {
            let pieces = std::iter::from_fn(|| bytes.try_recv().ok());
            pieces.map(|p: io::Result<Bytes>| String::from_utf8(p.unwrap().into()).unwrap()).collect()
        };
        (reader, told)
    }

    #[test]
    fn a_rotation_is_seen_though_the_new_file_is_longer_than_the_old_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, entry("a")).unwrap();
        let (mut reader, mut told) = reader(&path);
        let mut last = reader.existing().unwrap();
        assert_eq!(told(), "a");
        // What came before the rotation, and more after it than had been read.
        std::fs::write(&path, entry("a") + &entry("b")).unwrap();
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        std::fs::write(&path, entry("c") + &entry("d") + &entry("e")).unwrap();
        assert!(reader.more(&mut last).unwrap() == Flow::Continue);
        assert_eq!(told(), "bcde");
        // Emptied in place.
        std::fs::write(&path, entry("f")).unwrap();
        assert!(reader.more(&mut last).unwrap() == Flow::Continue);
        assert_eq!(told(), "f");
    }

    #[test]
    fn a_tail_reaches_back_over_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(dir.path().join("log.1"), entry("a") + &entry("b")).unwrap();
        std::fs::write(&path, entry("c")).unwrap();
        for (tail, wanted) in [(0, ""), (1, "c"), (2, "bc"), (9, "abc")] {
            let (mut reader, mut told) = reader(&path);
            reader.options.tail = Some(tail);
            let mut last = reader.existing().unwrap();
            assert!(reader.more(&mut last).unwrap() == Flow::Continue);
            assert_eq!(told(), wanted, "{tail}");
        }
    }
}
