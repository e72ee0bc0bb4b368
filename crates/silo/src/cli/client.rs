//! A small blocking HTTP client over the daemon's unix socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

const DEFAULT_SOCKET: &str = "/run/silo/silo.sock";
/// How long the daemon may be silent.
const SILENCE: Duration = Duration::from_secs(600);

/// Where the daemon is.
pub(crate) struct Client {
    socket: PathBuf,
}

/// A response: status, and a reader of the body that ends with the connection.
struct Response {
    status: u16,
    body: Box<dyn BufRead>,
}

impl Client {
    /// By `--host`, `$SILO_HOST`, `$DOCKER_HOST`, or the default socket.
    pub(crate) fn find(host: Option<&str>) -> Result<Self, String> {
        let environment = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let host = host
            .map(str::to_owned)
            .or_else(|| environment("SILO_HOST"))
            .or_else(|| environment("DOCKER_HOST"));
        let Some(host) = host else { return Ok(Self { socket: DEFAULT_SOCKET.into() }) };
        match host.strip_prefix("unix://") {
            Some(path) => Ok(Self { socket: path.into() }),
            None if host.starts_with('/') => Ok(Self { socket: host.into() }),
            None => Err(format!("host {host:?}: only unix sockets (unix:///path) are supported")),
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: Option<&mut dyn Read>,
    ) -> Result<Response, String> {
        let at = |e: std::io::Error| format!("talking to the daemon at {}: {e}", self.socket.display());
        let mut stream = UnixStream::connect(&self.socket).map_err(at)?;
        stream.set_read_timeout(Some(SILENCE)).map_err(at)?;
        // HTTP/1.0 without keep-alive: the body ends with the connection.
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: silo\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(if body.is_some() {
            "Transfer-Encoding: chunked\r\n\r\n"
        } else {
            "Content-Length: 0\r\n\r\n"
        });
        stream.write_all(head.as_bytes()).map_err(at)?;
        if let Some(body) = body {
            let mut buffer = vec![0; 256 << 10];
            loop {
                let n = body.read(&mut buffer).map_err(|e| format!("reading what is sent: {e}"))?;
                write!(stream, "{n:x}\r\n").map_err(at)?;
                stream.write_all(&buffer[..n]).map_err(at)?;
                stream.write_all(b"\r\n").map_err(at)?;
                if n == 0 {
                    break;
                }
            }
        }
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).map_err(at)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| format!("the daemon answered {line:?}"))?;
        let mut chunked = false;
        loop {
            line.clear();
            reader.read_line(&mut line).map_err(at)?;
            let header = line.trim().to_lowercase();
            if header.is_empty() {
                break;
            }
            chunked |= header == "transfer-encoding: chunked";
        }
        let body: Box<dyn BufRead> = if chunked {
            Box::new(BufReader::new(Chunked { reader, left: 0, ended: false }))
        } else {
            Box::new(reader)
        };
        Ok(Response { status, body })
    }

    fn whole(mut response: Response) -> Result<Value, String> {
        let mut text = String::new();
        response.body.read_to_string(&mut text).map_err(|e| format!("reading the daemon's answer: {e}"))?;
        let value: Value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).map_err(|e| format!("the daemon's answer {text:?}: {e}"))?
        };
        if response.status >= 400 {
            return Err(value["message"].as_str().unwrap_or("the daemon refused").to_owned());
        }
        Ok(value)
    }

    /// GET, JSON.
    pub(crate) fn get(&self, path: &str) -> Result<Value, String> {
        Self::whole(self.send("GET", path, &[], None)?)
    }

    /// GET, bytes: at most `most`.
    pub(crate) fn get_bytes(&self, path: &str, most: u64) -> Result<Vec<u8>, String> {
        let response = self.send("GET", path, &[], None)?;
        if response.status >= 400 {
            return Self::whole(response).map(|_| Vec::new());
        }
        let mut bytes = Vec::new();
        let read = response.body.take(most + 1).read_to_end(&mut bytes);
        read.map_err(|e| format!("reading the daemon's answer: {e}"))?;
        if bytes.len() as u64 > most {
            return Err(format!("the daemon's answer has more than {most} bytes"));
        }
        Ok(bytes)
    }

    /// POST without a body.
    pub(crate) fn post(&self, path: &str) -> Result<Value, String> {
        Self::whole(self.send("POST", path, &[], None)?)
    }

    /// JSON by this method.
    pub(crate) fn send_json(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let text = body.to_string();
        Self::whole(self.send(method, path, &[], Some(&mut text.as_bytes()))?)
    }

    /// DELETE.
    pub(crate) fn delete(&self, path: &str) -> Result<Value, String> {
        Self::whole(self.send("DELETE", path, &[], None)?)
    }

    /// POST of a stream; `line` gets each JSON line of the answer.
    pub(crate) fn post_stream(
        &self,
        path: &str,
        body: &mut dyn Read,
        line: impl FnMut(Value) -> Result<(), String>,
    ) -> Result<(), String> {
        self.post_stream_with(path, &[], body, line)
    }

    /// The same with headers.
    pub(crate) fn post_stream_with(
        &self,
        path: &str,
        headers: &[(&str, String)],
        body: &mut dyn Read,
        mut line: impl FnMut(Value) -> Result<(), String>,
    ) -> Result<(), String> {
        let response = self.send("POST", path, headers, Some(body))?;
        if response.status >= 400 {
            return Self::whole(response).map(|_| ());
        }
        for text in response.body.lines() {
            let text = text.map_err(|e| format!("reading the daemon's answer: {e}"))?;
            if !text.trim().is_empty() {
                line(serde_json::from_str(&text).map_err(|e| format!("the daemon's answer {text:?}: {e}"))?)?;
            }
        }
        Ok(())
    }
}

/// A name as a part of a path (RFC 3986, section 2.1).
pub(crate) fn escaped(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Transfer coding "chunked" (RFC 9112, section 7.1).
struct Chunked<R> {
    reader: R,
    left: usize,
    ended: bool,
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.left == 0 && !self.ended {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                // The end of the chunk before, or of the connection.
                if line.is_empty() {
                    self.ended = true;
                }
                continue;
            }
            self.left = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            self.ended = self.left == 0;
        }
        let limit = buffer.len().min(self.left);
        let n = self.reader.read(&mut buffer[..limit])?;
        self.left -= n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_together() {
        let text = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
        let mut all = String::new();
        Chunked { reader: &text[..], left: 0, ended: false }.read_to_string(&mut all).unwrap();
        assert_eq!(all, "abcdefg");
    }
}
