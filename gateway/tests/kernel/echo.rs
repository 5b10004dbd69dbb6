//! ICMP by type: a rule for echo requests, whatever their id.

use policy::reason::Reason::*;
use policy::tables::{Action, ClassId, Generation, PolicyId};

use super::frames::{echo, icmp, into, out, plain, tcp, *};
use super::world::*;

const POLICY: PolicyId = PolicyId(110);
const ARRIVING: PolicyId = PolicyId(111);

/// Echo requests to everywhere and from everywhere, and nothing else.
fn echo_only() -> Generation {
    let of =
        |policy, protocol, kind: u16| rule(policy, ClassId::ANY, Some(protocol), (kind << 8, 16), Action::Allow, ALLOW);
    let rules = vec![of(POLICY, ICMP, 8), of(POLICY, ICMPV6, 128), of(ARRIVING, ICMP, 8), of(ARRIVING, ICMPV6, 128)];
    Generation { rules, ..nothing(2) }
}

fn node() -> Node {
    let mut node = Node::new();
    node.tables.write_generation(&echo_only()).unwrap();
    node.change(|e| (e.generation, e.egress_policy, e.ingress_policy) = (2, POLICY, ARRIVING));
    node
}

#[test]
fn requests_pass_whatever_their_id_and_nothing_else_does() {
    let node = node();
    for (own, far, protocol, asks, answers) in [(OWN4, FAR4, ICMP, 8, 0), (OWN6, FAR6, ICMPV6, 128, 129)] {
        for id in [0, 1, 0x0800, 0xfffe] {
            assert_eq!(node.sends(&out(&plain(own, far, protocol, &echo(asks, id)))), AllowedByCidr, "id {id}");
            assert_eq!(node.receives(&into(&plain(far, own, protocol, &echo(answers, id)))), KnownFlow, "id {id}");
        }
        assert_eq!(node.sends(&out(&plain(own, far, protocol, &echo(answers, 7)))), Unsupported, "nobody asked");
        assert_eq!(node.receives(&into(&plain(far, own, protocol, &echo(answers, 7)))), Unsupported, "nobody asked");
        assert_eq!(node.sends(&out(&plain(own, far, protocol, &icmp(asks, 9, &[0, 7, 0, 1])))), Unsupported, "code 9");
        assert_eq!(node.sends(&out(&plain(own, far, TCP, &tcp(4000, 0x0800, SYN)))), DeniedByDefault, "a port alike");

        assert_eq!(node.receives(&into(&plain(far, own, protocol, &echo(asks, 8)))), AllowedByCidr);
        assert_eq!(node.sends(&out(&plain(own, far, protocol, &echo(answers, 8)))), KnownFlow);
    }
}

#[test]
fn an_open_echo_is_decided_again_by_its_type() {
    let mut node = node();
    let asks = out(&plain(OWN4, FAR4, ICMP, &echo(8, 9)));
    let answers = into(&plain(FAR4, OWN4, ICMP, &echo(0, 9)));
    assert_eq!(node.sends(&asks), AllowedByCidr);
    node.change(|_| ());
    assert_eq!(node.receives(&answers), KnownFlow, "an answer, too, is decided as the request was");
    node.change(|_| ());
    assert_eq!(node.sends(&asks), KnownFlow);
    node.tables.write_generation(&nothing(3)).unwrap();
    node.change(|e| (e.generation, e.egress_policy) = (3, PolicyId(120)));
    assert_eq!(node.receives(&answers), Revoked);
    assert_eq!(node.sends(&asks), DeniedByDefault);
}
