//! The real side at the uplink: devices, routes, translation, and frames through both of its programs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use gateway::egress::attach::Program;
use gateway::egress::tables::nat::Translation;
use gateway::egress::tables::uplink::Way;
use gateway::sys::bpf::{Map, PerCpuArray};
use gateway::workload::Mac;
use ipnetwork::IpNetwork;
use policy::reason::Reason;

use super::nat::{FIRST_PORT, Leaves, Tuple};
use super::scenario::{HOSTS, Phase};
use crate::node::{ifindex, ip};
use crate::programs::{Programs, Run};
use crate::reference::{Action, Member};
use crate::world::SECOND;

pub(super) const OURS: Mac = Mac([2, 0, 0, 0, 0, 0x98]);
pub(super) const NEXT: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
const MTU: usize = 1500;
const SMALLER_MTU: usize = 1300;

/// Where a packet goes by the node's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// By the uplink, in packets of at most this size.
    Uplink(usize),
    Elsewhere,
}

/// As [`Uplink::new`] sets them.
pub(super) fn route(to: IpAddr) -> Route {
    static ELSEWHERE: LazyLock<Vec<IpNetwork>> = LazyLock::new(|| {
        let blocks =
            ["10.0.1.0/24", "fd00::100/120", "10.1.0.0/16", "fd00::1:0/112", "198.51.100.1/32", "2001:db8:1::1/128"];
        blocks.map(|block| block.parse().unwrap()).to_vec()
    });
    static NARROW: LazyLock<Vec<IpNetwork>> =
        LazyLock::new(|| ["10.0.0.16/28", "fd00::10/124"].map(|block| block.parse().unwrap()).to_vec());
    let within = |block: &IpNetwork| block.contains(to);
    match ELSEWHERE.iter().any(within) {
        true => Route::Elsewhere,
        false => Route::Uplink(if NARROW.iter().any(within) { SMALLER_MTU } else { MTU }),
    }
}

/// Whether a packet of this frame fits the workload's link.
pub(super) fn fits_link(frame: &[u8]) -> bool {
    frame.len() - 14 <= MTU
}

/// Bytes of the kernel's `struct tuple`, `mapping`, `way_back`, `fragment_key`, `nat_fragment`.
type TupleKey = [u8; 40];
type FragmentKey = [u8; 44];

pub(super) struct Uplink {
    ifindex: u32,
    mappings: Map<TupleKey, [u8; 40]>,
    ways_back: Map<TupleKey, [u8; 32]>,
    direct: Map<TupleKey, u64>,
    fragments: Map<FragmentKey, [u8; 24]>,
    usage: Map<u32, u32>,
    ways: PerCpuArray<u64>,
}

