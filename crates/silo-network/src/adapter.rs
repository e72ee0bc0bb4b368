//! Adapters: made in a container's namespace and joined to its network, changed, taken away.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rand::Rng;
use silo_sys::netlink::Socket;

use crate::error::{NetworkError, Result, kernel};
use crate::firewall::Guard;
use crate::links::{self, Veth};
use crate::mac::MacAddress;
use crate::networks::{MTU, Networks};
use crate::record::{AdapterForm, AdapterRecord, AttachOptions, Attached, Bandwidth, Counters, Driver};
use crate::{bridge, namespace};

/// The host's end of a pair: interface names have 15 bytes.
fn host_interface(endpoint: &str) -> String {
    format!("sv{}", &endpoint[..endpoint.len().min(10)])
}

/// How the inside of an adapter is named.
enum Naming {
    Exactly(String),
    FirstFree(String),
}

impl Networks {
    /// An adapter of a network in a network namespace with loopback: a new one, or one that was made before, also of a
    /// running container. Where the namespace has no default route yet, it gets this adapter's.
    pub fn attach(
        &self,
        network_id: &str,
        container_id: &str,
        form: AdapterForm,
        options: &AttachOptions,
        namespace: Option<OwnedFd>,
    ) -> Result<Attached> {
        let AdapterForm::Veth = form;
        let wished = options.mac.as_deref().map(str::parse::<MacAddress>).transpose()?;
        let bytes: [u8; 32] = rand::rng().random();
        let endpoint_id: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let (mut adapter, index, mtu, naming, icc) = {
            let mut state = self.state();
            let network = state.network(network_id)?;
            if network.record.driver != Driver::Bridge {
                return Err(NetworkError::Invalid(format!(
                    "container {container_id} cannot have an adapter on network {}",
                    network.record.name
                )));
            }
            let taken = network.take(options)?;
            let mac = wished.unwrap_or_else(|| taken.ipv4.map_or_else(MacAddress::random, MacAddress::of));
            let adapter = AdapterRecord {
                network: network.record.name.clone(),
                network_id: network.record.id.clone(),
                host_interface: host_interface(&endpoint_id),
                endpoint_id,
                driver: network.record.driver,
                interface: String::new(),
                ipv4: taken.ipv4,
                prefix: taken.prefix,
                gateway: taken.gateway,
                ipv6: taken.ipv6,
                prefix6: taken.prefix6,
                gateway6: taken.gateway6,
                link_local: options.link_local.clone(),
                mac: mac.to_string(),
                limits: options.bandwidth,
            };
            let naming = match &options.interface {
                Some(name) => Naming::Exactly(name.clone()),
                None => Naming::FirstFree(network.options.prefix.clone()),
            };
            let (index, mtu) = (network.index, network.options.mtu.unwrap_or(MTU));
            let network_icc = network.options.icc;
            state.live.insert(adapter.host_interface.clone(), network_id.to_owned());
            (adapter, index, mtu, naming, network_icc)
        };
        // First the guard: there is no moment at which the adapter may send what is not its own.
        let made = guard(&adapter, icc)
            .and_then(|guard| self.firewall().guard(guard))
            .and_then(|()| self.make_pair(&mut adapter, index, mtu, naming, namespace));
        if made.is_err()
            && let Err(e) = self.detach(&adapter, None)
        {
            tracing::warn!("{e}");
        }
        Ok(Attached { namespace: made?, adapter })
    }

    fn make_pair(
        &self,
        adapter: &mut AdapterRecord,
        bridge: u32,
        mtu: u32,
        naming: Naming,
        made: Option<OwnedFd>,
    ) -> Result<OwnedFd> {
        let furnish = |namespace: &OwnedFd, inside: &mut Socket| -> Result<()> {
            adapter.interface = interface(inside, naming)?;
            let mac: MacAddress = adapter.mac.parse()?;
            let veth = Veth {
                host: &adapter.host_interface,
                bridge,
                inside: &adapter.interface,
                mac,
                netns: namespace,
                mtu,
            };
            links::create_veth(&mut self.state().socket, &veth)
                .map_err(kernel(format!("making the adapter {}", adapter.host_interface)))?;
            furnish(inside, adapter)
        };
        match made {
            Some(namespace) => namespace::enter(&namespace, furnish).map(|()| namespace),
            None => namespace::create(furnish).map(|(namespace, ())| namespace),
        }
    }

    /// The default routes of a namespace: exactly those of these adapters.
    pub fn set_gateway(
        &self,
        _namespace: BorrowedFd<'_>,
        _v4: Option<&AdapterRecord>,
        _v6: Option<&AdapterRecord>,
    ) -> Result<()> {
        todo!("netcore")
    }

    /// A new network namespace with loopback only: `--network none`.
    pub fn create_empty_namespace(&self) -> Result<OwnedFd> {
        namespace::create(|_, _| Ok(())).map(|(namespace, ())| namespace)
    }

