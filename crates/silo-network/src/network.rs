//! The default network of one daemon: its bridge, the adapters on it, the ports published from it.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::Rng;
use silo_sys::netlink::Socket;

use crate::error::{NetworkError, Result, kernel};
use crate::links::{self, Veth};
use crate::pool::Pool;
use crate::ports::{Ports, Wish};
use crate::record::{
    AdapterForm, AdapterRecord, AttachOptions, Attached, MacAddress, NetworkConfig, NetworkInfo, PortRequest,
    PublishedPort,
};
use crate::subnet::Subnet;
use crate::{firewall, namespace};

/// Of the bridge and of all adapters.
const MTU: u32 = 1500;
/// Name of an adapter inside.
const INSIDE: &str = "eth0";

/// The default network.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    index: u32,
    subnet: Subnet,
    gateway: Ipv4Addr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: Socket,
    pool: Pool,
    ports: Ports,
    /// Host ends that are in use.
    live: HashSet<String>,
}

/// 64 hex digits that a name always gives, for IDs that need not be secret.
fn stable_id(name: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    (0u8..4)
        .map(|part| {
            let mut hasher = DefaultHasher::new();
            (part, name).hash(&mut hasher);
            format!("{:016x}", hasher.finish())
        })
        .collect()
}

/// The host's end of a container's pair: interface names have 15 bytes.
fn host_interface(container: &str) -> String {
    format!("sv{}", &container[..container.len().min(10)])
}

fn valid_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !matches!(name, "." | "..")
}

/// `172.20.0.1/16` as gateway and subnet.
fn parse_subnet(text: &str) -> Result<(Ipv4Addr, Subnet)> {
    let bad = |reason| NetworkError::Subnet { given: text.to_owned(), reason };
    let (address, prefix) = text.split_once('/').ok_or_else(|| bad("is not written as gateway/prefix"))?;
    let address: Ipv4Addr = address.parse().map_err(|_| bad("the gateway is no IPv4 address"))?;
    let prefix: u8 = prefix.parse().map_err(|_| bad("the prefix is no number"))?;
    if prefix > 30 {
        return Err(bad("has no room for a gateway and a container; /30 is the smallest"));
    }
    let subnet = Subnet::containing(address, prefix);
    let position = subnet.position(address).unwrap_or(0);
    if !(1..=subnet.hosts()).contains(&position) {
        return Err(bad("the gateway must not be the first or last address"));
    }
    Ok((address, subnet))
}

/// The first of the usual pools that the host neither has nor routes.
fn free_subnet(socket: &mut Socket) -> Result<(Ipv4Addr, Subnet)> {
    let mut taken: Vec<Subnet> = links::routes(socket)
        .map_err(kernel("reading the host's routes"))?
        .into_iter()
        .map(|(s, _)| s)
        .collect();
    taken.extend(
        links::addresses(socket)
            .map_err(kernel("reading the host's addresses"))?
            .into_iter()
            .map(|(.., s)| s),
    );
    let pools = (17..=31).map(|n| [172, n, 0, 1]).chain((88..=255).map(|n| [10, n, 0, 1]));
    for gateway in pools.map(Ipv4Addr::from) {
        let subnet = Subnet::containing(gateway, 16);
        if !taken.iter().any(|t| t.overlaps(subnet)) {
            return Ok((gateway, subnet));
        }
    }
    Err(NetworkError::NoSubnet)
}

