//! A node of its own for each test: the test's thread moves into a fresh network namespace, and tables are opened on a
//! fresh bpf file system. All of it goes when the test ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gateway::egress::attach::Program;
use gateway::egress::tables::names::LearnedSlot;
use gateway::egress::tables::workloads::{PortAddresses, WorkloadEntry};
use gateway::egress::tables::{TableError, Tables};
use gateway::settings::Limits;
use gateway::sys::bpf::boot_time;
use gateway::workload::{Address, Mac, WorkloadId};
use policy::reason::Reason;
use policy::tables::{
    Action, ClassId, Generation, NameId, NamesFirst, PolicyId, PortPrefix, PrefixWrite, RuleEntry, RuleId, Step,
};
use policy::tiers::Tier;

/// A network namespace, as long as this lives.
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare_network();
            File::open("/proc/thread-self/ns/net").unwrap().into()
        });
        let namespace = Self(made.join().unwrap());
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `work` in it, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: a namespace's descriptor, and this thread does nothing but `work`.
                assert_eq!(unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// `ip ARGUMENTS` in it.
    pub(crate) fn ip(&self, arguments: &str) {
        self.run(|| ip(arguments));
    }

    /// Until the device is up, its carrier noticed and its queue in place: before that it loses what it is given.
    pub(crate) fn wait_for_link(&self, device: &str) {
        let command = format!("link show {device}");
        wait_until("the link is up", || self.run(|| ip(&command)).contains("state UP"));
    }

    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        self.run(|| fs::write(Path::new("/proc/sys").join(key), value).unwrap());
    }

    /// A path that `ip … netns` takes.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_fd().as_raw_fd())
    }
}

/// `ip ARGUMENTS` in this thread's namespace.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn ifindex(device: &str) -> u32 {
    ip(&format!("-o link show {device}")).split(':').next().unwrap().trim().parse().unwrap()
}

pub(crate) fn unshare_network() {
    // SAFETY: moves this thread alone into a new network namespace.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "the tests need root");
}

/// A bpf file system, unmounted on drop.
pub(crate) struct Bpffs(PathBuf);

impl Bpffs {
    pub(crate) fn mount() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-kernel-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let target = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: NUL-terminated strings; no data.
        let result = unsafe { libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) };
        assert_eq!(result, 0, "mount bpf at {}", path.display());
        Self(path)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.join("tidegate")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let target = CString::new(self.0.to_str().unwrap()).unwrap();
        // SAFETY: a NUL-terminated string.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        let _ = fs::remove_dir(&self.0);
    }
}

pub(crate) const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(crate) const GATEWAY_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
pub(crate) const OWN4: &str = "10.1.0.2";
pub(crate) const OWN6: &str = "fd00:1::2";
pub(crate) const OWN_LINK_LOCAL: &str = "fe80::2";
pub(crate) const GATEWAY4: &str = "10.1.0.1";
pub(crate) const GATEWAY6: &str = "fd00:1::1";
pub(crate) const FAR4: &str = "10.9.0.9";
pub(crate) const FAR6: &str = "fd00:9::9";
pub(crate) const NETWORK: u32 = 7;
pub(crate) const EGRESS: PolicyId = PolicyId(100);
pub(crate) const INGRESS: PolicyId = PolicyId(101);
pub(crate) const ALLOW: RuleId = RuleId(11);
pub(crate) const DENY: RuleId = RuleId(12);
pub(crate) const BY_NAME: RuleId = RuleId(13);
pub(crate) const NAME: NameId = NameId(5);
pub(crate) const NAME_CLASS: ClassId = ClassId(50);
const NEAR: ClassId = ClassId(1);
const BANNED: ClassId = ClassId(2);

