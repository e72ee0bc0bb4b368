//! Network interfaces and addresses by rtnetlink (`linux/rtnetlink.h`, `linux/if_link.h`): what hosts and guests
//! alike do with them.

use std::io;
use std::net::IpAddr;

use crate::netlink::{self, CREATE, EXCLUSIVE, Message, REPLACE, Socket};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
/// No frame goes from one macvlan of a link to another (`linux/if_link.h`).
const MACVLAN_PRIVATE: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 2;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const IFF_UP: u32 = 1;
/// `IF_OPER_UP` of RFC 2863's states (`linux/if.h`).
const OPER_UP: u8 = 6;

/// Dumps are asked again when the list changed meanwhile; a host that changes it all the time gets the last answer.
const DUMP_TRIES: usize = 8;

const CARRIER_TRIES: usize = 100;
/// The kernel tells of a carrier by no event that could not have come before it was waited for.
const CARRIER_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// An interface of the namespace asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Index of the bridge it is a port of, 0 for none.
    pub master: u32,
    /// `bridge`, `veth`, empty for hardware.
    pub kind: String,
    /// Hardware address.
    pub mac: Vec<u8>,
    /// Bytes.
    pub mtu: u32,
    /// What its maker wrote to it.
    pub alias: String,
    /// What it is over, or paired with, is in another namespace.
    pub parent_elsewhere: bool,
    /// Carries packets: up, and so is its other end.
    pub carries: bool,
}

/// `struct ifinfomsg`: the flags of `change` get the values of `flags`.
pub fn header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Makes a bridge.
pub fn create_bridge(name: &str, mtu: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name).number(IFLA_MTU, mtu).nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "bridge");
    });
    message
}

/// Makes a link over another, with a hardware address of its own: a macvlan that is down.
pub fn create_macvlan(name: &str, over: u32, mac: [u8; 6], mtu: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name).number(IFLA_LINK, over).number(IFLA_MTU, mtu);
    message.attribute(IFLA_ADDRESS, &mac).nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "macvlan").nested(IFLA_INFO_DATA, |data| {
            data.number(IFLA_MACVLAN_MODE, MACVLAN_PRIVATE);
        });
    });
    message
}

/// Removes a link; a veth's other end goes with it.
pub fn delete(index: u32) -> Message {
    Message::new(RTM_DELLINK, 0, &header(index, 0, 0))
}

/// Gives a link that is down another name.
pub fn rename(index: u32, name: &str) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0, &header(index, 0, 0));
    message.text(IFLA_IFNAME, name);
    message
}

/// All links of the namespace.
pub fn all(socket: &mut Socket) -> io::Result<Vec<Link>> {
    dump(socket, || Message::new(RTM_GETLINK, 0, &header(0, 0, 0)), parse)
}

