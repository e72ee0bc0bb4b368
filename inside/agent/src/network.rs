//! The machine's network: one device, which is the first adapter, and a macvlan over it for each further one.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use silo_runtime::protocol::MachineNetwork;
use silo_sys::links::{self, Link};
use silo_sys::netlink::{Message, Socket};
use silo_sys::routes::{self, DefaultRoute};

/// Name of the device before anybody has named it.
const DEVICE: &str = "eth0";
/// On the command line of a machine that becomes a template: time matters less to it.
const TEMPLATE: &str = "silo.template";
/// Of what is needed of each network adapter that virtio has.
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_net";

/// What can be done for the network while this machine is nobody's yet. An interface takes a while to be up for programs:
/// it is, by the time that it gets its addresses.
pub(crate) fn prepare() -> io::Result<()> {
    for (name, value) in [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")] {
        std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)?;
    }
    let mut socket = Socket::open()?;
    let lo = links::find(&mut socket, "lo")?.ok_or(io::ErrorKind::NotFound)?;
    socket.change(links::set_up(lo.index))?;
    // No address is made of a hardware address that is not its own yet.
    use_ipv6(DEVICE, false)?;
    let index = device(&mut socket)?.index;
    socket.change(links::set_up(index))?;
    if std::fs::read_to_string("/proc/cmdline")?.contains(TEMPLATE) {
        let until = Instant::now() + Duration::from_secs(3);
        while std::fs::read_to_string("/sys/class/net/eth0/operstate").is_ok_and(|s| s.trim() != "up")
            && Instant::now() < until
        {
            // The kernel tells programs of it at most once a second; clones begin with it.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Gives a machine that is nobody's yet its adapters.
pub(crate) fn set_up(wanted: &[MachineNetwork]) -> io::Result<()> {
    if wanted.is_empty() {
        return let_go();
    }
    let mut socket = Socket::open()?;
    let device = device(&mut socket)?;
    place(&mut socket, &device, wanted)
}

/// Takes away what [`set_up`] gave, of the device alone.
pub(crate) fn undo(given: &[MachineNetwork]) -> io::Result<()> {
    let mut socket = Socket::open()?;
    let index = device(&mut socket)?.index;
    for (address, prefix) in given.iter().flat_map(|n| &n.addresses) {
        // Its routes go with it.
        socket.change(links::delete_address(index, *address, *prefix))?;
    }
    use_ipv6(DEVICE, false)
}

/// The adapters of a running machine are these from now on: what stays is not touched.
pub(crate) fn change(wanted: &[MachineNetwork]) -> io::Result<()> {
    let mut socket = Socket::open()?;
    let found = links::all(&mut socket)?;
    let over = found.iter().filter(|l| l.kind == "macvlan");
    let mut kept = Vec::new();
    for link in over {
        // One of the same name may be another's, whose end was not heard of here.
        match wanted.iter().find(|n| n.shared && n.name == link.name && link.mac == n.mac) {
            Some(network) => kept.push((link.index, network)),
            None => socket.change(links::delete(link.index))?,
        }
    }
    if wanted.is_empty() {
        return let_go();
    }
    let device = match found.into_iter().find(is_device) {
        Some(device) => device,
        None => take_back(&mut socket)?,
    };
    kept.extend(wanted.iter().filter(|n| !n.shared).map(|own| (device.index, own)));
    for (index, address, prefix) in links::addresses(&mut socket)? {
        // What the kernel has made of the hardware address goes and comes with that.
        let made = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        let stays = |(_, network): &(u32, &MachineNetwork)| network.addresses.contains(&(address, prefix));
        let of = kept.iter().find(|(i, _)| *i == index);
        if !made && (of.is_some_and(|of| !stays(of)) || (of.is_none() && index == device.index)) {
            match socket.change(links::delete_address(index, address, prefix)) {
                // It went with another that it was a further one of.
                Err(e) if e.raw_os_error() != Some(libc::EADDRNOTAVAIL) => return Err(e),
                _ => {}
            }
        }
    }
    place(&mut socket, &device, wanted)?;
    // Those that stay have taken the place of others of their family.
    for route in routes::defaults(&mut socket)? {
        // One without a gateway is a program's own (a tunnel).
        let Some(gateway) = route.gateway else { continue };
        if !wanted.iter().any(|n| n.gateways.contains(&gateway)) {
            match socket.change(route.remove()) {
                Err(e) if !links::is_gone(&e) => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Makes what is not there of the wanted adapters.
fn place(socket: &mut Socket, device: &Link, wanted: &[MachineNetwork]) -> io::Result<()> {
    // The device first: what is over it needs it up.
    for network in wanted.iter().filter(|n| !n.shared) {
        if device.name != network.name {
            let rename = links::rename(device.index, &network.name);
            let mut messages = [links::set_down(device.index), rename, links::set_up(device.index)];
            apply(socket, &mut messages)?;
            links::wait_until_it_carries(socket, device.index)?;
        }
        if device.mac != network.mac {
            // The address that IPv6 makes of it is made once it is on.
            use_ipv6(&network.name, false)?;
            socket.change(links::set_mac(device.index, network.mac))?;
        }
        use_ipv6(&network.name, has_ipv6(network))?;
        let mut messages = vec![links::set_mtu(device.index, network.mtu)];
        furnish(&mut messages, device.index, network);
        if let Some((server, mac)) = network.resolver {
            messages.extend([
                routes::add_to_host(device.index, server),
                links::add_neighbour(device.index, server, mac),
            ]);
        }
        apply(socket, &mut messages)?;
    }
    if wanted.iter().any(|n| n.shared) {
        // All of them hear what is asked of all: each answers for its own addresses alone.
        for network in wanted.iter().filter(|n| !n.shared) {
            answer_for_own(&network.name)?;
        }
    }
    let most = wanted.iter().find(|n| !n.shared).map_or(device.mtu, |n| n.mtu);
    for network in wanted.iter().filter(|n| n.shared) {
        let index = match links::find(socket, &network.name)? {
            Some(link) => link.index,
            None => {
                let mtu = network.mtu.min(most);
                let made = links::create_macvlan(&network.name, device.index, network.mac, mtu);
                socket.change(made).map_err(|e| match e.raw_os_error() {
                    Some(libc::EOPNOTSUPP) => io::Error::new(
                        e.kind(),
                        "the machine's kernel has no macvlan: prepare it again (silo vm kernel)",
                    ),
                    _ => e,
                })?;
                links::find(socket, &network.name)?.ok_or(io::ErrorKind::NotFound)?.index
            }
        };
        use_ipv6(&network.name, has_ipv6(network))?;
        answer_for_own(&network.name)?;
        // Up before its addresses: those of IPv6 are usable at once then.
        let mut messages = vec![links::set_up(index)];
        furnish(&mut messages, index, network);
        apply(socket, &mut messages)?;
        links::wait_until_it_carries(socket, index)?;
    }
    Ok(())
}

fn furnish(messages: &mut Vec<Message>, index: u32, network: &MachineNetwork) {
    messages.extend(network.addresses.iter().map(|(a, prefix)| links::add_address(index, *a, *prefix)));
    messages.extend(network.gateways.iter().map(|g| DefaultRoute::by(index, *g).replace()));
}

fn apply(socket: &mut Socket, messages: &mut [Message]) -> io::Result<()> {
    socket.apply(messages)?.into_iter().collect()
}

fn is_device(link: &Link) -> bool {
    link.kind.is_empty() && link.name != "lo"
}

/// The machine's device, while it has the name that it was made with.
fn device(socket: &mut Socket) -> io::Result<Link> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no {DEVICE}"));
    links::find(socket, DEVICE)?.ok_or_else(missing)
}

fn has_ipv6(network: &MachineNetwork) -> bool {
    network.addresses.iter().any(|(a, _)| a.is_ipv6())
}

/// Whether an interface has IPv6: without an address of the engine's it has none, not even one that it makes itself.
fn use_ipv6(name: &str, yes: bool) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), if yes { "0" } else { "1" })
}

/// Has an interface answer ARP for its own addresses, not for another's of the machine.
fn answer_for_own(name: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/arp_ignore"), "1")
}

/// The machine's network devices, as virtio names them.
fn devices() -> io::Result<Vec<std::ffi::OsString>> {
    const NETWORK: &str = "0x0001";
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/sys/bus/virtio/devices")? {
        let entry = entry?;
        let kind = std::fs::read_to_string(entry.path().join("device")).unwrap_or_default();
        if kind.trim() == NETWORK {
            all.push(entry.file_name());
        }
    }
    Ok(all)
}

/// A container without a network has no adapter: its driver lets the device go.
fn let_go() -> io::Result<()> {
    for name in devices()? {
        if Path::new(DRIVER).join(&name).exists() {
            std::fs::write(format!("{DRIVER}/unbind"), name.as_encoded_bytes())?;
        }
    }
    Ok(())
}

/// Undoes [`let_go`].
fn take_back(socket: &mut Socket) -> io::Result<Link> {
    for name in devices()? {
        std::fs::write(format!("{DRIVER}/bind"), name.as_encoded_bytes())?;
    }
    let device = device(socket)?;
    use_ipv6(DEVICE, false)?;
    socket.change(links::set_up(device.index))?;
    links::wait_until_it_carries(socket, device.index)?;
    Ok(device)
}
