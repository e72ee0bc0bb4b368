//! All networks of one daemon: made, restored, removed, swept; further verbs stand in the files of their nouns.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use silo_sys::netlink::Socket;

use crate::bridge::{self, Bridge};
use crate::error::{NetworkError, Result, kernel};
use crate::firewall::Firewall;
use crate::mac::MacAddress;
use crate::network::{self, Network};
use crate::options::{self, GatewayMode, MacvlanMode, Options};
use crate::ports::Ports;
use crate::record::{Driver, NetworkConfig, NetworkRecord, NetworkSpec, PoolRecord};
use crate::subnet::IpSubnet;
use crate::{ipam, links, parent};

/// Of bridges and adapters that nobody gave another.
pub(crate) const MTU: u32 = 1500;

/// Whether a name is one that no network of a user's own can have.
pub fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none" | "default" | "nat")
}

/// All networks.
#[derive(Debug)]
pub struct Networks {
    /// What links of ours are known by, and no other daemon's.
    pub(crate) alias: String,
    default_pools: Vec<(IpSubnet, u8)>,
    pub(crate) state: Mutex<State>,
    /// Held while the rules are put in place, so that they are those of what is in it. Taken before `state`.
    pub(crate) ports: Mutex<Ports>,
    /// Taken after `ports` and before `state`, so that the rules are those of what is in them.
    pub(crate) firewall: Mutex<Firewall>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) socket: Socket,
    pub(crate) networks: BTreeMap<String, Network>,
    /// Adapters that are in use, by endpoint.
    pub(crate) live: HashMap<String, Live>,
}

/// An adapter that is in use.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) network_id: String,
    pub(crate) host_interface: String,
}

impl State {
    pub(crate) fn network(&mut self, id: &str) -> Result<&mut Network> {
        self.networks.get_mut(id).ok_or_else(|| NetworkError::NoNetwork(id.to_owned()))
    }
}

/// Held by whom chooses subnets until they are on an interface: two daemons of a host must not choose the same.
const CHOOSING: &str = "/run/silo-subnets.lock";
/// How long another daemon may choose.
const CHOOSING_LIMIT: Duration = Duration::from_secs(5);

