//! An address set of a million prefixes: until it is live, what it costs in memory, until one changed prefix is obeyed,
//! and new flows to random addresses of it; against the same interval set in nftables where there is one.
//!
//! Every workload has a namespace and a policy of its own, which names the set.

use std::fmt::{self, Write as _};
use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::frame::{Mac, ethernet, udp};
use integration::manifests::{namespace, policy};
use integration::namespace::Namespace;
use integration::process::output;
use integration::site::{Pod, pod};
use integration::sys::packet::{BURST, PacketSocket};
use integration::traffic::Target;
use integration::wait::wait_for;
use integration::world::World;
use serde_json::{Value, json};

use crate::api::Api;
use crate::connects;
use crate::costs::{Program, STACK};
use crate::feed::{BLOCKS, Feed};
use crate::lane::{Gateway, SINK, TCP_PORT, UDP_PORT, programs};
use crate::packets::drop_on_arrival;
use crate::probe::Probe;
use crate::report::{Measurement, Subject};
use crate::statistics::{Median, median, paired};

/// New flows.
const FLOWS: Subject =
    Subject { title: "new flows a second to random addresses", key: "newFlowsPerSecond", unit: 1e3, suffix: "k/s" };
/// Addresses that new flows go to.
const TARGETS: usize = 65_536;
/// Flows of some slices must fit, and one prefix more than the feed has.
const LIMITS: &str = "[limits]\nflows = 500000\nflows_per_workload = 400000\nset_prefixes = 1100000\n";
/// While new flows are counted they go soon. Not before: the table that large would be walked for stale ones all the time.
const SOON: &str = "[limits]\nother_idle_s = 4\n";
/// First packets that are timed, twice as many as count.
const RUNS: u16 = 4_000;
/// After an answer, for packets that were on their way.
const SETTLED: Duration = Duration::from_millis(3);

/// What is measured.
pub(crate) struct Sizes {
    pub(crate) prefixes: usize,
    pub(crate) workloads: usize,
    /// Both sides load the set so often, in turn.
    pub(crate) rounds: u32,
    pub(crate) changes: usize,
    pub(crate) slices: u32,
    pub(crate) slice: Duration,
}

/// What it took.
pub(crate) struct Prefixes {
    sizes: Sizes,
    /// Seconds, round by round.
    load: [Vec<f64>; 2],
    /// Bytes of kernel memory (`Slab`), of the first round.
    memory: [Vec<f64>; 2],
    /// Milliseconds, ascending: until an added prefix opens, and until a removed one closes.
    added: Vec<f64>,
    removed: Vec<f64>,
    /// Seconds of one `nft add element` to the whole set: one sample, as it takes longer than all else.
    nft_added: f64,
    /// Seconds from the start of a daemon that finds all of it in its store and in the kernel until it answers.
    restart: f64,
    flows: Measurement,
    /// Nanoseconds of a new flow's first packet in the program: of ten prefixes, and of all.
    packet: [Median; 2],
}

/// Measures it.
pub(crate) fn measure(sizes: Sizes) -> Prefixes {
    let feed = Feed::new(sizes.prefixes);
    let mut node = Node::start(sizes.workloads, LIMITS);
    let nftables = Nftables::new(&feed);
    connects::listen(&node.gateway.sink);

    let (mut load, mut memory) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    node.put("full.txt", &feed.lines());
    let (mut added, mut removed, mut nft_added) = (Vec::new(), Vec::new(), f64::NAN);
    for round in 0..sizes.rounds {
        for (side, run) in
            [&(|| node.load("full.txt")) as &dyn Fn() -> f64, &|| nftables.load()].into_iter().enumerate()
        {
            let before = slab();
            load[side].push(run());
            // Later the kernel has memory at hand that it kept.
            if round == 0 {
                memory[side].push(slab() - before);
            }
            match side {
                0 => {
                    // Before the node's memory is that of a million freed elements of nftables.
                    if round == 0 {
                        (added, removed) = node.changes(&feed, sizes.changes);
                    }
                    node.empty();
                }
                _ => {
                    if round + 1 == sizes.rounds {
                        nft_added = nftables.add();
                    }
                    nftables.remove();
                }
            }
        }
    }

    node.put("full.txt", &feed.lines());
    node.load("full.txt");
    let restart = node.restart_with(&soon());
    let few = Node::start(1, &soon());
    few.put(
        "few.txt",
        "0.0.0.0/1\n128.0.0.0/1\n203.0.113.30\n100.64.0.1\n100.64.0.2\n9.9.9.9\n8.8.8.8\n1.1.1.1\n1.0.0.1\n4.4.4.4\n",
    );
    few.apply_set("file: few.txt");
    let rates = {
        let flows = [Flows::new(&few, &feed), Flows::new(&node, &feed)];
        crate::in_turns(sizes.slices, flows.len(), |lane| flows[lane].slice(sizes.slice))
    };
    let flows = Measurement::new(FLOWS, &["10 prefixes", "all prefixes"], &rates);
    let packet = [few.first_packet(&feed), node.first_packet(&feed)];
    Prefixes { sizes, load, memory, added, removed, nft_added, restart, flows, packet }
}

