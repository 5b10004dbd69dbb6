//! Prefixes of address sets: kept as wholes and as changes, and found again in the readable files when the database is torn.

use std::fs;
use std::io::Write;
use std::path::Path;

use config::Prefixes;
use config::api::ResourceName;
use config::prefixes::Difference;
use gateway::store::{Change, Opened, Store};
use ipnetwork::IpNetwork;
use serde_json::json;

use crate::support::{Dir, open, put};

fn feed() -> ResourceName {
    "addressset/shop/feed".parse().unwrap()
}

fn drop_list() -> ResourceName {
    "addressset/drop".parse().unwrap()
}

fn prefix(number: u32) -> IpNetwork {
    match number % 3 {
        0 => format!("2001:db8:{:x}:{:x}::/64", number >> 16, number & 0xffff).parse().unwrap(),
        _ => IpNetwork::new((0x0a00_0000 + number).to_be_bytes().into(), 32).unwrap(),
    }
}

fn prefixes(numbers: impl Iterator<Item = u32>) -> Prefixes {
    numbers.map(prefix).collect()
}

fn set(name: ResourceName, all: Prefixes) -> [Change; 2] {
    [Change::Put(name.clone(), json!({ "kind": "AddressSet" })), Change::Prefixes(name, all)]
}

fn patch(store: &Store, added: &[u32], removed: &[u32]) -> Change {
    patch_of(&store.contents().sets[&feed()], added, removed)
}

fn patch_of(before: &Prefixes, added: &[u32], removed: &[u32]) -> Change {
    let sorted = |numbers: &[u32]| prefixes(numbers.iter().copied()).iter().collect();
    let difference = Difference { added: sorted(added), removed: sorted(removed) };
    Change::PatchPrefixes(feed(), before.changed(&difference.added, &difference.removed), difference)
}

/// A set of a thousand, two others, and three changes of the first.
fn filled(dir: &Path) -> (Store, Prefixes) {
    let (store, _) = open(dir);
    store.commit(&set(feed(), prefixes(0..1_000))).unwrap();
    store
        .commit(&set(drop_list(), ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap()).into_iter().collect()))
        .unwrap();
    store.commit(&set("addressset/shop/empty".parse().unwrap(), Prefixes::new())).unwrap();
    store.commit(&[patch(&store, &[2_000, 2_001], &[1])]).unwrap();
    store.commit(&[patch(&store, &[1], &[2_000])]).unwrap();
    store.commit(&[patch(&store, &[], &[0])]).unwrap();
    (store, prefixes((1..1_000).chain([2_001])))
}

#[test]
fn wholes_and_changes_come_back() {
    let dir = Dir::new();
    let (store, all) = filled(dir.path());
    let before = store.contents();
    assert_eq!(before.sets[&feed()], all);
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::Sound);
    assert_eq!(*store.contents(), *before);
    store.commit(&[patch(&store, &[5_000], &[])]).unwrap();
    store.commit(&set(feed(), prefixes(0..3))).unwrap();
    drop(store);
    assert_eq!(open(dir.path()).0.contents().sets[&feed()], prefixes(0..3), "changes before a whole are gone");
}

#[test]
fn many_changes_become_a_whole() {
    let dir = Dir::new();
    let (store, _) = filled(dir.path());
    let mut present = store.contents().sets[&feed()].clone();
    let many: Vec<Change> = (10_000..15_000)
        .map(|number| {
            let change = patch_of(&present, &[number], &[]);
            present = present.changed(&[prefix(number)], &[]);
            change
        })
        .collect();
    store.commit(&many).unwrap();
    store.commit(&[patch(&store, &[20_000], &[])]).unwrap();
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::Sound);
    assert_eq!(store.contents().sets[&feed()], prefixes((1..1_000).chain([2_001, 20_000]).chain(10_000..15_000)));
}

#[test]
fn a_change_writes_no_other_state() {
    let dir = Dir::new();
    let (store, _) = filled(dir.path());
    store.commit(&[put("tenant-a", 1)]).unwrap();
    let export = dir.path().join("desired.json");
    let (text, whole) =
        (fs::read(&export).unwrap(), fs::metadata(dir.path().join("sets/shop.feed.txt")).unwrap().len());
    let before = store.contents();
    store.commit(&[patch(&store, &[7_000], &[])]).unwrap();
    assert_eq!(fs::read(&export).unwrap(), text);
    let grown = fs::metadata(dir.path().join("sets/shop.feed.txt")).unwrap().len() - whole;
    assert!(grown < 40, "{grown} bytes for one prefix");
    assert!(std::sync::Arc::ptr_eq(&before.resources, &store.contents().resources), "nothing else was copied");
}

#[test]
fn a_removed_set_leaves_nothing() {
    let dir = Dir::new();
    let (store, _) = filled(dir.path());
    store.commit(&[Change::Remove(feed())]).unwrap();
    assert!(!dir.path().join("sets/shop.feed.txt").exists());
    assert!(dir.path().join("sets/_admin.drop.txt").exists());
    drop(store);
    let (store, _) = open(dir.path());
    assert!(!store.contents().sets.contains_key(&feed()));
    store.commit(&set(feed(), prefixes(0..2))).unwrap();
    drop(store);
    assert_eq!(open(dir.path()).0.contents().sets[&feed()], prefixes(0..2), "no change of the earlier set comes back");
}

#[test]
fn a_torn_database_is_restored_from_the_readable_files() {
    let dir = Dir::new();
    let (store, all) = filled(dir.path());
    let before = store.contents();
    drop(store);
    // A power cut may leave a line without its end.
    let file = dir.path().join("sets/shop.feed.txt");
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"99 +10.99.0.0/1").unwrap();
    fs::write(dir.path().join("state.redb"), b"torn").unwrap();
    let (store, opened) = open(dir.path());
    let Opened::Restored { generation, .. } = opened else { panic!("{opened}") };
    assert_eq!(generation, before.generation);
    assert_eq!(store.contents().sets[&feed()], all);
    assert_eq!(store.contents().sets, before.sets);
    drop(store);
    assert_eq!(open(dir.path()).1, Opened::Sound);
    assert_eq!(open(dir.path()).0.contents().sets[&feed()], all);
}

#[test]
fn an_altered_file_is_not_believed() {
    let dir = Dir::new();
    let (store, _) = filled(dir.path());
    drop(store);
    let file = dir.path().join("sets/_admin.drop.txt");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("0.0.0.0/0", "0.0.0.0/1")).unwrap();
    fs::write(dir.path().join("state.redb"), b"torn").unwrap();
    let (_, opened) = open(dir.path());
    assert!(matches!(opened, Opened::Lost { .. }), "{opened}");
    assert!(opened.to_string().contains("_admin.drop.txt is torn"), "{opened}");
}
