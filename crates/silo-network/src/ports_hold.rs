//! A socket that holds a port of the host, so that no other program takes it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// Connections that wait where the daemon itself answers.
const BACKLOG: i32 = 128;

/// Binds a host port; 0: the kernel chooses one of its range for that. `None`: this kernel has no sockets of that protocol.
pub(crate) fn hold(protocol: &str, ip: IpAddr, port: u16) -> io::Result<(u16, Option<OwnedFd>)> {
    let (kind, number) = match protocol {
        "udp" => (SocketType::DGRAM, ipproto::UDP),
        "sctp" => (SocketType::STREAM, ipproto::SCTP),
        _ => (SocketType::STREAM, ipproto::TCP),
    };
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = match net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number)) {
        Ok(socket) => socket,
        // SCTP is a module that few hosts load. Forwarding does not need it; a free number is a TCP port's.
        Err(_) if protocol == "sctp" && port != 0 => return Ok((port, None)),
        Err(_) if protocol == "sctp" => return hold("tcp", ip, 0).map(|(port, _)| (port, None)),
        Err(error) => return Err(error.into()),
    };
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        // Connections of the last owner that the kernel still remembers do not stand in the way, a listener does.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &SocketAddr::new(ip, port))?;
    if kind == SocketType::STREAM {
        net::listen(&socket, BACKLOG)?;
    }
    let bound = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok((bound.port(), Some(socket)))
}

/// Whether this host has IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    hold("tcp", std::net::Ipv6Addr::LOCALHOST.into(), 0).is_ok()
}
