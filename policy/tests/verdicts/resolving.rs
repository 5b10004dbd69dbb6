//! Names before there is an address: the compiled answers are those of the reference.

use config::resource::Default as Fallback;
use policy::reason::Reason;
use policy::tables::{Action, PolicyId};
use policy::{Model, Node, compile, decide};

use crate::draw::Draw;
use crate::kernel::Kernel;
use crate::text;
use crate::world::{self, World};

#[test]
fn names_are_judged_alike() {
    let (mut allowed, mut refused, mut held, mut denied) = (0, 0, 0, 0);
    for seed in 0..2_000 {
        let mut draw = Draw(seed);
        let world = World::draw(&mut draw);
        let model = world.model();
        let mut compiled = compile(&model, &world.subjects.iter().cloned().collect(), 1, PolicyId(1));
        let mut kernel = Kernel::load(&compiled.generation());
        let mut written = Vec::new();
        for subject in world.subjects.clone() {
            let Some(policy) = compiled.policy(&subject) else { continue };
            let name = world::any_name(&mut draw);
            let wanted = decide::name::may_resolve(&model, &subject, &name);
            assert_eq!(
                compiled.may_resolve(policy.egress, &name),
                wanted,
                "seed {seed}: {name} for {subject:?}\n{world:#?}"
            );

            let to = world.target(&mut draw);
            let wanted = decide::name::decide(&model, &subject, &name, to.protocol, to.port);
            let class = compiled.name_class(policy.egress, &name);
            let line = class.and_then(|class| {
                kernel.add_rules(&class.new_rules);
                written.extend(class.new_rules);
                kernel.line(policy.egress, class.class, to.protocol, to.port).copied()
            });
            let line = line.filter(|line| line.action == Action::Allow);
            let rule = line.and_then(|line| compiled.rule_name(line.rule));
            if world::audits_denied_names(&model, &subject) {
                assert!(wanted.allowed || rule.is_none(), "seed {seed}: {name} {to}\n{world:#?}");
            } else {
                let by_name = wanted.reason == Reason::AllowedByName;
                assert_eq!(rule, wanted.rule.as_ref().filter(|_| by_name), "seed {seed}: {name} {to}\n{world:#?}");
                let holds = line.is_some_and(|line| line.verify);
                assert_eq!(holds, by_name && wanted.holds, "seed {seed}: {name} {to}\n{world:#?}");
                held += usize::from(holds);
                denied += usize::from(wanted.reason == Reason::DeniedByName);
            }
            assert_eq!(compiled.name_rules().len(), written.len(), "seed {seed}");
            assert!(written.iter().all(|line| compiled.name_rules().contains(line)), "seed {seed}");
            if wanted.allowed { allowed += 1 } else { refused += 1 }
        }
    }
    assert!(allowed > 1_000 && refused > 1_000, "{allowed} allowed, {refused} refused");
    assert!(held > 100 && denied > 100, "{held} held, {denied} denied by name");
}

#[test]
fn an_address_is_open_without_a_name_where_a_port_of_it_is() {
    let rules = "deny 10.2.0.0/16\ndeny 10.3.0.0/16 tcp/443\nallow 10.0.0.0/8 tcp/443\nallow 192.0.2.0/24 !192.0.2.128/25\nallow *.example.com tcp/443\nresolve a.example";
    let policy = text::policy("shop", "rules", "", rules);
    let narrow = text::policy("open", "rules", "app=narrow", "deny 10.2.0.0/16\ndeny 10.3.0.0/16 tcp/443");
    let spaces = [
        text::namespace("shop", Fallback::Deny, Fallback::Deny),
        text::namespace("open", Fallback::Allow, Fallback::Allow),
    ];
    let node = Node::default();
    let model = Model::new(&spaces, [], [&policy, &narrow], [], &node);
    let subjects = [("shop", ""), ("open", ""), ("open", "app=narrow")].map(|(space, own)| text::subject(space, own));
    let compiled = compile(&model, &subjects.clone().into(), 1, PolicyId(1));
    let opens = |subject: usize, address: &str| {
        compiled.opens(compiled.policy(&subjects[subject]).unwrap(), address.parse().unwrap())
    };
    for (address, by_rule, unlisted, narrowed) in [
        ("10.1.1.1", true, true, true),
        ("10.2.0.1", false, true, false),
        ("10.3.0.1", false, true, true),
        ("192.0.2.1", true, true, true),
        ("192.0.2.200", false, true, true),
        ("2001:db8::1", false, true, true),
    ] {
        assert_eq!(
            [opens(0, address), opens(1, address), opens(2, address)],
            [by_rule, unlisted, narrowed],
            "{address}"
        );
    }
}