pub(crate) fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Tables, and one workload (id 1) behind device `w1`, whose other end is `w1p`.
pub(crate) struct Node {
    pub(crate) tables: Tables,
    pub(crate) device: u32,
    pub(crate) entry: WorkloadEntry,
    pub(crate) limits: Limits,
    pub(crate) bpffs: Bpffs,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(Limits { flows: 4096, learned: 1024, ..Limits::default() })
    }

    /// The workload may send TCP to ports 80–87 and 443 and anything to FAR (10.9/16, fd00:9::/32) on UDP 5000 and
    /// SCTP 3868, and ICMP there; not to the banned (10.9.66/24, fd00:9:66::/48). It may be reached on TCP 8080 from FAR.
    pub(crate) fn with(limits: Limits) -> Self {
        unshare_network();
        ip("link set lo up");
        ip("link add w1 type veth peer name w1p");
        ip("link set w1 up");
        ip("link set w1p up");
        let bpffs = Bpffs::mount();
        let tables = Tables::open(&limits, &bpffs.path()).unwrap_or_else(|e| panic!("{e}"));
        let device = ifindex("w1");
        let node = Self { tables, device, entry: entry(1), limits, bpffs };
        node.tables.write_generation(&generation(1)).unwrap();
        node.switch();
        node.own(&node.entry, device, 1);
        node.tables.set_node_addresses(&[GATEWAY4, GATEWAY6, "192.168.9.1"].map(addr).into()).unwrap();
        let subnets = ["10.1.0.0/24", "fd00:1::/64"].map(|s| s.parse().unwrap()).to_vec();
        node.tables.set_subnets(&[(NETWORK, subnets)].into()).unwrap();
        node
    }

    pub(crate) fn own(&self, entry: &WorkloadEntry, device: u32, number: u8) {
        let last = u16::from(number) + 1;
        let address = |address: String, handle: String| Address { address: addr(&address), handle: addr(&handle) };
        let own = [
            address(format!("10.1.0.{last}"), format!("198.18.0.{number}")),
            address(format!("fd00:1::{last}"), format!("fd74:6769::{number}:1")),
            address(format!("fe80::{last}"), format!("fd74:6769::{number}:2")),
        ];
        self.tables.set_addresses(&[PortAddresses { ifindex: device, entry: *entry, addresses: &own }]).unwrap();
    }

    /// Takes `entry` into use as it is.
    pub(crate) fn switch(&self) {
        self.tables.switch(self.device, &self.entry).unwrap();
    }

    /// Changes the entry, raises the epoch, takes it into use.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut WorkloadEntry)) {
        change(&mut self.entry);
        self.entry.epoch += 1;
        self.switch();
    }

    /// One frame, and why it passed or not: every run moves exactly one counter by one.
    pub(crate) fn reason_at(&self, program: Program, frame: &[u8], device: u32, entered_by: u32) -> Reason {
        let before = self.counts();
        self.tables.try_frame(program, frame, device, entered_by).unwrap();
        let after = self.counts();
        let moved: Vec<_> = after.iter().filter(|(reason, n)| before[reason] != **n).collect();
        assert_eq!(moved.len(), 1, "{moved:?}");
        assert_eq!(*moved[0].1, before[moved[0].0] + 1);
        Reason::from_number(*moved[0].0).unwrap()
    }

    pub(crate) fn sends(&self, frame: &[u8]) -> Reason {
        self.reason_at(Program::FromWorkload, frame, self.device, 0)
    }

    /// A frame to the workload, from a device that is nobody's in particular.
    pub(crate) fn receives(&self, frame: &[u8]) -> Reason {
        self.reason_at(Program::ToWorkload, frame, self.device, 1)
    }

    pub(crate) fn receives_by(&self, frame: &[u8], entered_by: u32) -> Reason {
        self.reason_at(Program::ToWorkload, frame, self.device, entered_by)
    }

    pub(crate) fn serves(&self, frame: &[u8]) -> Reason {
        self.reason_at(Program::FromService, frame, 0, 0)
    }

    pub(crate) fn counts(&self) -> BTreeMap<u8, u64> {
        self.tables.counters().unwrap().into_iter().map(|c| (c.reason as u8, c.packets)).collect()
    }

    /// The workload resolved NAME to an address; it may still be used for `left`.
    pub(crate) fn learn(&self, address: &str, left: Duration) {
        self.learn_all(address, &[NAME], left);
    }

    /// The same with several names, in the order of their slots.
    pub(crate) fn learn_all(&self, address: &str, names: &[NameId], left: Duration) {
        let slot = |&name: &NameId| LearnedSlot { name, expires: boot_time() + left };
        let slots: Vec<_> = names.iter().map(slot).collect();
        self.tables.learn(WorkloadId(1), addr(address), &slots).unwrap();
    }
}

pub(crate) fn entry(id: u32) -> WorkloadEntry {
    WorkloadEntry {
        id: WorkloadId(id),
        network: NETWORK,
        epoch: 1,
        generation: 1,
        egress_policy: EGRESS,
        ingress_policy: INGRESS,
        sealed: false,
        external: false,
        open: false,
        probes: false,
        rejects: false,
        flow_quota: 100,
        mac: MAC,
        gateway_mac: GATEWAY_MAC,
        bridge: None,
        masqueraded: false,
    }
}

