//! `hosts`, `resolv.conf` and `hostname` of a container: written before a start, and again in place when its networks
//! change.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;

use crate::container::Linked;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::joined::Joined;
use crate::record::ContainerRecord;
use crate::spec::NetworkMode;

/// Where `--add-host name:host-gateway` leads.
const HOST_GATEWAY: &str = "host-gateway";

impl Engine {
    /// The files of a container that is about to start.
    pub(crate) fn network_files(
        &self,
        record: &ContainerRecord,
        joined: &Joined,
        links: &[Linked],
    ) -> Vec<(&'static str, String)> {
        let spec = &record.spec;
        if let NetworkMode::Container(other) = &spec.network {
            // The other's files, as dockerd shares them.
            let Ok(other) = self.find(other) else { return Vec::new() };
            let dir = self.dir(&other.id);
            return ["hosts", "resolv.conf", "hostname"]
                .into_iter()
                .filter_map(|f| Some((f, std::fs::read_to_string(dir.join(f)).ok()?)))
                .collect();
        }
        let hostname = ("hostname", format!("{}\n", spec.config.hostname));
        let host_resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut extra = self.extra_hosts(record);
        extra.extend(links.iter().map(|l| (l.names.clone(), l.address.clone())));
        if spec.network == NetworkMode::Host {
            let mut hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            for (name, ip) in extra {
                let _ = writeln!(hosts, "{ip}\t{name}");
            }
            return vec![("hosts", hosts), ("resolv.conf", host_resolv), hostname];
        }
        let addresses: Vec<IpAddr> = joined.adapters.iter().flat_map(own_addresses).collect();
        let resolv = resolv_conf(record, &host_resolv, joined);
        vec![("hosts", hosts(record, &addresses, &extra)), ("resolv.conf", resolv), hostname]
    }

    /// The files of a container that runs, after its networks have changed: in place, for they are mounted.
    pub(super) fn rewrite_network_files(
        &self,
        record: &ContainerRecord,
        nameserver: Option<IpAddr>,
    ) -> Result<()> {
        let links = self.linked(record).unwrap_or_default();
        let joined = Joined { namespace: None, adapters: record.adapters.clone(), nameserver };
        let dir = self.dir(&record.id);
        for (name, text) in self.network_files(record, &joined, &links) {
            if name == "hostname" {
                continue;
            }
            let path = dir.join(name);
            std::fs::File::options()
                .write(true)
                .truncate(true)
                .open(&path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(|e| EngineError::internal(format!("writing {}: {e}", path.display())))?;
        }
        Ok(())
    }

    /// `--add-host`: names and addresses.
    fn extra_hosts(&self, record: &ContainerRecord) -> Vec<(String, String)> {
        let mut list = Vec::new();
        for text in &record.spec.extra_hosts {
            let Some((name, address)) = text.split_once(':').or_else(|| text.split_once('=')) else {
                continue;
            };
            if address != HOST_GATEWAY {
                list.push((name.to_owned(), address.trim_matches(['[', ']']).to_owned()));
                continue;
            }
            // The host's addresses on the default network, as dockerd chooses.
            let bridge = self.networks().into_iter().find(|n| n.name == "bridge");
            let gateways = bridge.into_iter().flat_map(|n| n.pools).filter_map(|p| p.gateway);
            list.extend(gateways.map(|g| (name.to_owned(), g.to_string())));
        }
        list
    }
}

fn own_addresses(adapter: &silo_network::AdapterRecord) -> impl Iterator<Item = IpAddr> {
    adapter.ipv4.map(IpAddr::V4).into_iter().chain(adapter.ipv6.map(IpAddr::V6))
}

fn hosts(record: &ContainerRecord, addresses: &[IpAddr], extra: &[(String, String)]) -> String {
    let config = &record.spec.config;
    let first = addresses.first().map(ToString::to_string);
    let mut text = silo_network::hosts_file(&config.hostname, &config.domainname, first.as_deref(), extra);
    // The names of the first address are the others', too.
    let names = text.lines().last().and_then(|l| l.split_once('\t')).map(|(_, names)| names.to_owned());
    for address in addresses.iter().skip(1) {
        let _ = writeln!(text, "{address}\t{}", names.as_deref().unwrap_or(&config.hostname));
    }
    text
}

/// With a name server of its own, that is the only one, and names without dots are asked for as they are.
fn resolv_conf(record: &ContainerRecord, host: &str, joined: &Joined) -> String {
    let (spec, ipv6) = (&record.spec, joined.adapters.iter().any(|a| a.ipv6.is_some()));
    let Some(own) = joined.nameserver else {
        return silo_network::resolv_conf(host, &spec.dns, &spec.dns_search, &spec.dns_options, ipv6);
    };
    let mut options = spec.dns_options.clone();
    if options.is_empty() {
        let lines = host.lines().filter_map(|l| l.trim_start().strip_prefix("options "));
        options.extend(lines.flat_map(str::split_whitespace).map(str::to_owned));
    }
    if !options.iter().any(|o| o.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    silo_network::resolv_conf(host, &[own.to_string()], &spec.dns_search, &options, ipv6)
}
