//! The text of the table for packets: who may talk to whom, what is translated into what.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::firewall_elements::{Element, Family, Part, Set, declare};
use crate::options::GatewayMode;
use crate::subnet::IpSubnet;

const fn set(form: &'static str, name: &'static str, kind: &'static str) -> Set {
    Set { family: Family::Inet, name, form, kind }
}

/// Bridges of ours.
const BRIDGES: Set = set("set", "bridges", "type ifname");
/// Ports of one address of the host.
const ONE4: Set = set("map", "one4", "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service");
const ONE6: Set = set("map", "one6", "type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service");
/// Ports of all addresses of the host.
const ANY4: Set = set("map", "any4", "type inet_proto . inet_service : ipv4_addr . inet_service");
const ANY6: Set = set("map", "any6", "type inet_proto . inet_service : ipv6_addr . inet_service");
/// Ports of the host that lead back to the container that asks: the bridge would have to send its frames back where they came from.
/// They are left to the daemon's proxy.
const SELF4: Set = set("set", "self4", "type ipv4_addr . inet_proto . inet_service");
const SELF6: Set = set("set", "self6", "type ipv6_addr . inet_proto . inet_service");
/// Containers' ports that may be reached without translation.
const OPEN4: Set = set("set", "open4", "type ipv4_addr . inet_proto . inet_service");
const OPEN6: Set = set("set", "open6", "type ipv6_addr . inet_proto . inet_service");

/// What the rules must know of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    pub(crate) interface: String,
    pub(crate) subnets: Vec<IpSubnet>,
    /// The host's addresses on it.
    pub(crate) gateways: Vec<IpAddr>,
    /// Nothing comes out and nothing in.
    pub(crate) internal: bool,
    /// Whether its containers reach each other beside published ports.
    pub(crate) icc: bool,
    /// Whether the host's address takes the place of a container's on the way out.
    pub(crate) masquerade: bool,
    /// Where ports are published that name no address of the host.
    pub(crate) host_binding: Option<IpAddr>,
    /// Of IPv4, of IPv6.
    pub(crate) gateway_mode: [GatewayMode; 2],
}

/// A published port, as the table has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Forward {
    pub(crate) protocol: &'static str,
    /// `0.0.0.0`, `::`: all of the host's of that family.
    pub(crate) host_ip: IpAddr,
    /// 0: not translated; the container's own port is open (gateway mode `routed`).
    pub(crate) host_port: u16,
    pub(crate) to: IpAddr,
    pub(crate) to_port: u16,
}

impl Forward {
    /// What the tables hold of it; nothing of what nftables cannot do, another family.
    pub(crate) fn elements(&self) -> Vec<Element> {
        let Self { protocol, host_ip, host_port, to, to_port } = self;
        let four = to.is_ipv4();
        let of_container = |set, port: u16| Element {
            set,
            key: vec![Part::Ip(*to), Part::Protocol(protocol), Part::Port(port)],
            value: Vec::new(),
        };
        if *host_port == 0 {
            return vec![of_container(if four { OPEN4 } else { OPEN6 }, *to_port)];
        }
        if host_ip.is_ipv4() != four {
            return Vec::new();
        }
        let port = [Part::Protocol(protocol), Part::Port(*host_port)];
        let (set, key) = match (host_ip.is_unspecified(), four) {
            (true, true) => (ANY4, port.to_vec()),
            (true, false) => (ANY6, port.to_vec()),
            (false, four) => {
                let key = std::iter::once(Part::Ip(*host_ip)).chain(port).collect();
                (if four { ONE4 } else { ONE6 }, key)
            }
        };
        let translated = Element { set, key, value: vec![Part::Ip(*to), Part::Port(*to_port)] };
        vec![translated, of_container(if four { SELF4 } else { SELF6 }, *host_port)]
    }
}

