//! A real upstream (unbound), a composition that only takes notes, and `dig` as workload.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use config::names::{DnsName, InterfaceName};
use gateway::egress::dns::{Limits, Permit, Resolution, Server};
use gateway::egress::tables::answers::Kept;
use gateway::service::Service;
use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

use crate::service_world::{World, until};

/// Workloads that are known, by handle.
pub(crate) const V4: &str = "198.18.0.10";
pub(crate) const V6: &str = "fd74:6769::10";
/// A handle that nobody has.
pub(crate) const NOBODY: &str = "198.18.0.99";
/// Where unbound listens, in the node's namespace.
pub(crate) const UPSTREAM: &str = "192.0.2.53:53";

const ZONE: &str = "\
$TTL 300
@ SOA ns.example.com. admin.example.com. 1 3600 600 86400 60
@ NS ns.example.com.
ns A 192.0.2.53
www 60 A 203.0.113.10
www 90 AAAA 2001:db8:1::10
www 300 TXT \"hello\"
www 300 HTTPS 1 . alpn=h2 ipv4hint=203.0.113.10
app 300 CNAME mid.example.com.
mid 20 CNAME edge.example.net.
odd 300 TYPE65280 \\# 4 0A0B0C0D
hidden 300 TYPE65 \\# 34 00010000000004000100050001000302683200040004CB00710A00050004DEADBEEF
mail 300 MX 10 rebind.example.com.
mail 300 MX 20 www.example.com.
many 300 A 203.0.113.1
*.wild 300 A 203.0.113.77
rebind 300 A 203.0.113.66
rebind 300 A 127.0.0.1
hinted 300 HTTPS 1 . ipv4hint=169.254.169.254
";
const OTHER_ZONE: &str = "\
$TTL 300
@ SOA ns.example.net. admin.example.net. 1 3600 600 86400 60
@ NS ns.example.net.
ns A 192.0.2.53
edge 600 A 203.0.113.20
edge 600 A 203.0.113.21
";

/// A program that ends with the test.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts unbound on `address`, in a namespace that `ip netns` knows, with the zones above and `www` as given.
pub(crate) fn unbound(world: &World, netns: &str, address: &str, www: &str) -> Running {
    let dir = world.dir.join(format!("unbound-{netns}"));
    fs::create_dir_all(&dir).unwrap();
    let many: String = (2..=120).map(|n| format!("many 300 A 203.0.113.{n}\n")).collect();
    fs::write(dir.join("com"), ZONE.replace("203.0.113.10\nwww 90", &format!("{www}\nwww 90")) + &many).unwrap();
    fs::write(dir.join("net"), OTHER_ZONE).unwrap();
    let at = dir.display();
    let zone = |name: &str, file| {
        format!("auth-zone:\n name: {name}.\n zonefile: {at}/{file}\n for-downstream: no\n for-upstream: yes\n")
    };
    let text = format!(
        "server:\n interface: {address}\n access-control: 0.0.0.0/0 allow\n username: \"\"\n chroot: \"\"\n directory: \"{at}\"\n \
         pidfile: \"{at}/pid\"\n do-daemonize: no\n use-syslog: no\n logfile: \"{at}/log\"\n module-config: \"iterator\"\n minimal-responses: no\n do-ip6: no\n \
         num-threads: 1\n outgoing-range: 512\n num-queries-per-thread: 4096\n so-rcvbuf: 4m\nremote-control:\n control-enable: no\n{}{}",
        zone("example.com", "com"),
        zone("example.net", "net"),
    );
    fs::write(dir.join("conf"), text).unwrap();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg("unbound").arg("-c").arg(dir.join("conf"));
    let running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let probe = format!("dig +short +time=1 +tries=1 @{address} www.example.com | grep -q '{www}'");
    for _attempt in 0..50 {
        let asked = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{netns}"))
            .args(["sh", "-c", &probe])
            .status()
            .unwrap();
        if asked.success() {
            return running;
        }
    }
    panic!("unbound does not answer: {}", fs::read_to_string(dir.join("log")).unwrap_or_default());
}

/// What the composition would be: here it allows names of a few domains, and notes what is learned.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) upstreams: Mutex<Vec<SocketAddr>>,
    pub(crate) device: Mutex<Option<InterfaceName>>,
    pub(crate) learned: Mutex<BTreeSet<(IpAddr, String, IpAddr, u32)>>,
    pub(crate) failing: Mutex<Option<String>>,
    /// `Some(n)`: learning waits, and n answers wait so far.
    gate: Mutex<Option<usize>>,
    moved: Condvar,
}

impl Notes {
    pub(crate) fn shut(&self) {
        *self.gate.lock().unwrap() = Some(0);
    }

    pub(crate) fn open(&self) {
        *self.gate.lock().unwrap() = None;
        self.moved.notify_all();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.gate.lock().unwrap().unwrap_or(0)
    }

    /// What `asker` learned under a name, with TTLs.
    pub(crate) fn learned(&self, asker: &str, name: &str) -> Vec<(String, u32)> {
        let asker: IpAddr = asker.parse().unwrap();
        let learned = self.learned.lock().unwrap();
        learned
            .iter()
            .filter(|(who, what, ..)| *who == asker && what == name)
            .map(|(_, _, address, ttl)| (address.to_string(), *ttl))
            .collect()
    }

    /// How many addresses are open, each for one asker and name.
    pub(crate) fn pairs(&self) -> usize {
        let learned = self.learned.lock().unwrap();
        learned.iter().map(|(asker, name, address, _)| (asker, name, address)).collect::<BTreeSet<_>>().len()
    }

