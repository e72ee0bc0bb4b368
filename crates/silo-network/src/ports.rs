//! Host ports: which are ours, each held by a socket so that no other program of the host takes it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use crate::firewall::Forward;
use crate::options::GatewayMode;
use crate::ports_hold::{has_ipv6, hold};
use crate::ports_proxy::{Proxied, Proxy};
use crate::ports_request::{Wish, transport};
use crate::record::PublishedPort;

/// How often a number that the kernel chose for one address may be taken on another.
const TRIES: usize = 64;

/// Why a port could not be had.
#[derive(Debug)]
pub(crate) enum Refusal {
    Taken(IpAddr, u16),
    RangeTaken(IpAddr, u16, u16),
    Bind(IpAddr, u16, &'static str, io::Error),
    Proxy(io::Error),
    SctpFamily(IpAddr),
}

impl std::fmt::Display for Refusal {
    /// dockerd's words, where it has them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken(ip, port) => write!(f, "Bind for {ip}:{port} failed: port is already allocated"),
            Self::RangeTaken(ip, first, last) => {
                write!(f, "Bind for {ip}:{first}-{last} failed: all ports are allocated")
            }
            Self::Bind(ip, port, protocol, error) => {
                let reason = match error.kind() {
                    io::ErrorKind::AddrInUse => "address already in use".to_owned(),
                    io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
                    _ => error.to_string(),
                };
                let host = std::net::SocketAddr::new(*ip, *port);
                write!(f, "failed to bind host port {host}/{protocol}: {reason}")
            }
            Self::Proxy(error) => write!(f, "failed to start userland proxy: {error}"),
            Self::SctpFamily(ip) => {
                write!(f, "sctp cannot be published on {ip}: the container has no IPv6 address")
            }
        }
    }
}

/// Where a container's ports lead, and what its network says about them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Target {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// Where ports are published that name no address of the host.
    pub(crate) host_binding: Option<IpAddr>,
    /// Of IPv4, of IPv6.
    pub(crate) gateway_mode: [GatewayMode; 2],
}

impl Target {
    /// The host's addresses that a wish is for, each with the container's address behind it.
    fn expand(&self, wish: &Wish, ipv6: bool) -> Result<Vec<(IpAddr, IpAddr)>, Refusal> {
        let (four, six) = (self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6));
        let default = self.host_binding.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let mut hosts = vec![wish.host_ip.unwrap_or(default)];
        if wish.host_ip.is_none() && default == Ipv4Addr::UNSPECIFIED && ipv6 {
            hosts.push(Ipv6Addr::UNSPECIFIED.into());
        }
        let mut pairs = Vec::new();
        for host in hosts {
            let same = if host.is_ipv4() { four } else { six };
            let Some(to) = same.or(four.filter(|_| host.is_ipv6())) else { continue };
            // No proxy speaks it, and nftables does not translate between the families.
            if wish.protocol == "sctp" && host.is_ipv4() != to.is_ipv4() {
                if wish.host_ip.is_some() {
                    return Err(Refusal::SctpFamily(host));
                }
                continue;
            }
            pairs.push((host, to));
        }
        Ok(pairs)
    }

    /// Whether ports of this family are opened instead of translated.
    fn routed(&self, to: IpAddr) -> bool {
        self.gateway_mode[usize::from(to.is_ipv6())] == GatewayMode::Routed
    }
}

/// A port of ours.
#[derive(Debug)]
struct Claim {
    forward: Forward,
    /// `None`: the proxy has it, or the kernel has no such protocol, or another program took the port while no daemon of ours
    /// ran.
    _holder: Option<OwnedFd>,
}

/// The ports of one container.
#[derive(Debug, Default)]
struct Claims {
    list: Vec<Claim>,
    /// Serves what is not translated.
    _proxy: Option<Proxy>,
}

/// All published ports, by container.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    claims: BTreeMap<String, Claims>,
}

impl Ports {
    /// Takes the wished ports for a container that has none, all or none.
    pub(crate) fn claim(
        &mut self,
        container: &str,
        target: &Target,
        mut wishes: Vec<Wish>,
    ) -> Result<Vec<PublishedPort>, Refusal> {
        wishes.sort();
        wishes.dedup();
        let ipv6 = !wishes.is_empty() && has_ipv6();
        let mut made: Vec<(Forward, Option<OwnedFd>)> = Vec::new();
        for group in wishes.chunk_by(Wish::same_port) {
            let mut pairs = Vec::new();
            for wish in group {
                pairs.extend(target.expand(wish, ipv6)?);
            }
            pairs.sort();
            pairs.dedup();
            self.claim_group(target, &group[0], pairs, &mut made)?;
        }
        let published = made.iter().map(|(forward, _)| published(forward)).collect();
        let claims = claims(made).map_err(Refusal::Proxy)?;
        self.claims.insert(container.to_owned(), claims);
        Ok(published)
    }

