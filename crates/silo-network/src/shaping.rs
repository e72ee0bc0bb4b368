//! Limits of adapters, put in place by netlink (`linux/pkt_sched.h`) where no container reaches: on the
//! host's end of its pair.
//!
//! What the container receives leaves that end: a token bucket is its queue. What the container sends comes in there, and
//! coming in has no queue: it is led through an ifb, a link of the host that is nothing but a queue, and goes on from there
//! as if nothing had been. An adapter without an end on the host (macvlan, ipvlan) is slowed down inside, in the same two
//! ways the other way round: a container with `NET_ADMIN` can undo that.

use std::io;
use std::os::fd::BorrowedFd;

use silo_sys::netlink::{CREATE, Message, REPLACE, Socket};
use silo_sys::traffic::{
    self, INGRESS, ROOT, TCA_KIND, TCA_OPTIONS, add_ingress, is_none, redirect, remove_queue,
};

use crate::error::{NetworkError, Result, kernel};
use crate::networks::Networks;
use crate::record::{AdapterRecord, Bandwidth};
use crate::{bridge, links, namespace};

const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const ETHERNET: u8 = 1;

/// What passes at once after a pause: this long of the rate.
const BURST_MS: u64 = 5;
/// Four full frames: less would starve slow rates.
const LEAST_BURST: u64 = 6400;
/// What waits at most: this long of the rate. What comes then is dropped, which is how a sender learns the rate.
const QUEUE_MS: u64 = 50;
/// Sixteen full frames, a fifth of a second at 1 Mbit/s: with eight TCP runs dry after a loss now and then.
const LEAST_QUEUE: u64 = 24_000;

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    /// Bytes a second of whole frames.
    rate: u64,
    burst: u32,
    queue: u32,
}

impl Bucket {
    /// For a limit in bits a second. The limit is of what programs send: the headers of full frames (44 of 1514 bytes, the
    /// least that UDP over IPv4 needs and a little) are not charged to it.
    fn new(limit: u64) -> Self {
        let rate = (limit / 8).saturating_add(limit / 8 * 3 / 100).max(1);
        let of = |ms: u64, least: u64| {
            let bytes = (rate / 1000).saturating_mul(ms).max(least);
            // The kernel counts in 32 bits, and a queue of more than this is no bound.
            u32::try_from(bytes.min(1 << 30)).unwrap_or(1 << 30)
        };
        Self { rate, burst: of(BURST_MS, LEAST_BURST), queue: of(QUEUE_MS, LEAST_QUEUE) }
    }

    /// Makes it the queue of a link, in place of a bucket that is there: what waits there is kept.
    fn message(self, index: u32) -> Message {
        // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
        let narrow = u32::try_from(self.rate).unwrap_or(u32::MAX);
        let mut parameters = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
        parameters.extend_from_slice(&narrow.to_ne_bytes());
        // struct tc_tbf_qopt: rate, peak rate (none), limit, buffer (by TCA_TBF_BURST), mtu.
        parameters.extend_from_slice(&[0; 12]);
        parameters.extend_from_slice(&self.queue.to_ne_bytes());
        parameters.extend_from_slice(&[0; 8]);
        let mut message = traffic::queue(index, CREATE | REPLACE);
        message.text(TCA_KIND, "tbf").nested(TCA_OPTIONS, |options| {
            options.attribute(TCA_TBF_PARMS, &parameters).number(TCA_TBF_BURST, self.burst);
            if self.rate > u64::from(u32::MAX) {
                options.attribute(TCA_TBF_RATE64, &self.rate.to_ne_bytes());
            }
        });
        message
    }
}

/// Where an adapter is slowed down.
struct Spot {
    /// The link that packets pass.
    device: String,
    /// The ifb for what comes in there.
    ifb: String,
    /// Limit of what leaves the device.
    out: Option<u64>,
    /// Limit of what comes in there.
    into: Option<u64>,
}

impl Spot {
    fn of(adapter: &AdapterRecord, limits: Bandwidth) -> Self {
        match adapter.host_interface.as_str() {
            "" => Self {
                device: adapter.interface.clone(),
                ifb: format!("si{}", adapter.interface).chars().take(15).collect(),
                out: limits.egress,
                into: limits.ingress,
            },
            host => {
                Self { device: host.to_owned(), ifb: ifb_of(host), out: limits.ingress, into: limits.egress }
            }
        }
    }

