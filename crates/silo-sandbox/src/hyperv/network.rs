//! The container's adapters, carried on into its machine. In the container's network namespace, which the shim has
//! entered, a bridge joins the first of them and the tap of the machine's only device; the machine takes over address and
//! hardware address, so that it is reached as a container of the host's kernel would be. What comes in on each further
//! adapter is led out on the tap, and what the machine sends from that adapter's hardware address (a macvlan over its device) is
//! led out on the adapter. So adapters come and go while the machine runs, whatever its VMM can plug.
//!
//! What is there is seen in the namespace: nothing is remembered here.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use silo_runtime::protocol::MachineNetwork;
use silo_sys::links::{self, Link};
use silo_sys::netlink::Socket;
use silo_sys::{routes, tap, traffic};

const BRIDGE: &str = "silo-bridge";
const TAP: &str = "silo-tap";
/// The bridge's own in each namespace, for what the machine asks of a name server there.
const BRIDGE_MAC: [u8; 6] = [0x02, 0x53, 0x69, 0x6c, 0x6f, 0x35];
const LOOPBACK: u32 = 1;
/// Of most adapters: one that has another changes it.
const MTU: u32 = 1500;
/// What tells the hardware address of an adapter that is a port of the bridge from its machine's.
const OTHER: u8 = 0x08;

/// Kind of the container's adapters; a namespace has links of other kinds where the host's kernel makes some in each (tunnels).
const ADAPTER: &str = "veth";

/// Names of the container's adapters in the namespace.
pub(crate) fn adapters() -> Vec<String> {
    let here = Namespace::read();
    here.map(|here| here.adapters.into_iter().map(|a| a.name).collect()).unwrap_or_default()
}

/// The links of the namespace.
struct Namespace {
    socket: Socket,
    bridge: Option<Link>,
    tap: Option<Link>,
    adapters: Vec<Link>,
}

impl Namespace {
    fn read() -> io::Result<Self> {
        let mut socket = Socket::open()?;
        let (mut bridge, mut tap, mut adapters) = (None, None, Vec::new());
        for link in links::all(&mut socket)? {
            match link.name.as_str() {
                BRIDGE => bridge = Some(link),
                TAP => tap = Some(link),
                _ if link.kind == ADAPTER => adapters.push(link),
                _ => {}
            }
        }
        Ok(Self { socket, bridge, tap, adapters })
    }

    /// The one that is a port of the bridge.
    fn first(&self) -> Option<&Link> {
        let bridge = self.bridge.as_ref()?.index;
        self.adapters.iter().find(|a| a.master == bridge)
    }

    /// What the adapters have, before any of it is taken away.
    fn settings(&mut self) -> io::Result<Vec<MachineNetwork>> {
        let addresses = links::addresses(&mut self.socket)?;
        let defaults = routes::defaults(&mut self.socket)?;
        // Link-local addresses of IPv6 are each machine's own to make.
        let kept = |a: &IpAddr| !matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        let of = |link: &Link| {
            Ok(MachineNetwork {
                name: link.name.clone(),
                mac: mac(link)?,
                mtu: link.mtu,
                addresses: addresses
                    .iter()
                    .filter(|(index, a, _)| *index == link.index && kept(a))
                    .map(|(_, a, prefix)| (*a, *prefix))
                    .collect(),
                gateways: defaults
                    .iter()
                    .filter(|r| r.index == link.index)
                    .filter_map(|r| r.gateway)
                    .collect(),
                ..MachineNetwork::default()
            })
        };
        self.adapters.iter().map(of).collect()
    }