    fn answer(&self, asker: IpAddr, allowed: bool) -> Permit {
        let known = [V4, V6, "198.18.0.11"].map(|text| text.parse::<IpAddr>().unwrap());
        if !known.contains(&asker) {
            return Permit::Unknown;
        }
        if !allowed {
            return Permit::Refused { why: "no rule of shop/shop-egress allows this name".to_owned() };
        }
        Permit::Allowed {
            upstreams: self.upstreams.lock().unwrap().iter().map(|server| (*server).into()).collect(),
            device: self.device.lock().unwrap().clone(),
        }
    }
}

impl Resolution for Notes {
    fn account(&self, asker: IpAddr) -> Option<u32> {
        let accounts = [(V4, 1), (V6, 1), ("198.18.0.11", 2)];
        accounts.into_iter().find(|(handle, _)| handle.parse() == Ok(asker)).map(|(_, account)| account)
    }

    fn held_back(&self, _account: u32) {}

    fn permit(&self, asker: IpAddr, name: &DnsName, _qtype: u16) -> Permit {
        self.answer(asker, name.as_str().ends_with("example.com"))
    }

    fn permit_unnamed(&self, asker: IpAddr, _qtype: u16) -> Permit {
        self.answer(asker, false)
    }

    /// Those of one workload are.
    fn reads_handshakes(&self, asker: IpAddr, _name: Option<&DnsName>) -> bool {
        self.account(asker) == Some(1)
    }

    /// These tests' policies speak of no address, so that link-local ones are closed.
    fn misled(&self, _asker: IpAddr, addresses: &[IpAddr]) -> Option<String> {
        let closed = addresses.iter().find(|address| matches!(address, IpAddr::V4(v4) if v4.is_link_local()));
        closed.map(|address| format!("no rule of shop/shop-egress speaks of {address}"))
    }

    fn learn(&self, asker: IpAddr, name: &DnsName, answers: &[(IpAddr, u32)]) -> Result<(), String> {
        let mut gate = self.gate.lock().unwrap();
        if let Some(waiting) = gate.as_mut() {
            *waiting += 1;
            drop(self.moved.wait_while(gate, |gate| gate.is_some()).unwrap());
        }
        if let Some(why) = self.failing.lock().unwrap().clone() {
            return Err(why);
        }
        self.learned
            .lock()
            .unwrap()
            .extend(answers.iter().map(|(address, ttl)| (asker, name.to_string(), *address, *ttl)));
        Ok(())
    }

    /// There is no kernel here.
    fn rules(&self) -> Option<NonZeroU64> {
        None
    }

    fn keep(&self, _: IpAddr, _: NonZeroU64, _: &DnsName, _: &[(IpAddr, u32)], _: &Kept) {}
}

/// A node with a running server, its notes, and an upstream.
pub(crate) struct Node {
    pub(crate) world: World,
    pub(crate) service: Service,
    pub(crate) notes: Arc<Notes>,
    pub(crate) limits: Limits,
    pub(crate) _upstream: Running,
}

impl Node {
    pub(crate) fn new() -> Self {
        let world = World::new();
        world.run("ip addr add 192.0.2.53/32 dev lo");
        let upstream = unbound(&world, &world.name, "192.0.2.53", "203.0.113.10");
        let service = world.inside(|| Service::start(&world.config()).unwrap());
        let handles = [V4, "198.18.0.11", NOBODY, V6].map(|text| text.parse::<IpAddr>().unwrap());
        world.be_workload(&handles);
        let notes = Arc::new(Notes { upstreams: Mutex::new(vec![UPSTREAM.parse().unwrap()]), ..Notes::default() });
        let limits = Limits::new(world.config().handles_v4, world.config().handles_v6);
        Self { world, service, notes, limits, _upstream: upstream }
    }

    /// Runs a test beside the server, on a runtime of the node's namespace.
    pub(crate) fn serve<T: Send>(&self, test: impl AsyncFnOnce(&Self) -> T + Send) -> T {
        self.world.inside(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
            let output = runtime.block_on(async {
                let resolution = Arc::clone(&self.notes) as Arc<dyn Resolution>;
                let _server =
                    Server::start(&self.service, Handle::current(), resolution, self.limits.clone()).await.unwrap();
                test(self).await
            });
            runtime.shutdown_background();
            output
        })
    }

    /// `dig` as the first workload (or as whom `-b` says).
    pub(crate) async fn dig(&self, arguments: &str) -> String {
        let source = match arguments {
            chosen if chosen.contains("-b ") => String::new(),
            v6 if v6.contains("@2001") || v6.contains("@fe80") => format!("-b {V6}"),
            _ => format!("-b {V4}"),
        };
        let output = self.spawn(&format!("dig +tries=1 +time=8 {source} {arguments}"));
        let output = tokio::task::block_in_place(|| output.wait_with_output()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a shell command in the node's namespace.
    pub(crate) fn spawn(&self, command: &str) -> Child {
        Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.world.name))
            .args(["sh", "-c", command])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) async fn until_learning(&self, count: usize) {
        until("answers that wait to be learned", async || self.notes.waiting() >= count).await;
    }
}

/// Within a bound that is well below a stub resolver's patience.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.parse::<Name>().unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

pub(crate) fn framed(id: u16, name: &str) -> Vec<u8> {
    let bytes = query(id, name);
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

pub(crate) async fn read_one(stream: &mut tokio::net::TcpStream) -> Message {
    let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}
