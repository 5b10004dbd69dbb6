//! The door to the kernel's tables (`bpf/tables.h`).
//!
//! Everything is pinned below `<bpffs>/v5/`: `maps/`, `programs/`, `links/`. The number is the layout's; another number
//! there is another build's, and is refused, while its programs go on as they are. [`Tables::open`] reuses what is
//! pinned, so that flows, learned names and policies outlive the daemon.
//!
//! The maps, who writes them, and what happens when they are full, stand in `bpf/tables.h`; sizes of `flows`, `learned`
//! and what goes with them, and of the prefixes, come from `[limits]` and are taken when the maps are first made. This process holds two
//! locks, around the loaded programs ([`super::attach`]) and around changes of the one entry of `uplink`; the kernel
//! locks the maps.
//!
//! Files: [`workloads`] (who a device is), [`steps`] (policies), [`names`] (what DNS taught), [`answers`] (what DNS answered), [`flows`] (what is
//! open), [`hold`] (what waits for a verdict on its handshake), [`nat`] (what is translated at the uplink), [`node`] (addresses, segments, the service namespace), [`uplink`]
//! (past the node's stack), [`fill`] (counters and how full).

pub mod answers;
pub mod fill;
pub mod flows;
pub mod hold;
pub(crate) mod layout;
pub mod names;
pub mod nat;
pub mod node;
pub mod steps;
pub mod trunks;
pub mod uplink;
pub mod workloads;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use aya::EbpfLoader;

use self::layout as l;
use super::attach::{AttachError, Programs, chain};
use crate::settings::Limits;
use crate::sys::bpf::{Map, PerCpuArray, boot_time, is_bpffs};
use crate::sys::bpf_test_run::test_run;
use crate::sys::lockdown;

/// The built programs.
pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate.bpf.o"));

/// The number of the maps' layout; a change of any struct or key in `bpf/tables.h` raises it.
pub const LAYOUT: u32 = 5;

/// How long a closed TCP connection's entry waits for late segments.
const CLOSED_IDLE: Duration = Duration::from_secs(10);
/// Longest time between two sweeps of one table for stale entries.
const SWEEP: Duration = Duration::from_secs(10);
/// Events told a second and workload.
const FLOW_EVENTS: u32 = 500;
const DROP_EVENTS: u32 = 100;
/// Denied packets a second and workload whose sender is told.
const REJECTIONS: u32 = 1_000;

/// The kernel's tables and programs, open.
#[derive(Debug)]
pub struct Tables {
    folder: PathBuf,
    pub(crate) programs: Programs,
    workloads: Map<u32, l::Workload>,
    addresses: Map<l::PortAddress, l::Address>,
    handles: Map<l::Address, l::Handle>,
    classes4: Map<l::Class4Key, u32>,
    classes6: Map<l::Class6Key, u32>,
    prefixes_held: [AtomicU64; 2],
    rules: Map<l::RuleKey, l::Rule>,
    learned: Map<l::LearnedKey, l::Learned>,
    name_classes: Map<l::NameClassKey, u32>,
    names: Map<u32, l::NameText>,
    answers: Map<l::Question, l::Answer>,
    answer_rules: Map<u32, u64>,
    /// The greatest that it was given.
    answer_rules_given: AtomicU64,
    answered: PerCpuArray<u64>,
    flows: Map<l::FlowKey, l::Flow>,
    usage: Map<u32, l::Usage>,
    service_flows: Map<l::FlowKey, u64>,
    exposed: Map<l::PortKey, u32>,
    node_addresses: Map<l::Address, u32>,
    node_listeners: Map<l::ListenerKey, u32>,
    segments: Map<l::SegmentKey, u32>,
    subnets: Map<l::SubnetKey, u32>,
    trunks: Map<l::TrunkKey, u32>,
    heard: Map<u32, l::Heard>,
    claims: Map<l::ClaimKey, l::Owner>,
    lldp: Map<u32, l::Lldp>,
    fragments: Map<l::FragmentKey, l::Fragment>,
    budgets: Map<u32, l::Budget>,
    counters: PerCpuArray<l::Counter>,
    losses: PerCpuArray<u64>,
    rejections: PerCpuArray<u64>,
    sights: PerCpuArray<u64>,
    settings: Map<u32, l::Settings>,
    key: [u64; 2],
    uplink: Map<u32, l::Uplink>,
    uplink_changes: Mutex<()>,
    routed: Map<l::Address, u32>,
    ways: PerCpuArray<u64>,
    nat: Map<u32, l::Nat>,
    masqueraded: Map<l::PrefixKey, u32>,
    egress_addresses: Map<l::PrefixKey, l::Address>,
    own_addresses: Map<l::OwnKey, l::Address>,
    /// How often mappings are still to be compared with `own_addresses`.
    strays: AtomicU8,
    mappings: Map<l::Tuple, l::Mapping>,
    nat_usage: Map<u32, l::Usage>,
    sweeper: Map<u32, l::Sweeper>,
    swept: Map<u32, l::Swept>,
}

