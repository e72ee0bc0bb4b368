//! Links, addresses and routes by rtnetlink (`linux/rtnetlink.h`, `linux/if_link.h`, `linux/veth.h`).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

use silo_sys::netlink::{self, CREATE, EXCLUSIVE, Message, REPLACE, Socket};

use crate::record::MacAddress;
use crate::subnet::Subnet;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;

const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;

const IFF_UP: u32 = 1;
const INET: u8 = libc::AF_INET as u8;

/// Dumps are asked again when the list changed meanwhile; a host that changes it all the time gets the last answer.
const DUMP_TRIES: usize = 8;

/// An interface of the namespace asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Index of the bridge it is a port of, 0 for none.
    pub(crate) master: u32,
    /// `bridge`, `veth`, empty for hardware.
    pub(crate) kind: String,
}

/// The two ends of a new veth pair.
#[derive(Debug)]
pub(crate) struct Veth<'a, F> {
    /// Name of the end that stays here.
    pub(crate) host: &'a str,
    /// Index of the bridge that it joins.
    pub(crate) bridge: u32,
    /// Name of the end that goes.
    pub(crate) inside: &'a str,
    /// Hardware address of that end.
    pub(crate) mac: MacAddress,
    /// Where it goes: a network namespace.
    pub(crate) netns: F,
    /// Of both.
    pub(crate) mtu: u32,
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Makes a bridge.
pub(crate) fn create_bridge(socket: &mut Socket, name: &str, mtu: u32) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0));
    message.text(IFLA_IFNAME, name).number(IFLA_MTU, mtu).nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "bridge");
    });
    socket.change(message)
}

/// Makes a veth pair, one end up and a port of a bridge here, the other (down) in another namespace: one message for all of it.
pub(crate) fn create_veth(socket: &mut Socket, veth: &Veth<'_, impl AsFd>) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, IFF_UP, IFF_UP));
    message
        .text(IFLA_IFNAME, veth.host)
        .number(IFLA_MTU, veth.mtu)
        .number(IFLA_MASTER, veth.bridge)
        .number(IFLA_NUM_TX_QUEUES, 1)
        .number(IFLA_NUM_RX_QUEUES, 1)
        .nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    // Down: the kernel opens the peer before it knows its other end (ENOTCONN).
                    peer.raw(&link_header(0, 0, 0));
                    peer.text(IFLA_IFNAME, veth.inside)
                        .number(IFLA_MTU, veth.mtu)
                        .number(IFLA_NUM_TX_QUEUES, 1)
                        .number(IFLA_NUM_RX_QUEUES, 1)
                        .attribute(IFLA_ADDRESS, &veth.mac.0)
                        .number(IFLA_NET_NS_FD, veth.netns.as_fd().as_raw_fd().cast_unsigned());
                });
            });
        });
    socket.change(message)
}

