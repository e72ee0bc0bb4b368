//! Adapters: made in a container's namespace and joined to its network, taken away, counted.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use silo_sys::netlink::Socket;
use silo_sys::routes::DefaultRoute;

use crate::error::{NetworkError, Result, kernel};
use crate::firewall::Guard;
use crate::links::{self, Upper, Veth};
use crate::mac::MacAddress;
use crate::network::Network;
use crate::networks::{Live, MTU, Networks, random_id};
use crate::options::{IpvlanFlag, IpvlanMode, MacvlanMode, Options, interface_name};
use crate::record::{AdapterForm, AdapterRecord, AttachOptions, Attached, Bandwidth, Counters, Driver};
use crate::{bridge, namespace, settings, shaping};

/// How often another adapter of the same namespace may take the name that was free a moment ago.
const NAME_TRIES: usize = 8;

/// The host's end of a pair: interface names have 15 bytes.
fn host_interface(endpoint: &str) -> String {
    format!("sv{}", &endpoint[..endpoint.len().min(10)])
}

/// What making an adapter needs to know of its network.
struct Place {
    options: Options,
    /// The bridge.
    index: u32,
    /// The parent of a macvlan or ipvlan.
    parent: String,
    /// Its name inside, if it was asked for.
    name: Option<String>,
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
        let (mut adapter, place) = self.plan_adapter(network_id, container_id, options)?;
        let made = match namespace {
            Some(namespace) => {
                let into = namespace.as_fd();
                namespace::enter(into, |inside| self.make(&mut adapter, &place, into, inside))
                    .map(|()| namespace)
            }
            None => namespace::create(|namespace, inside| {
                self.make(&mut adapter, &place, namespace.as_fd(), inside)
            })
            .map(|(namespace, ())| namespace),
        };
        let made = made.and_then(|namespace| wait_on_the_host(&adapter, &place).map(|()| namespace));
        match made {
            Ok(namespace) => Ok(Attached { namespace, adapter }),
            Err(error) => {
                if let Err(e) = self.detach(&adapter, None) {
                    tracing::warn!("{e}");
                }
                Err(error)
            }
        }
    }

    /// Chooses the addresses; nothing is made yet, but the adapter counts as in use.
    fn plan_adapter(
        &self,
        network_id: &str,
        container_id: &str,
        options: &AttachOptions,
    ) -> Result<(AdapterRecord, Place)> {
        let wished = options.mac.as_deref().map(str::parse::<MacAddress>).transpose()?;
        if let Some(name) = options.interface.as_deref().filter(|n| !interface_name(n)) {
            return Err(NetworkError::Invalid(format!("invalid interface name: {name}")));
        }
        for address in &options.link_local {
            let fits = match address {
                IpAddr::V4(a) => a.is_link_local(),
                IpAddr::V6(a) => a.is_unicast_link_local(),
            };
            if !fits {
                return Err(NetworkError::Invalid(format!("invalid link local IP address: {address}")));
            }
        }
        let mut state = self.state();
        let network = state.network(network_id)?;
        let driver = network.record.driver;
        if !matches!(driver, Driver::Bridge | Driver::Macvlan | Driver::Ipvlan) {
            return Err(NetworkError::Invalid(format!(
                "container {container_id} cannot have an adapter on network {}",
                network.record.name
            )));
        }
        if driver == Driver::Ipvlan && wished.is_some() {
            return Err(NetworkError::Invalid(
                "an adapter of an ipvlan network has its parent's hardware address and no other".into(),
            ));
        }
        let taken = network.take(options)?;
        let mac = wished.unwrap_or_else(|| taken.ipv4.map_or_else(MacAddress::random, MacAddress::of));
        let endpoint_id = random_id();
        let host_interface = match driver {
            Driver::Bridge => host_interface(&endpoint_id),
            _ => String::new(),
        };
        let default = network.options.bandwidth;
        let adapter = AdapterRecord {
            network: network.record.name.clone(),
            network_id: network.record.id.clone(),
            host_interface,
            endpoint_id,
            driver,
            interface: String::new(),
            ipv4: taken.ipv4,
            prefix: taken.prefix,
            gateway: taken.gateway,
            ipv6: taken.ipv6,
            prefix6: taken.prefix6,
            gateway6: taken.gateway6,
            link_local: options.link_local.clone(),
            mac: mac.to_string(),
            limits: Bandwidth {
                egress: options.bandwidth.egress.or(default.egress),
                ingress: options.bandwidth.ingress.or(default.ingress),
            },
        };
        let place = Place {
            options: network.options.clone(),
            index: network.index,
            parent: network.record.interface.clone().unwrap_or_default(),
            name: options.interface.clone(),
        };
        let live = Live { network_id: network_id.to_owned(), host_interface: adapter.host_interface.clone() };
        state.live.insert(adapter.endpoint_id.clone(), live);
        Ok((adapter, place))
    }

    /// Makes a planned adapter in a namespace; `inside` is a socket of that, and the calling thread is in it.
    fn make(
        &self,
        adapter: &mut AdapterRecord,
        place: &Place,
        namespace: BorrowedFd<'_>,
        inside: &mut Socket,
    ) -> Result<()> {
        if adapter.driver == Driver::Bridge {
            // Before it can send anything.
            self.firewall().guard(guard_of(adapter, &place.options)?)?;
        }
        let mut tries = 0;
        loop {
            adapter.interface = match &place.name {
                Some(name) => name.clone(),
                None => first_free(inside, &place.options.prefix)?,
            };
            let mut state = self.state();
            let message = match adapter.driver {
                Driver::Bridge => links::create_veth(&Veth {
                    host: &adapter.host_interface,
                    bridge: place.index,
                    inside: &adapter.interface,
                    mac: adapter.mac.parse()?,
                    netns: namespace,
                    mtu: place.options.mtu.unwrap_or(MTU),
                }),
                _ => upper(&mut state.socket, adapter, place, namespace)?,
            };
            match state.socket.change(message) {
                Ok(()) if adapter.host_interface.is_empty() => break,
                Ok(()) => {
                    let mark = links::mark(&adapter.host_interface, &self.alias);
                    state
                        .socket
                        .change(mark)
                        .map_err(kernel(format!("marking {}", adapter.host_interface)))?;
                    break;
                }
                Err(e) if links::exists(&e) && place.name.is_none() && tries < NAME_TRIES => tries += 1,
                Err(e) => {
                    return Err(kernel(format!(
                        "making the adapter {} of network {}",
                        adapter.interface, adapter.network
                    ))(e));
                }
            }
        }
        furnish(inside, adapter, &place.options)?;
        if adapter.driver == Driver::Bridge {
            let index = index_of(inside, &adapter.interface)?;
            wait_for_carrier(inside, &adapter.interface, index)?;
        }
        if !adapter.limits.is_unlimited() {
            match adapter.driver {
                Driver::Bridge => self.shape(adapter, &mut self.state().socket, adapter.limits)?,
                _ => self.shape(adapter, inside, adapter.limits)?,
            }
        }
        Ok(())
    }

    /// The default routes of a namespace: exactly those of these adapters.
    pub fn set_gateway(
        &self,
        namespace: BorrowedFd<'_>,
        v4: Option<&AdapterRecord>,
        v6: Option<&AdapterRecord>,
    ) -> Result<()> {
        let routed = |a: &AdapterRecord| self.state().network(&a.network_id).is_ok_and(|n| routes(n));
        let wanted = [(false, v4), (true, v6)].map(|(ipv6, adapter)| {
            let adapter = adapter?;
            let gateway =
                if ipv6 { adapter.gateway6.map(IpAddr::V6) } else { adapter.gateway.map(IpAddr::V4) };
            (gateway.is_some() || routed(adapter)).then_some((ipv6, adapter.interface.clone(), gateway))
        });
        namespace::enter(namespace, |inside| {
            let mut routes = Vec::new();
            for (ipv6, name, gateway) in wanted.into_iter().flatten() {
                routes.push(DefaultRoute { ipv6, index: index_of(inside, &name)?, gateway });
            }
            let doing = || kernel("setting the default route");
            for old in silo_sys::routes::defaults(inside).map_err(doing())? {
                if !routes.contains(&old) {
                    inside
                        .change(old.remove())
                        .or_else(|e| if links::is_gone(&e) { Ok(()) } else { Err(e) })
                        .map_err(kernel("removing a default route"))?;
                }
            }
            for new in routes {
                inside
                    .change(new.add())
                    .or_else(|e| if links::exists(&e) { Ok(()) } else { Err(e) })
                    .map_err(doing())?;
            }
            Ok(())
        })
    }

    /// A new network namespace with loopback only: `--network none`.
    pub fn create_empty_namespace(&self) -> Result<OwnedFd> {
        namespace::create(|_, _| Ok(())).map(|(namespace, ())| namespace)
    }

    /// Takes the adapter away; its addresses are free again. Gone already: fine. `namespace` is that of a container that
    /// goes on running: a macvlan or ipvlan is there and nowhere else.
    pub fn detach(&self, adapter: &AdapterRecord, namespace: Option<BorrowedFd<'_>>) -> Result<()> {
        let inside = match (adapter.host_interface.as_str(), namespace) {
            ("", Some(namespace)) if !adapter.interface.is_empty() => {
                namespace::enter(namespace, |inside| bridge::remove(inside, &adapter.interface))
            }
            _ => Ok(()),
        };
        let result = {
            let mut state = self.state();
            let removed = match adapter.host_interface.as_str() {
                "" => Ok(()),
                name => bridge::remove(&mut state.socket, name).and(shaping::forget(&mut state.socket, name)),
            };
            // Only once: who comes second must not give back what the next has by now.
            if state.live.remove(&adapter.endpoint_id).is_some()
                && let Ok(network) = state.network(&adapter.network_id)
            {
                network.give_back(adapter.addresses().into_iter());
            }
            removed
        };
        if !adapter.host_interface.is_empty() {
            self.firewall().unguard(&adapter.host_interface)?;
        }
        inside.and(result)
    }

    /// Removes from a container's namespace the adapters on top of a parent of the host's that are none of these: what a crash in the
    /// middle of a change has left, which no sweep of the host sees. Links over the container's own are its own.
    pub fn sweep_namespace(&self, namespace: BorrowedFd<'_>, known: &[AdapterRecord]) -> Result<()> {
        namespace::enter(namespace, |inside| {
            for link in links::all(inside).map_err(kernel("listing a namespace's links"))? {
                let upper = ["macvlan", "ipvlan"].contains(&link.kind.as_str()) && link.parent_elsewhere;
                if upper && !known.iter().any(|a| a.interface == link.name) {
                    bridge::remove(inside, &link.name)?;
                }
            }
            Ok(())
        })
    }

    /// After a daemon restart: this adapter is in use.
    pub fn adopt(&self, adapter: &AdapterRecord) {
        let mut state = self.state();
        let (network_id, host_interface) = (adapter.network_id.clone(), adapter.host_interface.clone());
        state.live.insert(adapter.endpoint_id.clone(), Live { network_id, host_interface });
        let name =
            if adapter.host_interface.is_empty() { &adapter.interface } else { &adapter.host_interface };
        // Out of the subnet or taken: the network was configured anew meanwhile; the container keeps what it has.
        let (index, options) = match state.network(&adapter.network_id) {
            Err(e) => {
                tracing::warn!("adapter {name}: {e}");
                return;
            }
            Ok(network) => {
                if let Err(address) = network.adopt(adapter) {
                    tracing::warn!("adapter {name}: {address} is another's");
                }
                (network.index, network.options.clone())
            }
        };
        if adapter.driver != Driver::Bridge {
            return;
        }
        // Its bridge may have been made again.
        match links::find(&mut state.socket, name) {
            Ok(Some(link)) if link.master != index => {
                if let Err(e) = state.socket.change(links::set_master(link.index, index)) {
                    tracing::warn!("adapter {name}: joining its bridge: {e}");
                }
            }
            Ok(_) => {}
            Err(e) => tracing::warn!("adapter {name}: {e}"),
        }
        drop(state);
        match guard_of(adapter, &options) {
            Ok(guard) => self.firewall().readopt_guard(guard),
            Err(e) => tracing::warn!("adapter {name}: {e}"),
        }
    }

    /// What an adapter carried, seen from the container. `namespace`: as for `detach`.
    pub fn counters(&self, adapter: &AdapterRecord, namespace: Option<BorrowedFd<'_>>) -> Result<Counters> {
        let doing = |name: &str| kernel(format!("reading the counters of {name}"));
        if !adapter.host_interface.is_empty() {
            let name = &adapter.host_interface;
            let seen = links::counters(&mut self.state().socket, name).map_err(doing(name))?;
            return Ok(Counters {
                rx_bytes: seen.tx_bytes,
                rx_packets: seen.tx_packets,
                rx_errors: seen.tx_errors,
                rx_dropped: seen.tx_dropped,
                tx_bytes: seen.rx_bytes,
                tx_packets: seen.rx_packets,
                tx_errors: seen.rx_errors,
                tx_dropped: seen.rx_dropped,
            });
        }
        let namespace = namespace.ok_or_else(|| {
            NetworkError::Invalid(format!(
                "adapter {} is of a container that does not run",
                adapter.interface
            ))
        })?;
        let name = &adapter.interface;
        namespace::enter(namespace, |inside| links::counters(inside, name).map_err(doing(name)))
    }
}

