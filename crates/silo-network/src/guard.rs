//! What an adapter may send: its own hardware address and its own addresses, in ARP and neighbour discovery too.
//!
//! The rules stand in a table of the family `bridge`, before a frame comes to the bridge or teaches it anything: a container that
//! crafts frames (`NET_RAW`) speaks for nobody else. Which adapter has what is in sets, so that an adapter is one transaction of a
//! few elements.

use std::net::{IpAddr, Ipv6Addr};

use silo_sys::links::header;
use silo_sys::netlink::Message;

use crate::firewall_elements::{Element, Family, Part, Set, declare};
use crate::mac::MacAddress;

const fn set(name: &'static str, kind: &'static str) -> Set {
    Set { family: Family::Bridge, name, form: "set", kind }
}

/// Adapters that are guarded.
const PORTS: Set = set("adapters", "type ifname");
/// Adapters of networks without communication among containers.
const LONELY: Set = set("lonely", "type ifname");
const MACS: Set = set("macs", "type ifname . ether_addr");
const IPV4: Set = set("ipv4", "type ifname . ipv4_addr");
const IPV6: Set = set("ipv6", "type ifname . ipv6_addr");
/// The same addresses where neighbour discovery names them: nft before 1.0.8 has no word for that field.
const TARGETS: Set = set("targets", "typeof iifname . @th,64,128");
/// What most frames are told by, in one look instead of six: hardware address and address of adapters that reach their neighbours.
const KNOWN: Set = set("known", "type ifname . ether_addr . ipv4_addr");
/// Bridges' own hardware addresses.
const GATES: Set = set("gates", "type ether_addr");
const SETS: [Set; 8] = [PORTS, LONELY, GATES, KNOWN, MACS, IPV4, IPV6, TARGETS];

const RTM_NEWLINK: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_GROUP_FWD_MASK: u16 = 9;
/// 01:80:c2:00:00:0e, of LLDP.
const DISCOVERY: u16 = 1 << 0xe;

/// Has a bridge treat frames for 01:80:c2:00:00:0e as any other: usually it learns from them, whoever sends them, before any rule.
pub(crate) fn watch_discovery(bridge: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, 0, &header(bridge, 0, 0));
    message.nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "bridge").nested(IFLA_INFO_DATA, |data| {
            data.attribute(IFLA_BR_GROUP_FWD_MASK, &DISCOVERY.to_ne_bytes());
        });
    });
    message
}

/// What an adapter is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    /// The host's end of its pair, a port of a bridge.
    pub(crate) host_interface: String,
    pub(crate) mac: MacAddress,
    /// All its addresses but the link-local one that the kernel makes from `mac`.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it reaches its neighbours on the bridge.
    pub(crate) icc: bool,
    /// Whether it may send what is not its own, too (`silo.guard=false`).
    pub(crate) trusted: bool,
}

/// What the kernel makes of a hardware address (RFC 4291, modified EUI-64).
fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

impl Guard {
    pub(crate) fn elements(&self) -> Vec<Element> {
        let port = Part::Interface(self.host_interface.clone());
        let element = |set, parts: &[Part]| Element {
            set,
            key: [std::slice::from_ref(&port), parts].concat(),
            value: Vec::new(),
        };
        let mut elements = Vec::new();
        if !self.icc {
            elements.push(element(LONELY, &[]));
        }
        if self.trusted {
            return elements;
        }
        let mac = Part::Mac(self.mac.0);
        elements.extend([element(PORTS, &[]), element(MACS, std::slice::from_ref(&mac))]);
        // An adapter without an IPv6 address has no use for the link-local one.
        let link_local = self.addresses.iter().any(IpAddr::is_ipv6).then(|| link_local(self.mac).into());
        for address in self.addresses.iter().copied().chain(link_local) {
            match address {
                IpAddr::V4(_) => {
                    elements.push(element(IPV4, &[Part::Ip(address)]));
                    if self.icc {
                        elements.push(element(KNOWN, &[mac.clone(), Part::Ip(address)]));
                    }
                }
                IpAddr::V6(ip) => {
                    elements.push(element(IPV6, &[Part::Ip(address)]));
                    elements.push(element(TARGETS, &[Part::Number(ip)]));
                }
            }
        }
        elements
    }
}