/// A gateway whose workloads may reach what is in the set.
struct Node {
    gateway: Gateway,
    client: Pod,
}

impl Node {
    fn start(workloads: usize, limits: &str) -> Self {
        let gateway = Gateway::start_with("    - { cidr: 10.96.0.0/14, gateway: 10.96.0.1 }\n", "None", limits);
        fs::create_dir_all(gateway.world.folder().join("files/_admin")).expect("the administrators' folder");
        gateway.daemon.netctl().apply(&set("cidrs: []"));
        let numbers: Vec<usize> = (0..workloads).collect();
        // A file has a thousand documents at most.
        for part in numbers.chunks(400) {
            let mut manifests = String::new();
            for number in part {
                let tenant = format!("ns-{number}");
                let rules = "  allow:\n    - sets: [ _admin/feed ]\n";
                let _infallible =
                    write!(manifests, "{}{}", namespace(&tenant, "tenant"), policy(&tenant, "feed", rules));
            }
            gateway.daemon.netctl().apply(&manifests);
        }
        let mut pods = (0..workloads).map(|number| {
            let (tenant, name) = (format!("ns-{number}"), format!("w-{number}"));
            let netns = gateway.world.namespace(&name, None);
            let path = netns.path().to_str().expect("a path of the world is text").to_owned();
            gateway.daemon.netctl().ok(&["attach", &name, "-n", &tenant, "--netns", &path]);
            (tenant, name, netns)
        });
        let (tenant, name, netns) = pods.next().expect("one workload at least");
        let client = pod(&tenant, &name, netns);
        pods.for_each(drop);
        Self { gateway, client }
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.gateway.world.folder().join("files/_admin").join(file), text).expect("a feed's file");
    }

    fn apply_set(&self, spec: &str) {
        self.gateway.daemon.netctl().apply(&set(spec));
    }

    /// Seconds from `netctl apply` until the sink, which is in the file, is reached.
    fn load(&self, file: &str) -> f64 {
        self.client.must_not_reach(Target::Tcp((SINK, TCP_PORT).into()));
        let begin = Instant::now();
        self.apply_set(&format!("file: {file}"));
        self.client.must_reach(Target::Tcp((SINK, TCP_PORT).into()));
        begin.elapsed().as_secs_f64()
    }

    /// Seconds until a daemon that was killed answers again, with these limits.
    fn restart_with(&mut self, limits: &str) -> f64 {
        self.gateway.daemon.kill();
        let file = self.gateway.world.folder().join("gateway.toml");
        let settings = fs::read_to_string(&file).expect("gateway.toml");
        assert!(settings.contains(LIMITS), "{settings}");
        fs::write(&file, settings.replace(LIMITS, limits)).expect("gateway.toml");
        let begin = Instant::now();
        self.gateway.daemon.restart();
        begin.elapsed().as_secs_f64()
    }

    fn empty(&self) {
        self.apply_set("cidrs: []");
    }

    /// Milliseconds until single prefixes that come and go are obeyed by packets of one flow each, ascending.
    fn changes(&self, feed: &Feed, count: usize) -> (Vec<f64>, Vec<f64>) {
        // Only a set that lists its own prefixes is changed in part.
        let listed: String = feed.lines().lines().map(|line| format!("{line}, ")).collect();
        self.apply_listed(&listed);
        // What was freed just before is given back beside it.
        slab();
        let probe = Probe::start(&self.client, &self.gateway.sink);
        let mut api = Api::connect(self.gateway.daemon.netctl().socket());
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for change in 0..count.div_ceil(2) {
            let block = (change % usize::from(BLOCKS)) as u8;
            let prefix = format!("100.64.{block}.0/24");
            probe.aim(Ipv4Addr::new(100, 64, block, 200 + (change / usize::from(BLOCKS) % 50) as u8));
            let begin = probe.watch();
            api.post("patch/addressset", &json!({ "name": "feed", "add": [prefix] }));
            assert_eq!(api.answer()["added"], 1);
            let first = wait_for("a packet to the prefix passes", Duration::from_secs(5), || probe.first());
            added.push((first - begin) as f64 / 1e6);
            let begin = probe.watch();
            api.post("patch/addressset", &json!({ "name": "feed", "remove": [prefix] }));
            assert_eq!(api.answer()["removed"], 1);
            let answered = probe.now();
            thread::park_timeout(SETTLED);
            let last = probe.last();
            assert!(last <= answered, "a packet that was sent after the answer has passed");
            removed.push(last.saturating_sub(begin) as f64 / 1e6);
        }
        added.sort_by(f64::total_cmp);
        removed.sort_by(f64::total_cmp);
        (added, removed)
    }

    /// Nanoseconds that the program takes for the first packet of a flow to random addresses, by `BPF_PROG_TEST_RUN`.
    fn first_packet(&self, feed: &Feed) -> Median {
        let program = Program::open(&programs(&self.gateway.world).expect("pinned programs"), "from_workload");
        let link = self.client.ip_json("link show dev eth0");
        let device = link[0]["link_index"].as_u64().expect("the other end of a pair") as u32;
        // Frames to nobody's MAC are left to the stack: nothing is sent on.
        let (nobody, own) = (Mac([2, 0, 0, 0, 0xee, 1]), self.client.v4.into());
        let frame = |(number, to): (u16, Ipv4Addr)| {
            ethernet(nobody, self.client.mac, 0x0800, &udp((own, 2_000 + number), (to.into(), UDP_PORT), &[0; 18]))
        };
        let frames: Vec<Vec<u8>> = (0..RUNS).zip(feed.addresses(usize::from(RUNS))).map(frame).collect();
        self.gateway.node.enter(|| {
            let took: Vec<f64> = frames.iter().map(|frame| program.run(frame, device, STACK, 1)).collect();
            // The first ones are told, which takes longer, and the caches are warm behind them.
            median(&took[took.len() / 2..])
        })
    }

    /// In parts, as a request has a largest size.
    fn apply_listed(&self, listed: &str) {
        self.empty();
        let mut api = Api::connect(self.gateway.daemon.netctl().socket());
        let all: Vec<&str> = listed.split(", ").filter(|prefix| !prefix.is_empty()).collect();
        for part in all.chunks(500_000) {
            api.post("patch/addressset", &json!({ "name": "feed", "add": part }));
            api.answer();
        }
    }
}

