//! Addresses of one subnet: which are given out, and which is next.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::record::PoolRecord;
use crate::subnet::IpSubnet;

/// Why an address was not given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Somebody has it.
    Taken,
    /// Another subnet's, or not one that a host may have.
    Outside,
}

/// The addresses of a subnet but the gateway's and others'. The lowest free one after the last given goes out next, as
/// dockerd does it: an address rests before it is used again, so that late packets of its last owner meet nobody.
#[derive(Debug)]
pub(crate) struct Pool {
    subnet: IpSubnet,
    /// First and last position that may be given out unasked.
    range: (u128, u128),
    /// Never given back.
    reserved: BTreeSet<u128>,
    used: BTreeSet<u128>,
    last: Option<u128>,
}

impl Pool {
    pub(crate) fn new(record: &PoolRecord) -> Self {
        let subnet = record.subnet;
        let size = subnet.size_less_one();
        let mut reserved = BTreeSet::new();
        // As dockerd: the name of the subnet and its broadcast address are nobody's, but where there is nothing else.
        if subnet.is_ipv6() || size > 1 {
            reserved.insert(0);
        }
        if !subnet.is_ipv6() && size > 1 {
            reserved.insert(size);
        }
        let others = record.gateway.iter().chain(record.auxiliary.values());
        reserved.extend(others.filter_map(|address| subnet.position(*address)));
        let range = record.range.filter(|r| subnet.contains(r.network())).unwrap_or(subnet);
        let first = subnet.position(range.network()).unwrap_or(0);
        let range = (first, first.saturating_add(range.size_less_one()).min(size));
        Self { subnet, range, reserved, used: BTreeSet::new(), last: None }
    }

    pub(crate) fn subnet(&self) -> IpSubnet {
        self.subnet
    }

    /// Gives out the next free address; `None`: there is none.
    pub(crate) fn take_any(&mut self) -> Option<IpAddr> {
        let (first, end) = self.range;
        let after = self.last.and_then(|l| l.checked_add(1)).filter(|n| (first..=end).contains(n));
        let position = after.and_then(|n| self.free_from(n)).or_else(|| self.free_from(first))?;
        self.used.insert(position);
        self.last = Some(position);
        Some(self.subnet.nth(position))
    }

    /// The first position of the range from `first` on that nobody has.
    fn free_from(&self, first: u128) -> Option<u128> {
        let end = self.range.1;
        let mut position = first;
        while position <= end {
            if !self.used.contains(&position) && !self.reserved.contains(&position) {
                return Some(position);
            }
            position = position.checked_add(1)?;
        }
        None
    }

    /// Gives out this address.
    pub(crate) fn take(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let position = self.subnet.position(address).ok_or(Refusal::Outside)?;
        if self.reserved.contains(&position) || !self.used.insert(position) {
            return Err(Refusal::Taken);
        }
        Ok(())
    }

    /// Takes an address back; any other is ignored.
    pub(crate) fn free(&mut self, address: IpAddr) {
        if let Some(position) = self.subnet.position(address) {
            self.used.remove(&position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, range: Option<&str>) -> Pool {
        let subnet: IpSubnet = subnet.parse().unwrap();
        Pool::new(&PoolRecord {
            subnet,
            range: range.map(|r| r.parse().unwrap()),
            gateway: Some(subnet.nth(1)),
            auxiliary: [("printer".to_owned(), subnet.nth(5))].into(),
            given: true,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn next(pool: &mut Pool) -> String {
        pool.take_any().map(|a| a.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_lowest_free_after_the_last_comes_next() {
        let mut pool = pool("10.1.0.0/24", None);
        for expected in ["10.1.0.2", "10.1.0.3", "10.1.0.4"] {
            assert_eq!(next(&mut pool), expected);
        }
        pool.free(ip("10.1.0.3"));
        pool.take(ip("10.1.0.7")).unwrap();
        // 5 is another host's.
        assert_eq!([next(&mut pool), next(&mut pool)], ["10.1.0.6", "10.1.0.8"]);
    }

    #[test]
    fn a_full_pool_says_so_and_recovers() {
        let mut pool = pool("10.1.0.0/29", None);
        for expected in ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.6", ""] {
            assert_eq!(next(&mut pool), expected);
        }
        pool.free(ip("10.1.0.4"));
        assert_eq!(next(&mut pool), "10.1.0.4");
    }

    #[test]
    fn a_range_bounds_what_is_given_but_not_what_is_asked_for() {
        let mut pool = pool("10.1.0.0/24", Some("10.1.0.4/30"));
        for expected in ["10.1.0.4", "10.1.0.6", "10.1.0.7", ""] {
            assert_eq!(next(&mut pool), expected);
        }
        pool.take(ip("10.1.0.200")).unwrap();
    }

    #[test]
    fn wished_addresses_are_checked() {
        let mut pool = pool("10.1.0.0/24", None);
        assert_eq!(pool.take(ip("10.1.1.2")), Err(Refusal::Outside));
        pool.take(ip("10.1.0.2")).unwrap();
        for used in ["10.1.0.0", "10.1.0.1", "10.1.0.2", "10.1.0.5", "10.1.0.255"] {
            assert_eq!(pool.take(ip(used)), Err(Refusal::Taken), "{used}");
        }
        // The gateway is never given back.
        pool.free(ip("10.1.0.1"));
        assert_eq!(next(&mut pool), "10.1.0.3");
    }

    #[test]
    fn ipv6_begins_after_the_gateway() {
        let mut pool = pool("fd00::/64", None);
        assert_eq!([next(&mut pool), next(&mut pool)], ["fd00::2", "fd00::3"]);
    }

    #[test]
    fn the_smallest_subnets_are_used_whole() {
        let record = |text: &str| PoolRecord {
            subnet: text.parse().unwrap(),
            range: None,
            gateway: None,
            auxiliary: Default::default(),
            given: true,
        };
        let mut two = Pool::new(&record("10.1.0.0/31"));
        assert_eq!([next(&mut two), next(&mut two), next(&mut two)], ["10.1.0.0", "10.1.0.1", ""]);
        let mut one = Pool::new(&record("10.1.0.9/32"));
        assert_eq!([next(&mut one), next(&mut one)], ["10.1.0.9", ""]);
    }
}
