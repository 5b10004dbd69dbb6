//! Very many networks on one node, each a bridge with addresses of both families, and a VLAN sub-interface where the kernel has
//! them: by one `netctl apply`, and by one `ip -batch` that makes the same links and polices nothing.
//!
//! The kernel that the others are measured on may be without 8021q; so the same is done under the second kernel, which is
//! emulated: its times are long, and the ratio counts.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use integration::daemon::{Daemon, Settings};
use integration::namespace::Namespace;
use integration::vm::Vm;
use integration::wait::{happens_within, wait_until};
use integration::world::World;
use serde_json::{Value, json};

use crate::processor::process_times;
use crate::report::{Measurement, Subject};

const LANES: [&str; 2] = ["ip -batch", "Tidegate"];
/// A daemon looks at everything once in this time (`segmentation/watch.rs`).
const LOOK: Duration = Duration::from_secs(5);
/// Looks with nothing to do.
const LOOKS: u32 = 4;
/// For what the last turn left behind, and for the machine that is emulated.
const CLEARED: Duration = Duration::from_secs(300);
const EMULATED: Duration = Duration::from_secs(3_000);
/// Before the line with the numbers of the second kernel.
const ANSWER: &str = "many-networks: ";

/// What is measured, and where.
struct Sort {
    wall: Subject,
    user: Subject,
    system: Subject,
    look: Subject,
    memory: Subject,
}

macro_rules! subject {
    ($title:expr, $key:expr, $suffix:expr) => {
        Subject { title: $title, key: $key, unit: 1.0, suffix: $suffix }
    };
}

const LOCAL: Sort = Sort {
    wall: subject!("networks of this node, from nothing: until the command returns", "manyNetworksMs", "ms"),
    user: subject!("  of it, in the daemon's own code", "manyNetworksUserMs", "ms"),
    system: subject!("  of it, in the kernel for the daemon", "manyNetworksSystemMs", "ms"),
    look: subject!("  a look at all of them with nothing to do, CPU", "manyNetworksLookMs", "ms"),
    memory: subject!("  the daemon's memory for each network", "manyNetworksKib", "KiB"),
};
const ON_VLANS: Sort = Sort {
    wall: subject!("the same with a VLAN each, under the second kernel", "manyVlansMs", "ms"),
    user: subject!("  of it, in the daemon's own code (emulated)", "manyVlansUserMs", "ms"),
    system: subject!("  of it, in the kernel for the daemon (emulated)", "manyVlansSystemMs", "ms"),
    look: subject!("  a look at all of them with nothing to do, CPU (emulated)", "manyVlansLookMs", "ms"),
    memory: subject!("  the daemon's memory for each network", "manyVlansKib", "KiB"),
};

/// Rates by lane, each with one value a round.
type Values = Vec<Vec<f64>>;

/// Here without VLANs, and under the second kernel with them.
pub(crate) fn measure(networks: u16, rounds: u32) -> (Vec<Measurement>, Vec<String>) {
    let mut measurements = here(networks, rounds, false).named(&LOCAL);
    let emulated = Vm::find().and_then(|vm| {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let folder = program.parent().and_then(Path::to_str).ok_or("a folder of programs")?;
        let script = format!(
            "TIDEGATE_BIN={folder} {} --only many-vlans --networks {networks} --rounds {rounds}",
            program.display()
        );
        let (mut answer, mut said) = (None, String::new());
        let run = vm.run(&script, EMULATED, |line| match line.strip_prefix(ANSWER) {
            Some(numbers) => answer = serde_json::from_str(numbers).ok(),
            None => said += &format!("{line}\n"),
        });
        run.map_err(|error| format!("{error}\n{said}"))?;
        answer.map(|numbers: Value| Turns::read(&numbers)).ok_or(said)
    });
    let mut notes = vec![format!("{networks} networks in each turn, {rounds} turns")];
    match emulated {
        Ok(turns) => measurements.extend(turns.named(&ON_VLANS)),
        Err(why) => notes.push(format!("NOT MEASURED, VLANs: {why}")),
    }
    (measurements, notes)
}

/// Under the second kernel: prints the numbers for who began this.
pub(crate) fn print_vlans(networks: u16, rounds: u32) {
    println!("{ANSWER}{}", here(networks, rounds, true).written());
}

struct Turns {
    wall: Values,
    user: Vec<f64>,
    system: Vec<f64>,
    look: Vec<f64>,
    memory: Vec<f64>,
}

impl Turns {
    fn named(self, sort: &Sort) -> Vec<Measurement> {
        let own = |subject, values| Measurement::new(subject, &LANES[1..], &[values]);
        vec![
            Measurement::new(sort.wall, &LANES, &self.wall),
            own(sort.user, self.user),
            own(sort.system, self.system),
            own(sort.look, self.look),
            own(sort.memory, self.memory),
        ]
    }

    fn written(&self) -> Value {
        json!([self.wall[0], self.wall[1], self.user, self.system, self.look, self.memory])
    }