    /// Takes the adapter away; its addresses are free again. Gone already: fine. `namespace` is that of a container that
    /// goes on running: a macvlan or ipvlan is there and nowhere else.
    pub fn detach(&self, adapter: &AdapterRecord, _namespace: Option<BorrowedFd<'_>>) -> Result<()> {
        let mut result = match adapter.host_interface.as_str() {
            "" => Ok(()),
            name => bridge::remove(&mut self.state().socket, name),
        };
        result = result.and(self.firewall().unguard(&adapter.host_interface));
        let mut state = self.state();
        state.live.remove(&adapter.host_interface);
        if let Ok(network) = state.network(&adapter.network_id) {
            network.give_back(adapter.addresses().into_iter());
        }
        result
    }

    /// After a daemon restart: this adapter is in use.
    pub fn adopt(&self, adapter: &AdapterRecord) {
        let icc = self.state().network(&adapter.network_id).map_or(true, |n| n.options.icc);
        if !adapter.host_interface.is_empty() {
            match guard(adapter, icc) {
                Ok(guard) => self.firewall().readopt_guard(guard),
                Err(e) => tracing::warn!("adapter {}: {e}", adapter.host_interface),
            }
        }
        let mut state = self.state();
        if !adapter.host_interface.is_empty() {
            state.live.insert(adapter.host_interface.clone(), adapter.network_id.clone());
        }
        // Out of the subnet or taken: the network was configured anew meanwhile; the container keeps what it has.
        match state.network(&adapter.network_id).map(|n| n.adopt(adapter)) {
            Err(e) => tracing::warn!("adapter {}: {e}", adapter.host_interface),
            Ok(Err(address)) => tracing::warn!("adapter {}: {address} is taken", adapter.host_interface),
            Ok(Ok(())) => {}
        }
    }

    /// Changes what an adapter may carry, at once. `namespace`: as for `detach`.
    pub fn set_bandwidth(
        &self,
        _adapter: &AdapterRecord,
        _namespace: Option<BorrowedFd<'_>>,
        _limits: Bandwidth,
    ) -> Result<()> {
        todo!("netcore")
    }

    /// What an adapter carried. `namespace`: as for `detach`.
    pub fn counters(&self, _adapter: &AdapterRecord, _namespace: Option<BorrowedFd<'_>>) -> Result<Counters> {
        todo!("netcore")
    }
}

/// What the firewall holds an adapter to.
fn guard(adapter: &AdapterRecord, icc: bool) -> Result<Guard> {
    Ok(Guard {
        host_interface: adapter.host_interface.clone(),
        mac: adapter.mac.parse()?,
        addresses: adapter.addresses(),
        icc,
    })
}

/// The name of a new interface of this namespace.
fn interface(inside: &mut Socket, naming: Naming) -> Result<String> {
    let prefix = match naming {
        Naming::Exactly(name) => return Ok(name),
        Naming::FirstFree(prefix) => prefix,
    };
    for n in 0.. {
        let name = format!("{prefix}{n}");
        if links::find(inside, &name).map_err(kernel("looking for a free interface name"))?.is_none() {
            return Ok(name);
        }
    }
    Ok(prefix)
}

/// Addresses, state and routes of a new interface.
fn furnish(inside: &mut Socket, adapter: &AdapterRecord) -> Result<()> {
    let name = &adapter.interface;
    let link = links::find(inside, name)
        .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(kernel(format!("looking for {name} in a namespace")))?;
    let mut steps = Vec::new();
    if let Some(ip) = adapter.ipv4 {
        let message = silo_sys::links::add_address(link.index, ip.into(), adapter.prefix);
        steps.push((format!("giving {name} the address {ip}"), message));
    }
    if let Some(ip) = adapter.ipv6 {
        let message = silo_sys::links::add_address(link.index, ip.into(), adapter.prefix6);
        steps.push((format!("giving {name} the address {ip}"), message));
    }
    steps.push((format!("bringing {name} up"), links::set_up(link.index)));
    let gateways = adapter.gateway.map(IpAddr::V4).into_iter().chain(adapter.gateway6.map(IpAddr::V6));
    for gateway in gateways {
        let message = links::add_default_route(link.index, gateway);
        steps.push(("setting the default route".to_owned(), message));
    }
    let (names, mut messages): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    let results = inside.apply(&mut messages).map_err(kernel(format!("setting up {name}")))?;
    for (doing, result) in names.into_iter().zip(results) {
        result.map_err(kernel(doing))?;
    }
    Ok(())
}

/// Keeps the signature of borrowed namespaces in one place.
#[allow(dead_code)]
fn borrowed(namespace: &OwnedFd) -> BorrowedFd<'_> {
    namespace.as_fd()
}
