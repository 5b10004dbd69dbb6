//! A world: network namespaces, links and a folder under one name, and their removal.
//!
//! A test's world is named after its process, so that worlds of tests that run side by side do not meet, and so that
//! what a killed test left behind is known by its dead process and swept by the next world. A lasting world (the demo's)
//! has a fixed name and stays until it is removed by that name.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::sys::process::{Signal, send};
use crate::sys::{mount, netns};
use crate::wait::{happens_within, wait_until};

const PREFIX: &str = "tidegate-";
const NETNS: &str = "/run/netns";
const BPFFS: &str = "/sys/fs/bpf";

/// A world; removed when dropped, unless it is lasting.
#[derive(Debug)]
pub struct World {
    name: String,
    folder: PathBuf,
    lasting: bool,
}

impl World {
    /// A world of this process.
    pub fn new() -> Self {
        static SWEEP: Once = Once::new();
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        Self::make(name, false)
    }

    /// The world of that name, which outlives the process; one that is there already is removed first.
    pub fn lasting(name: &str) -> Self {
        let name = format!("{PREFIX}{name}");
        remove(&name);
        Self::make(name, true)
    }

    /// Removes a lasting world; answers whether there was one.
    pub fn remove_lasting(name: &str) -> bool {
        let name = format!("{PREFIX}{name}");
        let was_there = folder(&name).exists() || !namespaces(&name).is_empty();
        remove(&name);
        was_there
    }

    fn make(name: String, lasting: bool) -> Self {
        let folder = folder(&name);
        fs::create_dir_all(folder.join("log")).expect("a folder for the world");
        Self { name, folder, lasting }
    }

    /// Its name, unique on this machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder for pins on the bpf file system, which is mounted if it was not. The daemon makes the folder.
    pub fn bpffs(&self) -> PathBuf {
        static MOUNT: Once = Once::new();
        MOUNT.call_once(|| {
            let mounted = fs::read_to_string("/proc/self/mounts").expect("the list of mounts");
            if !mounted.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
                mount::bpf(Path::new(BPFFS)).expect("a bpf file system on /sys/fs/bpf (needs root)");
            }
        });
        Path::new(BPFFS).join(&self.name)
    }

    /// Makes a network namespace, with `lo` up. Its commands see `resolver` as their DNS server, if given.
    pub fn namespace(&self, role: &str, resolver: Option<&str>) -> Namespace {
        let name = format!("{}-{role}", self.name);
        let path = Path::new(NETNS).join(&name);
        netns::create(&path).unwrap_or_else(|error| panic!("namespace {}: {error} (needs root)", path.display()));
        if let Some(resolver) = resolver {
            let folder = Path::new("/etc/netns").join(&name);
            fs::create_dir_all(&folder).expect("a folder below /etc/netns");
            fs::write(folder.join("resolv.conf"), format!("nameserver {resolver}\noptions timeout:2 attempts:2\n"))
                .expect("resolv.conf of the namespace");
        }
        let made = Namespace::new(name, self.folder.join("log").join(role), self.lasting);
        // a namespace begins with the settings of the machine's first, which may route
        made.sysctl("ipv4/ip_forward", "0");
        made
    }

    /// Joins two namespaces by a veth pair, both ends up and ready to carry frames.
    pub fn link(&self, (a, in_a): (&Namespace, &str), (b, in_b): (&Namespace, &str)) {
        a.ip(&format!("link add {in_a} type veth peer name {in_b} netns {}", b.name()));
        a.ip(&format!("link set {in_a} up"));
        b.ip(&format!("link set {in_b} up"));
        for (namespace, interface) in [(a, in_a), (b, in_b)] {
            // The kernel tells a new carrier a little later, and drops frames until then.
            wait_until("a carrier", Duration::from_secs(5), || {
                namespace.enter(|| netns::is_running(interface)).is_ok_and(|running| running)
            });
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let asked = std::env::var_os("TIDEGATE_KEEP_WORLDS").is_some();
        if asked {
            eprintln!("world {} stays, in {}", self.name, self.folder.display());
        }
        if !self.lasting && !asked {
            remove(&self.name);
        }
    }
}

fn folder(name: &str) -> PathBuf {
    // The run folder is a tmpfs: sockets, locks and a database work there under every kernel.
    Path::new("/run").join(name)
}

fn namespaces(name: &str) -> Vec<String> {
    let prefix = format!("{name}-");
    let entries = fs::read_dir(NETNS).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|entry| entry.starts_with(&prefix))
        .collect()
}

/// Ends what runs inside the world's namespaces, then takes away mounts, namespaces, pins and files.
fn remove(name: &str) {
    let folder = folder(name);
    let mounts = mounts_below(&folder);
    let named = namespaces(name);
    let inodes: Vec<u64> = named
        .iter()
        .map(|entry| Path::new(NETNS).join(entry))
        .chain(mounts.iter().cloned())
        .filter_map(|path| fs::metadata(path).ok())
        .map(|metadata| metadata.ino())
        .collect();
    for pid in processes_in(&inodes) {
        let _gone_already = send(pid, Signal::Kill);
    }
    happens_within(Duration::from_secs(5), || processes_in(&inodes).is_empty());
    for path in mounts.iter().rev() {
        let _gone_already = mount::detach(path);
    }
    for entry in &named {
        let _gone_already = netns::release(&Path::new(NETNS).join(entry));
        let _never_made = fs::remove_dir_all(Path::new("/etc/netns").join(entry));
    }
    let _never_made = fs::remove_dir_all(Path::new(BPFFS).join(name));
    if mounts_below(&folder).is_empty() {
        let _never_made = fs::remove_dir_all(&folder);
    }
}

fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|on| on.starts_with(folder))
        .collect()
}

fn processes_in(inodes: &[u64]) -> Vec<u32> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|found| inodes.contains(&found.ino())))
        .collect()
}

/// Removes worlds whose process is gone.
fn sweep() {
    let found =
        fs::read_dir(NETNS).into_iter().chain(fs::read_dir("/run")).chain(fs::read_dir(BPFFS)).flatten().flatten();
    let mut dead: Vec<String> = found
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|entry| {
            let mut parts = entry.strip_prefix(PREFIX)?.splitn(3, '-');
            let (pid, number): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            (!Path::new(&format!("/proc/{pid}")).exists()).then(|| format!("{PREFIX}{pid}-{number}"))
        })
        .collect();
    dead.sort_unstable();
    dead.dedup();
    dead.iter().for_each(|name| remove(name));
}
