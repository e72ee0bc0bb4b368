//! Publishing: a container's ports are claimed on the host and forwarded to its adapter.

use crate::error::{NetworkError, Result};
use crate::networks::Networks;
use crate::ports::Target;
use crate::ports_request::Wish;
use crate::record::{AdapterRecord, PortRequest, PublishedPort};

impl Networks {
    /// Publishes ports of a container in place of those it had, all or none. An internal network publishes nothing, as with dockerd.
    pub fn publish(
        &self,
        container: &str,
        adapter: &AdapterRecord,
        requests: &[PortRequest],
    ) -> Result<Vec<PublishedPort>> {
        let wishes = requests.iter().map(Wish::new).collect::<Result<Vec<_>>>()?;
        let failed = |reason: String| NetworkError::Publish {
            container: container.chars().take(12).collect(),
            endpoint: adapter.endpoint_id.clone(),
            reason,
        };
        self.unpublish(container)?;
        let Some(target) = self.target(adapter) else { return Ok(Vec::new()) };
        let mut ports = self.ports();
        let published = ports.claim(container, &target, wishes).map_err(|r| failed(r.to_string()))?;
        if let Err(e) = self.firewall().publish(&ports.forwards(container)) {
            ports.release(container);
            return Err(failed(e.to_string()));
        }
        Ok(published)
    }

    /// After a daemon restart, before `sweep`: these ports are published.
    pub fn readopt_ports(&self, container: &str, adapter: &AdapterRecord, published: &[PublishedPort]) {
        if let (false, Some(target)) = (published.is_empty(), self.target(adapter)) {
            let mut ports = self.ports();
            ports.readopt(container, &target, published);
            self.firewall().readopt_forwards(ports.forwards(container));
        }
    }

    /// Withdraws all published ports of a container.
    pub fn unpublish(&self, container: &str) -> Result<()> {
        let mut ports = self.ports();
        // The sockets go last: who gets the port next finds none of the rules of its former owner.
        let forwards = ports.forwards(container);
        let result = if forwards.is_empty() { Ok(()) } else { self.firewall().withdraw(&forwards) };
        ports.release(container);
        result
    }

    /// Where ports of an adapter lead; `None`: nowhere.
    fn target(&self, adapter: &AdapterRecord) -> Option<Target> {
        let mut state = self.state();
        let rules = state.network(&adapter.network_id).ok()?.rules()?;
        (!rules.internal).then_some(Target {
            ipv4: adapter.ipv4,
            ipv6: adapter.ipv6,
            host_binding: rules.host_binding,
            gateway_mode: rules.gateway_mode,
        })
    }
}
