//! Links, addresses and routes by rtnetlink (`linux/rtnetlink.h`, `linux/if_link.h`, `linux/veth.h`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use silo_sys::links::header;
pub(crate) use silo_sys::links::{
    add_address, all, find, is_gone, set_master, set_up, wait_until_it_carries,
};
use silo_sys::netlink::{self, CREATE, EXCLUSIVE, Message, Socket};

use crate::mac::MacAddress;
use crate::record::Counters;
use crate::subnet::IpSubnet;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;

const LINK_HEADER: usize = 16;

const IFF_UP: u32 = 1;

/// The two ends of a new veth pair.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    /// Name of the end that stays here.
    pub(crate) host: &'a str,
    /// Index of the bridge that it joins.
    pub(crate) bridge: u32,
    /// Name of the end that goes.
    pub(crate) inside: &'a str,
    /// Hardware address of that end.
    pub(crate) mac: MacAddress,
    /// Where it goes: a network namespace.
    pub(crate) netns: BorrowedFd<'a>,
    /// Of both.
    pub(crate) mtu: u32,
}

/// Makes a veth pair, one end up and a port of a bridge here, the other (down) in another namespace: one message for all of it.
pub(crate) fn create_veth(veth: &Veth<'_>) -> Message {
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
                        .number(IFLA_NET_NS_FD, veth.netns.as_raw_fd().cast_unsigned());
                });
            });
        });
    message
}

/// What kind of link on top of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upper {
    /// With the number of its mode.
    Macvlan(u32),
    /// With the numbers of mode and flags.
    Ipvlan(u16, u16),
}

/// Makes a link on top of a parent of this namespace, down, in another namespace.
pub(crate) fn create_upper(
    kind: Upper,
    parent: u32,
    inside: &str,
    mac: Option<MacAddress>,
    mtu: Option<u32>,
    netns: impl AsFd,
) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(0, 0, 0));
    message.text(IFLA_IFNAME, inside).number(IFLA_LINK, parent);
    message.number(IFLA_NET_NS_FD, netns.as_fd().as_raw_fd().cast_unsigned());
    if let Some(mac) = mac {
        message.attribute(IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = mtu {
        message.number(IFLA_MTU, mtu);
    }
    message.nested(IFLA_LINKINFO, |info| match kind {
        Upper::Macvlan(mode) => {
            info.text(IFLA_INFO_KIND, "macvlan").nested(IFLA_INFO_DATA, |data| {
                data.number(IFLA_MACVLAN_MODE, mode);
            });
        }
        Upper::Ipvlan(mode, flags) => {
            info.text(IFLA_INFO_KIND, "ipvlan").nested(IFLA_INFO_DATA, |data| {
                data.attribute(IFLA_IPVLAN_MODE, &mode.to_ne_bytes())
                    .attribute(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
            });
        }
    });
    message
}

/// A link without a parent: the kernel answers `EINVAL` when it knows the kind, `EOPNOTSUPP` when not.
pub(crate) fn probe(kind: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(0, 0, 0));
    message.text(IFLA_IFNAME, "silo-probe").nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, kind);
    });
    message
}

/// Makes a link of its own (bridge, dummy, ifb).
pub(crate) fn create(kind: &str, name: &str, mtu: u32, mac: Option<MacAddress>) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name).number(IFLA_MTU, mtu);
    if let Some(mac) = mac {
        message.attribute(IFLA_ADDRESS, &mac.0);
    }
    message.nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, kind);
    });
    message
}

/// Makes a pair whose both ends stay here, up.
pub(crate) fn create_pair(name: &str, peer: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(0, IFF_UP, IFF_UP));
    message.text(IFLA_IFNAME, name).nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |end| {
                end.raw(&header(0, 0, 0));
                end.text(IFLA_IFNAME, peer);
            });
        });
    });
    message
}

/// Makes the part of a link that carries one VLAN.
pub(crate) fn create_vlan(name: &str, parent: u32, id: u16) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name).number(IFLA_LINK, parent);
    message.nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "vlan").nested(IFLA_INFO_DATA, |data| {
            data.attribute(IFLA_VLAN_ID, &id.to_ne_bytes());
        });
    });
    message
}

/// Marks a link as somebody's; the kernel takes no alias with a new link.
pub(crate) fn mark(name: &str, alias: &str) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name).text(IFLA_IFALIAS, alias);
    message
}

/// What a link carried, from its own side.
pub(crate) fn counters(socket: &mut Socket, name: &str) -> io::Result<Counters> {
    let mut message = Message::new(RTM_GETLINK, 0, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    let answer = socket.get(message)?;
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "a link without counters");
    let mut attributes = netlink::attributes(answer.get(LINK_HEADER..).unwrap_or_default());
    let (_, stats) = attributes.find(|(kind, _)| *kind == IFLA_STATS64).ok_or_else(missing)?;
    // struct rtnl_link_stats64: packets, bytes, errors, dropped, each received and sent.
    let mut numbers = stats.chunks_exact(8).filter_map(|c| c.try_into().ok().map(u64::from_ne_bytes));
    let mut next = || numbers.next().ok_or_else(missing);
    let (rx_packets, tx_packets, rx_bytes, tx_bytes) = (next()?, next()?, next()?, next()?);
    let (rx_errors, tx_errors, rx_dropped, tx_dropped) = (next()?, next()?, next()?, next()?);
    Ok(Counters { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped })
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
    let routes = silo_sys::routes::all(socket)?.into_iter();
    Ok(routes
        .filter(|r| r.destination.1 > 0 && r.table != u32::from(libc::RT_TABLE_LOCAL))
        .map(|r| (IpSubnet::containing(r.destination.0, r.destination.1), r.index))
        .collect())
}

/// It is there already.
pub(crate) fn exists(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EEXIST)
}