    /// Makes an adapter a port of the bridge, which is made if it is not there.
    fn join(&mut self, adapter: &Link) -> io::Result<()> {
        let bridge = match &self.bridge {
            Some(bridge) => bridge.clone(),
            None => {
                self.socket.change(links::create_bridge(BRIDGE, adapter.mtu))?;
                find(&mut self.socket, BRIDGE)?
            }
        };
        let others = self.tap.iter().chain([&bridge]);
        let mut messages: Vec<_> =
            others.filter(|l| l.mtu != adapter.mtu).map(|l| links::set_mtu(l.index, adapter.mtu)).collect();
        // The bridge must not take the machine's frames for its own port's.
        let mut other = mac(adapter)?;
        other[0] ^= OTHER;
        messages
            .extend([links::set_mac(adapter.index, other), links::set_master(adapter.index, bridge.index)]);
        if let Some(tap) = &self.tap {
            messages.extend([links::set_master(tap.index, bridge.index), links::set_up(tap.index)]);
        }
        messages.push(links::set_up(bridge.index));
        apply(&mut self.socket, &mut messages)?;
        self.bridge = Some(bridge);
        Ok(())
    }

    /// Leads what comes in on each adapter that is no port of the bridge to the tap, and back.
    fn lead(&mut self) -> io::Result<()> {
        let Some(tap) = &self.tap else { return Ok(()) };
        let bridge = self.bridge.as_ref().map_or(0, |b| b.index);
        let further: Vec<&Link> =
            self.adapters.iter().filter(|a| a.master != bridge || bridge == 0).collect();
        // Those of adapters that have gone go; the tap may be another than before, and a further adapter the first by now.
        for index in self.adapters.iter().map(|a| a.index).chain([tap.index]) {
            let removed = self.socket.change(traffic::remove_queue(index, traffic::INGRESS));
            removed.or_else(|e| if traffic::is_none(&e) { Ok(()) } else { Err(e) })?;
        }
        if further.is_empty() {
            return Ok(());
        }
        let mut messages = vec![traffic::add_ingress(tap.index), links::set_up(tap.index)];
        for adapter in further {
            messages.extend([
                traffic::add_ingress(adapter.index),
                traffic::redirect(adapter.index, tap.index, None),
                traffic::redirect(tap.index, adapter.index, Some(mac(adapter)?)),
            ]);
        }
        apply(&mut self.socket, &mut messages)
    }

    /// The name server of the namespace, a link-local address of the loopback where its maker put it, is reached without asking
    /// anybody's hardware address: nothing of it is seen on the network. `machine`: that of the machine's device.
    fn serve(&mut self, networks: &[MachineNetwork], machine: [u8; 6]) -> io::Result<Option<IpAddr>> {
        let is = |a: &IpAddr| matches!(a, IpAddr::V4(a) if a.is_link_local());
        let addresses = links::addresses(&mut self.socket)?;
        let found = addresses.iter().find(|(index, a, _)| *index == LOOPBACK && is(a));
        let (Some((_, server, _)), Some(bridge)) = (found, &self.bridge) else { return Ok(None) };
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{BRIDGE}/arp_ignore"), "1")?;
        let mut messages = vec![links::set_mac(bridge.index, BRIDGE_MAC)];
        for (address, _) in networks.iter().flat_map(|n| &n.addresses).filter(|(a, _)| a.is_ipv4()) {
            messages.extend([
                routes::add_to_host(bridge.index, *address),
                links::add_neighbour(bridge.index, *address, machine),
            ]);
        }
        apply(&mut self.socket, &mut messages)?;
        Ok(Some(*server))
    }
}