/// The first packet of a new adapter is not lost: neither by its own end, nor by the bridge's, nor by the bridge. By a socket
/// of its own: nobody waits for another's carriers. Others than a bridge's have their parent's carrier, which may have none.
fn wait_on_the_host(adapter: &AdapterRecord, place: &Place) -> Result<()> {
    if adapter.driver != Driver::Bridge {
        return Ok(());
    }
    let mut here = Socket::open().map_err(kernel("opening a netlink socket"))?;
    let index = index_of(&mut here, &adapter.host_interface)?;
    wait_for_carrier(&mut here, &adapter.host_interface, index)?;
    wait_for_carrier(&mut here, "its bridge", place.index)
}

fn wait_for_carrier(socket: &mut Socket, name: &str, index: u32) -> Result<()> {
    let carries = links::wait_until_it_carries(socket, index);
    if !carries.map_err(kernel(format!("waiting for the carrier of {name}")))? {
        tracing::warn!("{name} has no carrier yet");
    }
    Ok(())
}

/// Whether a network's default routes need no gateway.
fn routes(network: &Network) -> bool {
    network.record.driver == Driver::Ipvlan
        && network.options.ipvlan != IpvlanMode::L2
        && !network.is_closed()
}

fn guard_of(adapter: &AdapterRecord, options: &Options) -> Result<Guard> {
    Ok(Guard {
        host_interface: adapter.host_interface.clone(),
        mac: adapter.mac.parse()?,
        addresses: adapter.addresses(),
        icc: options.icc,
        trusted: !options.guard,
    })
}

