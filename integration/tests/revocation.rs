//! What was taken back stays taken back, whatever becomes of the workload's link or of the node's addresses.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use integration::manifests::{allow_cidrs, policy, two_tenants};
use integration::site::ECHO;
use integration::wait::wait_until;
use integration::{Pod, Site};

const PATIENCE: Duration = Duration::from_secs(10);

/// One datagram from always the same port, so that it belongs to always the same flow; whether it was echoed.
fn asks(pod: &Pod) -> bool {
    pod.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:40000").expect("a port of the workload");
        socket.set_read_timeout(Some(Duration::from_millis(700))).expect("a deadline");
        let sent = socket.send_to(b"tidegate", SocketAddr::new(ECHO.v4(), 7));
        sent.is_ok() && socket.recv_from(&mut [0; 64]).is_ok()
    })
}

/// Index of the workload's host side, as its own side names it.
fn host_side(pod: &Pod) -> Option<u64> {
    pod.ip_json("link show").as_array()?.iter().find(|link| link["ifname"] == Pod::INTERFACE)?["link_index"].as_u64()
}

#[test]
fn a_workload_that_deletes_its_link_revives_no_flow() {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", &allow_cidrs(&["203.0.113.30/32"], ""))));
    let web = site.attach("shop", "web-1", &[]);
    let remake = || {
        let former = host_side(&web);
        web.ip(&format!("link delete {}", Pod::INTERFACE));
        wait_until("the pair was made anew", PATIENCE, || host_side(&web).is_some_and(|now| Some(now) != former));
        wait_until("the workload has its route", PATIENCE, || web.run("ip route get 203.0.113.30").success());
    };
    remake();
    wait_until("the flow is open", PATIENCE, || asks(&web));

    site.netctl().apply(&policy("shop", "shop-egress", &allow_cidrs(&["203.0.113.31/32"], "")));
    for _ in 0..3 {
        remake();
        assert!(!asks(&web), "a flow that the policy ended lives again");
    }

    site.netctl().apply(&policy("shop", "shop-egress", &allow_cidrs(&["203.0.113.30/32"], "")));
    wait_until("the new host side lets through what is allowed", PATIENCE, || asks(&web));
}

#[test]
fn a_flow_does_not_follow_its_address_into_the_node() {
    let site = Site::start();
    let rules = allow_cidrs(&["203.0.113.30/32"], "");
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", &rules)));
    let web = site.attach("shop", "web-1", &[]);
    assert!(asks(&web));

    let _echo = site.node.echo_server(&[SocketAddr::from(([0, 0, 0, 0], 7))]);
    site.node.ip(&format!("addr add {}/32 dev lo", ECHO.v4()));
    wait_until("the open flow ends with the move", PATIENCE, || !asks(&web));
    assert!(!asks(&web));

    site.node.ip(&format!("addr del {}/32 dev lo", ECHO.v4()));
    wait_until("it is an ordinary destination again", PATIENCE, || asks(&web));
}