/// Why the tables cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No bpf file system there.
    #[error(
        "{path} is not on a bpf file system; `mount -t bpf bpf /sys/fs/bpf`, or set `[node] bpffs` to a folder on one"
    )]
    NotBpffs {
        /// The folder asked for.
        path: PathBuf,
    },
    /// Pins of another build.
    #[error(
        "{path} holds tables of another layout than v{LAYOUT}; start the build that made them, or remove that folder, which \
         ends their enforcement and all flows' state"
    )]
    OtherLayout {
        /// The other build's folder.
        path: PathBuf,
    },
    /// A pinned map does not fit.
    #[error(
        "the pinned table `{table}` does not fit: {source}; remove {path}, which ends all flows' state, and start again"
    )]
    Table {
        /// Its name.
        table: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A folder for pins.
    #[error("folder {path}: {source}; the daemon must be root or own it")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The kernel refuses a map or program.
    #[error(
        "the kernel takes no program: {0}; it must be 6.1 or newer with BTF, and the daemon needs CAP_BPF and CAP_NET_ADMIN"
    )]
    Load(String),
    /// The timer that reclaims stale flows does not start.
    #[error("the timer that reclaims stale flows does not start: {0}; the kernel must be 6.1 or newer")]
    Sweeper(io::Error),
    /// The programs of an earlier run cannot be replaced.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Why a table cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("table `{table}`: {source}; {}", mend(.source))]
pub struct TableError {
    /// Its name.
    pub table: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

fn mend(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => "it is full: raise its size in `[limits]`, remove the pins and start again",
        Some(libc::ENOMEM) => "the kernel is out of memory",
        Some(libc::EPERM) => "the daemon needs CAP_BPF and CAP_NET_ADMIN",
        _ => "see the kernel's log",
    }
}

