//! Routes by rtnetlink (`linux/rtnetlink.h`): which there are, default routes, routes to one address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::links::{address, dump, family, octets};
use crate::netlink::{self, CREATE, EXCLUSIVE, Message, REPLACE, Socket};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;

/// `rtmsg`: family, length of destination and source, tos, table, protocol, scope, type, flags (four bytes).
const HEADER: usize = 12;

/// One route to somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The network that it leads to: address and length of its prefix.
    pub destination: (IpAddr, u8),
    /// Of the link.
    pub index: u32,
    /// `None`: everybody is on the link.
    pub gateway: Option<IpAddr>,
    /// `RT_TABLE_MAIN`, `RT_TABLE_LOCAL` (the host's own addresses, broadcasts too), or another.
    pub table: u32,
}

/// Routes of the namespace that have one link; of those to nowhere (multicast, broadcast, unreachable) the local table's.
pub fn all(socket: &mut Socket) -> io::Result<Vec<Route>> {
    dump(
        socket,
        || Message::new(RTM_GETROUTE, 0, &[0; HEADER]),
        |answer| {
            let (family, prefix) = (i32::from(*answer.first()?), *answer.get(1)?);
            let mut table = u32::from(*answer.get(4)?);
            if *answer.get(7)? != libc::RTN_UNICAST && table != u32::from(libc::RT_TABLE_LOCAL) {
                return None;
            }
            let (mut index, mut gateway) = (0, None);
            let mut destination: IpAddr = match family {
                libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
                libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
                _ => return None,
            };
            for (attribute, payload) in netlink::attributes(answer.get(HEADER..)?) {
                match attribute {
                    RTA_DST => destination = address(payload)?,
                    RTA_OIF => index = netlink::number(payload)?,
                    RTA_GATEWAY => gateway = address(payload),
                    RTA_TABLE => table = netlink::number(payload)?,
                    _ => {}
                }
            }
            // Several ways at once have no link of their own.
            if index == 0 {
                return None;
            }
            Some(Route { destination: (destination, prefix), index, gateway, table })
        },
    )
}

/// Where everything goes that no other route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Of which family it is.
    pub ipv6: bool,
    /// Of the link.
    pub index: u32,
    /// `None`: everybody is on the link.
    pub gateway: Option<IpAddr>,
}

impl DefaultRoute {
    /// The one by this gateway.
    pub fn by(index: u32, gateway: IpAddr) -> Self {
        Self { ipv6: gateway.is_ipv6(), index, gateway: Some(gateway) }
    }

    fn message(self, kind: u16, flags: u16) -> Message {
        // A removal takes any protocol, scope and type.
        let (protocol, scope, unicast) = match (kind, self.gateway, self.ipv6) {
            (RTM_DELROUTE, ..) => (libc::RTPROT_UNSPEC, libc::RT_SCOPE_NOWHERE, libc::RTN_UNSPEC),
            (_, None, false) => (libc::RTPROT_BOOT, libc::RT_SCOPE_LINK, libc::RTN_UNICAST),
            _ => (libc::RTPROT_BOOT, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST),
        };
        let family = if self.ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
        let fixed = [family, 0, 0, 0, libc::RT_TABLE_MAIN, protocol, scope, unicast, 0, 0, 0, 0];
        let mut message = Message::new(kind, flags, &fixed);
        if let Some(gateway) = self.gateway {
            message.attribute(RTA_GATEWAY, &octets(gateway));
        }
        message.number(RTA_OIF, self.index);
        message
    }

    /// Adds it; there is one already: `EEXIST`.
    pub fn add(self) -> Message {
        self.message(RTM_NEWROUTE, CREATE | EXCLUSIVE)
    }

    /// Adds it in place of another of its family.
    pub fn replace(self) -> Message {
        self.message(RTM_NEWROUTE, CREATE | REPLACE)
    }

    /// Takes it away.
    pub fn remove(self) -> Message {
        self.message(RTM_DELROUTE, 0)
    }
}

/// Default routes of the main table.
pub fn defaults(socket: &mut Socket) -> io::Result<Vec<DefaultRoute>> {
    let routes = all(socket)?.into_iter();
    Ok(routes
        .filter(|r| r.destination.1 == 0 && r.table == u32::from(libc::RT_TABLE_MAIN))
        .map(|r| DefaultRoute { ipv6: r.destination.0.is_ipv6(), index: r.index, gateway: r.gateway })
        .collect())
}

/// Sends what is for one address to a link, without a gateway.
pub fn add_to_host(index: u32, address: IpAddr) -> Message {
    let bits = octets(address).len() as u8 * 8;
    let (table, scope) = (libc::RT_TABLE_MAIN, libc::RT_SCOPE_LINK);
    let fixed = [family(address), bits, 0, 0, table, libc::RTPROT_BOOT, scope, libc::RTN_UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(RTM_NEWROUTE, CREATE | REPLACE, &fixed);
    message.attribute(RTA_DST, &octets(address)).number(RTA_OIF, index);
    message
}
