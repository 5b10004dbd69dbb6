//! The store through its public door: what is committed comes back, and what is torn, altered, full or read-only is
//! named and loses nothing that can be kept.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world fails")]

mod crash;
mod export;
mod sets;
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use gateway::store::{Change, Counters, KEEP_BROKEN, Opened, Store, StoreError};
use gateway::workload::WorkloadId;
use support::{Dir, Mount, filled, open, put, put_large, remove, workload};

const DATABASE: &str = "state.redb";
const EXPORT: &str = "desired.json";

fn broken_files(dir: &Path) -> usize {
    fs::read_dir(dir)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".broken-"))
        .count()
}

#[test]
fn a_new_node_is_empty_and_says_nothing_loud() {
    let dir = Dir::new();
    let (store, opened) = open(&dir.path().join("state"));
    assert_eq!(opened, Opened::Fresh);
    assert!(!opened.needs_attention());
    assert_eq!(store.contents().generation, 0);
    assert_eq!(store.contents().counters, Counters { workload: 1, policy: 1, tables: 1 });
}

#[test]
fn what_is_committed_comes_back() {
    let dir = Dir::new();
    let before = filled(dir.path()).contents();
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::Sound);
    assert_eq!(*store.contents(), *before);
    let contents = store.contents();
    assert_eq!(contents.generation, 3);
    assert_eq!(contents.counters, Counters { workload: 8, policy: 40, tables: 3 });
    assert_eq!(contents.workloads[&WorkloadId(7)].value, workload(7));
    assert_eq!(contents.resources[&"network/tenant-a".parse().unwrap()].value["spec"]["number"], 3);
}

#[test]
fn removing_and_detaching_leave_nothing() {
    let dir = Dir::new();
    let store = filled(dir.path());
    store
        .commit(&[remove("tenant-a"), remove("tenant-b"), remove("never-there"), Change::Detach(WorkloadId(7))])
        .unwrap();
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::Sound);
    assert!(store.contents().resources.is_empty() && store.contents().workloads.is_empty());
}

#[test]
fn creation_times_stay_and_counters_never_go_back() {
    let dir = Dir::new();
    let store = filled(dir.path());
    let name = "network/tenant-a".parse().unwrap();
    let created = store.contents().resources[&name].created;
    let after = store.commit(&[put("tenant-a", 9), Change::Count(Counters::default())]).unwrap();
    assert_eq!(after.resources[&name].created, created);
    assert_eq!(after.counters, Counters { workload: 8, policy: 40, tables: 3 });
    let after = store.commit(&[Change::Attach(Box::new(workload(90)))]).unwrap();
    assert_eq!(after.counters.workload, 91, "an attached workload's number is never given out again");
}

#[test]
fn two_daemons_cannot_share_a_store() {
    let dir = Dir::new();
    let store = filled(dir.path());
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("state_dir"));
    drop(store);
    open(dir.path());
}

#[test]
fn a_truncated_database_is_restored_from_the_export_at_every_length() {
    let dir = Dir::new();
    let before = filled(dir.path()).contents();
    let bytes = fs::read(dir.path().join(DATABASE)).unwrap();
    for part in 0..16 {
        let torn = Dir::new();
        fs::copy(dir.path().join(EXPORT), torn.path().join(EXPORT)).unwrap();
        fs::write(torn.path().join(DATABASE), &bytes[..bytes.len() * part / 16]).unwrap();
        let (store, opened) = open(torn.path());
        assert!(matches!(&opened, Opened::Restored { generation: 3, aside: Some(_), .. }), "{part}/16: {opened}");
        assert!(opened.needs_attention());
        let contents = store.contents();
        assert_eq!((&contents.resources, &contents.workloads), (&before.resources, &before.workloads));
        assert!(contents.counters.policy > before.counters.policy + 1000, "numbers of a lost commit are skipped");
        assert_eq!(broken_files(torn.path()), 1);
        drop(store);
        assert_eq!(open(torn.path()).1, Opened::Sound);
    }
}

#[test]
fn an_altered_database_never_gives_another_state() {
    let dir = Dir::new();
    let before = filled(dir.path()).contents();
    let bytes = fs::read(dir.path().join(DATABASE)).unwrap();
    let offsets = (0..400).step_by(3).chain((400..bytes.len()).step_by(bytes.len() / 120));
    let mut restored = 0;
    for offset in offsets {
        let torn = Dir::new();
        fs::copy(dir.path().join(EXPORT), torn.path().join(EXPORT)).unwrap();
        let mut bad = bytes.clone();
        bad[offset] ^= 0x55;
        fs::write(torn.path().join(DATABASE), &bad).unwrap();
        let (store, opened) = open(torn.path());
        let contents = store.contents();
        assert_eq!(
            (&contents.resources, &contents.workloads),
            (&before.resources, &before.workloads),
            "offset {offset}: {opened}"
        );
        restored += u32::from(opened.needs_attention());
    }
    assert!(restored > 10, "only {restored} altered files were noticed");
}

