//! Tests of the guard by crafted frames: adapters are taps, what is written into one is what a container sends.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::firewall::Guard;
use crate::firewall_lab::{Lab, lab};
use crate::links;
use crate::mac::MacAddress;

const ALL: [u8; 6] = [0xff; 6];
/// `struct virtio_net_hdr`: no offloads.
const HEADER: usize = 10;
const ARP: u16 = 0x0806;
const IP: u16 = 0x0800;
const IP6: u16 = 0x86dd;

struct Port {
    tap: OwnedFd,
    mac: [u8; 6],
    ipv4: [u8; 4],
    ipv6: Ipv6Addr,
}

fn port(lab: &mut Lab, host: u8) -> Port {
    let name = format!("svtap{host}");
    let ipv4 = Ipv4Addr::new(10, 1, 0, host);
    let ipv6 = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, host.into());
    let mac = MacAddress::of(ipv4);
    let guard = Guard {
        host_interface: name.clone(),
        mac,
        addresses: vec![ipv4.into(), ipv6.into()],
        icc: true,
        trusted: false,
    };
    lab.firewall.guard(guard).unwrap();
    let tap = silo_sys::tap::create(&name).unwrap();
    let index = links::find(&mut lab.socket, &name).unwrap().unwrap().index;
    let bridge = links::find(&mut lab.socket, "b1").unwrap().unwrap().index;
    lab.socket.change(silo_sys::links::set_master(index, bridge)).unwrap();
    lab.socket.change(links::set_up(index)).unwrap();
    Port { tap, mac: mac.0, ipv4: ipv4.octets(), ipv6 }
}

impl Port {
    fn send(&self, frame: &[u8]) {
        let bytes = [&[0; HEADER][..], frame].concat();
        rustix::io::write(&self.tap, &bytes).unwrap();
    }

    /// The next frame that was sent by a program of the test's; `None`: none within the time.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        loop {
            let mut waited = [PollFd::new(&self.tap, PollFlags::IN)];
            let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
            if poll(&mut waited, Some(&patience)).unwrap() == 0 {
                return None;
            }
            let length = rustix::io::read(&self.tap, &mut buffer).unwrap();
            let frame = &buffer[HEADER..length];
            // The kernel's own (neighbour discovery of the bridge) end in no mark.
            if frame.ends_with(b"mark") || frame.ends_with(b"done") {
                return Some(frame.to_vec());
            }
        }
    }
}

fn frame(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload, b"mark"].concat()
}

fn arp(operation: u8, mac: [u8; 6], ip: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &ip, &[0; 6], &target].concat()
}

fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = 20 + payload.len() as u16 + 4;
    let mut header =
        [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0, 0, 64, protocol, 0, 0], &from, &to].concat();
    let sum = header.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], payload].concat()
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &12u16.to_be_bytes(), &[0, 0]].concat()
}

fn ipv6(next: u8, from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16 + 4;
    [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, 255], &from.octets(), &to.octets(), payload]
        .concat()
}

/// A neighbour or router message: type, code, checksum (nobody looks before the guard), flags, target.
fn icmp6(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat()
}