    /// One host port on each of these addresses.
    fn claim_group(
        &self,
        target: &Target,
        wish: &Wish,
        pairs: Vec<(IpAddr, IpAddr)>,
        made: &mut Vec<(Forward, Option<OwnedFd>)>,
    ) -> Result<(), Refusal> {
        let forward = |(host_ip, to), host_port| {
            let Wish { protocol, container_port: to_port, .. } = *wish;
            Forward { protocol, host_ip, host_port, to, to_port }
        };
        let (routed, pairs): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|(host, to)| target.routed(*to) && host.is_ipv4() == to.is_ipv4());
        made.extend(routed.into_iter().map(|pair| (forward(pair, 0), None)));
        let Some(first_pair) = pairs.first() else { return Ok(()) };
        let (first, last) = wish.host_ports;
        let candidates: Vec<u16> = if first == 0 { vec![0; TRIES] } else { (first..=last).collect() };
        let mut refusal = Refusal::RangeTaken(first_pair.0, first, last);
        for candidate in candidates {
            match self.claim_port(wish.protocol, &pairs, candidate, made) {
                Ok((port, holders)) => {
                    let forwards = pairs.iter().map(|pair| forward(*pair, port));
                    made.extend(forwards.zip(holders));
                    return Ok(());
                }
                Err(Refusal::Bind(ip, port, protocol, error)) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(Refusal::Bind(ip, port, protocol, error));
                }
                Err(other) if first == last && first != 0 => return Err(other),
                Err(other) if first == 0 => refusal = other,
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    fn claim_port(
        &self,
        protocol: &'static str,
        pairs: &[(IpAddr, IpAddr)],
        wished: u16,
        made: &[(Forward, Option<OwnedFd>)],
    ) -> Result<(u16, Vec<Option<OwnedFd>>), Refusal> {
        let mut port = wished;
        let mut holders = Vec::new();
        for (ip, _) in pairs {
            let ours = |port| {
                let others = self.claims.values().flat_map(|c| &c.list).map(|c| &c.forward);
                others.chain(made.iter().map(|(f, _)| f)).any(|f| clashes(f, protocol, *ip, port))
            };
            if port != 0 && ours(port) {
                return Err(Refusal::Taken(*ip, port));
            }
            let (bound, holder) =
                hold(protocol, *ip, port).map_err(|e| Refusal::Bind(*ip, port, protocol, e))?;
            if port == 0 && ours(bound) {
                return Err(Refusal::Taken(*ip, bound));
            }
            port = bound;
            holders.push(holder);
        }
        Ok((port, holders))
    }

    /// Takes ports that were published before a restart of the daemon; those that somebody else holds by now stay forwarded.
    pub(crate) fn readopt(&mut self, container: &str, target: &Target, ports: &[PublishedPort]) {
        let (four, six) = (target.ipv4.map(IpAddr::V4), target.ipv6.map(IpAddr::V6));
        let made = ports.iter().filter_map(|port| {
            let protocol = transport(&port.protocol)?;
            let host_ip: IpAddr = port.host_ip.parse().ok()?;
            let same = if host_ip.is_ipv4() { four } else { six };
            let to = same.or(four.filter(|_| host_ip.is_ipv6()))?;
            let holder = match port.host_port {
                0 => None,
                wished => match hold(protocol, host_ip, wished) {
                    Ok((_, holder)) => holder,
                    Err(e) => {
                        tracing::warn!("holding {host_ip}:{wished}/{protocol} of {container}: {e}");
                        None
                    }
                },
            };
            let to_port = port.container_port;
            Some((Forward { protocol, host_ip, host_port: port.host_port, to, to_port }, holder))
        });
        match claims(made.collect()) {
            Ok(claims) => {
                self.claims.insert(container.to_owned(), claims);
            }
            Err(e) => tracing::warn!("ports of {container}: {e}"),
        }
    }

    /// Lets go of a container's ports; which those were.
    pub(crate) fn release(&mut self, container: &str) -> Vec<Forward> {
        let claims = self.claims.remove(container).unwrap_or_default();
        claims.list.into_iter().map(|c| c.forward).collect()
    }

    /// Lets go of all.
    pub(crate) fn clear(&mut self) {
        self.claims.clear();
    }

    /// What a container has.
    pub(crate) fn forwards(&self, container: &str) -> Vec<Forward> {
        self.claims
            .get(container)
            .map(|c| c.list.iter().map(|c| c.forward.clone()).collect())
            .unwrap_or_default()
    }
}

/// Whether a port is a published one. The sockets tell it too, but not for a protocol without sockets.
fn clashes(have: &Forward, protocol: &str, ip: IpAddr, port: u16) -> bool {
    have.protocol == protocol
        && have.host_port == port
        && have.host_ip.is_ipv4() == ip.is_ipv4()
        && (have.host_ip == ip || have.host_ip.is_unspecified() || ip.is_unspecified())
}

/// Starts what serves what nftables does not.
fn claims(made: Vec<(Forward, Option<OwnedFd>)>) -> io::Result<Claims> {
    let mut proxied = Vec::new();
    let list = made
        .into_iter()
        .map(|(forward, holder)| {
            let by_proxy = forward.protocol != "sctp";
            match holder {
                Some(socket) if by_proxy => {
                    let to = (forward.to, forward.to_port).into();
                    proxied.push(Proxied { socket, datagrams: forward.protocol == "udp", to });
                    Claim { forward, _holder: None }
                }
                holder => Claim { forward, _holder: holder },
            }
        })
        .collect();
    let proxy = if proxied.is_empty() { None } else { Some(Proxy::start(proxied)?) };
    Ok(Claims { list, _proxy: proxy })
}

fn published(forward: &Forward) -> PublishedPort {
    PublishedPort {
        container_port: forward.to_port,
        protocol: forward.protocol.to_owned(),
        host_ip: forward.host_ip.to_string(),
        host_port: forward.host_port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::PortRequest;

    const TO: Target = Target {
        ipv4: Some(Ipv4Addr::new(172, 17, 0, 2)),
        ipv6: None,
        host_binding: None,
        gateway_mode: [GatewayMode::Nat; 2],
    };

    fn wish(protocol: &str, host_ip: &str, host_ports: (u16, u16)) -> Wish {
        let (protocol, host_ip) = (protocol.to_owned(), host_ip.to_owned());
        Wish::new(&PortRequest { container_port: 80, protocol, host_ip, host_ports }).unwrap()
    }

    fn hosts(published: &[PublishedPort]) -> Vec<&str> {
        published.iter().map(|p| p.host_ip.as_str()).collect()
    }

    #[test]
    fn a_port_is_given_once_and_all_or_none() {
        let mut ports = Ports::default();
        let any = wish("tcp", "127.0.0.1", (0, 0));
        let port = ports.claim("a", &TO, vec![any]).unwrap()[0].host_port;
        let same = wish("tcp", "127.0.0.1", (port, port));
        let refused = ports.claim("b", &TO, vec![any, same]).unwrap_err().to_string();
        assert_eq!(refused, format!("Bind for 127.0.0.1:{port} failed: port is already allocated"));
        assert!(ports.forwards("b").is_empty());
        // Another transport has numbers of its own, and a port that is let go is free.
        ports.claim("c", &TO, vec![wish("udp", "127.0.0.1", (port, port))]).unwrap();
        assert_eq!(ports.release("a").len(), 1);
        assert!(ports.release("a").is_empty());
        ports.claim("b", &TO, vec![same]).unwrap();
    }

    #[test]
    fn other_programs_ports_are_not_taken() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mut ports = Ports::default();
        let refused = ports.claim("a", &TO, vec![wish("tcp", "127.0.0.1", (port, port))]).unwrap_err();
        let words = format!("failed to bind host port 127.0.0.1:{port}/tcp: address already in use");
        assert_eq!(refused.to_string(), words);
        // Of a range another one is found.
        let range = wish("tcp", "127.0.0.1", (port, port.saturating_add(20)));
        assert_ne!(ports.claim("a", &TO, vec![range]).unwrap()[0].host_port, port);
    }

    #[test]
    fn no_address_means_both_families_on_one_port() {
        let mut ports = Ports::default();
        let both = ports.claim("a", &TO, vec![wish("tcp", "", (0, 0))]).unwrap();
        if has_ipv6() {
            assert_eq!(hosts(&both), ["0.0.0.0", "::"]);
            assert_eq!(both[0].host_port, both[1].host_port);
            let port = both[0].host_port;
            let refused = ports.claim("b", &TO, vec![wish("tcp", "::1", (port, port))]).unwrap_err();
            assert_eq!(refused.to_string(), format!("Bind for ::1:{port} failed: port is already allocated"));
        }
        // What the network's option says takes its place; an address given is that alone.
        let bound = Target { host_binding: Some(Ipv4Addr::LOCALHOST.into()), ..TO };
        assert_eq!(hosts(&ports.claim("c", &bound, vec![wish("tcp", "", (0, 0))]).unwrap()), ["127.0.0.1"]);
        let routed = Target { gateway_mode: [GatewayMode::Routed; 2], ..TO };
        let open = ports.claim("d", &routed, vec![wish("tcp", "0.0.0.0", (0, 0))]).unwrap();
        assert_eq!((open[0].host_port, open.len()), (0, 1));
    }

    #[test]
    fn sctp_of_ipv6_needs_a_container_with_ipv6() {
        let mut ports = Ports::default();
        let implied = ports.claim("a", &TO, vec![wish("sctp", "", (0, 0))]).unwrap();
        assert_eq!(hosts(&implied), ["0.0.0.0"]);
        let refused = ports.claim("b", &TO, vec![wish("sctp", "::", (7, 7))]).unwrap_err();
        assert!(matches!(refused, Refusal::SctpFamily(_)), "{refused}");
    }
}
