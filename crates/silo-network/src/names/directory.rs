//! Who is found under which name: the endpoints of all networks, looked up as one container sees them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::record::{NamedEndpoint, View};

/// All endpoints that have names.
#[derive(Debug, Default)]
pub(super) struct Directory {
    endpoints: HashMap<String, NamedEndpoint>,
    /// (network ID, name in lower case) → endpoint IDs, in the order of their IDs.
    names: HashMap<(String, String), BTreeSet<String>>,
    /// (network ID, address) → endpoint ID.
    addresses: HashMap<(String, IpAddr), String>,
    /// Network ID → name in lower case, of networks with endpoints.
    networks: HashMap<String, (String, usize)>,
}

impl Directory {
    /// Tells an endpoint, in place of what was told of it before.
    pub(super) fn set(&mut self, endpoint: NamedEndpoint) {
        self.forget(&endpoint.endpoint_id);
        let network = || endpoint.network_id.clone();
        for name in &endpoint.names {
            let key = (network(), name.to_ascii_lowercase());
            self.names.entry(key).or_default().insert(endpoint.endpoint_id.clone());
        }
        for address in &endpoint.addresses {
            self.addresses.insert((network(), *address), endpoint.endpoint_id.clone());
        }
        let known = self.networks.entry(network()).or_default();
        known.0 = endpoint.network.to_ascii_lowercase();
        known.1 += 1;
        self.endpoints.insert(endpoint.endpoint_id.clone(), endpoint);
    }

    /// Nobody finds this endpoint any more.
    pub(super) fn forget(&mut self, endpoint_id: &str) {
        let Some(endpoint) = self.endpoints.remove(endpoint_id) else { return };
        let network = || endpoint.network_id.clone();
        for name in &endpoint.names {
            let key = (network(), name.to_ascii_lowercase());
            if let Some(ids) = self.names.get_mut(&key) {
                ids.remove(endpoint_id);
                if ids.is_empty() {
                    self.names.remove(&key);
                }
            }
        }
        for address in &endpoint.addresses {
            let key = (network(), *address);
            // The address may be another's meanwhile.
            if self.addresses.get(&key).is_some_and(|id| id == endpoint_id) {
                self.addresses.remove(&key);
            }
        }
        if let Some(known) = self.networks.get_mut(&endpoint.network_id) {
            known.1 -= 1;
            if known.1 == 0 {
                self.networks.remove(&endpoint.network_id);
            }
        }
    }

