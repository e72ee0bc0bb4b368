//! DNS messages (RFC 1035, EDNS of RFC 6891): questions read from any bytes, answers written in the room that the asker has.

use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, OPT, PTR, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};

/// Bytes of a header.
const HEADER: usize = 12;
/// What an asker without EDNS takes over UDP.
const PLAIN: usize = 512;
/// What is sent over UDP at most, whatever the asker says it takes; what this server takes.
pub(super) const MOST: usize = 4096;
/// dockerd's, in seconds.
const TTL: u32 = 600;
/// Records beside a question: EDNS, a signature.
const BESIDE: u16 = 4;

/// How a message came and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A question that can be answered.
#[derive(Debug)]
pub(super) struct Query<'a> {
    packet: Packet<'a>,
    question: Question<'a>,
    /// The name in lower case without its last dot; `None`: no text that a container could be called by.
    pub(super) name: Option<String>,
    /// Bytes that the answer may have.
    pub(super) room: usize,
    edns: bool,
}

/// What came of reading a message.
#[derive(Debug)]
pub(super) enum Read<'a> {
    Query(Query<'a>),
    /// To be answered by this at once.
    Refused(Vec<u8>),
    /// To be answered by nothing.
    Nothing,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr(IpAddr),
    /// Anything else about a name.
    Other,
    /// Of another class than the internet's.
    Foreign,
}

/// Reads a message of an asker.
pub(super) fn read(bytes: &[u8], transport: Transport) -> Read<'_> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Read::Nothing };
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    // An answer is answered by nothing, or two servers would talk forever.
    if header[2] & 0x80 != 0 {
        return Read::Nothing;
    }
    if header[2] & 0x78 != 0 {
        return Read::Refused(bare(header, RCODE::NotImplemented));
    }
    // Counts are looked at first: room is made for what they say.
    if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > BESIDE {
        return Read::Refused(bare(header, RCODE::FormatError));
    }
    let Ok(packet) = Packet::parse(bytes) else { return Read::Refused(bare(header, RCODE::FormatError)) };
    let Some(question) = packet.questions.first().cloned() else {
        return Read::Refused(bare(header, RCODE::FormatError));
    };
    let offered = packet.opt().map(|opt| usize::from(opt.udp_packet_size));
    let room = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => offered.unwrap_or(PLAIN).clamp(PLAIN, MOST),
    };
    let name = text(&question.qname);
    Read::Query(Query { edns: offered.is_some(), packet, question, name, room })
}

/// A header alone.
fn bare(header: &[u8; HEADER], code: RCODE) -> Vec<u8> {
    let mut reply = vec![header[0], header[1], 0x80 | (header[2] & 0x79), 0x80 | (code as u8 & 0x0f)];
    reply.resize(HEADER, 0);
    reply
}

fn text(name: &Name<'_>) -> Option<String> {
    let mut text = String::new();
    for label in name.as_bytes() {
        // A dot within a label is not one between labels.
        if !label.iter().all(|b| b.is_ascii_graphic() && *b != b'.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
    }
    (!text.is_empty()).then_some(text)
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(parts) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = parts.rsplit('.');
        for octet in &mut octets {
            *octet = parts.next().filter(|p| !p.starts_with('+'))?.parse().ok()?;
        }
        return parts.next().is_none().then(|| IpAddr::from(octets));
    }
    let mut octets = [0u8; 16];
    let mut parts = name.strip_suffix(".ip6.arpa")?.rsplit('.');
    for octet in &mut octets {
        for _ in 0..2 {
            let digit = parts.next().filter(|p| p.len() == 1 && *p != "+")?;
            *octet = (*octet << 4) | u8::from_str_radix(digit, 16).ok()?;
        }
    }
    parts.next().is_none().then(|| IpAddr::from(octets))
}