/// The table's text.
pub(crate) fn table(name: &str, guards: &[&Guard], gates: &[[u8; 6]]) -> String {
    let mut elements: Vec<Element> = guards.iter().flat_map(|g| g.elements()).collect();
    elements.extend(gates.iter().map(|mac| Element {
        set: GATES,
        key: vec![Part::Mac(*mac)],
        value: Vec::new(),
    }));
    let sets: String = SETS.into_iter().map(|set| declare(set, &elements)).collect();
    format!(
        r#"table bridge {name} {{
{sets}  chain prerouting {{
    type filter hook prerouting priority -250; policy accept;
    ether type ip meta l4proto tcp iifname . ether saddr . ip saddr @known accept
    # Not by where it goes out: what the host translates for a neighbour goes there by the bridge, too.
    iifname @lonely ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether daddr != @gates drop
    iifname @adapters jump guard
  }}
  chain input {{
    type filter hook input priority -250; policy accept;
    # Frames for the bridge itself do not pass the chain above, but teach it addresses.
    iifname @adapters ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop
  }}
  chain forward {{
    type filter hook forward priority -250; policy accept;
    iifname @lonely oifname @lonely ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop
  }}
  chain guard {{
    iifname . ether saddr != @macs drop
    ether type vmap {{ arp : jump guard_arp, ip : jump guard_ip, ip6 : jump guard_ip6 }}
    drop
  }}
  chain guard_arp {{
    arp htype != 1 drop
    arp ptype != 0x0800 drop
    iifname . arp saddr ether != @macs drop
    iifname . arp saddr ip @ipv4 accept
    # Whether its own address is free.
    arp operation request arp saddr ip 0.0.0.0 iifname . arp daddr ip @ipv4 accept
    drop
  }}
  chain guard_ip {{
    # Answers of a DHCP server, another way out.
    udp sport 67 drop
    icmp type redirect drop
    iifname . ip saddr @ipv4 accept
    drop
  }}
  chain guard_ip6 {{
    icmpv6 type {{ nd-router-advert, nd-redirect }} drop
    udp sport 547 drop
    icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets drop
    iifname . ip6 saddr @ipv6 accept
    # Before it has an address: whether its own is free, and which groups it is in.
    ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets accept
    ip6 saddr :: icmpv6 type mld2-listener-report accept
    drop
  }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_has_its_own_addresses_only() {
        let mut guard = Guard {
            host_interface: "sv0".into(),
            mac: MacAddress([0x02, 0x42, 0xac, 0x11, 0, 2]),
            addresses: vec!["172.17.0.2".parse().unwrap()],
            icc: true,
            trusted: false,
        };
        assert_eq!(guard.elements().len(), 4);
        guard.addresses.push("fd00::2".parse().unwrap());
        guard.icc = false;
        let text = table("silo_t", &[&guard], &[[2, 0x42, 0xac, 0x11, 0, 1]]);
        for part in [
            "elements = { \"sv0\" . 02:42:ac:11:00:02 }",
            "elements = { \"sv0\" . 172.17.0.2 }",
            "elements = { \"sv0\" . fd00::2, \"sv0\" . fe80::42:acff:fe11:2 }",
            "elements = { 02:42:ac:11:00:01 }",
            "set lonely {\n    type ifname;\n    elements = { \"sv0\" }",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        guard.trusted = true;
        let sets: Vec<&str> = guard.elements().iter().map(|e| e.set.name).collect();
        assert_eq!(sets, ["lonely"]);
    }
}
