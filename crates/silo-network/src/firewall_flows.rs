//! Connections that the kernel remembers (`linux/netfilter/nfnetlink_conntrack.h`): those of a container or port that changed hands
//! are forgotten, or their next packets would still go to the former one.
//!
//! It matters for transports without a beginning and an end, UDP above all: a client that sends on keeps its entry alive.

use std::io;
use std::net::IpAddr;

use silo_sys::netlink::{Message, Socket, attributes};

use crate::firewall_elements::protocol_number;

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IPV4_SOURCE: u16 = 1;
const IPV6_SOURCE: u16 = 3;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// Bits of a filter (`CTA_FILTER_F_*`).
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// `struct nfgenmsg`.
const HEADER: usize = 4;

/// Which to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flows {
    /// Whose answers come from this address: a container's.
    AnsweredBy(IpAddr),
    /// Sent to this port, of whatever host, by IPv4 or IPv6.
    SentTo { protocol: &'static str, port: u16, ipv6: bool },
}

impl Flows {
    fn family(self) -> u8 {
        let six = match self {
            Self::AnsweredBy(ip) => ip.is_ipv6(),
            Self::SentTo { ipv6, .. } => ipv6,
        };
        (if six { libc::AF_INET6 } else { libc::AF_INET }) as u8
    }

    /// Which of the two tuples tells.
    const fn tuple(self) -> u16 {
        match self {
            Self::AnsweredBy(_) => TUPLE_REPLY,
            Self::SentTo { .. } => TUPLE_ORIGINAL,
        }
    }

    /// All of them from kernels that can filter (5.8), all entries of the family from others.
    fn question(self) -> Message {
        let mut message = Message::new(SUBSYSTEM | GET, 0, &[self.family(), 0, 0, 0]);
        let (flags, number) = match self {
            Self::AnsweredBy(ip) => {
                message.nested(TUPLE_REPLY, |tuple| {
                    tuple.nested(TUPLE_IP, |part| {
                        match ip {
                            IpAddr::V4(ip) => part.attribute(IPV4_SOURCE, &ip.octets()),
                            IpAddr::V6(ip) => part.attribute(IPV6_SOURCE, &ip.octets()),
                        };
                    });
                });
                (FILTER_REPLY, BY_SOURCE)
            }
            Self::SentTo { protocol, port, .. } => {
                message.nested(TUPLE_ORIGINAL, |tuple| {
                    tuple.nested(TUPLE_PROTOCOL, |part| {
                        part.attribute(PROTOCOL_NUMBER, &[protocol_number(protocol)])
                            .attribute(DESTINATION_PORT, &port.to_be_bytes());
                    });
                });
                (FILTER_ORIGINAL, BY_PROTOCOL | BY_DESTINATION_PORT)
            }
        };
        message.nested(FILTER, |filter| {
            filter.number(flags, number);
        });
        message
    }

    /// Whether an entry's tuple is one of these.
    fn matches(self, tuple: &[u8]) -> bool {
        let field = |part: u16, name: u16| {
            let (_, inner) = attributes(tuple).find(|(kind, _)| *kind == part)?;
            attributes(inner).find(|(kind, _)| *kind == name).map(|(_, payload)| payload)
        };
        match self {
            Self::AnsweredBy(IpAddr::V4(ip)) => field(TUPLE_IP, IPV4_SOURCE) == Some(&ip.octets()),
            Self::AnsweredBy(IpAddr::V6(ip)) => field(TUPLE_IP, IPV6_SOURCE) == Some(&ip.octets()),
            Self::SentTo { protocol, port, .. } => {
                field(TUPLE_PROTOCOL, PROTOCOL_NUMBER) == Some(&[protocol_number(protocol)])
                    && field(TUPLE_PROTOCOL, DESTINATION_PORT) == Some(&port.to_be_bytes())
            }
        }
    }
}

/// Forgets them; returns how many there were.
pub(crate) fn forget(socket: &mut Socket, flows: Flows) -> io::Result<usize> {
    let mut originals: Vec<Vec<u8>> = Vec::new();
    let dumped = socket.dump(flows.question(), |entry| {
        let tuples = || attributes(entry.get(HEADER..).unwrap_or_default());
        let tuple = |wanted| tuples().find(|(kind, _)| *kind == wanted).map(|(_, payload)| payload);
        if let (Some(original), Some(telling)) = (tuple(TUPLE_ORIGINAL), tuple(flows.tuple()))
            && flows.matches(telling)
        {
            originals.push(original.to_vec());
        }
    });
    match dumped {
        // The table changed meanwhile, as it always does; what was there before is in the answer.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        other => other?,
    }
    for original in &originals {
        let mut message = Message::new(SUBSYSTEM | DELETE, 0, &[flows.family(), 0, 0, 0]);
        message.nested(TUPLE_ORIGINAL, |tuple| {
            tuple.raw(original);
        });
        match socket.change(message) {
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(originals.len())
}
