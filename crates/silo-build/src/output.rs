//! The stream that a client prints: JSON lines as dockerd's builder writes them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::failure::{Failure, Result};

/// Bytes of a quiet build's output that are kept for the case that it fails.
const MOST_KEPT: usize = 1 << 20;
/// Bytes of a line of output that is not whole yet.
const MOST_PARTIAL: usize = 64 << 10;
/// dockerd's colours of error output.
const RED: &str = "\u{1b}[91m";
const PLAIN: &str = "\u{1b}[0m";

/// Where all of a build's lines go.
#[derive(Debug)]
pub(crate) struct Output {
    to: mpsc::Sender<std::io::Result<Bytes>>,
    /// Told once whether there is anything to tell, or why there never will be.
    begins: Mutex<Option<oneshot::Sender<Result<()>>>>,
    /// What a quiet build would have said.
    kept: Option<Mutex<Kept>>,
}

/// The last lines that were said.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that had to go.
    lost: u64,
}

impl Kept {
    fn add(&mut self, line: Bytes) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > MOST_KEPT {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.len();
            self.lost += first.len() as u64;
        }
    }
}

/// Which of a program's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\r\n"))
}

impl Output {
    pub(crate) fn new(
        to: mpsc::Sender<std::io::Result<Bytes>>,
        quiet: bool,
        begins: oneshot::Sender<Result<()>>,
    ) -> Self {
        Self { to, begins: Mutex::new(Some(begins)), kept: quiet.then(Mutex::default) }
    }

    /// Whether this is the first that is told.
    fn begin(&self, with: impl FnOnce() -> Result<()>) -> bool {
        let begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner).take();
        begins.is_some_and(|begins| begins.send(with()).is_ok())
    }

    async fn send(&self, bytes: Bytes) {
        self.begin(|| Ok(()));
        // A client that is gone ends the build by itself.
        let _ = self.to.send(Ok(bytes)).await;
    }

    /// A line as it is, such as those of a pull.
    pub(crate) async fn pass(&self, bytes: Bytes) {
        match &self.kept {
            None => self.send(bytes).await,
            Some(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).add(bytes),
        }
    }

    /// Text.
    pub(crate) async fn say(&self, text: &str) {
        self.pass(line(&json!({"stream": text}))).await;
    }

    /// The image's ID.
    pub(crate) async fn built(&self, id: &str, names: &[String]) {
        if self.kept.is_some() {
            return self.send(line(&json!({"stream": format!("{id}\n")}))).await;
        }
        self.pass(line(&json!({"aux": {"ID": id}}))).await;
        let short = id.get(7..19).unwrap_or(id);
        self.say(&format!("Successfully built {short}\n")).await;
        for name in names {
            self.say(&format!("Successfully tagged {name}\n")).await;
        }
    }

    /// The end of a build that failed, after what it said before.
    pub(crate) async fn failed(&self, failure: Failure) {
        let kept = self.kept.as_ref();
        let kept = kept.map(|kept| std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner)));
        if let Some(Kept { lines, lost, .. }) = kept {
            if lost > 0 {
                self.send(line(&json!({"stream": format!("[{lost} bytes before are left out]\n")}))).await;
            }
            for bytes in lines {
                self.send(bytes).await;
            }
        }
        // With nothing said before it is the answer's status.
        if self.begin(|| Err(failure.clone())) {
            return;
        }
        let mut detail = json!({"message": failure.message});
        if let Some(code) = failure.code {
            detail["code"] = code.into();
        }
        self.send(line(&json!({"errorDetail": detail, "error": failure.message}))).await;
    }
}

/// The lines of one stage. Where others run at the same time each begins with the stage's name.
#[derive(Debug)]
pub(crate) struct StageOutput<'o> {
    output: &'o Output,
    prefix: String,
    partial: [Vec<u8>; 2],
}

impl<'o> StageOutput<'o> {
    /// `name`: empty if no other runs at the same time.
    pub(crate) fn new(output: &'o Output, name: &str) -> Self {
        let prefix = if name.is_empty() { String::new() } else { format!("[{name}] ") };
        Self { output, prefix, partial: Default::default() }
    }

