//! Whom a change concerns, with the real daemon: its workloads' epochs go up, so that their open flows are asked again with
//! their next packet, and end or go on; nobody else's do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use gateway::sys::bpf::Map;
use integration::manifests::{allow_cidrs, cluster_policy, policy, two_tenants};
use integration::site::{API, ECHO, OTHER};
use integration::{Pod, Site};

const PORT: u16 = 7;
/// `struct workload` of `bpf/tables.h`.
type Entry = [u8; 56];

/// Each workload's epoch, by number.
fn epochs(site: &Site) -> BTreeMap<u32, u32> {
    let folders = std::fs::read_dir(site.world.bpffs()).unwrap().map(|entry| entry.unwrap().path());
    let pin = folders.map(|folder| folder.join("maps/workloads")).find(|pin| pin.exists()).unwrap();
    let word = |entry: &Entry, at: usize| u32::from_ne_bytes(entry[at..at + 4].try_into().unwrap());
    let entries = Map::<u32, Entry>::open(&pin, "workloads").unwrap().dump().unwrap();
    entries.iter().map(|(_, entry)| (word(entry, 4), word(entry, 12))).collect()
}

fn number(site: &Site, tenant: &str, name: &str) -> u32 {
    let shown = site.netctl().json(&["get", "workload", name, "-n", tenant]);
    shown["status"]["id"].as_u64().unwrap().try_into().unwrap()
}

/// Packets of the open flow from that port, as the kernel counts them in its entry.
fn packets(site: &Site, local: u16) -> Option<u64> {
    let flows = site.netctl().flows(&[]);
    let own = flows.iter().find(|flow| flow["event"] == "open" && flow["local"]["port"] == local);
    own.and_then(|flow| flow["packets"].as_u64())
}

/// One datagram from always the same port, so that it belongs to always the same flow; whether it was echoed.
fn asks(pod: &Pod, of: IpAddr, port: u16) -> bool {
    pod.enter(|| {
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        socket.send_to(b"tidegate", SocketAddr::new(of, PORT)).is_ok() && socket.recv_from(&mut [0; 64]).is_ok()
    })
}

#[test]
fn a_change_asks_the_flows_again_that_it_concerns_and_no_others() {
    let site = Site::start();
    let netctl = site.netctl();
    let set = |cidrs: &str| {
        format!(
            "---\napiVersion: tidegate.dev/v1alpha1\nkind: AddressSet\nmetadata: {{ name: hosts, namespace: shop }}\nspec: {{ cidrs: [ {cidrs} ] }}\n"
        )
    };
    let labelled = |labels: &str| {
        format!(
            "---\napiVersion: tidegate.dev/v1alpha1\nkind: Namespace\nmetadata: {{ name: shop{labels} }}\nspec: {{ network: tenant-a }}\n"
        )
    };
    let rules = "  allow:\n    - sets: [ hosts ]\n";
    let base = cluster_policy("base", "{ matchLabels: { env: prod } }", &allow_cidrs(&["203.0.113.31/32"], ""));
    netctl.apply(&two_tenants());
    netctl.apply(&(labelled(", labels: { env: prod }") + &set("203.0.113.30/32") + &base));
    netctl.apply(&(policy("shop", "web", rules) + &policy("bank", "one", &allow_cidrs(&["203.0.113.30/32"], ""))));
    let (web, bank) = (site.attach("shop", "web-1", &[]), site.attach("bank", "one", &[]));
    let (web_number, bank_number) = (number(&site, "shop", "web-1"), number(&site, "bank", "one"));
    assert!(asks(&web, ECHO.v4(), 40_000) && asks(&web, OTHER.v4(), 40_001) && asks(&bank, ECHO.v4(), 40_002));
    let mut before = epochs(&site);
    let mut concerns = |what: &str, web: bool, bank: bool| {
        let now = epochs(&site);
        let goes_up = |number| now[&number] > before[&number];
        assert_eq!((goes_up(web_number), goes_up(bank_number)), (web, bank), "{what}");
        before = now;
    };

    // Wider, by a set and by a policy: what is open is asked again, and goes on as the flow that it was.
    netctl.ok(&["patch", "addressset", "hosts", "-n", "shop", "--add", "203.0.113.10"]);
    concerns("a set of the other tenant grows", true, false);
    assert!(asks(&web, ECHO.v4(), 40_000) && asks(&bank, ECHO.v4(), 40_002));
    netctl.apply(&policy("bank", "one", &allow_cidrs(&["203.0.113.30/32", "203.0.113.31/32"], "")));
    concerns("a policy of the other tenant grows", false, true);
    assert!(asks(&web, ECHO.v4(), 40_000) && asks(&bank, ECHO.v4(), 40_002) && asks(&bank, OTHER.v4(), 40_003));
    let counted = (packets(&site, 40_000), packets(&site, 40_002));
    assert_eq!(counted, (Some(6), Some(6)), "each is one flow from its first datagram on");

    // A workload that comes and goes, and resources that say the same, are nobody else's matter.
    let third = site.attach("bank", "two", &[]);
    concerns("a neighbour comes", false, false);
    assert!(asks(&third, ECHO.v4(), 40_004));
    netctl.ok(&["detach", "two", "-n", "bank"]);
    netctl.apply(&policy("shop", "web", rules));
    concerns("a neighbour goes, and a policy is applied again", false, false);

    // Narrower, in each of the ways there are: the very next packet is not let through.
    netctl.ok(&["patch", "addressset", "hosts", "-n", "shop", "--remove", "203.0.113.30"]);
    concerns("a set shrinks", true, false);
    assert!(!asks(&web, ECHO.v4(), 40_000), "a flow that the set no longer lists is still open");
    assert!(asks(&web, OTHER.v4(), 40_001), "one that another rule allows is not cut");
    netctl.apply(&labelled(""));
    assert!(!asks(&web, OTHER.v4(), 40_001), "a flow is open by a policy that selects the workload no more");
    netctl.ok(&["patch", "addressset", "hosts", "-n", "shop", "--add", "203.0.113.30"]);
    assert!(asks(&web, ECHO.v4(), 40_005) && asks(&web, API.v4(), 40_006));
    concerns("labels and a set", true, false);
    let own = policy("shop", "web", &allow_cidrs(&["203.0.113.10/32"], ""));
    netctl.apply(&own);
    netctl.ok(&["delete", "addressset", "hosts", "-n", "shop"]);
    concerns("the set goes", true, false);
    assert!(!asks(&web, ECHO.v4(), 40_005), "a flow of a deleted set is still open");
    assert!(asks(&web, API.v4(), 40_006), "one that the policy allows otherwise is not cut");
    netctl.apply(&policy("bank", "one", &allow_cidrs(&["203.0.113.31/32"], "")));
    concerns("a policy shrinks", false, true);
    assert!(!asks(&bank, ECHO.v4(), 40_002), "a flow that the policy no longer allows is still open");
    assert!(asks(&bank, OTHER.v4(), 40_003));
}
