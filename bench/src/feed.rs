//! A million prefixes as feeds have them: mostly single addresses, some /24, none within another (an interval set of
//! nftables takes no overlap). The same seed gives the same prefixes.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::lane::SINK;

/// Blocks in which a /24 comes and goes: `100.64.b.0/24`, with [`COVERED`] of the feed's addresses inside.
pub(crate) const BLOCKS: u8 = 8;
/// Addresses of the feed in each of [`BLOCKS`].
pub(crate) const COVERED: u8 = 100;

/// One in so many is a /24.
const WIDE: u64 = 10;

/// Prefixes of a feed.
pub(crate) struct Feed {
    /// First address and length.
    prefixes: Vec<(u32, u8)>,
}

impl Feed {
    /// `count` prefixes, the sink's address and those in [`BLOCKS`] among them.
    pub(crate) fn new(count: usize) -> Self {
        let own = (0..BLOCKS).flat_map(|block| (1..=COVERED).map(move |low| Ipv4Addr::new(100, 64, block, low)));
        let mut prefixes: Vec<(u32, u8)> = own.chain([SINK]).map(|address| (address.into(), 32)).collect();
        let (mut wide, mut single) = (HashSet::new(), HashSet::new());
        let mut random = Random(1);
        while prefixes.len() < count {
            let (is_wide, address) = (random.below(WIDE) == 0, random.address());
            let block = address & !0xff;
            if is_wide && !single.contains(&block) && wide.insert(block) {
                prefixes.push((block, 24));
            } else if !is_wide && !wide.contains(&block) && single.insert(address) {
                single.insert(block);
                prefixes.push((address, 32));
            }
        }
        Self { prefixes }
    }

    /// One a line.
    pub(crate) fn lines(&self) -> String {
        self.joined("\n")
    }

    /// A table with the set, and a chain that accepts what is in it.
    pub(crate) fn nft(&self) -> String {
        format!(
            "table ip bench {{\n set feed {{ type ipv4_addr; flags interval; elements = {{ {} }} }}\n \
             chain forward {{ type filter hook forward priority 0; policy drop; ip daddr @feed accept; }}\n}}\n",
            self.joined(", ")
        )
    }

    fn joined(&self, between: &str) -> String {
        let mut text = String::with_capacity(self.prefixes.len() * 18);
        for (address, length) in &self.prefixes {
            let _infallible = write!(text, "{}/{length}{between}", Ipv4Addr::from(*address));
        }
        text
    }

    /// Addresses of the feed, at random.
    pub(crate) fn addresses(&self, count: usize) -> Vec<Ipv4Addr> {
        let mut random = Random(2);
        let mut one = || {
            let (address, length) = self.prefixes[random.below(self.prefixes.len() as u64) as usize];
            Ipv4Addr::from(if length == 24 { address | 1 } else { address })
        };
        (0..count).map(|_| one()).collect()
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Of the blocks in which hosts of the internet are; none of them is in these worlds.
    fn address(&mut self) -> u32 {
        loop {
            let address = Ipv4Addr::from(self.next() as u32);
            let [a, b, ..] = address.octets();
            let taken =
                matches!((a, b), (10 | 127 | 192 | 198 | 203, _) | (100, 64..=127) | (169, 254) | (172, 16..=31));
            if (1..224).contains(&a) && !taken {
                return address.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_the_same_again_and_has_no_overlaps() {
        let feed = Feed::new(50_000);
        assert_eq!(feed.lines(), Feed::new(50_000).lines());
        let wide: HashSet<u32> = feed.prefixes.iter().filter(|own| own.1 == 24).map(|own| own.0).collect();
        let single: HashSet<u32> = feed.prefixes.iter().filter(|own| own.1 == 32).map(|own| own.0).collect();
        assert_eq!(wide.len() + single.len(), 50_000, "each once");
        assert!(single.iter().all(|address| !wide.contains(&(address & !0xff))));
        assert!((4_000..6_000).contains(&wide.len()), "{} of them are wide", wide.len());
    }
}
