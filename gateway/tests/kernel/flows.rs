//! The flow table: new connections, changes of policy under open flows, quotas, idle times, events.

use std::time::Duration;

use gateway::egress::events::Direction;
use gateway::egress::tables::flows::Origin;
use gateway::settings::Limits;
use gateway::workload::WorkloadId;
use policy::reason::Reason::*;
use policy::tables::{ClassId, PolicyId, RuleId};

use super::frames::*;
use super::world::*;

const SECOND: Duration = Duration::from_secs(1);

fn syn(port: u16) -> Vec<u8> {
    out(&plain(OWN4, FAR4, TCP, &tcp(port, 80, SYN)))
}

fn ack(port: u16) -> Vec<u8> {
    out(&plain(OWN4, FAR4, TCP, &tcp(port, 80, ACK)))
}

#[test]
fn a_flow_says_who_opened_it_and_what_it_carried() {
    let node = Node::new();
    node.sends(&syn(4000));
    node.receives(&into(&plain(FAR4, OWN4, TCP, &tcp(80, 4000, SYN | ACK))));
    node.sends(&ack(4000));
    node.receives(&into(&plain(FAR6, OWN6, TCP, &tcp(5555, 8080, SYN))));
    let mut flows = node.tables.flows().unwrap();
    flows.sort_by_key(|f| f.local);
    let [first, second] = &flows[..] else { panic!("{flows:?}") };
    assert_eq!((first.workload, first.origin, first.rule, first.name), (WorkloadId(1), Origin::Egress, ALLOW, None));
    assert_eq!((first.local, first.local_port, first.remote, first.remote_port), (addr(OWN4), 4000, addr(FAR4), 80));
    assert_eq!((first.sent, first.received), ((2, 120), (1, 60)));
    assert!(first.opened <= first.last_seen);
    assert_eq!((second.origin, second.local_port, second.remote_port), (Origin::Ingress, 8080, 5555));
    assert_eq!(node.tables.open_flows(WorkloadId(1)).unwrap(), 2);
}

#[test]
fn a_new_connection_is_decided_anew() {
    let node = Node::new();
    node.tables.write_name_class(EGRESS, NAME, Some(NAME_CLASS)).unwrap();
    let to = |flags| out(&plain(OWN4, "1.2.3.4", TCP, &tcp(4000, 443, flags)));
    let back = into(&plain("1.2.3.4", OWN4, TCP, &tcp(443, 4000, SYN | ACK)));
    node.learn("1.2.3.4", 60 * SECOND);
    assert_eq!(node.sends(&to(SYN)), AllowedByName);
    node.learn("1.2.3.4", Duration::ZERO);
    assert_eq!(node.sends(&to(SYN)), KnownFlow, "the same handshake's SYN again");
    assert_eq!(node.receives(&back), KnownFlow);
    assert_eq!(node.sends(&to(ACK)), KnownFlow);
    assert_eq!(node.sends(&to(SYN)), NameExpired, "an open flow does not keep its address open");
    assert_eq!(node.tables.open_flows(WorkloadId(1)).unwrap(), 0);
    node.learn("1.2.3.4", 60 * SECOND);
    assert_eq!(node.sends(&to(SYN)), AllowedByName);
    assert_eq!(node.tables.open_flows(WorkloadId(1)).unwrap(), 1);
}