/// Waits for the turn to choose subnets; `None`: it did not come, or there is no such place.
fn choosing() -> Option<File> {
    let file = File::options().create(true).truncate(false).write(true).open(CHOOSING).ok()?;
    let until = Instant::now() + CHOOSING_LIMIT;
    while file.try_lock().is_err() {
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Some(file)
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

/// 64 random hex digits.
pub(crate) fn random_id() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Now, as records have it.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// The hardware address of a network's bridge: dockerd's of its IPv4 address, else the same at all times.
fn bridge_mac(record: &NetworkRecord) -> MacAddress {
    let four = record.pools.iter().find_map(|p| match p.gateway {
        Some(IpAddr::V4(address)) => Some(address),
        _ => None,
    });
    four.map_or_else(|| MacAddress::of_text(&record.id), MacAddress::of)
}

impl Networks {
    /// Makes the default bridge and the firewall table, or takes over those of an earlier run. Then `restore` of each
    /// stored network, `adopt` and `readopt_ports` of each running container, `sweep`.
    pub fn open(config: NetworkConfig) -> Result<Self> {
        let bridge = config.bridge;
        if !options::interface_name(&bridge) {
            return Err(NetworkError::BridgeName(bridge));
        }
        let mut socket = Socket::open().map_err(kernel("opening a netlink socket"))?;
        let _choosing = choosing();
        let seed = std::fs::read_to_string("/etc/machine-id").unwrap_or_default() + &bridge;
        let default_pools = ipam::default_pools(&config.default_pools, &seed);
        let pools = default_bridge_pools(
            &mut socket,
            &bridge,
            config.subnet.as_deref(),
            config.subnet6.as_deref(),
            &default_pools,
        )?;
        let options = [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            ("com.docker.network.bridge.name", &bridge),
            ("com.docker.network.driver.mtu", "1500"),
        ];
        let plain = |name: &str, driver| NetworkRecord {
            id: stable_id(&format!("{bridge}:{name}")),
            name: name.to_owned(),
            driver,
            ipv4: true,
            builtin: true,
            created: now(),
            ..NetworkRecord::default()
        };
        let default = NetworkRecord {
            id: stable_id(&bridge),
            ipv6: pools.iter().any(|p| p.subnet.is_ipv6()),
            pools,
            options: options
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into_iter()
                .chain(config.options)
                .collect(),
            interface: Some(bridge.clone()),
            ..plain("bridge", Driver::Bridge)
        };
        let builtin = [default, plain("host", Driver::Host), plain("none", Driver::Null)];
        let firewall = Firewall::open(&bridge)?;
        let present = firewall.present();
        let all = Self {
            alias: format!("silo:{bridge}"),
            default_pools,
            state: Mutex::new(State { socket, networks: BTreeMap::new(), live: HashMap::new() }),
            ports: Mutex::new(Ports::default()),
            firewall: Mutex::new(firewall),
        };
        {
            let mut state = all.state();
            for record in builtin {
                all.bring_up(&mut state, Network::new(record)?)?;
            }
        }
        // Kept as it is when it is there: published ports of running containers are in it until they are readopted.
        if !present && let Err(e) = all.apply_rules() {
            tracing::warn!("containers reach the host but nothing beyond it: {e}");
        }
        Ok(all)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn firewall(&self) -> MutexGuard<'_, Firewall> {
        self.firewall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the rules of all networks, adapters and published ports in place, in one transaction.
    pub(crate) fn apply_rules(&self) -> Result<()> {
        let mut firewall = self.firewall();
        let bridges = self.state().networks.values().filter_map(Network::rules).collect();
        firewall.replace(bridges)
    }

    /// Makes a network. The caller stores the record, or calls `remove`.
    pub fn create(&self, spec: &NetworkSpec) -> Result<NetworkRecord> {
        let options = check(spec)?;
        let record = {
            let _choosing = choosing();
            let mut state = self.state();
            if state.networks.values().any(|n| n.record.name == spec.name) {
                return Err(NetworkError::Conflict(format!(
                    "network with name {} already exists",
                    spec.name
                )));
            }
            let record = self.plan(&mut state, spec, &options)?;
            let network = Network::new(record)?;
            self.bring_up(&mut state, network)?
        };
        if record.driver == Driver::Bridge
            && let Err(e) = self.apply_rules()
        {
            if let Err(e) = self.remove(&record) {
                tracing::warn!("{e}");
            }
            return Err(e);
        }
        Ok(record)
    }

    /// The record of a new network: subnets and interface are chosen, nothing is made.
    fn plan(&self, state: &mut State, spec: &NetworkSpec, options: &Options) -> Result<NetworkRecord> {
        let id = random_id();
        let interface = match spec.driver {
            Driver::Bridge => options.bridge.clone().unwrap_or_else(|| format!("br-{}", &id[..12])),
            _ => options.parent.clone().unwrap_or_else(|| parent::own_name(&id)),
        };
        for other in state.networks.values() {
            if other.record.interface.as_deref() != Some(&*interface) {
                continue;
            }
            if spec.driver == Driver::Bridge || other.record.driver == Driver::Bridge {
                return Err(NetworkError::Forbidden(format!(
                    "cannot create network {id} ({interface}): conflicts with network {} ({interface}): networks have same bridge name",
                    other.record.id
                )));
            }
            // The kernel's: one parent has the one kind of children or the other.
            if spec.driver != other.record.driver {
                return Err(NetworkError::Forbidden(format!(
                    "{} network {} is already using parent interface {interface}",
                    other.record.driver, other.record.id
                )));
            }
            if options.macvlan == MacvlanMode::Passthru {
                return Err(NetworkError::Forbidden(format!(
                    "cannot use mode passthru, macvlan network {} is already using parent interface {interface}",
                    other.record.id
                )));
            }
            if other.options.macvlan == MacvlanMode::Passthru {
                return Err(NetworkError::Forbidden(format!(
                    "macvlan network {} is already using parent interface {interface} in mode passthru",
                    other.record.id
                )));
            }
        }
        match spec.driver {
            Driver::Macvlan => parent::supports(&mut state.socket, "macvlan")?,
            Driver::Ipvlan => parent::supports(&mut state.socket, "ipvlan")?,
            _ => {}
        }
        let host = ipam::used_by_host(&mut state.socket)?;
        let networks: Vec<_> = state.networks.values().map(|n| &n.record).collect();
        let around = ipam::Surroundings { pools: &self.default_pools, networks: &networks, host: &host };
        let skip = network::without_gateway(spec.driver, options, spec.internal);
        Ok(NetworkRecord {
            id,
            name: spec.name.clone(),
            driver: spec.driver,
            ipv4: spec.ipv4,
            ipv6: spec.ipv6,
            internal: spec.internal,
            attachable: spec.attachable,
            pools: ipam::choose(spec, skip, &around)?,
            options: spec.options.clone(),
            labels: spec.labels.clone(),
            ipam_options: spec.ipam_options.clone(),
            interface: Some(interface),
            created: now(),
            ..NetworkRecord::default()
        })
    }

    /// Makes what a network has on the host and takes it into the list; returns its record. On failure nothing of it stays.
    fn bring_up(&self, state: &mut State, mut network: Network) -> Result<NetworkRecord> {
        let (index, foreign) = self.ensure_interface(&mut state.socket, &network)?;
        network.index = index;
        if network.record.foreign_interface != foreign {
            // Of another network that made it: it goes with the last of them.
            let made = state
                .networks
                .values()
                .any(|n| n.record.interface == network.record.interface && !n.record.foreign_interface);
            network.record.foreign_interface = foreign && !made;
        }
        let record = network.record.clone();
        state.networks.insert(record.id.clone(), network);
        Ok(record)
    }

    /// Makes or takes over a network's interface: its index, and whether it was there before.
    fn ensure_interface(&self, socket: &mut Socket, network: &Network) -> Result<(u32, bool)> {
        let record = &network.record;
        let Some(name) = record.interface.as_deref() else { return Ok((0, false)) };
        if record.driver != Driver::Bridge {
            let own = network.options.parent.is_none();
            let parent = parent::ensure(socket, name, own, &self.alias)?;
            return Ok((parent.index, parent.foreign));
        }
        let foreign = bridge::find(socket, name)?.is_some();
        let wanted = Bridge {
            name,
            alias: &self.alias,
            mtu: network.options.mtu.unwrap_or(MTU),
            mac: bridge_mac(record),
            addresses: &network.host_addresses(),
            ipv6: record.ipv6,
            internal: record.internal,
        };
        let made = bridge::ensure(socket, &wanted);
        if made.is_err() && !foreign {
            let _ = bridge::remove(socket, name);
        }
        Ok((made?, foreign))
    }

    /// After a daemon restart, before `adopt`: takes over, or makes again, what the record says. After an error the network
    /// is known all the same, so that its adapters are not swept.
    pub fn restore(&self, record: &NetworkRecord) -> Result<()> {
        let mut state = self.state();
        let mut network = Network::new(record.clone())?;
        let made = self.ensure_interface(&mut state.socket, &network);
        network.index = made.as_ref().map_or(0, |(index, _)| *index);
        // Whose the interface is was written down when the network was made.
        state.networks.insert(record.id.clone(), network);
        made.map(|_| ())
    }

    /// Removes a network that no adapter is on: interface, subnets, rules. Not there: fine.
    pub fn remove(&self, record: &NetworkRecord) -> Result<()> {
        if record.builtin {
            return Err(NetworkError::Forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                record.name
            )));
        }
        {
            let mut state = self.state();
            if state.live.values().any(|l| l.network_id == record.id) {
                return Err(NetworkError::Forbidden(format!(
                    "error while removing network: network {} has active endpoints",
                    record.name
                )));
            }
            remove_interface(&mut state, record)?;
            state.networks.remove(&record.id);
        }
        match record.driver {
            Driver::Bridge => self.apply_rules(),
            _ => Ok(()),
        }
    }

    /// `bridge`, `host` and `none`.
    pub fn builtin(&self) -> Vec<NetworkRecord> {
        let state = self.state();
        let mut list: Vec<_> =
            state.networks.values().filter(|n| n.record.builtin).map(|n| n.record.clone()).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// After all `restore`s and `adopt`s: removes links of ours that nobody has, and sets the firewall to what is published.
    /// Ours are: what was marked when it was made, and `sv…` on bridges of ours.
    pub fn sweep(&self) -> Result<()> {
        {
            let mut state = self.state();
            let all = links::all(&mut state.socket).map_err(kernel("listing links"))?;
            for link in all {
                let on_ours = state.networks.values().any(|n| n.index != 0 && n.index == link.master);
                let ours = link.alias == self.alias || (on_ours && link.name.starts_with("sv"));
                if ours
                    && !in_use(&state, &link.name)
                    && let Err(e) = bridge::remove(&mut state.socket, &link.name)
                {
                    tracing::warn!("{e}");
                }
            }
        }
        self.apply_rules()
    }

    /// Removes all that is ours from the host: for tests, demos and uninstalling. Running containers lose their network.
    pub fn teardown(&self) -> Result<()> {
        self.ports().clear();
        let mut state = self.state();
        state.live.clear();
        for record in state.networks.values().map(|n| n.record.clone()).collect::<Vec<_>>() {
            state.networks.remove(&record.id);
            remove_interface(&mut state, &record)?;
        }
        let all = links::all(&mut state.socket).map_err(kernel("listing links"))?;
        for link in all.iter().filter(|link| link.alias == self.alias) {
            bridge::remove(&mut state.socket, &link.name)?;
        }
        drop(state);
        self.firewall().remove()
    }
}

/// Whether a network may have this name, in dockerd's words if not.
///
/// # Errors
/// It is empty, or [`is_predefined`].
pub fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(NetworkError::Invalid("invalid name: name is empty".into()));
    }
    if is_predefined(name) {
        return Err(NetworkError::Forbidden(format!(
            "operation is not permitted on predefined {name} network"
        )));
    }
    Ok(())
}

