//! The machine's adapters and name servers (iptypes.h, iphlpapi.h, ws2def.h; x64).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const INCLUDE_GATEWAYS: u32 = 0x80;
const OVERFLOW: u32 = 111;
const INET: u16 = 2;
const INET6: u16 = 23;
/// More than a container's adapters need: what has not come by then does not come.
const MOST: u32 = 1 << 20;

#[link(name = "iphlpapi")]
extern "system" {
    fn GetAdaptersAddresses(family: u32, flags: u32, reserved: *const u8, list: *mut u8, size: *mut u32) -> u32;
    fn GetNetworkParams(info: *mut u8, size: *mut u32) -> u32;
}

#[repr(C)]
struct SocketAddress {
    at: *const u8,
    length: i32,
}

/// `IP_ADAPTER_UNICAST_ADDRESS_LH`; those of gateways and name servers begin alike.
#[repr(C)]
struct Address {
    _length: [u32; 2],
    next: *const Address,
    address: SocketAddress,
    _origins: [u32; 3],
    _lifetimes: [u32; 3],
    prefix: u8,
}

/// `IP_ADAPTER_ADDRESSES_LH` as far as it is read.
#[repr(C)]
struct Listed {
    _length: u32,
    _index: u32,
    next: *const Listed,
    _name: *const u8,
    unicast: *const Address,
    _anycast: *const Address,
    _multicast: *const Address,
    servers: *const Address,
    suffix: *const u16,
    description: *const u16,
    friendly: *const u16,
    mac: [u8; 8],
    mac_length: u32,
    _flags: u32,
    _mtu: u32,
    kind: u32,
    _state: u32,
    _index6: u32,
    _zones: [u32; 16],
    _prefix: *const u8,
    _speeds: [u64; 2],
    _wins: *const Address,
    gateways: *const Address,
}

/// Interface type of the loopback (`IF_TYPE_SOFTWARE_LOOPBACK`).
const LOOPBACK: u32 = 24;

/// An adapter.
pub struct Adapter {
    pub name: String,
    pub description: String,
    pub suffix: String,
    pub mac: Vec<u8>,
    /// With the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    pub gateways: Vec<IpAddr>,
    pub servers: Vec<IpAddr>,
}

/// All of the machine's but the loopback; the error is Windows'.
pub fn adapters() -> Result<Vec<Adapter>, u32> {
    let buffer = filled(|list, size| {
        // SAFETY: the list is as long as said.
        unsafe { GetAdaptersAddresses(0, INCLUDE_GATEWAYS, std::ptr::null(), list, size) }
    })?;
    let mut found = Vec::new();
    let mut next = buffer.as_ptr().cast::<Listed>();
    while !next.is_null() {
        // SAFETY: the list lies in the buffer, its texts and addresses too.
        unsafe {
            let one = &*next;
            next = one.next;
            if one.kind == LOOPBACK {
                continue;
            }
            found.push(Adapter {
                name: crate::text(one.friendly),
                description: crate::text(one.description),
                suffix: crate::text(one.suffix),
                mac: one.mac[..(one.mac_length as usize).min(8)].to_vec(),
                addresses: all(one.unicast, true),
                gateways: all(one.gateways, false).into_iter().map(|(a, _)| a).collect(),
                servers: all(one.servers, false).into_iter().map(|(a, _)| a).collect(),
            });
        }
    }
    Ok(found)
}

unsafe fn all(mut next: *const Address, prefix: bool) -> Vec<(IpAddr, u8)> {
    let mut found = Vec::new();
    while !next.is_null() {
        let one = &*next;
        if let Some(address) = address(&one.address) {
            found.push((address, if prefix { one.prefix } else { 0 }));
        }
        next = one.next;
    }
    found
}

unsafe fn address(of: &SocketAddress) -> Option<IpAddr> {
    let bytes = std::slice::from_raw_parts(of.at, of.length.max(0) as usize);
    match u16::from_ne_bytes([*bytes.get(0)?, *bytes.get(1)?]) {
        INET => Some(Ipv4Addr::new(*bytes.get(4)?, bytes[5], bytes[6], *bytes.get(7)?).into()),
        INET6 => {
            let mut six = [0; 16];
            six.copy_from_slice(bytes.get(8..24)?);
            Some(Ipv6Addr::from(six).into())
        }
        _ => None,
    }
}

/// Names and name servers of the machine.
pub struct Machine {
    pub host: String,
    pub domain: String,
    pub servers: Vec<IpAddr>,
}

/// Reads them; the error is Windows'.
pub fn machine() -> Result<Machine, u32> {
    /// `IP_ADDR_STRING`.
    #[repr(C)]
    struct Server {
        next: *const Server,
        address: [u8; 16],
        _mask: [u8; 16],
        _context: u32,
    }
    /// `FIXED_INFO` as far as it is read.
    #[repr(C)]
    struct Info {
        host: [u8; 132],
        domain: [u8; 132],
        _current: *const u8,
        first: Server,
    }
    let buffer = filled(|info, size| {
        // SAFETY: the buffer is as long as said.
        unsafe { GetNetworkParams(info, size) }
    })?;
    let plain = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let mut servers = Vec::new();
    // SAFETY: the buffer holds the structure, which the call has filled.
    unsafe {
        let info = &*buffer.as_ptr().cast::<Info>();
        let mut next: *const Server = &info.first;
        while !next.is_null() {
            servers.extend(plain(&(*next).address).parse::<IpAddr>());
            next = (*next).next;
        }
        Ok(Machine { host: plain(&info.host), domain: plain(&info.domain), servers })
    }
}

/// What a call fills that says how much room it needs. Eight bytes each: the structures are aligned so.
fn filled(call: impl Fn(*mut u8, *mut u32) -> u32) -> Result<Vec<u64>, u32> {
    let mut size = 16 << 10;
    loop {
        let mut buffer = vec![0u64; size as usize / 8 + 1];
        match call(buffer.as_mut_ptr().cast(), &mut size) {
            0 => return Ok(buffer),
            OVERFLOW if size <= MOST => {}
            error => return Err(error),
        }
    }
}
