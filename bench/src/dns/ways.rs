//! Ways from a client to `unbound`, which has all names and is asked for by all: through `dnsmasq`, through Tidegate, and by
//! the client itself.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use integration::manifests::{name_rule, policy};
use integration::namespace::Namespace;
use integration::peers::query::Kind;
use integration::process::{Background, output_with_input};
use integration::traffic::Target;
use integration::wait::wait_until;

use crate::lane::{Gateway, Lane, SINK, TCP_PORT};

/// Names that are kept: `n<i>.example.com`, for an hour.
pub(crate) const KEPT: u32 = 256;
/// Zones of names that are new each time: all that is below `z<i>.many.example.com` has [`address`] `i`, for a minute.
pub(crate) const ZONES: u32 = 4096;

/// For people.
pub(crate) const RAISED: &str =
    "Tidegate's `[limits]` here: learned 1048576, a million questions a second of one workload, and as many lookups";
/// As no budget of a workload may cut the load, nor the table be full.
pub(super) const LIMITS: &str =
    "[limits]\nlearned = 1048576\ndns_queries_per_second = 1000000\ndns_lookups_per_second = 1000000\n";
/// One network with one subnet.
pub(super) const SUBNETS: &str = "    - { cidr: 10.100.0.0/24, gateway: 10.100.0.1 }\n";

/// Where names lead: two million addresses of the sink, which stand for anybody's.
const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const PREFIX: u8 = 11;
/// The node, as clients see it.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);
/// Answers that `dnsmasq` keeps, and questions that it may have open.
const ROOM: u32 = 10_000;

/// A lane whose client asks for names.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Whom the client asks.
    pub(crate) server: Ipv4Addr,
    /// The process that answers; `None` where that is `unbound` itself.
    pub(crate) daemon: Option<u32>,
    pub(crate) unbound: Background,
    /// Kept while it runs.
    _process: Option<Background>,
    pub(crate) lane: Lane,
}

/// The client asks `unbound`, through a node that only routes.
pub(crate) fn direct() -> Way {
    let lane = Lane::plain();
    let unbound = unbound(&lane.sink, &lane.folder());
    Way { name: "unbound, direct", server: SINK, daemon: None, unbound, _process: None, lane }
}

/// The client asks the node's `dnsmasq`, and the node lets through what it put into a set.
pub(crate) fn dnsmasq() -> Way {
    let lane = Lane::routed("dnsmasq", |node| {
        let said = output_with_input(node.command("nft").args(["-f", "-"]), &set());
        assert!(said.success(), "nft: {}", said.stderr);
    });
    let unbound = unbound(&lane.sink, &lane.folder());
    let mut command = lane.node.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
    ]);
    command.arg(format!("--listen-address={NODE}")).args(["--bind-interfaces", "--log-facility=-"]);
    command.arg(format!("--server={SINK}")).arg("--nftset=/example.com/4#ip#bench#names");
    command.arg(format!("--cache-size={ROOM}")).arg(format!("--dns-forward-max={ROOM}"));
    let mut process = lane.node.start("dnsmasq", &mut command);
    wait_until("dnsmasq listens", Duration::from_secs(10), || {
        assert!(process.is_running(), "dnsmasq ended: {}", process.log());
        lane.node.listens((NODE, 53).into())
    });
    Way { name: "dnsmasq", server: NODE, daemon: Some(process.pid()), unbound, _process: Some(process), lane }
}

/// The client is a workload that may reach what these names lead to.
pub(crate) fn tidegate() -> Way {
    let gateway = Gateway::start_with(SUBNETS, "None", LIMITS);
    let unbound = unbound(&gateway.sink, &gateway.world.folder().join("bench"));
    let daemon = gateway.daemon.process().map(Background::pid);
    let lane = Lane::of(gateway, &policy("bench", "names", &rules()));
    Way { name: "Tidegate", server: NODE, daemon, unbound, _process: None, lane }
}

/// All names below `example.com`, at one port.
pub(super) fn rules() -> String {
    format!("  allow:\n{}", name_rule(&["*.example.com"], &format!("[ {{ protocol: TCP, port: {TCP_PORT} }} ]")))
}

/// Where a name with that number leads.
pub(super) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST) | number)
}

/// The sink has all addresses that names lead to.
pub(super) fn own_addresses(sink: &Namespace) {
    sink.ip(&format!("route add local {FIRST}/{PREFIX} dev lo"));
}

impl Way {
    /// What a name leads to is closed before it is looked up, and open after.
    pub(crate) fn opens_what_it_answers(&self) {
        let listener = self.lane.sink.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TCP_PORT)));
        let listener = listener.expect("a listener in the sink");
        thread::spawn(move || listener.incoming().take(1).for_each(drop));
        let to = Target::Tcp((address(0), TCP_PORT).into());
        self.lane.client.must_not_reach(to);
        let found = self.lane.client.look_up(self.server.into(), "first.z0.many.example.com", Kind::A);
        assert_eq!(found, address(0), "{}", self.name);
        self.lane.client.must_reach(to);
    }
}

fn set() -> String {
    format!(
        "table ip bench {{\n  set names {{ type ipv4_addr; flags timeout; timeout 1h; }}\n  chain forward {{\n    \
         type filter hook forward priority 0; policy drop;\n    ct state established,related accept\n    \
         ip daddr @names tcp dport {TCP_PORT} accept\n  }}\n}}\n"
    )
}

/// Starts it on the sink's address. It says nothing of the questions that come, and asks nobody.
fn unbound(sink: &Namespace, folder: &Path) -> Background {
    own_addresses(sink);
    fs::create_dir_all(folder).expect("a folder for unbound");
    let mut text = format!(
        "server:\n  directory: \"{}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  \
         num-threads: 1\n  module-config: \"iterator\"\n  root-hints: \"\"\n  trust-anchor-signaling: no\n  minimal-responses: yes\n  \
         interface: {SINK}\n  access-control: 0.0.0.0/0 allow\n  so-rcvbuf: 4m\n  local-zone: \"example.com.\" static\n",
        folder.display()
    );
    for number in 0..KEPT {
        let _infallible = writeln!(text, "  local-data: \"n{number}.example.com. 3600 A {}\"", address(ZONES + number));
    }
    for number in 0..ZONES {
        let zone = format!("z{number}.many.example.com.");
        let data = format!("{zone} 60 A {}", address(number));
        let _infallible = writeln!(text, "  local-zone: \"{zone}\" redirect\n  local-data: \"{data}\"");
    }
    text.push_str("remote-control:\n  control-enable: no\n");
    let file = folder.join("unbound.conf");
    fs::write(&file, text).expect("unbound.conf");
    let mut process = sink.start("unbound", sink.command("unbound").arg("-d").arg("-c").arg(&file));
    wait_until("unbound listens", Duration::from_secs(10), || {
        assert!(process.is_running(), "unbound ended: {}", process.log());
        sink.listens((SINK, 53).into())
    });
    process
}