    /// The addresses, of both families, under a name in lower case without its last dot; `None`: no container's name. As
    /// dockerd tries it: the whole name on each network, then `name.network` with the network's name from each dot on;
    /// in each try the asking container's own names first.
    pub(super) fn find(&self, view: &View, name: &str) -> Option<Vec<IpAddr>> {
        let dots = name.rmatch_indices('.').map(|(at, _)| (&name[..at], Some(&name[at + 1..])));
        std::iter::once((name, None)).chain(dots).find_map(|(name, network)| {
            let networks = view.networks.iter().filter(|id| {
                network.is_none_or(|wanted| self.networks.get(*id).is_some_and(|(n, _)| n == wanted))
            });
            let networks: Vec<_> = networks.collect();
            if let Some(container) = view.own.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)) {
                let linked = self.endpoints.values().filter(|e| {
                    e.container_id == *container.1 && networks.iter().any(|id| **id == e.network_id)
                });
                let addresses: Vec<_> = linked.flat_map(|e| e.addresses.iter().copied()).collect();
                if !addresses.is_empty() {
                    return Some(addresses);
                }
            }
            // The first network that has the name answers.
            networks.into_iter().find_map(|id| {
                let ids = self.names.get(&(id.clone(), name.to_owned()))?;
                let endpoints = ids.iter().filter_map(|id| self.endpoints.get(id));
                Some(endpoints.flat_map(|e| e.addresses.iter().copied()).collect())
            })
        })
    }

    /// Whose an address is, `web.backend`.
    pub(super) fn reverse(&self, view: &View, address: IpAddr) -> Option<&str> {
        view.networks.iter().find_map(|id| {
            let endpoint = self.addresses.get(&(id.clone(), address))?;
            Some(self.endpoints.get(endpoint)?.primary.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(network: &str, id: &str, names: &[&str], addresses: &[&str]) -> NamedEndpoint {
        NamedEndpoint {
            network_id: format!("id-{network}"),
            network: network.into(),
            endpoint_id: id.into(),
            container_id: format!("c-{}", names[0]),
            names: names.iter().map(|n| (*n).into()).collect(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            primary: format!("{}.{network}", names[0]),
        }
    }

    fn view(networks: &[&str]) -> View {
        View { networks: networks.iter().map(|n| format!("id-{n}")).collect(), ..View::default() }
    }

    fn directory() -> Directory {
        let mut directory = Directory::default();
        directory.set(endpoint("front", "1", &["web", "Svc"], &["10.0.0.2"]));
        directory.set(endpoint("front", "2", &["web2", "svc"], &["10.0.0.3", "fd00::3"]));
        directory.set(endpoint("back", "3", &["db"], &["10.1.0.2"]));
        directory.set(endpoint("back", "4", &["web"], &["10.1.0.3"]));
        directory.set(endpoint("my.net", "5", &["a.b"], &["10.2.0.2"]));
        directory
    }

    fn find(directory: &Directory, view: &View, name: &str) -> Option<String> {
        let found = directory.find(view, name)?;
        Some(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_name_is_found_on_networks_of_the_asking_container_alone() {
        let directory = directory();
        let check = |networks: &[&str], name: &str, expected: Option<&str>| {
            assert_eq!(
                find(&directory, &view(networks), name).as_deref(),
                expected,
                "{name} on {networks:?}"
            );
        };
        check(&["front"], "web", Some("10.0.0.2"));
        check(&["back", "front"], "web", Some("10.1.0.3"));
        check(&["front"], "db", None);
        check(&["front", "back"], "db", Some("10.1.0.2"));
        check(&["front"], "svc", Some("10.0.0.2 10.0.0.3 fd00::3"));
        check(&["front", "back"], "web.back", Some("10.1.0.3"));
        check(&["front"], "web.back", None);
        check(&["my.net"], "a.b", Some("10.2.0.2"));
        check(&["my.net"], "a.b.my.net", Some("10.2.0.2"));
        check(&["my.net"], "b.my.net", None);
        check(&[], "web", None);
        let reverse = |networks: &[&str], address: &str| {
            directory.reverse(&view(networks), address.parse().unwrap()).map(str::to_owned)
        };
        assert_eq!(reverse(&["front"], "fd00::3").as_deref(), Some("web2.front"));
        assert_eq!(reverse(&["back"], "fd00::3"), None);
    }

    #[test]
    fn links_are_the_asking_containers_own_and_need_a_network_of_both() {
        let directory = directory();
        let mut linked = view(&["front"]);
        linked.own = [("Database".into(), "c-db".into()), ("w".into(), "c-web2".into())].into();
        assert_eq!(find(&directory, &linked, "w").as_deref(), Some("10.0.0.3 fd00::3"));
        assert_eq!(find(&directory, &linked, "database"), None);
        linked.networks.push("id-back".into());
        assert_eq!(find(&directory, &linked, "database").as_deref(), Some("10.1.0.2"));
        assert_eq!(find(&directory, &linked, "database.back").as_deref(), Some("10.1.0.2"));
        assert_eq!(find(&directory, &linked, "database.front"), None);
    }

    #[test]
    fn what_is_forgotten_leaves_nothing() {
        let mut directory = directory();
        // The address goes to the next before the last is forgotten.
        directory.set(endpoint("front", "6", &["new"], &["10.0.0.2"]));
        directory.forget("1");
        let front = view(&["front"]);
        assert_eq!(find(&directory, &front, "web"), None);
        assert_eq!(find(&directory, &front, "svc").as_deref(), Some("10.0.0.3 fd00::3"));
        assert_eq!(directory.reverse(&front, "10.0.0.2".parse().unwrap()), Some("new.front"));
        for id in ["2", "3", "4", "5", "6"] {
            directory.forget(id);
        }
        assert!(directory.endpoints.is_empty() && directory.names.is_empty());
        assert!(directory.addresses.is_empty() && directory.networks.is_empty());
    }
}
