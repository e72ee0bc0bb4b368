//! What may be asked of a published port, checked once.

use std::net::IpAddr;

use crate::error::{NetworkError, Result};
use crate::record::PortRequest;

/// A checked request. Sorted as they are served: fixed host ports before ranges, and what differs only in the host's address side by
/// side, because that gets the same port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wish {
    from_range: bool,
    pub(crate) container_port: u16,
    pub(crate) protocol: &'static str,
    /// (0, 0): any.
    pub(crate) host_ports: (u16, u16),
    /// `None`: all, or what the network's option says.
    pub(crate) host_ip: Option<IpAddr>,
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
            "" => None,
            text => {
                let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
                let ip: IpAddr = bare.parse().map_err(|_| invalid("the host's address is no IP address"))?;
                Some(ip.to_canonical())
            }
        };
        Ok(Self {
            from_range: *first == 0 || first != last,
            container_port: *container_port,
            protocol: transport,
            host_ports: (*first, *last),
            host_ip,
        })
    }

    /// Whether both get the same host port.
    pub(crate) fn same_port(&self, other: &Self) -> bool {
        Self { host_ip: None, ..*self } == Self { host_ip: None, ..*other }
    }
}

pub(crate) fn transport(text: &str) -> Option<&'static str> {
    ["tcp", "udp", "sctp"].into_iter().find(|p| p.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(protocol: &str, host_ip: &str, host_ports: (u16, u16)) -> Result<Wish> {
        let (protocol, host_ip) = (protocol.to_owned(), host_ip.to_owned());
        Wish::new(&PortRequest { container_port: 80, protocol, host_ip, host_ports })
    }

    #[test]
    fn requests_are_checked() {
        assert!(wish("TCP", "", (0, 0)).is_ok());
        assert!(wish("sctp", "[::1]", (7, 7)).is_ok());
        assert_eq!(wish("udp", "::ffff:10.0.0.1", (7, 7)).unwrap().host_ip, Some([10, 0, 0, 1].into()));
        for (protocol, ip, ports) in
            [("icmp", "", (1, 1)), ("tcp", "host", (1, 1)), ("tcp", "", (2, 1)), ("tcp", "", (0, 9))]
        {
            assert!(wish(protocol, ip, ports).is_err());
        }
    }

    #[test]
    fn fixed_ports_come_first_and_addresses_of_one_port_together() {
        let mut wishes = [
            wish("tcp", "", (0, 0)).unwrap(),
            wish("tcp", "127.0.0.1", (9, 9)).unwrap(),
            wish("udp", "", (9, 9)).unwrap(),
            wish("tcp", "::1", (9, 9)).unwrap(),
        ];
        wishes.sort();
        assert!(wishes[0].same_port(&wishes[1]) || wishes[1].same_port(&wishes[2]));
        assert_eq!(wishes[3].host_ports, (0, 0));
    }
}
