//! Names that lead back inside: whoever owns a name must not choose what a workload reaches behind the node.

use std::net::IpAddr;

use integration::manifests::{cidr_rule, name_rule, open_namespace, policy, two_tenants};
use integration::peers::query::Kind;
use integration::site::{DNS, INSIDE, NODE4, NODE6};
use integration::traffic::Target;
use integration::{Pod, Site};

const PORT: u16 = 7;

/// By name, all of the zone; by address, these.
fn rules(cidrs: &[&str]) -> String {
    let by_address = if cidrs.is_empty() { String::new() } else { cidr_rule(cidrs, "") };
    policy("shop", "rules", &format!("  allow:\n{}{by_address}", name_rule(&["*.example.com"], "")))
}

fn addresses_of(name: &str) -> [IpAddr; 2] {
    let found = INSIDE.into_iter().find(|(own, _)| *own == name);
    found
        .unwrap_or_else(|| panic!("{name} is no name of the zone"))
        .1
        .map(|address| address.parse().expect("an address"))
}

fn dig(pod: &Pod, name: &str, kind: &str) -> String {
    pod.ok(&format!("dig @{} {name}.example.com {kind} +time=3 +tries=1", DNS.v4()))
}

#[track_caller]
fn must_resolve(pod: &Pod, name: &str) {
    for (kind, address) in [Kind::A, Kind::Aaaa].into_iter().zip(addresses_of(name)) {
        assert_eq!(pod.look_up(DNS.v4(), &format!("{name}.example.com"), kind), address);
    }
}

#[track_caller]
fn must_be_filtered(pod: &Pod, name: &str, whose: &str) {
    for (kind, address) in ["A", "AAAA"].into_iter().zip(addresses_of(name)) {
        let said = dig(pod, name, kind);
        assert!(said.contains("status: NXDOMAIN") && said.contains("EDE: 17 (Filtered)"), "{said}");
        assert!(said.contains(&format!("the answer has {address}, {whose}")), "{said}");
    }
}

#[test]
fn a_name_leads_to_nothing_inside_until_a_rule_by_address_says_that_it_is_meant() {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &rules(&[])));
    let web = site.attach("shop", "web", &[]);
    must_be_filtered(&web, "neighbour", "of another network's subnet");
    must_be_filtered(&web, "translated", "of another network's subnet");
    must_be_filtered(&web, "router", "one of the node's own");
    must_be_filtered(&web, "metadata", "a");
    let hinted = dig(&web, "hint", "HTTPS");
    assert!(hinted.contains("EDE: 17 (Filtered)") && hinted.contains("10.200.0.2, of another network's"), "{hinted}");
    for address in addresses_of("neighbour") {
        web.must_not_reach(Target::new("tcp", address, PORT));
    }
    // its own network, and the edge, are ordinary destinations
    must_resolve(&web, "sibling");
    for (kind, address) in [(Kind::A, IpAddr::from(NODE4)), (Kind::Aaaa, NODE6.into())] {
        assert_eq!(web.look_up(DNS.v4(), "shop.example.com", kind), address);
    }

    site.netctl().apply(&rules(&["10.200.0.0/24", "fd00:200::2/128", "169.254.169.254/32", "fd00:ec2::254/128"]));
    must_resolve(&web, "neighbour");
    must_resolve(&web, "metadata");
    assert!(dig(&web, "hint", "HTTPS").contains("status: NOERROR"));
    must_be_filtered(&web, "router", "one of the node's own");

    site.netctl().apply(&rules(&["10.201.0.0/24", "169.254.169.253/32"]));
    must_be_filtered(&web, "neighbour", "of another network's subnet");
    must_be_filtered(&web, "metadata", "a");
}

#[test]
fn who_may_reach_every_address_is_led_there_by_names_too() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    site.netctl().apply(&open_namespace("shop", "tenant-a"));
    let web = site.attach("shop", "web", &[]);
    must_resolve(&web, "neighbour");
    must_resolve(&web, "metadata");
}
