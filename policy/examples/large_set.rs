//! What the compiler takes for an address set of a million prefixes that 1 000 namespaces name, without the kernel:
//! `cargo run --release -p tidegate-policy --example large_set [PREFIXES]`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use config::resource::{Resource, ResourceKey, SetSource};
use config::{Prefixes, Resources};
use ipnetwork::{IpNetwork, Ipv4Network};
use policy::compile::Compiled;
use policy::tables::PolicyId;
use policy::{Model, Node, Subject};

const NAMESPACES: usize = 1_000;
const CHANGES: usize = 1_000;
const PORTION: usize = 16_384;

fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    for (kind, prefixes) in [("/32", single(count)), ("/8 to /32", mixed(count))] {
        measure(kind, &prefixes);
    }
}

fn measure(kind: &str, full: &Prefixes) {
    let (resources, node) = (resources(), Node::default());
    let key = resources.address_sets().map(|set| Resource::from(set.clone()).key()).next().expect("one set");
    let subjects: Vec<Subject> = resources
        .namespaces()
        .map(|own| Subject { namespace: own.name.clone(), labels: BTreeMap::new(), ports: Default::default() })
        .collect();
    let empty = Prefixes::new();
    let model = |prefixes| {
        Model::new(resources.namespaces(), resources.networks(), resources.policies(), [], &node)
            .with_sets([(key.clone(), prefixes)])
    };
    let mut compiled = Compiled::new(1, PolicyId(1));
    let (_, policies) = timed(|| (compiled.advance(&model(&empty), subjects.clone()), compiled.settle()));
    let (step, load) = timed(|| put(&mut compiled, &key, full));
    println!(
        "{} prefixes of {kind}: {} writes and {} lines in {load:?}; {NAMESPACES} policies in {policies:?}",
        full.len(),
        step.0,
        step.1
    );
    let (_, whole) = timed(|| in_portions(&mut compiled, &key, full, &empty));
    let (_, portions) = timed(|| in_portions(&mut compiled, &key, &empty, full));
    println!("  in portions of {PORTION}: gone in {whole:?}, back in {portions:?}");
    let (_, again) = timed(|| {
        compiled.advance(&model(full), subjects.clone());
        while compiled.more().is_some() {}
        compiled.settle();
        while compiled.more().is_some() {}
    });
    println!("  all policies looked at again in {again:?}");
    let mut present = full.clone();
    let mut times = Vec::new();
    for number in 0..CHANGES as u32 {
        let address = Ipv4Addr::from(number.wrapping_mul(2_654_435_761) & 0xffff_ff00);
        let prefix: IpNetwork = Ipv4Network::new(address, 24).expect("a length of 24").into();
        let next = match present.contains(&prefix) {
            true => present.changed(&[], &[prefix]),
            false => present.changed(&[prefix], &[]),
        };
        let (_, took) = timed(|| put(&mut compiled, &key, &next));
        times.push(took);
        present = next;
    }
    times.sort();
    println!("  one prefix of 24 bits: p50 {:?}, p99 {:?}", times[CHANGES / 2], times[CHANGES * 99 / 100]);
}

/// Prefix after prefix, as the daemon does it.
fn in_portions(compiled: &mut Compiled, key: &ResourceKey, from: &Prefixes, to: &Prefixes) {
    let difference = from.difference(to);
    let mut present = from.clone();
    for portion in difference.added.chunks(PORTION) {
        present = present.changed(portion, &[]);
        put(compiled, key, &present);
    }
    for portion in difference.removed.chunks(PORTION) {
        present = present.changed(&[], portion);
        put(compiled, key, &present);
    }
}

fn put(compiled: &mut Compiled, key: &ResourceKey, prefixes: &Prefixes) -> (usize, usize) {
    let step = compiled.change_sets([(key, prefixes)]);
    compiled.settle();
    (step.prefixes.len(), step.lines.len())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed())
}

fn resources() -> Resources {
    let mut text =
        "apiVersion: tidegate.dev/v1alpha1\nkind: AddressSet\nmetadata: { name: feed }\nspec: { cidrs: [] }\n"
            .to_owned();
    text += "---\napiVersion: tidegate.dev/v1alpha1\nkind: Network\nmetadata: { name: tenant }\nspec: { subnets: [ { cidr: 10.0.0.0/16, gateway: 10.0.0.1 } ] }\n";
    let mut resources: Resources = parsed(&text).collect();
    for number in 0..NAMESPACES {
        resources.extend(parsed(&format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: Namespace\nmetadata: {{ name: ns-{number} }}\nspec: {{ network: tenant }}\n\
             ---\napiVersion: tidegate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{ name: feed, namespace: ns-{number} }}\n\
             spec: {{ selector: {{}}, allow: [ {{ sets: [ _admin/feed ] }} ] }}\n"
        )));
    }
    assert!(resources.address_sets().all(|set| matches!(set.source, SetSource::Cidrs(_))), "the set lists its own");
    resources
}

fn parsed(text: &str) -> impl Iterator<Item = Resource> {
    let parsed = config::parse("large.yaml", text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    parsed.into_iter().map(|parsed| parsed.resource)
}

/// Spread over all addresses, each once.
fn single(count: usize) -> Prefixes {
    let address = |number: usize| Ipv4Addr::from((number as u32).wrapping_mul(2_654_435_761));
    (0..count).map(|number| IpNetwork::from(std::net::IpAddr::from(address(number)))).collect()
}

/// The same with lengths from 8 to 32, most of them long.
fn mixed(count: usize) -> Prefixes {
    let prefix = |number: usize| {
        let length = 32 - (number.trailing_zeros() as u8).min(24);
        let bits = (number as u32).wrapping_mul(2_654_435_761) & (u32::MAX << (32 - u32::from(length)));
        IpNetwork::from(Ipv4Network::new(Ipv4Addr::from(bits), length).expect("a length of 32 at most"))
    };
    (0..count).map(prefix).collect()
}
