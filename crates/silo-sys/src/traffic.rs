//! Traffic control by rtnetlink (`linux/pkt_sched.h`, `linux/pkt_cls.h`): queues of links, and what comes in on one led
//! out on another.

use std::io;

use crate::links;
use crate::netlink::{CREATE, EXCLUSIVE, Message};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;

/// Attribute of queues and filters: their kind, a text.
pub const TCA_KIND: u16 = 1;
/// Attribute of queues and filters: what their kind wants.
pub const TCA_OPTIONS: u16 = 2;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

/// Where the queue for what leaves a link hangs.
pub const ROOT: u32 = 0xffff_ffff;
/// Where the queue for what comes in on a link hangs.
pub const INGRESS: u32 = 0xffff_fff1;
/// By convention of the queue for what comes in.
const INGRESS_HANDLE: u32 = 0xffff_0000;
const ALL_PROTOCOLS: u16 = 3;
const TERMINAL: u8 = 1;
const STOLEN: i32 = 4;
const EGRESS_REDIRECT: i32 = 1;

/// `struct tcmsg`.
fn header(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut header = [0; 20];
    for (at, number) in [(4, index), (8, handle), (12, parent), (16, info)] {
        header[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    header
}

/// A queue of a link for what leaves it; its attributes ([`TCA_KIND`], [`TCA_OPTIONS`]) follow. `flags`: what to do where there
/// is one already.
pub fn queue(index: u32, flags: u16) -> Message {
    Message::new(RTM_NEWQDISC, flags, &header(index, 0, ROOT, 0))
}

/// Makes the queue for what comes in; there already: `EEXIST`.
pub fn add_ingress(index: u32) -> Message {
    let mut message =
        Message::new(RTM_NEWQDISC, CREATE | EXCLUSIVE, &header(index, INGRESS_HANDLE, INGRESS, 0));
    message.text(TCA_KIND, "ingress");
    message
}

/// Leads what comes in on a link out on another: all, or the frames that one hardware address sends. The link has a queue
/// for what comes in.
pub fn redirect(index: u32, to: u32, from: Option<[u8; 6]>) -> Message {
    let info = (1 << 16) | u32::from(ALL_PROTOCOLS.to_be());
    let fixed = header(index, 0, INGRESS_HANDLE, info);
    let mut message = Message::new(RTM_NEWTFILTER, CREATE | EXCLUSIVE, &fixed);
    message.text(TCA_KIND, "u32").nested(TCA_OPTIONS, |options| {
        options.attribute(TCA_U32_SEL, &selector(from)).nested(TCA_U32_ACT, |actions| {
            actions.nested(1, |first| {
                // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
                let mut mirred = Vec::with_capacity(28);
                for number in [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to.cast_signed()] {
                    mirred.extend_from_slice(&number.to_ne_bytes());
                }
                first.text(TCA_ACT_KIND, "mirred").nested(TCA_ACT_OPTIONS, |of| {
                    of.attribute(TCA_MIRRED_PARMS, &mirred);
                });
            });
        });
    });
    message
}

/// `struct tc_u32_sel` and its keys; none: everything.
fn selector(from: Option<[u8; 6]>) -> Vec<u8> {
    let mut all = vec![0; 16];
    all[0] = TERMINAL;
    let Some([a, b, c, d, e, f]) = from else { return all };
    // struct tc_u32_key: mask, value, offset from the network header, offset mask. The sender's address is before it.
    for (mask, value, offset) in [([0xff; 4], [a, b, c, d], -8i32), ([0xff, 0xff, 0, 0], [e, f, 0, 0], -4)] {
        all[2] += 1;
        all.extend_from_slice(&mask);
        all.extend_from_slice(&value);
        all.extend_from_slice(&offset.to_ne_bytes());
        all.extend_from_slice(&[0; 4]);
    }
    all
}

/// Removes the queue that hangs at [`ROOT`] or [`INGRESS`], with its filters.
pub fn remove_queue(index: u32, parent: u32) -> Message {
    Message::new(RTM_DELQDISC, 0, &header(index, 0, parent, 0))
}

/// The queue or its link is not there.
pub fn is_none(error: &io::Error) -> bool {
    links::is_gone(error) || matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_found_before_the_network_header() {
        assert_eq!(selector(None).len(), 16);
        let one = selector(Some([2, 0x42, 10, 0, 0, 7]));
        assert_eq!((one.len(), one[2]), (48, 2));
        assert_eq!(one[16..28], [255, 255, 255, 255, 2, 0x42, 10, 0, 248, 255, 255, 255]);
        assert_eq!(one[32..44], [255, 255, 0, 0, 0, 7, 0, 0, 252, 255, 255, 255]);
    }
}
