//! Containers that come and go as a container engine has it: ADD and DEL of our plugin, and of Debian's `bridge` with
//! `host-local`, which police nothing; and very many at once.

use std::thread;
use std::time::Instant;

use integration::manifests::{allow_cidrs, namespace, policy};
use integration::namespace::Namespace;
use integration::peers::cni::{Container, Plugin};
use integration::world::World;
use serde_json::{Value, json};

use crate::lane::{Gateway, SINK, TCP_PORT};
use crate::report::{Measurement, Subject};
use crate::statistics::median;

const SUBJECT: Subject = Subject {
    title: "a container added and taken away, ADD and DEL together: p50 of each turn",
    key: "cniAddDelMs",
    unit: 1.0,
    suffix: "ms",
};
const ADD: Subject = Subject { title: "ADD alone", key: "cniAddMs", ..SUBJECT };
const LANES: [&str; 2] = ["bridge+host-local", "tidegate-cni"];
/// Containers of one turn, one after the other, each in a network namespace of its own.
const TURN: usize = 5;

/// One at a time, in turns, and then so many at once.
pub(crate) fn measure(slices: u32, many: usize) -> (Vec<Measurement>, Vec<String>) {
    let gateway = Gateway::start("    - { cidr: 10.96.0.0/14, gateway: 10.96.0.1 }\n");
    let rules = allow_cidrs(&[&format!("{SINK}/32")], &format!("[ {{ protocol: TCP, port: {TCP_PORT} }} ]"));
    gateway.daemon.netctl().apply(&(namespace("shop", "tenant") + &policy("shop", "allowed", &rules)));
    let ours = Plugin::new(gateway.daemon.netctl().socket(), "shop");
    let world = World::new();
    let bridge = Plugin::of_debian(
        &world.namespace("node", None),
        json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipam": {
                "type": "host-local", "dataDir": world.folder().join("leases"), "routes": [{ "dst": "0.0.0.0/0" }],
                "ranges": [[{ "subnet": "10.100.0.0/16" }]],
            },
        }),
    );
    let mut made = 0;
    let mut fresh = || {
        made += 1;
        container(&gateway.world, &format!("one-{made}")).0
    };
    let mut adds = vec![Vec::new(); LANES.len()];
    let both = crate::in_turns(slices, LANES.len(), |lane| {
        let plugin = [&bridge, &ours][lane];
        let each = (0..TURN).map(|_| fresh()).map(|one| ["ADD", "DEL"].map(|command| timed(plugin, command, &one)));
        let times: Vec<[f64; 2]> = each.collect();
        adds[lane].push(median(&times.iter().map(|[add, _]| *add).collect::<Vec<_>>()).value);
        median(&times.iter().map(|[add, del]| add + del).collect::<Vec<_>>()).value
    });
    // the first round warms up
    adds.iter_mut().for_each(|values| *values = values.split_off(1));
    let measurements = vec![Measurement::new(SUBJECT, &LANES, &both), Measurement::new(ADD, &LANES, &adds)];
    (measurements, vec![at_once(&gateway.world, &ours, many)])
}

fn timed(plugin: &Plugin, command: &str, container: &Container) -> f64 {
    let begin = Instant::now();
    plugin.ok(command, container);
    begin.elapsed().as_secs_f64() * 1e3
}

fn at_once(world: &World, plugin: &Plugin, many: usize) -> String {
    let containers: Vec<_> = (0..many).map(|number| container(world, &format!("c{number}"))).collect();
    let mut said = format!("{many} containers at once:");
    for command in ["ADD", "DEL"] {
        let begin = Instant::now();
        let errors: Vec<Value> = thread::scope(|scope| {
            let call = |(container, _): &(Container, Namespace)| {
                let container = container.clone();
                scope.spawn(move || plugin.call(command, Some(&container)).err())
            };
            let calls: Vec<_> = containers.iter().map(call).collect();
            calls.into_iter().filter_map(|call| call.join().expect("a call that ends")).collect()
        });
        let first = errors.first().map(|error| format!(" ({})", error["msg"])).unwrap_or_default();
        said += &format!(" {command} {:.1} s, {} failed{first};", begin.elapsed().as_secs_f64(), errors.len());
    }
    said
}

fn container(world: &World, id: &str) -> (Container, Namespace) {
    let namespace = world.namespace(id, None);
    (Container { id: id.to_owned(), netns: namespace.path().to_owned(), arguments: String::new() }, namespace)
}
