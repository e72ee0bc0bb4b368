//! What a machine rehearses while it waits for its container: a container like others, of one program that ends at once.
//!
//! Under TCG most of a start's time goes into translating code that the guest has not run yet. So nothing of this is seen by
//! anybody, but it should do whatever the start of a usual bundle does.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use silo_runtime::protocol::{Boot, Disk, MachineNetwork, SeedFile};

use super::bundle::{SCRATCH_SERIAL, serial};

/// `config.json`.
const SPEC: &str = include_str!("rehearsal.json");

const ROOTFS: &str = r#"{"destination": "/", "type": "overlay", "source": "overlay",
    "options": ["lowerdir=/d/0", "upperdir=/s/upper", "workdir=/s/work"]}"#;

/// All of it but what differs from machine to machine.
pub(super) fn boot() -> io::Result<Boot> {
    let mut spec: Spec = serde_json::from_str(SPEC)?;
    let mut filter = None;
    if let Some(mut linux) = spec.linux().clone() {
        if let Some(seccomp) = linux.seccomp() {
            let compiled =
                silo_runtime::seccomp::compile(seccomp).map_err(|e| io::Error::other(e.to_string()))?;
            filter = Some(compiled.pack());
        }
        linux.set_seccomp(None);
        spec.set_linux(Some(linux));
    }
    let rootfs: Mount = serde_json::from_str(ROOTFS)?;
    let disk = |serial: String, filesystem: &str, at: &str, read_only| Disk {
        serial,
        filesystem: filesystem.into(),
        at: at.into(),
        read_only,
    };
    let file = |path: &str, mode: u32, content: &str| SeedFile {
        path: Path::new(path).to_owned(),
        mode,
        content: content.as_bytes().to_vec(),
        ..Default::default()
    };
    // Of a network for documentation (RFC 5737).
    let address = |last: u8| IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
    Ok(Boot {
        hostname: "rehearsal".into(),
        disks: vec![disk(serial(0), "erofs", "/d/0", true), disk(SCRATCH_SERIAL.into(), "ext4", "/s", false)],
        files: vec![
            file("/g/0", 0o100_644, "nameserver 192.0.2.1\n"),
            file("/g/1", 0o100_644, "rehearsal\n"),
            file("/g/2", 0o100_644, "127.0.0.1\tlocalhost\n"),
            file("/s/upper", 0o040_755, ""),
            file("/s/work", 0o040_755, ""),
        ],
        networks: vec![MachineNetwork {
            name: "eth0".into(),
            mac: [0x02, 0x42, 192, 0, 2, 2],
            mtu: 1500,
            addresses: vec![(address(2), 24)],
            gateways: vec![address(1)],
            ..MachineNetwork::default()
        }],
        spec: Some(Box::new(spec)),
        rootfs: Some(rootfs),
        filter,
        ..Boot::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rehearsed_is_a_whole_container() {
        let boot = boot().unwrap();
        assert!(boot.filter.is_some() && boot.rootfs.is_some());
        let spec = boot.spec.unwrap();
        assert!(spec.process().is_some() && spec.mounts().as_ref().unwrap().len() > 5);
    }
}
