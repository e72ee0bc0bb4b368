//! Host ports: which are ours, each held by a socket so that no other program of the host takes it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::error::{NetworkError, Result};
use crate::firewall::Forward;
use crate::record::{PortRequest, PublishedPort};

/// Why a port could not be had.
#[derive(Debug)]
pub(crate) enum Refusal {
    Taken(Ipv4Addr, u16),
    RangeTaken(Ipv4Addr, u16, u16),
    Bind(Ipv4Addr, u16, io::Error),
}

impl std::fmt::Display for Refusal {
    /// dockerd's words.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken(ip, port) => write!(f, "Bind for {ip}:{port} failed: port is already allocated"),
            Self::RangeTaken(ip, first, last) => {
                write!(f, "Bind for {ip}:{first}-{last} failed: all ports are allocated")
            }
            Self::Bind(ip, port, error) => write!(f, "failed to bind host port for {ip}:{port}: {error}"),
        }
    }
}

/// A checked request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) container_port: u16,
    pub(crate) protocol: &'static str,
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) host_ports: (u16, u16),
}

impl Wish {
    pub(crate) fn new(request: &PortRequest) -> Result<Self> {
        let PortRequest { container_port, protocol, host_ip, host_ports: (first, last) } = request;
        let invalid = |reason| NetworkError::PortRequest {
            port: format!("{host_ip}:{first}-{last}:{container_port}/{protocol}"),
            reason,
        };
        let transport = transport(protocol).ok_or_else(|| invalid("the protocol is not tcp, udp or sctp"))?;
        if *container_port == 0 {
            return Err(invalid("port 0 cannot be published"));
        }
        // `0-0` is any port; a range from 0 would be any port and some others.
        if first > last || (*first == 0 && *last != 0) {
            return Err(invalid("the range of host ports runs backwards or begins at 0"));
        }
        let host_ip = match host_ip.as_str() {
            "" => Ipv4Addr::UNSPECIFIED,
            text => {
                text.parse().map_err(|_| invalid("only IPv4 addresses of the host can be published on"))?
            }
        };
        Ok(Self {
            container_port: *container_port,
            protocol: transport,
            host_ip,
            host_ports: (*first, *last),
        })
    }
}

fn transport(text: &str) -> Option<&'static str> {
    ["tcp", "udp", "sctp"].into_iter().find(|p| p.eq_ignore_ascii_case(text))
}

/// A port of ours.
#[derive(Debug)]
struct Claim {
    forward: Forward,
    /// Nothing is ever read from it: the packets are translated before they come to a socket. `None`: the kernel has no
    /// such protocol, or another program took the port while no daemon of ours ran.
    _holder: Option<OwnedFd>,
}

/// All published ports, by container.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    claims: BTreeMap<String, Vec<Claim>>,
}

impl Ports {
    /// Takes the wished ports for a container in place of those it had, all or none.
    pub(crate) fn claim(
        &mut self,
        container: &str,
        to: Ipv4Addr,
        wishes: &[Wish],
    ) -> std::result::Result<Vec<PublishedPort>, Refusal> {
        self.claims.remove(container);
        let mut made: Vec<Claim> = Vec::new();
        for wish in wishes {
            let (first, last) = wish.host_ports;
            let mut found = None;
            for port in first..=last {
                let ours =
                    self.claims.values().flatten().chain(&made).any(|c| clashes(&c.forward, wish, port));
                match hold(wish.protocol, wish.host_ip, port) {
                    _ if ours => {}
                    Ok((port, holder)) => {
                        found = Some((port, holder));
                        break;
                    }
                    Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
                    Err(e) => return Err(Refusal::Bind(wish.host_ip, port, e)),
                }
            }
            let Some((host_port, holder)) = found else {
                return Err(match wish.host_ports {
                    (first, last) if first == last => Refusal::Taken(wish.host_ip, first),
                    (first, last) => Refusal::RangeTaken(wish.host_ip, first, last),
                });
            };
            let Wish { container_port: to_port, protocol, host_ip, .. } = *wish;
            made.push(Claim {
                forward: Forward { protocol, host_ip, host_port, to, to_port },
                _holder: holder,
            });
        }
        let published = made.iter().map(|c| published(&c.forward)).collect();
        self.claims.insert(container.to_owned(), made);
        Ok(published)
    }

    /// Takes ports that were published before a restart of the daemon; those that somebody else holds by now stay forwarded.
    pub(crate) fn readopt(&mut self, container: &str, to: Ipv4Addr, ports: &[PublishedPort]) {
        let claims = ports.iter().filter_map(|port| {
            let protocol = transport(&port.protocol)?;
            let host_ip = port.host_ip.parse().ok()?;
            let holder = match hold(protocol, host_ip, port.host_port) {
                Ok((_, holder)) => holder,
                Err(e) => {
                    tracing::warn!("holding {host_ip}:{}/{protocol} of {container}: {e}", port.host_port);
                    None
                }
            };
            let forward =
                Forward { protocol, host_ip, host_port: port.host_port, to, to_port: port.container_port };
            Some(Claim { forward, _holder: holder })
        });
        let claims = claims.collect();
        self.claims.insert(container.to_owned(), claims);
    }

