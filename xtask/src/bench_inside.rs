//! What the bench runs inside containers: this executable, which it copies into its image with the libraries that it
//! needs. So what is compared is one program, inside and on the host.

use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::bench_measure::median;

/// Bytes of one write, of the file, and of all writes.
const PIECE: usize = 64 << 10;
const FILE: u64 = 256 << 20;
const WRITTEN: u64 = 512 << 20;
/// Questions that do not count.
const WARM: u16 = 100;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// `ask NAME COUNT` prints the milliseconds that an answer of the resolver takes, `write FILE` how many MB/s of random writes
/// come to the disk.
pub(crate) fn run_inside(arguments: &[String]) -> Outcome {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let figure = match words[..] {
        ["ask", name, count] => ask(name, count.parse().map_err(|e| format!("{count:?}: {e}"))?)?,
        ["write", path] => write(path).map_err(|e| format!("writing {path}: {e}"))?,
        _ => return Err("bench-inside: there are ask NAME COUNT, write FILE".to_owned()),
    };
    println!("{figure}");
    Ok(())
}

/// A question for the IPv4 addresses of a name (RFC 1035, section 4.1).
fn question(number: u16, name: &str) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    // Recursion is desired; one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    // The root; A, IN.
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// Whether a packet answers the question of that number, without error and with a record.
fn answers(packet: &[u8], number: u16) -> bool {
    let word = |at: usize| packet.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    word(0) == Some(number)
        && word(2).is_some_and(|flags| flags & 0x800f == 0x8000)
        && word(6).is_some_and(|records| records > 0)
}

/// The median of that many answers, one question at a time over one socket.
fn ask(name: &str, count: u16) -> Outcome<f64> {
    let settings =
        std::fs::read_to_string("/etc/resolv.conf").map_err(|e| format!("/etc/resolv.conf: {e}"))?;
    let server = settings.lines().find_map(|l| l.strip_prefix("nameserver ")?.trim().parse::<IpAddr>().ok());
    let server = server.ok_or("/etc/resolv.conf names no server")?;
    let failed = |e: std::io::Error| format!("asking {server} for {name}: {e}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.connect((server, 53)).map_err(failed)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut times = Vec::new();
    let mut answer = [0; 512];
    for number in 0..WARM.saturating_add(count) {
        let question = question(number, name);
        let start = Instant::now();
        socket.send(&question).map_err(failed)?;
        let length = socket.recv(&mut answer).map_err(failed)?;
        let time = start.elapsed();
        if !answers(&answer[..length], number) {
            return Err(format!("{server} does not answer for {name}: {:?}", &answer[..length]));
        }
        if number >= WARM {
            times.push(time.as_secs_f64() * 1e3);
        }
    }
    Ok(median(times))
}

/// Writes pieces at random places of a file, until they are on the disk.
fn write(path: &str) -> std::io::Result<f64> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.set_len(FILE)?;
    let piece = vec![0x5a; PIECE];
    let mut state: u64 = 1;
    let start = Instant::now();
    for _ in 0..WRITTEN / PIECE as u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = (state >> 33) % (FILE / PIECE as u64);
        file.write_all_at(&piece, place * PIECE as u64)?;
    }
    file.sync_data()?;
    Ok(WRITTEN as f64 / 1e6 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::{answers, question};

    #[test]
    fn a_question_is_as_the_protocol_has_it_and_only_its_answer_counts() {
        let asked = question(0x1234, "db.bench");
        assert_eq!(asked, b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x02db\x05bench\0\0\x01\0\x01");
        let mut answer = asked.clone();
        assert!(!answers(&answer, 0x1234), "a question");
        (answer[2], answer[7]) = (0x81, 1);
        assert!(answers(&answer, 0x1234));
        assert!(!answers(&answer, 0x1235), "another's");
        answer[3] = 3;
        assert!(!answers(&answer, 0x1234), "no such name");
        assert!(!answers(&[], 0));
    }
}
