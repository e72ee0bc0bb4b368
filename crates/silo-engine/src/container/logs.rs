//! `logs`: reads json-file logs, filters, frames them for the client, and follows.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::ByteStream;
use crate::engine::{Engine, Entry, log_path};
use crate::error::{EngineError, Result};

/// Output is sent in pieces of about this size.
const PIECE: usize = 128 << 10;
/// Step of reading backwards for `--tail`.
const BACK: u64 = 64 << 10;

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
            let reading = Reader { framed: !tty && !options.raw, options, out: Vec::new(), to: to.clone() };
            if let Err(e) = read_all(reading, path, kept, &entry).await {
                let _ = to.send(Err(e)).await;
            }
        });
        Ok(LogStream { tty, bytes })
    }
}

/// Turns log entries into what the client gets.
struct Reader {
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

async fn read_all(mut reader: Reader, path: PathBuf, kept: u32, entry: &Entry) -> io::Result<()> {
    let follow = reader.options.follow;
    // Watched before the first reading, so that nothing is missed in between.
    let watch = if follow { Some(Watch::new(&path)?) } else { None };
    let mut changed = entry.changed.subscribe();
    let for_files = path.clone();
    let (mut reader, mut position) = tokio::task::spawn_blocking(move || -> io::Result<_> {
        let position = reader.existing(&for_files, kept)?;
        Ok((reader, position))
    })
    .await
    .map_err(io::Error::other)??;
    let Some(watch) = watch else { return Ok(()) };
    loop {
        // Looked at before reading: what is written until then is read.
        let over = !entry.status().is_running() && entry.status() != crate::record::Status::Restarting
            || changed.borrow_and_update().removed;
        let file = path.clone();
        let flow;
        (reader, position, flow) = tokio::task::spawn_blocking(move || -> io::Result<_> {
            let (position, flow) = reader.more(&file, position)?;
            Ok((reader, position, flow))
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
    /// Everything that is there; returns the position in the newest file.
    fn existing(&mut self, path: &Path, kept: u32) -> io::Result<u64> {
        let mut files: Vec<PathBuf> =
            (1..kept).rev().map(|n| numbered(path, n)).filter(|p| p.exists()).collect();
        files.push(path.to_owned());
        let mut start = 0;
        if let Some(tail) = self.options.tail {
            let mut wanted = tail;
            let mut first = files.len();
            while first > 0 && wanted > 0 {
                first -= 1;
                let (offset, found) = last_lines(&files[first], wanted)?;
                start = offset;
                wanted -= found;
            }
            if tail == 0 {
                return Ok(std::fs::metadata(path).map_or(0, |m| m.len()));
            }
            files.drain(..first);
        }
        let mut position = 0;
        for file in files {
            let flow;
            (position, flow) = self.from(&file, start)?;
            start = 0;
            if flow == Flow::Stop {
                break;
            }
        }
        Ok(position)
    }

    /// What was added since; a file shorter than the position was rotated.
    fn more(&mut self, path: &Path, position: u64) -> io::Result<(u64, Flow)> {
        let length = std::fs::metadata(path).map_or(0, |m| m.len());
        if length < position {
            let mut flow = Flow::Continue;
            let old = numbered(path, 1);
            if std::fs::metadata(&old).is_ok_and(|m| m.len() > position) {
                flow = self.from(&old, position)?.1;
            }
            if flow == Flow::Stop {
                return Ok((position, flow));
            }
            return self.from(path, 0);
        }
        self.from(path, position)
    }

    fn from(&mut self, path: &Path, position: u64) -> io::Result<(u64, Flow)> {
        let mut file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((position, Flow::Continue)),
            other => other?,
        };
        file.seek(SeekFrom::Start(position))?;
        let mut lines = BufReader::with_capacity(PIECE, file);
        let mut line = Vec::new();
        let mut at = position;
        loop {
            line.clear();
            let n = lines.read_until(b'\n', &mut line)?;
            if n == 0 || line.last() != Some(&b'\n') {
                // An entry that is still being written is read the next time.
                break;
            }
            at += n as u64;
            if self.line(&line)? == Flow::Stop {
                self.send()?;
                return Ok((at, Flow::Stop));
            }
        }
        let flow = self.send()?;
        Ok((at, flow))
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

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Where the last `wanted` lines of a file begin, and how many there are.
fn last_lines(path: &Path, wanted: u64) -> io::Result<(u64, u64)> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        other => other?,
    };
    let mut end = file.metadata()?.len();
    let mut found = 0;
    let mut buffer = vec![0u8; BACK as usize];
    let length = end;
    while end > 0 {
        let start = end.saturating_sub(BACK);
        let piece = &mut buffer[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        for (i, byte) in piece.iter().enumerate().rev() {
            let at = start + i as u64;
            if *byte == b'\n' && at + 1 < length {
                found += 1;
                if found == wanted {
                    return Ok((at + 1, found));
                }
            }
        }
        end = start;
    }
    Ok((0, if length > 0 { found + 1 } else { 0 }))
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

    #[test]
    fn the_last_lines_are_found_from_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text: String = (0..20_000).map(|i| format!("line {i:06}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        let (offset, found) = last_lines(&path, 3).unwrap();
        assert_eq!(&text[offset as usize..], "line 019997\nline 019998\nline 019999\n");
        assert_eq!(found, 3);
        assert_eq!(last_lines(&path, 30_000).unwrap(), (0, 20_000));
        std::fs::write(&path, "").unwrap();
        assert_eq!(last_lines(&path, 3).unwrap(), (0, 0));
    }
}
