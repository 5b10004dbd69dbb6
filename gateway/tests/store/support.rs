//! Folders and values that the store's tests share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gateway::store::{Change, Counters, Opened, Store, StoreError};
use gateway::workload::{Address, Mac, Workload, WorkloadId};
use serde_json::json;

/// A folder that goes away with its test.
pub(crate) struct Dir(PathBuf);

/// A small file system of its own, mounted on a [`Dir`].
pub(crate) struct Mount(Dir);

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Dir {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!(
            "tidegate-store-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Mount {
    pub(crate) fn new(bytes: &str) -> Self {
        let dir = Dir::new();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tidegate-test", dir.path().to_str().unwrap()]);
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), self.path().to_str().unwrap()]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.path().to_str().unwrap()]).status();
    }
}

/// Opens a store, waiting at most ten seconds for its lock: a command that another test starts has, until it runs, the
/// files that are open here.
pub(crate) fn open(dir: &Path) -> (Store, Opened) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(dir) {
            Err(StoreError::InUse(_)) if Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}; these tests run as root");
}

pub(crate) fn put(name: &str, number: u64) -> Change {
    let value =
        json!({"kind": "Network", "metadata": {"name": name}, "spec": {"number": number, "fill": "x".repeat(200)}});
    Change::Put(format!("network/{name}").parse().unwrap(), value)
}

pub(crate) fn put_large(name: &str, bytes: usize) -> Change {
    Change::Put(format!("network/{name}").parse().unwrap(), json!({"fill": "x".repeat(bytes)}))
}

pub(crate) fn remove(name: &str) -> Change {
    Change::Remove(format!("network/{name}").parse().unwrap())
}

pub(crate) fn workload(id: u32) -> Workload {
    Workload {
        id: WorkloadId(id),
        namespace: "shop".parse().unwrap(),
        name: format!("web-{id}").parse().unwrap(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        ports: Default::default(),
        network: "tenant-a".parse().unwrap(),
        netns: "/run/netns/web".into(),
        host_interface: format!("tg{id}").parse().unwrap(),
        guest_interface: "eth0".parse().unwrap(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        addresses: vec![Address { address: "10.100.0.10".parse().unwrap(), handle: "198.18.0.1".parse().unwrap() }],
        cni: None,
        adopted: false,
        left: None,
    }
}

/// A store with three commits behind it.
pub(crate) fn filled(dir: &Path) -> Store {
    let (store, _) = open(dir);
    store.commit(&[put("tenant-a", 1), put("tenant-b", 2)]).unwrap();
    store
        .commit(&[
            Change::Attach(Box::new(workload(7))),
            Change::Count(Counters { workload: 8, policy: 40, tables: 3 }),
        ])
        .unwrap();
    store.commit(&[put("tenant-a", 3)]).unwrap();
    store
}
