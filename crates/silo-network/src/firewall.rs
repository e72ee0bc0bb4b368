//! The nftables table: address translation and forwarding for one bridge, always replaced as a whole in one transaction.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output, Stdio};

use crate::error::{NetworkError, Result};
use crate::mac::MacAddress;
use crate::options::GatewayMode;
use crate::subnet::IpSubnet;

/// A daemon's PATH need not hold the administrator's programs.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// What the table must know of one bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) struct BridgeRules {
    pub(crate) interface: String,
    pub(crate) subnets: Vec<IpSubnet>,
    /// The host's addresses on it.
    pub(crate) gateways: Vec<IpAddr>,
    /// No way out and none in.
    pub(crate) internal: bool,
    /// Whether its containers reach each other.
    pub(crate) icc: bool,
    /// Whether its containers are hidden behind the host's address.
    pub(crate) masquerade: bool,
    /// Where ports are published that name no address of the host.
    pub(crate) host_binding: Option<IpAddr>,
    /// Of IPv4, of IPv6.
    pub(crate) gateway_mode: [GatewayMode; 2],
}

/// What an adapter may send: its own hardware address and addresses, ARP and neighbour discovery included.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) struct Guard {
    pub(crate) host_interface: String,
    pub(crate) mac: MacAddress,
    pub(crate) addresses: Vec<IpAddr>,
}

#[allow(dead_code)]
/// Lets an adapter send only what is its own.
pub(crate) fn guard(_table: &str, _guard: &Guard) -> Result<()> {
    Ok(())
}

#[allow(dead_code)]
/// Forgets the guard of an adapter that is gone.
pub(crate) fn unguard(_table: &str, _host_interface: &str) -> Result<()> {
    Ok(())
}

/// A published port, as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) protocol: &'static str,
    /// `0.0.0.0`: all of the host's.
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) host_port: u16,
    pub(crate) to: Ipv4Addr,
    pub(crate) to_port: u16,
}

fn table(bridge: &str) -> String {
    format!("silo_{bridge}")
}

/// The script that puts the table in place of what there was.
pub(crate) fn script(table: &str, bridges: &[BridgeRules], forwards: &[Forward]) -> String {
    let mut parts = [const { String::new() }; 3];
    for rules in bridges {
        let bridge = &rules.interface;
        let _ = writeln!(parts[0], "    iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop");
        for subnet in rules.subnets.iter().filter(|s| !s.is_ipv6()) {
            let _ = write!(
                parts[1],
                r#"    ip saddr {subnet} oifname != "{bridge}" masquerade
    # A container that calls a published port of the host: the answer must come back through the host.
    oifname "{bridge}" ip saddr {subnet} ct status dnat masquerade
"#
            );
        }
        let _ = writeln!(parts[1], "    oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade");
        let _ = write!(
            parts[2],
            r#"    iifname "{bridge}" accept
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" ct status dnat accept
    # From outside only published ports are reached, as with dockerd.
    oifname "{bridge}" drop
"#
        );
    }
    let [loopback, translate, pass] = parts;
    let (mut prerouting, mut output) = (String::new(), String::new());
    for forward in forwards {
        let Forward { protocol, host_port, to, to_port, .. } = forward;
        let matched = match forward.host_ip {
            ip if ip.is_unspecified() => "fib daddr type local".to_owned(),
            ip => format!("ip daddr {ip}"),
        };
        let rule = format!("    {matched} {protocol} dport {host_port} dnat to {to}:{to_port}\n");
        output.push_str(&rule);
        // Nobody but the host itself reaches its loopback.
        if !forward.host_ip.is_loopback() {
            prerouting.push_str(&rule);
        }
    }
    let mut text = String::new();
    // `add` first: deleting a table that is missing would undo the whole transaction.
    let _ = write!(
        text,
        r#"add table ip {table}
delete table ip {table}
table ip {table} {{
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    # Publishing on loopback makes the kernel route 127.0.0.0/8 on the bridge: containers must not use that.
{loopback}  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
{prerouting}  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{output}  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
{translate}  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
{pass}  }}
}}
"#
    );
    text
}

/// Replaces the table.
pub(crate) fn replace(bridge: &str, bridges: &[BridgeRules], forwards: &[Forward]) -> Result<()> {
    let table = table(bridge);
    run(&["-f", "-"], &script(&table, bridges, forwards))
        .map_err(|reason| NetworkError::Firewall { doing: format!("set up table {table}"), reason })
}

/// Whether the table is there.
pub(crate) fn present(bridge: &str) -> bool {
    run(&["list", "table", "ip", &table(bridge)], "").is_ok()
}

/// Removes the table, if there is one.
pub(crate) fn remove(bridge: &str) -> Result<()> {
    let table = table(bridge);
    run(&["-f", "-"], &format!("add table ip {table}\ndelete table ip {table}\n"))
        .map_err(|reason| NetworkError::Firewall { doing: format!("remove table {table}"), reason })
}

/// Runs nft; the error is its words.
fn run(args: &[&str], input: &str) -> std::result::Result<(), String> {
    for program in PROGRAMS {
        match output(program, args, input) {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(if words.is_empty() { output.status.to_string() } else { words });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{program}: {error}")),
        }
    }
    Err("the program nft is not installed".to_owned())
}

fn output(program: &str, args: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // nft reads its whole input before it says anything, so this cannot block both sides. That it ended without reading is
    // told by its exit status.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_ports_are_for_the_host_only() {
        let forward = |host_ip: [u8; 4], host_port| Forward {
            protocol: "tcp",
            host_ip: host_ip.into(),
            host_port,
            to: Ipv4Addr::new(172, 17, 0, 2),
            to_port: 80,
        };
        let forwards =
            [forward([0, 0, 0, 0], 8080), forward([127, 0, 0, 1], 8081), forward([10, 0, 0, 9], 8082)];
        let rules = BridgeRules {
            interface: "silo0".to_owned(),
            subnets: vec!["172.17.0.0/16".parse().unwrap()],
            gateways: vec![],
            internal: false,
            icc: true,
            masquerade: true,
            host_binding: None,
            gateway_mode: [GatewayMode::Nat; 2],
        };
        let text = script("silo_silo0", &[rules], &forwards);
        let count = |rule: &str| text.matches(rule).count();
        assert_eq!(count("fib daddr type local tcp dport 8080 dnat to 172.17.0.2:80\n"), 2);
        assert_eq!(count("ip daddr 127.0.0.1 tcp dport 8081 dnat to 172.17.0.2:80\n"), 1);
        assert_eq!(count("ip daddr 10.0.0.9 tcp dport 8082 dnat to 172.17.0.2:80\n"), 2);
        assert!(text.contains("ip saddr 172.17.0.0/16 oifname != \"silo0\" masquerade"), "{text}");
    }
}
