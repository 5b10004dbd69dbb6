//! The export: a line for each commit, and now and then the whole.

use std::fs::{self, OpenOptions};
use std::io::Write;

use gateway::store::{Change, Opened};
use gateway::workload::WorkloadId;

use super::support::{Dir, filled, open, put_large, workload};
use super::{DATABASE, EXPORT};

#[test]
fn a_commit_adds_what_it_changes_however_much_there_is() {
    let dir = Dir::new();
    let store = filled(dir.path());
    let many: Vec<Change> = (100..1100).map(|id| Change::Attach(Box::new(workload(id)))).collect();
    store.commit(&many).unwrap();
    let export = dir.path().join(EXPORT);
    let before = fs::metadata(&export).unwrap().len();
    store.commit(&[Change::Attach(Box::new(workload(2000)))]).unwrap();
    store.commit(&[Change::Detach(WorkloadId(500))]).unwrap();
    let grown = fs::metadata(&export).unwrap().len() - before;
    assert!(grown < 2_000, "{grown} bytes for two workloads beside {before}");
    let contents = store.contents();
    drop(store);
    fs::write(dir.path().join(DATABASE), "torn").unwrap();
    let (store, opened) = open(dir.path());
    assert!(matches!(opened, Opened::Restored { generation, .. } if generation == contents.generation), "{opened}");
    assert_eq!((&store.contents().workloads, &store.contents().resources), (&contents.workloads, &contents.resources));
}

#[test]
fn lines_become_a_whole_again() {
    let dir = Dir::new();
    let store = filled(dir.path());
    let export = dir.path().join(EXPORT);
    let mut longest = 0;
    for number in 0..40 {
        store.commit(&[put_large("tenant-c", 10_000 + number)]).unwrap();
        longest = longest.max(fs::metadata(&export).unwrap().len());
    }
    assert!((60_000..120_000).contains(&longest), "{longest} bytes for 40 times the same resource");
    let contents = store.contents();
    drop(store);
    fs::remove_file(dir.path().join(DATABASE)).unwrap();
    assert_eq!(open(dir.path()).0.contents().resources, contents.resources);
}

#[test]
fn a_line_without_its_end_counts_for_nothing_and_an_altered_one_is_not_believed() {
    let dir = Dir::new();
    let store = filled(dir.path());
    let contents = store.contents();
    drop(store);
    let export = dir.path().join(EXPORT);
    OpenOptions::new().append(true).open(&export).unwrap().write_all(b"{\"checksum\":\"fnv1a64:00").unwrap();
    let (store, opened) = open(dir.path());
    assert_eq!((opened, store.contents()), (Opened::Sound, contents));
    store.commit(&[Change::Detach(WorkloadId(7))]).unwrap();
    let contents = store.contents();
    drop(store);
    fs::write(dir.path().join(DATABASE), "torn").unwrap();
    let (store, opened) = open(dir.path());
    assert!(matches!(opened, Opened::Restored { .. }), "{opened}");
    assert_eq!(store.contents().workloads, contents.workloads, "the line after it counts");
    store.commit(&[Change::Attach(Box::new(workload(9)))]).unwrap();
    drop(store);

    let text = fs::read_to_string(&export).unwrap();
    fs::write(&export, text.replace("web-9", "web-8")).unwrap();
    fs::write(dir.path().join(DATABASE), "torn").unwrap();
    let (_, opened) = open(dir.path());
    assert!(matches!(opened, Opened::Lost { .. }) && opened.to_string().contains("checksum"), "{opened}");
}