#[test]
fn garbage_and_an_empty_file_are_moved_aside() {
    for garbage in [&b""[..], b"not a database", &[0xff; 70_000]] {
        let dir = Dir::new();
        let before = filled(dir.path()).contents();
        fs::write(dir.path().join(DATABASE), garbage).unwrap();
        let (store, opened) = open(dir.path());
        assert!(matches!(opened, Opened::Restored { .. }), "{opened}");
        assert_eq!(store.contents().resources, before.resources);
    }
}

#[test]
fn a_missing_database_is_restored_and_a_missing_or_bad_export_is_made_again() {
    let dir = Dir::new();
    let before = filled(dir.path()).contents();
    fs::remove_file(dir.path().join(DATABASE)).unwrap();
    let (store, opened) = open(dir.path());
    assert!(matches!(opened, Opened::Restored { aside: None, .. }), "{opened}");
    assert_eq!(store.contents().resources, before.resources);
    drop(store);
    for damage in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "{").unwrap()] {
        damage(&dir.path().join(EXPORT));
        assert_eq!(open(dir.path()).1, Opened::Sound);
        assert!(fs::read_to_string(dir.path().join(EXPORT)).unwrap().contains("tenant-b"));
    }
}

#[test]
fn with_both_gone_it_starts_empty_and_says_so() {
    let dir = Dir::new();
    drop(filled(dir.path()));
    fs::write(dir.path().join(DATABASE), "x").unwrap();
    let export = fs::OpenOptions::new().write(true).open(dir.path().join(EXPORT)).unwrap();
    let text = fs::read_to_string(dir.path().join(EXPORT)).unwrap();
    export.write_all_at(b"tenant-z", text.find("tenant-b").unwrap() as u64).unwrap();
    let (store, opened) = open(dir.path());
    assert!(matches!(&opened, Opened::Lost { aside, .. } if aside.len() == 2), "{opened}");
    assert!(
        opened.to_string().contains("checksum") && opened.to_string().contains("apply your manifests again"),
        "{opened}"
    );
    assert!(store.contents().resources.is_empty());
    assert!(store.contents().counters.workload > 1000);
}

#[test]
fn only_so_many_broken_files_are_kept() {
    let dir = Dir::new();
    drop(filled(dir.path()));
    for _ in 0..KEEP_BROKEN + 2 {
        fs::write(dir.path().join(DATABASE), "x").unwrap();
        drop(open(dir.path()));
    }
    assert_eq!(broken_files(dir.path()), KEEP_BROKEN);
}

#[test]
fn a_full_disk_is_named_and_the_last_state_stays() {
    let mount = Mount::new("6m");
    let store = filled(mount.path());
    let before = store.contents();
    let ballast = mount.path().join("ballast");
    let mut size = fill(&ballast);
    let mut failures = [0, 0];
    let after = loop {
        match store.commit(&[put("tenant-c", 4), put_large("tenant-d", 600_000)]) {
            Ok(after) => break after,
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("No space left") && error.contains("free some space"), "{error}");
                failures[usize::from(error.contains("state.redb"))] += 1;
                assert_eq!(*store.contents(), *before);
            }
        }
        size -= 100_000;
        fs::OpenOptions::new().write(true).open(&ballast).unwrap().set_len(size).unwrap();
    };
    assert!(
        failures.iter().all(|count| *count > 0),
        "both the export and the database met the full disk: {failures:?}"
    );
    assert_eq!(after.resources.len(), 4);
    drop(store);
    let (store, opened) = open(mount.path());
    assert_eq!(opened, Opened::Sound);
    assert_eq!(*store.contents(), *after);
}

/// Writes until the file system is full, and answers the file's size.
fn fill(path: &Path) -> u64 {
    let file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    let mut size = 1 << 20;
    while size > 0 {
        if (&file).write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
    file.metadata().unwrap().len()
}

#[test]
fn a_read_only_disk_is_named_and_the_last_state_stays() {
    let mount = Mount::new("8m");
    drop(filled(mount.path()));
    mount.remount("ro");
    let error = Store::open(mount.path()).unwrap_err().to_string();
    assert!(error.contains("Read-only") && error.contains("writable"), "{error}");
    mount.remount("rw");
    let (store, opened) = open(mount.path());
    assert_eq!(opened, Opened::Sound);
    assert_eq!(store.contents().resources.len(), 2);
}