/// The table's text.
pub(crate) fn table<'a>(
    name: &str,
    bridges: impl Iterator<Item = &'a BridgeRules> + Clone,
    forwards: impl Iterator<Item = &'a Forward>,
) -> String {
    let mut elements: Vec<Element> = forwards.flat_map(Forward::elements).collect();
    elements.extend(bridges.clone().map(|bridge| Element {
        set: BRIDGES,
        key: vec![Part::Interface(bridge.interface.clone())],
        value: Vec::new(),
    }));
    let sets: String = [BRIDGES, ONE4, ONE6, ANY4, ANY6, SELF4, SELF6, OPEN4, OPEN6]
        .into_iter()
        .map(|set| declare(set, &elements))
        .collect();
    let (mut input, mut behind, mut chains) = (String::new(), String::new(), String::new());
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for bridge in bridges {
        input.push_str(&internal_input(bridge));
        behind.push_str(&translated_sources(bridge));
        chains.push_str(&chain_to(bridge));
        let interface = &bridge.interface;
        if bridge.internal {
            from.push(format!("\"{interface}\" : jump from_{interface}"));
            let _ =
                write!(chains, "  chain from_{interface} {{\n    oifname != \"{interface}\" drop\n  }}\n");
        }
        to.push(format!("\"{interface}\" : jump to_{interface}"));
    }
    let jumps = |key: &str, list: &[String]| match list {
        [] => String::new(),
        list => format!("    {key} vmap {{ {} }}\n", list.join(", ")),
    };
    let (from, to) = (jumps("iifname", &from), jumps("oifname", &to));
    format!(
        r#"table inet {name} {{
{sets}  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    # Publishing on loopback makes the kernel route 127.0.0.0/8 on the bridges: containers must not use that.
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
    iifname @bridges ip6 daddr ::1 drop
    iifname @bridges ip6 saddr ::1 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    # Nobody but the host itself reaches its loopback.
    ip daddr 127.0.0.0/8 accept
    ip6 daddr ::1 accept
    ip saddr . meta l4proto . th dport @self4 accept
    ip6 saddr . meta l4proto . th dport @self6 accept
    jump published
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    # The kernel brings no answer back to ::1 from elsewhere; the daemon's own proxy does.
    ip6 daddr ::1 accept
    jump published
  }}
  chain published {{
    dnat ip to ip daddr . meta l4proto . th dport map @one4
    fib daddr type local dnat ip to meta l4proto . th dport map @any4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @one6
    fib daddr type local dnat ip6 to meta l4proto . th dport map @any6
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
{behind}  }}
  chain input {{
    type filter hook input priority filter; policy accept;
{input}  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
{from}{to}  }}
{chains}}}
"#
    )
}