/// The message for an adapter on top of a parent.
fn upper(
    socket: &mut Socket,
    adapter: &AdapterRecord,
    place: &Place,
    namespace: BorrowedFd<'_>,
) -> Result<silo_sys::netlink::Message> {
    let name = &place.parent;
    let parent = links::find(socket, name).map_err(kernel(format!("looking for {name}")))?;
    let parent = parent.ok_or_else(|| {
        NetworkError::Invalid(format!(
            "the requested parent interface {name} was not found on the Docker host"
        ))
    })?;
    let options = &place.options;
    let kind = match adapter.driver {
        Driver::Ipvlan => Upper::Ipvlan(
            match options.ipvlan {
                IpvlanMode::L2 => 0,
                IpvlanMode::L3 => 1,
                IpvlanMode::L3S => 2,
            },
            match options.ipvlan_flag {
                IpvlanFlag::Bridge => 0,
                IpvlanFlag::Private => 1,
                IpvlanFlag::Vepa => 2,
            },
        ),
        _ => Upper::Macvlan(match options.macvlan {
            MacvlanMode::Private => 1,
            MacvlanMode::Vepa => 2,
            MacvlanMode::Bridge => 4,
            MacvlanMode::Passthru => 8,
        }),
    };
    let mac = match kind {
        Upper::Macvlan(_) => Some(adapter.mac.parse()?),
        Upper::Ipvlan(..) => None,
    };
    Ok(links::create_upper(kind, parent.index, &adapter.interface, mac, options.mtu, namespace))
}