    /// Whole lines.
    pub(crate) async fn say(&self, text: &str) {
        self.output.say(&format!("{}{text}\n", self.prefix)).await;
    }

    /// A line of somebody else's as it is.
    pub(crate) async fn pass(&self, bytes: Bytes) {
        self.output.pass(bytes).await;
    }

    /// What a program has written.
    pub(crate) async fn program(&mut self, stream: Stream, bytes: &[u8]) {
        if self.prefix.is_empty() {
            let partial = &mut self.partial[stream as usize];
            partial.extend_from_slice(bytes);
            // A character may be cut in two.
            let whole = match std::str::from_utf8(partial) {
                Err(e) if e.error_len().is_none() => e.valid_up_to(),
                _ => partial.len(),
            };
            let text: Vec<u8> = partial.drain(..whole).collect();
            return self.coloured(stream, &text).await;
        }
        self.partial[stream as usize].extend_from_slice(bytes);
        while let Some(end) = self.partial[stream as usize].iter().position(|b| *b == b'\n') {
            let text: Vec<u8> = self.partial[stream as usize].drain(..=end).collect();
            self.prefixed(stream, &text).await;
        }
        if self.partial[stream as usize].len() > MOST_PARTIAL {
            self.rest(stream).await;
        }
    }

    /// What is left of lines without an end.
    pub(crate) async fn end_program(&mut self) {
        self.rest(Stream::Out).await;
        self.rest(Stream::Err).await;
    }

    async fn rest(&mut self, stream: Stream) {
        let mut text = std::mem::take(&mut self.partial[stream as usize]);
        if text.is_empty() {
            return;
        }
        if self.prefix.is_empty() {
            return self.coloured(stream, &text).await;
        }
        text.push(b'\n');
        self.prefixed(stream, &text).await;
    }

    async fn prefixed(&self, stream: Stream, text: &[u8]) {
        self.coloured(stream, &[self.prefix.as_bytes(), text].concat()).await;
    }

    async fn coloured(&self, stream: Stream, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        match stream {
            _ if text.is_empty() => {}
            Stream::Out => self.output.say(&text).await,
            Stream::Err => self.output.say(&format!("{RED}{text}{PLAIN}")).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, pieces: &[(Stream, &[u8])]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (to, mut from) = mpsc::channel(64);
            let output = Output::new(to, false, oneshot::channel().0);
            let mut stage = StageOutput::new(&output, name);
            for (stream, bytes) in pieces {
                stage.program(*stream, bytes).await;
            }
            stage.end_program().await;
            drop(output);
            let mut lines = Vec::new();
            while let Some(Ok(line)) = from.recv().await {
                let value: Value = serde_json::from_slice(&line).unwrap();
                lines.push(value["stream"].as_str().unwrap().to_owned());
            }
            lines
        })
    }

    #[test]
    fn a_stage_alone_is_passed_on_as_it_comes() {
        assert_eq!(said("", &[(Stream::Out, b"a"), (Stream::Out, b"b\n")]), ["a", "b\n"]);
        assert_eq!(said("", &[(Stream::Err, b"x\n")]), ["\u{1b}[91mx\n\u{1b}[0m"]);
        assert_eq!(said("", &[(Stream::Out, "ä".as_bytes().split_at(1).0), (Stream::Out, &[0xa4])]), ["ä"]);
        assert_eq!(said("", &[(Stream::Out, &[0xff, b'\n'])]), ["\u{fffd}\n"]);
    }

    #[test]
    fn of_a_quiet_build_the_end_is_kept() {
        let mut kept = Kept::default();
        for number in 0..40u8 {
            kept.add(Bytes::from(vec![number; 64 << 10]));
        }
        assert_eq!((kept.lines.len(), kept.lost), (16, 24 * (64 << 10)));
        assert_eq!(kept.lines.back().unwrap()[0], 39);
    }

    #[test]
    fn lines_of_stages_at_once_stay_whole() {
        let lines = said("one", &[(Stream::Out, b"a"), (Stream::Err, b"e\n"), (Stream::Out, b"b\nc")]);
        assert_eq!(lines, ["\u{1b}[91m[one] e\n\u{1b}[0m", "[one] ab\n", "[one] c\n"]);
    }
}