impl Tables {
    /// Opens the tables below `bpffs`, making what is not there, puts this build's programs in the place of an earlier
    /// run's at every device that has an entry, and starts the timer that reclaims stale flows.
    pub fn open(limits: &Limits, bpffs: &Path) -> Result<Self, OpenError> {
        let folder = bpffs.join(format!("v{LAYOUT}"));
        let maps = folder.join("maps");
        let there = bpffs.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        if !is_bpffs(there).map_err(|source| OpenError::Folder { path: there.into(), source })? {
            return Err(OpenError::NotBpffs { path: bpffs.into() });
        }
        make_folder(bpffs)?;
        refuse_other_layouts(bpffs)?;
        for folder in [&folder, &maps, &folder.join("programs"), &folder.join("links")] {
            make_folder(folder)?;
        }

        let (programs, start_sweeper) = load(limits, &folder)?;
        let per_cpu = |table: &'static str| (table, maps.join(table));
        let mut tables = Self {
            programs,
            workloads: open(&maps, "workloads")?,
            addresses: open(&maps, "addresses")?,
            handles: open(&maps, "handles")?,
            classes4: open(&maps, "classes4")?,
            classes6: open(&maps, "classes6")?,
            prefixes_held: Default::default(),
            rules: open(&maps, "rules")?,
            learned: open(&maps, "learned")?,
            name_classes: open(&maps, "name_classes")?,
            names: open(&maps, "names")?,
            answers: open(&maps, "answers")?,
            answer_rules: open(&maps, "answer_rules")?,
            answer_rules_given: AtomicU64::new(0),
            answered: open_array(per_cpu("answered"))?,
            flows: open(&maps, "flows")?,
            usage: open(&maps, "usage")?,
            service_flows: open(&maps, "service_flows")?,
            exposed: open(&maps, "exposed")?,
            node_addresses: open(&maps, "node_addresses")?,
            node_listeners: open(&maps, "node_listeners")?,
            segments: open(&maps, "segments")?,
            subnets: open(&maps, "subnets")?,
            trunks: open(&maps, "trunks")?,
            heard: open(&maps, "heard")?,
            claims: open(&maps, "claims")?,
            lldp: open(&maps, "lldp")?,
            fragments: open(&maps, "fragments")?,
            budgets: open(&maps, "budgets")?,
            counters: open_array(per_cpu("counters"))?,
            losses: open_array(per_cpu("losses"))?,
            rejections: open_array(per_cpu("rejections"))?,
            sights: open_array(per_cpu("sights"))?,
            settings: open(&maps, "settings")?,
            key: [0; 2],
            uplink: open(&maps, "uplink")?,
            uplink_changes: Mutex::new(()),
            routed: open(&maps, "routed")?,
            ways: open_array(per_cpu("ways"))?,
            nat: open(&maps, "nat")?,
            masqueraded: open(&maps, "masqueraded")?,
            egress_addresses: open(&maps, "egress_addresses")?,
            own_addresses: open(&maps, "own_addresses")?,
            strays: AtomicU8::new(nat::LOOKS_FOR_STRAYS),
            mappings: open(&maps, "mappings")?,
            nat_usage: open(&maps, "nat_usage")?,
            sweeper: open(&maps, "sweeper")?,
            swept: open(&maps, "swept")?,
            folder,
        };
        tables.key = tables.write_limits(limits).map_err(|e| OpenError::Table {
            table: e.table,
            path: maps.join(e.table),
            source: e.source,
        })?;
        let answer = test_run(start_sweeper.as_fd(), &[0; 64], 0, 0, 1).map_err(OpenError::Sweeper)?;
        if answer.action != 0 {
            return Err(OpenError::Sweeper(io::Error::other(format!("the program answered {}", answer.action))));
        }
        tables.replace_programs()?;
        Ok(tables)
    }

    /// Ends all enforcement: detaches the programs everywhere and removes every pin. Flows and learned names are lost.
    pub fn remove_pins(self) -> Result<(), AttachError> {
        let devices = self.workloads.dump().unwrap_or_default();
        for (ifindex, _) in devices {
            self.detach(ifindex)?;
        }
        if let Some(tg0) = self.tg0_ifindex() {
            self.detach_service(tg0)?;
        }
        if let Some(tap) = self.inspector() {
            self.detach_tap(tap)?;
        }
        for uplink in BTreeSet::from_iter([self.uplink(), self.nat_device()].into_iter().flatten()) {
            self.detach_uplink(uplink)?;
        }
        fs::remove_dir_all(&self.folder).map_err(|source| AttachError::Pin { path: self.folder.clone(), source })
    }

