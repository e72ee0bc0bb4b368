//! `nslookup NAME [SERVER]`: asks a name server (RFC 1035), in the layout of Windows' own; Wine has none.
//!
//! Microsoft, "nslookup": https://learn.microsoft.com/windows-server/administration/windows-commands/nslookup

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use silo_tools::network::machine;

const A: u16 = 1;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const AAAA: u16 = 28;
/// How long a server may take, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: u16 = 3;

const USAGE: &str = "Usage:
   nslookup [-type=A|AAAA|PTR] host            # just look up 'host' using default server
   nslookup [-type=A|AAAA|PTR] host server     # just look up 'host' using 'server'
There is no interactive mode.";

/// What a server has said: the code of its answer, whether it knows for itself, and (name, kind, text) of its records.
struct Said {
    code: u8,
    own: bool,
    records: Vec<(String, u16, String)>,
}

fn question(number: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut bytes = number.to_be_bytes().to_vec();
    // One question, recursion desired.
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1u16.to_be_bytes());
    Some(bytes).filter(|b| b.len() <= 12 + 255 + 4)
}

/// A name and where what follows it begins; pointers lead to what was before.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut labels, mut end) = (Vec::new(), None);
    loop {
        let length = *bytes.get(at)? as usize;
        if length == 0 {
            return Some((labels.join("."), end.unwrap_or(at + 1)));
        }
        if length & 0xc0 == 0xc0 {
            let to = (length & 0x3f) << 8 | *bytes.get(at + 1)? as usize;
            end = end.or(Some(at + 2));
            if to >= at {
                return None;
            }
            at = to;
            continue;
        }
        labels.push(String::from_utf8_lossy(bytes.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
        if labels.len() > 128 {
            return None;
        }
    }
}

fn answer(bytes: &[u8]) -> Option<Said> {
    let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let mut at = 12;
    for _ in 0..number(4)? {
        at = name(bytes, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..number(6)? {
        let (owner, next) = name(bytes, at)?;
        let (kind, length) = (number(next)?, number(next + 8)? as usize);
        let data = bytes.get(next + 10..next + 10 + length)?;
        let text = match kind {
            A => <[u8; 4]>::try_from(data).ok().map(|a| Ipv4Addr::from(a).to_string()),
            AAAA => <[u8; 16]>::try_from(data).ok().map(|a| Ipv6Addr::from(a).to_string()),
            PTR | CNAME => name(bytes, next + 10).map(|(n, _)| n),
            _ => None,
        };
        records.extend(text.map(|text| (owner, kind, text)));
        at = next + 10 + length;
    }
    Some(Said { code: bytes.get(3)? & 15, own: bytes[2] & 4 != 0, records })
}

fn ask(server: IpAddr, wanted: &str, kind: u16) -> Result<Said, String> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).map_err(|e| e.to_string())?;
    socket.connect((server, 53)).map_err(|e| e.to_string())?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    let mut buffer = [0; 4096];
    for number in 1..=TRIES {
        let text = question(number, wanted, kind).ok_or("this is no name")?;
        socket.send(&text).map_err(|e| e.to_string())?;
        while let Ok(length) = socket.recv(&mut buffer) {
            if length > 12 && buffer[..2] == number.to_be_bytes() && buffer[2] & 0x80 != 0 {
                return answer(&buffer[..length]).ok_or_else(|| "Bad response".to_owned());
            }
        }
        println!("DNS request timed out.\n    timeout was {} seconds.", PATIENCE.as_secs());
    }
    Err("No response from server".to_owned())
}

/// The name that an address is asked for by.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(a) => {
            let [a, b, c, d] = a.octets();
            format!("{}.{}.{}.{}.in-addr.arpa", d, c, b, a)
        }
        IpAddr::V6(a) => {
            let digits = a.octets().iter().rev().map(|b| format!("{:x}.{:x}.", b & 15, b >> 4)).collect::<String>();
            digits + "ip6.arpa"
        }
    }
}

fn fail(words: &str) -> ! {
    eprintln!("{}", words);
    std::process::exit(1);
}

fn main() {
    let (mut kinds, mut words) = (vec![A, AAAA], Vec::new());
    for word in std::env::args().skip(1) {
        match word.to_ascii_lowercase().split_once('=') {
            Some(("-type" | "-querytype" | "-q", "a")) => kinds = vec![A],
            Some(("-type" | "-querytype" | "-q", "aaaa")) => kinds = vec![AAAA],
            Some(("-type" | "-querytype" | "-q", "ptr")) => kinds = vec![PTR],
            _ if word.starts_with('-') || word == "/?" => fail(USAGE),
            _ => words.push(word),
        }
    }
    let machine = machine().unwrap_or_else(|e| fail(&silo_tools::sentence(e)));
    let (host, server) = match words.as_slice() {
        [host] => (host, machine.servers.first().copied().unwrap_or_else(|| fail("*** Default servers are not available"))),
        [host, server] => (host, server.parse().unwrap_or_else(|_| fail(&format!("*** {}: not the address of a server", server)))),
        _ => fail(USAGE),
    };
    println!("Server:  UnKnown\nAddress:  {}\n", server);
    let address = host.parse::<IpAddr>().ok();
    if address.is_some() {
        kinds = vec![PTR];
    }
    let mut candidates = vec![address.map_or_else(|| host.clone(), reverse)];
    if address.is_none() && !host.contains('.') && !machine.domain.is_empty() {
        candidates.push(format!("{}.{}", host, machine.domain));
    }
    let mut why = "Non-existent domain".to_owned();
    for candidate in &candidates {
        let (mut found, mut own) = (Vec::new(), true);
        for kind in &kinds {
            match ask(server, candidate, *kind) {
                Ok(said) if said.code == 0 => {
                    own &= said.own;
                    found.extend(said.records);
                }
                Ok(said) => {
                    why = match said.code {
                        2 => "Server failed",
                        3 => "Non-existent domain",
                        5 => "Query refused",
                        _ => "Unspecified error",
                    }
                    .to_owned();
                }
                Err(error) => why = error,
            }
        }
        let of = |kind: u16| found.iter().filter(move |r| r.1 == kind).map(|r| r.2.clone()).collect::<Vec<String>>();
        if let (Some(address), Some(called)) = (address, of(PTR).first()) {
            return println!("Name:    {}\nAddress:  {}\n", called, address);
        }
        let addresses = [of(AAAA), of(A)].concat();
        if let Some(first) = addresses.first() {
            if !own {
                println!("Non-authoritative answer:");
            }
            println!("Name:    {}", of(CNAME).last().unwrap_or(candidate));
            println!("{}  {}", if addresses.len() > 1 { "Addresses:" } else { "Address:" }, first);
            addresses.iter().skip(1).for_each(|a| println!("\t  {}", a));
            return println!();
        }
    }
    fail(&format!("*** UnKnown can't find {}: {}", host, why));
}