/// The link of a name; `None` when there is none.
pub fn find(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    let mut message = Message::new(RTM_GETLINK, 0, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    match socket.get(message) {
        Ok(answer) => Ok(parse(&answer)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until a link that was brought up carries packets, a tenth of a second at most; whether it does.
///
/// The kernel tells a link's queue and its bridge of a new carrier only some time later, in a work of its own
/// (`net/core/link_watch.c`); what is sent before that is dropped, and its sender tries again after a second. Being asked
/// for the link, it does that work first (since 6.8); an older one is asked again.
pub fn wait_until_it_carries(socket: &mut Socket, index: u32) -> io::Result<bool> {
    for _ in 0..CARRIER_TRIES {
        let answer = socket.get(Message::new(RTM_GETLINK, 0, &header(index, 0, 0)))?;
        if parse(&answer).is_some_and(|link| link.carries) {
            return Ok(true);
        }
        std::thread::sleep(CARRIER_PAUSE);
    }
    Ok(false)
}

/// A link as the kernel's answer has it.
pub fn parse(answer: &[u8]) -> Option<Link> {
    let mut link = Link { index: netlink::number(answer.get(4..8)?)?, ..Default::default() };
    for (attribute, payload) in netlink::attributes(answer.get(LINK_HEADER..)?) {
        match attribute {
            IFLA_ADDRESS => link.mac = payload.to_vec(),
            IFLA_IFNAME => link.name = netlink::text(payload).to_owned(),
            IFLA_LINK_NETNSID => link.parent_elsewhere = true,
            IFLA_IFALIAS => link.alias = netlink::text(payload).to_owned(),
            IFLA_OPERSTATE => link.carries = payload.first() == Some(&OPER_UP),
            IFLA_MTU => link.mtu = netlink::number(payload)?,
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
pub fn set_up(index: u32) -> Message {
    Message::new(RTM_SETLINK, 0, &header(index, IFF_UP, IFF_UP))
}

/// Takes a link down: its routes go.
pub fn set_down(index: u32) -> Message {
    Message::new(RTM_SETLINK, 0, &header(index, 0, IFF_UP))
}

/// Gives a link a hardware address.
pub fn set_mac(index: u32, mac: [u8; 6]) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0, &header(index, 0, 0));
    message.attribute(IFLA_ADDRESS, &mac);
    message
}

/// Sets the largest packet, in bytes.
pub fn set_mtu(index: u32, mtu: u32) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0, &header(index, 0, 0));
    message.number(IFLA_MTU, mtu);
    message
}

/// Makes a link a port of a bridge.
pub fn set_master(index: u32, bridge: u32) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0, &header(index, 0, 0));
    message.number(IFLA_MASTER, bridge);
    message
}

/// An address as netlink's attributes have it.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Its family (`AF_INET`, `AF_INET6`), as netlink's headers have it.
pub fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// Gives a link an address with the length of its prefix (again: no error), usable at once: it was given out here, so
/// nobody else has it.
pub fn add_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    // ifaddrmsg: family, prefix length, flags, scope (0: universe), index.
    let mut fixed = [family(address), prefix, flags, 0, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(RTM_NEWADDR, CREATE | REPLACE, &fixed);
    message.attribute(IFA_LOCAL, &octets(address)).attribute(IFA_ADDRESS, &octets(address));
    if let IpAddr::V4(address) = address {
        let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        message.attribute(IFA_BROADCAST, &(u32::from(address) | hosts).to_be_bytes());
    }
    message
}

/// Takes an address away.
pub fn delete_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    let mut fixed = [family(address), prefix, 0, 0, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(RTM_DELADDR, 0, &fixed);
    message.attribute(IFA_LOCAL, &octets(address));
    message
}

/// Tells whose hardware address an address on a link is: nobody is asked, and nobody can say otherwise.
pub fn add_neighbour(index: u32, address: IpAddr, mac: [u8; 6]) -> Message {
    // ndmsg: family, padding, index, state (NUD_PERMANENT), flags, type.
    let mut fixed = [family(address), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..10].copy_from_slice(&0x80u16.to_ne_bytes());
    let mut message = Message::new(RTM_NEWNEIGH, CREATE | REPLACE, &fixed);
    message.attribute(NDA_DST, &octets(address)).attribute(NDA_LLADDR, &mac);
    message
}

/// Addresses of the namespace: (index of the link, address, length of its prefix).
pub fn addresses(socket: &mut Socket) -> io::Result<Vec<(u32, IpAddr, u8)>> {
    dump(
        socket,
        || Message::new(RTM_GETADDR, 0, &[0; ADDRESS_HEADER]),
        |answer| {
            let (prefix, index) = (*answer.get(1)?, netlink::number(answer.get(4..8)?)?);
            let all: Vec<_> = netlink::attributes(answer.get(ADDRESS_HEADER..)?).collect();
            // IPv6 has the latter alone; of a point-to-point link it is the peer's.
            let wanted =
                [IFA_LOCAL, IFA_ADDRESS].into_iter().find_map(|k| all.iter().find(|(a, _)| *a == k))?;
            Some((index, address(wanted.1)?, prefix))
        },
    )
}

pub(crate) fn address(payload: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(payload) {
        return Some(IpAddr::from(four));
    }
    Some(IpAddr::from(<[u8; 16]>::try_from(payload).ok()?))
}

/// Asks for all objects of a kind.
pub fn dump<T>(
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
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found_and_nothing_else() {
        let mut socket = Socket::open().unwrap();
        let link = find(&mut socket, "lo").unwrap().unwrap();
        assert_eq!((link.name.as_str(), link.mac.len()), ("lo", 6));
        assert_eq!(find(&mut socket, "silo-none").unwrap(), None);
    }
}
