//! The tables of this daemon, `silo_<default bridge>` in the families `inet` (who may talk to whom, published ports) and `bridge` (what
//! an adapter may send).
//!
//! A change of networks replaces both whole in one transaction of nft; adapters and ports are elements of sets and maps, which
//! go to the kernel by netlink. Nothing else of the host's rules is touched.

use std::collections::{BTreeMap, BTreeSet};

use silo_sys::links::find;
use silo_sys::netlink::Socket;

use crate::error::{NetworkError, Result, kernel};
use crate::firewall_elements::{self, Element, Family};
use crate::firewall_flows::{Flows, forget};
use crate::firewall_nft::run;
use crate::{firewall_rules, guard};

pub(crate) use crate::firewall_rules::{BridgeRules, Forward};
pub(crate) use crate::guard::Guard;

/// What the tables hold, and the way to them.
#[derive(Debug)]
pub(crate) struct Firewall {
    table: String,
    socket: Socket,
    bridges: Vec<BridgeRules>,
    guards: BTreeMap<String, Guard>,
    forwards: BTreeSet<Forward>,
    /// Hardware addresses of the bridges.
    gates: Vec<[u8; 6]>,
}

impl Firewall {
    /// Of the daemon with this default bridge. What the kernel has of an earlier run stays as it is until `replace`.
    pub(crate) fn open(bridge: &str) -> Result<Self> {
        let socket = Socket::open_netfilter().map_err(kernel("opening a netlink socket of netfilter"))?;
        Ok(Self {
            table: format!("silo_{bridge}"),
            socket,
            bridges: Vec::new(),
            guards: BTreeMap::new(),
            forwards: BTreeSet::new(),
            gates: Vec::new(),
        })
    }

    /// Whether the tables are there.
    pub(crate) fn present(&self) -> bool {
        [Family::Inet, Family::Bridge]
            .iter()
            .all(|family| run(&["list", "table", family.name(), &self.table], "").is_ok())
    }

    /// The script that puts the tables in place of what there was.
    fn script(&self) -> String {
        let table = &self.table;
        let guards: Vec<&Guard> = self.guards.values().collect();
        format!(
            "{}{}{}",
            deletions(table),
            firewall_rules::table(table, self.bridges.iter(), self.forwards.iter()),
            guard::table(table, &guards, &self.gates)
        )
    }

    /// Puts the tables in place: of these bridges, and all guards and ports that were told.
    pub(crate) fn replace(&mut self, bridges: Vec<BridgeRules>) -> Result<()> {
        self.bridges = bridges;
        self.gates.clear();
        let mut links = Socket::open().map_err(kernel("opening a netlink socket"))?;
        for bridge in &self.bridges {
            let name = &bridge.interface;
            let Some(link) = find(&mut links, name).map_err(kernel(format!("looking for {name}")))? else {
                continue;
            };
            self.gates.extend(<[u8; 6]>::try_from(link.mac.as_slice()));
            links
                .change(guard::watch_discovery(link.index))
                .map_err(kernel(format!("setting up {name} for the guard")))?;
        }
        self.apply()
    }

    fn apply(&self) -> Result<()> {
        let table = &self.table;
        run(&["-f", "-"], &self.script())
            .map_err(|reason| NetworkError::Firewall { doing: format!("set up table {table}"), reason })
    }

    /// Removes the tables, if there are any.
    pub(crate) fn remove(&mut self) -> Result<()> {
        self.bridges.clear();
        self.guards.clear();
        self.forwards.clear();
        let table = &self.table;
        run(&["-f", "-"], &deletions(table))
            .map_err(|reason| NetworkError::Firewall { doing: format!("remove table {table}"), reason })
    }

    /// Adds elements; when that fails (somebody flushed the rules of the host), all is put in place again.
    fn add(&mut self, elements: &[Element]) -> Result<()> {
        match firewall_elements::add(&mut self.socket, &self.table, elements) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!("elements of table {}: {error}; setting it up anew", self.table);
                self.apply()
            }
        }
    }

    fn take_away(&mut self, elements: &[Element]) -> Result<()> {
        firewall_elements::remove(&mut self.socket, &self.table, elements)
            .map_err(kernel(format!("removing elements of table {}", self.table)))
    }

    /// Holds an adapter to its own addresses. To be told before the adapter is made.
    pub(crate) fn guard(&mut self, guard: Guard) -> Result<()> {
        let elements = guard.elements();
        let name = guard.host_interface.clone();
        self.guards.insert(name.clone(), guard);
        self.add(&elements).inspect_err(|_| {
            self.guards.remove(&name);
        })
    }

    /// After a daemon restart, before `replace`: this adapter is there.
    pub(crate) fn readopt_guard(&mut self, guard: Guard) {
        self.guards.insert(guard.host_interface.clone(), guard);
    }

    /// Forgets an adapter that is gone.
    pub(crate) fn unguard(&mut self, host_interface: &str) -> Result<()> {
        match self.guards.remove(host_interface) {
            Some(guard) => self.take_away(&guard.elements()),
            None => Ok(()),
        }
    }

    /// Forwards ports, all or none.
    pub(crate) fn publish(&mut self, new: &[Forward]) -> Result<()> {
        let elements: Vec<Element> = new.iter().flat_map(Forward::elements).collect();
        self.forwards.extend(new.iter().cloned());
        self.add(&elements).inspect_err(|_| {
            new.iter().for_each(|forward| {
                self.forwards.remove(forward);
            });
        })?;
        // Who sent to the port before it was published goes on past the new rule otherwise.
        for forward in new.iter().filter(|f| f.protocol != "tcp" && f.host_port != 0) {
            self.forget(Flows::SentTo {
                protocol: forward.protocol,
                port: forward.host_port,
                ipv6: forward.host_ip.is_ipv6(),
            });
        }
        Ok(())
    }

    /// After a daemon restart, before `replace`: these ports are published.
    pub(crate) fn readopt_forwards(&mut self, forwards: impl IntoIterator<Item = Forward>) {
        self.forwards.extend(forwards);
    }

    /// Forwards ports no longer; what was sent over them is forgotten.
    pub(crate) fn withdraw(&mut self, old: &[Forward]) -> Result<()> {
        let elements: Vec<Element> = old.iter().flat_map(Forward::elements).collect();
        for forward in old {
            self.forwards.remove(forward);
        }
        self.take_away(&elements)?;
        let targets: BTreeSet<_> = old.iter().map(|f| f.to).collect();
        for target in targets {
            self.forget(Flows::AnsweredBy(target));
        }
        Ok(())
    }

    fn forget(&mut self, flows: Flows) {
        match forget(&mut self.socket, flows) {
            Ok(0) => {}
            Ok(count) => tracing::debug!("forgot {count} connections: {flows:?}"),
            // Without connection tracking by netlink there is nothing to be done about it; new ones are right anyway.
            Err(error) => tracing::warn!("forgetting connections {flows:?}: {error}"),
        }
    }
}

/// `add` first: deleting a table that is missing would undo the whole transaction. Of the family `ip` there was one in versions
/// before IPv6.
fn deletions(table: &str) -> String {
    ["ip", "inet", "bridge"]
        .map(|family| format!("add table {family} {table}\ndelete table {family} {table}\n"))
        .concat()
}
