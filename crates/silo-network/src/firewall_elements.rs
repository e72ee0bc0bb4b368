//! Elements of the tables' sets and maps: as text for a whole script, as netlink messages (`linux/netfilter/nf_tables.h`) for one
//! adapter or one container's ports, which needs no process.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;

use silo_sys::netlink::{CREATE, Message, Socket};

use crate::mac::MacAddress;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u8 = 10;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

/// Elements of one message: an attribute holds less than 64 KiB, an element of the widest set about 80 bytes.
const CHUNK: usize = 256;

/// A table's family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4 and IPv6 packets.
    Inet,
    /// Frames that pass a bridge.
    Bridge,
}

impl Family {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }

    /// `NFPROTO_INET`, `NFPROTO_BRIDGE`.
    const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Bridge => 7,
        }
    }
}

/// A set or map of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Set {
    pub(crate) family: Family,
    pub(crate) name: &'static str,
    /// `set` or `map`.
    pub(crate) form: &'static str,
    /// As nft writes the type of its elements.
    pub(crate) kind: &'static str,
}

/// One field of a key or value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    Interface(String),
    Mac([u8; 6]),
    Ip(IpAddr),
    /// An IPv6 address that the set holds as a plain number, because the rule reads it from a place nft has no name for.
    Number(std::net::Ipv6Addr),
    Protocol(&'static str),
    Port(u16),
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Interface(name) => format!("\"{name}\""),
            Self::Mac(mac) => MacAddress(*mac).to_string(),
            Self::Ip(ip) => ip.to_string(),
            Self::Number(ip) => format!("{:#034x}", u128::from(*ip)),
            Self::Protocol(name) => (*name).to_owned(),
            Self::Port(port) => port.to_string(),
        }
    }

    /// In network byte order, each field padded to four bytes, as the kernel keeps concatenations.
    fn bytes(&self, to: &mut Vec<u8>) {
        match self {
            Self::Interface(name) => {
                to.extend_from_slice(name.as_bytes());
                to.resize(to.len() + 16 - name.len().min(15), 0);
            }
            Self::Mac(mac) => to.extend_from_slice(mac),
            Self::Ip(IpAddr::V4(ip)) => to.extend_from_slice(&ip.octets()),
            Self::Ip(IpAddr::V6(ip)) | Self::Number(ip) => to.extend_from_slice(&ip.octets()),
            Self::Protocol(name) => to.push(protocol_number(name)),
            Self::Port(port) => to.extend_from_slice(&port.to_be_bytes()),
        }
        to.resize(to.len().next_multiple_of(4), 0);
    }
}

/// Of a transport, as IP has it.
pub(crate) fn protocol_number(name: &str) -> u8 {
    match name {
        "udp" => 17,
        "sctp" => 132,
        _ => 6,
    }
}

/// One element.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) set: Set,
    pub(crate) key: Vec<Part>,
    /// Empty for a set's.
    pub(crate) value: Vec<Part>,
}

fn joined(parts: &[Part]) -> String {
    parts.iter().map(Part::text).collect::<Vec<_>>().join(" . ")
}

fn packed(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    parts.iter().for_each(|part| part.bytes(&mut bytes));
    bytes
}

/// A set with its elements, as a script declares it.
pub(crate) fn declare(set: Set, elements: &[Element]) -> String {
    let mut text = format!("  {} {} {{\n    {};\n", set.form, set.name, set.kind);
    let mut own: Vec<String> = elements
        .iter()
        .filter(|e| e.set == set)
        .map(|e| match e.value.as_slice() {
            [] => joined(&e.key),
            value => format!("{} : {}", joined(&e.key), joined(value)),
        })
        .collect();
    own.sort();
    own.dedup();
    if !own.is_empty() {
        let _ = writeln!(text, "    elements = {{ {} }}", own.join(", "));
    }
    text.push_str("  }\n");
    text
}

/// Adds elements, all or none (there already: fine).
pub(crate) fn add(socket: &mut Socket, table: &str, elements: &[Element]) -> io::Result<()> {
    change(socket, table, elements, true)
}

/// Takes elements away. Those that are gone already are no error.
pub(crate) fn remove(socket: &mut Socket, table: &str, elements: &[Element]) -> io::Result<()> {
    match change(socket, table, elements, false) {
        // One that is missing undoes the transaction: each alone.
        Err(error) if is_missing(&error) => {
            for element in elements {
                match change(socket, table, std::slice::from_ref(element), false) {
                    Err(error) if !is_missing(&error) => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        }
        other => other,
    }
}

/// No such table, set or element.
fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

fn change(socket: &mut Socket, table: &str, elements: &[Element], new: bool) -> io::Result<()> {
    if elements.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&Element> = elements.iter().collect();
    sorted.sort();
    sorted.dedup();
    let mut messages: Vec<Message> = sorted
        .chunk_by(|a, b| a.set == b.set)
        .flat_map(|of_set| of_set.chunks(CHUNK))
        .map(|chunk| message(table, chunk, new))
        .collect();
    socket.transaction(SUBSYSTEM, &mut messages)
}

/// Elements of one set.
fn message(table: &str, elements: &[&Element], new: bool) -> Message {
    let set = elements[0].set;
    let (kind, flags) = if new { (NEW_ELEMENTS, CREATE) } else { (DELETE_ELEMENTS, 0) };
    let mut message =
        Message::new((u16::from(SUBSYSTEM) << 8) | kind, flags, &[set.family.number(), 0, 0, 0]);
    message.text(LIST_TABLE, table).text(LIST_SET, set.name).nested(LIST_ELEMENTS, |list| {
        for element in elements {
            list.nested(LIST_ELEMENT, |item| {
                let data = |item: &mut Message, kind, parts: &[Part]| {
                    item.nested(kind, |data| {
                        data.attribute(DATA_VALUE, &packed(parts));
                    });
                };
                data(item, ELEMENT_KEY, &element.key);
                if new && !element.value.is_empty() {
                    data(item, ELEMENT_DATA, &element.value);
                }
            });
        }
    });
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_padded_as_the_kernel_keeps_them() {
        let parts =
            [Part::Interface("sv0123456789".into()), Part::Mac([2, 0x42, 1, 2, 3, 4]), Part::Protocol("udp")];
        let bytes = packed(&parts);
        assert_eq!(bytes.len(), 16 + 8 + 4);
        assert_eq!(&bytes[..12], b"sv0123456789");
        assert_eq!(&bytes[12..], [0, 0, 0, 0, 2, 0x42, 1, 2, 3, 4, 0, 0, 17, 0, 0, 0]);
        assert_eq!(joined(&parts), "\"sv0123456789\" . 02:42:01:02:03:04 . udp");
        assert_eq!(Part::Number("fd00::2".parse().unwrap()).text(), "0xfd000000000000000000000000000002");
    }
}
