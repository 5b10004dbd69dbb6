//! `mode: Audit`: what passes although an audited policy would deny it has a reason of its own, and names that rule.

use std::time::Duration;

use gateway::egress::tables::flows::Flow;
use policy::reason::Reason::{self, *};
use policy::tables::{Action, Audit, ClassId, Generation, NamesFirst, PolicyId, RuleEntry, RuleId};
use policy::tiers::Tier;

use super::frames::*;
use super::world::*;

const MINUTE: Duration = Duration::from_secs(60);
const RECORDED: RuleId = RuleId(77);
const POLICY: PolicyId = PolicyId(110);
const FAR: ClassId = ClassId(0);

/// One line for every address, and NAME on TCP 443 by a rule of that tier.
fn line(action: Action, rule: RuleId, names: NamesFirst, audit: Option<Tier>) -> RuleEntry {
    let audit = audit.map(|tier| Audit { rule: RECORDED, tier });
    RuleEntry { names, audit, ..super::world::rule(POLICY, FAR, None, (0, 0), action, rule) }
}

fn node(line: RuleEntry, tier: Tier) -> Node {
    let mut node = Node::new();
    let named = rule(POLICY, NAME_CLASS, Some(6), (443, 16), Action::Allow, BY_NAME);
    let rules = vec![line, RuleEntry { tier, ..named }];
    node.tables.write_generation(&Generation { rules, ..nothing(2) }).unwrap();
    node.tables.write_name_class(POLICY, NAME, Some(NAME_CLASS)).unwrap();
    node.change(|e| (e.generation, e.egress_policy) = (2, POLICY));
    node
}

fn flow_of(node: &Node, reason: Reason) -> Flow {
    let mut flows = node.tables.flows().unwrap();
    flows.retain(|flow| flow.reason == reason);
    flows.pop().unwrap()
}

/// What a SYN to port 443 meets before the workload resolved NAME to the address, and after.
fn before_and_after(node: &Node) -> (Reason, Reason) {
    let to = |from| out(&plain(OWN4, FAR4, TCP, &tcp(from, 443, SYN)));
    let before = node.sends(&to(1));
    node.learn(FAR4, MINUTE);
    (before, node.sends(&to(2)))
}

#[test]
fn each_kind_of_line_meets_names_as_the_tiers_have_it() {
    use Action::{Allow, Deny, Undecided};
    use NamesFirst::{Admin, All, None as No};
    let (admin, own) = (Some(Tier::Admin), Some(Tier::Namespace));
    let default = RuleId::DEFAULT;
    for (line, tier, wanted) in [
        (line(Allow, default, No, None), Tier::Namespace, (AllowedByDefault, AllowedByDefault)),
        (line(Allow, default, No, own), Tier::Namespace, (Audited, Audited)),
        (line(Allow, ALLOW, Admin, own), Tier::Admin, (Audited, AllowedByName)),
        (line(Allow, ALLOW, Admin, own), Tier::Namespace, (Audited, Audited)),
        (line(Allow, ALLOW, No, admin), Tier::Admin, (Audited, Audited)),
        (line(Allow, default, All, own), Tier::Namespace, (Audited, AllowedByName)),
        (line(Undecided, default, No, own), Tier::Namespace, (DeniedByDefault, Audited)),
        (line(Undecided, default, No, own), Tier::Admin, (DeniedByDefault, AllowedByName)),
        (line(Undecided, default, No, admin), Tier::Admin, (DeniedByDefault, Audited)),
        (line(Deny, DENY, Admin, admin), Tier::Admin, (DeniedByCidr, Audited)),
        (line(Deny, DENY, Admin, None), Tier::Admin, (DeniedByCidr, AllowedByName)),
        (line(Deny, DENY, No, None), Tier::Admin, (DeniedByCidr, DeniedByCidr)),
    ] {
        let node = node(line, tier);
        assert_eq!(before_and_after(&node), wanted, "{line:?} and a name by a rule of {tier:?}");
        if wanted.1 == Audited {
            assert_eq!(flow_of(&node, Audited).rule, RECORDED);
        }
    }
}

#[test]
fn an_audited_flow_goes_on_and_ends_when_the_policy_is_enforced() {
    let mut node = node(line(Action::Allow, RuleId::DEFAULT, NamesFirst::None, Some(Tier::Namespace)), Tier::Namespace);
    let to = |flags| out(&plain(OWN6, FAR6, TCP, &tcp(4000, 80, flags)));
    assert_eq!(node.sends(&to(SYN)), Audited);
    assert_eq!(node.receives(&into(&plain(FAR6, OWN6, TCP, &tcp(80, 4000, SYN | ACK)))), KnownFlow);
    assert_eq!(node.sends(&to(ACK)), KnownFlow);
    node.change(|_| ());
    assert_eq!(node.sends(&to(ACK)), KnownFlow, "still audited");
    assert_eq!((flow_of(&node, Audited).rule, flow_of(&node, Audited).name), (RECORDED, None));
    node.tables.write_generation(&nothing(3)).unwrap();
    node.change(|e| (e.generation, e.egress_policy) = (3, PolicyId(120)));
    assert_eq!(node.sends(&to(ACK)), Revoked);
}

#[test]
fn an_audited_flow_by_name_outlives_its_address() {
    let mut node =
        node(line(Action::Undecided, RuleId::DEFAULT, NamesFirst::None, Some(Tier::Namespace)), Tier::Namespace);
    let to = |flags| out(&plain(OWN4, FAR4, TCP, &tcp(4000, 443, flags)));
    node.learn(FAR4, MINUTE);
    assert_eq!(node.sends(&to(SYN)), Audited);
    node.learn(FAR4, Duration::ZERO);
    node.change(|_| ());
    assert_eq!(node.sends(&to(ACK)), KnownFlow, "its address expired, its name did not");
    assert_eq!(flow_of(&node, Audited).name, Some(NAME));
    node.tables.write_name_class(POLICY, NAME, None).unwrap();
    node.change(|_| ());
    assert_eq!(node.sends(&to(ACK)), Revoked);
}
