//! Addresses of one subnet: which are given out, and which is next.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::error::{NetworkError, Result};
use crate::subnet::Subnet;

/// The addresses of a subnet but the gateway's. The lowest free one after the last given goes out next, as dockerd does
/// it: an address rests before it is used again, so that late packets of its last owner meet nobody.
#[derive(Debug)]
pub(crate) struct Pool {
    subnet: Subnet,
    gateway: u32,
    used: BTreeSet<u32>,
    last: u32,
}

impl Pool {
    /// The caller has made sure that the gateway is a host of the subnet.
    pub(crate) fn new(subnet: Subnet, gateway: Ipv4Addr) -> Self {
        let gateway = subnet.position(gateway).unwrap_or(1);
        Self { subnet, gateway, used: BTreeSet::from([gateway]), last: 0 }
    }

    /// Gives out the next free address.
    pub(crate) fn take_any(&mut self) -> Result<Ipv4Addr> {
        let hosts = self.subnet.hosts();
        let position = self.free_from(self.last + 1).filter(|p| *p <= hosts).or_else(|| self.free_from(1));
        let position = position.filter(|p| *p <= hosts).ok_or(NetworkError::PoolEmpty(self.subnet))?;
        self.used.insert(position);
        self.last = position;
        Ok(self.subnet.nth(position))
    }

    /// The first position from `first` on that nobody has.
    fn free_from(&self, first: u32) -> Option<u32> {
        let mut position = first;
        for &used in self.used.range(first..) {
            if used != position {
                break;
            }
            position = position.checked_add(1)?;
        }
        Some(position)
    }

    /// Gives out this address.
    pub(crate) fn take(&mut self, address: Ipv4Addr) -> Result<()> {
        match self.subnet.position(address) {
            Some(position) if (1..=self.subnet.hosts()).contains(&position) => {
                if self.used.insert(position) {
                    Ok(())
                } else {
                    Err(NetworkError::AddressTaken(address))
                }
            }
            _ => Err(NetworkError::AddressOutside { address, subnet: self.subnet }),
        }
    }

    /// Takes an address back; any other is ignored.
    pub(crate) fn free(&mut self, address: Ipv4Addr) {
        if let Some(position) = self.subnet.position(address).filter(|p| *p != self.gateway) {
            self.used.remove(&position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str) -> Pool {
        let subnet: Subnet = subnet.parse().unwrap();
        Pool::new(subnet, subnet.nth(1))
    }

    fn next(pool: &mut Pool) -> u8 {
        pool.take_any().unwrap().octets()[3]
    }

    #[test]
    fn the_lowest_free_after_the_last_comes_next() {
        let mut pool = pool("10.1.0.0/24");
        assert_eq!([next(&mut pool), next(&mut pool), next(&mut pool)], [2, 3, 4]);
        pool.free(Ipv4Addr::new(10, 1, 0, 3));
        pool.take(Ipv4Addr::new(10, 1, 0, 6)).unwrap();
        assert_eq!([next(&mut pool), next(&mut pool)], [5, 7]);
    }

    #[test]
    fn a_full_pool_says_so_and_recovers() {
        let mut pool = pool("10.1.0.0/29");
        for _ in 0..5 {
            pool.take_any().unwrap();
        }
        assert!(matches!(pool.take_any(), Err(NetworkError::PoolEmpty(_))));
        pool.free(Ipv4Addr::new(10, 1, 0, 4));
        assert_eq!(next(&mut pool), 4);
    }

    #[test]
    fn wished_addresses_are_checked() {
        let mut pool = pool("10.1.0.0/24");
        for outside in ["10.1.1.2", "10.1.0.0", "10.1.0.255"] {
            let taken = pool.take(outside.parse().unwrap());
            assert!(matches!(taken, Err(NetworkError::AddressOutside { .. })), "{outside}");
        }
        pool.take(Ipv4Addr::new(10, 1, 0, 2)).unwrap();
        for used in [1, 2] {
            let taken = pool.take(Ipv4Addr::new(10, 1, 0, used));
            assert!(matches!(taken, Err(NetworkError::AddressTaken(_))), "{used}");
        }
        // The gateway is never given back.
        pool.free(Ipv4Addr::new(10, 1, 0, 1));
        assert_eq!(next(&mut pool), 3);
    }
}
