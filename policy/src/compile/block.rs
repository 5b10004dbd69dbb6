//! A prefix as a key: a covering prefix sorts before all that it covers, and nothing else stands between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// A prefix whose bits stand left-aligned, so that both families compare alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Block {
    family: Family,
    bits: u128,
    length: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Family {
    V4,
    V6,
}

impl Block {
    pub(super) const FAMILIES: usize = 2;
    pub(super) const LENGTHS: usize = 129;

    pub(super) fn new(network: IpNetwork) -> Self {
        let length = network.prefix();
        let (family, bits) = match network {
            IpNetwork::V4(v4) => (Family::V4, u128::from(u32::from(v4.network())) << 96),
            IpNetwork::V6(v6) => (Family::V6, u128::from(v6.network())),
        };
        Self { family, bits, length }
    }

    pub(super) fn of(address: IpAddr) -> Self {
        Self::new(IpNetwork::from(address))
    }

    /// Index of its family, below [`Self::FAMILIES`].
    pub(super) const fn family(self) -> usize {
        match self.family {
            Family::V4 => 0,
            Family::V6 => 1,
        }
    }

    /// Bits that count, below [`Self::LENGTHS`].
    pub(super) const fn length(self) -> u8 {
        self.length
    }

    pub(super) fn covers(self, inner: Self) -> bool {
        self.family == inner.family && self.length <= inner.length && (self.bits ^ inner.bits) & mask(self.length) == 0
    }

    /// The prefix of this many bits that covers it.
    pub(super) fn above(self, length: u8) -> Self {
        Self { bits: self.bits & mask(length), length, ..self }
    }

    /// Nothing that it covers sorts behind this.
    pub(super) fn end(self) -> Self {
        Self { bits: self.bits | !mask(self.length), length: u8::MAX, ..self }
    }

    pub(super) fn network(self) -> IpNetwork {
        match self.family {
            Family::V4 => {
                let address = Ipv4Addr::from((self.bits >> 96) as u32);
                IpNetwork::V4(
                    Ipv4Network::new_checked(address, self.length).unwrap_or_else(|| Ipv4Network::from(address)),
                )
            }
            Family::V6 => {
                let address = Ipv6Addr::from(self.bits);
                IpNetwork::V6(
                    Ipv6Network::new_checked(address, self.length).unwrap_or_else(|| Ipv6Network::from(address)),
                )
            }
        }
    }
}

fn mask(length: u8) -> u128 {
    !u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}