impl Network {
    /// Makes bridge and firewall table, or takes over those of an earlier run. Adapters and ports of running containers
    /// are told by `adopt` and `readopt_ports`, then `sweep`.
    pub fn open(config: NetworkConfig) -> Result<Self> {
        let bridge = config.bridge;
        if !valid_name(&bridge) {
            return Err(NetworkError::BridgeName(bridge));
        }
        let mut socket = Socket::open().map_err(kernel("opening a netlink socket"))?;
        let find = |socket: &mut Socket| {
            links::find(socket, &bridge).map_err(kernel(format!("looking for {bridge}")))
        };
        let found = find(&mut socket)?;
        if found.as_ref().is_some_and(|l| l.kind != "bridge") {
            return Err(NetworkError::NotABridge(bridge));
        }
        let index = match found {
            Some(link) => link.index,
            None => {
                socket
                    .change(links::create_bridge(&bridge, MTU))
                    .or_else(|e| if links::exists(&e) { Ok(()) } else { Err(e) })
                    .map_err(kernel(format!("making bridge {bridge}")))?;
                find(&mut socket)?.map(|l| l.index).ok_or_else(|| NetworkError::NotABridge(bridge.clone()))?
            }
        };
        let has = links::addresses(&mut socket)
            .map_err(kernel("reading the host's addresses"))?
            .into_iter()
            .find(|(i, ..)| *i == index)
            .map(|(_, address, subnet)| (address, subnet));
        let (gateway, subnet) = match (has, &config.subnet) {
            (Some(has), _) => has,
            (None, Some(text)) => parse_subnet(text)?,
            (None, None) => free_subnet(&mut socket)?,
        };
        if has.is_none() {
            socket
                .change(links::add_address(index, gateway, subnet))
                .map_err(kernel(format!("giving {bridge} the address {gateway}")))?;
        }
        socket
            .change(links::set_mac(index, MacAddress::of(gateway).0))
            .map_err(kernel(format!("setting up {bridge}")))?;
        socket.change(links::set_up(index)).map_err(kernel(format!("bringing {bridge} up")))?;
        for (file, value) in [
            ("/proc/sys/net/ipv4/ip_forward".to_owned(), "1"),
            (format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"), "1"),
        ] {
            if let Err(e) = write_setting(&file, value) {
                tracing::warn!("{file}: {e}");
            }
        }
        let pool = Pool::new(subnet, gateway);
        let state = State { socket, pool, ports: Ports::default(), live: HashSet::new() };
        let network = Self { bridge, index, subnet, gateway, state: Mutex::new(state) };
        // Kept as it is when it is there: published ports of running containers are in it until they are readopted.
        if !firewall::present(&network.bridge)
            && let Err(e) = firewall::replace(&network.bridge, network.subnet, &[])
        {
            tracing::warn!("containers reach the host but nothing beyond it: {e}");
        }
        Ok(network)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A network namespace with loopback and `eth0`, addressed, routed and on the bridge: a new one, or an empty one that was
    /// made before.
    pub fn attach(
        &self,
        container: &str,
        form: AdapterForm,
        options: &AttachOptions,
        namespace: Option<OwnedFd>,
    ) -> Result<Attached> {
        let AdapterForm::Veth = form;
        let wished = options.mac.as_deref().map(str::parse::<MacAddress>).transpose()?;
        let host = host_interface(container);
        let ipv4 = {
            let mut state = self.state();
            if !state.live.insert(host.clone()) {
                return Err(NetworkError::AlreadyAttached(container.to_owned()));
            }
            let taken = match options.ipv4 {
                Some(ip) => state.pool.take(ip).map(|()| ip),
                None => state.pool.take_any(),
            };
            taken.inspect_err(|_| {
                state.live.remove(&host);
            })?
        };
        let mac = wished.unwrap_or_else(|| MacAddress::of(ipv4));
        let made = self.make_pair(&host, mac, ipv4, namespace);
        if made.is_err() {
            let mut state = self.state();
            state.live.remove(&host);
            state.pool.free(ipv4);
            let _ = state.socket.change(links::delete(&host));
        }
        let bytes: [u8; 32] = rand::rng().random();
        let adapter = AdapterRecord {
            network: "bridge".to_owned(),
            network_id: stable_id(&self.bridge),
            endpoint_id: bytes.iter().map(|b| format!("{b:02x}")).collect(),
            host_interface: host,
            ipv4,
            prefix: self.subnet.prefix(),
            gateway: self.gateway,
            mac: mac.to_string(),
        };
        Ok(Attached { namespace: made?, adapter })
    }

    fn make_pair(
        &self,
        host: &str,
        mac: MacAddress,
        ipv4: Ipv4Addr,
        made: Option<OwnedFd>,
    ) -> Result<OwnedFd> {
        let furnish = |namespace: &OwnedFd, inside: &mut Socket| -> Result<()> {
            {
                let mut state = self.state();
                let veth = Veth { host, bridge: self.index, inside: INSIDE, mac, netns: namespace, mtu: MTU };
                // A pair of that name is what a crash left: its container is not running, or it would be adopted.
                let made = links::create_veth(&mut state.socket, &veth).or_else(|e| {
                    if !links::exists(&e) {
                        return Err(e);
                    }
                    state.socket.change(links::delete(host))?;
                    links::create_veth(&mut state.socket, &veth)
                });
                made.map_err(kernel(format!("making the adapter {host}")))?;
            }
            let link = links::find(inside, INSIDE)
                .map_err(kernel("looking for eth0 in a new namespace"))?
                .ok_or_else(|| {
                    kernel("looking for eth0 in a new namespace")(std::io::ErrorKind::NotFound.into())
                })?;
            inside
                .change(links::add_address(link.index, ipv4, self.subnet))
                .map_err(kernel(format!("giving eth0 the address {ipv4}")))?;
            inside.change(links::set_up(link.index)).map_err(kernel("bringing eth0 up"))?;
            inside
                .change(links::add_default_route(link.index, self.gateway.into()))
                .map_err(kernel("setting the default route"))
        };
        match made {
            Some(namespace) => namespace::enter(&namespace, furnish).map(|()| namespace),
            None => namespace::create(furnish).map(|(namespace, ())| namespace),
        }
    }

    /// A new network namespace with loopback only: `--network none`.
    pub fn create_empty_namespace(&self) -> Result<OwnedFd> {
        namespace::create(|_, _| Ok(())).map(|(namespace, ())| namespace)
    }

    /// Takes the adapter away; its address is free again. Gone already: fine.
    pub fn detach(&self, adapter: &AdapterRecord) -> Result<()> {
        let mut state = self.state();
        let result = match state.socket.change(links::delete(&adapter.host_interface)) {
            Err(e) if !links::is_gone(&e) => Err(kernel(format!("removing {}", adapter.host_interface))(e)),
            _ => Ok(()),
        };
        state.live.remove(&adapter.host_interface);
        state.pool.free(adapter.ipv4);
        result
    }

    /// After a daemon restart: this adapter is in use.
    pub fn adopt(&self, adapter: &AdapterRecord) {
        let mut state = self.state();
        state.live.insert(adapter.host_interface.clone());
        // Out of the subnet or taken: the network was configured anew meanwhile; the container keeps what it has.
        if let Err(e) = state.pool.take(adapter.ipv4) {
            tracing::warn!("adapter {}: {e}", adapter.host_interface);
        }
    }

    /// After all `adopt`s: removes adapters on our bridge that nobody has, and sets the firewall to what is published.
    pub fn sweep(&self) -> Result<()> {
        let mut state = self.state();
        let all = links::all(&mut state.socket).map_err(kernel("listing links"))?;
        for link in all.iter().filter(|l| l.master == self.index && l.name.starts_with("sv")) {
            if !state.live.contains(&link.name) {
                match state.socket.change(links::delete(&link.name)) {
                    Err(e) if !links::is_gone(&e) => tracing::warn!("removing {}: {e}", link.name),
                    _ => {}
                }
            }
        }
        firewall::replace(&self.bridge, self.subnet, &state.ports.forwards())
    }

    /// Publishes ports of a container in place of those it had, all or none.
    pub fn publish(
        &self,
        container: &str,
        adapter: &AdapterRecord,
        ports: &[PortRequest],
    ) -> Result<Vec<PublishedPort>> {
        let wishes = ports.iter().map(Wish::new).collect::<Result<Vec<_>>>()?;
        let failed = |reason: String| NetworkError::Publish {
            container: container.chars().take(12).collect(),
            endpoint: adapter.endpoint_id.clone(),
            reason,
        };
        let mut state = self.state();
        let published =
            state.ports.claim(container, adapter.ipv4, &wishes).map_err(|r| failed(r.to_string()))?;
        if let Err(e) = firewall::replace(&self.bridge, self.subnet, &state.ports.forwards()) {
            state.ports.release(container);
            return Err(failed(e.to_string()));
        }
        Ok(published)
    }

    /// After a daemon restart, before `sweep`: these ports are published.
    pub fn readopt_ports(&self, container: &str, adapter: &AdapterRecord, ports: &[PublishedPort]) {
        if !ports.is_empty() {
            self.state().ports.readopt(container, adapter.ipv4, ports);
        }
    }

    /// Withdraws all published ports of a container.
    pub fn unpublish(&self, container: &str) -> Result<()> {
        let mut state = self.state();
        if !state.ports.release(container) {
            return Ok(());
        }
        firewall::replace(&self.bridge, self.subnet, &state.ports.forwards())
    }

    /// `bridge`, `host` and `none`.
    pub fn infos(&self) -> Vec<NetworkInfo> {
        let plain = |name: &str, driver: &str| NetworkInfo {
            name: name.to_owned(),
            id: stable_id(&format!("{}:{name}", self.bridge)),
            driver: driver.to_owned(),
            scope: "local".to_owned(),
            subnet: None,
            gateway: None,
            bridge: None,
        };
        let bridge = NetworkInfo {
            id: stable_id(&self.bridge),
            subnet: Some(self.subnet.to_string()),
            gateway: Some(self.gateway.to_string()),
            bridge: Some(self.bridge.clone()),
            ..plain("bridge", "bridge")
        };
        vec![bridge, plain("host", "host"), plain("none", "null")]
    }

    /// Removes bridge and table: for tests, demos and uninstalling. Running containers lose their network.
    pub fn teardown(&self) -> Result<()> {
        let mut state = self.state();
        state.ports.clear();
        match state.socket.change(links::delete(&self.bridge)) {
            Err(e) if !links::is_gone(&e) => return Err(kernel(format!("removing {}", self.bridge))(e)),
            _ => {}
        }
        firewall::remove(&self.bridge)
    }
}

/// Writes a kernel setting, unless it has the value already (a read-only /proc is fine then).
fn write_setting(path: &str, value: &str) -> std::io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    if std::fs::read_to_string(path).is_ok_and(|v| v.trim() == value) {
        return Ok(());
    }
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_subnets_are_checked() {
        assert!(parse_subnet("172.20.0.1/16").is_ok());
        for bad in ["172.20.0.0/16", "172.20.0.1", "x/16", "10.0.0.1/31", "10.0.0.255/24", "10.0.0.1/99"] {
            assert!(parse_subnet(bad).unwrap_err().is_invalid(), "{bad}");
        }
    }

    /// In a network namespace of its own, so that the host's links and rules stay untouched.
    #[test]
    fn containers_are_reached_over_the_bridge_and_leave_nothing() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let test = || {
            silo_sys::netns::unshare_network().unwrap();
            let mut socket = Socket::open().unwrap();
            socket.change(links::set_up(1)).unwrap();
            let config = NetworkConfig { bridge: "sbtest".into(), subnet: Some("10.199.0.1/24".into()) };
            let network = Network::open(config.clone()).unwrap();
            let attach = |network: &Network, name: &str, made| {
                network.attach(&name.repeat(64), AdapterForm::Veth, &AttachOptions::default(), made).unwrap()
            };
            let a = attach(&network, "a", None);
            let b = attach(&network, "b", Some(network.create_empty_namespace().unwrap()));
            assert_eq!(a.adapter.ipv4, Ipv4Addr::new(10, 199, 0, 2));
            assert_eq!(b.adapter.ipv4, Ipv4Addr::new(10, 199, 0, 3));
            let listener = std::thread::spawn(move || {
                silo_sys::mount::setns(&a.namespace, 0x4000_0000).unwrap();
                let listener = std::net::TcpListener::bind("0.0.0.0:80").unwrap();
                (listener, a)
            });
            let (listener, a) = listener.join().unwrap();
            assert!(std::net::TcpStream::connect("10.199.0.2:80").is_ok(), "from the host");
            let from_b = std::thread::spawn(move || {
                silo_sys::mount::setns(&b.namespace, 0x4000_0000).unwrap();
                std::net::TcpStream::connect("10.199.0.2:80").is_ok()
            });
            assert!(from_b.join().unwrap(), "from a neighbour");
            drop(listener);
            // A second daemon takes the bridge over; what it does not adopt is swept.
            let again = Network::open(config).unwrap();
            again.adopt(&a.adapter);
            let _ = again.sweep();
            let names: Vec<String> = links::all(&mut socket).unwrap().into_iter().map(|l| l.name).collect();
            assert!(
                names.contains(&a.adapter.host_interface) && !names.contains(&"svbbbbbbbbbb".to_owned()),
                "{names:?}"
            );
            again.detach(&a.adapter).unwrap();
            again.teardown().unwrap();
            let left: Vec<String> = links::all(&mut socket).unwrap().into_iter().map(|l| l.name).collect();
            assert!(!left.iter().any(|n| n.starts_with('s')), "{left:?}");
        };
        std::thread::spawn(test).join().unwrap();
    }
}
