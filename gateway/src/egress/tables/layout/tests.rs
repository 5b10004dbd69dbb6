//! The object's own BTF (`Documentation/bpf/btf.rst` of the kernel) against the Rust structs, and the two lists of reasons.

use std::collections::BTreeMap;

use policy::reason::Reason;

use super::*;
use crate::egress::tables::OBJECT;
use crate::egress::tables::uplink::Way;
use crate::sys::bpf_plain::{Field, Plain};

/// Size, and each member's name and offset in bytes.
type Struct = (usize, Vec<(String, usize)>);

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The section of an ELF64 file.
fn section<'a>(elf: &'a [u8], name: &str) -> &'a [u8] {
    let long = |at: usize| u64::from_ne_bytes(elf[at..at + 8].try_into().unwrap()) as usize;
    let half = |at: usize| u16::from_ne_bytes(elf[at..at + 2].try_into().unwrap()) as usize;
    let (headers, size, count, names) = (long(0x28), half(0x3a), half(0x3c), half(0x3e));
    let names = long(headers + names * size + 0x18);
    let header = (0..count).map(|i| headers + i * size).find(|h| {
        let at = names + word(elf, *h);
        elf[at..].starts_with(name.as_bytes()) && elf[at + name.len()] == 0
    });
    let header = header.unwrap();
    &elf[long(header + 0x18)..][..long(header + 0x20)]
}

fn structs() -> BTreeMap<String, Struct> {
    let btf = section(OBJECT, ".BTF");
    let header = word(btf, 4);
    let (types, length, strings) = (header + word(btf, 8), word(btf, 12), header + word(btf, 16));
    let text = |offset: usize| {
        let bytes = &btf[strings + offset..];
        String::from_utf8_lossy(&bytes[..bytes.iter().position(|b| *b == 0).unwrap()]).into_owned()
    };
    let mut found = BTreeMap::new();
    let mut at = types;
    while at < types + length {
        let (name, info, size) = (word(btf, at), word(btf, at + 4), word(btf, at + 8));
        let (kind, many) = (info >> 24 & 0x1f, info & 0xffff);
        at += 12;
        if kind == 4 {
            let member = |i: usize| (text(word(btf, at + i * 12)), (word(btf, at + i * 12 + 8) & 0xff_ffff) / 8);
            found.insert(text(name), (size, (0..many).map(member).collect()));
        }
        at += match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 | 15 | 19 => many * 12,
            6 | 13 => many * 8,
            _ => 0,
        };
    }
    found
}

fn compare<T: Plain>(structs: &BTreeMap<String, Struct>) {
    let (size, members) = structs.get(T::C_NAME).unwrap_or_else(|| panic!("no struct {} in the object", T::C_NAME));
    let ours: Vec<(String, usize)> = T::FIELDS.iter().map(|(name, at, _): &Field| ((*name).to_owned(), *at)).collect();
    assert_eq!((size_of::<T>(), &ours), (*size, members), "{}", T::C_NAME);
}

#[test]
fn structs_are_those_of_the_object() {
    let structs = structs();
    macro_rules! each { ($($type:ty),*) => { $(compare::<$type>(&structs);)* }; }
    each!(
        Workload,
        PortAddress,
        Handle,
        Class4Key,
        Class6Key,
        RuleKey,
        Rule,
        LearnedKey,
        Slot,
        Learned,
        NameClassKey,
        NameText
    );
    each!(
        FlowKey,
        Flow,
        Usage,
        PortKey,
        ListenerKey,
        SegmentKey,
        SubnetKey,
        FragmentKey,
        Fragment,
        Event,
        Budget,
        Counter
    );
    each!(Question, Answer, Settings, Sweeper, Swept, Uplink, Nat, PrefixKey, OwnKey, Endpoint, Tuple, Mapping);
}

#[test]
fn reasons_are_those_of_the_header() {
    let header = include_str!("../../../../bpf/reasons.h");
    let theirs: BTreeMap<u8, String> = header
        .lines()
        .filter_map(|line| line.trim().strip_prefix("REASON_")?.split_once(" = "))
        .map(|(name, rest)| (rest[..rest.find(',').unwrap()].parse().unwrap(), name.to_lowercase().replace('_', "-")))
        .collect();
    let ours: BTreeMap<u8, String> = Reason::ALL.iter().map(|r| (*r as u8, r.word().to_owned())).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn ways_are_those_of_the_header() {
    let header = include_str!("../../../../bpf/tables.h");
    let theirs: BTreeMap<u32, String> = header
        .lines()
        .filter_map(|line| line.trim().strip_prefix("WAY_")?.split_once(" = "))
        .map(|(name, rest)| (rest[..rest.find(',').unwrap()].parse().unwrap(), name.to_lowercase().replace('_', "-")))
        .collect();
    let ours: BTreeMap<u32, String> = Way::ALL.iter().map(|way| (*way as u32, way.word().to_owned())).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn addresses_come_back() {
    for text in ["10.0.0.1", "fe80::77", "::", "255.255.255.255"] {
        let ip: IpAddr = text.parse().unwrap();
        assert_eq!(super::ip(address(ip)), ip);
    }
}