    /// Lets go of a container's ports; whether it had any.
    pub(crate) fn release(&mut self, container: &str) -> bool {
        self.claims.remove(container).is_some_and(|claims| !claims.is_empty())
    }

    /// Lets go of all.
    pub(crate) fn clear(&mut self) {
        self.claims.clear();
    }

    /// What the table is to hold, ports of one address before those of all: the first rule that matches counts.
    pub(crate) fn forwards(&self) -> Vec<Forward> {
        let mut all: Vec<Forward> = self.claims.values().flatten().map(|c| c.forward.clone()).collect();
        all.sort_by_key(|f| f.host_ip.is_unspecified());
        all
    }
}

/// Whether a wished port is a published one. The sockets tell it too, but not for a protocol without sockets.
fn clashes(have: &Forward, wish: &Wish, port: u16) -> bool {
    have.protocol == wish.protocol
        && have.host_port == port
        && (have.host_ip == wish.host_ip || have.host_ip.is_unspecified() || wish.host_ip.is_unspecified())
}

fn published(forward: &Forward) -> PublishedPort {
    PublishedPort {
        container_port: forward.to_port,
        protocol: forward.protocol.to_owned(),
        host_ip: forward.host_ip.to_string(),
        host_port: forward.host_port,
    }
}

/// Binds a host port; 0: the kernel chooses.
fn hold(protocol: &str, ip: Ipv4Addr, port: u16) -> io::Result<(u16, Option<OwnedFd>)> {
    let (kind, number) = match protocol {
        "udp" => (SocketType::DGRAM, ipproto::UDP),
        "sctp" => (SocketType::STREAM, ipproto::SCTP),
        _ => (SocketType::STREAM, ipproto::TCP),
    };
    let socket = match net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, Some(number)) {
        Ok(socket) => socket,
        // SCTP is a module that few hosts load. Forwarding does not need it; a free number is a TCP port's.
        Err(_) if protocol == "sctp" && port != 0 => return Ok((port, None)),
        Err(_) if protocol == "sctp" => return hold("tcp", ip, 0).map(|(port, _)| (port, None)),
        Err(error) => return Err(error.into()),
    };
    if kind == SocketType::STREAM {
        // Connections of the last owner that the kernel still remembers do not stand in the way, a listener does.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &SocketAddrV4::new(ip, port))?;
    if kind == SocketType::STREAM {
        net::listen(&socket, 1)?;
    }
    let port = match SocketAddrV4::try_from(net::getsockname(&socket)?) {
        Ok(bound) => bound.port(),
        Err(error) => return Err(error.into()),
    };
    Ok((port, Some(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

    fn wish(protocol: &str, host_ip: &str, host_ports: (u16, u16)) -> Result<Wish> {
        let (protocol, host_ip) = (protocol.to_owned(), host_ip.to_owned());
        Wish::new(&PortRequest { container_port: 80, protocol, host_ip, host_ports })
    }

    #[test]
    fn requests_are_checked() {
        assert!(wish("TCP", "", (0, 0)).is_ok());
        for (protocol, ip, ports) in
            [("icmp", "", (1, 1)), ("tcp", "::1", (1, 1)), ("tcp", "", (2, 1)), ("tcp", "", (0, 9))]
        {
            assert!(wish(protocol, ip, ports).unwrap_err().is_invalid());
        }
    }

    #[test]
    fn a_port_is_given_once_and_all_or_none() {
        let mut ports = Ports::default();
        let any = wish("tcp", "127.0.0.1", (0, 0)).unwrap();
        let port = ports.claim("a", TO, &[any]).unwrap()[0].host_port;
        let same = wish("tcp", "127.0.0.1", (port, port)).unwrap();
        let refused = ports.claim("b", TO, &[any, same]).unwrap_err().to_string();
        assert_eq!(refused, format!("Bind for 127.0.0.1:{port} failed: port is already allocated"));
        assert_eq!(ports.forwards().len(), 1);
        // Another transport has numbers of its own, and a port that is let go is free.
        ports.claim("c", TO, &[wish("udp", "127.0.0.1", (port, port)).unwrap()]).unwrap();
        assert!(ports.release("a"));
        assert!(!ports.release("a"));
        ports.claim("b", TO, &[same]).unwrap();
    }

    #[test]
    fn other_programs_ports_are_not_taken() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mut ports = Ports::default();
        let same = wish("tcp", "127.0.0.1", (port, port)).unwrap();
        assert!(matches!(ports.claim("a", TO, &[same]), Err(Refusal::Taken(_, p)) if p == port));
        assert!(ports.forwards().is_empty());
    }
}
