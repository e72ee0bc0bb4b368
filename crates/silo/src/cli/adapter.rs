//! `silo adapter`: the adapters of a container, as Windows' `*-ContainerNetworkAdapter` have them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;

#[derive(Subcommand)]
pub(crate) enum AdapterCommand {
    /// List a container's adapters with their networks, addresses, limits and counters
    Ls {
        /// Name or ID
        container: String,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Connect a container to a network
    Add {
        /// Name or ID
        container: String,
        /// Name or ID
        #[arg(long)]
        network: String,
        /// Hardware address
        #[arg(long)]
        mac_address: Option<String>,
        /// IPv4 address
        #[arg(long)]
        ip: Option<String>,
        /// IPv6 address
        #[arg(long)]
        ip6: Option<String>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Set limits, of a running container's adapter at once
    Set {
        /// Name or ID
        container: String,
        /// Name inside (eth0), or name or ID of its network [each adapter]
        adapter: Option<String>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Disconnect a container from an adapter's network
    Rm {
        /// Name or ID
        container: String,
        /// Name inside (eth0), or name or ID of its network
        adapter: String,
    },
}

/// What an adapter may carry.
#[derive(Args)]
pub(crate) struct Limits {
    /// What the container may send: 100Mbps, 1.5Gbps, 800kbps, unlimited
    #[arg(long)]
    max_egress: Option<String>,
    /// What the container may receive
    #[arg(long)]
    max_ingress: Option<String>,
}

impl Limits {
    fn into_body(self, mut body: Value) -> Value {
        for (name, text) in [("MaxEgress", self.max_egress), ("MaxIngress", self.max_ingress)] {
            if let Some(text) = text {
                body[name] = text.into();
            }
        }
        body
    }
}

/// Runs one of them.
pub(crate) fn main(client: &Client, command: AdapterCommand) -> Result<(), String> {
    let path = |container: &str| format!("/silo/containers/{}/adapters", super::client::escaped(container));
    match command {
        AdapterCommand::Ls { container, json } => {
            let list = client.get(&path(&container))?;
            if json {
                println!("{list}");
            } else {
                table(&list);
            }
            Ok(())
        }
        AdapterCommand::Add { container, network, mac_address, ip, ip6, limits } => {
            let body = json!({
                "Network": network, "MacAddress": mac_address, "IPv4Address": ip, "IPv6Address": ip6,
            });
            client.send_json("POST", &path(&container), &limits.into_body(body)).map(drop)
        }
        AdapterCommand::Set { container, adapter, limits } => {
            if limits.max_egress.is_none() && limits.max_ingress.is_none() {
                return Err("say --max-egress, --max-ingress, or both".to_owned());
            }
            let body = limits.into_body(json!({"Adapter": adapter}));
            client.send_json("PUT", &path(&container), &body).map(drop)
        }
        AdapterCommand::Rm { container, adapter } => {
            client.delete(&format!("{}/{}", path(&container), super::client::escaped(&adapter))).map(drop)
        }
    }
}

fn table(list: &Value) {
    println!(
        "{:<8}{:<16}{:<6}{:<40}{:<20}{:<12}{:<12}{:<14}SENT",
        "NAME", "NETWORK", "STATE", "ADDRESS", "MAC", "EGRESS", "INGRESS", "RECEIVED"
    );
    for adapter in list.as_array().into_iter().flatten() {
        let text = |name: &str| super::text(&adapter[name]);
        let addresses: Vec<&str> =
            adapter["Addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let limit = |name: &str| match adapter["Bandwidth"][name].as_u64() {
            None | Some(0) => "unlimited".to_owned(),
            Some(bits) => silo_engine::limit_text(bits),
        };
        println!(
            "{:<8}{:<16}{:<6}{:<40}{:<20}{:<12}{:<12}{:<14}{}",
            text("Name"),
            text("Network"),
            text("State"),
            addresses.join(","),
            text("MacAddress"),
            limit("MaxEgress"),
            limit("MaxIngress"),
            super::text(&adapter["Counters"]["RxBytes"]),
            super::text(&adapter["Counters"]["TxBytes"]),
        );
    }
}