    fn read(numbers: &Value) -> Self {
        let of = |at: usize| -> Vec<f64> {
            numbers[at].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        Self { wall: vec![of(0), of(1)], user: of(2), system: of(3), look: of(4), memory: of(5) }
    }
}

fn here(networks: u16, rounds: u32, vlans: bool) -> Turns {
    let mut turns =
        Turns { wall: vec![Vec::new(); 2], user: Vec::new(), system: Vec::new(), look: Vec::new(), memory: Vec::new() };
    for round in 0..rounds as usize {
        for turn in 0..LANES.len() {
            match (round + turn) % LANES.len() {
                0 => turns.wall[0].push(by_ip(networks, vlans)),
                _ => by_tidegate(networks, vlans, &mut turns),
            }
        }
    }
    turns
}

fn by_ip(networks: u16, vlans: bool) -> f64 {
    let node = Node::new();
    let file = node.world.folder().join("batch");
    let mut lines = String::new();
    for id in 1..=networks {
        let [high, low] = id.to_be_bytes();
        let _infallible = write!(
            lines,
            "link add br{id} type bridge\nlink set br{id} up\naddr add 10.{high}.{low}.1/24 dev br{id}\n\
             addr add fd00:{id:x}::1/64 dev br{id} nodad\n"
        );
        if vlans {
            let _infallible = write!(
                lines,
                "link add link eth0 name vlan{id} type vlan id {id}\nlink set vlan{id} master br{id}\n\
                 link set vlan{id} up\n"
            );
        }
    }
    fs::write(&file, lines).expect("a file of commands");
    let begin = Instant::now();
    node.inside.ok(&format!("ip -batch {}", file.display()));
    let took = milliseconds(begin.elapsed());
    node.clear();
    took
}

fn by_tidegate(networks: u16, vlans: bool, turns: &mut Turns) {
    let node = Node::new();
    let settings = Settings {
        upstreams: vec![[127, 0, 0, 1].into()],
        listen: vec![([127, 0, 0, 1], 443).into()],
        dns: String::new(),
        probes: Some(false),
        more: String::new(),
    };
    let daemon = Daemon::start(&node.world, &node.inside, &settings);
    let mut manifests = String::new();
    for id in 1..=networks {
        let [high, low] = id.to_be_bytes();
        let vlan = if vlans { format!("  vlan: {{ parent: eth0, id: {id} }}\n") } else { String::new() };
        let _infallible = write!(
            manifests,
            "---\napiVersion: tidegate.dev/v1alpha1\nkind: Network\nmetadata: {{ name: t{id} }}\nspec:\n{vlan}  subnets:\n    \
             - {{ cidr: 10.{high}.{low}.0/24, gateway: 10.{high}.{low}.1 }}\n    \
             - {{ cidr: \"fd00:{id:x}::/64\", gateway: \"fd00:{id:x}::1\" }}\n  gateway: Node\n  egress: {{ snat: None }}\n"
        );
    }
    let process = daemon.process().expect("a daemon that runs").pid();
    let (bare, before) = (resident_kib(process), process_times(process));
    let begin = Instant::now();
    daemon.netctl().apply(&manifests);
    turns.wall[1].push(milliseconds(begin.elapsed()));
    let after = process_times(process);
    turns.user.push(milliseconds(after.0 - before.0));
    turns.system.push(milliseconds(after.1 - before.1));
    // what the change itself brings about later
    happens_within(2 * LOOK, || false);
    let before = process_times(process);
    happens_within(LOOK * LOOKS, || false);
    let after = process_times(process);
    turns.look.push(milliseconds((after.0 + after.1 - before.0 - before.1) / LOOKS));
    turns.memory.push((resident_kib(process) - bare) / f64::from(networks));
    drop(daemon);
    node.clear();
}

/// A node that nothing was made on yet.
struct Node {
    world: World,
    inside: Namespace,
    far: Namespace,
}

impl Node {
    fn new() -> Self {
        let world = World::new();
        let (inside, far) = (world.namespace("node", None), world.namespace("far", None));
        world.link((&inside, "eth0"), (&far, "eth0"));
        inside.ip_lines(["addr add 192.0.2.2/24 dev eth0", "route add default via 192.0.2.1"]);
        Self { world, inside, far }
    }

    /// The kernel takes a namespace's links away later, all together: the next turn shall not pay for it.
    fn clear(self) {
        let Self { world, inside, far } = self;
        let path = inside.path().to_owned();
        let held = far.clone();
        drop(inside);
        std::process::Command::new("ip")
            .args(["netns", "delete"])
            .arg(path.file_name().expect("a namespace's name"))
            .status()
            .expect("ip");
        wait_until("the links of the turn are gone", CLEARED, || !held.run("ip link show dev eth0").success());
        drop(world);
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn resident_kib(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the daemon's status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    resident.and_then(|number| number.parse().ok()).expect("the daemon's memory")
}
