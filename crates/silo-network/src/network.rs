//! One network while the daemon runs: its record, what its options say, which of its addresses are given out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{NetworkError, Result};
use crate::firewall::BridgeRules;
use crate::options::{GatewayMode, Options};
use crate::pool::{Pool, Refusal};
use crate::record::{AdapterRecord, AttachOptions, Driver, NetworkRecord};

/// Names of auxiliary addresses that dockerd's bridge driver takes for the containers' gateway.
const DEFAULT_GATEWAYS: [&str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];

/// A network.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) record: NetworkRecord,
    pub(crate) options: Options,
    /// Of the record's interface; 0 without one.
    pub(crate) index: u32,
    pools: Vec<Pool>,
}

/// The addresses of an adapter and where its default routes can lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    pub(crate) prefix6: u8,
    pub(crate) gateway6: Option<Ipv6Addr>,
}

/// Which families' gateways a network of these options does not have.
pub(crate) fn without_gateway(driver: Driver, options: &Options, internal: bool) -> [bool; 2] {
    match driver {
        Driver::Bridge => {
            let isolated = options.gateway_mode.map(|m| m == GatewayMode::Isolated);
            [isolated[0] || (options.inhibit_ipv4 && internal), isolated[1]]
        }
        // The next router is somebody else's: only who made the network knows it.
        Driver::Macvlan | Driver::Ipvlan | Driver::Host | Driver::Null => [true; 2],
    }
}

impl Network {
    pub(crate) fn new(record: NetworkRecord) -> Result<Self> {
        let options = Options::parse(record.driver, &record.options)?;
        let pools = record.pools.iter().map(Pool::new).collect();
        Ok(Self { record, options, index: 0, pools })
    }

    /// Whether nothing leads out of it.
    pub(crate) fn is_closed(&self) -> bool {
        let parentless =
            matches!(self.record.driver, Driver::Macvlan | Driver::Ipvlan) && self.options.parent.is_none();
        self.record.internal || parentless
    }

    /// The host's addresses on its bridge.
    pub(crate) fn host_addresses(&self) -> Vec<(IpAddr, u8)> {
        let pools = self.record.pools.iter();
        let skip = without_gateway(Driver::Bridge, &self.options, self.record.internal);
        pools
            .filter(|p| !skip[usize::from(p.subnet.is_ipv6())])
            .filter(|p| p.subnet.is_ipv6() || !self.options.inhibit_ipv4)
            .filter_map(|p| Some((p.gateway?, p.subnet.prefix())))
            .collect()
    }

    /// Gives out one address of each family that the network has.
    pub(crate) fn take(&mut self, options: &AttachOptions) -> Result<Addresses> {
        let mut taken = Addresses::default();
        let (four, six) = (options.ipv4.map(IpAddr::V4), options.ipv6.map(IpAddr::V6));
        for (is_six, wanted, wished) in [(false, self.record.ipv4, four), (true, self.record.ipv6, six)] {
            let result = match (wanted, wished) {
                (false, None) => Ok(()),
                (false, Some(address)) => Err(NetworkError::AddressOutside(address)),
                (true, wished) => self.take_one(is_six, wished, &mut taken),
            };
            if let Err(error) = result {
                self.give_back(taken.ipv4.map(IpAddr::V4).into_iter());
                return Err(error);
            }
        }
        Ok(taken)
    }

    fn take_one(&mut self, six: bool, wished: Option<IpAddr>, taken: &mut Addresses) -> Result<()> {
        let pools = self.pools.iter_mut().enumerate().filter(|(_, p)| p.subnet().is_ipv6() == six);
        let mut found = None;
        for (place, pool) in pools {
            let address = match wished {
                None => pool.take_any(),
                Some(address) if pool.subnet().contains(address) && !self.record.pools[place].given => {
                    return Err(NetworkError::Invalid(
                        "user specified IP address is supported only when connecting to networks with user configured subnets".into(),
                    ));
                }
                Some(address) => match pool.take(address) {
                    Ok(()) => Some(address),
                    Err(Refusal::Taken) => return Err(NetworkError::AddressTaken(address)),
                    Err(Refusal::Outside) => None,
                },
            };
            if let Some(address) = address {
                found = Some((place, address, pool.subnet().prefix()));
                break;
            }
        }
        let Some((place, address, prefix)) = found else {
            return Err(match wished {
                Some(address) => NetworkError::AddressOutside(address),
                None => NetworkError::PoolEmpty {
                    family: if six { "IPv6" } else { "IPv4" },
                    network: self.record.name.clone(),
                    id: self.record.id.clone(),
                },
            });
        };
        let gateway = self.gateway(place);
        match address {
            IpAddr::V4(address) => {
                (taken.ipv4, taken.prefix) = (Some(address), prefix);
                taken.gateway = gateway.and_then(|g| match g {
                    IpAddr::V4(g) => Some(g),
                    IpAddr::V6(_) => None,
                });
            }
            IpAddr::V6(address) => {
                (taken.ipv6, taken.prefix6) = (Some(address), prefix);
                taken.gateway6 = gateway.and_then(|g| match g {
                    IpAddr::V6(g) => Some(g),
                    IpAddr::V4(_) => None,
                });
            }
        }
        Ok(())
    }

    /// Where the default route of an adapter of this pool leads.
    fn gateway(&self, pool: usize) -> Option<IpAddr> {
        if self.is_closed() {
            return None;
        }
        let pool = &self.record.pools[pool];
        let named = pool.auxiliary.get(DEFAULT_GATEWAYS[usize::from(pool.subnet.is_ipv6())]).copied();
        named.filter(|_| self.record.driver == Driver::Bridge).or(pool.gateway)
    }

    /// After a restart: an adapter has these.
    pub(crate) fn adopt(&mut self, adapter: &AdapterRecord) -> std::result::Result<(), IpAddr> {
        let mut refused = Ok(());
        for address in adapter.ipv4.map(IpAddr::V4).into_iter().chain(adapter.ipv6.map(IpAddr::V6)) {
            if !self.pools.iter_mut().any(|p| p.take(address).is_ok()) {
                refused = Err(address);
            }
        }
        refused
    }

    /// Takes addresses back.
    pub(crate) fn give_back(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            self.pools.iter_mut().for_each(|p| p.free(address));
        }
    }

    /// What the firewall needs to know of it; `None`: nothing to guard.
    pub(crate) fn rules(&self) -> Option<BridgeRules> {
        if self.record.driver != Driver::Bridge {
            return None;
        }
        Some(BridgeRules {
            interface: self.record.interface.clone()?,
            subnets: self.record.pools.iter().map(|p| p.subnet).collect(),
            gateways: self.host_addresses().into_iter().map(|(a, _)| a).collect(),
            internal: self.record.internal,
            icc: self.options.icc,
            masquerade: self.options.masquerade,
            host_binding: self.options.host_binding,
            gateway_mode: self.options.gateway_mode,
        })
    }
}
