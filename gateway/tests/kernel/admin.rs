//! The admin tier: a name that it allows comes before what the namespace says of the address.

use std::time::Duration;

use policy::reason::Reason::*;
use policy::tables::{Action, ClassId, Generation, NameId, NamesFirst, PolicyId};
use policy::tiers::Tier;

use super::frames::*;
use super::world::*;

const MINUTE: Duration = Duration::from_secs(60);
const BANNED: &str = "10.9.66.6";
const NEAR: &str = "10.9.0.9";

/// [`generation`], with an admin rule that allows NAME on TCP 443 and so comes before every line of the namespace.
fn under_admin(number: u32) -> Generation {
    let mut generation = generation(number);
    for line in &mut generation.rules {
        if line.class == NAME_CLASS {
            line.tier = Tier::Admin;
        } else if line.policy == PolicyId(EGRESS.0 + 10 * (number - 1)) {
            line.names = NamesFirst::Admin;
        }
    }
    generation
}

/// Switches the workload to [`under_admin`] of that number.
fn take(node: &mut Node, number: u32) -> PolicyId {
    let policy = PolicyId(EGRESS.0 + 10 * (number - 1));
    node.tables.write_generation(&under_admin(number)).unwrap();
    node.tables.write_name_class(policy, NAME, Some(NAME_CLASS)).unwrap();
    node.change(|e| (e.generation, e.egress_policy) = (number, policy));
    policy
}

fn to(address: &str, from: u16, port: u16, flags: u8) -> Vec<u8> {
    out(&plain(OWN4, address, TCP, &tcp(from, port, flags)))
}

#[test]
fn its_names_come_before_the_namespaces_denies() {
    let mut node = Node::new();
    take(&mut node, 2);
    assert_eq!(node.sends(&to(BANNED, 1, 443, SYN)), DeniedByCidr);
    node.learn(BANNED, MINUTE);
    assert_eq!(node.sends(&to(BANNED, 1, 443, SYN)), AllowedByName);
    assert_eq!(node.sends(&to(BANNED, 1, 80, SYN)), DeniedByCidr, "another port");
    assert_eq!(node.sends(&to("10.9.66.7", 1, 443, SYN)), DeniedByCidr, "another address");
    node.learn(BANNED, Duration::ZERO);
    assert_eq!(node.sends(&to(BANNED, 2, 443, SYN)), DeniedByCidr, "its time is over");
    let flow = node.tables.flows().unwrap().pop().unwrap();
    assert_eq!((flow.name, flow.rule, flow.reason), (Some(NAME), BY_NAME, AllowedByName));

    node.learn(NEAR, MINUTE);
    assert_eq!(node.sends(&to(NEAR, 1, 443, SYN)), AllowedByName, "and before its allows");
    assert_eq!(node.sends(&to(NEAR, 1, 80, SYN)), AllowedByCidr);
    node.learn("1.2.3.4", MINUTE);
    assert_eq!(node.sends(&to("1.2.3.4", 1, 443, SYN)), AllowedByName);
    assert_eq!(node.sends(&to("1.2.3.4", 1, 80, SYN)), DeniedByDefault);
}

#[test]
fn the_namespaces_names_do_not() {
    let mut node = Node::new();
    let mut second = under_admin(2);
    second.rules.iter_mut().filter(|line| line.class == NAME_CLASS).for_each(|line| line.tier = Tier::Namespace);
    node.tables.write_generation(&second).unwrap();
    node.tables.write_name_class(PolicyId(110), NAME, Some(NAME_CLASS)).unwrap();
    node.change(|e| (e.generation, e.egress_policy) = (2, PolicyId(110)));
    node.learn(BANNED, MINUTE);
    assert_eq!(node.sends(&to(BANNED, 1, 443, SYN)), DeniedByCidr);
    node.learn("1.2.3.4", MINUTE);
    assert_eq!(node.sends(&to("1.2.3.4", 1, 443, SYN)), AllowedByName);
}

#[test]
fn of_two_names_the_admin_tiers_is_taken() {
    let mut node = Node::new();
    let (other, class) = (NameId(6), ClassId(51));
    let policy = take(&mut node, 2);
    let line = rule(policy, class, Some(6), (443, 16), Action::Allow, ALLOW);
    node.tables.write_rules(&[line]).unwrap();
    node.tables.write_name_class(policy, other, Some(class)).unwrap();
    node.learn_all("1.2.3.4", &[other, NAME], MINUTE);
    assert_eq!(node.sends(&to("1.2.3.4", 1, 443, SYN)), AllowedByName);
    let flow = node.tables.flows().unwrap().pop().unwrap();
    assert_eq!((flow.name, flow.rule), (Some(NAME), BY_NAME), "though it stands in the second slot");
}

#[test]
fn its_flows_outlive_their_address_under_a_deny() {
    let mut node = Node::new();
    take(&mut node, 2);
    node.learn(BANNED, MINUTE);
    assert_eq!(node.sends(&to(BANNED, 1, 443, SYN)), AllowedByName);
    node.learn(BANNED, Duration::ZERO);
    let policy = take(&mut node, 3);
    assert_eq!(node.sends(&to(BANNED, 1, 443, ACK)), KnownFlow, "its address expired, its name did not");
    node.tables.write_name_class(policy, NAME, None).unwrap();
    node.change(|_| ());
    assert_eq!(node.sends(&to(BANNED, 1, 443, ACK)), Revoked, "the admin tier no longer speaks of the name");
}