/// What can be said of a new network before anything is looked at.
fn check(spec: &NetworkSpec) -> Result<Options> {
    check_name(&spec.name)?;
    if matches!(spec.driver, Driver::Host | Driver::Null) {
        return Err(NetworkError::Forbidden(format!(
            "only one instance of \"{}\" network is allowed",
            spec.driver
        )));
    }
    if !spec.ipv4 && !spec.ipv6 {
        return Err(NetworkError::Invalid("IPv4 or IPv6 must be enabled".into()));
    }
    let options = Options::parse(spec.driver, &spec.options)?;
    if options.gateway_mode.contains(&GatewayMode::Isolated) && !spec.internal {
        return Err(NetworkError::Invalid(
            "gateway mode 'isolated' can only be used for an internal network".into(),
        ));
    }
    Ok(options)
}

/// Removes a network's interface, if it was made for it and no other network has it.
fn remove_interface(state: &mut State, record: &NetworkRecord) -> Result<()> {
    let Some(name) = record.interface.as_deref().filter(|_| !record.foreign_interface) else { return Ok(()) };
    let shared = state
        .networks
        .values()
        .any(|n| n.record.id != record.id && n.record.interface.as_deref() == Some(name));
    if shared { Ok(()) } else { bridge::remove(&mut state.socket, name) }
}

