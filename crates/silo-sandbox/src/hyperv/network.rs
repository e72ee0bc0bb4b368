//! The container's adapter, carried on into its machine: in the container's network namespace, which the shim has
//! entered, a bridge joins the adapter and a tap. The machine's own interface takes over address and hardware address, so
//! that it is reached as a container of the host's kernel would be.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use silo_runtime::protocol::MachineNetwork;
use silo_sys::{links, netlink, tap};

const ADAPTER: &str = "eth0";
const BRIDGE: &str = "silo-bridge";
const TAP: &str = "silo-tap";
/// The bridge's own in each namespace, for what the machine asks of a name server there.
const BRIDGE_MAC: [u8; 6] = [0x02, 0x53, 0x69, 0x6c, 0x6f, 0x35];
const LOOPBACK: u32 = 1;
/// Of most adapters: one that has another changes it.
const MTU: u32 = 1500;

/// What carries on into a container's machine, whichever VMM that is.
#[derive(Debug)]
pub(super) struct Adapter {
    /// What the machine is to have; `None`: the namespace has no adapter.
    pub(super) settings: Option<MachineNetwork>,
    bridge: u32,
}

impl Adapter {
    /// Takes the adapter's addresses away and makes it a port of a bridge; once in a namespace's life.
    pub(super) fn take_over() -> io::Result<Self> {
        let mut socket = netlink::Socket::open()?;
        let Some(adapter) = links::find(&mut socket, ADAPTER)? else {
            return Ok(Self { settings: None, bridge: 0 });
        };
        let mac = <[u8; 6]>::try_from(adapter.mac.as_slice())
            .map_err(|_| io::Error::other(format!("{ADAPTER} has no Ethernet address")))?;
        // Link-local addresses are each machine's own to make.
        let addresses = links::addresses(&mut socket)?;
        let resolver = resolver(&addresses);
        let addresses: Vec<_> = addresses
            .into_iter()
            .filter(|(index, ..)| *index == adapter.index)
            .map(|(_, a, p)| (a, p))
            .collect();
        let kept = |a: &IpAddr| !matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        let gateways = links::gateways(&mut socket)?;
        let gateways = gateways.into_iter().filter(|(index, _)| *index == adapter.index);
        let settings = MachineNetwork {
            mac,
            mtu: adapter.mtu,
            addresses: addresses.iter().filter(|(a, _)| kept(a)).copied().collect(),
            gateways: gateways.map(|(_, g)| g).collect(),
            resolver: resolver.map(|address| (address, BRIDGE_MAC)),
        };
        let bridge = match links::find(&mut socket, BRIDGE)? {
            // With the tap of a machine that waited for this.
            Some(bridge) if bridge.mtu == adapter.mtu => bridge.index,
            Some(bridge) => {
                let tap = index(&mut socket, TAP)?;
                for port in [tap, bridge.index] {
                    socket.change(links::set_mtu(port, adapter.mtu))?;
                }
                bridge.index
            }
            None => {
                socket.change(links::create_bridge(BRIDGE, adapter.mtu))?;
                index(&mut socket, BRIDGE)?
            }
        };
        // The bridge must not take the machine's frames for its own port's.
        let mut other = mac;
        other[0] ^= 0x08;
        let mut messages: Vec<_> =
            addresses.iter().map(|(a, prefix)| links::delete_address(adapter.index, *a, *prefix)).collect();
        messages.extend([
            links::set_mac(adapter.index, other),
            links::set_master(adapter.index, bridge),
            links::set_up(bridge),
        ]);
        if resolver.is_some() {
            // The server is reached without asking anybody's hardware address: nothing of it is seen on the network.
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{BRIDGE}/arp_ignore"), "1")?;
            messages.push(links::set_mac(bridge, BRIDGE_MAC));
            for (address, _) in settings.addresses.iter().filter(|(a, _)| a.is_ipv4()) {
                messages.extend([
                    links::add_host_route(bridge, *address),
                    links::add_neighbour(bridge, *address, mac),
                ]);
            }
        }
        socket.apply(&mut messages)?.into_iter().collect::<io::Result<()>>()?;
        Ok(Self { settings: Some(settings), bridge })
    }

    /// The tap of a VMM that waits for an adapter, in a namespace without one; [`Adapter::take_over`] follows.
    pub(super) fn awaited() -> io::Result<OwnedFd> {
        let mut socket = netlink::Socket::open()?;
        socket.change(links::create_bridge(BRIDGE, MTU))?;
        let bridge = index(&mut socket, BRIDGE)?;
        socket.change(links::set_up(bridge))?;
        let fd = tap::create(TAP)?;
        let port = index(&mut socket, TAP)?;
        let mut messages = [links::set_master(port, bridge), links::set_up(port)];
        socket.apply(&mut messages)?.into_iter().collect::<io::Result<()>>()?;
        Ok(fd)
    }

    /// The tap of one VMM, which goes with its descriptor: there is one at a time.
    pub(super) fn tap(&self) -> io::Result<OwnedFd> {
        let fd = tap::create(TAP)?;
        let Some(settings) = &self.settings else { return Ok(fd) };
        let mut socket = netlink::Socket::open()?;
        let port = index(&mut socket, TAP)?;
        let mut messages =
            [links::set_mtu(port, settings.mtu), links::set_master(port, self.bridge), links::set_up(port)];
        socket.apply(&mut messages)?.into_iter().collect::<io::Result<()>>()?;
        Ok(fd)
    }
}

/// The address of a name server in the namespace: a link-local one of the loopback, where its maker put it.
fn resolver(addresses: &[(u32, IpAddr, u8)]) -> Option<IpAddr> {
    let is = |a: &IpAddr| matches!(a, IpAddr::V4(a) if a.is_link_local());
    addresses.iter().find(|(index, a, _)| *index == LOOPBACK && is(a)).map(|(_, a, _)| *a)
}

fn index(socket: &mut netlink::Socket, name: &str) -> io::Result<u32> {
    let missing = || io::Error::other(format!("the interface {name} that was just made is gone"));
    Ok(links::find(socket, name)?.ok_or_else(missing)?.index)
}