#[test]
fn a_narrowed_policy_ends_open_flows_and_a_widened_one_keeps_them() {
    let mut node = Node::new();
    let udp = out(&plain(OWN6, FAR6, UDP, &udp(4000, 5000)));
    assert_eq!(node.sends(&syn(4000)), AllowedByCidr);
    assert_eq!(node.sends(&syn(4001)), AllowedByCidr);
    assert_eq!(node.sends(&udp), AllowedByCidr);

    let mut second = generation(2);
    second.rules.retain(|r| r.protocol != Some(17));
    second.rules.iter_mut().filter(|r| r.rule == ALLOW).for_each(|r| r.rule = RuleId(21));
    node.tables.write_generation(&second).unwrap();
    node.change(|e| (e.generation, e.egress_policy, e.ingress_policy) = (2, PolicyId(110), PolicyId(111)));
    assert_eq!(node.sends(&ack(4000)), KnownFlow);
    assert_eq!(node.receives(&into(&plain(FAR4, OWN4, TCP, &tcp(80, 4001, SYN | ACK)))), KnownFlow, "by its reply");
    assert_eq!(node.sends(&udp), Revoked);
    assert_eq!(node.sends(&udp), DeniedByDefault, "and gone");
    assert!(node.tables.flows().unwrap().iter().all(|f| f.rule == RuleId(21)), "the rule is the new one");

    node.tables.retire(&generation(1), &policies(&[EGRESS, INGRESS])).unwrap();
    assert_eq!(node.sends(&ack(4000)), KnownFlow);
    assert_eq!(node.sends(&syn(4002)), AllowedByCidr, "the retired one is not needed");
    node.tables.write_generation(&nothing(3)).unwrap();
    node.change(|e| (e.generation, e.egress_policy) = (3, PolicyId(120)));
    assert_eq!(
        node.receives(&into(&plain(FAR4, OWN4, TCP, &tcp(80, 4000, ACK)))),
        Revoked,
        "in the other direction, too"
    );
}

#[test]
fn flows_by_name_live_as_long_as_a_policy_allows_the_name() {
    let mut node = Node::new();
    let to = |flags| out(&plain(OWN4, "1.2.3.4", TCP, &tcp(4000, 443, flags)));
    node.tables.write_name_class(EGRESS, NAME, Some(NAME_CLASS)).unwrap();
    node.learn("1.2.3.4", SECOND * 60);
    assert_eq!(node.sends(&to(SYN)), AllowedByName);
    node.learn("1.2.3.4", Duration::ZERO);

    node.tables.write_generation(&generation(2)).unwrap();
    node.tables.write_name_class(PolicyId(110), NAME, Some(NAME_CLASS)).unwrap();
    node.change(|e| (e.generation, e.egress_policy) = (2, PolicyId(110)));
    assert_eq!(node.sends(&to(ACK)), KnownFlow, "its address expired, its name did not");

    let mut third = generation(3);
    third.prefixes.push(("1.2.3.0/24".parse().unwrap(), ClassId(2)));
    node.tables.write_generation(&third).unwrap();
    node.tables.write_name_class(PolicyId(120), NAME, Some(NAME_CLASS)).unwrap();
    node.change(|e| (e.generation, e.egress_policy) = (3, PolicyId(120)));
    assert_eq!(node.sends(&to(ACK)), Revoked, "a deny by address wins");

    node.learn("1.2.3.4", SECOND * 60);
    node.change(|e| (e.generation, e.egress_policy) = (2, PolicyId(110)));
    assert_eq!(node.sends(&to(SYN)), AllowedByName);
    node.tables.write_name_class(PolicyId(110), NAME, None).unwrap();
    node.change(|_| ());
    assert_eq!(node.sends(&to(ACK)), Revoked, "no policy speaks of the name");
}

#[test]
fn closed_connections_make_room_past_half_of_the_quota() {
    let mut node = Node::new();
    node.change(|e| e.flow_quota = 8);
    let open = |node: &Node| node.tables.open_flows(WorkloadId(1)).unwrap();
    let sent = |port, flags| out(&plain(OWN4, FAR4, TCP, &tcp(port, 80, flags)));
    let received = |port, flags| into(&plain(FAR4, OWN4, TCP, &tcp(80, port, flags)));
    let handshake = |node: &Node, port| {
        assert_eq!(node.sends(&sent(port, SYN)), AllowedByCidr, "port {port}");
        assert_eq!(node.receives(&received(port, SYN | ACK)), KnownFlow);
        assert_eq!(node.sends(&sent(port, ACK)), KnownFlow);
    };
    for port in 4000..4100 {
        handshake(&node, port);
        assert_eq!(node.sends(&sent(port, FIN | ACK)), KnownFlow);
        assert_eq!(node.receives(&received(port, FIN | ACK)), KnownFlow);
        assert_eq!(node.sends(&sent(port, ACK)), KnownFlow, "the last segment still belongs to it");
    }
    assert_eq!(open(&node), 4, "half of the quota waits for late segments");
    for port in 4100..4200 {
        handshake(&node, port);
        assert_eq!(node.sends(&sent(port, RST)), KnownFlow);
    }
    for port in 4200..4300 {
        assert_eq!(node.sends(&sent(port, SYN)), AllowedByCidr, "port {port}");
        assert_eq!(node.receives(&received(port, RST | ACK)), KnownFlow, "refused by the far end");
    }
    assert_eq!(open(&node), 4);
    handshake(&node, 4300);
    assert_eq!(node.receives(&received(4300, RST)), KnownFlow);
    assert_eq!(node.sends(&sent(4300, ACK)), KnownFlow, "a RST from afar may be forged");
    assert_eq!(open(&node), 5);
}