fn soon() -> String {
    LIMITS.replace("[limits]\n", SOON)
}

fn set(spec: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: AddressSet\nmetadata: {{ name: feed }}\nspec: {{ {spec} }}\n"
    )
}

/// The same set in a namespace of its own.
struct Nftables {
    node: Namespace,
    file: String,
    world: World,
}

impl Nftables {
    fn new(feed: &Feed) -> Self {
        let world = World::new();
        let node = world.namespace("node", None);
        let file = world.folder().join("feed.nft");
        fs::write(&file, feed.nft()).expect("a file of rules");
        Self { node, file: file.to_str().expect("a path of the world is text").to_owned(), world }
    }

    /// Seconds of `nft -f`.
    fn load(&self) -> f64 {
        let begin = Instant::now();
        // It takes longer than commands of tests may.
        let status = self.node.command("nft").args(["-f", &self.file]).status().expect("nft");
        assert!(status.success(), "nft in {}: {status}", self.world.name());
        begin.elapsed().as_secs_f64()
    }

    /// Seconds of `nft add element`, of a prefix that the feed does not have.
    fn add(&self) -> f64 {
        let begin = Instant::now();
        let words = ["add", "element", "ip", "bench", "feed", "{ 100.65.0.0/24 }"];
        let status = self.node.command("nft").args(words).status().expect("nft");
        assert!(status.success(), "nft in {}: {status}", self.world.name());
        begin.elapsed().as_secs_f64()
    }

    fn remove(&self) {
        let said = output(self.node.command("nft").args(["delete", "table", "ip", "bench"]));
        assert!(said.success(), "nft: {}", said.stderr);
    }
}

/// Bytes of the kernel's slabs, when they have come to rest.
fn slab() -> f64 {
    let read = || {
        let text = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
        let line = text.lines().find_map(|line| line.strip_prefix("Slab:")).expect("the slabs' line");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
    };
    let mut before = read();
    wait_for("the slabs come to rest", Duration::from_secs(20), || {
        thread::park_timeout(Duration::from_millis(300));
        let now = read();
        let rests = (now - before).abs() < 2e6;
        before = now;
        rests.then_some(now)
    })
}

/// Datagrams to random addresses, each of a flow of its own.
struct Flows<'a> {
    sink: &'a Namespace,
    socket: PacketSocket,
    frames: Vec<Vec<u8>>,
    /// Of the next round through the frames.
    port: AtomicU32,
    next: AtomicU32,
}

