//! The bridge of a network: made or taken over, addressed, set up, removed.

use std::net::IpAddr;

use silo_sys::netlink::Socket;

use crate::error::{NetworkError, Result, kernel};
use crate::mac::MacAddress;
use crate::{links, settings};

/// How a bridge is to be.
#[derive(Debug)]
pub(crate) struct Bridge<'a> {
    pub(crate) name: &'a str,
    /// Whose it is: what a link of ours is known by.
    pub(crate) alias: &'a str,
    pub(crate) mtu: u32,
    pub(crate) mac: MacAddress,
    /// The host's addresses on it.
    pub(crate) addresses: &'a [(IpAddr, u8)],
    pub(crate) ipv6: bool,
    /// No way out and none in.
    pub(crate) internal: bool,
}

/// The index of the bridge of that name, if there is one.
pub(crate) fn find(socket: &mut Socket, name: &str) -> Result<Option<u32>> {
    let found = links::find(socket, name).map_err(kernel(format!("looking for {name}")))?;
    match found {
        Some(link) if link.kind != "bridge" => Err(NetworkError::NotABridge(name.to_owned())),
        found => Ok(found.map(|l| l.index)),
    }
}

/// Makes a bridge, or takes over the one of that name, gives it what addresses it lacks and brings it up; returns its index.
pub(crate) fn ensure(socket: &mut Socket, bridge: &Bridge<'_>) -> Result<u32> {
    let name = bridge.name;
    let found = find(socket, name)?;
    let index = match found {
        Some(index) => index,
        None => {
            // Without a hardware address of its own it would take its ports', and change with them.
            socket
                .change(links::create("bridge", name, bridge.mtu, Some(bridge.mac)))
                .or_else(|e| if links::exists(&e) { Ok(()) } else { Err(e) })
                .and_then(|()| socket.change(links::mark(name, bridge.alias)))
                .map_err(kernel(format!("making bridge {name}")))?;
            find(socket, name)?.ok_or_else(|| NetworkError::NotABridge(name.to_owned()))?
        }
    };
    if found.is_none() {
        // A router's announcements on it are not meant for the host, and its addresses are nobody else's.
        settings::wish(&format!("ipv6/conf/{name}/accept_ra"), "0");
        settings::wish(&format!("ipv6/conf/{name}/accept_dad"), "0");
    }
    if bridge.ipv6 || found.is_none() {
        settings::wish(&format!("ipv6/conf/{name}/disable_ipv6"), if bridge.ipv6 { "0" } else { "1" });
    }
    let mut messages: Vec<_> =
        bridge.addresses.iter().map(|(a, prefix)| links::add_address(index, *a, *prefix)).collect();
    messages.push(links::set_up(index));
    let results = socket.apply(&mut messages).map_err(kernel(format!("setting up {name}")))?;
    results.into_iter().collect::<std::io::Result<()>>().map_err(kernel(format!("setting up {name}")))?;
    if !bridge.internal {
        settings::wish("ipv4/ip_forward", "1");
        // Published ports are reached from the host's loopback, too.
        settings::wish(&format!("ipv4/conf/{name}/route_localnet"), "1");
        if bridge.ipv6 {
            settings::wish("ipv6/conf/default/forwarding", "1");
            settings::wish("ipv6/conf/all/forwarding", "1");
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