#[test]
fn a_full_quota_refuses_new_flows_of_that_workload_only() {
    let mut node = Node::new();
    node.change(|e| e.flow_quota = 3);
    for port in 1..=3 {
        assert_eq!(node.sends(&syn(port)), AllowedByCidr);
    }
    assert_eq!(node.sends(&syn(4)), QuotaFull);
    assert_eq!(node.sends(&ack(1)), KnownFlow);
    assert_eq!(node.tables.open_flows(WorkloadId(1)).unwrap(), 3);

    ip("link add w2 type veth peer name w2p");
    let second = entry(2);
    let device = ifindex("w2");
    node.tables.switch(device, &second).unwrap();
    node.own(&second, device, 2);
    let other = out(&plain("10.1.0.3", FAR4, TCP, &tcp(4000, 80, SYN)));
    assert_eq!(node.reason_at(gateway::egress::attach::Program::FromWorkload, &other, device, 0), AllowedByCidr);

    node.tables.forget_workload(WorkloadId(1)).unwrap();
    assert_eq!(node.sends(&ack(1)), UnknownDevice);
    let left = node.tables.flows().unwrap();
    assert_eq!(left.iter().map(|f| f.workload).collect::<Vec<_>>(), [WorkloadId(2)]);
    assert_eq!(node.tables.open_flows(WorkloadId(1)).unwrap(), 0);
}

#[test]
fn a_full_table_refuses_new_flows() {
    let node = Node::with(Limits { flows: 16, ..Limits::default() });
    // a hash table of the kernel may go over its size by what each CPU has counted for itself
    let refused = (1..100).find(|port| match node.sends(&syn(*port)) {
        AllowedByCidr => false,
        TableFull => true,
        other => panic!("{other:?}"),
    });
    let refused = refused.expect("100 flows fit in 16");
    let open = node.tables.open_flows(WorkloadId(1)).unwrap();
    assert_eq!((open, u32::from(refused)), (open, open + 1), "what is refused is not counted");
    assert_eq!(node.sends(&ack(1)), KnownFlow);
    let fill = node.tables.fill().unwrap();
    assert!(fill.iter().any(|f| (f.table, f.entries, f.max) == ("flows", open.into(), 16)));
}

#[test]
fn stale_flows_are_reclaimed_without_the_daemon() {
    let mut node = Node::with(Limits { other_idle_s: 1, ..Limits::default() });
    node.change(|e| e.flow_quota = 2);
    assert_eq!(node.sends(&syn(1)), AllowedByCidr);
    assert_eq!(node.sends(&syn(2)), AllowedByCidr);
    node.receives(&into(&plain(FAR4, OWN4, TCP, &tcp(80, 2, SYN | ACK))));
    node.sends(&ack(2));
    assert_eq!(node.sends(&syn(3)), QuotaFull);
    // nothing is asked of the door that would wake anything: the kernel's timer alone takes the half-open flow away
    wait_until("the half-open flow goes", || node.tables.open_flows(WorkloadId(1)).unwrap() == 1);
    let left: Vec<u16> = node.tables.flows().unwrap().iter().map(|f| f.local_port).collect();
    assert_eq!(left, [2], "the established one stays");
    wait_until("the sweep is counted", || node.tables.sweeps().unwrap().reclaimed >= 1);
    assert_eq!(node.sends(&syn(3)), AllowedByCidr);

    node.sends(&out(&plain(OWN4, FAR4, TCP, &tcp(2, 80, RST))));
    wait_until("the reset flow goes", || node.tables.flows().unwrap().iter().all(|f| f.local_port != 2));
}