fn modes(bridge: &BridgeRules) -> [(&'static str, bool, GatewayMode); 2] {
    let [four, six] = bridge.gateway_mode;
    [("ipv4", false, four), ("ipv6", true, six)]
}

/// What comes to a bridge from the host or from elsewhere through the host.
fn chain_to(bridge: &BridgeRules) -> String {
    let interface = &bridge.interface;
    let mut text = format!("  chain to_{interface} {{\n");
    if bridge.icc {
        let _ = writeln!(text, "    iifname \"{interface}\" accept");
    }
    if !bridge.internal {
        text.push_str("    ct state established,related accept\n    ct status dnat accept\n");
        for (family, six, mode) in modes(bridge) {
            let _ = match (mode, six) {
                (GatewayMode::NatUnprotected, _) => writeln!(text, "    meta nfproto {family} accept"),
                (GatewayMode::Routed, false) => writeln!(
                    text,
                    "    icmp type echo-request accept\n    ip daddr . meta l4proto . th dport @open4 accept"
                ),
                (GatewayMode::Routed, true) => writeln!(
                    text,
                    "    icmpv6 type echo-request accept\n    ip6 daddr . meta l4proto . th dport @open6 accept"
                ),
                (GatewayMode::Nat | GatewayMode::Isolated, _) => Ok(()),
            };
        }
    }
    // From outside and from other networks only published ports are reached, as with dockerd.
    text.push_str("    drop\n  }\n");
    text
}

/// An internal network's containers reach the host at its address on their bridge, and at none of its others.
fn internal_input(bridge: &BridgeRules) -> String {
    if !bridge.internal {
        return String::new();
    }
    let interface = &bridge.interface;
    let list = |six: bool, always: &[&str]| {
        let own = bridge.gateways.iter().filter(|g| g.is_ipv6() == six).map(ToString::to_string);
        own.chain(always.iter().map(ToString::to_string)).collect::<Vec<_>>().join(", ")
    };
    let four = match list(false, &[]) {
        none if none.is_empty() => format!("    iifname \"{interface}\" meta nfproto ipv4 drop\n"),
        own => format!("    iifname \"{interface}\" ip daddr != {{ {own} }} drop\n"),
    };
    let six = list(true, &["fe80::/10", "ff02::/16"]);
    format!("{four}    iifname \"{interface}\" ip6 daddr != {{ {six} }} drop\n")
}

/// Whose addresses the host takes the place of.
fn translated_sources(bridge: &BridgeRules) -> String {
    let interface = &bridge.interface;
    let mut text = String::new();
    if bridge.internal {
        return text;
    }
    for subnet in &bridge.subnets {
        let (word, mode) = match subnet.is_ipv6() {
            false => ("ip", bridge.gateway_mode[0]),
            true => ("ip6", bridge.gateway_mode[1]),
        };
        if bridge.masquerade && matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected) {
            let _ = writeln!(text, "    {word} saddr {subnet} oifname != \"{interface}\" masquerade");
        }
        // A container that calls a published port of the host: the answer must come back through the host.
        let _ = writeln!(text, "    oifname \"{interface}\" {word} saddr {subnet} ct status dnat masquerade");
    }
    let _ = writeln!(text, "    oifname \"{interface}\" ip saddr 127.0.0.0/8 masquerade");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(interface: &str) -> BridgeRules {
        BridgeRules {
            interface: interface.into(),
            subnets: vec!["172.17.0.0/16".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            gateways: vec!["172.17.0.1".parse().unwrap(), "fd00:1::1".parse().unwrap()],
            internal: false,
            icc: true,
            masquerade: true,
            host_binding: None,
            gateway_mode: [GatewayMode::Nat; 2],
        }
    }

    fn forward(host_ip: &str, host_port: u16, to: &str) -> Forward {
        let (host_ip, to) = (host_ip.parse().unwrap(), to.parse().unwrap());
        Forward { protocol: "tcp", host_ip, host_port, to, to_port: 80 }
    }

    #[test]
    fn ports_stand_in_the_map_of_their_address() {
        let forwards = [
            forward("0.0.0.0", 8080, "172.17.0.2"),
            forward("127.0.0.1", 8081, "172.17.0.2"),
            forward("::", 8080, "fd00:1::2"),
            forward("::", 8082, "172.17.0.2"),
            forward("0.0.0.0", 0, "172.17.0.3"),
        ];
        let text = table("silo_t", [bridge("silo0")].iter(), forwards.iter());
        for part in [
            "elements = { tcp . 8080 : 172.17.0.2 . 80 }",
            "elements = { 127.0.0.1 . tcp . 8081 : 172.17.0.2 . 80 }",
            "elements = { tcp . 8080 : fd00:1::2 . 80 }",
            "elements = { 172.17.0.3 . tcp . 80 }",
            "ip saddr 172.17.0.0/16 oifname != \"silo0\" masquerade",
            "ip6 saddr fd00:1::/64 oifname != \"silo0\" masquerade",
            "oifname vmap { \"silo0\" : jump to_silo0 }",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("8082") && !text.contains("from_"), "{text}");
    }

    #[test]
    fn options_of_a_network_are_rules() {
        let has = |change: &dyn Fn(&mut BridgeRules), part: &str| {
            let mut rules = bridge("br-1");
            change(&mut rules);
            table("silo_t", [rules].iter(), [].iter()).contains(part)
        };
        let masqueraded = "oifname != \"br-1\" masquerade";
        assert!(has(&|_| {}, "iifname \"br-1\" accept"));
        assert!(!has(&|r| r.icc = false, "iifname \"br-1\" accept"));
        assert!(!has(&|r| r.masquerade = false, masqueraded));
        assert!(!has(&|r| r.gateway_mode = [GatewayMode::Routed; 2], masqueraded));
        assert!(has(&|r| r.gateway_mode[1] = GatewayMode::Routed, "th dport @open6 accept"));
        assert!(has(&|r| r.gateway_mode[0] = GatewayMode::NatUnprotected, "meta nfproto ipv4 accept"));
        assert!(has(&|r| r.internal = true, "oifname != \"br-1\" drop"));
        assert!(has(&|r| r.internal = true, "iifname \"br-1\" ip daddr != { 172.17.0.1 } drop"));
        assert!(!has(&|r| r.internal = true, "ct status dnat"));
    }
}
