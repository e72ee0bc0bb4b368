//! In a container's namespace: port 53 of the server's address leads to the port that the server has, so that 53 stays free
//! for a server of the container's own. By nftables, without connection tracking: what a program sends there has its
//! destination port rewritten on the way out, what the server sends its source port on the way back.

use std::io;
use std::net::Ipv4Addr;

use silo_sys::netlink::{CREATE, EXCLUSIVE, Message, Socket};

const TABLE: &str = "silo_names";

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.
const SUBSYSTEM: u8 = 10;
const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const APPEND: u16 = 0x800;
const IPV4: u8 = 2;
const LOCAL_OUT: u32 = 3;
const POST_ROUTING: u32 = 4;
/// Before connection tracking sees the question, as NF_IP_PRI_RAW; the answer after it did, so that both have one port.
const PRIORITY: i32 = -300;

const LIST_ELEMENT: u16 = 1;
const REGISTER: u32 = 1;
const META_OUT_INTERFACE: u32 = 5;
const META_PROTOCOL: u32 = 16;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

/// Loopback is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
const PORT: u16 = 53;

/// Makes the rules in the calling thread's network namespace, in place of those that an earlier daemon made.
pub(super) fn set(address: Ipv4Addr, udp: u16, tcp: u16) -> io::Result<()> {
    let mut rules = vec![chain("out", LOCAL_OUT), chain("back", POST_ROUTING)];
    for (protocol, port) in [(libc::IPPROTO_UDP as u8, udp), (libc::IPPROTO_TCP as u8, tcp)] {
        // To the server, and from it: the port that is looked for, and what it becomes. Ports are the first of both headers.
        rules.push(rule("out", protocol, (DESTINATION, address), 2, (PORT, port)));
        rules.push(rule("back", protocol, (SOURCE, address), 0, (port, PORT)));
    }
    let mut socket = Socket::open_netfilter()?;
    let mut apply = |first: &[Message]| socket.transaction(SUBSYSTEM, &mut [first, &rules].concat());
    match apply(&[table(NEW_TABLE, CREATE | EXCLUSIVE)]) {
        // Deleting costs ten milliseconds: closing the socket waits until no packet can be at the old rules.
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
            apply(&[table(DELETE_TABLE, 0), table(NEW_TABLE, CREATE)])
        }
        other => other,
    }
}

fn message(kind: u8, flags: u16) -> Message {
    Message::new(u16::from(SUBSYSTEM) << 8 | u16::from(kind), flags, &[IPV4, 0, 0, 0])
}

fn table(kind: u8, flags: u16) -> Message {
    let mut message = message(kind, flags);
    message.text(1, TABLE);
    message
}

fn chain(name: &str, hook: u32) -> Message {
    let mut message = message(NEW_CHAIN, CREATE);
    message.text(1, TABLE).text(3, name).text(7, "filter").nested(4, |m| {
        m.attribute(1, &hook.to_be_bytes()).attribute(2, &PRIORITY.to_be_bytes());
    });
    message
}

/// Of packets of a protocol on the loopback with the server's address there: a port at this place becomes another.
fn rule(chain: &str, protocol: u8, (place, address): (u32, Ipv4Addr), at: u32, ports: (u16, u16)) -> Message {
    let sum = if protocol == libc::IPPROTO_UDP as u8 { 6 } else { 16 };
    let mut message = message(NEW_RULE, CREATE | APPEND);
    message.text(1, TABLE).text(2, chain).nested(4, |m| {
        meta(m, META_OUT_INTERFACE);
        equal(m, &LOOPBACK.to_ne_bytes());
        load(m, BASE_NETWORK, place, 4);
        equal(m, &address.octets());
        meta(m, META_PROTOCOL);
        equal(m, &[protocol]);
        load(m, BASE_TRANSPORT, at, 2);
        equal(m, &ports.0.to_be_bytes());
        expression(m, "immediate", |m| {
            m.attribute(1, &REGISTER.to_be_bytes()).nested(2, |m| {
                m.attribute(1, &ports.1.to_be_bytes());
            });
        });
        expression(m, "payload", |m| {
            let numbers = [(5, REGISTER), (2, BASE_TRANSPORT), (3, at), (4, 2), (6, 1), (7, sum)];
            for (kind, value) in numbers {
                m.attribute(kind, &value.to_be_bytes());
            }
        });
    });
    message
}

fn expression(message: &mut Message, name: &str, data: impl FnOnce(&mut Message)) {
    message.nested(LIST_ELEMENT, |m| {
        m.text(1, name).nested(2, data);
    });
}

fn meta(message: &mut Message, key: u32) {
    expression(message, "meta", |m| {
        m.attribute(2, &key.to_be_bytes()).attribute(1, &REGISTER.to_be_bytes());
    });
}

fn load(message: &mut Message, base: u32, at: u32, length: u32) {
    expression(message, "payload", |m| {
        for (kind, value) in [(1, REGISTER), (2, base), (3, at), (4, length)] {
            m.attribute(kind, &value.to_be_bytes());
        }
    });
}

fn equal(message: &mut Message, value: &[u8]) {
    expression(message, "cmp", |m| {
        m.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &0u32.to_be_bytes()).nested(3, |m| {
            m.attribute(1, value);
        });
    });
}