#[test]
fn while_the_daemon_sweeps_the_kernels_timer_does_not() {
    let node = Node::with(Limits { other_idle_s: 1, ..Limits::default() });
    let sweeps = || node.tables.sweeps().unwrap();
    wait_until("the timer has swept", || sweeps().by_timer > 0);
    node.tables.sweep_next().unwrap();
    let before = sweeps();
    assert_eq!(node.sends(&syn(1)), AllowedByCidr);
    let mut due = Duration::ZERO;
    wait_until("the daemon takes the stale flow", || {
        due = node.tables.sweep_next().unwrap();
        node.tables.flows().unwrap().is_empty()
    });
    let after = sweeps();
    assert_eq!((after.by_timer, after.reclaimed), (before.by_timer, before.reclaimed + 1));
    assert_eq!(node.tables.open_flows(WorkloadId(1)).unwrap(), 0);
    assert_eq!(due, Duration::from_millis(250) / 3);
    wait_until("the timer goes on without it", || sweeps().by_timer > after.by_timer);
}

#[test]
fn closing_shortens_a_flows_life_only_from_both_sides() {
    let node = Node::with(Limits { other_idle_s: 1, ..Limits::default() });
    for port in [1, 2] {
        node.sends(&syn(port));
        node.receives(&into(&plain(FAR4, OWN4, TCP, &tcp(80, port, SYN | ACK))));
        node.sends(&ack(port));
        node.sends(&out(&plain(OWN4, FAR4, TCP, &tcp(port, 80, FIN | ACK))));
    }
    node.receives(&into(&plain(FAR4, OWN4, TCP, &tcp(80, 1, FIN | ACK))));
    wait_until("the closed flow goes", || node.tables.open_flows(WorkloadId(1)).unwrap() == 1);
    assert_eq!(node.tables.flows().unwrap()[0].local_port, 2, "half closed is open");
}

#[test]
fn new_flows_and_drops_are_told_with_rule_and_name() {
    let node = Node::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut events = node.tables.events().unwrap();
        let mut next = async || tokio::time::timeout(10 * SECOND, events.next()).await.unwrap().unwrap();
        node.sends(&syn(4000));
        node.sends(&ack(4000));
        node.sends(&out(&plain(OWN6, "fd00:9:66::1", TCP, &tcp(1, 443, SYN))));
        node.receives(&into(&plain(FAR4, OWN4, TCP, &tcp(7, 22, SYN))));
        node.sends(&ethernet(MAC, BROADCAST, 0x0806, &arp(2, MAC, GATEWAY4, OWN4)));
        let event = next().await;
        assert_eq!((event.workload, event.reason, event.rule), (Some(WorkloadId(1)), AllowedByCidr, ALLOW));
        assert_eq!(
            (event.local, event.local_port, event.remote, event.remote_port),
            (addr(OWN4), 4000, addr(FAR4), 80)
        );
        assert_eq!((event.ifindex, event.direction, event.protocol), (node.device, Direction::FromWorkload, TCP));
        let event = next().await;
        assert_eq!((event.reason, event.rule, event.remote), (DeniedByCidr, DENY, addr("fd00:9:66::1")));
        let event = next().await;
        assert_eq!((event.reason, event.direction, event.local_port), (DeniedByDefault, Direction::ToWorkload, 22));
        let event = next().await;
        assert_eq!((event.reason, event.local), (SpoofedAddress, addr(GATEWAY4)));

        let before = node.tables.losses().unwrap().over_budget;
        for port in 0..1000 {
            node.tables
                .try_frame(
                    gateway::egress::attach::Program::FromWorkload,
                    &out(&plain(OWN4, "10.8.0.1", TCP, &tcp(port, 1, SYN))),
                    node.device,
                    0,
                )
                .unwrap();
        }
        assert!(node.tables.losses().unwrap().over_budget > before, "a workload cannot fill the ring alone");
    });
}
