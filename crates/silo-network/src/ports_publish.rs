//! Publishing: a container's ports are claimed on the host and forwarded to its adapter.

use crate::error::{NetworkError, Result};
use crate::networks::Networks;
use crate::ports::Wish;
use crate::record::{AdapterRecord, PortRequest, PublishedPort};

impl Networks {
    /// Publishes ports of a container in place of those it had, all or none.
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
        let to = adapter.ipv4.ok_or_else(|| failed("the adapter has no IPv4 address".to_owned()))?;
        let mut ports = self.ports();
        let published = ports.claim(container, to, &wishes).map_err(|r| failed(r.to_string()))?;
        if let Err(e) = self.apply_rules(&ports) {
            ports.release(container);
            return Err(failed(e.to_string()));
        }
        Ok(published)
    }

    /// After a daemon restart, before `sweep`: these ports are published.
    pub fn readopt_ports(&self, container: &str, adapter: &AdapterRecord, published: &[PublishedPort]) {
        if let (false, Some(to)) = (published.is_empty(), adapter.ipv4) {
            self.ports().readopt(container, to, published);
        }
    }

    /// Withdraws all published ports of a container.
    pub fn unpublish(&self, container: &str) -> Result<()> {
        let mut ports = self.ports();
        if !ports.release(container) {
            return Ok(());
        }
        self.apply_rules(&ports)
    }
}