/// The first name of a prefix that no interface of the namespace has.
fn first_free(inside: &mut Socket, prefix: &str) -> Result<String> {
    let mut n = 0u32;
    loop {
        let name = format!("{prefix}{n}");
        if links::find(inside, &name).map_err(kernel("looking for a free interface name"))?.is_none() {
            return Ok(name);
        }
        n += 1;
    }
}

fn index_of(inside: &mut Socket, name: &str) -> Result<u32> {
    let found = links::find(inside, name).map_err(kernel(format!("looking for {name} in a namespace")))?;
    found
        .map(|l| l.index)
        .ok_or_else(|| NetworkError::Invalid(format!("the container has no interface {name}")))
}

/// Addresses, settings, state and routes of a new interface of the thread's namespace.
fn furnish(inside: &mut Socket, adapter: &mut AdapterRecord, options: &Options) -> Result<()> {
    let name = adapter.interface.clone();
    let link = links::find(inside, &name)
        .map_err(kernel(format!("looking for {name} in a namespace")))?
        .ok_or_else(|| kernel(format!("looking for {name}"))(std::io::ErrorKind::NotFound.into()))?;
    if adapter.driver == Driver::Ipvlan
        && let Ok(mac) = <[u8; 6]>::try_from(link.mac.as_slice())
    {
        adapter.mac = MacAddress(mac).to_string();
    }
    // When it comes up, neighbours are told whose its addresses are.
    settings::wish(&format!("ipv4/conf/{name}/arp_notify"), "1");
    let six = adapter.addresses().iter().any(IpAddr::is_ipv6);
    settings::wish(&format!("ipv6/conf/{name}/disable_ipv6"), if six { "0" } else { "1" });
    if six {
        settings::wish(&format!("ipv6/conf/{name}/ndisc_notify"), "1");
        settings::wish(&format!("ipv6/conf/{name}/accept_dad"), "0");
        if adapter.driver == Driver::Bridge {
            // Nobody else on a bridge says where the way out is.
            settings::wish(&format!("ipv6/conf/{name}/accept_ra"), "0");
        }
    }
    let mut steps = Vec::new();
    for (address, prefix) in adapter.prefixed() {
        let message = links::add_address(link.index, address, prefix);
        steps.push((format!("giving {name} the address {address}"), message, false));
    }
    steps.push((format!("bringing {name} up"), links::set_up(link.index), false));
    let by_link =
        options.ipvlan != IpvlanMode::L2 && adapter.driver == Driver::Ipvlan && options.parent.is_some();
    for (ipv6, has, gateway) in [
        (false, adapter.ipv4.is_some(), adapter.gateway.map(IpAddr::V4)),
        (true, adapter.ipv6.is_some(), adapter.gateway6.map(IpAddr::V6)),
    ] {
        if has && (gateway.is_some() || by_link) {
            let route = DefaultRoute { ipv6, index: link.index, gateway: gateway.filter(|_| !by_link) };
            steps.push(("setting the default route".to_owned(), route.add(), true));
        }
    }
    let mut messages: Vec<_> = steps.iter().map(|(_, message, _)| message.clone()).collect();
    let results = inside.apply(&mut messages).map_err(kernel(format!("setting up {name}")))?;
    for ((doing, _, may_exist), result) in steps.into_iter().zip(results) {
        match result {
            Err(e) if may_exist && links::exists(&e) => {}
            result => result.map_err(kernel(doing))?,
        }
    }
    Ok(())
}