/// Whether a link of ours is a network's interface or belongs to an adapter: `sv…` is its end, `si…` carries its limit.
fn in_use(state: &State, name: &str) -> bool {
    let adapter = name.strip_prefix("sv").or(name.strip_prefix("si"));
    let live = |l: &Live| adapter.is_some() && l.host_interface.strip_prefix("sv") == adapter;
    state.networks.values().any(|n| n.record.interface.as_deref() == Some(name))
        || state.live.values().any(live)
}

/// The subnets of the default bridge: those that it has, that are configured, or free ones.
fn default_bridge_pools(
    socket: &mut Socket,
    bridge: &str,
    subnet: Option<&str>,
    subnet6: Option<&str>,
    default_pools: &[(IpSubnet, u8)],
) -> Result<Vec<PoolRecord>> {
    let has: Vec<(IpAddr, IpSubnet)> = match bridge::find(socket, bridge)? {
        None => Vec::new(),
        Some(index) => silo_sys::links::addresses(socket)
            .map_err(kernel("reading the host's addresses"))?
            .into_iter()
            .filter(|(i, ..)| *i == index)
            .map(|(_, address, prefix)| (address, IpSubnet::containing(address, prefix)))
            .collect(),
    };
    let has = |six: bool| {
        has.iter().find(|(address, _)| match address {
            IpAddr::V4(_) => !six,
            IpAddr::V6(address) => six && !address.is_unicast_link_local(),
        })
    };
    let mut free = |six: bool| -> Result<(IpAddr, IpSubnet)> {
        let subnet = ipam::free_subnet(default_pools, six, None, &ipam::used_by_host(socket)?)?;
        Ok((subnet.nth(1), subnet))
    };
    let four = match (has(false), subnet) {
        (Some(has), _) => *has,
        (None, Some(text)) => ipam::parse_default(text)?,
        (None, None) => free(false)?,
    };
    let six = match (has(true), subnet6) {
        (_, None) => None,
        (Some(has), _) => Some(*has),
        // `--ipv6` without `--fixed-cidr-v6`.
        (None, Some("")) => Some(free(true)?),
        (None, Some(text)) => Some(ipam::parse_default6(text)?),
    };
    let pool = |(gateway, net): (IpAddr, IpSubnet), given| PoolRecord {
        subnet: net,
        range: None,
        gateway: Some(gateway),
        auxiliary: BTreeMap::new(),
        given,
    };
    let mut pools = vec![pool(four, subnet.is_some())];
    pools.extend(six.map(|s| pool(s, subnet6.is_some_and(|t| !t.is_empty()))));
    Ok(pools)
}
