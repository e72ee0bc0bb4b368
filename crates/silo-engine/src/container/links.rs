//! Links (`--link`): another container of the default bridge, known by an alias in `hosts` and the environment.

use std::collections::HashMap;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::ContainerRecord;
use crate::spec::{Config, ContainerSpec, NetworkMode};

/// A link as a start finds it.
pub(crate) struct Linked {
    /// Its names in `/etc/hosts`.
    pub(crate) names: String,
    /// Its IPv4 address.
    pub(crate) address: String,
    /// What it adds to the environment.
    pub(crate) env: Vec<String>,
}

impl Engine {
    /// Finds the targets of a new container's links.
    pub(crate) fn resolve_links(&self, spec: &mut ContainerSpec) -> Result<()> {
        if !spec.links.is_empty() && spec.network == NetworkMode::Host {
            return Err(EngineError::invalid(
                "conflicting options: host type networking can't be used with links",
            ));
        }
        for link in &mut spec.links {
            let target = self.find(&link.target).map_err(|e| EngineError {
                message: format!("could not get container for {}: {}", link.target, e.message),
                ..e
            })?;
            link.target.clone_from(&target.id.0);
        }
        Ok(())
    }

    /// The links of a container that is being started.
    pub(crate) fn linked(&self, record: &ContainerRecord) -> Result<Vec<Linked>> {
        let mut list = Vec::new();
        for link in &record.spec.links {
            let target = self.find(&link.target)?.record();
            let on_bridge = target.adapters.iter().find(|a| a.network == "bridge").and_then(|a| a.ipv4);
            let address = match on_bridge {
                Some(address) if target.state.status.is_running() => address.to_string(),
                _ => {
                    return Err(EngineError::internal(format!(
                        "Cannot link to a non running container: /{} AS /{}/{}",
                        target.name, record.name, link.alias
                    )));
                }
            };
            let mut names = vec![link.alias.as_str(), target.id.short(), &target.name];
            names.dedup();
            let env = environment(&link.alias, &record.name, &address, &target.spec.config);
            list.push(Linked { names: names.join(" "), env, address });
        }
        Ok(list)
    }

    /// Names that containers have by others' links to them: container ID → `holder/alias`, sorted.
    pub fn link_names(&self) -> HashMap<String, Vec<String>> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for entry in self.entries() {
            entry.with(|r| {
                for link in &r.spec.links {
                    names.entry(link.target.clone()).or_default().push(format!("{}/{}", r.name, link.alias));
                }
            });
        }
        names.values_mut().for_each(|list| list.sort());
        names
    }

    /// Takes away the link `holder/alias`; both containers stay.
    pub fn remove_link(&self, name: &str) -> Result<()> {
        let Some((holder, alias)) = name.trim_start_matches('/').split_once('/') else {
            return Err(EngineError::conflict(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let entry = self.find(holder).map_err(|e| EngineError {
            message: format!("Cannot get parent /{holder} for link name /{name}"),
            ..e
        })?;
        if !entry.with(|r| r.spec.links.iter().any(|l| l.alias == alias)) {
            return Err(EngineError::not_found(format!("No such link: /{name}")));
        }
        self.change(&entry, |r| r.spec.links.retain(|l| l.alias != alias))
    }
}

/// The variables of Docker's links: `ALIAS_NAME`, `ALIAS_PORT…` for each exposed port, `ALIAS_ENV_…`.
fn environment(alias: &str, holder: &str, address: &str, target: &Config) -> Vec<String> {
    let prefix = alias.replace('-', "_").to_uppercase();
    let mut env = Vec::new();
    let mut ports: Vec<(u16, &str)> = target
        .exposed_ports
        .iter()
        .filter_map(|p| {
            let (number, protocol) = p.split_once('/').unwrap_or((p, "tcp"));
            Some((number.parse().ok()?, protocol))
        })
        .collect();
    ports.sort_unstable();
    if let Some((port, protocol)) = ports.first() {
        env.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
    }
    for (port, protocol) in ports {
        let this = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        env.push(format!("{this}={protocol}://{address}:{port}"));
        env.push(format!("{this}_ADDR={address}"));
        env.push(format!("{this}_PORT={port}"));
        env.push(format!("{this}_PROTO={protocol}"));
    }
    env.push(format!("{prefix}_NAME=/{holder}/{alias}"));
    let others = target.env.iter().filter_map(|e| e.split_once('='));
    env.extend(
        others.filter(|(n, _)| !matches!(*n, "HOME" | "PATH")).map(|(n, v)| format!("{prefix}_ENV_{n}={v}")),
    );
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_link() {
        let target = Config {
            exposed_ports: vec!["80/tcp".into()],
            env: vec!["A=1".into(), "PATH=/bin".into()],
            ..Default::default()
        };
        assert_eq!(
            environment("my-db", "web", "10.0.0.2", &target),
            [
                "MY_DB_PORT=tcp://10.0.0.2:80",
                "MY_DB_PORT_80_TCP=tcp://10.0.0.2:80",
                "MY_DB_PORT_80_TCP_ADDR=10.0.0.2",
                "MY_DB_PORT_80_TCP_PORT=80",
                "MY_DB_PORT_80_TCP_PROTO=tcp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_A=1",
            ]
        );
    }
}
