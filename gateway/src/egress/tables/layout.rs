//! The structs of `bpf/tables.h`, byte by byte. `tests` compares them with the BTF of the built object.

use std::net::{IpAddr, Ipv6Addr};

/// An address in 16 bytes, IPv4 as `::ffff:a.b.c.d`.
pub(crate) type Address = [u8; 16];
/// A port in network order.
pub(crate) type Port = [u8; 2];

plain! {
    (C) Workload = "workload" {
        stamp: u32, id: u32, network: u32, epoch: u32, generation: u32, egress_policy: u32, ingress_policy: u32,
        flags: u32, flow_quota: u32, mac: [u8; 6], gateway_mac: [u8; 6], bridge: u32, stamp_again: u32,
    }
    (C) PortAddress = "port_address" { ifindex: u32, address: Address, }
    (C) Handle = "handle" { ifindex: u32, workload: u32, address: Address, mac: [u8; 6], gateway_mac: [u8; 6], }
    (C) Class4Key = "class4_key" { prefix_length: u32, generation: u32, address: [u8; 4], }
    (C) Class6Key = "class6_key" { prefix_length: u32, generation: u32, address: Address, }
    (C, packed) RuleKey = "rule_key" { prefix_length: u32, policy: u32, class: u32, protocol: u8, port: Port, }
    (C) Rule = "rule" { action: u8, flags: u8, pad: [u8; 2], rule: u32, audit: u32, }
    (C) LearnedKey = "learned_key" { workload: u32, address: Address, }
    (C) Slot = "learned_slot" { name: u32, pad: u32, expires_ns: u64, }
    (C) Learned = "learned" { slots: [Slot; 4], }
    (C) NameClassKey = "name_class_key" { policy: u32, name: u32, }
    (C) NameText = "name_text" { text: [u8; 256], }
    (C) Question = "question" {
        workload: u32, kind: [u8; 2], flags: [u8; 2], opt: u8, length: u8, pad: [u8; 6], name: [u8; 128],
    }
    (C) Answer = "answer" {
        stamp: u32, class: u32, pad: u32, addresses: u8, ttls: u8, length: u16, rules: u64, ask_ns: u64, expires_ns: u64,
        opens_ns: u64, address: [Address; 8], ttl: [u16; 16], flags: [u8; 2], counts: [[u8; 2]; 3], octets: [u8; 508],
        stamp_again: u32,
    }
    (C) FlowKey = "flow_key" {
        workload: u32, local: Address, remote: Address, local_port: Port, remote_port: Port, protocol: u8, pad: [u8; 3],
    }
    (C) Flow = "flow" {
        opened_ns: u64, last_seen_ns: u64, packets_out: u64, bytes_out: u64, packets_in: u64, bytes_in: u64, epoch: u32,
        rule: u32, name: u32, origin: u8, tcp: u8, reason: u8, hold: u8, first: u32,
        end: u32, shown: u64, claimed: u32, pad: u32,
    }
    (C) Usage = "usage" { flows: u32, }
    (C) PortKey = "port_key" { workload: u32, port: Port, protocol: u8, pad: u8, }
    (C) ListenerKey = "listener_key" { address: Address, port: Port, protocol: u8, pad: u8, }
    (C) SegmentKey = "segment_key" { ifindex: u32, network: u32, }
    (C) SubnetKey = "subnet_key" { prefix_length: u32, network: u32, address: Address, }
    (C) TrunkKey = "trunk_key" { parent: u32, protocol: [u8; 2], id: u16, }
    (C) Heard = "heard" {
        heard_ns: u64, answered_ns: u64, claimed_ns: u64, claimed: Address, router: [u8; 6], claimer: [u8; 6], pad: u32,
    }
    (C) ClaimKey = "claim_key" { network: u32, address: Address, }
    (C) Owner = "owner" { mac: [u8; 6], pad: [u8; 2], }
    (C) Lldp = "lldp" { heard_ns: u64, length: u32, pad: u32, frame: [u8; 512], }
    (C) Uplink = "uplink" { ifindex: u32, generation: u32, }
    (C) Nat = "nat" {
        ifindex: u32, first_port: u16, ports: u16, quota: u32, pad: u32, hold_ns: u64, main4: Address, main6: Address,
    }
    (C) PrefixKey = "prefix_key" { prefix_length: u32, address: Address, }
    (C) OwnKey = "own_key" { network: u32, ipv6: u32, }
    (C) Endpoint = "endpoint" { address: Address, port: Port, zero: u16, }
    (C) Tuple = "tuple" {
        source: Address, destination: Address, source_port: Port, destination_port: Port, protocol: u8, pad: [u8; 3],
    }
    (C) Mapping = "mapping" { last_seen_ns: u64, wire: Endpoint, network: u32, tcp: u8, over: u8, pad: [u8; 6], }
    (C) FragmentKey = "fragment_key" {
        workload: u32, source: Address, destination: Address, id: u32, protocol: u8, pad: [u8; 3],
    }
    (C) Fragment = "fragment" { seen_ns: u64, epoch: u32, pad: u32, }
    (C) Event = "event" {
        time_ns: u64, workload: u32, ifindex: u32, rule: u32, name: u32, local: Address, remote: Address, local_port: Port,
        remote_port: Port, protocol: u8, kind: u8, direction: u8, reason: u8,
    }
    (C) Budget = "budget" { second: u64, flows: u32, drops: u32, rejections: u32, held: u32, window: u64, }
    (C) Counter = "counter" { packets: u64, bytes: u64, }
    (C) Settings = "settings" {
        tcp_idle_ns: u64, other_idle_ns: u64, closed_idle_ns: u64, sweep_ns: u64, tg0_ifindex: u32, flow_events: u32,
        drop_events: u32, rejections: u32, tg1_mac: [u8; 6], pad: [u8; 2], inspector: u32, holds: u32,
        key: [u64; 2],
    }
    (C) Settlement = "settlement" {
        key: FlowKey, key_pad: u32, opened_ns: u64, name: u32, reason: u8, hold: u8, pad: [u8; 2], end: u32,
        pad_again: u32, shown: u64,
    }
    (C) Held = "held" { magic: u32, ifindex: u32, workload: u32, first: u32, opened_ns: u64, held_ns: u64, }
    (C) Sweeper = "sweeper" { timer: [u64; 2], runs: u64, reclaimed: u64, took_ns: u64, }
    (C) Swept = "swept" { at_ns: u64, runs: u64, reclaimed: u64, took_ns: u64, }
}

/// As the tables have it.
pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// As everyone else has it.
pub(crate) fn ip(address: Address) -> IpAddr {
    Ipv6Addr::from(address).to_canonical()
}

#[cfg(test)]
mod tests;
