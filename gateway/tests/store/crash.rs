//! A writer is killed with SIGKILL in the middle of its commits, again and again; nothing that it was told is
//! committed may be lost, and no commit may be seen in part.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Dir, open, put, remove};
use config::api::ResourceName;
use config::prefixes::Difference;
use gateway::store::{Change, Opened};
use ipnetwork::IpNetwork;

const WRITER: &str = "TIDEGATE_TEST_STORE_WRITER";
/// Resources of each commit; all carry its number.
const WIDTH: u64 = 5;

#[test]
fn a_killed_writer_loses_no_commit_and_leaves_none_in_part() {
    if let Some(dir) = std::env::var_os(WRITER) {
        return write_for_ever(Path::new(&dir));
    }
    let dir = Dir::new();
    let mut last = 0;
    for round in 0..25 {
        let committed = kill_a_writer(dir.path(), 1 + round % 7);
        let (store, opened) = open(dir.path());
        assert_eq!(opened, Opened::Sound, "round {round}: {opened}");
        let contents = store.contents();
        assert!(
            contents.generation >= committed,
            "round {round}: {committed} was committed, {} is there",
            contents.generation
        );
        assert!(contents.generation > last);
        last = contents.generation;
        assert_eq!(contents.resources.len() as u64, WIDTH + 1);
        let set = contents.sets.get(&feed()).expect("the set");
        assert!(set.iter().eq((0..contents.generation).map(single)), "round {round}: each commit adds one prefix");
        for (name, kept) in contents.resources.iter().filter(|(name, _)| **name != feed()) {
            assert_eq!(kept.value["spec"]["number"], contents.generation, "round {round}: {name}");
        }
    }
}

/// Reads that many commits from a writer, kills it at once, and answers the last number it told.
fn kill_a_writer(dir: &Path, commits: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::a_killed_writer_loses_no_commit_and_leaves_none_in_part", "--nocapture"])
        .env(WRITER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut number = |line: String| line.strip_prefix("committed ").and_then(|text| text.parse::<u64>().ok());
    let told: Vec<u64> = lines.by_ref().map_while(Result::ok).filter_map(&mut number).take(commits).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let late = lines.map_while(Result::ok).filter_map(&mut number).last();
    late.or(told.last().copied()).expect("the writer told no commit")
}

fn feed() -> ResourceName {
    "addressset/feed".parse().unwrap()
}

fn single(number: u64) -> IpNetwork {
    IpNetwork::from(IpAddr::from((number as u32).to_be_bytes()))
}

fn write_for_ever(dir: &Path) {
    let (store, _) = open(dir);
    loop {
        let number = store.contents().generation + 1;
        let stale = store
            .contents()
            .resources
            .keys()
            .filter(|name| **name != feed())
            .map(|name| remove(name.name.as_str()))
            .collect::<Vec<_>>();
        let fresh = (0..WIDTH).map(|index| put(&format!("net-{}", (number + index) % 11), number));
        let listed = match store.contents().sets.contains_key(&feed()) {
            true => {
                let added = vec![single(number - 1)];
                let all = store.contents().sets[&feed()].changed(&added, &[]);
                vec![Change::PatchPrefixes(feed(), all, Difference { added, removed: Vec::new() })]
            }
            false => {
                let all = (0..number).map(single).collect();
                vec![Change::Put(feed(), serde_json::json!({})), Change::Prefixes(feed(), all)]
            }
        };
        let all: Vec<Change> = stale.into_iter().chain(fresh).chain(listed).collect();
        let contents = store.commit(&all).unwrap();
        println!("\ncommitted {}", contents.generation);
        std::io::stdout().flush().unwrap();
    }
}