/// The link of a name; `None` when there is none.
pub(crate) fn find(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    let mut message = Message::new(RTM_GETLINK, 0, &link_header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    match socket.get(message) {
        Ok(answer) => Ok(parse_link(&answer)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links.
pub(crate) fn all(socket: &mut Socket) -> io::Result<Vec<Link>> {
    dump(socket, || Message::new(RTM_GETLINK, 0, &link_header(0, 0, 0)), parse_link)
}

fn parse_link(answer: &[u8]) -> Option<Link> {
    let index = netlink::number(answer.get(4..8)?)?;
    let mut link = Link { index, name: String::new(), master: 0, kind: String::new() };
    for (attribute, payload) in netlink::attributes(answer.get(LINK_HEADER..)?) {
        match attribute {
            IFLA_IFNAME => link.name = netlink::text(payload).to_owned(),
            IFLA_MASTER => link.master = netlink::number(payload)?,
            IFLA_LINKINFO => {
                let kind = netlink::attributes(payload).find(|(attribute, _)| *attribute == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, payload)| netlink::text(payload).to_owned()).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// Brings a link up.
pub(crate) fn set_up(index: u32) -> Message {
    Message::new(RTM_SETLINK, 0, &link_header(index, IFF_UP, IFF_UP))
}

/// Gives a bridge a hardware address of its own: without one it takes the lowest of its ports', and changes it as they go.
pub(crate) fn set_mac(index: u32, mac: MacAddress) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0, &link_header(index, 0, 0));
    message.attribute(IFLA_ADDRESS, &mac.0);
    message
}

/// Removes a link by name; a veth's other end goes with it.
pub(crate) fn delete(name: &str) -> Message {
    let mut message = Message::new(RTM_DELLINK, 0, &link_header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    message
}

/// Gives a link an address of a subnet (again: no error).
pub(crate) fn add_address(index: u32, address: Ipv4Addr, subnet: Subnet) -> Message {
    // ifaddrmsg: family, prefix length, flags, scope (0: universe), index.
    let mut header = [INET, subnet.prefix(), 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(RTM_NEWADDR, CREATE | REPLACE, &header);
    message
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets())
        .attribute(IFA_BROADCAST, &subnet.broadcast().octets());
    message
}

/// Sends everything that no other route takes to a gateway.
pub(crate) fn add_default_route(index: u32, gateway: Ipv4Addr) -> Message {
    let mut message = Message::new(
        RTM_NEWROUTE,
        CREATE | REPLACE,
        // rtmsg: family, destination and source length, tos, table main, protocol boot, scope universe, type unicast, flags.
        &[
            INET,
            0,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_BOOT,
            libc::RT_SCOPE_UNIVERSE,
            libc::RTN_UNICAST,
            0,
            0,
            0,
            0,
        ],
    );
    message.attribute(RTA_GATEWAY, &gateway.octets()).number(RTA_OIF, index);
    message
}

/// IPv4 addresses of the host: (index of the link, address, its subnet).
pub(crate) fn addresses(socket: &mut Socket) -> io::Result<Vec<(u32, Ipv4Addr, Subnet)>> {
    dump(
        socket,
        || Message::new(RTM_GETADDR, 0, &[INET, 0, 0, 0, 0, 0, 0, 0]),
        |answer| {
            let prefix = *answer.get(1)?;
            let index = netlink::number(answer.get(4..8)?)?;
            let (_, payload) =
                netlink::attributes(answer.get(ADDRESS_HEADER..)?).find(|(a, _)| *a == IFA_LOCAL)?;
            let address = Ipv4Addr::from(*payload.first_chunk::<4>()?);
            Some((index, address, Subnet::containing(address, prefix)))
        },
    )
}

/// What the host sends where: (destination, index of the link) of its IPv4 routes, but for the default route and the
/// kernel's own table of local addresses.
pub(crate) fn routes(socket: &mut Socket) -> io::Result<Vec<(Subnet, u32)>> {
    let mut header = [0; ROUTE_HEADER];
    header[0] = INET;
    dump(
        socket,
        move || Message::new(RTM_GETROUTE, 0, &header),
        |answer| {
            let (prefix, mut table) = (*answer.get(1)?, u32::from(*answer.get(4)?));
            let (mut destination, mut link) = (Ipv4Addr::UNSPECIFIED, 0);
            for (attribute, payload) in netlink::attributes(answer.get(ROUTE_HEADER..)?) {
                match attribute {
                    RTA_DST => destination = Ipv4Addr::from(*payload.first_chunk::<4>()?),
                    RTA_OIF => link = netlink::number(payload)?,
                    RTA_TABLE => table = netlink::number(payload)?,
                    _ => {}
                }
            }
            (prefix > 0 && table != u32::from(libc::RT_TABLE_LOCAL))
                .then(|| (Subnet::containing(destination, prefix), link))
        },
    )
}

fn dump<T>(
    socket: &mut Socket,
    message: impl Fn() -> Message,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Vec<T>> {
    let mut tries = 0;
    loop {
        let mut list = Vec::new();
        match socket.dump(message(), |answer| list.extend(parse(answer))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < DUMP_TRIES => tries += 1,
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => return Ok(list),
        }
    }
}

/// No such link: it, or the namespace that its other end was in, ended already.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::ESRCH))
}

/// It is there already.
pub(crate) fn exists(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EEXIST)
}