    fn apply(&self, socket: &mut Socket, alias: &str) -> Result<()> {
        let Self { device, ifb, out, into } = self;
        let limiting = || format!("limiting {device}");
        let found = links::find(socket, device).map_err(kernel(limiting()))?;
        let index =
            found.ok_or_else(|| NetworkError::Invalid(format!("the adapter {device} is gone")))?.index;
        match out {
            Some(limit) => {
                socket.change(Bucket::new(*limit).message(index)).map_err(kernel(limiting()))?;
            }
            None => ignore(socket.change(remove_queue(index, ROOT)), is_none).map_err(kernel(limiting()))?,
        }
        let Some(limit) = into else {
            ignore(socket.change(remove_queue(index, INGRESS)), is_none).map_err(kernel(limiting()))?;
            return bridge::remove(socket, ifb);
        };
        let queue = ensure_ifb(socket, ifb, alias)?;
        // Its queue first: what is led there is limited from the first packet on.
        let mut messages = [
            Bucket::new(*limit).message(queue),
            links::set_up(queue),
            add_ingress(index),
            redirect(index, queue, None),
        ];
        for result in socket.apply(&mut messages).map_err(kernel(limiting()))? {
            ignore(result, links::exists).map_err(kernel(limiting()))?;
        }
        Ok(())
    }
}

fn ignore(result: io::Result<()>, harmless: impl Fn(&io::Error) -> bool) -> io::Result<()> {
    result.or_else(|e| if harmless(&e) { Ok(()) } else { Err(e) })
}

fn ifb_of(host_interface: &str) -> String {
    host_interface.replacen("sv", "si", 1)
}

fn ensure_ifb(socket: &mut Socket, name: &str, alias: &str) -> Result<u32> {
    let looking = || kernel(format!("looking for {name}"));
    if let Some(link) = links::find(socket, name).map_err(looking())? {
        return Ok(link.index);
    }
    match socket.change(links::create("ifb", name, crate::networks::MTU, None)) {
        Err(source) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return Err(NetworkError::NoDriver {
                driver: "ifb (a limit of what a container sends needs it)",
                source,
            });
        }
        made => ignore(made, links::exists).map_err(kernel(format!("making {name}")))?,
    }
    socket.change(links::mark(name, alias)).map_err(kernel(format!("making {name}")))?;
    let found = links::find(socket, name).map_err(looking())?;
    found.map(|l| l.index).ok_or_else(|| kernel(format!("making {name}"))(io::ErrorKind::NotFound.into()))
}

impl Networks {
    /// Changes what an adapter may carry, at once: exactly these limits hold from then on. `namespace`: as for `detach`.
    pub fn set_bandwidth(
        &self,
        adapter: &AdapterRecord,
        namespace: Option<BorrowedFd<'_>>,
        limits: Bandwidth,
    ) -> Result<()> {
        match (adapter.host_interface.as_str(), namespace) {
            ("", None) => Err(NetworkError::Invalid(format!(
                "adapter {} is of a container that does not run",
                adapter.interface
            ))),
            ("", Some(namespace)) => {
                namespace::enter(namespace, |inside| self.shape(adapter, inside, limits))
            }
            _ => self.shape(adapter, &mut self.state().socket, limits),
        }
    }

    /// The same; `socket` is of the namespace where the adapter is slowed down.
    pub(crate) fn shape(
        &self,
        adapter: &AdapterRecord,
        socket: &mut Socket,
        limits: Bandwidth,
    ) -> Result<()> {
        // Of a namespace that goes with its container nothing needs to be known afterwards.
        let alias = if adapter.host_interface.is_empty() { "" } else { &self.alias };
        Spot::of(adapter, limits).apply(socket, alias)
    }
}

/// Removes what limited an adapter whose host end is gone.
pub(crate) fn forget(socket: &mut Socket, host_interface: &str) -> Result<()> {
    bridge::remove(socket, &ifb_of(host_interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_bounded_in_time() {
        let slow = Bucket::new(1_000_000);
        assert_eq!((slow.rate, slow.burst, slow.queue), (128_750, 6400, 24_000));
        let fast = Bucket::new(1_000_000_000);
        assert_eq!(fast.rate, 128_750_000);
        assert_eq!(u64::from(fast.burst), 128_750 * BURST_MS);
        assert_eq!(u64::from(fast.queue), 128_750 * QUEUE_MS);
        let least = Bucket::new(1);
        assert_eq!(least.rate, 1);
        assert_eq!(Bucket::new(u64::MAX).queue, 1 << 30);
    }
}
