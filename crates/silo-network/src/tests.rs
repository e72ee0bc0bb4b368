//! Tests of all verbs together, each in a network namespace of its own: the host's links and rules stay untouched.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use silo_sys::netlink::Socket;
use silo_sys::netns;

use crate::links;
use crate::networks::Networks;
use crate::record::{AdapterForm, AttachOptions, Attached, NetworkConfig};

/// Runs a test as a host without any network but loopback; not root: nothing.
fn as_a_host(test: impl FnOnce(&mut Socket) + Send) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::thread::scope(|scope| {
        let run = || {
            netns::unshare_network().unwrap();
            let mut socket = Socket::open().unwrap();
            socket.change(links::set_up(1)).unwrap();
            test(&mut socket);
        };
        scope.spawn(run).join().unwrap();
    });
}

/// Runs something in a container's namespace.
fn inside<T: Send>(namespace: &OwnedFd, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            netns::enter_network(namespace.as_fd()).unwrap();
            run()
        };
        scope.spawn(run).join().unwrap()
    })
}

fn config() -> NetworkConfig {
    NetworkConfig {
        bridge: "sbtest".into(),
        subnet: Some("10.199.0.1/24".into()),
        ..NetworkConfig::default()
    }
}

fn default_id(networks: &Networks) -> String {
    networks.builtin().into_iter().find(|n| n.name == "bridge").unwrap().id
}

fn attach(networks: &Networks, network: &str, made: Option<OwnedFd>) -> Attached {
    networks.attach(network, "c", AdapterForm::Veth, &AttachOptions::default(), made).unwrap()
}

fn names(socket: &mut Socket) -> Vec<String> {
    links::all(socket).unwrap().into_iter().map(|l| l.name).collect()
}

#[test]
fn containers_are_reached_over_the_bridge_and_leave_nothing() {
    as_a_host(|socket| {
        let networks = Networks::open(config()).unwrap();
        let network = default_id(&networks);
        let a = attach(&networks, &network, None);
        let b = attach(&networks, &network, Some(networks.create_empty_namespace().unwrap()));
        assert_eq!(a.adapter.ipv4, Some(Ipv4Addr::new(10, 199, 0, 2)));
        assert_eq!(b.adapter.ipv4, Some(Ipv4Addr::new(10, 199, 0, 3)));
        let listener = inside(&a.namespace, || TcpListener::bind("0.0.0.0:80").unwrap());
        assert!(TcpStream::connect("10.199.0.2:80").is_ok(), "from the host");
        assert!(inside(&b.namespace, || TcpStream::connect("10.199.0.2:80").is_ok()), "from a neighbour");
        drop(listener);
        // A second daemon takes the bridge over; what it does not adopt is swept.
        let again = Networks::open(config()).unwrap();
        again.adopt(&a.adapter);
        let _ = again.sweep();
        let left = names(socket);
        assert!(left.contains(&a.adapter.host_interface), "{left:?}");
        assert!(!left.contains(&b.adapter.host_interface), "{left:?}");
        again.detach(&a.adapter, None).unwrap();
        again.teardown().unwrap();
        let left = names(socket);
        assert!(!left.iter().any(|n| n.starts_with('s')), "{left:?}");
    });
}