impl<'a> Flows<'a> {
    fn new(node: &'a Node, feed: &Feed) -> Self {
        let gateway = wait_for("the client's next hop", Duration::from_secs(5), || {
            node.client.attempt(Target::Udp((SINK, UDP_PORT).into()), Duration::from_millis(50));
            let entries = node.client.ip_json("neigh show 10.96.0.1");
            entries[0]["lladdr"].as_str()?.parse().ok()
        });
        let own = (node.client.v4.into(), 1);
        let frame =
            |to: Ipv4Addr| ethernet(gateway, node.client.mac, 0x0800, &udp(own, (to.into(), UDP_PORT), &[0; 18]));
        let frames = feed.addresses(TARGETS).into_iter().map(frame).collect();
        let socket = node.client.enter(|| PacketSocket::open("eth0", false)).expect("a raw socket of the workload");
        socket.bypass_queue().expect("PACKET_QDISC_BYPASS");
        drop_on_arrival(&node.gateway.sink, "dport");
        Self { sink: &node.gateway.sink, socket, frames, port: AtomicU32::new(20_000), next: AtomicU32::new(0) }
    }

    /// Flows a second whose datagram arrived during one slice.
    fn slice(&self, slice: Duration) -> f64 {
        let before = self.sink.received_frames("eth0");
        let begin = Instant::now();
        while begin.elapsed() < slice {
            let first = self.next.fetch_add(BURST as u32, Ordering::Relaxed) as usize % TARGETS;
            if first == 0 {
                self.port.fetch_add(1, Ordering::Relaxed);
            }
            let port = (self.port.load(Ordering::Relaxed) as u16).to_be_bytes();
            let mut burst = self.frames[first..first + BURST].to_vec();
            // Behind Ethernet and IPv4; without a checksum, as IPv4 lets UDP be.
            for frame in &mut burst {
                frame[34..36].copy_from_slice(&port);
                frame[40..42].fill(0);
            }
            let _sent = self.socket.send_burst(&burst);
        }
        let took = begin.elapsed().as_secs_f64();
        (self.sink.received_frames("eth0") - before) as f64 / took
    }
}

fn at(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

impl Prefixes {
    pub(crate) fn json(&self) -> Value {
        let interval = |m: &Median| json!({ "median": m.value, "low": m.low, "high": m.high });
        let both = |values: &[Vec<f64>; 2]| {
            json!({
                "tidegate": interval(&median(&values[0])),
                "nftables": interval(&median(&values[1])),
                "ratio": interval(&median(&paired(&values[0], &values[1]))),
            })
        };
        let change = |ms: &[f64]| json!({ "p50Ms": at(ms, 0.5), "p99Ms": at(ms, 0.99) });
        json!({
            "prefixes": self.sizes.prefixes,
            "namespaces": self.sizes.workloads,
            "loadSeconds": both(&self.load),
            "memoryBytes": both(&self.memory),
            "added": change(&self.added),
            "removed": change(&self.removed),
            "nftablesAddedSeconds": self.nft_added,
            "restartSeconds": self.restart,
            "newFlowsPerSecond": self.flows.json(),
            "firstPacketNs": { "few": interval(&self.packet[0]), "all": interval(&self.packet[1]) },
        })
    }
}

impl fmt::Display for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { prefixes, workloads, .. } = self.sizes;
        writeln!(f, "\nan address set of {prefixes} prefixes, {workloads} namespaces with a workload each")?;
        let mut row = |what: &str, values: &[Vec<f64>; 2], unit: f64, suffix: &str| {
            let [own, peer] = values.each_ref().map(|values| median(values).value / unit);
            let ratio = median(&paired(&values[0], &values[1]));
            let Median { value, low, high } = ratio;
            writeln!(
                f,
                "  {what:<34} {own:>9.2} {suffix:<3} nftables {peer:>8.2} {suffix:<3} ratio {value:.2} ({low:.2}–{high:.2})"
            )
        };
        row("until it is live", &self.load, 1.0, "s")?;
        row("kernel memory (slabs)", &self.memory, 1e6, "MB")?;
        for (what, ms) in
            [("a prefix added until it passes", &self.added), ("removed until nothing passes", &self.removed)]
        {
            let (p50, p99, count) = (at(ms, 0.5), at(ms, 0.99), ms.len());
            writeln!(f, "  {what:<34} p50 {p50:.2} ms, p99 {p99:.2} ms of {count}, each covering 100 others")?;
        }
        writeln!(f, "  {:<34} {:.2} s, once", "`nft add element`", self.nft_added)?;
        writeln!(f, "  {:<34} {:.2} s, once", "a restart until it answers", self.restart)?;
        write!(f, "{}", self.flows)?;
        let [few, all] = self.packet.map(|packet| packet.value);
        let more = all - few;
        writeln!(
            f,
            "  its first packet in the program: {few:.0} ns of 10 prefixes, {all:.0} ns of all: {more:.0} ns more for the lookup"
        )
    }
}
