//! Writes a container's output to its log file, as Docker's json-file driver does: one JSON object a line.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::contract::LogFile;

/// Longest piece of a line in one entry (Docker's).
const MAX_PIECE: usize = 16 << 10;
/// Entries are gathered to this size before they are written.
const GATHER: usize = 256 << 10;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout = 1,
    Stderr = 2,
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    config: LogFile,
    file: File,
    size: u64,
    gathered: Vec<u8>,
    /// Begun lines of stdout and stderr.
    partial: [Vec<u8>; 2],
}

impl Log {
    pub(crate) fn open(config: LogFile) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&config.path)?;
        let size = file.metadata()?.len();
        Ok(Self { config, file, size, gathered: Vec::new(), partial: [Vec::new(), Vec::new()] })
    }

    /// Takes output; `time` is RFC 3339 with nanoseconds.
    pub(crate) fn append(&mut self, stream: Stream, mut bytes: &[u8], time: &str) -> io::Result<()> {
        let tail = tail_of(stream, time);
        let index = stream as usize - 1;
        while let Some(end) = memchr_newline(bytes) {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.partial[index].is_empty() {
                self.pieces(line, &tail)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial[index]);
                whole.extend_from_slice(line);
                self.pieces(&whole, &tail)?;
                whole.clear();
                self.partial[index] = whole;
            }
        }
        self.partial[index].extend_from_slice(bytes);
        while self.partial[index].len() >= MAX_PIECE {
            let rest = self.partial[index].split_off(MAX_PIECE);
            let piece = std::mem::replace(&mut self.partial[index], rest);
            self.entry(&piece, &tail)?;
        }
        Ok(())
    }

    /// Writes lines that have no end yet: the stream has ended.
    pub(crate) fn finish(&mut self, time: &str) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.partial[stream as usize - 1]);
            if !rest.is_empty() {
                self.pieces(&rest, &tail_of(stream, time))?;
            }
        }
        self.flush()
    }

    fn pieces(&mut self, line: &[u8], tail: &[u8]) -> io::Result<()> {
        if line.len() <= MAX_PIECE {
            return self.entry(line, tail);
        }
        line.chunks(MAX_PIECE).try_for_each(|piece| self.entry(piece, tail))
    }

    fn entry(&mut self, text: &[u8], tail: &[u8]) -> io::Result<()> {
        self.gathered.extend_from_slice(b"{\"log\":\"");
        escape(text, &mut self.gathered);
        self.gathered.extend_from_slice(tail);
        if self.config.max_size > 0 && self.size + self.gathered.len() as u64 >= self.config.max_size {
            self.flush()?;
            self.rotate()?;
        } else if self.gathered.len() >= GATHER {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands everything to the kernel.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let result = self.file.write_all(&self.gathered);
        self.size += self.gathered.len() as u64;
        self.gathered.clear();
        self.gathered.shrink_to(GATHER);
        result
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| -> PathBuf { numbered(&self.config.path, n) };
        if self.config.max_files <= 1 {
            self.file.set_len(0)?;
        } else {
            for n in (1..self.config.max_files - 1).rev() {
                match rustix::fs::rename(numbered(n), numbered(n + 1)) {
                    Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            rustix::fs::rename(&self.config.path, numbered(1))?;
            self.file = File::options().create(true).append(true).open(&self.config.path)?;
        }
        self.size = 0;
        Ok(())
    }
}

/// The name of a rotated log.
pub(crate) fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn tail_of(stream: Stream, time: &str) -> Vec<u8> {
    let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
    format!("\",\"stream\":\"{name}\",\"time\":\"{time}\"}}\n").into_bytes()
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == b'\n')
}

/// Bytes that stand for themselves in a JSON string.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0x20;
    while i < 0x80 {
        table[i] = i != b'"' as usize && i != b'\\' as usize && i != 0x7f;
        i += 1;
    }
    table
};

/// Appends `text` as the inside of a JSON string; what is not UTF-8 becomes U+FFFD, as in Docker's log.
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest.iter().position(|b| !PLAIN[*b as usize]).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some(&byte) = rest.first() else { break };
        let mut used = 1;
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0..=0x1f | 0x7f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => {
                let window = &rest[..rest.len().min(4)];
                let valid = match std::str::from_utf8(window) {
                    Ok(_) => window.len(),
                    Err(e) => e.valid_up_to(),
                };
                if valid == 0 {
                    out.extend_from_slice("\u{fffd}".as_bytes());
                } else {
                    let first = std::str::from_utf8(&window[..valid]).ok().and_then(|s| s.chars().next());
                    used = first.map_or(1, char::len_utf8);
                    out.extend_from_slice(&rest[..used]);
                }
            }
        }
        rest = &rest[used..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(max_size: u64, max_files: u32) -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::open(LogFile { path, max_size, max_files }).unwrap();
        (dir, log)
    }

    #[test]
    fn lines_and_unfinished_ones() {
        let (dir, mut log) = log(0, 1);
        log.append(Stream::Stdout, b"a\nb", "T1").unwrap();
        log.append(Stream::Stderr, b"e\n", "T2").unwrap();
        log.append(Stream::Stdout, b"c\n\"\xff\xc3\xa4\x1b", "T3").unwrap();
        log.finish("T4").unwrap();
        let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert_eq!(
            text,
            "{\"log\":\"a\\n\",\"stream\":\"stdout\",\"time\":\"T1\"}\n\
             {\"log\":\"e\\n\",\"stream\":\"stderr\",\"time\":\"T2\"}\n\
             {\"log\":\"bc\\n\",\"stream\":\"stdout\",\"time\":\"T3\"}\n\
             {\"log\":\"\\\"\u{fffd}ä\\u001b\",\"stream\":\"stdout\",\"time\":\"T4\"}\n"
        );
    }

    #[test]
    fn long_lines_are_cut_at_16_kib() {
        let (dir, mut log) = log(0, 1);
        log.append(Stream::Stdout, &[b'x'; 40_000], "T").unwrap();
        log.append(Stream::Stdout, b"\n", "T").unwrap();
        log.flush().unwrap();
        let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
        let lengths: Vec<usize> = text.lines().map(|l| l.matches('x').count()).collect();
        assert_eq!(lengths, [16384, 16384, 7232]);
    }

    #[test]
    fn rotation_keeps_the_asked_number_of_files() {
        let (dir, mut log) = log(200, 3);
        for i in 0..40 {
            log.append(Stream::Stdout, format!("line {i}\n").as_bytes(), "T").unwrap();
        }
        log.flush().unwrap();
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
    }
}