impl Query<'_> {
    /// What is asked for.
    pub(super) fn asked(&self) -> Asked {
        if !matches!(self.question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) {
            return Asked::Foreign;
        }
        match self.question.qtype {
            QTYPE::TYPE(TYPE::A) => Asked::A,
            QTYPE::TYPE(TYPE::AAAA) => Asked::Aaaa,
            QTYPE::TYPE(TYPE::PTR) => {
                self.name.as_deref().and_then(reversed).map_or(Asked::Other, Asked::Ptr)
            }
            _ => Asked::Other,
        }
    }

    fn reply(&self, code: RCODE) -> Packet<'_> {
        let mut reply = Packet::new_reply(self.packet.id());
        *reply.rcode_mut() = code;
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        for kept in [PacketFlag::RECURSION_DESIRED, PacketFlag::CHECKING_DISABLED] {
            if self.packet.has_flags(kept) {
                reply.set_flags(kept);
            }
        }
        reply.questions.push(self.question.clone());
        if self.edns {
            *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: MOST as u16, version: 0 });
        }
        reply
    }

    /// The reply without records.
    pub(super) fn empty(&self, code: RCODE) -> Vec<u8> {
        written(&self.reply(code))
    }

    /// The reply that tells the asker to come again over TCP.
    pub(super) fn too_long(&self) -> Vec<u8> {
        let mut reply = self.reply(RCODE::NoError);
        reply.set_flags(PacketFlag::TRUNCATION);
        written(&reply)
    }

    /// The reply with addresses, as many as there is room for.
    pub(super) fn addresses(&self, addresses: &[IpAddr]) -> Vec<u8> {
        let record = |address: &IpAddr| match address {
            IpAddr::V4(a) => RData::A(A::from(*a)),
            IpAddr::V6(a) => RData::AAAA(AAAA::from(*a)),
        };
        self.records(addresses.iter().map(record))
    }

    /// The reply with an address's name, without its last dot.
    pub(super) fn pointer(&self, name: &str) -> Vec<u8> {
        match Name::new(name) {
            Ok(name) => self.records(std::iter::once(RData::PTR(PTR(name)))),
            Err(_) => self.empty(RCODE::NoError),
        }
    }

    fn records<'r>(&'r self, data: impl Iterator<Item = RData<'r>>) -> Vec<u8> {
        let mut reply = self.reply(RCODE::NoError);
        reply.answers =
            data.map(|data| ResourceRecord::new(self.question.qname.clone(), CLASS::IN, TTL, data)).collect();
        let mut bytes = written(&reply);
        while bytes.len() > self.room && !reply.answers.is_empty() {
            reply.set_flags(PacketFlag::TRUNCATION);
            // Each record has 12 bytes and its data, its name being a pointer.
            let over = bytes.len() - self.room;
            let less = over.div_ceil(28).clamp(1, reply.answers.len());
            reply.answers.truncate(reply.answers.len() - less);
            bytes = written(&reply);
        }
        bytes
    }

    /// An upstream server's reply as it goes to the asker; `None`: it is no reply to this question under `id`.
    pub(super) fn relayed(&self, mut reply: Vec<u8>, id: u16) -> Option<Relayed> {
        let header = reply.first_chunk::<HEADER>()?;
        if u16::from_be_bytes([header[0], header[1]]) != id || header[2] & 0x80 == 0 {
            return None;
        }
        let code = header[3] & 0x0f;
        // A server that cannot read a question need not repeat it.
        if header[4..6] == [0, 1] {
            let (name, rest) = wire_name(&reply[HEADER..])?;
            let kind = [u16::from(self.question.qtype), u16::from(self.question.qclass)];
            let kind: Vec<u8> = kind.iter().flat_map(|n| n.to_be_bytes()).collect();
            if rest.get(..4)? != kind || !same_labels(self.question.qname.as_bytes(), &name) {
                return None;
            }
        } else if code == 0 || header[4..6] != [0, 0] {
            return None;
        }
        reply[..2].copy_from_slice(&self.packet.id().to_be_bytes());
        // SERVFAIL, REFUSED and what else is no answer: the next server is asked.
        let answered = matches!(code, 0 | 3);
        let reply = if reply.len() > self.room { self.too_long() } else { reply };
        Some(Relayed { reply, answered })
    }
}

/// An upstream server's reply.
#[derive(Debug)]
pub(super) struct Relayed {
    pub(super) reply: Vec<u8>,
    /// It says something of the name: that it is there, or is not.
    pub(super) answered: bool,
}

/// The labels of an uncompressed name, and what follows.
fn wire_name(mut bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let mut labels = Vec::new();
    loop {
        let (length, rest) = bytes.split_first()?;
        match usize::from(*length) {
            0 => return Some((labels, rest)),
            length if length < 64 => {
                labels.push(rest.get(..length)?);
                bytes = &rest[length..];
            }
            _ => return None,
        }
    }
}

fn same_labels<'a>(mut own: impl Iterator<Item = &'a [u8]>, other: &[&[u8]]) -> bool {
    other.iter().all(|label| own.next().is_some_and(|own| own.eq_ignore_ascii_case(label)))
        && own.next().is_none()
}

/// A question as an upstream server gets it: as it came, under an ID that nobody can foretell.
pub(super) fn forwarded(bytes: &[u8], id: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(start) = bytes.first_chunk_mut::<2>() {
        *start = id.to_be_bytes();
    }
    bytes
}

fn written(packet: &Packet<'_>) -> Vec<u8> {
    // Of names that were read, and of addresses: nothing in it can be too long. An empty message is sent as none.
    packet.build_bytes_vec_compressed().unwrap_or_default()
}
