//! Namespaces to test in: a node, workloads, and what can be seen and sent there.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use config::names::Name;
use config::resource::{Gateway, Network, Snat, Subnet, WorkloadTraffic};
use gateway::segmentation::attachment::{self, Request};
use gateway::segmentation::ipam::Cursor;
use gateway::segmentation::{Desired, Node, Seal, Segmentation};
use gateway::sys::namespace_helper::{HelperProcess, NamespaceHelper};
use gateway::sys::netns::Netns;
use gateway::workload::{Mac, Workload, WorkloadId};
use tokio::io::AsyncWriteExt;

/// A wait's bound: emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long a connection may take, on an emulated machine too.
const REPLY: Duration = Duration::from_secs(4);

/// A named network namespace, deleted on drop.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tgseg{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        must(&["ip", "netns", "add", &name]);
        let node = Self { name };
        // a namespace begins with the settings of the machine's first, which may route
        node.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")).join().unwrap().unwrap();
        node
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// `ip -n NAME …`, which must succeed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let mut command = vec!["ip", "-n", &self.name];
        command.extend(arguments.split_whitespace());
        must(&command)
    }

    /// A command inside, which must succeed.
    pub(crate) fn exec(&self, command: &str) -> String {
        let mut all = vec!["ip", "netns", "exec", &self.name];
        all.extend(command.split_whitespace());
        must(&all)
    }

    /// A line for the shell inside; what it prints.
    pub(crate) fn shell(&self, line: &str) -> String {
        let output = Command::new("ip").args(["netns", "exec", &self.name, "sh", "-c", line]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `work` on a thread inside.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = self.path();
        std::thread::spawn(move || {
            Netns::open(&path).unwrap().enter().unwrap();
            work()
        })
    }

    /// Whether a TCP connection from here to a listener that is opened at `to` in `there` carries data.
    pub(crate) fn reaches(&self, there: &Self, to: &str) -> bool {
        let to: IpAddr = to.parse().unwrap();
        let listening = there.inside(move || TcpListener::bind(SocketAddr::new(to, 0)).unwrap());
        let listener = listening.join().unwrap();
        let address = listener.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                if let Ok(Ok((mut stream, _))) = tokio::time::timeout(REPLY, listener.accept()).await {
                    let _ = stream.write_all(b"yes").await;
                }
            });
        });
        let asking = self.inside(move || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&address, REPLY)?;
            stream.set_read_timeout(Some(REPLY))?;
            let mut heard = String::new();
            stream.read_to_string(&mut heard)?;
            Ok(heard == "yes")
        });
        let heard = asking.join().unwrap().unwrap_or(false);
        answering.join().unwrap();
        heard
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Writes down what it is asked, and seals nothing; can be told to fail.
#[derive(Default)]
pub(crate) struct Sealed {
    pub(crate) calls: Mutex<Vec<(u32, WorkloadId)>>,
    pub(crate) gone: Mutex<Vec<(u32, WorkloadId)>>,
    pub(crate) fail: Mutex<bool>,
    /// Looks at a host side's programs; each look at everything has one for every host side.
    pub(crate) kept: AtomicU32,
    /// Whether each link was down when it was sealed.
    pub(crate) was_down: Mutex<Vec<bool>>,
    /// Interfaces of others that are closed.
    pub(crate) closed: Mutex<BTreeSet<u32>>,
    /// Do not look at the links.
    quiet: bool,
}

impl Sealed {
    /// One that runs no commands, for a thread that may not.
    pub(crate) fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }
}

impl Seal for Sealed {
    fn seal(&self, host_ifindex: u32, workload: &Workload, _: Mac) -> Result<(), String> {
        if *self.fail.lock().unwrap() {
            return Err("no programs today".to_owned());
        }
        let links = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(links.contains(workload.host_interface.as_str()), "sealed in the node's namespace");
        self.calls.lock().unwrap().push((host_ifindex, workload.id));
        if self.quiet {
            return Ok(());
        }
        let up = must(&["ip", "link", "show", "up", "dev", workload.host_interface.as_str()]);
        self.was_down.lock().unwrap().push(up.is_empty());
        Ok(())
    }

    fn keep(&self, host_ifindex: u32, workload: &Workload) -> Result<bool, String> {
        assert!(self.calls.lock().unwrap().contains(&(host_ifindex, workload.id)), "kept before it was sealed");
        self.kept.fetch_add(1, Ordering::Relaxed);
        Ok(false)
    }

    fn unseal(&self, host_ifindex: u32, workload: &Workload) {
        self.gone.lock().unwrap().push((host_ifindex, workload.id));
    }

    fn close(&self, ifindex: u32) -> Result<(), String> {
        self.closed.lock().unwrap().insert(ifindex);
        Ok(())
    }

    fn open(&self, ifindex: u32) {
        self.closed.lock().unwrap().remove(&ifindex);
    }
}

/// A node with segmentation running in it.
pub(crate) struct World {
    pub(crate) node: Namespace,
    pub(crate) segmentation: Segmentation,
    pub(crate) seal: Arc<Sealed>,
    pub(crate) desired: Desired,
    pub(crate) cursor: Cursor,
}

