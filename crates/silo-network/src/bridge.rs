//! The bridge of a network: made or taken over, addressed, set up, removed.

use std::net::IpAddr;

use silo_sys::netlink::Socket;

use crate::error::{NetworkError, Result, kernel};
use crate::links;
use crate::mac::MacAddress;

/// Makes a bridge, or takes over the one of that name, gives it what addresses it lacks and brings it up; returns its index.
pub(crate) fn ensure(socket: &mut Socket, name: &str, mtu: u32, addresses: &[(IpAddr, u8)]) -> Result<u32> {
    let find = |socket: &mut Socket| links::find(socket, name).map_err(kernel(format!("looking for {name}")));
    let found = find(socket)?;
    if found.as_ref().is_some_and(|l| l.kind != "bridge") {
        return Err(NetworkError::NotABridge(name.to_owned()));
    }
    let index = match found {
        Some(link) => link.index,
        None => {
            socket
                .change(links::create_bridge(name, mtu))
                .or_else(|e| if links::exists(&e) { Ok(()) } else { Err(e) })
                .map_err(kernel(format!("making bridge {name}")))?;
            find(socket)?.map(|l| l.index).ok_or_else(|| NetworkError::NotABridge(name.to_owned()))?
        }
    };
    for (address, prefix) in addresses {
        socket
            .change(silo_sys::links::add_address(index, *address, *prefix))
            .map_err(kernel(format!("giving {name} the address {address}")))?;
    }
    let four = addresses.iter().find_map(|(a, _)| match a {
        IpAddr::V4(a) => Some(*a),
        IpAddr::V6(_) => None,
    });
    if let Some(address) = four {
        socket
            .change(links::set_mac(index, MacAddress::of(address).0))
            .map_err(kernel(format!("setting up {name}")))?;
    }
    socket.change(links::set_up(index)).map_err(kernel(format!("bringing {name} up")))?;
    for (file, value) in [
        ("/proc/sys/net/ipv4/ip_forward".to_owned(), "1"),
        (format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1"),
    ] {
        if let Err(e) = write_setting(&file, value) {
            tracing::warn!("{file}: {e}");
        }
    }
    Ok(index)
}

/// Removes a link of the host; gone already: fine.
pub(crate) fn remove(socket: &mut Socket, name: &str) -> Result<()> {
    match socket.change(links::delete(name)) {
        Err(e) if !links::is_gone(&e) => Err(kernel(format!("removing {name}"))(e)),
        _ => Ok(()),
    }
}

/// Writes a kernel setting, unless it has the value already (a read-only /proc is fine then).
pub(crate) fn write_setting(path: &str, value: &str) -> std::io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    if std::fs::read_to_string(path).is_ok_and(|v| v.trim() == value) {
        return Ok(());
    }
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}
