//! The command line's own verbs, as tables or JSON.

pub(crate) mod adapter;
pub(crate) mod base;
pub(crate) mod build;
pub(crate) mod client;
pub(crate) mod hive;
pub(crate) mod image;
pub(crate) mod registry;
pub(crate) mod system;
pub(crate) mod vm;

use clap::Args;
use serde_json::Value;

use client::Client;

/// How results are shown.
#[derive(Args)]
pub(crate) struct Output {
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// `silo version`.
pub(crate) fn version(client: &Client, output: &Output) -> Result<(), String> {
    let daemon = client.get("/version")?;
    if output.json {
        println!("{}", serde_json::json!({"client": env!("CARGO_PKG_VERSION"), "daemon": daemon}));
    } else {
        println!("silo    {}", env!("CARGO_PKG_VERSION"));
        println!("daemon  {} (API {})", text(&daemon["Version"]), text(&daemon["ApiVersion"]));
    }
    Ok(())
}

/// `silo info`.
pub(crate) fn info(client: &Client, output: &Output) -> Result<(), String> {
    let info = client.get("/info")?;
    if output.json {
        println!("{info}");
        return Ok(());
    }
    for (title, name) in [
        ("Containers", "Containers"),
        ("  running", "ContainersRunning"),
        ("  paused", "ContainersPaused"),
        ("  stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Kernel", "KernelVersion"),
        ("Cgroups", "CgroupVersion"),
        ("Isolation", "Isolation"),
        ("Root", "DockerRootDir"),
    ] {
        println!("{title:<12}{}", text(&info[name]));
    }
    if let Some(machines) = driver_status(&info, "hyperv") {
        println!("{:<12}{machines}", "hyperv");
    }
    if let Some(pool) = driver_status(&info, "pool") {
        println!("{:<12}{pool}", "Pool");
    }
    Ok(())
}

/// `silo pool`.
pub(crate) fn pool(client: &Client, wait: usize, output: &Output) -> Result<(), String> {
    let pool = client.get(&format!("/silo/pool?ready={wait}"))?;
    let ready = pool["Ready"].as_array().map_or(&[][..], Vec::as_slice);
    if output.json {
        println!("{pool}");
    } else {
        println!("{:<14}{:<10}{:<12}KIND", "ID", "PID", "MEMORY");
        for spare in ready {
            let id: String = text(&spare["Id"]).chars().take(12).collect();
            let memory = format!("{} MiB", spare["Memory"].as_u64().unwrap_or(0) >> 20);
            println!("{id:<14}{:<10}{memory:<12}{}", text(&spare["Pid"]), text(&spare["Key"]));
        }
    }
    if ready.len() < wait {
        return Err(format!("{} of {wait} spares are ready", ready.len()));
    }
    Ok(())
}

/// A value of `DriverStatus`.
pub(crate) fn driver_status<'a>(info: &'a Value, name: &str) -> Option<&'a str> {
    info["DriverStatus"].as_array()?.iter().find(|pair| pair[0] == name)?[1].as_str()
}

/// `silo ps`.
pub(crate) fn ps(client: &Client, all: bool, output: &Output) -> Result<(), String> {
    let list = client.get(if all { "/containers/json?all=1" } else { "/containers/json" })?;
    if output.json {
        println!("{list}");
        return Ok(());
    }
    println!("{:<14}{:<28}{:<24}STATUS", "ID", "IMAGE", "NAME");
    for c in list.as_array().into_iter().flatten() {
        let id: String = text(&c["Id"]).chars().take(12).collect();
        println!(
            "{id:<14}{:<28}{:<24}{}",
            text(&c["Image"]),
            text(&c["Names"][0]).trim_start_matches('/'),
            text(&c["Status"])
        );
    }
    Ok(())
}
