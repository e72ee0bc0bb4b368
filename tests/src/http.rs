//! A small HTTP server of a test's own, that answers as the test says: truthfully or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What was asked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// After the question mark.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, if it had a length.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// First byte of a `Range: bytes=N-`.
    pub fn start(&self) -> usize {
        let range =
            self.header("range").and_then(|r| r.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        range.unwrap_or(0)
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// `200`.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// The length that is told, if it is not that of the body.
    pub length: Option<u64>,
    /// After the body, as much again and again, until the other side has enough.
    pub endless: bool,
}

impl Reply {
    /// A body with its length.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), length: None, endless: false }
    }

    /// With a header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A server; it ends with its owner.
pub struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request by what `answer` says; its number, from 0, comes with it.
    pub fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, log, answer) = (stop.clone(), seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), log, answer) = (stream, log.clone(), answer.clone()) else { continue };
                std::thread::spawn(move || {
                    let _ = serve(stream, &log, &*answer);
                });
            }
        });
        Self { port, stop, seen }
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.host());
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(usize, &Request) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut to = stream;
    loop {
        let mut line = String::new();
        // The beginning of a TLS handshake: that connection ends, as a plain server's would.
        if reader.fill_buf()?.first() == Some(&0x16) {
            return Ok(());
        }
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            ..Default::default()
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            request.headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        // This server reads no chunks, and no client of registries sends any.
        assert!(request.header("transfer-encoding").is_none(), "in chunks: {request:?}");
        let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        request.body = vec![0; length];
        reader.read_exact(&mut request.body)?;
        let number = {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push(request.clone());
            log.len() - 1
        };
        let reply = answer(number, &request);
        let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !reply.endless {
            head.push_str(&format!(
                "content-length: {}\r\n",
                reply.length.unwrap_or(reply.body.len() as u64)
            ));
        }
        to.write_all(head.as_bytes())?;
        to.write_all(b"\r\n")?;
        if method == "HEAD" {
            continue;
        }
        to.write_all(&reply.body)?;
        if reply.endless {
            loop {
                to.write_all(&reply.body)?;
            }
        }
        if reply.length.is_some_and(|l| l != reply.body.len() as u64) {
            return to.shutdown(std::net::Shutdown::Both);
        }
    }
}
