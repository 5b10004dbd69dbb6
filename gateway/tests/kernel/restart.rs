//! What stays when the daemon goes, and what a new one makes of it.

use std::fs;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use config::names::DnsName;
use gateway::egress::tables::{OpenError, Tables};
use gateway::settings::Limits;
use gateway::sys::bpf::{self, boot_time};
use gateway::workload::WorkloadId;
use policy::reason::Reason::*;
use policy::tables::PolicyId;

use super::frames::*;
use super::world::*;

/// Entries of the two tries.
fn prefixes(node: &Node) -> (usize, usize) {
    let maps = node.tables.folder().join("maps");
    let v4 = bpf::Map::<[u8; 12], u32>::open(&maps.join("classes4"), "classes4").unwrap().dump().unwrap();
    let v6 = bpf::Map::<[u8; 24], u32>::open(&maps.join("classes6"), "classes6").unwrap().dump().unwrap();
    (v4.len(), v6.len())
}

#[test]
fn everything_is_found_again() {
    let mut node = Node::new();
    let syn = out(&plain(OWN4, FAR4, TCP, &tcp(4000, 80, SYN)));
    let ack = out(&plain(OWN4, FAR4, TCP, &tcp(4000, 80, ACK)));
    let name = DnsName::try_from("api.example.com".to_owned()).unwrap();
    assert_eq!(node.sends(&syn), AllowedByCidr);
    node.tables.write_name(NAME, &name).unwrap();
    node.tables.write_name_class(EGRESS, NAME, Some(NAME_CLASS)).unwrap();
    node.learn("1.2.3.4", Duration::from_secs(60));
    let sweeps = node.tables.sweeps().unwrap();

    node.tables = Tables::open(&node.limits, &node.bpffs.path()).unwrap();
    assert_eq!(node.tables.workloads().unwrap(), [(node.device, node.entry)].into());
    assert_eq!(node.tables.names().unwrap(), [(NAME, name)]);
    let learned = node.tables.learned().unwrap();
    assert_eq!((learned.len(), learned[0].workload, learned[0].address), (1, WorkloadId(1), addr("1.2.3.4")));
    assert!(learned[0].slots[0].expires > boot_time() + Duration::from_secs(50));
    assert_eq!(node.sends(&ack), KnownFlow);
    assert_eq!(node.sends(&out(&plain(OWN4, "1.2.3.4", TCP, &tcp(1, 443, SYN)))), AllowedByName);
    wait_until("the new program's timer runs", || node.tables.sweeps().unwrap().by_timer > sweeps.by_timer);

    let former = node.tables.former().unwrap();
    let mut next = nothing(9);
    next.prefixes.push(("10.1.0.0/16".parse().unwrap(), policy::tables::ClassId(3)));
    node.tables.write_generation(&next).unwrap();
    node.tables.retire_former(&former, &policies(&[PolicyId(900)])).unwrap();
    let fill = node.tables.fill().unwrap();
    for table in ["rules", "name_classes"] {
        assert_eq!(fill.iter().find(|f| f.table == table).unwrap().entries, 0, "{table}");
    }
    assert_eq!(prefixes(&node), (1, 0), "what came meanwhile stays");
}

#[test]
fn other_layouts_and_other_file_systems_are_refused_by_name() {
    let bpffs = Bpffs::mount();
    let limits = Limits::default();
    fs::create_dir_all(bpffs.path().join("v7")).unwrap();
    let error = Tables::open(&limits, &bpffs.path()).unwrap_err();
    assert!(matches!(error, OpenError::OtherLayout { .. }), "{error}");
    assert!(error.to_string().contains("/v7"), "{error}");

    let plain_folder = std::env::temp_dir().join(format!("tidegate-not-bpf-{}", std::process::id()));
    let error = Tables::open(&limits, &plain_folder).unwrap_err();
    assert!(matches!(error, OpenError::NotBpffs { .. }), "{error}");
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
    assert!(!plain_folder.exists(), "nothing is made there");
}

#[test]
fn a_pinned_table_that_does_not_fit_is_refused_by_name() {
    let node = Node::new();
    let maps = node.tables.folder().join("maps");
    fs::remove_file(maps.join("usage")).unwrap();
    fs::rename(maps.join("node_listeners"), maps.join("usage")).unwrap();
    let error = Tables::open(&node.limits, &node.bpffs.path()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`usage`") || matches!(error, OpenError::Load(_)), "{text}");
}

#[test]
fn removing_the_pins_leaves_nothing() {
    let node = Node::new();
    node.tables.attach(node.device).unwrap();
    node.tables.attach_service(ifindex("w1p")).unwrap();
    let folder = node.tables.folder().to_owned();
    node.tables.set_service(ifindex("w1p"), MAC).unwrap();
    node.tables.remove_pins().unwrap();
    assert!(!folder.exists());
}

#[test]
fn a_large_generation_is_written_and_retired_whole() {
    let node = Node::new();
    let mut large = nothing(5);
    for i in 0..10_000u32 {
        let [_, a, b, c] = i.to_be_bytes();
        large.prefixes.push((format!("11.{a}.{b}.{c}/32").parse().unwrap(), policy::tables::ClassId(i + 1)));
        large.prefixes.push((format!("fd00:{i:x}::/48").parse().unwrap(), policy::tables::ClassId(i + 1)));
    }
    let before = prefixes(&node);
    node.tables.write_generation(&large).unwrap();
    assert_eq!(prefixes(&node), (before.0 + 10_000, before.1 + 10_000));
    node.tables.retire(&large, &policies(&[])).unwrap();
    assert_eq!(prefixes(&node), before);
}

#[test]
fn the_kernels_timer_runs_without_the_daemon() {
    let Node { tables, bpffs, .. } = Node::with(Limits { other_idle_s: 1, ..Limits::default() });
    let pin = tables.folder().join("maps/sweeper");
    drop(tables);
    let runs = || {
        let map = Map::Array(MapData::from_pin(&pin).unwrap());
        Array::<_, [u64; 5]>::try_from(map).unwrap().get(&0, 0).unwrap()[2]
    };
    let before = runs();
    wait_until("three more runs", || runs() >= before + 3);
    drop(bpffs);
}

#[test]
fn the_door_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tables>();
}