impl Uplink {
    pub(super) fn new(programs: &Programs) -> Self {
        stay_on_this_cpu();
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
        }
        for device in ["up0", "side0"] {
            ip(&format!("link add {device} type veth peer name {device}p"));
            ip(&format!("link set {device}p up"));
        }
        ip(&format!("link set up0 address {OURS} up"));
        ip("link set side0 up");
        ip("addr add 198.51.100.1/32 dev up0");
        ip("addr add 2001:db8:1::1/128 dev up0 nodad");
        ip(&format!("neigh add 198.51.100.254 lladdr {NEXT} dev up0 nud permanent"));
        ip(&format!("neigh add fe80::99 lladdr {NEXT} dev up0 nud permanent"));
        for (to, by) in [
            ("default", "via 198.51.100.254 dev up0 onlink"),
            ("::/0", "via fe80::99 dev up0"),
            ("10.0.0.16/28", "via 198.51.100.254 dev up0 onlink mtu lock 1300"),
            ("fd00::10/124", "via fe80::99 dev up0 mtu lock 1300"),
            ("10.0.1.0/24", "dev side0"),
            ("fd00::100/120", "dev side0"),
        ] {
            ip(&format!("route add {to} {by}"));
        }
        ip("route add unreachable 10.1.0.0/16");
        ip("route add unreachable fd00::1:0/112");
        let maps = programs.tables.folder().join("maps");
        Self {
            ifindex: ifindex("up0"),
            mappings: Map::open(&maps.join("mappings"), "mappings").unwrap(),
            ways_back: Map::open(&maps.join("ways_back"), "ways_back").unwrap(),
            direct: Map::open(&maps.join("direct"), "direct").unwrap(),
            fragments: Map::open(&maps.join("nat_fragments"), "nat_fragments").unwrap(),
            usage: Map::open(&maps.join("nat_usage"), "nat_usage").unwrap(),
            ways: PerCpuArray::open(&maps.join("ways")).unwrap(),
        }
    }

    /// Nothing is left of an earlier run.
    pub(super) fn clear(&self) {
        fn empty<K: aya::Pod + Ord, V: aya::Pod>(map: &Map<K, V>) {
            for (key, _) in map.dump().unwrap() {
                map.remove(&key).unwrap();
            }
        }
        empty(&self.mappings);
        empty(&self.ways_back);
        empty(&self.direct);
        empty(&self.fragments);
        empty(&self.usage);
    }

    /// What a phase says of the uplink, in the daemon's order.
    pub(super) fn install(&self, programs: &Programs, phase: &Phase, members: &[Member]) {
        let tables = &programs.tables;
        let single = |address: IpAddr| IpNetwork::from(address);
        let own = members.iter().filter(|member| member.translated);
        let own = own.flat_map(|it| it.own.map(|(address, _)| (single(address), it.network as u32 + 1)));
        let hosts = HOSTS.iter().enumerate().flat_map(|(network, hosts)| hosts.map(|host| (network, host)));
        let hosts = hosts.filter(|(network, _)| phase.leaves[*network] != Leaves::AsItIs);
        let hosts = hosts.map(|(network, host)| (single(host.parse().unwrap()), network as u32 + 1));
        tables.set_masqueraded(&own.chain(hosts).collect()).unwrap();
        let addresses = phase.main().into_iter().flatten().map(|main| {
            let all = if main.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            (all.parse().unwrap(), main)
        });
        let translation = Translation {
            ifindex: Some(self.ifindex),
            ports: Some(FIRST_PORT..=FIRST_PORT + phase.ports - 1),
            addresses: addresses.collect(),
        };
        tables.set_translation(&translation).unwrap();
        let networks = phase.terms().networks;
        let own = networks.iter().map(|(number, leaves)| (*number, leaves.own().collect::<Vec<_>>()));
        tables.set_own_addresses(&own.filter(|(_, own)| !own.is_empty()).collect()).unwrap();
        tables.set_uplink(phase.fast.then_some(self.ifindex)).unwrap();
    }

    /// Time passes: what has a time gets older, and next hops are asked for anew.
    pub(super) fn pause(&self, programs: &Programs, seconds: u64) {
        fn older(value: &mut [u8], seconds: u64) {
            let time = value.first_chunk_mut::<8>().unwrap();
            *time = u64::from_ne_bytes(*time).saturating_sub(seconds * SECOND).to_ne_bytes();
        }
        for (key, mut value) in self.mappings.dump().unwrap() {
            older(&mut value, seconds);
            self.mappings.set(&key, &value).unwrap();
        }
        for (key, mut value) in self.ways_back.dump().unwrap() {
            older(&mut value, seconds);
            self.ways_back.set(&key, &value).unwrap();
        }
        for (key, mut value) in self.fragments.dump().unwrap() {
            older(&mut value, seconds);
            self.fragments.set(&key, &value).unwrap();
        }
        for (key, value) in self.direct.dump().unwrap() {
            self.direct.set(&key, &value.saturating_sub(seconds * SECOND)).unwrap();
        }
        programs.tables.ask_again().unwrap();
    }

    /// Runs a frame at the uplink. `expected`: what is to be counted.
    pub(super) fn try_frame(
        &self,
        programs: &Programs,
        run: &mut Run,
        program: Program,
        frame: &[u8],
        expected: Option<Reason>,
    ) -> Result<(Option<Reason>, Action, Vec<u8>), String> {
        let answer =
            programs.tables.try_frame(program, frame, self.ifindex, self.ifindex).map_err(|e| e.to_string())?;
        let action = match answer.action {
            2 => Action::Drop,
            -1 => Action::Pass,
            7 => Action::Redirect,
            other => return Err(format!("the program returned {other}")),
        };
        // what leaves untouched is not counted; each other packet is, once
        let counted = match expected {
            None if action == Action::Pass => None,
            _ => programs.counted_now(run, expected),
        };
        Ok((counted, action, answer.packet))
    }

    /// How many packets so far were not asked about, since one like them was before.
    pub(super) fn shortcuts(&self) -> u64 {
        let taken = |way: Way| self.ways.get(way as u32).unwrap().into_iter().sum::<u64>();
        taken(Way::OutAgain) + taken(Way::InAgain)
    }

    /// The kernel's mappings: wire and network.
    pub(super) fn mappings(programs: &Programs) -> BTreeMap<Tuple, ((IpAddr, u16), u32)> {
        let all = programs.tables.mappings().unwrap().into_iter();
        let mapping = |m: gateway::egress::tables::nat::Mapping| {
            (Tuple { protocol: m.protocol, own: m.own, far: m.remote }, (m.wire, m.network))
        };
        all.map(mapping).collect()
    }
}

/// The programs' cache of next hops is each CPU's own, and the model knows of one.
fn stay_on_this_cpu() {
    // SAFETY: an empty set of the size that is passed, with one CPU added.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap(), &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    assert_eq!(result, 0, "the thread cannot be held on a CPU");
}
