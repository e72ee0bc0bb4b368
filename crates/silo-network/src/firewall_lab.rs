//! For tests: a host with bridges, containers and a client outside, all in network namespaces of their own, under real rules.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use silo_sys::netlink::Socket;
use silo_sys::routes::DefaultRoute;
use silo_sys::{links as sys_links, netns};

use crate::bridge::{self, Bridge};
use crate::firewall::{BridgeRules, Firewall, Guard};
use crate::links::{self, Veth};
use crate::mac::MacAddress;
use crate::namespace;
use crate::options::GatewayMode;
use crate::ports::{Ports, Target};
use crate::ports_request::Wish;
use crate::record::PortRequest;

/// A connection that rules let through takes less than a millisecond here; one that they do not waits for nothing.
const PATIENCE: Duration = Duration::from_millis(400);

/// The test's thread is the host.
pub(crate) struct Lab {
    pub(crate) socket: Socket,
    pub(crate) firewall: Firewall,
    ports: Ports,
    bridges: Vec<BridgeRules>,
}

/// Another machine, or a container.
pub(crate) struct Peer {
    pub(crate) namespace: OwnedFd,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
}

/// Runs a test as a host with no network but loopback; not root: nothing.
pub(crate) fn lab(test: impl FnOnce(Lab) + Send) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::thread::scope(|scope| {
        let run = || {
            netns::unshare_network().unwrap();
            let mut socket = Socket::open().unwrap();
            socket.change(links::set_up(1)).unwrap();
            // Addresses are usable at once, and the host routes both families.
            setting("ipv6/conf/default/accept_dad", "0");
            setting("ipv6/conf/all/forwarding", "1");
            setting("ipv4/ip_forward", "1");
            let firewall = Firewall::open("lab").unwrap();
            test(Lab { socket, firewall, ports: Ports::default(), bridges: Vec::new() });
        };
        scope.spawn(run).join().unwrap();
    });
}

fn setting(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

/// `10.<net>.0.<host>` and `fd00:<net>::<host>`.
fn addresses(net: u8, host: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, net, 0, host), Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, host.into()))
}

impl Lab {
    /// A bridge `b<net>` whose rules are changed before they are put in place.
    pub(crate) fn bridge(&mut self, net: u8, change: impl FnOnce(&mut BridgeRules)) {
        let (ipv4, ipv6) = addresses(net, 1);
        let name = format!("b{net}");
        let bridge = Bridge {
            name: &name,
            alias: "lab",
            mtu: 1500,
            mac: MacAddress::of(ipv4),
            addresses: &[(ipv4.into(), 24), (ipv6.into(), 64)],
            ipv6: true,
            internal: false,
        };
        bridge::ensure(&mut self.socket, &bridge).unwrap();
        let mut rules = BridgeRules {
            interface: name,
            subnets: vec![
                format!("10.{net}.0.0/24").parse().unwrap(),
                format!("fd00:{net}::/64").parse().unwrap(),
            ],
            gateways: vec![ipv4.into(), ipv6.into()],
            internal: false,
            icc: true,
            masquerade: true,
            host_binding: None,
            gateway_mode: [GatewayMode::Nat; 2],
        };
        change(&mut rules);
        self.bridges.push(rules);
        self.firewall.replace(self.bridges.clone()).unwrap();
    }

    /// A container on a bridge.
    pub(crate) fn container(&mut self, net: u8, host: u8) -> Peer {
        let rules = self.bridges.iter().find(|b| b.interface == format!("b{net}")).unwrap();
        let (icc, interface) = (rules.icc, rules.interface.clone());
        let (ipv4, ipv6) = addresses(net, host);
        let name = format!("sv{net}x{host}");
        let mac = MacAddress::of(ipv4);
        let addresses = vec![ipv4.into(), ipv6.into()];
        self.firewall
            .guard(Guard { host_interface: name.clone(), mac, addresses, icc, trusted: false })
            .unwrap();
        let master = links::find(&mut self.socket, &interface).unwrap().unwrap().index;
        self.peer(&name, master, net, host)
    }

    /// A machine on a wire of its own, whose other end has `10.<net>.0.1`.
    pub(crate) fn client(&mut self, net: u8) -> Peer {
        let name = format!("wire{net}");
        let peer = self.peer(&name, 0, net, 2);
        let index = links::find(&mut self.socket, &name).unwrap().unwrap().index;
        let (ipv4, ipv6) = addresses(net, 1);
        self.socket.change(sys_links::add_address(index, ipv4.into(), 24)).unwrap();
        self.socket.change(sys_links::add_address(index, ipv6.into(), 64)).unwrap();
        peer
    }

    fn peer(&mut self, name: &str, master: u32, net: u8, host: u8) -> Peer {
        let (ipv4, ipv6) = addresses(net, host);
        let gateway = addresses(net, 1);
        let (namespace, ()) = namespace::create(|namespace, inside| {
            std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
            let mac = MacAddress::of(ipv4);
            let veth =
                Veth { host: name, bridge: master, inside: "eth0", mac, netns: namespace.as_fd(), mtu: 1500 };
            self.socket.change(links::create_veth(&veth)).unwrap();
            let index = links::find(inside, "eth0").unwrap().unwrap().index;
            inside.change(sys_links::add_address(index, ipv4.into(), 24)).unwrap();
            inside.change(sys_links::add_address(index, ipv6.into(), 64)).unwrap();
            inside.change(links::set_up(index)).unwrap();
            inside.change(DefaultRoute::by(index, gateway.0.into()).replace()).unwrap();
            inside.change(DefaultRoute::by(index, gateway.1.into()).replace()).unwrap();
            Ok(())
        })
        .unwrap();
        Peer { namespace, ipv4, ipv6 }
    }

    /// Publishes port 80 of a container, without IPv6 if it is to have none.
    pub(crate) fn publish(&mut self, host: &str, peer: &Peer, ipv6: bool) {
        let at: SocketAddr = host.parse().unwrap();
        let request = PortRequest {
            container_port: 80,
            protocol: "tcp".into(),
            host_ip: at.ip().to_string(),
            host_ports: (at.port(), at.port()),
        };
        let target = Target { ipv4: Some(peer.ipv4), ipv6: ipv6.then_some(peer.ipv6), ..Target::default() };
        self.ports.claim(host, &target, vec![Wish::new(&request).unwrap()]).unwrap();
        self.firewall.publish(&self.ports.forwards(host)).unwrap();
    }

    pub(crate) fn withdraw(&mut self, host: &str) {
        self.firewall.withdraw(&self.ports.forwards(host)).unwrap();
        self.ports.release(host);
    }
}

impl Peer {
    /// Runs something there.
    pub(crate) fn run<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let run = || {
                netns::enter_network(self.namespace.as_fd()).unwrap();
                run()
            };
            scope.spawn(run).join().unwrap()
        })
    }

    /// Tells everybody who connects to this port, of both families, who they are.
    pub(crate) fn serve(&self, port: u16) {
        let listener = self.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
        std::thread::spawn(move || {
            while let Ok((mut stream, from)) = listener.accept() {
                let _ = write!(stream, "{}", from.ip().to_canonical());
            }
        });
    }

    /// Whom a server sees when this one connects to it; `None`: no answer.
    pub(crate) fn seen_by(&self, server: &str) -> Option<IpAddr> {
        self.run(|| seen_by(server))
    }
}

/// The same from the host, or whatever namespace the thread is in.
pub(crate) fn seen_by(server: &str) -> Option<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&server.parse().unwrap(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.parse().ok()
}
