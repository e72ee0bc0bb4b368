//! Links, addresses and routes by rtnetlink (`linux/rtnetlink.h`, `linux/if_link.h`, `linux/veth.h`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

pub(crate) use silo_sys::links::{Link, add_default_route, create_bridge, find, is_gone, set_mac, set_up};
use silo_sys::links::{dump, header, parse};
use silo_sys::netlink::{self, CREATE, EXCLUSIVE, Message, Socket};

use crate::mac::MacAddress;
use crate::subnet::IpSubnet;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
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

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;

const ROUTE_HEADER: usize = 12;

const IFF_UP: u32 = 1;

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

/// Makes a veth pair, one end up and a port of a bridge here, the other (down) in another namespace: one message for all of it.
pub(crate) fn create_veth(socket: &mut Socket, veth: &Veth<'_, impl AsFd>) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(0, IFF_UP, IFF_UP));
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
                    peer.raw(&header(0, 0, 0));
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

/// All links.
pub(crate) fn all(socket: &mut Socket) -> io::Result<Vec<Link>> {
    dump(socket, || Message::new(RTM_GETLINK, 0, &header(0, 0, 0)), parse)
}

/// Removes a link by name; a veth's other end goes with it.
pub(crate) fn delete(name: &str) -> Message {
    let mut message = Message::new(RTM_DELLINK, 0, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    message
}

/// What the host sends where: (destination, index of the link) of its routes, but for the default routes and the
/// kernel's own table of local addresses.
pub(crate) fn routes(socket: &mut Socket) -> io::Result<Vec<(IpSubnet, u32)>> {
    dump(
        socket,
        || Message::new(RTM_GETROUTE, 0, &[0; ROUTE_HEADER]),
        |answer| {
            let (family, prefix) = (i32::from(*answer.first()?), *answer.get(1)?);
            let mut table = u32::from(*answer.get(4)?);
            let mut link = 0;
            let mut destination: IpAddr = match family {
                libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
                libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
                _ => return None,
            };
            for (attribute, payload) in netlink::attributes(answer.get(ROUTE_HEADER..)?) {
                match attribute {
                    RTA_DST => destination = address(payload)?,
                    RTA_OIF => link = netlink::number(payload)?,
                    RTA_TABLE => table = netlink::number(payload)?,
                    _ => {}
                }
            }
            (prefix > 0 && table != u32::from(libc::RT_TABLE_LOCAL))
                .then(|| (IpSubnet::containing(destination, prefix), link))
        },
    )
}

fn address(payload: &[u8]) -> Option<IpAddr> {
    match payload.len() {
        4 => Some(Ipv4Addr::from(*payload.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*payload.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// It is there already.
pub(crate) fn exists(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EEXIST)
}