pub(crate) fn rule(
    policy: PolicyId,
    class: ClassId,
    protocol: Option<u8>,
    ports: (u16, u8),
    action: Action,
    rule: RuleId,
) -> RuleEntry {
    let ports = PortPrefix { port: ports.0, length: ports.1 };
    let (tier, names) = (Tier::Namespace, NamesFirst::None);
    RuleEntry { policy, class, protocol, ports, action, rule, tier, names, audit: None, verify: false, shown: false }
}

/// See [`Node::with`]; policies of generation `n` are EGRESS + 10 (n - 1) and INGRESS + 10 (n - 1).
pub(crate) fn generation(number: u32) -> Generation {
    let (egress, ingress) = (PolicyId(EGRESS.0 + 10 * (number - 1)), PolicyId(INGRESS.0 + 10 * (number - 1)));
    let prefixes = [("10.9.0.0/16", NEAR), ("fd00:9::/32", NEAR), ("10.9.66.0/24", BANNED), ("fd00:9:66::/48", BANNED)];
    let rules = vec![
        rule(egress, NEAR, Some(6), (80, 13), Action::Allow, ALLOW),
        rule(egress, NEAR, Some(6), (443, 16), Action::Allow, ALLOW),
        rule(egress, NEAR, Some(17), (5000, 16), Action::Allow, ALLOW),
        rule(egress, NEAR, Some(132), (3868, 16), Action::Allow, ALLOW),
        rule(egress, NEAR, Some(1), (0, 0), Action::Allow, ALLOW),
        rule(egress, NEAR, Some(58), (0, 0), Action::Allow, ALLOW),
        rule(egress, BANNED, None, (0, 0), Action::Deny, DENY),
        rule(egress, NAME_CLASS, Some(6), (443, 16), Action::Allow, BY_NAME),
        rule(ingress, NEAR, Some(6), (8080, 16), Action::Allow, ALLOW),
        rule(ingress, NEAR, Some(17), (5000, 16), Action::Allow, ALLOW),
        rule(ingress, NEAR, Some(132), (3868, 16), Action::Allow, ALLOW),
        rule(ingress, BANNED, None, (0, 0), Action::Deny, DENY),
    ];
    let prefixes = prefixes.iter().map(|(prefix, class)| (prefix.parse().unwrap(), *class)).collect();
    Generation { number, prefixes, rules, ..Generation::default() }
}

/// A generation under which nothing is allowed.
pub(crate) fn nothing(number: u32) -> Generation {
    Generation { number, ..Generation::default() }
}

/// Whole states of all policies, beside each other.
pub(crate) trait Generations {
    fn write_generation(&self, generation: &Generation) -> Result<(), TableError>;

    /// Its prefixes, and what these policies have.
    fn retire(&self, generation: &Generation, policies: &BTreeSet<PolicyId>) -> Result<(), TableError>;
}

impl Generations for Tables {
    fn write_generation(&self, generation: &Generation) -> Result<(), TableError> {
        self.apply(&Step { lines: generation.rules.clone(), prefixes: prefixes(generation, true), ..Step::default() })
    }

    fn retire(&self, generation: &Generation, policies: &BTreeSet<PolicyId>) -> Result<(), TableError> {
        self.apply(&Step { prefixes: prefixes(generation, false), ..Step::default() })?;
        let rules = generation.rules.iter().copied().filter(|rule| policies.contains(&rule.policy));
        self.remove_rules(&rules.collect::<Vec<_>>())?;
        self.remove_name_classes(&policies.iter().map(|policy| (*policy, NAME)).collect::<Vec<_>>())
    }
}

fn prefixes(generation: &Generation, there: bool) -> Vec<PrefixWrite> {
    let write = |view: u32, (network, class): &(ipnetwork::IpNetwork, ClassId)| PrefixWrite {
        view,
        network: *network,
        class: there.then_some(*class),
    };
    generation.tries().flat_map(|(view, own)| own.iter().map(move |own| write(view, own))).collect()
}

/// Asks until it is so, for at most ten seconds (the second kernel is emulated).
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn policies(ids: &[PolicyId]) -> BTreeSet<PolicyId> {
    ids.iter().copied().collect()
}
