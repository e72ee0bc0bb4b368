//! All networks of one daemon: made, restored, removed, swept; what is in each file beside it are further verbs.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use silo_sys::netlink::Socket;

use crate::error::{NetworkError, Result, kernel};
use crate::firewall::Firewall;
use crate::network::Network;
use crate::ports::Ports;
use crate::record::{Driver, NetworkConfig, NetworkRecord, NetworkSpec, PoolRecord};
use crate::subnet::IpSubnet;
use crate::{bridge, ipam, links};

/// Of bridges and adapters that nobody gave another.
pub(crate) const MTU: u32 = 1500;

/// All networks.
#[derive(Debug)]
pub struct Networks {
    /// The default bridge, which names the table too.
    pub(crate) bridge: String,
    pub(crate) state: Mutex<State>,
    pub(crate) ports: Mutex<Ports>,
    /// Taken after `ports` and before `state`, so that the rules are those of what is in them.
    pub(crate) firewall: Mutex<Firewall>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) socket: Socket,
    pub(crate) networks: BTreeMap<String, Network>,
    /// Host ends that are in use, and by which network.
    pub(crate) live: HashMap<String, String>,
}

impl State {
    pub(crate) fn network(&mut self, id: &str) -> Result<&mut Network> {
        self.networks.get_mut(id).ok_or_else(|| NetworkError::NoNetwork(id.to_owned()))
    }
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

fn valid_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !matches!(name, "." | "..")
}

impl Networks {
    /// Makes the default bridge and the firewall table, or takes over those of an earlier run. Then `restore` of each
    /// stored network, `adopt` and `readopt_ports` of each running container, `sweep`.
    pub fn open(config: NetworkConfig) -> Result<Self> {
        let bridge = config.bridge;
        if !valid_name(&bridge) {
            return Err(NetworkError::BridgeName(bridge));
        }
        let mut socket = Socket::open().map_err(kernel("opening a netlink socket"))?;
        let index = links::find(&mut socket, &bridge).map_err(kernel(format!("looking for {bridge}")))?;
        let has = match index {
            None => None,
            Some(link) => silo_sys::links::addresses(&mut socket)
                .map_err(kernel("reading the host's addresses"))?
                .into_iter()
                .find(|(i, address, _)| *i == link.index && address.is_ipv4())
                .map(|(_, address, prefix)| (address, IpSubnet::containing(address, prefix))),
        };
        let (gateway, subnet) = match (has, &config.subnet) {
            (Some(has), _) => has,
            (None, Some(text)) => ipam::parse_default(text)?,
            (None, None) => {
                let used = ipam::used_by_host(&mut socket)?;
                let subnet = ipam::free_subnet(&ipam::default_pools(), &used)?;
                (subnet.nth(1), subnet)
            }
        };
        let pools = vec![PoolRecord {
            subnet,
            range: None,
            gateway: Some(gateway),
            auxiliary: BTreeMap::new(),
            given: config.subnet.is_some(),
        }];
        let index = bridge::ensure(&mut socket, &bridge, MTU, &[(gateway, subnet.prefix())])?;
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
            pools,
            options: options.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            interface: Some(bridge.clone()),
            ..plain("bridge", Driver::Bridge)
        };
        let mut networks = BTreeMap::new();
        for (record, index) in
            [(default, index), (plain("host", Driver::Host), 0), (plain("none", Driver::Null), 0)]
        {
            networks.insert(record.id.clone(), Network::new(record, index)?);
        }
        let state = State { socket, networks, live: HashMap::new() };
        let firewall = Firewall::open(&bridge)?;
        let present = firewall.present();
        let all = Self {
            bridge,
            state: Mutex::new(state),
            ports: Mutex::new(Ports::default()),
            firewall: Mutex::new(firewall),
        };
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
    pub fn create(&self, _spec: &NetworkSpec) -> Result<NetworkRecord> {
        todo!("netcore")
    }

    /// After a daemon restart, before `adopt`: takes over, or makes again, what the record says.
    pub fn restore(&self, _record: &NetworkRecord) -> Result<()> {
        todo!("netcore")
    }

    /// Removes a network that no adapter is on: interface, subnets, rules.
    pub fn remove(&self, _record: &NetworkRecord) -> Result<()> {
        todo!("netcore")
    }

    /// `bridge`, `host` and `none`.
    pub fn builtin(&self) -> Vec<NetworkRecord> {
        let state = self.state();
        let mut list: Vec<_> =
            state.networks.values().filter(|n| n.record.builtin).map(|n| n.record.clone()).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// After all `restore`s and `adopt`s: removes adapters on our bridges that nobody has, and sets the firewall to what is
    /// published.
    pub fn sweep(&self) -> Result<()> {
        {
            let mut state = self.state();
            let all = links::all(&mut state.socket).map_err(kernel("listing links"))?;
            let ours: Vec<u32> = state.networks.values().map(|n| n.index).filter(|i| *i != 0).collect();
            for link in all.iter().filter(|l| ours.contains(&l.master) && l.name.starts_with("sv")) {
                if !state.live.contains_key(&link.name)
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
        bridge::remove(&mut self.state().socket, &self.bridge)?;
        self.firewall().remove()
    }
}

/// Now, as records have it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// The host's addresses on the bridge of these pools.
#[allow(dead_code)]
fn gateways(pools: &[PoolRecord]) -> Vec<(IpAddr, u8)> {
    pools.iter().filter_map(|p| Some((p.gateway?, p.subnet.prefix()))).collect()
}