/// Carries adapters on into the machine: all that are there, with what they have, at its start; those that are wanted of one
/// that runs. What the machine is to have.
pub(crate) fn carry_on(wanted: Option<Vec<MachineNetwork>>) -> io::Result<Vec<MachineNetwork>> {
    let mut here = Namespace::read()?;
    let mut networks = match wanted {
        Some(wanted) => wanted,
        None => here.settings()?,
    };
    if let Some(first) = here.first().map(|a| a.name.clone())
        && !networks.iter().any(|n| n.name == first)
    {
        // It is about to go, and another may take its place: the two are never joined.
        if let Some(gone) = here.adapters.iter().find(|a| a.name == first) {
            here.socket.change(links::set_master(gone.index, 0))?;
        }
        here.adapters.retain(|a| a.name != first);
    }
    let addresses = links::addresses(&mut here.socket)?;
    for network in &mut networks {
        let missing = || io::Error::other(format!("there is no adapter {}", network.name));
        let adapter = here.adapters.iter().find(|a| a.name == network.name).ok_or_else(missing)?.clone();
        let own = addresses.iter().filter(|(index, ..)| *index == adapter.index);
        let mut messages: Vec<_> =
            own.map(|(index, address, prefix)| links::delete_address(*index, *address, *prefix)).collect();
        apply(&mut here.socket, &mut messages)?;
        network.mtu = adapter.mtu;
        match here.first() {
            Some(first) => network.shared = first.index != adapter.index,
            None => {
                here.join(&adapter)?;
                let bridge = here.bridge.as_ref().map_or(0, |b| b.index);
                if let Some(joined) = here.adapters.iter_mut().find(|a| a.index == adapter.index) {
                    joined.master = bridge;
                }
            }
        }
    }
    let wanted = |link: &Link| networks.iter().any(|n| n.name == link.name);
    here.adapters.retain(wanted);
    here.lead()?;
    if let Some(machine) = networks.iter().find(|n| !n.shared).map(|n| n.mac) {
        let server = here.serve(&networks, machine)?;
        for network in networks.iter_mut().filter(|n| !n.shared) {
            network.resolver = server.map(|address| (address, BRIDGE_MAC));
        }
    }
    Ok(networks)
}

/// The tap of a VMM that waits for adapters, in a namespace without one; [`carry_on`] follows.
pub(super) fn awaited() -> io::Result<OwnedFd> {
    let mut socket = Socket::open()?;
    socket.change(links::create_bridge(BRIDGE, MTU))?;
    let bridge = find(&mut socket, BRIDGE)?.index;
    socket.change(links::set_up(bridge))?;
    tap_of(&mut socket, Some((bridge, MTU)))
}

/// The tap of a VMM whose state is saved: clones of it have the offloads that its machine found on this one. In a namespace of the
/// process's own from here on; the process must be single-threaded.
pub(super) fn apart() -> io::Result<OwnedFd> {
    silo_sys::mount::unshare(libc::CLONE_NEWNET)?;
    tap::create(TAP)
}

/// The tap of one VMM, after [`carry_on`]. It goes with its descriptor: there is one at a time.
pub(super) fn tap() -> io::Result<OwnedFd> {
    let mut here = Namespace::read()?;
    let fd = tap_of(&mut here.socket, here.bridge.as_ref().map(|b| (b.index, b.mtu)))?;
    here.tap = Some(find(&mut here.socket, TAP)?);
    here.lead()?;
    Ok(fd)
}

fn tap_of(socket: &mut Socket, bridge: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    let fd = tap::create(TAP)?;
    let Some((bridge, mtu)) = bridge else { return Ok(fd) };
    let port = find(socket, TAP)?;
    let mut messages = Vec::new();
    if port.mtu != mtu {
        messages.push(links::set_mtu(port.index, mtu));
    }
    messages.extend([links::set_master(port.index, bridge), links::set_up(port.index)]);
    apply(socket, &mut messages)?;
    Ok(fd)
}

fn apply(socket: &mut Socket, messages: &mut [silo_sys::netlink::Message]) -> io::Result<()> {
    socket.apply(messages)?.into_iter().collect()
}

fn mac(link: &Link) -> io::Result<[u8; 6]> {
    <[u8; 6]>::try_from(link.mac.as_slice())
        .map_err(|_| io::Error::other(format!("{} has no Ethernet address", link.name)))
}

fn find(socket: &mut Socket, name: &str) -> io::Result<Link> {
    let missing = || io::Error::other(format!("the interface {name} that was just made is gone"));
    links::find(socket, name)?.ok_or_else(missing)
}