    /// Where the pins lie: `<bpffs>/v5`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Answers the key by which ClientHellos are known again, which lives as long as the flows.
    fn write_limits(&self, limits: &Limits) -> Result<[u64; 2], TableError> {
        let mut settings = self.read_settings()?;
        let other = Duration::from_secs(limits.other_idle_s.into());
        settings.tcp_idle_ns = nanoseconds(Duration::from_secs(limits.tcp_idle_s.into()));
        settings.other_idle_ns = nanoseconds(other);
        settings.closed_idle_ns = nanoseconds(other.min(CLOSED_IDLE));
        settings.sweep_ns = nanoseconds((other / 4).clamp(Duration::from_millis(100), SWEEP));
        settings.flow_events = FLOW_EVENTS;
        settings.drop_events = DROP_EVENTS;
        settings.rejections = REJECTIONS;
        settings.holds = hold::SHARE;
        if settings.key == [0; 2] {
            settings.key = hold::new_key().in_table("settings")?;
        }
        self.settings.set(&0, &settings).in_table("settings")?;
        self.change_nat(|nat| {
            nat.quota = limits.nat_mappings_per_network;
            nat.hold_ns = nanoseconds(nat::HOLD.min(other));
        })?;
        Ok(settings.key)
    }

    pub(crate) fn read_settings(&self) -> Result<l::Settings, TableError> {
        let missing = || TableError { table: "settings", source: io::ErrorKind::NotFound.into() };
        self.settings.get(&0).in_table("settings")?.ok_or_else(missing)
    }
}

fn load(limits: &Limits, folder: &Path) -> Result<(Programs, OwnedFd), OpenError> {
    let reads_kernel = u32::from(lockdown::lets_programs_read());
    let ebpf = EbpfLoader::new()
        .override_global("reads_kernel", &reads_kernel, true)
        .default_map_pin_directory(folder.join("maps"))
        .map_max_entries("classes4", limits.prefixes)
        .map_max_entries("classes6", limits.prefixes)
        .map_max_entries("flows", limits.flows)
        .map_max_entries("mappings", limits.nat_mappings)
        .map_max_entries("ways_back", limits.nat_mappings)
        .map_max_entries("learned", limits.learned)
        .map_max_entries("names", limits.learned)
        .map_max_entries("name_classes", limits.learned.saturating_mul(4))
        .load(OBJECT)
        .map_err(|e| OpenError::Load(chain(&e)))?;
    Programs::load(ebpf, folder).map_err(|e| OpenError::Load(chain(&*e)))
}

/// A time as the tables have it.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Names the table in an error.
pub(crate) trait InTable<T> {
    fn in_table(self, table: &'static str) -> Result<T, TableError>;
}

impl<T> InTable<T> for io::Result<T> {
    fn in_table(self, table: &'static str) -> Result<T, TableError> {
        self.map_err(|source| TableError { table, source })
    }
}

fn open<K: aya::Pod, V: aya::Pod>(maps: &Path, table: &'static str) -> Result<Map<K, V>, OpenError> {
    let path = maps.join(table);
    Map::open(&path, table).map_err(|source| OpenError::Table { table, path, source })
}

fn open_array<V: aya::Pod>((table, path): (&'static str, PathBuf)) -> Result<PerCpuArray<V>, OpenError> {
    PerCpuArray::open(&path).map_err(|source| OpenError::Table { table, path, source })
}

fn make_folder(path: &Path) -> Result<(), OpenError> {
    fs::create_dir_all(path).map_err(|source| OpenError::Folder { path: path.into(), source })
}

fn refuse_other_layouts(bpffs: &Path) -> Result<(), OpenError> {
    let entries = fs::read_dir(bpffs).map_err(|source| OpenError::Folder { path: bpffs.into(), source })?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix('v')).filter(|n| n.parse::<u32>().is_ok());
        if number.is_some_and(|n| n != LAYOUT.to_string()) {
            return Err(OpenError::OtherLayout { path: entry.path() });
        }
    }
    Ok(())
}

/// Another with each write, also after a restart: a workload's reader knows by it that it saw one write as a whole, and a
/// next hop that it was found before.
fn next_stamp() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = boot_time().as_micros() as u32;
    let _first_time_only = NEXT.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
