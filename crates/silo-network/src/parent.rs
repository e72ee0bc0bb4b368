//! The parent of a macvlan or ipvlan: an interface of the host, a VLAN of one, or one that leads nowhere.

use silo_sys::netlink::Socket;

use crate::error::{NetworkError, Result, kernel};
use crate::links;

/// An interface and whether it was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) index: u32,
    pub(crate) foreign: bool,
}

fn find(socket: &mut Socket, name: &str) -> Result<Option<u32>> {
    let found = links::find(socket, name).map_err(kernel(format!("looking for {name}")))?;
    Ok(found.map(|l| l.index))
}

/// The name of the parent of a network that was given none.
pub(crate) fn own_name(network_id: &str) -> String {
    format!("dm-{}", &network_id[..network_id.len().min(12)])
}

/// The interface of that name: there already, `eth0.10` made on `eth0`, or (`own`) made without anything behind it.
pub(crate) fn ensure(socket: &mut Socket, name: &str, own: bool, alias: &str) -> Result<Parent> {
    if let Some(index) = find(socket, name)? {
        return Ok(Parent { index, foreign: true });
    }
    if own {
        make_own(socket, name)?;
    } else {
        make_vlan(socket, name)?;
    }
    let made = find(socket, name)?;
    let index = made.ok_or_else(|| kernel(format!("making {name}"))(std::io::ErrorKind::NotFound.into()))?;
    for change in [links::mark(name, alias), links::set_up(index)] {
        socket.change(change).map_err(kernel(format!("bringing {name} up")))?;
    }
    Ok(Parent { index, foreign: false })
}

/// A dummy; a pair of which only one end is used where the kernel has no dummies.
fn make_own(socket: &mut Socket, name: &str) -> Result<()> {
    let making = || format!("making {name}");
    match socket.change(links::create("dummy", name, 1500, None)) {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => return other.map_err(kernel(making())),
    }
    let peer = name.replacen("dm-", "dp-", 1);
    socket.change(links::create_pair(name, &peer)).map_err(kernel(making()))?;
    let index = find(socket, &peer)?.unwrap_or_default();
    socket.change(links::set_up(index)).map_err(kernel(making()))
}

/// dockerd's rule: `eth0.10` is VLAN 10 of eth0.
fn make_vlan(socket: &mut Socket, name: &str) -> Result<()> {
    let invalid = |reason: String| NetworkError::Invalid(reason);
    if !name.contains('.') {
        return Err(invalid(format!("invalid subinterface vlan name {name}, example formatting is eth0.10")));
    }
    let parts: Vec<&str> = name.split('.').collect();
    let [parent, vlan] = parts[..] else {
        return Err(invalid(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        )));
    };
    let id: u32 = vlan.parse().map_err(|_| {
        invalid(format!("unable to parse a valid vlan id from: {vlan} (ex. eth0.10 for vlan 10)"))
    })?;
    let index = find(socket, parent)?
        .ok_or_else(|| invalid(format!("-o parent interface was not found on the host: {parent}")))?;
    let id = u16::try_from(id)
        .ok()
        .filter(|id| (1..=4094).contains(id))
        .ok_or_else(|| invalid(format!("vlan id must be between 1-4094, received: {id}")))?;
    socket.change(links::create_vlan(name, index, id)).map_err(|source| match source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => NetworkError::NoDriver { driver: "vlan", source },
        _ => kernel(format!("failed to create {name} vlan link"))(source),
    })
}

/// Whether the kernel can make links of this kind.
pub(crate) fn supports(socket: &mut Socket, driver: &'static str) -> Result<()> {
    match socket.change(links::probe(driver)) {
        Err(source) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Err(NetworkError::NoDriver { driver, source })
        }
        _ => Ok(()),
    }
}