#[test]
fn an_adapter_speaks_for_itself_alone() {
    lab(|mut lab| {
        lab.bridge(1, |_| {});
        let (a, b) = (port(&mut lab, 2), port(&mut lab, 3));
        let (gateway, gateway6) = ([10, 1, 0, 1], "fd00:1::1".parse::<Ipv6Addr>().unwrap());
        let nodes: Ipv6Addr = "ff02::1".parse().unwrap();
        let unspecified = Ipv6Addr::UNSPECIFIED;
        let foreign = [2, 0x42, 10, 1, 0, 9];
        let fe80 = "fe80::42:aff:fe01:2".parse::<Ipv6Addr>().unwrap();
        let own = |kind, payload: Vec<u8>| frame(ALL, a.mac, kind, &payload);
        let refused = [
            ("a foreign MAC", frame(ALL, foreign, IP, &ipv4(17, a.ipv4, b.ipv4, &udp(9, 9)))),
            ("the neighbour's MAC", frame(b.mac, b.mac, IP, &ipv4(17, a.ipv4, b.ipv4, &udp(9, 9)))),
            ("TCP with a foreign MAC", frame(ALL, foreign, IP, &ipv4(6, a.ipv4, b.ipv4, &[0; 20]))),
            ("TCP with a foreign address", own(IP, ipv4(6, b.ipv4, b.ipv4, &[0; 20]))),
            (
                "tagged TCP",
                own(0x8100, [&[0, 5][..], &IP.to_be_bytes(), &ipv4(6, a.ipv4, b.ipv4, &[0; 20])].concat()),
            ),
            ("a foreign address", own(IP, ipv4(17, [10, 1, 0, 9], b.ipv4, &udp(9, 9)))),
            ("the gateway's address", own(IP, ipv4(17, gateway, b.ipv4, &udp(53, 9)))),
            ("no address", own(IP, ipv4(17, [0; 4], [255; 4], &udp(68, 67)))),
            ("a DHCP answer", own(IP, ipv4(17, a.ipv4, b.ipv4, &udp(67, 68)))),
            ("a redirect", own(IP, ipv4(1, a.ipv4, b.ipv4, &[5, 1, 0, 0, 10, 1, 0, 2]))),
            ("ARP: the gateway is here", own(ARP, arp(2, a.mac, gateway, b.ipv4))),
            ("ARP: the neighbour is here", own(ARP, arp(2, a.mac, b.ipv4, gateway))),
            ("ARP: unasked, to all", own(ARP, arp(1, a.mac, gateway, gateway))),
            ("ARP: own address at a foreign MAC", own(ARP, arp(2, foreign, a.ipv4, b.ipv4))),
            ("ARP: is the neighbour's address free", own(ARP, arp(1, a.mac, [0; 4], b.ipv4))),
            ("ND: the gateway is here", own(IP6, ipv6(58, a.ipv6, nodes, &icmp6(136, gateway6)))),
            ("ND: by the gateway", own(IP6, ipv6(58, gateway6, nodes, &icmp6(136, gateway6)))),
            (
                "ND: is the neighbour's address free",
                own(IP6, ipv6(58, unspecified, nodes, &icmp6(135, b.ipv6))),
            ),
            ("a router's advertisement", own(IP6, ipv6(58, fe80, nodes, &icmp6(134, unspecified)))),
            ("an IPv6 redirect", own(IP6, ipv6(58, fe80, nodes, &icmp6(137, b.ipv6)))),
            ("a foreign IPv6 address", own(IP6, ipv6(17, "fd00:1::9".parse().unwrap(), b.ipv6, &udp(9, 9)))),
            ("a DHCPv6 answer", own(IP6, ipv6(17, a.ipv6, b.ipv6, &udp(547, 546)))),
            (
                "a tagged frame",
                own(0x8100, [&[0, 5][..], &IP.to_be_bytes(), &ipv4(17, a.ipv4, b.ipv4, &udp(9, 9))].concat()),
            ),
            ("another protocol", own(0x88cc, vec![0; 40])),
            ("a frame for bridges", frame([1, 0x80, 0xc2, 0, 0, 0], a.mac, 0x27, &[0; 40])),
        ];
        let done = {
            let mut frame = own(ARP, arp(1, a.mac, a.ipv4, b.ipv4));
            let end = frame.len() - 4;
            frame[end..].copy_from_slice(b"done");
            frame
        };
        for (what, frame) in &refused {
            a.send(frame);
            a.send(&done);
            let seen = b.receive().expect("what may be sent arrives");
            assert!(seen.ends_with(b"done"), "{what} arrived: {seen:02x?}");
        }
        let allowed = [
            ("a packet", frame(b.mac, a.mac, IP, &ipv4(17, a.ipv4, b.ipv4, &udp(9, 9)))),
            ("TCP", frame(b.mac, a.mac, IP, &ipv4(6, a.ipv4, b.ipv4, &[0; 20]))),
            ("ARP: where is the gateway", own(ARP, arp(1, a.mac, a.ipv4, gateway))),
            ("ARP: I am here", own(ARP, arp(2, a.mac, a.ipv4, b.ipv4))),
            ("ARP: is my address free", own(ARP, arp(1, a.mac, [0; 4], a.ipv4))),
            ("ND: where is the neighbour", own(IP6, ipv6(58, a.ipv6, nodes, &icmp6(135, b.ipv6)))),
            ("ND: I am here", own(IP6, ipv6(58, a.ipv6, nodes, &icmp6(136, a.ipv6)))),
            ("ND: is my address free", own(IP6, ipv6(58, unspecified, nodes, &icmp6(135, a.ipv6)))),
            ("link-local", own(IP6, ipv6(17, fe80, nodes, &udp(9, 9)))),
        ];
        for (what, frame) in &allowed {
            a.send(frame);
            assert!(b.receive().is_some_and(|seen| seen.ends_with(b"mark")), "{what}");
        }
        // TCP needs one look alone.
        let element = r#"delete element bridge silo_lab ipv4 { "svtap2" . 10.1.0.2 }"#;
        crate::firewall_nft::run(&[element], "").unwrap();
        a.send(&frame(b.mac, a.mac, IP, &ipv4(6, a.ipv4, b.ipv4, &[0; 20])));
        assert!(b.receive().is_some_and(|seen| seen.ends_with(b"mark")), "TCP by the first rule");
        // Without a guard (its adapter is gone, its name another's) nothing is held back.
        lab.firewall.unguard("svtap2").unwrap();
        a.send(&refused[0].1);
        assert!(b.receive().is_some_and(|seen| seen.ends_with(b"mark")), "the guard is by adapter");
    });
}

#[test]
fn the_bridge_learns_no_foreign_address() {
    lab(|mut lab| {
        lab.bridge(1, |_| {});
        let (a, b, c) = (port(&mut lab, 2), port(&mut lab, 3), port(&mut lab, 4));
        // The bridge knows where b is.
        b.send(&frame(ALL, b.mac, ARP, &arp(1, b.mac, b.ipv4, a.ipv4)));
        assert!(a.receive().is_some() && c.receive().is_some());
        // a claims to be b, also by frames that bridges keep for themselves.
        for to in [ALL, [1, 0x80, 0xc2, 0, 0, 0xe], [1, 0x80, 0xc2, 0, 0, 3], c.mac] {
            a.send(&frame(to, b.mac, ARP, &arp(1, b.mac, b.ipv4, c.ipv4)));
            c.send(&frame(b.mac, c.mac, IP, &ipv4(17, c.ipv4, b.ipv4, &udp(9, 9))));
            assert!(b.receive().is_some(), "the packet for b arrives at b after a frame to {to:02x?}");
        }
        let mut waited = [PollFd::new(&a.tap, PollFlags::IN)];
        let none = Timespec::try_from(Duration::ZERO).unwrap();
        while poll(&mut waited, Some(&none)).unwrap() > 0 {
            let mut buffer = [0; 2048];
            let length = rustix::io::read(&a.tap, &mut buffer).unwrap();
            assert!(!buffer[..length].ends_with(b"mark"), "a received what is b's");
        }
    });
}