impl World {
    /// Runs a test in a fresh node, on a thread inside it.
    pub(crate) fn run(test: impl AsyncFnOnce(World) + Send + 'static) {
        let node = Namespace::new();
        node.ip("link set lo up");
        let path = node.path();
        let work = std::thread::spawn(move || {
            Netns::open(&path).unwrap().enter().unwrap();
            let process = HelperProcess::start_program(Path::new(env!("CARGO_BIN_EXE_gateway"))).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let world = Self::open(node, process.connect().unwrap(), Desired::default(), Arc::default());
                test(world).await;
            });
        });
        if let Err(panic) = work.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn open(node: Namespace, helper: NamespaceHelper, mut desired: Desired, seal: Arc<Sealed>) -> Self {
        desired.node = Node { seed: "test".to_owned(), edge: vec!["0.0.0.0:443".parse().unwrap()], ..Node::default() };
        let segmentation = Segmentation::open(helper, Arc::clone(&seal) as Arc<dyn Seal>).unwrap();
        Self { node, segmentation, seal, desired, cursor: Cursor::default() }
    }

    /// As after `kill -9`: another process with the same store.
    pub(crate) fn restart(self) -> Self {
        let Self { node, segmentation, seal, desired, cursor } = self;
        drop(segmentation);
        let process = HelperProcess::start_program(Path::new(env!("CARGO_BIN_EXE_gateway"))).unwrap();
        Self { cursor, ..Self::open(node, process.connect().unwrap(), desired, seal) }
    }

    pub(crate) async fn apply(&mut self, networks: &[Network]) -> Result<(), gateway::segmentation::Error> {
        let networks: BTreeMap<Name, Network> = networks.iter().map(|n| (n.name.clone(), n.clone())).collect();
        let desired = Desired { networks, ..self.desired.clone() };
        self.segmentation.apply(&desired).await?;
        self.desired = desired;
        Ok(())
    }

    /// A workload for that namespace, not attached yet.
    pub(crate) fn prepare(&mut self, id: u32, network: &str, netns: &Path) -> Workload {
        prepare(&self.desired, id, network, netns, &mut self.cursor)
    }

    /// A namespace with a workload in it, attached.
    pub(crate) async fn attach(&mut self, id: u32, network: &str) -> (Namespace, Workload) {
        let home = Namespace::new();
        let workload = self.prepare(id, network, &home.path());
        self.segmentation.attach(&workload).await.unwrap();
        self.desired.workloads.insert(workload.id, workload.clone());
        (home, workload)
    }

    pub(crate) async fn detach(&mut self, id: WorkloadId) {
        self.segmentation.detach(id).await.unwrap();
        self.segmentation.departed(id).await;
        self.desired.workloads.remove(&id);
    }

    /// The plan for what is desired, as text.
    pub(crate) async fn plan(&self) -> String {
        self.segmentation.plan(&self.desired).await.unwrap().to_string()
    }

    /// Names of the node's links but `lo`.
    pub(crate) fn links(&self) -> Vec<String> {
        let text = self.node.ip("-o link show");
        let name = |line: &str| line.split(": ").nth(1).unwrap().split('@').next().unwrap().to_owned();
        text.lines().map(name).filter(|name| name != "lo" && !name.starts_with("ifb")).collect()
    }
}

/// A workload as the first that was ever made with its desired state.
pub(crate) fn workload_for(desired: &Desired, id: u32, network: &str, netns: &Path) -> Workload {
    prepare(desired, id, network, netns, &mut Cursor::default())
}

fn prepare(desired: &Desired, id: u32, network: &str, netns: &Path, cursor: &mut Cursor) -> Workload {
    let network = &desired.networks[&network.parse::<Name>().unwrap()];
    let request = Request {
        id: WorkloadId(id),
        namespace: "shop".parse().unwrap(),
        name: format!("web-{id}").parse().unwrap(),
        labels: BTreeMap::new(),
        ports: Default::default(),
        netns: netns.to_owned(),
        guest_interface: None,
        wanted: Vec::new(),
        former: Vec::new(),
        mac: None,
        cni: None,
    };
    let handles = ("198.18.0.0/15".parse().unwrap(), "fd74:6769::/64".parse().unwrap());
    attachment::prepare(request, network, desired.workloads.values(), "test", handles, cursor).unwrap()
}

pub(crate) fn network(name: &str, subnets: &[(&str, Option<&str>)]) -> Network {
    let subnet = |(cidr, gateway): &(&str, Option<&str>)| Subnet {
        cidr: cidr.parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        range: None,
        exclude: Vec::new(),
    };
    Network {
        name: name.parse().unwrap(),
        adopt: None,
        reservations: Vec::new(),
        hold: None,
        vlan: None,
        subnets: subnets.iter().map(subnet).collect(),
        gateway: Gateway::Node,
        snat: Snat::Masquerade,
        workload_traffic: WorkloadTraffic::Open,
        dns: None,
        mtu: None,
    }
}

pub(crate) fn dual(name: &str, number: u8) -> Network {
    let v4 = (format!("10.{number}.0.0/24"), format!("10.{number}.0.1"));
    let v6 = (format!("fd00:{number}::/64"), format!("fd00:{number}::1"));
    network(name, &[(&v4.0, Some(&v4.1)), (&v6.0, Some(&v6.1))])
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn must(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
