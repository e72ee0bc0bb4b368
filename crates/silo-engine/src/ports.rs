//! Which ports a container asks to publish.

use silo_network::PortRequest;

use crate::spec::ContainerSpec;

/// `-p`, and with `-P` each exposed port that `-p` does not name.
pub(crate) fn requests(spec: &ContainerSpec) -> Vec<PortRequest> {
    let mut all: Vec<PortRequest> = spec
        .ports
        .iter()
        .map(|p| PortRequest {
            container_port: p.container_port,
            protocol: p.protocol.clone(),
            host_ip: p.host_ip.clone(),
            host_ports: p.host_ports,
        })
        .collect();
    if spec.publish_all_ports {
        for exposed in &spec.config.exposed_ports {
            let (port, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            let Ok(container_port) = port.parse() else { continue };
            if !all.iter().any(|p| p.container_port == container_port && p.protocol == protocol) {
                all.push(PortRequest {
                    container_port,
                    protocol: protocol.to_owned(),
                    host_ip: String::new(),
                    host_ports: (0, 0),
                });
            }
        }
    }
    all
}
